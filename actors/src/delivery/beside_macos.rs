//! A file that is written beside its place, on macOS: a clone of the store's where the file system can, else a copy, under
//! a temporary name.

use std::fs::File;
use std::io;

use rustix::fs::{CloneFlags, fclonefileat};

use crate::sys::BorrowedFd;
use crate::sys::fs::{AtFlags, Mode, OFlags, RenameFlags, fchmod, openat, renameat_with, unlinkat};
use crate::sys::io::Errno;

/// Below this, copying costs less than the metadata of a shared extent.
const CLONE_BYTES_MIN: u64 = 16 * 1024;

/// A file written in the directory of its place, but not there yet.
#[derive(Debug)]
pub struct Beside {
    /// Open while it is written.
    file: Option<File>,
    /// Its name until then.
    name: Vec<u8>,
}

impl Beside {
    /// A new file in the directory of `path`, with a temporary name.
    ///
    /// # Errors
    /// The system's.
    pub fn create(path: &[u8], cwd: BorrowedFd<'_>) -> Result<Self, Errno> {
        let name = super::temporary_beside(path);
        let file = Some(create(&name, cwd)?);
        Ok(Self { file, name })
    }

    /// Puts the `bytes` bytes of `blob` into it.
    ///
    /// # Errors
    /// The system's.
    pub fn fill(&mut self, blob: &File, bytes: u64, cwd: BorrowedFd<'_>) -> io::Result<()> {
        if bytes >= CLONE_BYTES_MIN && self.clone_of(blob, cwd)? {
            return Ok(());
        }
        copy(blob, self.file.as_ref().ok_or(Errno::INVAL)?, bytes)
    }

    /// Becomes a clone of `blob`, if the file system can do that. A clone is always a new file, so the one that was made
    /// goes first, and comes back if there is none.
    fn clone_of(&mut self, blob: &File, cwd: BorrowedFd<'_>) -> io::Result<bool> {
        unlinkat(cwd, &self.name[..], AtFlags::empty())?;
        let cloned = fclonefileat(blob, cwd, &self.name[..], CloneFlags::NOFOLLOW).is_ok();
        let reopened = if cloned {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            File::from(openat(cwd, &self.name[..], flags, Mode::empty())?)
        } else {
            create(&self.name, cwd)?
        };
        self.file = Some(reopened);
        Ok(cloned)
    }

    /// It is written: sets its permissions.
    ///
    /// # Errors
    /// The system's.
    pub fn finish(&mut self, mode: Mode) -> Result<(), Errno> {
        let file = self.file.take().ok_or(Errno::INVAL)?;
        fchmod(&file, mode)
    }

    /// Puts it at `to`.
    ///
    /// # Errors
    /// `EXIST` if something is there, else the system's.
    pub fn place(&self, cwd: BorrowedFd<'_>, to: &[u8]) -> Result<(), Errno> {
        move_to_free_name(cwd, &self.name, to)
    }

    /// Removes it.
    pub fn discard(&self, cwd: BorrowedFd<'_>) {
        let _ = unlinkat(cwd, &self.name[..], AtFlags::empty());
    }
}

/// Renames a file, unless there is something by that name.
///
/// # Errors
/// `EXIST` if there is, else the system's.
pub fn move_to_free_name(cwd: BorrowedFd<'_>, from: &[u8], to: &[u8]) -> Result<(), Errno> {
    renameat_with(cwd, from, cwd, to, RenameFlags::NOREPLACE)
}

fn create(name: &[u8], cwd: BorrowedFd<'_>) -> Result<File, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(openat(cwd, name, flags, Mode::RUSR | Mode::WUSR)?))
}

fn copy(from: &File, to: &File, bytes: u64) -> io::Result<()> {
    let copied = io::copy(&mut &*from, &mut &*to)?;
    if copied == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
