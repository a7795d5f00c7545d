//! What only named pipes have: instances, of which each takes one client, and an owner.

use std::fs::File;
use std::io::ErrorKind;
use std::time::Instant;

use zccache_proto::async_transport::Listener;
use zccache_proto::blocking_transport::Connection;
use zccache_proto::endpoint::Endpoint;
use zccache_proto::frame;
use zccache_proto::message::Request;

use crate::{Fixture, PATIENCE, SHORT, connect, fixture};

/// `ERROR_PIPE_BUSY`: every instance has its client.
const PIPE_BUSY: i32 = 231;

/// A client that knows nothing of frames.
pub(crate) fn raw(endpoint: &Endpoint) -> File {
    let begun = Instant::now();
    loop {
        match File::options().read(true).write(true).open(endpoint.socket()) {
            Err(e) if e.raw_os_error() == Some(PIPE_BUSY) && begun.elapsed() < PATIENCE => {
                std::thread::sleep(SHORT / 6);
            }
            opened => return opened.unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipe_that_stays_busy_is_a_clear_error_and_in_time() {
    let Fixture { endpoint, _directory } = fixture();
    let listener = Listener::bind(&endpoint).unwrap();
    // Nobody accepts: as many get in as there are instances that wait.
    let mut kept = Vec::new();
    let begun = Instant::now();
    let error = loop {
        match Connection::connect(&endpoint, SHORT) {
            Ok(connection) => kept.push(connection),
            Err(e) => break e,
        }
        assert!(kept.len() <= 64, "the pool was to be used up");
    };
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(kept.len(), (4 * cores).min(64));
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!(error.to_string().contains("end zccache-service"), "{error}");
    assert!(begun.elapsed() < PATIENCE);
    // Whoever waits gets in as soon as somebody is accepted.
    let waits = {
        let endpoint = endpoint.clone();
        tokio::task::spawn_blocking(move || Connection::connect(&endpoint, PATIENCE).unwrap())
    };
    tokio::time::sleep(SHORT).await;
    listener.accept().await.unwrap();
    waits.await.unwrap();
}

#[tokio::test]
async fn both_ends_know_the_others_process_and_the_user() {
    let Fixture { endpoint, _directory } = fixture();
    let listener = Listener::bind(&endpoint).unwrap();
    let connection = connect(&endpoint);
    assert_eq!(connection.peer().pid, Some(std::process::id()));
    assert!(connection.peer().is_ours());
    let accepted = listener.accept().await.unwrap().into_connection().unwrap();
    assert_eq!(accepted.peer_pid(), Some(std::process::id()));
    assert!(accepted.peer_has_our_groups());
}

#[tokio::test]
async fn handles_beside_a_message_are_refused() {
    use std::os::windows::io::AsHandle;
    let Fixture { endpoint, _directory } = fixture();
    let _listener = Listener::bind(&endpoint).unwrap();
    let ping = frame::encode(&Request::Ping { nonce: 0 }).unwrap();
    let file = tempfile::tempfile().unwrap();
    let refused = connect(&endpoint).send_all(&ping, &[file.as_handle()]);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_pipe_of_a_service_that_is_gone_is_made_anew() {
    let Fixture { endpoint, _directory } = fixture();
    for _ in 0..3 {
        let listener = Listener::bind(&endpoint).unwrap();
        let _connection = connect(&endpoint);
        listener.accept().await.unwrap();
        drop(listener);
        // Its tasks end a moment later, and with them the instances.
        while Connection::connect(&endpoint, SHORT).is_ok() {
            tokio::time::sleep(SHORT / 6).await;
        }
    }
}
