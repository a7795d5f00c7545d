//! The client's side of the transport on Unix: blocking, with as few system calls as will do.
//!
//! A hit is the wrapper's whole life, so a message and its descriptors leave in one `sendmsg`, and one `recv` takes as
//! many frames as have come. It is waited for by `poll`: whoever waits in `recv` itself is also woken when the other
//! side reads, which there is nothing to be done about (Linux: `unix_write_space`), and on an idle processor that costs
//! both sides more than a system call. No call may outlast its time-out, whatever the other side does.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SocketAddrUnix, sockopt};
use serde::{Serialize, de::DeserializeOwned};

use crate::endpoint::Endpoint;
use crate::frame;
use crate::kernel;
use crate::peer::Peer;
use crate::received::Received;
use crate::transport::{DESCRIPTORS_MAX, RecvError, SendError, Timeout};

/// The shortest time-out that a socket takes, since zero would mean "for ever".
const SOCKET_TIMEOUT_MIN: Duration = Duration::from_micros(1);

/// A client's connection to a service.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
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
    /// `NotFound` and `ConnectionRefused` mean that no service runs; `TimedOut` that it accepts nothing;
    /// `PermissionDenied` that the socket leads to somebody else's process.
    pub fn connect(endpoint: &Endpoint, patience: Duration) -> io::Result<Self> {
        let socket = kernel::socket()?;
        // Before connecting: with a full backlog, `connect` itself waits for as long as a send may.
        let patience = patience.max(SOCKET_TIMEOUT_MIN);
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(patience))?;
        endpoint.with_short_path(|path| {
            let address = SocketAddrUnix::new(path)?;
            loop {
                match rustix::net::connect(&socket, &address) {
                    Ok(()) => return Ok(()),
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                    Err(e) => return Err(e.into()),
                }
            }
        })?;
        let peer = Peer::of(&socket)?;
        if !peer.is_ours() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the socket is another user's"));
        }
        Ok(Self {
            socket,
            peer,
            received: Received::default(),
            send_timeout: patience,
            recv_timeout: Some(patience),
        })
    }

    /// The process that listens at the other end.
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// Sends whole frames, encoded before, and the descriptors that belong to them; in one system call if the
    /// socket takes as much.
    ///
    /// # Errors
    /// `InvalidInput` for more than [`DESCRIPTORS_MAX`] descriptors; `TimedOut` if the other side does not
    /// read; otherwise the system's. After an error the connection is of no use.
    pub fn send_all(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        if descriptors.len() > DESCRIPTORS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors for one message"));
        }
        let deadline = Instant::now() + self.send_timeout;
        let mut rest = bytes;
        let mut descriptors = descriptors;
        while !rest.is_empty() {
            match send_some(self.socket.as_fd(), rest, descriptors) {
                // The descriptors went with the first byte.
                Ok(sent) => (rest, descriptors) = (&rest[sent..], &[]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(e) => return Err(e.into()),
            }
            if !rest.is_empty() {
                let left = remaining(deadline).ok_or(io::ErrorKind::TimedOut)?;
                sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Send, Some(left))?;
            }
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
        loop {
            if let Some(body) = self.received.next_frame()? {
                return Ok(frame::decode(body)?);
            }
            let left = limit.map(|(_, deadline)| deadline.saturating_duration_since(Instant::now()));
            let is_over = self.wait(left)?;
            // Whoever was stopped, or not scheduled, for that long may find everything there.
            match read_once(self.socket.as_fd(), &mut self.received) {
                Ok(0) => return Err(self.received.closed()),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if is_over => {
                    return Err(RecvError::TimedOut(limit.map_or(Duration::MAX, |l| l.0)));
                }
                Err(Errno::AGAIN) => {}
                // What the other side has not read when it closes is reported so; it closed all the same.
                Err(Errno::CONNRESET) => return Err(self.received.closed()),
                Err(e) => return Err(io::Error::from(e).into()),
            }
        }
    }

    /// The next message, as [`recv`](Self::recv). Silence is over as soon as bytes come, though no frame be whole yet:
    /// a long one may have waited for a slow reader of ours. After too long a silence this side hangs up, in both
    /// directions, and then takes what had been sent before that, until `Closed`. What the other side sends from then on
    /// fails there: so both sides know which messages have arrived.
    ///
    /// # Errors
    /// As `recv`; instead of `TimedOut`, `Closed` or `ClosedMidFrame`.
    pub fn recv_or_hang_up<T: DeserializeOwned>(&mut self) -> Result<T, RecvError> {
        loop {
            let before = self.bytes_received();
            match self.recv() {
                Err(RecvError::TimedOut(_)) if self.bytes_received() > before => {}
                Err(RecvError::TimedOut(_)) => break,
                other => return other,
            }
        }
        // Fails only if the other side was faster.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        self.recv()
    }

    /// The bytes that have come so far: a sign of life even where no frame is whole yet.
    pub fn bytes_received(&self) -> u64 {
        self.received.bytes
    }

    /// Sets or clears the default time-out of [`recv`](Self::recv).
    pub fn set_recv_timeout(&mut self, timeout: Option<Duration>) {
        self.recv_timeout = timeout;
    }

    /// Waits until there is something to read, and no longer than `timeout`; says whether that is over.
    fn wait(&self, timeout: Option<Duration>) -> io::Result<bool> {
        // What is too long for the system is for ever.
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], timeout.as_ref()) {
            Ok(ready) => Ok(ready == 0),
            Err(Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn remaining(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

/// One `recv`, which does not wait. `Ok(0)` means that the other side has closed.
fn read_once(socket: BorrowedFd<'_>, received: &mut Received) -> Result<usize, Errno> {
    let (_, bytes) = rustix::net::recv(socket, spare_capacity(received.room()), RecvFlags::DONTWAIT)?;
    received.bytes += bytes as u64;
    Ok(bytes)
}

/// One `sendmsg`. A closed peer is an error here, never a signal.
fn send_some(socket: BorrowedFd<'_>, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL);
    }
    rustix::net::sendmsg(socket, &[io::IoSlice::new(bytes)], &mut control, kernel::SEND)
}
