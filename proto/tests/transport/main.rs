//! Both transports against each other, over a real socket or pipe: what goes well, and every way in which it may not.
//!
//! One suite for every platform; what only one of them has is in `sockets.rs` and `pipes.rs`.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[cfg_attr(unix, path = "sockets.rs")]
#[cfg_attr(windows, path = "pipes.rs")]
mod platform;

use std::io::{ErrorKind, Read, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use zccache_proto::async_transport::{Connection as Served, Listener};
use zccache_proto::blocking_transport::Connection;
use zccache_proto::endpoint::Endpoint;
use zccache_proto::frame::{self, FRAME_BYTES_MAX, FrameError};
use zccache_proto::message::{Reply, Request};
use zccache_proto::transport::{RecvError, SendError, Timeout};

use platform::raw;

/// Longer than anything here takes on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Short enough to wait for, long enough to be told from "at once".
pub(crate) const SHORT: Duration = Duration::from_millis(60);

pub(crate) struct Fixture {
    endpoint: Endpoint,
    _directory: tempfile::TempDir,
}

pub(crate) fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::in_directory(directory.path().join("run"));
    endpoint.prepare().unwrap();
    Fixture { endpoint, _directory: directory }
}

/// Runs `client` on a thread while `server` serves the connections; both ends' panics fail the test.
pub(crate) async fn against<T: Send + 'static>(
    client: impl FnOnce(Endpoint) -> T + Send + 'static,
    server: impl AsyncFnOnce(Listener),
) -> T {
    let Fixture { endpoint, _directory } = fixture();
    let listener = Listener::bind(&endpoint).unwrap();
    let client = tokio::task::spawn_blocking(move || client(endpoint));
    tokio::time::timeout(PATIENCE, server(listener)).await.expect("the server ends");
    client.await.unwrap()
}

pub(crate) fn connect(endpoint: &Endpoint) -> Connection {
    Connection::connect(endpoint, PATIENCE).unwrap()
}

async fn echo_pings(mut connection: Served) -> RecvError {
    loop {
        match connection.recv::<Request>().await {
            Ok(Request::Ping { nonce }) => connection.send(&Reply::Pong { nonce }).await.unwrap(),
            Ok(other) => panic!("unexpected {other:?}"),
            Err(e) => return e,
        }
    }
}

#[tokio::test]
async fn many_messages_on_one_connection_then_a_clean_close() {
    against(
        |endpoint| {
            let mut connection = connect(&endpoint);
            for n in 0..2000 {
                connection.send(&Request::Ping { nonce: n }).unwrap();
                assert!(matches!(connection.recv(), Ok(Reply::Pong { nonce }) if nonce == n));
            }
        },
        async |listener| {
            let connection = listener.accept().await.unwrap().into_connection().unwrap();
            assert_eq!(connection.peer_pid(), Some(std::process::id()));
            assert!(matches!(echo_pings(connection).await, RecvError::Closed));
        },
    )
    .await;
}

#[tokio::test]
async fn several_frames_may_come_and_go_at_once() {
    against(
        |endpoint| {
            let mut connection = connect(&endpoint);
            let mut bytes = Vec::new();
            for nonce in 0..100 {
                frame::encode_into(&Request::Ping { nonce }, &mut bytes).unwrap();
            }
            connection.send_all(&bytes, &[]).unwrap();
            for n in 0..100 {
                assert!(matches!(connection.recv(), Ok(Reply::Pong { nonce }) if nonce == n));
            }
            assert!(matches!(connection.recv::<Reply>(), Err(RecvError::Closed)));
        },
        async |listener| {
            let mut connection = listener.accept().await.unwrap().into_connection().unwrap();
            for _ in 0..100 {
                let Ok(Request::Ping { nonce }) = connection.recv().await else { panic!("a ping") };
                connection.queue(&Reply::Pong { nonce }).unwrap();
            }
            connection.flush().await.unwrap();
        },
    )
    .await;
}

