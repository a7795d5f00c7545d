//! Strangers at the socket: their connection ends, the log says why, and everybody else is served meanwhile.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use zccache_integration_tests::{Sandbox, sources, wait};
use zccache_proto::ByteStrings;
use zccache_proto::endpoint::Endpoint;
use zccache_proto::frame::{FRAME_BYTES_MAX, HEADER_BYTES, decode, encode, frame_bytes};
use zccache_proto::handshake::{Hello, Welcome};
use zccache_proto::message::{Compile, Reply, Request, Stdio, StreamKind};

fn served() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.start();
    sandbox.write("a.c", sources::SMALL);
    sandbox
}

fn connect(sandbox: &Sandbox) -> UnixStream {
    let stream = UnixStream::connect(Endpoint::in_directory(sandbox.runtime_dir()).socket()).unwrap();
    stream.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    stream
}

/// A connection that has shaken hands.
fn greeted(sandbox: &Sandbox) -> UnixStream {
    let mut stream = connect(sandbox);
    stream.write_all(&encode(&Hello::ours()).unwrap()).unwrap();
    assert!(matches!(receive::<Welcome>(&mut stream), Welcome::Accepted { .. }));
    stream
}

fn receive<T: serde::de::DeserializeOwned>(stream: &mut UnixStream) -> T {
    let mut frame = vec![0; HEADER_BYTES];
    stream.read_exact(&mut frame).unwrap();
    let bytes = frame_bytes(&frame).unwrap().unwrap();
    frame.resize(bytes, 0);
    stream.read_exact(&mut frame[HEADER_BYTES..]).unwrap();
    decode(&frame[HEADER_BYTES..]).unwrap()
}

/// Waits for the service to close the connection; what it says before does not matter.
#[track_caller]
fn is_closed(stream: &mut UnixStream) {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(e) => panic!("the service keeps the connection open: {e}"),
        }
    }
}

/// The one who behaves is served, and by the same service as before.
#[track_caller]
fn others_are_served(sandbox: &Sandbox) {
    let before = sandbox.stats();
    sandbox.compile("gcc -c a.c").expect_success();
    let after = sandbox.stats();
    assert_eq!(after.counters.requests - before.counters.requests, 1);
    assert_eq!(after.counters.fallbacks_reported, before.counters.fallbacks_reported);
    assert_eq!(after.json["service"]["pid"], before.json["service"]["pid"]);
}

fn over_long() -> Vec<u8> {
    let mut bytes = u32::try_from(FRAME_BYTES_MAX + 1).unwrap().to_le_bytes().to_vec();
    bytes.extend([0; 100]);
    bytes
}

fn frame_of(body: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    frame.extend(body);
    frame
}

#[test]
fn garbage_instead_of_a_greeting_ends_the_connection() {
    let sandbox = served();
    let texts: [Vec<u8>; 5] = [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
        vec![0xff; 64],
        over_long(),
        frame_of(b"\xc1\xc1\xc1"),
        encode(&Hello { magic: "other".into(), ..Hello::ours() }).unwrap(),
    ];
    for text in texts {
        let mut stream = connect(&sandbox);
        // The service may close before it has read everything.
        let _ = stream.write_all(&text);
        is_closed(&mut stream);
        others_are_served(&sandbox);
    }
}

#[test]
fn another_protocol_version_is_told_so() {
    let sandbox = served();
    for protocol in [0, u32::MAX] {
        let mut stream = connect(&sandbox);
        stream.write_all(&encode(&Hello { protocol, ..Hello::ours() }).unwrap()).unwrap();
        assert!(matches!(receive::<Welcome>(&mut stream), Welcome::Mismatch { .. }));
        is_closed(&mut stream);
    }
    others_are_served(&sandbox);
}

#[test]
fn garbage_after_the_greeting_ends_the_connection() {
    let sandbox = served();
    for text in
        [vec![0xff; 64], over_long(), frame_of(b"\x81\xa7Unknown\x80"), frame_of(b""), frame_of(b"\xc0")]
    {
        let mut stream = greeted(&sandbox);
        let _ = stream.write_all(&text);
        is_closed(&mut stream);
        others_are_served(&sandbox);
    }
}

