//! The system as the rest of this crate sees it, on Windows: the twin of `sys_linux.rs`.
//!
//! Paths are the standard library's own encoding of them (UTF-8 wherever they are text), with either slash. A path that
//! is relative to a directory's handle is found through that directory's full name.

#[path = "sys_windows/changes.rs"]
pub mod changes;
#[path = "sys_windows/fs.rs"]
pub mod fs;
#[path = "sys_windows/io.rs"]
pub mod io;
#[path = "sys_windows/locale.rs"]
mod locale;
#[path = "sys_windows/param.rs"]
pub mod param;
#[path = "sys_windows/path.rs"]
pub mod path;
#[path = "sys_windows/pipe.rs"]
pub mod pipe;
#[path = "sys_windows/process.rs"]
pub mod process;
#[path = "sys_windows/status.rs"]
mod status;
#[path = "sys_windows/time.rs"]
pub mod time;

use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, OpenOptions};
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, OwnedHandle};

pub use fs::{Start, path_of};
pub use locale::{is_english, locale};
pub use status::{disk_bytes, keeps_times};

/// An open file, directory or pipe.
pub type OwnedFd = OwnedHandle;
/// The same, lent.
pub type BorrowedFd<'a> = BorrowedHandle<'a>;

/// Whatever has an open file.
pub trait AsFd {
    /// It, lent.
    fn as_fd(&self) -> BorrowedFd<'_>;
}

impl<T: AsHandle> AsFd for T {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.as_handle()
    }
}

/// Whatever has an open file with a number.
pub trait AsRawFd {
    /// The number.
    fn as_raw_fd(&self) -> usize;
}

impl<T: AsRawHandle> AsRawFd for T {
    fn as_raw_fd(&self) -> usize {
        self.as_raw_handle().addr()
    }
}

/// A name that no file has: what bytes stand for that are no text.
const NO_NAME: &str = "?";

/// Texts of the system as bytes.
pub trait OsStrExt {
    /// As bytes.
    fn as_bytes(&self) -> &[u8];
    /// From bytes; what is not UTF-8 becomes a name that no file has.
    fn from_bytes(bytes: &[u8]) -> &OsStr;
}

impl OsStrExt for OsStr {
    fn as_bytes(&self) -> &[u8] {
        self.as_encoded_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> &OsStr {
        OsStr::new(std::str::from_utf8(bytes).unwrap_or(NO_NAME))
    }
}

/// Texts of the system into bytes, and back.
pub trait OsStringExt {
    /// Into bytes.
    fn into_vec(self) -> Vec<u8>;
    /// From bytes; what is not UTF-8 becomes a name that no file has.
    fn from_vec(bytes: Vec<u8>) -> OsString;
}

impl OsStringExt for OsString {
    fn into_vec(self) -> Vec<u8> {
        self.into_encoded_bytes()
    }

    fn from_vec(bytes: Vec<u8>) -> OsString {
        String::from_utf8(bytes).unwrap_or_else(|_| NO_NAME.into()).into()
    }
}

/// The mode of a file that is made. There is none here: what is made inherits from its directory, which is ours alone.
pub trait OpenOptionsExt {
    /// Does nothing.
    fn mode(&mut self, mode: u32) -> &mut Self;
}

impl OpenOptionsExt for OpenOptions {
    fn mode(&mut self, _: u32) -> &mut Self {
        self
    }
}

/// The mode of a directory that is made; as above.
pub trait DirBuilderExt {
    /// Does nothing.
    fn mode(&mut self, mode: u32) -> &mut Self;
}

impl DirBuilderExt for DirBuilder {
    fn mode(&mut self, _: u32) -> &mut Self {
        self
    }
}

/// Of a mode: the bits that tell what kind of file it is. These and the following are Linux's, as records have them.
pub const S_IFMT: u32 = 0o170_000;
/// A regular file.
pub const S_IFREG: u32 = 0o100_000;
/// A directory.
pub const S_IFDIR: u32 = 0o040_000;
/// A symbolic link, or what Windows has beside it.
pub const S_IFLNK: u32 = 0o120_000;
/// Its owner may write to it.
pub const S_IWUSR: u32 = 0o200;
/// The system's error for a full disk (`ERROR_DISK_FULL`).
pub const ENOSPC: i32 = 112;

/// The mode of a file that a tool makes: there is but one bit, and it may be written to.
pub const NEW_FILE_MODE: u32 = 0o777;

/// `ERROR_TOO_MANY_OPEN_FILES`.
pub const ENFILE: i32 = 4;