#[tokio::test]
async fn large_frames_cross_both_ways() {
    against(
        |endpoint| {
            let mut connection = connect(&endpoint);
            let large = serde_bytes::ByteBuf::from(vec![7; FRAME_BYTES_MAX - 16]);
            connection.send(&large).unwrap();
            assert_eq!(connection.recv::<serde_bytes::ByteBuf>().unwrap(), large);
        },
        async |listener| {
            let mut connection = listener.accept().await.unwrap().into_connection().unwrap();
            let large: serde_bytes::ByteBuf = connection.recv().await.unwrap();
            connection.send(&large).await.unwrap();
        },
    )
    .await;
}

/// The next client. It is told so by `let_in`: clients that come while nobody is let in are taken in no certain order
/// where there is a pool of instances, and one that has left by then is none at all.
async fn let_next_in(listener: &Listener, let_in: &mpsc::Sender<()>) -> Served {
    let connection = listener.accept().await.unwrap().into_connection().unwrap();
    let_in.send(()).unwrap();
    connection
}

#[tokio::test]
async fn a_close_within_a_frame_is_told_from_a_clean_one() {
    let (let_in, is_in) = mpsc::channel();
    against(
        move |endpoint| {
            for bytes in [&b"\x09\0\0\0half"[..], b"\x09\0", b""] {
                let mut stream = raw(&endpoint);
                is_in.recv().unwrap();
                stream.write_all(bytes).unwrap();
            }
            // And the same towards the client.
            let mut connection = connect(&endpoint);
            is_in.recv().unwrap();
            assert!(matches!(connection.recv::<Reply>(), Err(RecvError::ClosedMidFrame { received: 8 })));
            let mut connection = connect(&endpoint);
            is_in.recv().unwrap();
            assert!(matches!(connection.recv::<Reply>(), Err(RecvError::Closed)));
        },
        async |listener| {
            for expected in [8, 2] {
                let error = echo_pings(let_next_in(&listener, &let_in).await).await;
                assert!(
                    matches!(error, RecvError::ClosedMidFrame { received } if received == expected),
                    "{error:?}"
                );
            }
            assert!(matches!(echo_pings(let_next_in(&listener, &let_in).await).await, RecvError::Closed));
            let mut connection = let_next_in(&listener, &let_in).await;
            connection.send_encoded(b"\x09\0\0\0half").await.unwrap();
            drop(connection);
            drop(let_next_in(&listener, &let_in).await);
        },
    )
    .await;
}

#[tokio::test]
async fn a_peer_that_closes_at_once_is_an_error_and_no_signal() {
    against(
        |endpoint| {
            let mut connection = connect(&endpoint);
            let error = loop {
                if let Err(e) = connection.send(&Request::Status) {
                    break e;
                }
            };
            // Reset, if something was sent that the peer had not read.
            let SendError::Io(error) = error else { panic!("{error}") };
            assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset), "{error}");
            assert!(matches!(connection.recv::<Reply>(), Err(RecvError::Closed)));
        },
        async |listener| drop(listener.accept().await.unwrap().into_connection().unwrap()),
    )
    .await;
}

#[tokio::test]
async fn over_long_frames_are_refused_on_both_sides() {
    let (let_in, is_in) = mpsc::channel();
    against(
        move |endpoint| {
            let mut stays = raw(&endpoint);
            is_in.recv().unwrap();
            stays.write_all(&[0xff; 64]).unwrap();
            let mut connection = connect(&endpoint);
            is_in.recv().unwrap();
            let huge = serde_bytes::ByteBuf::from(vec![0; FRAME_BYTES_MAX]);
            assert!(connection.send(&huge).unwrap_err().to_string().contains("over the limit"));
            connection.send(&Request::Ping { nonce: 1 }).unwrap();
            assert!(matches!(
                connection.recv::<Reply>(),
                Err(RecvError::Frame(FrameError::TooLarge { bytes: 0xffff_ffff }))
            ));
        },
        async |listener| {
            let error = echo_pings(let_next_in(&listener, &let_in).await).await;
            assert!(matches!(error, RecvError::Frame(FrameError::TooLarge { .. })), "{error:?}");
            let mut connection = let_next_in(&listener, &let_in).await;
            // Nothing of the refused message was sent.
            assert!(matches!(connection.recv().await, Ok(Request::Ping { nonce: 1 })));
            connection.send_encoded(&[0xff; 64]).await.unwrap();
        },
    )
    .await;
}

