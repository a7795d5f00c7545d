//! Programs that `zccache-client` runs, on Unix.

use std::convert::Infallible;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::kernel;

/// The wrapper's program.
pub const WRAPPER_NAME: &str = "zccache";

/// Becomes `command`. Returns only if that fails.
pub fn end_as(command: &mut Command) -> io::Result<Infallible> {
    Err(command.exec())
}

/// Starts a service, which leaves us by itself.
pub fn spawn_daemon(command: &mut Command) -> io::Result<Child> {
    command.spawn()
}

/// Whether a program can be run.
pub fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// Whether there is a process of this number that has not ended yet. One that has, and that nobody has reaped (some
/// containers' first process takes its time), holds nothing any more; where the system cannot tell, it is there.
pub fn is_there(pid: i32) -> bool {
    let exists = rustix::process::Pid::from_raw(pid)
        .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok());
    exists && !kernel::end_of(pid).is_some_and(|end| has_come(&end))
}

/// Whether there is something to read, as of now.
fn has_come(end: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(end, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}
