//! What the wrapper asks of macOS alone.
#![expect(unsafe_code, reason = "plain system calls without a safe form")]

use std::ffi::{CStr, CString, c_int};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;

/// Leads nowhere: there is no such file on this system.
pub const OWN_PROGRAM: &CStr = c"/dev/null/none";

/// Closes every descriptor from `first` on, in a process that is about to become another program.
pub fn close_from(first: c_int) {
    /// Above every descriptor that is likely to be open.
    const DESCRIPTORS_LIKELY: c_int = 1024;
    for descriptor in first..DESCRIPTORS_LIKELY {
        // SAFETY: a plain system call; the process uses none of these any more.
        unsafe { libc::close(descriptor) };
    }
}

/// There is no such wish on this system: a tool whose wrapper is killed goes on.
///
/// # Errors
/// None here.
pub fn end_with_parent(_parent: c_int) -> io::Result<()> {
    Ok(())
}

/// The limit is enough on this system.
pub fn leave_no_core() {}

/// The path that this process was started by.
pub fn started_by() -> Option<CString> {
    CString::new(own_path().ok()?.into_os_string().into_vec()).ok()
}

/// The path of this process's program.
///
/// # Errors
/// The system's.
pub fn own_path() -> io::Result<std::path::PathBuf> {
    std::env::current_exe()
}

/// There is no such descriptor on this system.
pub fn end_of(_: i32) -> Option<OwnedFd> {
    None
}

/// A pipe that no child gets by chance: the end to read from, the end to write to.
///
/// # Errors
/// The system's.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = io::pipe()?;
    Ok((reader.into(), writer.into()))
}

/// Permissions as a request has them.
pub fn mode_bits(mode: rustix::fs::Mode) -> u32 {
    mode.bits().into()
}
