//! `Signature`: what `stat` says of a file that changes whenever its content may have.
//!
//! A signature can be trusted to tell a later change only once the file system's clock has moved past the
//! file's change time; before that, a second write within the same tick would leave it as it was (what git's
//! index calls "racily clean").

use crate::settling;
use crate::sys::Start;
use crate::sys::fs::{AtFlags, CWD, Statx, StatxFlags};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Device, inode, size and both time stamps of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Signature {
    /// Device, as (major << 32 | minor).
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Modification time in nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Status change time in nanoseconds since the epoch: cannot be set by anybody, so it also tells edits
    /// whose author put the old mtime back.
    pub ctime_ns: i64,
    /// Type and permission bits (`st_mode`).
    pub mode: u32,
}

impl Signature {
    /// The signature of `path`, following symbolic links.
    pub fn of(path: impl crate::sys::path::Arg) -> crate::sys::io::Result<Self> {
        Self::at(CWD, path, AtFlags::empty())
    }

    /// The signature of `path` relative to `dir`, with `statx` flags (`SYMLINK_NOFOLLOW`, `EMPTY_PATH`).
    pub fn at(
        dir: impl Start,
        path: impl crate::sys::path::Arg,
        flags: AtFlags,
    ) -> crate::sys::io::Result<Self> {
        crate::sys::fs::statx(dir, path, flags, StatxFlags::BASIC_STATS).map(Self::from)
    }

    /// What kind of file this is.
    pub fn kind(&self) -> FileKind {
        match self.mode & crate::sys::S_IFMT {
            crate::sys::S_IFREG => FileKind::File,
            crate::sys::S_IFDIR => FileKind::Directory,
            crate::sys::S_IFLNK => FileKind::Symlink,
            _ => FileKind::Other,
        }
    }

    /// Whether a change made from now on must show in this signature, the file system's clock standing at
    /// `now_ns` (see [`coarse_now_ns`]).
    pub fn is_settled(&self, now_ns: i64) -> bool {
        settling::is_settled(self.mtime_ns, self.ctime_ns, now_ns)
    }
}

impl From<Statx> for Signature {
    fn from(s: Statx) -> Self {
        let ns = |t: crate::sys::fs::StatxTimestamp| {
            t.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(t.tv_nsec))
        };
        Self {
            dev: (u64::from(s.stx_dev_major) << 32) | u64::from(s.stx_dev_minor),
            ino: s.stx_ino,
            size: s.stx_size,
            mtime_ns: ns(s.stx_mtime),
            ctime_ns: ns(s.stx_ctime),
            mode: u32::from(s.stx_mode),
        }
    }
}

/// The clock that the kernel stamps files with: it moves once per tick (1 to 10 ms), so two changes within a
/// tick get equal stamps. In nanoseconds since the epoch.
pub fn coarse_now_ns() -> i64 {
    let t = crate::sys::time::clock_gettime(crate::sys::time::ClockId::RealtimeCoarse);
    let seconds = t.tv_sec.saturating_add(crate::faults::clock_s());
    seconds.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec)
}

/// What kind of file a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link (only where links are not followed).
    Symlink,
    /// A device, FIFO or socket.
    Other,
}

/// Whether `path` exists, following symbolic links; an error other than "not there" is passed on.
pub fn exists(path: &Path) -> crate::sys::io::Result<bool> {
    match Signature::of(path) {
        Ok(_) => Ok(true),
        Err(crate::sys::io::Errno::NOENT | crate::sys::io::Errno::NOTDIR) => Ok(false),
        Err(e) => Err(e),
    }
}
