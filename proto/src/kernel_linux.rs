//! What Unix kernels differ in, on Linux.

use std::io;
#[cfg(feature = "async")]
use std::os::fd::AsFd;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
#[cfg(feature = "async")]
use rustix::net::RecvFlags;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};

/// The most bytes a socket address holds (`sun_path`, with its NUL). Longer paths are reached through the directory's
/// descriptor.
pub const SOCKET_ADDRESS_BYTES_MAX: usize = 107;

/// How a directory is opened that is only looked at.
pub const LOOK_AT_DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// How descriptors are received: no child gets them.
#[cfg(feature = "async")]
pub const RECV: RecvFlags = RecvFlags::CMSG_CLOEXEC;

/// How is sent: a closed peer is an error, never a signal.
pub const SEND: SendFlags = SendFlags::NOSIGNAL;

/// A socket to connect, whose calls wait.
///
/// # Errors
/// The system's.
pub fn socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// A socket to listen at, whose calls do not wait.
///
/// # Errors
/// The system's.
#[cfg(feature = "async")]
pub fn listening_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// The next client of such a socket, whose calls do not wait either.
///
/// # Errors
/// The system's; `AGAIN` if there is none.
#[cfg(feature = "async")]
pub fn accept(socket: impl AsFd) -> Result<OwnedFd, Errno> {
    rustix::net::accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
}

/// A short path to `name` in an open directory.
///
/// # Errors
/// None on this system.
pub fn path_through(directory: &OwnedFd, name: impl AsRef<Path>) -> io::Result<PathBuf> {
    Ok(Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name))
}
