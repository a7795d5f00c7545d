//! What Unix kernels differ in, on macOS: flags that Linux takes with a call are set after it.

use std::io;
#[cfg(feature = "async")]
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
#[cfg(feature = "async")]
use rustix::net::RecvFlags;
use rustix::net::{AddressFamily, SendFlags, SocketType, sockopt};

/// The most bytes a socket address holds (`sun_path`, with its NUL).
pub const SOCKET_ADDRESS_BYTES_MAX: usize = 103;

/// How a directory is opened that is only looked at.
pub const LOOK_AT_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// How descriptors are received.
#[cfg(feature = "async")]
pub const RECV: RecvFlags = RecvFlags::empty();

/// How is sent: each socket was told that a closed peer is an error, never a signal.
pub const SEND: SendFlags = SendFlags::empty();

/// A socket to connect, whose calls wait.
///
/// # Errors
/// The system's.
pub fn socket() -> Result<OwnedFd, Errno> {
    prepare(rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?, false)
}

/// A socket to listen at, whose calls do not wait.
///
/// # Errors
/// The system's.
#[cfg(feature = "async")]
pub fn listening_socket() -> Result<OwnedFd, Errno> {
    prepare(rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?, true)
}

/// The next client of such a socket, whose calls do not wait either.
///
/// # Errors
/// The system's; `AGAIN` if there is none.
#[cfg(feature = "async")]
pub fn accept(socket: impl AsFd) -> Result<OwnedFd, Errno> {
    prepare(rustix::net::accept(socket)?, true)
}

fn prepare(socket: OwnedFd, nonblocking: bool) -> Result<OwnedFd, Errno> {
    rustix::io::ioctl_fioclex(&socket)?;
    rustix::io::ioctl_fionbio(&socket, nonblocking)?;
    sockopt::set_socket_nosigpipe(&socket, true)?;
    Ok(socket)
}

/// A short path to `name` in an open directory: there is none on this system.
///
/// # Errors
/// Always, with what to do about it.
pub fn path_through(_: &OwnedFd, _: impl AsRef<Path>) -> io::Result<PathBuf> {
    Err(io::Error::new(
        io::ErrorKind::InvalidFilename,
        "the runtime directory's path is too long for a socket; set ZCCACHE_RUNTIME_DIR to a shorter one",
    ))
}
