//! Programs that `zccache-client` runs, on Unix.

use std::convert::Infallible;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

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

/// Whether there is a process of this number, were it only to be reaped.
pub fn is_there(pid: i32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok())
}
