//! What only Unix sockets have: descriptors beside a message, a backlog, and a file.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use zccache_proto::async_transport::Listener;
use zccache_proto::blocking_transport::Connection;
use zccache_proto::endpoint::Endpoint;
use zccache_proto::frame;
use zccache_proto::message::{Reply, Request};
use zccache_proto::transport::{DESCRIPTORS_MAX, RecvError};

use crate::{Fixture, PATIENCE, SHORT, against, connect, fixture};

/// A client that knows nothing of frames.
pub(crate) fn raw(endpoint: &Endpoint) -> UnixStream {
    UnixStream::connect(endpoint.socket()).unwrap()
}

#[test]
fn a_full_backlog_does_not_hold_a_client_up() {
    let Fixture { endpoint, _directory } = fixture();
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let (family, kind) = (rustix::net::AddressFamily::UNIX, rustix::net::SocketType::STREAM);
    let socket = rustix::net::socket_with(family, kind, flags, None).unwrap();
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(endpoint.socket()).unwrap()).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let mut kept = Vec::new();
    let begun = Instant::now();
    let error = loop {
        match Connection::connect(&endpoint, SHORT) {
            Ok(connection) => kept.push(connection),
            Err(e) => break e,
        }
        assert!(kept.len() < 10, "the backlog was to be full");
    };
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    // No patience at all is not "for ever".
    let error = Connection::connect(&endpoint, Duration::ZERO).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert!(begun.elapsed() < PATIENCE);
}

#[tokio::test]
async fn descriptors_come_with_their_message_and_no_more_than_the_limit_stay() {
    against(
        |endpoint| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"of the client").unwrap();
            let mut connection = connect(&endpoint);
            let ping = frame::encode(&Request::Ping { nonce: 0 }).unwrap();
            let two = [file.as_fd(), file.as_fd()];
            connection.send_all(&ping, &two).unwrap();
            let all = [file.as_fd(); DESCRIPTORS_MAX];
            connection.send_all(&ping, &all).unwrap();
            assert!(connection.send_all(&ping, &[file.as_fd(); DESCRIPTORS_MAX + 1]).is_err());
            assert!(matches!(connection.recv::<Reply>(), Err(RecvError::Closed)));
        },
        async |listener| {
            let mut connection = listener.accept().await.unwrap().into_connection().unwrap();
            connection.recv::<Request>().await.unwrap();
            assert_eq!(connection.take_descriptors().len(), 2);
            connection.recv::<Request>().await.unwrap();
            let came = connection.take_descriptors();
            assert_eq!(came.len(), DESCRIPTORS_MAX);
            let mut text = [0; 13];
            rustix::io::pread(&came[0], &mut text, 0).unwrap();
            assert_eq!(&text, b"of the client");
            assert!(rustix::io::fcntl_getfd(&came[0]).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
            assert!(connection.take_descriptors().is_empty());
        },
    )
    .await;
}

#[tokio::test]
async fn the_socket_is_the_owners_alone_and_a_stale_one_is_replaced() {
    let temp = tempfile::tempdir().unwrap();
    for directory in ["short".to_string(), "long".repeat(50)] {
        let endpoint = Endpoint::in_directory(temp.path().join(directory));
        endpoint.prepare().unwrap();
        drop(Listener::bind(&endpoint).unwrap());
        let refused = Connection::connect(&endpoint, PATIENCE).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        let listener = Listener::bind(&endpoint).unwrap();
        assert_eq!(endpoint.socket().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let connection = connect(&endpoint);
        assert_eq!(connection.peer().pid, Some(std::process::id()));
        listener.accept().await.unwrap().into_connection().unwrap();
    }
    let nowhere = Endpoint::in_directory(temp.path().join("nowhere"));
    assert_eq!(Connection::connect(&nowhere, PATIENCE).unwrap_err().kind(), std::io::ErrorKind::NotFound);
}

#[tokio::test]
async fn whoever_has_hung_up_has_read_all_that_could_be_sent_to_him() {
    // The client's patience ends about when the news comes: before, after, and while it is on its way.
    const ROUNDS: u64 = 60;
    let mut arrived = 0;
    for round in 0..ROUNDS {
        let (hung_up, has_hung_up) = std::sync::mpsc::channel();
        let (sent, was_sent) = std::sync::mpsc::channel();
        let news = against(
            move |endpoint| {
                let mut connection = connect(&endpoint);
                connection.send(&Request::Ping { nonce: round }).unwrap();
                connection.set_recv_timeout(Some(SHORT / 6));
                let got = connection.recv_or_hang_up::<Reply>().is_ok();
                hung_up.send(()).unwrap();
                // It is there still: only the hang-up keeps the other side from sending more.
                (was_sent.recv().unwrap(), got)
            },
            async |listener| {
                let mut connection = listener.accept().await.unwrap().into_connection().unwrap();
                connection.recv::<Request>().await.unwrap();
                match round % 3 {
                    0 => has_hung_up.recv().unwrap(),
                    _ => tokio::time::sleep(SHORT / 240 * u32::try_from(round).unwrap()).await,
                }
                sent.send(connection.send(&Reply::Pong { nonce: round }).await.is_ok()).unwrap();
            },
        );
        let (taken, got) = news.await;
        assert_eq!(taken, got, "round {round}: one side thinks that the message has arrived");
        arrived += u64::from(got);
    }
    assert!((1..ROUNDS).contains(&arrived), "{arrived} of {ROUNDS} came: not both ways were tried");
}
