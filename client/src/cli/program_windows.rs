//! Programs that `zccache-client` runs, on Windows.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::process::{Child, Command};

use crate::process;

/// The wrapper's program.
pub const WRAPPER_NAME: &str = "zccache.exe";

/// Runs `command`, and ends as it did. Returns only if it could not be started.
pub fn end_as(command: &mut Command) -> io::Result<Infallible> {
    let ended = process::run(command)?;
    std::process::exit(process::end_as(ended))
}

/// Starts a service that is no part of ours.
pub fn spawn_daemon(command: &mut Command) -> io::Result<Child> {
    process::spawn_detached(command)
}

/// Whether a program can be run.
pub fn is_executable(path: &Path) -> bool {
    path.is_file()
}

/// Whether there is a process of this number: not asked here, where its lock goes with it.
pub fn is_there(_: i32) -> bool {
    false
}
