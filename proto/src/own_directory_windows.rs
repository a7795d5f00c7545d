//! Directories that are ours alone: the runtime directory and the cache.
//!
//! Whoever can write there can hand out objects of their own making. So such a directory is made for us alone, narrowed
//! to that if it is ours and wider, and refused if it is somebody else's.
#![expect(unsafe_code, reason = "a directory with a security descriptor from its start has no safe form")]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::fs::{MetadataExt, OpenOptionsExt};
use std::os::windows::io::AsHandle;
use std::path::Path;

use windows_sys::Win32::Storage::FileSystem::{
    CreateDirectoryW, FILE_ATTRIBUTE_REPARSE_POINT, FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OPEN_REPARSE_POINT,
    FILE_READ_ATTRIBUTES, READ_CONTROL, WRITE_DAC,
};

use crate::security_windows::{self, OwnerOnly};

/// Makes `directory`, with those above it, if it is missing, and sees to it that it is ours alone. It may be a link to
/// such a directory.
///
/// # Errors
/// If it cannot be made, is no directory, or belongs to somebody else.
pub fn prepare(directory: &Path) -> io::Result<()> {
    make(directory)?;
    check(directory, FILE_FLAG_BACKUP_SEMANTICS)
}

/// The same, but a link is refused.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_strictly(directory: &Path) -> io::Result<()> {
    make(directory)?;
    check(directory, FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT)
}

fn make(directory: &Path) -> io::Result<()> {
    let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", directory.display()));
    if let Some(parent) = directory.parent() {
        std::fs::create_dir_all(parent).map_err(named)?;
    }
    let name = security_windows::wide(directory.as_os_str());
    let made = OwnerOnly::directory()?.with_attributes(|attributes| {
        // SAFETY: the name ends with a zero, and the attributes are valid for as long as this closure runs.
        match unsafe { CreateDirectoryW(name.as_ptr(), attributes) } {
            0 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    });
    match made {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(named(e)),
        _ => Ok(()),
    }
}

fn check(directory: &Path, flags: u32) -> io::Result<()> {
    let access = READ_CONTROL | WRITE_DAC | FILE_READ_ATTRIBUTES;
    let opened: File = OpenOptions::new()
        .access_mode(access)
        .custom_flags(flags)
        .open(directory)
        .map_err(|e| refusal(directory, &format!("is not ours to change ({e})")))?;
    let metadata = opened.metadata()?;
    if metadata.file_attributes() & FILE_ATTRIBUTE_REPARSE_POINT != 0 {
        return Err(refusal(directory, "is a link"));
    }
    if !metadata.is_dir() {
        return Err(refusal(directory, "is no directory"));
    }
    if !security_windows::owns_file(opened.as_handle())? {
        return Err(refusal(directory, "belongs to another user"));
    }
    OwnerOnly::directory()?.narrow(opened.as_handle())
}

fn refusal(directory: &Path, how: &str) -> io::Error {
    let name = directory.display();
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("{name} {how}; zccache needs directories of its own (ZCCACHE_RUNTIME_DIR, ZCCACHE_DIR)"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_with_those_above_it_and_found_again() {
        let temp = tempfile::tempdir().unwrap();
        let directory = temp.path().join("a").join("b");
        for _ in 0..2 {
            prepare(&directory).unwrap();
            prepare_strictly(&directory).unwrap();
        }
        std::fs::write(directory.join("ours"), "").unwrap();
        prepare_strictly(&directory).unwrap();
    }

    #[test]
    fn what_is_no_directory_is_refused_and_named() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("file");
        std::fs::write(&file, "").unwrap();
        for refused in [prepare(&file), prepare(&file.join("below"))] {
            assert!(refused.unwrap_err().to_string().contains("file"));
        }
    }
}
