//! What a stranger may send: any bytes are a frame or an error, and what is a message can be sent on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use zccache_proto::frame::{FRAME_BYTES_MAX, HEADER_BYTES, decode, encode, frame_bytes};
use zccache_proto::handshake::{Hello, Welcome, check};
use zccache_proto::message::{Reply, Request};

fuzz_target!(|received: &[u8]| {
    if let Ok(Some(bytes)) = frame_bytes(received) {
        assert!(bytes <= FRAME_BYTES_MAX + HEADER_BYTES);
    }
    let body = received.get(HEADER_BYTES..).unwrap_or_default();
    if let Ok(hello) = decode::<Hello>(body) {
        let _ = check(&hello);
    }
    let _ = decode::<Welcome>(body);
    if let Ok(request) = decode::<Request>(body) {
        let again = encode(&request).expect("what came in a frame fits into one");
        let same: Request = decode(&again[HEADER_BYTES..]).expect("what we send we understand");
        assert_eq!(encode(&same).expect("as before"), again);
        if let Request::Compile(compile) = request {
            let _ = compile.argv.iter().chain(compile.env.iter()).count();
            let _ = compile.env.value_of(b"PATH");
            let _ = compile.is_sound();
        }
    }
    if let Ok(reply) = decode::<Reply>(body) {
        let _ = encode(&reply);
    }
});
