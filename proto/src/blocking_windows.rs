//! The client's side of the transport on Windows: a named pipe, blocking.
//!
//! No call may outlast its time-out, whatever the other side does.

use std::io;
use std::os::windows::io::{AsHandle, BorrowedHandle};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Serialize, de::DeserializeOwned};
use windows_sys::Win32::Foundation::ERROR_PIPE_BUSY;

use crate::endpoint::Endpoint;
use crate::frame;
use crate::peer::Peer;
use crate::pipe_windows::Pipe;
use crate::received::Received;
use crate::transport::{BorrowedDescriptor, RecvError, SendError, Timeout};

/// The pause after the first time that every instance is taken: a service that is well has made another by then.
const BUSY_PAUSE_MIN: Duration = Duration::from_millis(10);

/// The longest pause: the pauses double until then.
const BUSY_PAUSE_MAX: Duration = Duration::from_millis(500);

/// How often a busy pipe is tried, all in all: half a minute with the pauses between, and no less patience than
/// that keeps a service that is not stuck.
const BUSY_ATTEMPTS_MAX: u32 = 50;

/// A client's connection to a service.
#[derive(Debug)]
pub struct Connection {
    pipe: Pipe,
    peer: Peer,
    received: Received,
    /// The longest that a whole `send` may take.
    send_timeout: Duration,
    recv_timeout: Option<Duration>,
}

impl Connection {
    /// Connects to the service at `endpoint`, waiting `patience` at most; sending later waits as long, and so
    /// does receiving until [`set_recv_timeout`](Self::set_recv_timeout).
    ///
    /// # Errors
    /// `NotFound` means that no service runs; `TimedOut` that it accepts nothing; `PermissionDenied` that the pipe
    /// leads to somebody else's process.
    pub fn connect(endpoint: &Endpoint, patience: Duration) -> io::Result<Self> {
        let pipe = open(&endpoint.socket(), patience)?;
        let peer = Peer::of_server(pipe.as_handle())?;
        if !peer.is_ours() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the pipe is another user's"));
        }
        let recv_timeout = Some(patience);
        Ok(Self { pipe, peer, received: Received::default(), send_timeout: patience, recv_timeout })
    }

    /// The process that listens at the other end.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Sends whole frames, encoded before.
    ///
    /// # Errors
    /// `Unsupported` if something is to travel beside them; `TimedOut` if the other side does not read; otherwise the
    /// system's. After an error the connection is of no use.
    pub fn send_all(&mut self, bytes: &[u8], descriptors: &[BorrowedDescriptor<'_>]) -> io::Result<()> {
        if !descriptors.is_empty() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "handles do not travel over a pipe"));
        }
        let deadline = Instant::now() + self.send_timeout;
        let mut rest = bytes;
        while !rest.is_empty() {
            let left = remaining(deadline).ok_or(io::ErrorKind::TimedOut)?;
            let sent = self.pipe.write(rest, left)?;
            rest = &rest[sent..];
        }
        Ok(())
    }

    /// Sends one message.
    ///
    /// # Errors
    /// `Frame` if it is over the limit (nothing was sent), else as [`send_all`](Self::send_all).
    pub fn send<T: Serialize>(&mut self, message: &T) -> Result<(), SendError> {
        Ok(self.send_all(&frame::encode(message)?, &[])?)
    }

    /// The next message, within the default time-out.
    ///
    /// # Errors
    /// As [`recv_with`](Self::recv_with).
    pub fn recv<T: DeserializeOwned>(&mut self) -> Result<T, RecvError> {
        self.recv_with(Timeout::Default)
    }

    /// The next message. The time-out is for the whole frame, however many pieces it comes in.
    ///
    /// # Errors
    /// See [`RecvError`]. After `TimedOut` the connection can be used again; after a `Decode` too, as the
    /// frame's end was known.
    pub fn recv_with<T: DeserializeOwned>(&mut self, timeout: Timeout) -> Result<T, RecvError> {
        // A moment too far off for the clock is never.
        let limit =
            timeout.resolve(self.recv_timeout).and_then(|t| Some((t, Instant::now().checked_add(t)?)));
        let mut last_look = false;
        loop {
            if let Some(body) = self.received.next_frame()? {
                return Ok(frame::decode(body)?);
            }
            let patience = match limit {
                None => None,
                Some((timeout, _)) if last_look => return Err(RecvError::TimedOut(timeout)),
                // Whoever was stopped, or not scheduled, for that long may find everything there.
                Some((_, deadline)) => Some(remaining(deadline).unwrap_or_else(|| {
                    last_look = true;
                    Duration::ZERO
                })),
            };
            match self.pipe.read(self.received.room(), patience) {
                Ok(bytes) => self.received.bytes += bytes as u64,
                Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Err(self.received.closed()),
                Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                    return Err(RecvError::TimedOut(limit.map_or(Duration::MAX, |l| l.0)));
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// The next message, as [`recv`](Self::recv). Silence is over as soon as bytes come, though no frame be whole yet: a
    /// long one may have waited for a slow reader of ours. A pipe cannot be hung up and still be read, as a socket can:
    /// after `TimedOut`, close the connection; what the other side sent meanwhile is lost.
    ///
    /// # Errors
    /// As `recv`.
    pub fn recv_or_hang_up<T: DeserializeOwned>(&mut self) -> Result<T, RecvError> {
        loop {
            let before = self.bytes_received();
            match self.recv() {
                Err(RecvError::TimedOut(_)) if self.bytes_received() > before => {}
                other => return other,
            }
        }
    }

    /// The bytes that have come so far: a sign of life even where no frame is whole yet.
    pub fn bytes_received(&self) -> u64 {
        self.received.bytes
    }

    /// Sets or clears the default time-out of [`recv`](Self::recv).
    pub fn set_recv_timeout(&mut self, timeout: Option<Duration>) {
        self.recv_timeout = timeout;
    }
}

impl AsHandle for Connection {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.pipe.as_handle()
    }
}

/// A free instance of the pipe `name`. A busy pipe is tried again, with pauses that double.
fn open(name: &Path, patience: Duration) -> io::Result<Pipe> {
    let begun = Instant::now();
    let mut pause = BUSY_PAUSE_MIN;
    for _ in 0..BUSY_ATTEMPTS_MAX {
        match Pipe::open(name) {
            Err(e) if e.raw_os_error() == Some(ERROR_PIPE_BUSY.cast_signed()) => {}
            opened => return opened,
        }
        let Some(left) = patience.checked_sub(begun.elapsed()) else { break };
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(BUSY_PAUSE_MAX);
    }
    let text = format!(
        "{} was busy for {} ms: the service takes no more clients; if that goes on, end zccache-service and the next \
         compile starts another",
        name.display(),
        begun.elapsed().as_millis()
    );
    Err(io::Error::new(io::ErrorKind::TimedOut, text))
}

fn remaining(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}
