//! The file table: which content a file's signature stands for, so that nothing is read twice.
//!
//! Keyed by device and inode, so that every name of a file finds the same entry. An entry is made only while
//! the signature is settled: an unsettled one could stand for two contents.

use crate::sys::{AsFd, BorrowedFd};
use std::io::Read;

use crate::sys::fs::{AtFlags, Mode, OFlags};
use dashmap::DashMap;
use rustc_hash::FxBuildHasher;

use crate::absent_names::AbsentNames;
use crate::digest::Digest;
use crate::kept_files::KeptFiles;
use crate::signature::{FileKind, Signature, coarse_now_ns};

/// How many files are remembered: the headers of several large projects. At about 120 bytes each, 25 MB. When
/// it is full it is emptied, which costs each file one more reading.
const FILES_MAX: usize = 200_000;

/// How often a file that changes while it is read is read again before we give up: an editor writes once.
const READ_ATTEMPTS: usize = 3;

/// The longest text that is looked through for what it says, in bytes; a longer one may say anything.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// Bytes read at a time, on the stack: enough for BLAKE3, which is fastest from 16 KiB on.
const READ_BYTES: usize = 32 * 1024;

/// Signatures and the contents they stand for.
#[derive(Default)]
pub struct FileTable {
    files: DashMap<(u64, u64), (Signature, Digest), FxBuildHasher>,
    /// What texts were found to say, by their digests.
    sayings: DashMap<Digest, bool, FxBuildHasher>,
    /// What is known not to be in directories.
    pub absent: AbsentNames,
    /// Files that need not be walked to.
    pub kept: KeptFiles,
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
        until_it_stands_still(|| {
            let file = std::fs::File::from(crate::sys::fs::openat(dir, path, flags, Mode::empty())?);
            let now_ns = coarse_now_ns();
            let signature = Signature::at(file.as_fd(), c"", AtFlags::EMPTY_PATH)?;
            if signature.kind() != FileKind::File {
                return Err(std::io::Error::other("not a regular file"));
            }
            if let Some(digest) = self.known(&signature) {
                return Ok(Some(Content { digest, signature, settled: true }));
            }
            let (digest, bytes) = digest_of(&file)?;
            if Signature::at(file.as_fd(), c"", AtFlags::EMPTY_PATH)? != signature {
                return Ok(None);
            }
            if bytes != signature.size {
                // The kernel makes it up while it is read (`/proc`, cgroups), and its signature tells of no change.
                return Err(std::io::Error::other("holds something else than its size says"));
            }
            let settled = signature.is_settled(now_ns);
            if settled {
                self.remember(signature, digest);
            }
            Ok(Some(Content { digest, signature, settled }))
        })
    }

    /// The content that a signature stands for, if that is known.
    pub fn known(&self, signature: &Signature) -> Option<Digest> {
        let entry = self.files.get(&(signature.dev, signature.ino))?;
        (entry.0 == *signature).then_some(entry.1)
    }

    /// Whether the text with this digest, at `path` relative to `dir`, is one of which `says` is true. Each is read once:
    /// there is one such question. A text that is not to be had any more may say anything, a program says nothing.
    pub fn says(&self, dir: BorrowedFd<'_>, path: &[u8], digest: Digest, says: fn(&[u8]) -> bool) -> bool {
        if let Some(said) = self.sayings.get(&digest) {
            return *said;
        }
        let said = match text_at(dir, path) {
            Ok(Some(text)) if Digest::of(&text) == digest => says(&text),
            Ok(None) => false,
            _ => return true,
        };
        if self.sayings.len() >= FILES_MAX {
            self.sayings.clear();
        }
        self.sayings.insert(digest, said);
        said
    }

    /// Notes what a settled signature stands for.
    pub fn remember(&self, signature: Signature, digest: Digest) {
        if self.files.len() >= FILES_MAX {
            self.files.clear();
        }
        self.files.insert((signature.dev, signature.ino), (signature, digest));
    }
}

/// What `read` comes to, which says nothing of a file that changed meanwhile.
fn until_it_stands_still<T>(mut read: impl FnMut() -> std::io::Result<Option<T>>) -> std::io::Result<T> {
    let result = (0..READ_ATTEMPTS).find_map(|_| read().transpose());
    result.unwrap_or_else(|| Err(std::io::Error::other("changes while it is read")))
}

/// All that is in a file; none if it is a program or a library, however long.
fn text_at(dir: BorrowedFd<'_>, path: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
    const PROGRAM: &[u8] = b"\x7fELF";
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut file = std::fs::File::from(crate::sys::fs::openat(dir, path, flags, Mode::empty())?);
    let mut text = Vec::new();
    (&mut file).take(PROGRAM.len() as u64).read_to_end(&mut text)?;
    if text == PROGRAM {
        return Ok(None);
    }
    if file.metadata()?.len() > TEXT_BYTES_MAX {
        return Err(std::io::Error::other("too long"));
    }
    file.read_to_end(&mut text)?;
    Ok(Some(text))
}

/// The digest of everything from the file's position to its end, and how many bytes that were.
fn digest_of(mut file: &std::fs::File) -> std::io::Result<(Digest, u64)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = [0; READ_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((Digest(*hasher.finalize().as_bytes()), hasher.count())),
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
    fn a_full_table_starts_anew() {
        let table = FileTable::default();
        let file = |ino| Signature { dev: 1, ino, size: 0, mtime_ns: 0, ctime_ns: 0, mode: 0 };
        let digest = Digest::of(b"");
        (0..FILES_MAX as u64).for_each(|ino| table.remember(file(ino), digest));
        assert_eq!(table.known(&file(0)), Some(digest));
        table.remember(file(FILES_MAX as u64), digest);
        assert_eq!((table.known(&file(0)), table.known(&file(FILES_MAX as u64))), (None, Some(digest)));
    }

    #[test]
    fn a_text_too_long_to_look_through_may_say_anything() {
        let temp = tempfile::tempdir().unwrap();
        let says_nothing: fn(&[u8]) -> bool = |_| false;
        for (bytes, may_say) in [(4096, false), (TEXT_BYTES_MAX + 1, true)] {
            let path = temp.path().join("a.h");
            std::fs::File::create(&path).unwrap().set_len(bytes).unwrap();
            let path = path.as_os_str().as_bytes();
            let table = FileTable::default();
            let digest = table.content(rustix::fs::CWD, path).unwrap().digest;
            assert_eq!(table.says(rustix::fs::CWD, path, digest, says_nothing), may_say, "{bytes}");
        }
    }

    #[test]
    fn what_is_no_regular_file_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let table = FileTable::default();
        assert!(table.content(rustix::fs::CWD, temp.path().as_os_str().as_bytes()).is_err());
        assert!(table.content(rustix::fs::CWD, "/dev/null").is_err());
        assert!(table.content(rustix::fs::CWD, "/nonexistent").is_err());
        assert!(table.content(rustix::fs::CWD, "/proc/version").is_err());
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_read_again_so_often() {
        for (changes, is_read) in [(0, true), (READ_ATTEMPTS - 1, true), (READ_ATTEMPTS, false)] {
            let mut reads = 0;
            let result = until_it_stands_still(|| {
                reads += 1;
                Ok((reads > changes).then_some(reads))
            });
            assert_eq!(result.ok(), is_read.then_some(changes + 1));
            assert!(reads <= READ_ATTEMPTS);
        }
    }
}
