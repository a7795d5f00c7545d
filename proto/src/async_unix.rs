//! The service's side of the transport on Unix, on tokio.
//!
//! Every receive and every flush can be dropped half-way and begun again: bytes that came or have yet to go
//! are kept in the connection, not in the future. Strangers are refused before a byte of theirs is read.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::endpoint::Endpoint;
use crate::frame::{self, FrameError, HEADER_BYTES};
use crate::peer_unix::Peer;
use crate::transport::{DESCRIPTORS_MAX, RecvError, SendError, Timeout};

/// Bytes asked for by one `recvmsg`: a request with its environment, most times.
const READ_BYTES: usize = 16 * 1024;

/// The most that the buffer grows ahead of what has come, in bytes: a length field alone takes no memory.
const READ_AHEAD_BYTES_MAX: usize = 256 * 1024;

/// Connections that may wait for `accept`: as many as Linux allows by default (`net.core.somaxconn`), so that
/// no `make -j` comes near it.
const BACKLOG: i32 = 4096;

/// Where clients come in. Several runtimes may accept, each through a clone, but one at a time: a runtime that waits
/// is woken by every client.
#[derive(Debug, Clone)]
pub struct Listener {
    socket: Arc<OwnedFd>,
}

/// Why a connection was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Another user's process; its connection is closed.
    #[error("refused a connection of user {uid} (process {})", .pid.unwrap_or(0))]
    Stranger {
        /// Its user id.
        uid: u32,
        /// Its process id, if it can be seen from here.
        pid: Option<u32>,
    },
    /// This connection, or the system just now, does not allow it; the next may be accepted.
    #[error("failed to accept a connection: {0}")]
    Passing(#[source] io::Error),
    /// The listener is of no use any more.
    #[error("failed to accept connections: {0}")]
    Fatal(#[source] io::Error),
}

impl AcceptError {
    /// Whether no later connection can be accepted either.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Fatal(_))
    }

    /// Whether the system lacks descriptors or memory: wait a moment before the next `accept`, which would
    /// fail at once.
    pub fn is_shortage(&self) -> bool {
        let shortage = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
        matches!(self, Self::Passing(e) if shortage.iter().any(|s| e.raw_os_error() == Some(s.raw_os_error())))
    }
}

impl Listener {
    /// Listens at `endpoint`, in a directory that is there. Removes the socket of a service that is gone, so
    /// this must be called only while holding the service lock, and by the process that is to serve: clients
    /// see the process id of the one that called.
    ///
    /// # Errors
    /// The system's.
    pub fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        endpoint.with_short_path(|path| {
            match std::fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let owner_only = Mode::RUSR | Mode::WUSR;
            // Linux makes the socket's file with the mode of the socket itself, so nobody else gets a moment
            // to connect. Where that is not so, the mode is set right after.
            let _ = rustix::fs::fchmod(&socket, owner_only);
            rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
            Ok(rustix::fs::chmod(path, owner_only)?)
        })?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(Self { socket: Arc::new(socket) })
    }

    /// The next client. Can be dropped and called again.
    ///
    /// # Errors
    /// See [`AcceptError`]; only `Fatal` ends listening. Must be called within a tokio runtime.
    pub async fn accept(&self) -> Result<Incoming, AcceptError> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // Whoever is there already need not be waited for.
        let stream = match rustix::net::accept_with(&self.socket, flags) {
            Err(Errno::AGAIN) => self.wait_and_accept(flags).await,
            accepted => accepted.map_err(io::Error::from),
        };
        let stream = stream.map_err(classify)?;
        let peer = Peer::of(&stream).map_err(AcceptError::Passing)?;
        if !peer.is_ours() {
            return Err(AcceptError::Stranger { uid: peer.uid, pid: peer.pid });
        }
        Ok(Incoming { stream, peer })
    }

    /// Bound to the runtime for no longer than this, so that only one who waits is woken.
    async fn wait_and_accept(&self, flags: SocketFlags) -> io::Result<OwnedFd> {
        #[expect(
            deprecated,
            reason = "sound for an OwnedFd, whose descriptor never changes; the new way is unsafe"
        )]
        let waiting = AsyncFd::with_interest(Arc::clone(&self.socket), Interest::READABLE)?;
        waiting.async_io(Interest::READABLE, |socket| Ok(rustix::net::accept_with(socket, flags)?)).await
    }
}

/// A client that was let in, not yet bound to any runtime: it can be handed to the thread that will serve it.
#[derive(Debug)]
pub struct Incoming {
    stream: OwnedFd,
    peer: Peer,
}

