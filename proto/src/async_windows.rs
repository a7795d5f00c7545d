//! The service's side of the transport on Windows: a pool of pipe instances, each waiting for one client.
//!
//! An instance serves one client, then is gone. So that no client finds the pipe missing, a replacement is made
//! before a connected instance is handed on; so that many may come at once, several wait. An instance that cannot be
//! made just now is made later: the pool gets smaller for a while, and is never given up.

use std::fmt;
use std::io;
use std::os::windows::io::AsHandle;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::windows::named_pipe::NamedPipeServer;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use windows_sys::Win32::Foundation::{
    ERROR_COMMITMENT_LIMIT, ERROR_NO_SYSTEM_RESOURCES, ERROR_NOT_ENOUGH_MEMORY, ERROR_OUTOFMEMORY,
    ERROR_PIPE_BUSY, ERROR_TOO_MANY_OPEN_FILES,
};

use crate::async_connection::make_room;
pub use crate::async_connection::{AcceptError, Connection, Receiver, Sender};
use crate::endpoint::Endpoint;
use crate::peer::Peer;
use crate::pipe_instance_windows::create;
use crate::security_windows::OwnerOnly;
use crate::transport::Descriptor;

/// Instances that wait, for each core: a `make -j` of twice the cores finds one free, with as many on their way.
const INSTANCES_PER_CORE: usize = 4;

/// The most instances that wait. Each is a handle and, once connected, 128 KiB of the system's memory.
const INSTANCES_MAX: usize = 64;

/// How long it takes until an instance that could not be made is tried again, while others wait: long enough for
/// the system to get some memory back, short beside a client's patience (1 s).
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The most bytes that are given to one write: the system keeps a copy until the client has read them.
const WRITE_BYTES_MAX: usize = 256 * 1024;

/// Where clients come in. Several tasks may accept, each through a clone, but one at a time.
#[derive(Debug, Clone)]
pub struct Listener {
    pool: Arc<Mutex<Pool>>,
}

impl Listener {
    /// Listens at `endpoint`: every instance waits when this returns. Must be called within the tokio runtime that is
    /// to drive the connections, and while holding the service lock.
    ///
    /// # Errors
    /// The system's; `PermissionDenied` if somebody else listens there.
    pub fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        let (name, access) = (endpoint.socket(), OwnerOnly::pipe()?);
        let first = create(&name, true, &access).map_err(|e| taken(e, &name))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let size = (INSTANCES_PER_CORE * cores).min(INSTANCES_MAX);
        let mut pool = Pool::new(Box::new(move || create(&name, false, &access)), size);
        pool.wait_with(first);
        pool.refill();
        Ok(Self { pool: Arc::new(Mutex::new(pool)) })
    }

    /// The next client. Can be dropped and called again.
    ///
    /// # Errors
    /// See [`AcceptError`].
    pub async fn accept(&self) -> Result<Incoming, AcceptError> {
        self.pool.lock().await.accept().await
    }
}

/// Says what to do about a pipe that is there already.
fn taken(error: io::Error, name: &Path) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    let text = format!(
        "{} is another process's ({error}); end it, or set ZCCACHE_RUNTIME_DIR to another directory",
        name.display()
    );
    io::Error::new(error.kind(), text)
}

/// Makes one more instance.
type Create = Box<dyn FnMut() -> io::Result<NamedPipeServer> + Send>;

/// The instances that wait.
struct Pool {
    create: Create,
    /// How many are to wait.
    size: usize,
    waiting: JoinSet<io::Result<NamedPipeServer>>,
}

impl Pool {
    fn new(create: Create, size: usize) -> Self {
        Self { create, size, waiting: JoinSet::new() }
    }

    /// Has `instance` wait for its client.
    fn wait_with(&mut self, instance: NamedPipeServer) {
        self.waiting.spawn(async move { instance.connect().await.map(|()| instance) });
    }

    /// Makes what is missing; stops at the first that cannot be made.
    fn refill(&mut self) -> Option<io::Error> {
        while self.waiting.len() < self.size {
            match (self.create)() {
                Ok(instance) => self.wait_with(instance),
                Err(e) => return Some(e),
            }
        }
        None
    }

