//! One request and its answer: sends what was asked, passes output on, and says how it ended.

use std::io;
use std::time::Duration;

use zccache_proto::blocking_transport::Connection;
use zccache_proto::handshake::{MismatchReason, Welcome};
use zccache_proto::message::{Exit, Finished, OutputStream, Reply, SILENCE_MAX_MS};
use zccache_proto::transport::{BorrowedDescriptor, RecvError};

use crate::output;
use crate::process::{Ended, inherited};

/// How long the service may be silent before it is given up.
const SILENCE_MAX: Duration = Duration::from_millis(SILENCE_MAX_MS);

/// What has happened so far: what a fallback must know.
#[derive(Debug, Default)]
pub struct Progress {
    /// The service's process.
    pub service: Option<u32>,
    /// The process group of the tool that the service has started.
    pub started: Option<u32>,
    /// Bytes of the tool's standard output that were passed on.
    pub stdout_shown: u64,
    /// Bytes of its standard error that were passed on.
    pub stderr_shown: u64,
    /// Both are one file.
    pub merged: bool,
    /// Where standard input's file stood at the start.
    pub stdin_offset: Option<u64>,
}

/// How asking the service ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Run the tool in our place.
    PassThrough,
    /// The tool has ended (now, or when its result was stored), and all its output is written.
    Ended(Ended),
    /// No service takes requests here: it is shutting down, or went before it greeted us.
    NobodyThere,
    /// Anything else.
    Failed,
}

/// Sends `frames`, a greeting and a `Compile`, and sees the answer through.
pub fn talk(
    connection: &mut Connection,
    frames: &[u8],
    descriptors: &[BorrowedDescriptor<'_>],
    progress: &mut Progress,
) -> Answer {
    match connection.send_all(frames, descriptors) {
        Ok(()) => {}
        // A service that turns us away may not wait for the request: its greeting says why.
        Err(e) if matches!(e.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => {}
        Err(_) => return Answer::Failed,
    }
    match connection.recv_or_hang_up() {
        // Elsewhere (another process id namespace), numbers of processes would mean others to us.
        Ok(Welcome::Accepted { pid, .. }) if connection.peer().pid == Some(pid) => {
            progress.service = Some(pid);
        }
        Ok(Welcome::Mismatch { reason: MismatchReason::ShuttingDown, .. }) | Err(RecvError::Closed) => {
            return Answer::NobodyThere;
        }
        Ok(_) | Err(_) => return Answer::Failed,
    }
    connection.set_recv_timeout(Some(SILENCE_MAX));
    loop {
        // A tool that the service has started, we know of when we give up; one that we do not know of, it will not start.
        let Ok(reply) = connection.recv_or_hang_up() else { return Answer::Failed };
        match reply {
            Reply::PassThrough { .. } if progress.started.is_none() => return Answer::PassThrough,
            Reply::Started { pid } => progress.started = Some(pid),
            Reply::Heartbeat => {}
            Reply::Output { stream, bytes } => {
                if !pass_on(stream, &bytes, progress) {
                    return Answer::Failed;
                }
            }
            Reply::Finished(finished) => return finish(&finished, progress),
            _ => return Answer::Failed,
        }
    }
}

fn finish(finished: &Finished, progress: &mut Progress) -> Answer {
    if !pass_on(OutputStream::Stdout, &finished.stdout, progress)
        || !pass_on(OutputStream::Stderr, &finished.stderr, progress)
    {
        return Answer::Failed;
    }
    Answer::Ended(match finished.exit {
        Exit::Code(status) => Ended::Code(status),
        Exit::Signal(signal) => Ended::Signal(signal),
    })
}

fn pass_on(stream: OutputStream, bytes: &[u8], progress: &mut Progress) -> bool {
    let (number, shown) = match stream {
        OutputStream::Stdout => (1, &mut progress.stdout_shown),
        OutputStream::Stderr => (2, &mut progress.stderr_shown),
    };
    output::write_all(inherited(number), bytes, shown).is_ok()
}
