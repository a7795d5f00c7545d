//! Files and directories, by the names that Linux has for what can be done to them.

use std::fs::File;

use rustix::fs as unix;
use rustix::io::Result;
use rustix::path::Arg;

use super::{AsFd, OwnedFd};

pub use rustix::fs::{CWD, Dir, RenameFlags, readlink, readlinkat, renameat_with};

/// Defines a set of flags.
macro_rules! flags {
    ($(#[$doc:meta])* $name:ident: $($flag:ident = $value:expr,)*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub struct $name(u32);

        impl $name {
            $(#[doc = "The flag of this name."] pub const $flag: Self = Self($value);)*

            /// None.
            pub fn empty() -> Self {
                Self(0)
            }

            /// Whether all of `other` are among them.
            pub fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }
        }

        impl std::ops::BitOr for $name {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }
    };
}

/// A bit that no flag of the system's has: what it stands for is seen to here.
const OURS: u32 = 1 << 31;

flags! {
    /// How a file is opened.
    OFlags: RDONLY = unix::OFlags::RDONLY.bits(), WRONLY = unix::OFlags::WRONLY.bits(),
    DIRECTORY = unix::OFlags::DIRECTORY.bits(), NOFOLLOW = unix::OFlags::NOFOLLOW.bits(),
    CREATE = unix::OFlags::CREATE.bits(), EXCL = unix::OFlags::EXCL.bits(),
    CLOEXEC = unix::OFlags::CLOEXEC.bits(), NONBLOCK = unix::OFlags::NONBLOCK.bits(),
    PATH = 0,
}

flags! {
    /// How a path is looked at.
    AtFlags: SYMLINK_NOFOLLOW = unix::AtFlags::SYMLINK_NOFOLLOW.bits(),
    EMPTY_PATH = OURS,
}

flags! {
    /// What is asked of a file.
    StatxFlags: BASIC_STATS = 1,
}

flags! {
    /// Permissions.
    Mode: RUSR = 0o400, WUSR = 0o200,
}

impl Mode {
    /// The permissions in a mode.
    pub fn from_raw_mode(mode: u32) -> Self {
        Self(mode & 0o7777)
    }

    fn raw(self) -> unix::Mode {
        unix::Mode::from_bits_truncate(self.0 as unix::RawMode)
    }
}

/// Opens `path`.
///
/// # Errors
/// The system's.
pub fn open(path: impl Arg, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    openat(CWD, path, flags, mode)
}

/// Opens `path`, as seen from `start`.
///
/// # Errors
/// As [`open`].
pub fn openat(start: impl AsFd, path: impl Arg, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    unix::openat(start, path, unix::OFlags::from_bits_retain(flags.0), mode.raw())
}

fn at(flags: AtFlags) -> unix::AtFlags {
    unix::AtFlags::from_bits_retain(flags.0 & !OURS)
}

/// What is known of a file.
#[derive(Debug, Clone, Copy)]
pub struct Stat {
    /// Kind and permissions.
    pub st_mode: u32,
    /// The owner.
    pub st_uid: u32,
    /// Its length in bytes.
    pub st_size: i64,
    /// Its names.
    pub st_nlink: u64,
}

impl From<unix::Stat> for Stat {
    fn from(known: unix::Stat) -> Self {
        Self {
            st_mode: known.st_mode.into(),
            st_uid: known.st_uid,
            st_size: known.st_size,
            st_nlink: known.st_nlink.into(),
        }
    }
}

fn status_at(start: impl AsFd, path: impl Arg, flags: AtFlags) -> Result<unix::Stat> {
    if flags.contains(AtFlags::EMPTY_PATH) && path.as_cow_c_str()?.is_empty() {
        return unix::fstat(start);
    }
    unix::statat(start, path, at(flags))
}

/// What is known of `path`, as seen from `start`.
///
/// # Errors
/// The system's.
pub fn statat(start: impl AsFd, path: impl Arg, flags: AtFlags) -> Result<Stat> {
    Ok(status_at(start, path, flags)?.into())
}

/// What is known of an open file.
///
/// # Errors
/// The system's.
pub fn fstat(file: impl AsFd) -> Result<Stat> {
    Ok(unix::fstat(file)?.into())
}

/// A moment, as files are stamped with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatxTimestamp {
    /// Seconds since the epoch.
    pub tv_sec: i64,
    /// Nanoseconds beyond them.
    pub tv_nsec: u32,
}

/// What is known of a file, as `statx` tells it.
#[derive(Debug, Clone, Copy)]
pub struct Statx {
    /// The disk, one half.
    pub stx_dev_major: u32,
    /// The disk, the other half.
    pub stx_dev_minor: u32,
    /// The file on it.
    pub stx_ino: u64,
    /// Its length in bytes.
    pub stx_size: u64,
    /// When it was last written to.
    pub stx_mtime: StatxTimestamp,
    /// When anything about it last changed.
    pub stx_ctime: StatxTimestamp,
    /// Kind and permissions.
    pub stx_mode: u16,
}

/// What is known of `path`, as seen from `start`.
///
/// # Errors
/// The system's.
pub fn statx(start: impl AsFd, path: impl Arg, flags: AtFlags, _: StatxFlags) -> Result<Statx> {
    let known = status_at(start, path, flags)?;
    let moment = |tv_sec: i64, nanoseconds: i64| StatxTimestamp {
        tv_sec,
        tv_nsec: u32::try_from(nanoseconds).unwrap_or(0),
    };
    Ok(Statx {
        stx_dev_major: 0,
        stx_dev_minor: known.st_dev.cast_unsigned(),
        stx_ino: known.st_ino,
        stx_size: u64::try_from(known.st_size).unwrap_or(0),
        stx_mtime: moment(known.st_mtime, known.st_mtime_nsec),
        stx_ctime: moment(known.st_ctime, known.st_ctime_nsec),
        stx_mode: known.st_mode,
    })
}

/// Removes a file.
///
/// # Errors
/// The system's.
pub fn unlinkat(start: impl AsFd, path: impl Arg, flags: AtFlags) -> Result<()> {
    unix::unlinkat(start, path, at(flags))
}

/// Sets a file's permissions.
///
/// # Errors
/// The system's.
pub fn fchmod(file: &File, mode: Mode) -> Result<()> {
    unix::fchmod(file, mode.raw())
}
