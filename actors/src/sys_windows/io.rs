//! Errors, by the names that Linux has for them.

use windows_sys::Win32::Foundation as win;

/// An error of the system: its own number, or that of the name that says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(u32);

impl Errno {
    /// There is no such file.
    pub const NOENT: Self = Self(win::ERROR_FILE_NOT_FOUND);
    /// Something on the way to it is no directory.
    pub const NOTDIR: Self = Self(win::ERROR_DIRECTORY);
    /// It is a directory.
    pub const ISDIR: Self = Self(win::ERROR_DIRECTORY_NOT_SUPPORTED);
    /// It is there already.
    pub const EXIST: Self = Self(win::ERROR_FILE_EXISTS);
    /// That is not allowed.
    pub const PERM: Self = Self(win::ERROR_PRIVILEGE_NOT_HELD);
    /// That is not allowed either.
    pub const ACCESS: Self = Self(win::ERROR_ACCESS_DENIED);
    /// A signal came; there are none here.
    pub const INTR: Self = Self(win::ERROR_OPERATION_ABORTED);
    /// Not now.
    pub const AGAIN: Self = Self(win::ERROR_NO_DATA);
    /// What was asked for makes no sense.
    pub const INVAL: Self = Self(win::ERROR_INVALID_PARAMETER);
    /// It lies on another disk.
    pub const XDEV: Self = Self(win::ERROR_NOT_SAME_DEVICE);
    /// The system has no such thing.
    pub const NOSYS: Self = Self(win::ERROR_CALL_NOT_IMPLEMENTED);
    /// The file system has no such thing.
    pub const OPNOTSUPP: Self = Self(win::ERROR_NOT_SUPPORTED);

    /// The system's number.
    pub fn raw_os_error(self) -> i32 {
        self.0.cast_signed()
    }
}

/// What a call comes to.
pub type Result<T> = std::result::Result<T, Errno>;

impl From<std::io::Error> for Errno {
    fn from(error: std::io::Error) -> Self {
        match error.raw_os_error().map(i32::cast_unsigned) {
            // A name that cannot be is a file that is not there, and so is one on the way that is missing.
            Some(
                win::ERROR_PATH_NOT_FOUND
                | win::ERROR_INVALID_NAME
                | win::ERROR_BAD_NETPATH
                | win::ERROR_BAD_PATHNAME
                | win::ERROR_BAD_NET_NAME
                | win::ERROR_DELETE_PENDING,
            ) => Self::NOENT,
            Some(win::ERROR_ALREADY_EXISTS) => Self::EXIST,
            Some(code) => Self(code),
            None => Self::INVAL,
        }
    }
}

impl From<Errno> for std::io::Error {
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.raw_os_error())
    }
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::io::Error::from(*self).fmt(f)
    }
}

impl std::error::Error for Errno {}
