//! A file that is written beside its place, on Linux: it has no name until it is there, and its extents are shared with
//! the store's where the file system can.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// A file written in the directory of its place, but not there yet.
#[derive(Debug)]
pub struct Beside {
    /// Open while it is written, and for as long as it has no name: nothing is left of it then if this process is killed.
    file: Option<File>,
    /// Where the file system has no nameless files: a temporary name.
    name: Option<Vec<u8>>,
}

impl Beside {
    /// A new file in the directory of `path`: nameless where that can be, else with a temporary name.
    ///
    /// # Errors
    /// The system's.
    pub fn create(path: &[u8], cwd: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mode = Mode::RUSR | Mode::WUSR;
        let nameless = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        match rustix::fs::openat(cwd, super::directory_of(path), nameless, mode) {
            Ok(opened) => return Ok(Self { file: Some(File::from(opened)), name: None }),
            // What kernels and file systems say that do not know of such files.
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS | Errno::NOENT) => {}
            Err(e) => return Err(e),
        }
        let temporary = super::temporary_beside(path);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(cwd, &temporary[..], flags, mode)?;
        Ok(Self { file: Some(File::from(opened)), name: Some(temporary) })
    }

    /// Writes the first `bytes` bytes of `blob` into it.
    ///
    /// # Errors
    /// The system's.
    pub fn fill(&mut self, blob: &File, bytes: u64, _: BorrowedFd<'_>) -> io::Result<()> {
        copy(blob, self.open()?, bytes)
    }

    /// It is written: sets its permissions.
    ///
    /// # Errors
    /// The system's.
    pub fn finish(&mut self, mode: Mode) -> Result<(), Errno> {
        rustix::fs::fchmod(self.open()?, mode)?;
        if self.name.is_some() {
            self.file = None;
        }
        Ok(())
    }

    fn open(&self) -> Result<&File, Errno> {
        self.file.as_ref().ok_or(Errno::BADF)
    }

    /// Puts it at `to`.
    ///
    /// # Errors
    /// `EXIST` if something is there, else the system's.
    pub fn place(&self, cwd: BorrowedFd<'_>, to: &[u8]) -> Result<(), Errno> {
        match &self.name {
            None => give_name(self.open()?, cwd, to),
            Some(from) => move_to_free_name(cwd, from, to),
        }
    }

    /// Removes it.
    pub fn discard(&self, cwd: BorrowedFd<'_>) {
        if let Some(temporary) = &self.name {
            let _ = rustix::fs::unlinkat(cwd, &temporary[..], AtFlags::empty());
        }
    }
}

/// Renames a file, unless there is something by that name.
///
/// # Errors
/// `EXIST` if there is, else the system's.
pub fn move_to_free_name(cwd: BorrowedFd<'_>, from: &[u8], to: &[u8]) -> Result<(), Errno> {
    match rustix::fs::renameat_with(cwd, from, cwd, to, RenameFlags::NOREPLACE) {
        // Not every file system knows of that (NFS): a link does not replace either.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            rustix::fs::linkat(cwd, from, cwd, to, AtFlags::empty())?;
            rustix::fs::unlinkat(cwd, from, AtFlags::empty())
        }
        other => other,
    }
}

/// Gives a nameless file its first name.
fn give_name(file: &File, cwd: BorrowedFd<'_>, path: &[u8]) -> Result<(), Errno> {
    match rustix::fs::linkat(file, c"", cwd, path, AtFlags::EMPTY_PATH) {
        // Before Linux 6.10 only a privileged process may; any may say it so, if it has a `/proc`.
        Err(Errno::NOENT | Errno::PERM | Errno::INVAL) => {
            let name = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::linkat(rustix::fs::CWD, name, cwd, path, AtFlags::SYMLINK_FOLLOW)
        }
        other => other,
    }
}

/// Copies `bytes` bytes: by sharing extents where the file system can, else within the kernel, else by hand.
fn copy(from: &File, to: &File, bytes: u64) -> io::Result<()> {
    if bytes >= REFLINK_BYTES_MIN && rustix::fs::ioctl_ficlone(to.as_fd(), from.as_fd()).is_ok() {
        return Ok(());
    }
    let mut left = bytes;
    while left > 0 {
        match rustix::fs::copy_file_range(from, None, to, None, usize::try_from(left).unwrap_or(usize::MAX)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => left -= n as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) if left == bytes => {
                let copied = io::copy(&mut &*from, &mut &*to)?;
                return if copied == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Below this, copying costs less than the metadata of a shared extent.
const REFLINK_BYTES_MIN: u64 = 16 * 1024;
