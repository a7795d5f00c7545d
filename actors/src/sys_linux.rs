//! The system as the rest of this crate sees it, on Linux: `rustix` and the standard library's Unix part, as they are.
//!
//! The twins for other systems (`sys_windows.rs`, `sys_macos.rs`) have the same names with the same meaning, or say that
//! there is no such thing, so that nobody else need know where this runs. What only one system has (its observer, its
//! way to start a tool) does not come this way.

use std::io::Result;

pub use std::os::fd::AsFd as Start;
pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
pub use std::os::unix::ffi::{OsStrExt, OsStringExt};
pub use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

pub use libc::{ENFILE, ENOSPC, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_IWUSR};
pub use rustix::{fs, io, param, path, pipe, process, time};

/// The mode that compilers ask for when they make a file.
pub const NEW_FILE_MODE: u32 = 0o666;

/// What the user has chosen that tools go by without a variable: nothing.
pub fn locale() -> Vec<u8> {
    Vec::new()
}

/// The full name of an open directory, without links.
///
/// # Errors
/// If the kernel does not tell.
pub fn path_of(directory: impl AsFd) -> Result<Vec<u8>> {
    let link = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
    Ok(fs::readlink(link, Vec::with_capacity(256))?.into_bytes())
}

/// The size of the disk that `directory` is on, in bytes.
///
/// # Errors
/// The system's.
pub fn disk_bytes(directory: &std::path::Path) -> Result<u64> {
    let disk = fs::statvfs(directory)?;
    Ok(disk.f_blocks.saturating_mul(disk.f_frsize))
}
