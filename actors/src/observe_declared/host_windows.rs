//! What the declared observer needs of Windows: the twin of `host_linux.rs`.

use std::ffi::OsStr;
use std::os::windows::process::CommandExt;
use std::path::Path;
use std::process::Command;

use windows_sys::Win32::System::Threading::CREATE_NO_WINDOW;

use crate::sys;

/// Prepares a question to a compiler, whose name follows from how it is started (`spelling::called`). It is to open no
/// window.
pub fn prepare_question(command: &mut Command, _: &OsStr) {
    command.creation_flags(CREATE_NO_WINDOW);
}

/// Whether the times of files and directories on this disk tell of every change.
pub fn tells_changes(path: &Path) -> bool {
    sys::keeps_times(path).unwrap_or(false)
}

/// Whether tools speak plainly where no variable says in which language they are to: in the user's. It is in the key.
pub fn is_plain_unasked() -> bool {
    sys::is_english()
}

/// Whether all tools of this family speak plainly whatever they are asked for.
pub fn is_always_plain(family: &str) -> bool {
    family == "clang"
}
