//! Who is at the other end of a Unix socket, as the kernel recorded it.
//!
//! Both sides check it: a socket of ours must lead to a process of ours. The two calls that `rustix` has no
//! sound form of (a peer outside our process id namespace has the id 0) are here, and nowhere else.
#![expect(
    unsafe_code,
    reason = "getsockopt(SO_PEERCRED) has no sound wrapper for a peer without a visible pid"
)]

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd};

/// The process at the other end: the one that connected, or the one that called `listen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user id at that moment.
    pub uid: u32,
    /// Its process id in our namespace; `None` if it cannot be seen from here.
    pub pid: Option<u32>,
    /// Its effective group id.
    pub gid: u32,
}

/// The most supplementary groups that are compared; one with more counts as another.
const GROUPS_MAX: usize = 64;

impl Peer {
    /// The process at the other end of the connected `socket`.
    ///
    /// # Errors
    /// The system's, if `socket` is no connected Unix socket.
    pub fn of(socket: impl AsFd) -> io::Result<Self> {
        let mut credentials = MaybeUninit::<libc::ucred>::zeroed();
        let mut bytes = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: the descriptor is borrowed for the call; the buffer is of the length given.
        let outcome = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                credentials.as_mut_ptr().cast(),
                &mut bytes,
            )
        };
        if outcome != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: plain integers; zeroed before the call, so initialised however much the kernel wrote.
        let credentials = unsafe { credentials.assume_init() };
        let pid = u32::try_from(credentials.pid).ok().filter(|&pid| pid != 0);
        Ok(Self { uid: credentials.uid, pid, gid: credentials.gid })
    }

    /// Whether the process at the other end of `socket` had our groups: files that we make for it are then as its own
    /// would be. Where the kernel does not tell (before Linux 4.13), the effective group alone decides.
    pub fn has_our_groups(self, socket: impl AsFd) -> bool {
        if self.gid != rustix::process::getegid().as_raw() {
            return false;
        }
        let mut groups = [0_u32; GROUPS_MAX];
        let mut bytes = size_of_val(&groups) as libc::socklen_t;
        // SAFETY: the descriptor is borrowed for the call; the buffer is of the length given.
        let outcome = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &mut bytes,
            )
        };
        if outcome != 0 {
            return io::Error::last_os_error().raw_os_error() == Some(libc::ENOPROTOOPT);
        }
        let mut theirs: Vec<u32> = groups[..bytes as usize / size_of::<u32>()].to_vec();
        let ours = rustix::process::getgroups().unwrap_or_default();
        let mut ours: Vec<u32> = ours.into_iter().map(|group| group.as_raw()).collect();
        theirs.sort_unstable();
        ours.sort_unstable();
        theirs == ours
    }

    /// Whether it runs as the user that we are.
    pub fn is_ours(self) -> bool {
        self.uid == rustix::process::geteuid().as_raw()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let peer = Peer::of(&socket).unwrap();
        assert_eq!(peer.pid, Some(std::process::id()));
        assert!(peer.is_ours());
        assert!(peer.has_our_groups(&socket));
        assert!(!Peer { gid: peer.gid + 1, ..peer }.has_our_groups(&socket));
        assert!(Peer::of(std::fs::File::open("/dev/null").unwrap()).is_err());
    }
}