#[tokio::test]
async fn garbage_is_an_error_and_the_next_frame_is_still_found() {
    against(
        |endpoint| {
            let mut stream = raw(&endpoint);
            stream.write_all(b"\x03\0\0\0\xc1\xc1\xc1").unwrap();
            stream.write_all(&frame::encode(&Request::Ping { nonce: 3 }).unwrap()).unwrap();
            let expected = frame::encode(&Reply::Pong { nonce: 3 }).unwrap();
            let mut pong = vec![0; expected.len()];
            stream.read_exact(&mut pong).unwrap();
            assert_eq!(pong, expected);
        },
        async |listener| {
            let mut connection = listener.accept().await.unwrap().into_connection().unwrap();
            assert!(matches!(
                connection.recv::<Request>().await,
                Err(RecvError::Frame(FrameError::Decode(_)))
            ));
            assert!(matches!(echo_pings(connection).await, RecvError::Closed));
        },
    )
    .await;
}

#[tokio::test]
async fn after_a_time_out_a_blocking_connection_goes_on_within_the_frame() {
    let (tell, told) = tokio::sync::oneshot::channel();
    against(
        |endpoint| {
            let mut connection = connect(&endpoint);
            connection.set_recv_timeout(Some(SHORT));
            let begun = Instant::now();
            assert!(matches!(connection.recv::<Reply>(), Err(RecvError::TimedOut(SHORT))));
            assert!(begun.elapsed() >= SHORT && begun.elapsed() < PATIENCE);
            // No time at all is not "for ever".
            assert!(matches!(
                connection.recv_with::<Reply>(Timeout::After(Duration::ZERO)),
                Err(RecvError::TimedOut(Duration::ZERO))
            ));
            tell.send(()).unwrap();
            // Overridden, then cleared.
            assert!(matches!(connection.recv_with(Timeout::After(PATIENCE)), Ok(Reply::Pong { nonce: 1 })));
            assert!(matches!(connection.recv::<Reply>(), Err(RecvError::TimedOut(SHORT))));
            connection.send(&Request::Status).unwrap();
            assert!(matches!(connection.recv_with(Timeout::Never), Ok(Reply::Pong { nonce: 2 })));
            connection.set_recv_timeout(None);
            assert!(matches!(connection.recv::<Reply>(), Err(RecvError::Closed)));
        },
        async |listener| {
            let mut connection = listener.accept().await.unwrap().into_connection().unwrap();
            let pong = frame::encode(&Reply::Pong { nonce: 1 }).unwrap();
            connection.send_encoded(&pong[..5]).await.unwrap();
            told.await.unwrap();
            connection.send_encoded(&pong[5..]).await.unwrap();
            assert!(matches!(connection.recv().await, Ok(Request::Status)));
            connection.send(&Reply::Pong { nonce: 2 }).await.unwrap();
        },
    )
    .await;
}

