//! What the system knows of an open file.
#![expect(unsafe_code, reason = "a file's number and time of change have no safe form")]

use std::mem::MaybeUninit;
use std::os::windows::ffi::OsStringExt;
use std::os::windows::io::AsRawHandle;
use std::path::PathBuf;
use std::ptr::null_mut;

use windows_sys::Win32::Storage::FileSystem::{
    BY_HANDLE_FILE_INFORMATION, FILE_ATTRIBUTE_DIRECTORY, FILE_ATTRIBUTE_READONLY,
    FILE_ATTRIBUTE_REPARSE_POINT, FILE_BASIC_INFO, FILE_NAME_NORMALIZED, FILE_REMOTE_PROTOCOL_INFO,
    FILE_TYPE_DISK, FileBasicInfo, FileRemoteProtocolInfo, GetDiskFreeSpaceExW, GetFileInformationByHandle,
    GetFileInformationByHandleEx, GetFileType, GetFinalPathNameByHandleW, GetVolumeInformationByHandleW,
    VOLUME_NAME_DOS,
};

use super::{BorrowedFd, S_IFDIR, S_IFLNK, S_IFREG};

/// What is known of a file.
#[derive(Debug, Clone, Copy)]
pub struct Status {
    /// The disk.
    pub volume: u32,
    /// The file on it.
    pub number: u64,
    /// Its length in bytes.
    pub size: u64,
    /// Its names.
    pub links: u32,
    /// When it was last written to, in units of 100 ns since 1601.
    pub written: i64,
    /// When anything about it last changed, likewise. A file system that does not tell says 0.
    pub changed: i64,
    /// Kind and permissions, as Linux has them.
    pub mode: u32,
}

/// What is known of the open file `handle`.
///
/// # Errors
/// The system's; a pipe or a device has no such things.
pub fn of(handle: BorrowedFd<'_>) -> std::io::Result<Status> {
    let raw = handle.as_raw_handle();
    // SAFETY: the handle is borrowed for the call.
    if unsafe { GetFileType(raw) } != FILE_TYPE_DISK {
        return Err(std::io::ErrorKind::Unsupported.into());
    }
    let mut known = MaybeUninit::<BY_HANDLE_FILE_INFORMATION>::zeroed();
    // SAFETY: the handle is borrowed for the call, the structure is ours, and plain numbers once zeroed.
    let known = unsafe {
        if GetFileInformationByHandle(raw, known.as_mut_ptr()) == 0 {
            return Err(std::io::Error::last_os_error());
        }
        known.assume_init()
    };
    let mut times = FILE_BASIC_INFO::default();
    let bytes = u32::try_from(size_of::<FILE_BASIC_INFO>()).unwrap_or(0);
    // SAFETY: as above; the structure is of the length given.
    if unsafe { GetFileInformationByHandleEx(raw, FileBasicInfo, (&raw mut times).cast(), bytes) } == 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(Status {
        volume: known.dwVolumeSerialNumber,
        number: u64::from(known.nFileIndexHigh) << 32 | u64::from(known.nFileIndexLow),
        size: u64::from(known.nFileSizeHigh) << 32 | u64::from(known.nFileSizeLow),
        links: known.nNumberOfLinks,
        written: times.LastWriteTime,
        changed: times.ChangeTime,
        mode: mode_of(known.dwFileAttributes),
    })
}

/// Every file may be executed as far as the system minds; whether it may be written to is one bit.
fn mode_of(attributes: u32) -> u32 {
    let permissions = if attributes & FILE_ATTRIBUTE_READONLY == 0 { 0o777 } else { 0o555 };
    if attributes & FILE_ATTRIBUTE_REPARSE_POINT != 0 {
        S_IFLNK | 0o777
    } else if attributes & FILE_ATTRIBUTE_DIRECTORY != 0 {
        S_IFDIR | 0o777
    } else {
        S_IFREG | permissions
    }
}

