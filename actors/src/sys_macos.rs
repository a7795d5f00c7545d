//! The system as the rest of this crate sees it, on macOS: the twin of `sys_linux.rs`.
//!
//! Much is `rustix` as it is; what only Linux has is made of what there is.

#[path = "sys_macos/fs.rs"]
pub mod fs;
#[path = "sys_macos/pipe.rs"]
pub mod pipe;
#[path = "sys_macos/time.rs"]
pub mod time;

pub use std::os::fd::AsFd as Start;
pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
pub use std::os::unix::ffi::{OsStrExt, OsStringExt};
pub use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};

pub use libc::{ENFILE, ENOSPC};
pub use rustix::{io, param, path, process};

/// Of a mode: the bits that tell what kind of file it is.
pub const S_IFMT: u32 = libc::S_IFMT as u32;
/// A regular file.
pub const S_IFREG: u32 = libc::S_IFREG as u32;
/// A directory.
pub const S_IFDIR: u32 = libc::S_IFDIR as u32;
/// A symbolic link.
pub const S_IFLNK: u32 = libc::S_IFLNK as u32;
/// Its owner may write to it.
pub const S_IWUSR: u32 = libc::S_IWUSR as u32;

/// The mode that compilers ask for when they make a file.
pub const NEW_FILE_MODE: u32 = 0o666;

/// What the user has chosen that tools go by without a variable: it is not known, and such tools are not believed.
pub fn locale() -> Vec<u8> {
    Vec::new()
}

/// The full name of an open directory, without links.
///
/// # Errors
/// If the kernel does not tell.
pub fn path_of(directory: impl AsFd) -> std::io::Result<Vec<u8>> {
    Ok(rustix::fs::getpath(directory)?.into_bytes())
}

/// The size of the disk that `directory` is on, in bytes.
///
/// # Errors
/// The system's.
pub fn disk_bytes(directory: &std::path::Path) -> std::io::Result<u64> {
    let disk = rustix::fs::statvfs(directory)?;
    Ok(disk.f_blocks.saturating_mul(disk.f_frsize))
}