impl Incoming {
    /// The connection, driven by the runtime within which this is called.
    ///
    /// # Errors
    /// The system's.
    pub fn into_connection(self) -> io::Result<Connection> {
        let stream = UnixStream::from_std(std::os::unix::net::UnixStream::from(self.stream))?;
        Ok(Connection::new(stream, self.peer))
    }
}

fn classify(error: io::Error) -> AcceptError {
    let broken = [Errno::BADF, Errno::INVAL, Errno::NOTSOCK, Errno::OPNOTSUPP];
    if broken.iter().any(|b| error.raw_os_error() == Some(b.raw_os_error())) {
        AcceptError::Fatal(error)
    } else {
        AcceptError::Passing(error)
    }
}

/// A client's connection: a [`Receiver`] and a [`Sender`] in one.
#[derive(Debug)]
pub struct Connection {
    receiver: Receiver,
    sender: Sender,
}

impl Connection {
    fn new(stream: UnixStream, peer: Peer) -> Self {
        let stream = Arc::new(stream);
        let receiver = Receiver {
            stream: Arc::clone(&stream),
            peer,
            buffer: BytesMut::new(),
            descriptors: Vec::new(),
            recv_timeout: None,
        };
        Self { receiver, sender: Sender { stream, queued: BytesMut::new() } }
    }

    /// Both halves, for two owners. The connection is closed when both are dropped.
    pub fn into_split(self) -> (Receiver, Sender) {
        (self.receiver, self.sender)
    }

    /// See [`Receiver::peer_pid`].
    pub fn peer_pid(&self) -> Option<u32> {
        self.receiver.peer_pid()
    }

    /// Whether the client has the groups that we have; see [`Peer::has_our_groups`].
    pub fn peer_has_our_groups(&self) -> bool {
        self.receiver.peer.has_our_groups(&*self.receiver.stream)
    }

    /// See [`Receiver::recv`].
    ///
    /// # Errors
    /// See [`RecvError`].
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<T, RecvError> {
        self.receiver.recv().await
    }

    /// See [`Receiver::recv_with`].
    ///
    /// # Errors
    /// See [`RecvError`].
    pub async fn recv_with<T: DeserializeOwned>(&mut self, timeout: Timeout) -> Result<T, RecvError> {
        self.receiver.recv_with(timeout).await
    }

    /// See [`Receiver::set_recv_timeout`].
    pub fn set_recv_timeout(&mut self, timeout: Option<Duration>) {
        self.receiver.set_recv_timeout(timeout);
    }

