//! The service's side of the transport on Unix: a socket, and the descriptors that come over it.
//!
//! Strangers are refused before a byte of theirs is read.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::BytesMut;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketAddrUnix};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::OnceCell;

use crate::async_connection::make_room;
pub use crate::async_connection::{AcceptError, Connection, Receiver, Sender};
use crate::endpoint::Endpoint;
use crate::kernel;
use crate::peer::Peer;
use crate::transport::DESCRIPTORS_MAX;

/// Connections that may wait for `accept`: as many as Linux allows by default (`net.core.somaxconn`), so that
/// no `make -j` comes near it.
const BACKLOG: i32 = 4096;

/// Where clients come in, for the runtime that first waits for one.
#[derive(Debug)]
pub struct Listener {
    socket: Arc<OwnedFd>,
    waiting: OnceCell<AsyncFd<Arc<OwnedFd>>>,
}

impl Listener {
    /// Listens at `endpoint`, in a directory that is there. Removes the socket of a service that is gone, so
    /// this must be called only while holding the service lock, and by the process that is to serve: clients
    /// see the process id of the one that called.
    ///
    /// # Errors
    /// The system's.
    pub fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        let socket = kernel::listening_socket()?;
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
        Ok(Self { socket: Arc::new(socket), waiting: OnceCell::new() })
    }

    /// The next client. Can be dropped and called again.
    ///
    /// # Errors
    /// See [`AcceptError`]; only `Fatal` ends listening. Must be called within a tokio runtime.
    pub async fn accept(&self) -> Result<Incoming, AcceptError> {
        let bind = async || bind_to_runtime(&self.socket, Interest::READABLE);
        let waiting = self.waiting.get_or_try_init(bind).await.map_err(classify)?;
        let accepted = waiting.async_io(Interest::READABLE, |socket| Ok(kernel::accept(socket)?)).await;
        let stream = accepted.map_err(classify)?;
        let peer = Peer::of(&stream).map_err(AcceptError::Passing)?;
        if !peer.is_ours() {
            return Err(AcceptError::Stranger { uid: peer.uid, pid: peer.pid });
        }
        Ok(Incoming { stream, peer })
    }
}

/// A client that was let in, not yet bound to any runtime: it can be handed to the thread that will serve it.
#[derive(Debug)]
pub struct Incoming {
    stream: OwnedFd,
    peer: Peer,
}

impl Incoming {
    /// The connection, driven by the runtime within which it is used.
    ///
    /// # Errors
    /// None here; the system's elsewhere.
    pub fn into_connection(self) -> io::Result<Connection> {
        let stream = Stream { socket: Arc::new(self.stream), waiting: OnceCell::new() };
        Ok(Connection::new(stream, self.peer))
    }
}

/// Whether the system lacks descriptors or memory.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let shortage = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    shortage.iter().any(|s| error.raw_os_error() == Some(s.raw_os_error()))
}

fn classify(error: io::Error) -> AcceptError {
    let broken = [Errno::BADF, Errno::INVAL, Errno::NOTSOCK, Errno::OPNOTSUPP];
    if broken.iter().any(|b| error.raw_os_error() == Some(b.raw_os_error())) {
        AcceptError::Fatal(error)
    } else {
        AcceptError::Passing(error)
    }
}

/// A socket whose readiness the runtime tells of.
fn bind_to_runtime(socket: &Arc<OwnedFd>, interest: Interest) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    #[expect(
        deprecated,
        reason = "sound for an OwnedFd, whose descriptor never changes; the new way is unsafe"
    )]
    AsyncFd::with_interest(Arc::clone(socket), interest)
}

/// What carries a connection's bytes, and descriptors beside them.
///
/// A request is mostly there by the time somebody looks, and an answer mostly taken at once: the runtime is asked to
/// watch a socket only when it has to be waited for the first time.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Arc<OwnedFd>,
    waiting: OnceCell<AsyncFd<Arc<OwnedFd>>>,
}

impl Stream {
    /// Reads what has come, once. Can be dropped and called again.
    pub(crate) async fn read(
        &self,
        buffer: &mut BytesMut,
        descriptors: &mut Vec<OwnedFd>,
    ) -> io::Result<usize> {
        self.once(Interest::READABLE, || read_once(self.socket.as_fd(), buffer, descriptors)).await
    }

    /// Writes as much as is taken at once. Can be dropped and called again.
    pub(crate) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.once(Interest::WRITABLE, || write_once(self.socket.as_fd(), bytes)).await
    }

    /// Does `io` as soon as it need not wait. A client that never lets us wait gets no more than its share of the thread.
    async fn once(&self, interest: Interest, mut io: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
        if !self.waiting.initialized() {
            tokio::task::coop::consume_budget().await;
            match io() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
        let both = Interest::READABLE | Interest::WRITABLE;
        let waiting = self.waiting.get_or_try_init(async || bind_to_runtime(&self.socket, both)).await?;
        waiting.async_io(interest, |_| io()).await
    }

    /// See [`Peer::has_our_groups`].
    pub(crate) fn peer_has_our_groups(&self, peer: Peer) -> bool {
        peer.has_our_groups(&self.socket)
    }
}

/// One `recvmsg`, appended to `buffer`.
fn read_once(
    socket: BorrowedFd<'_>,
    buffer: &mut BytesMut,
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let before = make_room(buffer);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = kernel::RECV | RecvFlags::DONTWAIT;
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

fn write_once(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match rustix::net::send(socket, bytes, kernel::SEND | SendFlags::DONTWAIT) {
            Err(Errno::INTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}
