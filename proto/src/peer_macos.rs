//! Who is at the other end of a Unix socket, as the kernel of macOS tells it.
#![expect(unsafe_code, reason = "getpeereid and LOCAL_PEERPID have no safe form")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// The process at the other end: the one that connected, or the one that called `listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user id at that moment.
    pub uid: u32,
    /// Its process id; `None` if the kernel does not tell.
    pub pid: Option<u32>,
    /// Its effective group id.
    pub gid: u32,
}

impl Peer {
    /// The process at the other end of the connected `socket`.
    ///
    /// # Errors
    /// The system's, if `socket` is no connected Unix socket.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let descriptor = socket.as_fd().as_raw_fd();
        let (mut uid, mut gid) = (0, 0);
        // SAFETY: the descriptor is borrowed for the call, and both numbers are ours.
        if unsafe { libc::getpeereid(descriptor, &raw mut uid, &raw mut gid) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let mut pid: libc::pid_t = 0;
        let mut bytes = size_of_val(&pid) as libc::socklen_t;
        // SAFETY: the descriptor is borrowed for the call; the buffer is of the length given.
        let told = unsafe {
            libc::getsockopt(
                descriptor,
                libc::SOL_LOCAL,
                libc::LOCAL_PEERPID,
                (&raw mut pid).cast(),
                &raw mut bytes,
            )
        };
        let pid = if told == 0 { u32::try_from(pid).ok().filter(|&pid| pid != 0) } else { None };
        Ok(Self { uid, pid, gid })
    }

    /// Whether files that we make for it are as its own would be: on this system they get their directory's group, so
    /// the effective group is enough.
    pub fn has_our_groups(self, _: impl AsFd) -> bool {
        self.gid == rustix::process::getegid().as_raw()
    }

    /// Whether it runs as the user that we are.
    pub fn is_ours(self) -> bool {
        self.uid == rustix::process::geteuid().as_raw()
    }
}