    /// See [`Receiver::take_descriptors`].
    pub fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        self.receiver.take_descriptors()
    }

    /// See [`Sender::queue`].
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn queue<T: Serialize>(&mut self, message: &T) -> Result<(), FrameError> {
        self.sender.queue(message)
    }

    /// See [`Sender::flush`].
    ///
    /// # Errors
    /// The system's.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.sender.flush().await
    }

    /// See [`Sender::send`].
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), SendError> {
        self.sender.send(message).await
    }

    /// See [`Sender::send_encoded`].
    ///
    /// # Errors
    /// The system's.
    pub async fn send_encoded(&mut self, frames: &[u8]) -> io::Result<()> {
        self.sender.send_encoded(frames).await
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver {
    stream: Arc<UnixStream>,
    peer: Peer,
    /// What has come and was not taken yet.
    buffer: BytesMut,
    descriptors: Vec<OwnedFd>,
    recv_timeout: Option<Duration>,
}

impl Receiver {
    /// The client's process id; `None` if it cannot be seen from here.
    pub fn peer_pid(&self) -> Option<u32> {
        self.peer.pid
    }

    /// Sets or clears the default time-out of [`recv`](Self::recv). None is set at first.
    pub fn set_recv_timeout(&mut self, timeout: Option<Duration>) {
        self.recv_timeout = timeout;
    }

    /// The next message, within the default time-out.
    ///
    /// # Errors
    /// As [`recv_with`](Self::recv_with).
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<T, RecvError> {
        self.recv_with(Timeout::Default).await
    }

    /// The next message; the time-out is for the whole frame. Can be dropped and called again, with nothing
    /// lost. While a request is worked on, this is also how the client's going away is noticed (`Closed`).
    ///
    /// # Errors
    /// See [`RecvError`]. After `TimedOut` and `Decode` the connection can be used again.
    pub async fn recv_with<T: DeserializeOwned>(&mut self, timeout: Timeout) -> Result<T, RecvError> {
        if let Some(message) = self.next_message()? {
            return Ok(message);
        }
        match timeout.resolve(self.recv_timeout) {
            None => self.recv_more().await,
            Some(timeout) => {
                // A moment too far off for the clock is never.
                let Some(deadline) = Instant::now().checked_add(timeout) else {
                    return self.recv_more().await;
                };
                let more = tokio::time::timeout_at(deadline, self.recv_more());
                more.await.unwrap_or(Err(RecvError::TimedOut(timeout)))
            }
        }
    }

    /// The descriptors that came with the messages so far, in the order sent; no more than
    /// [`DESCRIPTORS_MAX`] are kept at a time, the others were closed.
    pub fn take_descriptors(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.descriptors)
    }

    async fn recv_more<T: DeserializeOwned>(&mut self) -> Result<T, RecvError> {
        loop {
            let Self { stream, buffer, descriptors, .. } = self;
            let read = stream.async_io(Interest::READABLE, || read_once(stream.as_fd(), buffer, descriptors));
            match read.await {
                Ok(0) => return Err(self.closed()),
                Ok(_) => {}
                // What the client had not read when it went is reported so; it is gone all the same.
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Err(self.closed()),
                Err(e) => return Err(e.into()),
            }
            if let Some(message) = self.next_message()? {
                return Ok(message);
            }
        }
    }

    fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, RecvError> {
        match frame::frame_bytes(&self.buffer)? {
            Some(bytes) if self.buffer.len() >= bytes => {
                let frame = self.buffer.split_to(bytes);
                Ok(Some(frame::decode(&frame[HEADER_BYTES..])?))
            }
            _ => Ok(None),
        }
    }

    fn closed(&self) -> RecvError {
        match self.buffer.len() {
            0 => RecvError::Closed,
            received => RecvError::ClosedMidFrame { received },
        }
    }
}

/// One `recvmsg`, appended to `buffer`.
fn read_once(
    socket: BorrowedFd<'_>,
    buffer: &mut BytesMut,
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let announced = frame::frame_bytes(buffer).ok().flatten().unwrap_or(0);
    let before = buffer.len();
    let wanted = announced.saturating_sub(before).clamp(READ_BYTES, READ_AHEAD_BYTES_MAX);
    buffer.resize(before + wanted, 0);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let outcome = loop {
        let mut parts = [IoSliceMut::new(&mut buffer[before..])];
        match rustix::net::recvmsg(socket, &mut parts, &mut control, flags) {
            Err(Errno::INTR) => {}
            outcome => break outcome,
        }
    };
    buffer.truncate(before + outcome.as_ref().map_or(0, |received| received.bytes));
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = message {
            for descriptor in came {
                if descriptors.len() < DESCRIPTORS_MAX {
                    descriptors.push(descriptor);
                }
            }
        }
    }
    Ok(outcome?.bytes)
}

/// The sending half.
#[derive(Debug)]
pub struct Sender {
    stream: Arc<UnixStream>,
    /// Whole frames, less what has gone of the first.
    queued: BytesMut,
}

impl Sender {
    /// Queues a message, so that several leave in one write.
    ///
    /// # Errors
    /// `TooLarge`; nothing was queued then.
    pub fn queue<T: Serialize>(&mut self, message: &T) -> Result<(), FrameError> {
        self.queued.extend_from_slice(&frame::encode(message)?);
        Ok(())
    }

    /// Sends what is queued. Can be dropped and called again: what has not gone stays queued.
    ///
    /// # Errors
    /// The system's: `BrokenPipe` if the client has gone.
    pub async fn flush(&mut self) -> io::Result<()> {
        while !self.queued.is_empty() {
            let Self { stream, queued } = self;
            let sent = stream.async_io(Interest::WRITABLE, || write_once(stream.as_fd(), queued)).await?;
            self.queued.advance(sent);
        }
        Ok(())
    }

    /// Sends a message, after what is queued.
    ///
    /// # Errors
    /// `Frame` if it is over the limit (it is not sent then), else as [`flush`](Self::flush).
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), SendError> {
        self.queue(message)?;
        Ok(self.flush().await?)
    }

    /// Sends whole frames that were encoded before, after what is queued.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub async fn send_encoded(&mut self, frames: &[u8]) -> io::Result<()> {
        self.queued.extend_from_slice(frames);
        self.flush().await
    }
}

fn write_once(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::net::send(socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
            Err(Errno::INTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}