#[test]
fn a_close_at_any_byte_of_a_frame_hurts_nobody() {
    let sandbox = served();
    let frame = encode(&Request::Ping { nonce: 1 }).unwrap();
    for length in 0..frame.len() {
        let mut stream = greeted(&sandbox);
        stream.write_all(&frame[..length]).unwrap();
    }
    others_are_served(&sandbox);
}

#[test]
fn a_frame_that_comes_byte_by_byte_is_a_frame() {
    let sandbox = served();
    let mut stream = greeted(&sandbox);
    for byte in encode(&Request::Ping { nonce: 7 }).unwrap() {
        stream.write_all(&[byte]).unwrap();
    }
    assert!(matches!(receive::<Reply>(&mut stream), Reply::Pong { nonce: 7 }));
}

#[test]
fn many_requests_in_one_piece_are_answered_in_order() {
    let sandbox = served();
    let mut stream = greeted(&sandbox);
    let all: Vec<u8> = (0..100).flat_map(|nonce| encode(&Request::Ping { nonce }).unwrap()).collect();
    stream.write_all(&all).unwrap();
    for expected in 0..100 {
        assert!(matches!(receive::<Reply>(&mut stream), Reply::Pong { nonce } if nonce == expected));
    }
}

#[test]
fn silent_clients_are_sent_away_and_hold_nobody_up() {
    let sandbox = served();
    let mut silent: Vec<_> = (0..100).map(|_| connect(&sandbox)).collect();
    let mut half: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = connect(&sandbox);
            stream.write_all(&encode(&Hello::ours()).unwrap()[..5]).unwrap();
            stream
        })
        .collect();
    others_are_served(&sandbox);
    is_closed(&mut silent[0]);
    is_closed(&mut half[0]);
}

#[test]
fn a_client_that_never_reads_holds_nobody_up() {
    let sandbox = served();
    let mut stream = greeted(&sandbox);
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let ask = encode(&Request::Stats { zero: false }).unwrap();
    // Until the service's answers, unread, keep it from reading more; or for long enough.
    for _ in 0..100_000 {
        if stream.write_all(&ask).is_err() {
            break;
        }
    }
    others_are_served(&sandbox);
}

#[test]
fn the_log_says_why_a_connection_ended() {
    let mut sandbox = Sandbox::new();
    sandbox.set("ZCCACHE_LOG", "debug");
    sandbox.start();
    let mut stream = connect(&sandbox);
    stream.write_all(&over_long()).ok();
    is_closed(&mut stream);
    sandbox.client("stop").expect_success();
    let mut log = String::new();
    collect_text(&sandbox.path("home"), &mut log);
    collect_text(&sandbox.cache_dir(), &mut log);
    assert!(log.contains("over the limit"), "no reason in the log:\n{log}");
}

/// Appends the text of each log file below `directory`.
fn collect_text(directory: &std::path::Path, text: &mut String) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            collect_text(&path, text);
        } else if path.to_string_lossy().contains("log") {
            text.push_str(&String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()));
        }
    }
}

/// A wrapper asks once, and need not wake the service by leaving.
#[test]
fn whoever_was_answered_a_compile_is_hung_up_on() {
    let sandbox = served();
    let mut stream = greeted(&sandbox);
    let none = StreamKind::Null;
    let compile = Compile {
        tool: b"/usr/bin/gcc".to_vec(),
        argv: ["gcc", "--version"].iter().collect(),
        cwd: b"/".to_vec(),
        env: ByteStrings::default(),
        umask: 0o022,
        stdio: Stdio { stdin: none, stdout: none, stderr: none, merged: false },
        descriptors: Vec::new(),
        recache: false,
        patient_until_ns: 0,
        root: None,
    };
    stream.write_all(&encode(&Request::Compile(Box::new(compile))).unwrap()).unwrap();
    assert!(matches!(receive::<Reply>(&mut stream), Reply::PassThrough { .. }));
    // Far less than it waits for another request of somebody else's.
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    is_closed(&mut stream);
    let mut person = greeted(&sandbox);
    for nonce in 0..2 {
        person.write_all(&encode(&Request::Ping { nonce }).unwrap()).unwrap();
        assert!(matches!(receive::<Reply>(&mut person), Reply::Pong { .. }), "all others may ask again");
    }
}
