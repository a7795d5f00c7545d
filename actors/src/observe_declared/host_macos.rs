//! What the declared observer needs of macOS: the twin of `host_linux.rs`.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The file systems whose times tell of every change, to the nanosecond or the second.
const TELLING: [&[u8]; 2] = [b"apfs", b"hfs"];

/// Prepares a question to a compiler that is called `name`.
pub fn prepare_question(command: &mut Command, name: &OsStr) {
    command.arg0(name);
}

/// Whether the times of files and directories on this disk tell of every change.
pub fn tells_changes(path: &Path) -> bool {
    let name = |disk: rustix::fs::StatFs| {
        disk.f_fstypename.iter().map(|&c| c.cast_unsigned()).take_while(|&b| b != 0).collect::<Vec<u8>>()
    };
    rustix::fs::statfs(path).is_ok_and(|disk| TELLING.contains(&&name(disk)[..]))
}

/// Whether tools speak plainly where no variable says in which language they are to: in the user's, which is not known.
pub fn is_plain_unasked() -> bool {
    false
}

/// Whether all tools of this family speak plainly whatever they are asked for.
pub fn is_always_plain(family: &str) -> bool {
    family == "clang"
}
