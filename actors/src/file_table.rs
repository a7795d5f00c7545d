//! The file table: which content a file's signature stands for, so that nothing is read twice.
//!
//! Keyed by device and inode, so that every name of a file finds the same entry. An entry is made only while
//! the signature is settled: an unsettled one could stand for two contents.

use crate::sys::{AsFd, BorrowedFd};
use std::io::Read;

use crate::sys::fs::{AtFlags, Mode, OFlags};
use dashmap::DashMap;

use crate::absent_names::AbsentNames;
use crate::digest::Digest;
use crate::signature::{FileKind, Signature, coarse_now_ns};

/// How many files are remembered: the headers of several large projects. At about 120 bytes each, 25 MB. When
/// it is full it is emptied, which costs each file one more reading.
const FILES_MAX: usize = 200_000;

/// How often a file that changes while it is read is read again before we give up: an editor writes once.
const READ_ATTEMPTS: usize = 3;

/// Bytes read at a time, on the stack: enough for BLAKE3, which is fastest from 16 KiB on.
const READ_BYTES: usize = 32 * 1024;

/// Signatures and the contents they stand for.
#[derive(Default)]
pub struct FileTable {
    files: DashMap<(u64, u64), (Signature, Digest)>,
    /// What is known not to be in directories.
    pub absent: AbsentNames,
}

/// What a file holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// The content's digest.
    pub digest: Digest,
    /// The file's signature while it was read.
    pub signature: Signature,
    /// Whether any later change must alter that signature.
    pub settled: bool,
}

impl FileTable {
    /// The content of the regular file at `path`, relative to `dir`.
    ///
    /// # Errors
    /// If it cannot be read, is no regular file, or will not stand still.
    pub fn content(
        &self,
        dir: BorrowedFd<'_>,
        path: impl crate::sys::path::Arg + Copy,
    ) -> std::io::Result<Content> {
        // NONBLOCK: opening a FIFO that took the file's place must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        for _ in 0..READ_ATTEMPTS {
            let file = std::fs::File::from(crate::sys::fs::openat(dir, path, flags, Mode::empty())?);
            let now_ns = coarse_now_ns();
            let signature = Signature::at(file.as_fd(), c"", AtFlags::EMPTY_PATH)?;
            if signature.kind() != FileKind::File {
                return Err(std::io::Error::other("not a regular file"));
            }
            if let Some(digest) = self.known(&signature) {
                return Ok(Content { digest, signature, settled: true });
            }
            let digest = digest_of(&file)?;
            if Signature::at(file.as_fd(), c"", AtFlags::EMPTY_PATH)? != signature {
                continue;
            }
            let settled = signature.is_settled(now_ns);
            if settled {
                self.remember(signature, digest);
            }
            return Ok(Content { digest, signature, settled });
        }
        Err(std::io::Error::other("changes while it is read"))
    }

    /// The content that a signature stands for, if that is known.
    pub fn known(&self, signature: &Signature) -> Option<Digest> {
        let entry = self.files.get(&(signature.dev, signature.ino))?;
        (entry.0 == *signature).then_some(entry.1)
    }

    /// Notes what a settled signature stands for.
    pub fn remember(&self, signature: Signature, digest: Digest) {
        if self.files.len() >= FILES_MAX {
            self.files.clear();
        }
        self.files.insert((signature.dev, signature.ino), (signature, digest));
    }
}

/// The digest of everything from the file's position to its end.
fn digest_of(mut file: &std::fs::File) -> std::io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = [0; READ_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Digest(*hasher.finalize().as_bytes())),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::time::Duration;

    #[test]
    fn an_edit_is_seen_even_with_size_and_mtime_kept() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.h");
        std::fs::write(&path, "one").unwrap();
        let table = FileTable::default();
        let content = || table.content(rustix::fs::CWD, path.as_os_str().as_bytes()).unwrap();
        assert_eq!(content().digest, Digest::of(b"one"));
        while !content().settled {
            std::thread::sleep(Duration::from_millis(1)); // the file system's clock has to move
        }
        let mtime = path.metadata().unwrap().modified().unwrap();
        std::fs::write(&path, "two").unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(mtime).unwrap();
        assert_eq!(content().digest, Digest::of(b"two"));
    }

    #[test]
    fn edits_within_one_tick_are_all_seen() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.h");
        let table = FileTable::default();
        for i in 0..2000u32 {
            let text = format!("{i:08}");
            std::fs::write(&path, &text).unwrap();
            let content = table.content(rustix::fs::CWD, path.as_os_str().as_bytes()).unwrap();
            assert_eq!(content.digest, Digest::of(text.as_bytes()));
        }
    }

    #[test]
    fn what_is_no_regular_file_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let table = FileTable::default();
        assert!(table.content(rustix::fs::CWD, temp.path().as_os_str().as_bytes()).is_err());
        assert!(table.content(rustix::fs::CWD, "/dev/null").is_err());
        assert!(table.content(rustix::fs::CWD, "/nonexistent").is_err());
    }
}