#[tokio::test]
async fn the_time_out_is_for_the_whole_frame_however_slowly_it_drips() {
    against(
        |endpoint| {
            let mut connection = connect(&endpoint);
            let error = connection.recv_with::<Reply>(Timeout::After(SHORT * 3)).unwrap_err();
            assert!(matches!(error, RecvError::TimedOut(_)), "{error:?}");
        },
        async |listener| {
            let mut connection = listener.accept().await.unwrap().into_connection().unwrap();
            // A byte now and then would keep a time-out per read from ever ending: for far longer than it takes.
            for byte in [0, 2, 0, 0].into_iter().chain([0; 512]) {
                if connection.send_encoded(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(SHORT / 2).await;
            }
            panic!("the client waited for the whole frame");
        },
    )
    .await;
}

#[tokio::test]
async fn after_a_time_out_an_async_connection_goes_on_within_the_frame() {
    let (tell, told) = mpsc::channel();
    against(
        move |endpoint| {
            let mut stream = raw(&endpoint);
            let ping = frame::encode(&Request::Ping { nonce: 9 }).unwrap();
            stream.write_all(&ping[..7]).unwrap();
            told.recv().unwrap();
            stream.write_all(&ping[7..]).unwrap();
        },
        async |listener| {
            let mut connection = listener.accept().await.unwrap().into_connection().unwrap();
            connection.set_recv_timeout(Some(SHORT));
            assert!(matches!(connection.recv::<Request>().await, Err(RecvError::TimedOut(SHORT))));
            assert!(matches!(
                connection.recv_with::<Request>(Timeout::After(Duration::ZERO)).await,
                Err(RecvError::TimedOut(_))
            ));
            // Dropped half-way by its caller, as in a `select!`.
            assert!(
                tokio::time::timeout(SHORT, connection.recv_with::<Request>(Timeout::Never)).await.is_err()
            );
            tell.send(()).unwrap();
            connection.set_recv_timeout(None);
            assert!(matches!(connection.recv().await, Ok(Request::Ping { nonce: 9 })));
            assert!(matches!(connection.recv::<Request>().await, Err(RecvError::Closed)));
        },
    )
    .await;
}

#[tokio::test]
async fn a_peer_that_never_reads_does_not_hold_a_sender_up() {
    let (given_up, has_given_up) = tokio::sync::oneshot::channel();
    against(
        |endpoint| {
            let mut connection = Connection::connect(&endpoint, SHORT).unwrap();
            let error = connection.send_all(&vec![0; FRAME_BYTES_MAX], &[]).unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
            given_up.send(()).unwrap();
        },
        async |listener| {
            // Kept for as long as it takes: a close would be an answer.
            let connection = listener.accept().await.unwrap().into_connection().unwrap();
            has_given_up.await.unwrap();
            drop(connection);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_clients_at_once_are_all_served() {
    clients_at_once(8).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_clients_at_once_are_all_served() {
    clients_at_once(300).await;
}

async fn clients_at_once(clients: u64) {
    against(
        move |endpoint| {
            std::thread::scope(|scope| {
                for n in 0..clients {
                    let endpoint = &endpoint;
                    std::thread::Builder::new()
                        .stack_size(128 * 1024)
                        .spawn_scoped(scope, move || {
                            let mut connection = connect(endpoint);
                            connection.send(&Request::Ping { nonce: n }).unwrap();
                            assert!(matches!(connection.recv(), Ok(Reply::Pong { nonce }) if nonce == n));
                        })
                        .unwrap();
                }
            });
        },
        async |listener| {
            let mut tasks = Vec::new();
            for _ in 0..clients {
                tasks.push(tokio::spawn(echo_pings(
                    listener.accept().await.unwrap().into_connection().unwrap(),
                )));
            }
            for task in tasks {
                assert!(matches!(task.await.unwrap(), RecvError::Closed));
            }
        },
    )
    .await;
}

#[tokio::test]
async fn one_client_after_another_is_served() {
    const CLIENTS: u64 = 100;
    against(
        |endpoint| {
            for nonce in 0..CLIENTS {
                let mut connection = connect(&endpoint);
                connection.send(&Request::Ping { nonce }).unwrap();
                assert!(matches!(connection.recv(), Ok(Reply::Pong { nonce: n }) if n == nonce));
            }
        },
        async |listener| {
            for _ in 0..CLIENTS {
                let connection = listener.accept().await.unwrap().into_connection().unwrap();
                assert!(matches!(echo_pings(connection).await, RecvError::Closed));
            }
        },
    )
    .await;
}

#[tokio::test]
async fn where_no_service_listens_none_is_found() {
    let Fixture { endpoint, _directory } = fixture();
    assert_eq!(Connection::connect(&endpoint, PATIENCE).unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn both_halves_work_apart() {
    against(
        |endpoint| {
            let mut connection = connect(&endpoint);
            connection.send(&Request::Status).unwrap();
            assert!(matches!(connection.recv(), Ok(Reply::Heartbeat)));
        },
        async |listener| {
            let (mut receiver, mut sender) =
                listener.accept().await.unwrap().into_connection().unwrap().into_split();
            let wait = tokio::spawn(async move {
                receiver.recv::<Request>().await.unwrap();
                receiver.recv::<Request>().await.unwrap_err()
            });
            sender.send(&Reply::Heartbeat).await.unwrap();
            assert!(matches!(wait.await.unwrap(), RecvError::Closed));
        },
    )
    .await;
}