/// The full name of the open file or directory `handle`, with its drive.
///
/// # Errors
/// The system's.
pub fn name_of(handle: BorrowedFd<'_>) -> std::io::Result<PathBuf> {
    let mut units = vec![0_u16; 512];
    loop {
        let room = u32::try_from(units.len()).unwrap_or(u32::MAX);
        let flags = FILE_NAME_NORMALIZED | VOLUME_NAME_DOS;
        // SAFETY: the handle is borrowed for the call, and the buffer is of the length given.
        let length =
            unsafe { GetFinalPathNameByHandleW(handle.as_raw_handle(), units.as_mut_ptr(), room, flags) };
        match length {
            0 => return Err(std::io::Error::last_os_error()),
            _ if length < room => {
                units.truncate(length as usize);
                return Ok(plain(std::ffi::OsString::from_wide(&units)));
            }
            // Too short: this is how much is needed.
            _ => units.resize(length as usize + 1, 0),
        }
    }
}

/// Without the prefix that keeps the system from understanding slashes and dots.
fn plain(name: std::ffi::OsString) -> PathBuf {
    let Some(text) = name.to_str() else { return name.into() };
    match (text.strip_prefix(r"\\?\UNC\"), text.strip_prefix(r"\\?\")) {
        (Some(share), _) => format!(r"\\{share}").into(),
        (None, Some(path)) => path.into(),
        (None, None) => text.into(),
    }
}

/// The size of the disk that `directory` is on, in bytes.
///
/// # Errors
/// The system's.
pub fn disk_bytes(directory: &std::path::Path) -> std::io::Result<u64> {
    use std::os::windows::ffi::OsStrExt;
    let name: Vec<u16> = directory.as_os_str().encode_wide().chain([0]).collect();
    let mut bytes = 0;
    // SAFETY: the name ends with a zero, and the number is ours.
    let told = unsafe { GetDiskFreeSpaceExW(name.as_ptr(), null_mut(), &raw mut bytes, null_mut()) };
    if told == 0 { Err(std::io::Error::last_os_error()) } else { Ok(bytes) }
}

/// The file system whose times tell of every change of a file, and of the names in a directory.
const TELLING: &str = "NTFS";

/// Room for a file system's name, in units of two bytes, its end included.
const NAME_UNITS: usize = 32;

/// Whether the times of files and directories on the disk that `path` is on tell of every change: others do not have
/// all of these times, or tell them late.
///
/// # Errors
/// The system's.
pub fn keeps_times(path: &std::path::Path) -> std::io::Result<bool> {
    use super::AsFd;
    let file = super::fs::open(path, super::fs::OFlags::PATH, super::fs::Mode::empty())?;
    let raw = file.as_fd().as_raw_handle();
    let mut remote = FILE_REMOTE_PROTOCOL_INFO::default();
    let bytes = u32::try_from(size_of_val(&remote)).unwrap_or(0);
    // SAFETY: the handle is open for the call; the structure is ours and of the length given.
    let is_remote =
        unsafe { GetFileInformationByHandleEx(raw, FileRemoteProtocolInfo, (&raw mut remote).cast(), bytes) };
    let mut name = [0_u16; NAME_UNITS];
    let room = u32::try_from(name.len()).unwrap_or(0);
    // SAFETY: the handle is open for the call; the name is ours and of the length given, nothing else is asked for.
    let told = unsafe {
        let nothing = null_mut();
        GetVolumeInformationByHandleW(
            raw,
            nothing,
            0,
            nothing.cast(),
            nothing.cast(),
            nothing.cast(),
            name.as_mut_ptr(),
            room,
        )
    };
    if told == 0 {
        return Err(std::io::Error::last_os_error());
    }
    let length = name.iter().position(|&unit| unit == 0).unwrap_or(name.len());
    Ok(is_remote == 0 && String::from_utf16_lossy(&name[..length]) == TELLING)
}