    async fn accept(&mut self) -> Result<Incoming, AcceptError> {
        loop {
            let trouble = self.refill();
            let came = match trouble {
                None => self.waiting.join_next().await,
                Some(e) if self.waiting.is_empty() => return Err(AcceptError::Passing(e)),
                // What is missing is tried again, whether a client comes or not.
                Some(_) => match tokio::time::timeout(RETRY_PAUSE, self.waiting.join_next()).await {
                    Ok(came) => came,
                    Err(_) => continue,
                },
            };
            // The replacement comes before the instance is handed on.
            self.refill();
            return match came {
                Some(Ok(Ok(instance))) => {
                    Ok(Incoming { peer: Peer::of_client(instance.as_handle()), instance })
                }
                Some(Ok(Err(e))) => Err(AcceptError::Passing(e)),
                Some(Err(e)) => Err(AcceptError::Passing(io::Error::other(e))),
                None => continue,
            };
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("size", &self.size)
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

/// Whether the system lacks handles or memory.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let shortage = [
        ERROR_COMMITMENT_LIMIT,
        ERROR_NO_SYSTEM_RESOURCES,
        ERROR_NOT_ENOUGH_MEMORY,
        ERROR_OUTOFMEMORY,
        ERROR_PIPE_BUSY,
        ERROR_TOO_MANY_OPEN_FILES,
    ];
    error.raw_os_error().is_some_and(|code| shortage.contains(&code.cast_unsigned()))
}

/// A client that was let in. The runtime of the [`Listener`] drives it, wherever it is served.
#[derive(Debug)]
pub struct Incoming {
    instance: NamedPipeServer,
    peer: Peer,
}

impl Incoming {
    /// The connection.
    ///
    /// # Errors
    /// None on this platform.
    pub fn into_connection(self) -> io::Result<Connection> {
        Ok(Connection::new(Stream(self.instance), self.peer))
    }
}

/// What carries a connection's bytes. Nothing travels beside them.
#[derive(Debug)]
pub(crate) struct Stream(NamedPipeServer);

impl Stream {
    /// Reads what has come, once. Can be dropped and called again.
    pub(crate) async fn read(&self, buffer: &mut BytesMut, _: &mut Vec<Descriptor>) -> io::Result<usize> {
        loop {
            self.0.readable().await?;
            let before = make_room(buffer);
            let outcome = self.0.try_read(&mut buffer[before..]);
            buffer.truncate(before + outcome.as_ref().map_or(0, |bytes| *bytes));
            match outcome {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
        }
    }

    /// Writes as much as is taken at once. Can be dropped and called again.
    pub(crate) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let part = &bytes[..bytes.len().min(WRITE_BYTES_MAX)];
        loop {
            self.0.writable().await?;
            match self.0.try_write(part) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return outcome,
            }
        }
    }

    /// Files that we make belong to our user, as the client's would: it is the same one.
    pub(crate) fn peer_has_our_groups(&self, peer: Peer) -> bool {
        peer.is_ours()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    use crate::blocking_transport::Connection as Client;

    /// A pool of `size` at an endpoint of its own, whose instances can be made for as long as it says so.
    fn pool(size: usize) -> (Pool, Arc<AtomicBool>, Endpoint, tempfile::TempDir) {
        let temp = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::in_directory(temp.path());
        let (name, access) = (endpoint.socket(), OwnerOnly::pipe().unwrap());
        let works = Arc::new(AtomicBool::new(true));
        let can = Arc::clone(&works);
        let create: Create = Box::new(move || match can.load(Ordering::SeqCst) {
            true => create(&name, false, &access),
            false => Err(io::Error::from_raw_os_error(ERROR_NO_SYSTEM_RESOURCES.cast_signed())),
        });
        let mut pool = Pool::new(create, size);
        assert!(pool.refill().is_none());
        (pool, works, endpoint, temp)
    }

    fn connect(endpoint: &Endpoint) -> io::Result<Client> {
        Client::connect(endpoint, Duration::from_millis(200))
    }

    #[tokio::test]
    async fn a_replacement_waits_before_the_connected_instance_is_handed_on() {
        let (mut pool, _, endpoint, _temp) = pool(1);
        for _ in 0..5 {
            let client = connect(&endpoint).unwrap();
            let incoming = pool.accept().await.unwrap();
            assert_eq!(pool.waiting.len(), 1);
            assert_eq!(incoming.peer.pid, Some(std::process::id()));
            drop((client, incoming));
        }
    }

    #[tokio::test]
    async fn what_cannot_be_made_for_a_while_is_made_later() {
        let (mut pool, works, endpoint, _temp) = pool(3);
        works.store(false, Ordering::SeqCst);
        for left in [2, 1, 0] {
            let _client = connect(&endpoint).unwrap();
            pool.accept().await.unwrap();
            assert_eq!(pool.waiting.len(), left);
        }
        let error = pool.accept().await.unwrap_err();
        assert!(error.is_shortage() && !error.is_fatal(), "{error}");
        works.store(true, Ordering::SeqCst);
        let accepted = tokio::spawn(async move {
            let incoming = pool.accept().await;
            (pool, incoming)
        });
        tokio::task::yield_now().await;
        let _client = connect(&endpoint).unwrap();
        let (pool, incoming) = accepted.await.unwrap();
        incoming.unwrap();
        assert_eq!(pool.waiting.len(), 3, "all of it waits again");
    }

    #[tokio::test]
    async fn a_pool_that_lacks_some_is_filled_though_nobody_comes() {
        let (mut pool, works, endpoint, _temp) = pool(2);
        works.store(false, Ordering::SeqCst);
        let _client = connect(&endpoint).unwrap();
        pool.accept().await.unwrap();
        let later = async {
            tokio::time::sleep(RETRY_PAUSE * 2).await;
            works.store(true, Ordering::SeqCst);
        };
        let waits = tokio::time::timeout(RETRY_PAUSE * 30, pool.accept());
        let ((), outcome) = tokio::join!(later, waits);
        assert!(outcome.is_err(), "nobody came");
        assert_eq!(pool.waiting.len(), 2);
    }

    #[tokio::test]
    async fn one_write_takes_so_much_and_no_more() {
        let (mut pool, _, endpoint, _temp) = pool(1);
        let _client = connect(&endpoint).unwrap();
        let stream = Stream(pool.accept().await.unwrap().instance);
        assert_eq!(stream.write(&vec![0; WRITE_BYTES_MAX + 1]).await.unwrap(), WRITE_BYTES_MAX);
    }
}
