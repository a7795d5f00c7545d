//! What a stranger may send: any bytes are a frame or an error, and what is a message can be sent on.

use zccache_proto::frame::{FRAME_BYTES_MAX, HEADER_BYTES, decode, encode, frame_bytes};
use zccache_proto::handshake::{Hello, Welcome, check as check_greeting};
use zccache_proto::message::{Reply, Request};

/// Panics if that is not so. Says whether the bytes were a message.
pub fn check(received: &[u8]) -> bool {
    if let Ok(Some(bytes)) = frame_bytes(received) {
        assert!(bytes <= FRAME_BYTES_MAX + HEADER_BYTES);
    }
    let body = received.get(HEADER_BYTES..).unwrap_or_default();
    let greeting = decode::<Hello>(body);
    if let Ok(hello) = &greeting {
        let _ = check_greeting(hello);
    }
    let welcome = decode::<Welcome>(body);
    let request = decode::<Request>(body);
    let reply = decode::<Reply>(body);
    let is_message = greeting.is_ok() || welcome.is_ok() || request.is_ok() || reply.is_ok();
    if let Ok(request) = request {
        let again = encode(&request).expect("what came in a frame fits into one");
        let same: Request = decode(&again[HEADER_BYTES..]).expect("what we send we understand");
        assert_eq!(encode(&same).expect("as before"), again);
        if let Request::Compile(compile) = request {
            let _ = compile.argv.iter().chain(compile.env.iter()).count();
            let _ = compile.env.value_of(b"PATH");
            let _ = compile.is_sound();
        }
    }
    if let Ok(reply) = reply {
        let _ = encode(&reply);
    }
    is_message
}
