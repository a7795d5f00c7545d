//! Files and directories, by the names that Linux has for what can be done to them.

use std::ffi::{CStr, CString};
use std::fs::{File, OpenOptions};
use std::os::windows::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use windows_sys::Win32::Storage::FileSystem::{
    FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT, FILE_READ_ATTRIBUTES,
};

use super::io::{Errno, Result};
use super::path::Arg;
use super::process::ONLY_UID;
use super::status::{self, Status};
use super::{AsFd, BorrowedFd, OsStrExt, OwnedFd};

/// Where a relative path begins.
pub trait Start {
    /// The directory; `None`: this process's own.
    fn directory(&self) -> Option<BorrowedFd<'_>>;
}

/// This process's own directory.
#[derive(Debug, Clone, Copy)]
pub struct Cwd;

/// This process's own directory.
pub const CWD: Cwd = Cwd;

impl Start for Cwd {
    fn directory(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl<T: AsFd> Start for T {
    fn directory(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

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

flags! {
    /// How a file is opened.
    OFlags: RDONLY = 0, WRONLY = 1, PATH = 2, DIRECTORY = 4, NOFOLLOW = 8, CREATE = 16, EXCL = 32,
    CLOEXEC = 0, NONBLOCK = 0,
}

flags! {
    /// How a path is looked at.
    AtFlags: SYMLINK_NOFOLLOW = 1, EMPTY_PATH = 2,
}

flags! {
    /// How a file is renamed.
    RenameFlags: NOREPLACE = 1,
}

flags! {
    /// What is asked of a file.
    StatxFlags: BASIC_STATS = 1,
}

/// Permissions, of which Windows knows one: whether a file may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode(u32);

impl Mode {
    /// Its owner may read it.
    pub const RUSR: Self = Self(0o400);
    /// Its owner may write to it.
    pub const WUSR: Self = Self(0o200);

    /// None.
    pub fn empty() -> Self {
        Self(0)
    }

    /// The permissions in a mode.
    pub fn from_raw_mode(mode: u32) -> Self {
        Self(mode & 0o7777)
    }
}

impl std::ops::BitOr for Mode {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The path that `path` is, as seen from `start`.
fn resolve(start: &impl Start, path: &Path) -> Result<PathBuf> {
    match start.directory() {
        Some(directory) if !path.is_absolute() => Ok(status::name_of(directory)?.join(path)),
        _ => Ok(path.to_path_buf()),
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
pub fn openat(start: impl Start, path: impl Arg, flags: OFlags, _: Mode) -> Result<OwnedFd> {
    let path = resolve(&start, &path.to_path())?;
    let mut options = OpenOptions::new();
    options.write(flags.contains(OFlags::WRONLY)).read(!flags.contains(OFlags::WRONLY));
    if flags.contains(OFlags::CREATE | OFlags::EXCL) {
        options.create_new(true);
    } else {
        options.create(flags.contains(OFlags::CREATE));
    }
    if flags.contains(OFlags::PATH) {
        options.access_mode(FILE_READ_ATTRIBUTES);
    }
    let follow = if flags.contains(OFlags::NOFOLLOW) { FILE_FLAG_OPEN_REPARSE_POINT } else { 0 };
    // Without the first, no directory can be opened.
    let file = options.custom_flags(FILE_FLAG_BACKUP_SEMANTICS | follow).open(path)?;
    if flags.contains(OFlags::DIRECTORY) && !file.metadata()?.is_dir() {
        return Err(Errno::NOTDIR);
    }
    Ok(file.into())
}

fn status_at(start: &impl Start, path: &Path, flags: AtFlags) -> Result<Status> {
    if flags.contains(AtFlags::EMPTY_PATH)
        && path.as_os_str().is_empty()
        && let Some(open) = start.directory()
    {
        return Ok(status::of(open)?);
    }
    let follow = if flags.contains(AtFlags::SYMLINK_NOFOLLOW) { FILE_FLAG_OPEN_REPARSE_POINT } else { 0 };
    let file = OpenOptions::new()
        .access_mode(FILE_READ_ATTRIBUTES)
        .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | follow)
        .open(resolve(start, path)?)?;
    Ok(status::of(file.as_fd())?)
}

/// What is known of a file, as `stat` tells it.
#[derive(Debug, Clone, Copy)]
pub struct Stat {
    /// Kind and permissions.
    pub st_mode: u32,
    /// The owner: the one user there is.
    pub st_uid: u32,
    /// Its length in bytes.
    pub st_size: i64,
    /// Its names.
    pub st_nlink: u64,
}

impl From<Status> for Stat {
    fn from(known: Status) -> Self {
        Self {
            st_mode: known.mode,
            st_uid: ONLY_UID,
            st_size: i64::try_from(known.size).unwrap_or(i64::MAX),
            st_nlink: known.links.into(),
        }
    }
}

/// What is known of `path`, as seen from `start`.
///
/// # Errors
/// The system's.
pub fn statat(start: impl Start, path: impl Arg, flags: AtFlags) -> Result<Stat> {
    Ok(status_at(&start, &path.to_path(), flags)?.into())
}

/// What is known of an open file.
///
/// # Errors
/// The system's.
pub fn fstat(file: impl AsFd) -> Result<Stat> {
    Ok(status::of(file.as_fd())?.into())
}

/// A moment, as files are stamped with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatxTimestamp {
    /// Seconds since the epoch.
    pub tv_sec: i64,
    /// Nanoseconds beyond them.
    pub tv_nsec: u32,
}

/// Seconds from 1601, where Windows begins to count, to the epoch.
const EPOCH_S: i64 = 11_644_473_600;
/// Windows counts in units of 100 ns: so many in a second.
const UNITS_PER_S: i64 = 10_000_000;

impl StatxTimestamp {
    fn from_units(units: i64) -> Self {
        let nanoseconds = units.rem_euclid(UNITS_PER_S) * 100;
        Self {
            tv_sec: units.div_euclid(UNITS_PER_S) - EPOCH_S,
            tv_nsec: u32::try_from(nanoseconds).unwrap_or(0),
        }
    }
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
pub fn statx(start: impl Start, path: impl Arg, flags: AtFlags, _: StatxFlags) -> Result<Statx> {
    let known = status_at(&start, &path.to_path(), flags)?;
    Ok(Statx {
        stx_dev_major: 0,
        stx_dev_minor: known.volume,
        stx_ino: known.number,
        stx_size: known.size,
        stx_mtime: StatxTimestamp::from_units(known.written),
        stx_ctime: StatxTimestamp::from_units(known.changed),
        stx_mode: u16::try_from(known.mode).unwrap_or(0),
    })
}

/// Removes a file.
///
/// # Errors
/// The system's.
pub fn unlinkat(start: impl Start, path: impl Arg, _: AtFlags) -> Result<()> {
    Ok(std::fs::remove_file(resolve(&start, &path.to_path())?)?)
}

/// Renames a file, over another if need be.
///
/// # Errors
/// The system's.
pub fn renameat_with(
    from_start: impl Start,
    from: impl Arg,
    to_start: impl Start,
    to: impl Arg,
    flags: RenameFlags,
) -> Result<()> {
    let (from, to) = (resolve(&from_start, &from.to_path())?, resolve(&to_start, &to.to_path())?);
    if flags.contains(RenameFlags::NOREPLACE) {
        // A new name never replaces.
        std::fs::hard_link(&from, to)?;
        return Ok(std::fs::remove_file(from)?);
    }
    Ok(std::fs::rename(from, to)?)
}

/// Where a symbolic link leads.
///
/// # Errors
/// The system's, if it is none.
pub fn readlinkat(start: impl Start, path: impl Arg, _: Vec<u8>) -> Result<CString> {
    let target = std::fs::read_link(resolve(&start, &path.to_path())?)?;
    CString::new(target.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)
}

/// The full name of an open directory.
///
/// # Errors
/// The system's.
pub fn path_of(directory: impl AsFd) -> std::io::Result<Vec<u8>> {
    Ok(status::name_of(directory.as_fd())?.as_os_str().as_bytes().to_vec())
}

/// Sets a file's permissions: whether it may be written to.
///
/// # Errors
/// The system's.
pub fn fchmod(file: &File, mode: Mode) -> Result<()> {
    let mut permissions = file.metadata()?.permissions();
    permissions.set_readonly(mode.0 & Mode::WUSR.0 == 0);
    Ok(file.set_permissions(permissions)?)
}

/// The names in a directory.
pub struct Dir(std::fs::ReadDir);

impl Dir {
    /// Lists an open directory.
    ///
    /// # Errors
    /// The system's.
    pub fn new(directory: OwnedFd) -> Result<Self> {
        Ok(Self(std::fs::read_dir(status::name_of(directory.as_fd())?)?))
    }
}

impl Iterator for Dir {
    type Item = Result<DirEntry>;

    fn next(&mut self) -> Option<Self::Item> {
        let name = |entry: std::fs::DirEntry| {
            CString::new(entry.file_name().as_bytes()).map(DirEntry).map_err(|_| Errno::INVAL)
        };
        Some(self.0.next()?.map_err(Errno::from).and_then(name))
    }
}

/// A name in a directory.
pub struct DirEntry(CString);

impl DirEntry {
    /// The name.
    pub fn file_name(&self) -> &CStr {
        &self.0
    }
}
