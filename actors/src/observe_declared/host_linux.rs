//! What the declared observer needs of Linux.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Prepares a question to a compiler that is called `name`.
pub fn prepare_question(command: &mut Command, name: &OsStr) {
    command.arg0(name);
}

/// Whether the times of files and directories on this disk tell of every change. Those that do not are not told apart.
pub fn tells_changes(_: &Path) -> bool {
    true
}

/// Whether tools speak plainly where no variable says in which language they are to.
pub fn is_plain_unasked() -> bool {
    true
}

/// Whether all tools of this family speak plainly whatever they are asked for.
pub fn is_always_plain(_family: &str) -> bool {
    false
}
