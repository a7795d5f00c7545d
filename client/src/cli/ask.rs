//! One question to the service that runs, and its answer.

use std::io;
use std::time::Duration;

use anyhow::{Context, anyhow};
use zccache_proto::blocking_transport::Connection;
use zccache_proto::endpoint::Endpoint;
use zccache_proto::handshake::{Hello, MismatchReason, Welcome};
use zccache_proto::message::{Reply, Request};
use zccache_proto::transport::{RecvError, SUGGESTED_RECV_TIMEOUT, Timeout};

use super::Failure;

/// How long a service may take to greet and to answer. It answers in microseconds; a person would not wait
/// longer before looking for the reason.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it may take to delete what is asked for: the time for a large cache on a slow disk, and then some.
const DELETING_PATIENCE: Duration = SUGGESTED_RECV_TIMEOUT;

/// Connects and greets.
///
/// # Errors
/// `NotRunning` if there is no service, or one that is leaving.
pub fn connect(endpoint: &Endpoint) -> Result<Connection, Failure> {
    let mut connection = Connection::connect(endpoint, PATIENCE).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::NotRunning,
        io::ErrorKind::TimedOut => stuck(endpoint),
        _ => anyhow!(e).context(format!("failed to connect to {}", endpoint.socket().display())).into(),
    })?;
    // A service that turns us away says so in its greeting.
    let sent = connection.send(&Hello::ours());
    match connection.recv::<Welcome>() {
        Ok(Welcome::Accepted { .. }) => {
            sent.context("failed to greet the service")?;
            Ok(connection)
        }
        Ok(Welcome::Mismatch { reason: MismatchReason::ShuttingDown, .. }) | Err(RecvError::Closed) => {
            Err(Failure::NotRunning)
        }
        Ok(Welcome::Mismatch { reason, build, .. }) => {
            let ours = env!("CARGO_PKG_VERSION");
            Err(anyhow!("{reason} (service {build}, client {ours}): stop it with its own zccache-client")
                .into())
        }
        Err(RecvError::TimedOut(_)) => Err(stuck(endpoint)),
        Err(e) => Err(anyhow!(e).context("failed to greet the service").into()),
    }
}

/// Asks the service that runs, and waits for the answer; what deletes may take a while, the rest may not.
///
/// # Errors
/// `NotRunning` if there is no service; `Other` if it does not answer, or answers that it cannot.
pub fn ask(endpoint: &Endpoint, request: &Request) -> Result<Reply, Failure> {
    ask_within(endpoint, request, patience_for(request))
}

fn patience_for(request: &Request) -> Duration {
    match request {
        Request::Clear | Request::Evict(_) | Request::Gc => DELETING_PATIENCE,
        _ => PATIENCE,
    }
}

fn ask_within(endpoint: &Endpoint, request: &Request, patience: Duration) -> Result<Reply, Failure> {
    let mut connection = connect(endpoint)?;
    connection.send(request).context("failed to send the request")?;
    match connection.recv_with(Timeout::After(patience)) {
        Ok(Reply::Failed { message } | Reply::Refused { reason: message }) => Err(anyhow!(message).into()),
        Ok(reply) => Ok(reply),
        Err(RecvError::TimedOut(after)) => Err(stuck_for(endpoint, after)),
        Err(RecvError::Closed) => Err(Failure::Gone),
        Err(e) => Err(anyhow!(e).context("failed to receive the answer").into()),
    }
}

/// A reply that does not answer what was asked.
pub fn unexpected() -> Failure {
    anyhow!("the service gave an answer to another question; is it of the same version?").into()
}

fn stuck(endpoint: &Endpoint) -> Failure {
    stuck_for(endpoint, PATIENCE)
}

fn stuck_for(endpoint: &Endpoint, patience: Duration) -> Failure {
    let pid = std::fs::read_to_string(endpoint.pid_file()).unwrap_or_default();
    let who = match pid.trim() {
        "" => "the service".to_string(),
        pid => format!("the service (process {pid})"),
    };
    anyhow!(
        "{who} does not answer within {} s; builds go on without it. End that process to get a new one",
        patience.as_secs()
    )
    .into()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;

    #[test]
    fn an_answer_is_waited_for_as_long_as_what_was_asked_for_takes_and_no_longer() {
        assert_eq!(patience_for(&Request::Gc), DELETING_PATIENCE);
        assert_eq!(patience_for(&Request::Status), PATIENCE);
        let temp = tempfile::tempdir().expect("a directory can be made");
        let endpoint = Endpoint::in_directory(temp.path().to_owned());
        let listener = UnixListener::bind(endpoint.socket()).expect("a socket can be made");
        let greets = std::thread::spawn(move || {
            let mut stream = listener.accept().expect("a client comes").0;
            let welcome = Welcome::Accepted { build: "test".into(), pid: std::process::id() };
            let frame = zccache_proto::frame::encode(&welcome).expect("it is short");
            stream.write_all(&frame).expect("the client listens");
            // Says nothing more, until the client goes.
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let waited = ask_within(&endpoint, &Request::Gc, Duration::from_millis(1));
        let Err(Failure::Other(error)) = waited else { panic!("there was an answer") };
        assert!(error.to_string().contains("does not answer within 0 s"), "{error}");
        greets.join().expect("the service saw its client go");
    }
}
