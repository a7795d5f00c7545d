//! Processes and users.

use super::io;

/// A user, as files' owners and we are compared. Who may write where is the directory's matter on Windows: everybody
/// counts as the one user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uid;

/// The number of the one user.
pub const ONLY_UID: u32 = 0;

impl Uid {
    /// Its number.
    pub fn as_raw(self) -> u32 {
        ONLY_UID
    }
}

/// The user that we are.
pub fn geteuid() -> Uid {
    Uid
}

/// A process.
#[derive(Debug, Clone, Copy)]
pub struct Pid;

/// This process.
pub fn getpid() -> Pid {
    Pid
}

/// What can be done to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// It ends at once.
    KILL,
    /// It stops.
    STOP,
}

/// Ends this process, as tests ask for.
///
/// # Errors
/// `NOSYS` for anything else.
pub fn kill_process(_: Pid, signal: Signal) -> io::Result<()> {
    match signal {
        Signal::KILL => std::process::abort(),
        Signal::STOP => Err(io::Errno::NOSYS),
    }
}
