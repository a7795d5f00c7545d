//! Blobs: contents under `blobs/ab/<digest>`, each kept once, written under a temporary name and renamed.
//!
//! Blobs verify themselves: length and digest are checked on first use after a start, and again whenever the
//! file's signature has moved. So no `fsync` is needed on the way, and a torn or damaged blob is a miss, never
//! a wrong output.

use crate::sys::AsFd;
use crate::sys::OpenOptionsExt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::sys::fs::{AtFlags, Mode, OFlags};
use dashmap::DashMap;
use rustc_hash::FxBuildHasher;

use crate::digest::Digest;
use crate::faults;
use crate::record::OutputFile;
use crate::signature::{FileKind, Signature, coarse_now_ns};

/// Bytes copied at a time, on the stack: enough for BLAKE3, which is fastest from 16 KiB on.
const COPY_BYTES: usize = 32 * 1024;

/// How many verified blobs are remembered (about 100 bytes each); the rest are verified again when used.
const VERIFIED_MAX: usize = 100_000;

/// The directory of contents.
pub struct Blobs {
    directory: PathBuf,
    next_temporary: AtomicU64,
    /// Bytes of contents on their way in.
    pending_bytes: Arc<AtomicU64>,
    /// Bytes that ever came in.
    received_bytes: AtomicU64,
    /// How many runs wait for a disk that does not answer.
    overdue: AtomicU64,
    verified: DashMap<Digest, Signature, FxBuildHasher>,
    trouble: Mutex<Option<String>>,
}

/// A content on its way into the store: a temporary file that goes when this is dropped.
#[derive(Debug)]
pub struct PendingBlob {
    temporary: PathBuf,
    all_pending_bytes: Arc<AtomicU64>,
    /// The content's digest.
    pub digest: Digest,
    /// The content's length.
    pub bytes: u64,
}

impl Drop for PendingBlob {
    fn drop(&mut self) {
        self.all_pending_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        // Already renamed away, or of no use any more.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

/// A content that does not come in; see [`Blobs::note_overdue`].
pub struct Overdue(Arc<Blobs>);

impl Drop for Overdue {
    fn drop(&mut self) {
        self.0.overdue.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Blobs {
    /// The blobs below `cache_dir`. Makes no directory yet: the cache may be unwritable.
    pub fn new(cache_dir: &Path) -> Self {
        Self {
            directory: cache_dir.join("blobs"),
            next_temporary: AtomicU64::new(0),
            pending_bytes: Arc::default(),
            received_bytes: AtomicU64::new(0),
            overdue: AtomicU64::new(0),
            verified: DashMap::default(),
            trouble: Mutex::new(None),
        }
    }

    /// Why the last content could not be written, if it could not: for `status`.
    pub fn trouble(&self) -> Option<String> {
        if self.overdue.load(Ordering::Relaxed) > 0 {
            return Some(format!("{}: the disk does not answer", self.directory.display()));
        }
        self.trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Bytes of contents that ever came in: whether this number grows tells a slow disk from one that hangs.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Notes that a content does not come in, until what is returned is dropped.
    pub fn note_overdue(self: &Arc<Self>) -> Overdue {
        self.overdue.fetch_add(1, Ordering::Relaxed);
        Overdue(Arc::clone(self))
    }

    /// Bytes of contents that are on their way in, whether or not they will stay.
    pub fn pending_bytes(&self) -> u64 {
        self.pending_bytes.load(Ordering::Relaxed)
    }

    /// Whether a content of this length is there. What it holds is looked at when it is used.
    pub fn is_there(&self, file: &OutputFile) -> bool {
        let found = std::fs::symlink_metadata(self.path(file.digest));
        found.is_ok_and(|m| m.is_file() && m.len() == file.bytes)
    }

    fn path(&self, digest: Digest) -> PathBuf {
        let hex = digest.to_hex();
        self.directory.join(&hex[..2]).join(&hex)
    }

    /// Copies all of `source` into a temporary file of the store.
    ///
    /// # Errors
    /// Those of reading and writing, a full disk among them.
    pub fn receive(&self, source: &mut impl Read) -> io::Result<PendingBlob> {
        let mut read_failed = false;
        let received = self.receive_noting(source, &mut read_failed);
        let trouble = match &received {
            Err(e) if !read_failed => Some(format!("{}: {e}", self.directory.display())),
            _ => None,
        };
        *self.trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = trouble;
        received
    }

    fn receive_noting(&self, source: &mut impl Read, read_failed: &mut bool) -> io::Result<PendingBlob> {
        if self.overdue.load(Ordering::Relaxed) > 0 {
            return Err(io::Error::other("the disk does not answer"));
        }
        faults::check("receive.create")?;
        let temporary = self.new_temporary();
        let mut file = match create(&temporary) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                make_directory(&self.directory.join(TEMPORARY))?;
                create(&temporary)?
            }
            other => other?,
        };
        let all_pending_bytes = Arc::clone(&self.pending_bytes);
        let mut pending = PendingBlob { temporary, all_pending_bytes, digest: Digest([0; 32]), bytes: 0 };
        let mut hasher = blake3::Hasher::new();
        let mut buffer = [0; COPY_BYTES];
        loop {
            let n = source.read(&mut buffer).inspect_err(|_| *read_failed = true)?;
            if n == 0 {
                break;
            }
            hasher.update(&buffer[..n]);
            faults::check("receive.write")?;
            file.write_all(&buffer[..n])?;
            pending.bytes += n as u64;
            self.pending_bytes.fetch_add(n as u64, Ordering::Relaxed);
            self.received_bytes.fetch_add(n as u64, Ordering::Relaxed);
        }
        pending.digest = Digest(*hasher.finalize().as_bytes());
        Ok(pending)
    }

    /// Writes `content` into a temporary file of the store.
    ///
    /// # Errors
    /// Those of writing.
    pub fn receive_bytes(&self, content: &[u8]) -> io::Result<PendingBlob> {
        self.receive(&mut &content[..])
    }

    /// Gives a received content its name. Says whether it was new.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn commit(&self, pending: &PendingBlob) -> io::Result<bool> {
        faults::check("commit")?;
        let path = self.path(pending.digest);
        let new = !path.exists();
        if let Err(e) = std::fs::rename(&pending.temporary, &path) {
            if e.kind() != io::ErrorKind::NotFound {
                return Err(e);
            }
            make_directory(path.parent().unwrap_or(&self.directory))?;
            std::fs::rename(&pending.temporary, &path)?;
        }
        Ok(new)
    }

    /// Opens the content of `file` for reading, verified.
    ///
    /// # Errors
    /// `NotFound` if it is not there; `InvalidData` if it is not what it should be (it is then deleted).
    pub fn open(&self, file: &OutputFile) -> io::Result<File> {
        let path = self.path(file.digest);
        // What lies there may be anything: a link is not followed, a pipe not waited for.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut opened = File::from(crate::sys::fs::open(&path, flags, Mode::empty())?);
        let now_ns = coarse_now_ns();
        let signature = Signature::at(opened.as_fd(), c"", AtFlags::EMPTY_PATH)?;
        let known = self.verified.get(&file.digest).is_some_and(|s| *s == signature);
        if !known {
            let is_file = signature.kind() == FileKind::File;
            if !is_file || signature.size != file.bytes || read_digest(&mut opened)? != file.digest {
                self.remove(file.digest)?;
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a blob is not what its name says"));
            }
            io::Seek::rewind(&mut opened)?;
            // Unless it is settled, a change right now would leave the signature as it is.
            if signature.is_settled(now_ns) {
                self.remember(file.digest, signature);
            }
        }
        Ok(opened)
    }

    /// Deletes a content, if it is there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove(&self, digest: Digest) -> io::Result<()> {
        faults::check("remove")?;
        self.verified.remove(&digest);
        match std::fs::remove_file(self.path(digest)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Deletes every content.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn clear(&self) -> io::Result<()> {
        self.verified.clear();
        match std::fs::remove_dir_all(&self.directory) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Deletes what an earlier service left half done, and contents that `is_known` does not know. Only files
    /// last changed before `before_ns` (nanoseconds since the epoch) are looked at: younger ones are ours.
    pub fn sweep(&self, before_ns: i64, is_known: impl Fn(Digest) -> bool) {
        let is_old = |path: &Path| Signature::of(path).is_ok_and(|s| s.ctime_ns < before_ns);
        self.delete_files(|_, path| is_old(path), is_known);
    }

    /// Deletes contents that `is_known` does not know; returns how many there were, and their bytes. What is on its
    /// way in stays. Only while nothing is committed.
    pub fn delete_unknown(&self, is_known: impl Fn(Digest) -> bool) -> (u64, u64) {
        self.delete_files(|directory, _| !directory.ends_with(TEMPORARY), is_known)
    }

    fn delete_files(
        &self,
        may: impl Fn(&Path, &Path) -> bool,
        is_known: impl Fn(Digest) -> bool,
    ) -> (u64, u64) {
        let mut deleted = (0, 0);
        let ours = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        // A link that somebody has put there leads to what is not ours to delete.
        for directory in ours.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let directory = directory.path();
            for file in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
                let known = file.file_name().to_str().and_then(|n| blake3::Hash::from_hex(n).ok());
                let keep = known.is_some_and(|hash| is_known(Digest(*hash.as_bytes())));
                if keep || !may(&directory, &file.path()) {
                    continue;
                }
                let bytes = file.metadata().map_or(0, |m| m.len());
                if std::fs::remove_file(file.path()).is_ok() {
                    deleted = (deleted.0 + 1, deleted.1 + bytes);
                }
            }
        }
        deleted
    }

    fn remember(&self, digest: Digest, signature: Signature) {
        if self.verified.len() >= VERIFIED_MAX {
            self.verified.clear();
        }
        self.verified.insert(digest, signature);
    }

    fn new_temporary(&self) -> PathBuf {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        self.directory.join(TEMPORARY).join(format!("{}-{number}", std::process::id()))
    }
}

/// Where contents are received; beside them, so that a rename stays on one file system.
const TEMPORARY: &str = "tmp";

fn create(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o400).open(path)
}

fn make_directory(path: &Path) -> io::Result<()> {
    use crate::sys::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn read_digest(file: &mut File) -> io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file)?;
    Ok(Digest(*hasher.finalize().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(blobs: &Blobs, temp: &Path, bytes: &[u8]) -> OutputFile {
        let source = temp.join("source");
        std::fs::write(&source, bytes).unwrap();
        let pending = blobs.receive(&mut File::open(&source).unwrap()).unwrap();
        blobs.commit(&pending).unwrap();
        OutputFile { digest: pending.digest, bytes: pending.bytes, mode: 0o644, replaces: false }
    }

    fn read(blobs: &Blobs, file: &OutputFile) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        blobs.open(file)?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn what_was_stored_comes_back_also_to_a_new_service() {
        let temp = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(temp.path());
        let file = store(&blobs, temp.path(), b"object");
        assert_eq!(read(&blobs, &file).unwrap(), b"object");
        assert_eq!(read(&Blobs::new(temp.path()), &file).unwrap(), b"object");
        assert_eq!(std::fs::read_dir(temp.path().join("blobs/tmp")).unwrap().count(), 0);
    }

    #[test]
    fn so_many_verified_contents_are_known_and_then_none() {
        let temp = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(temp.path());
        let signature = Signature::of(temp.path()).unwrap();
        for number in 0..VERIFIED_MAX {
            blobs.remember(Digest::of(&number.to_le_bytes()), signature);
        }
        assert_eq!(blobs.verified.len(), VERIFIED_MAX);
        blobs.remember(Digest::of(b"one more"), signature);
        assert_eq!(blobs.verified.len(), 1);
    }

    #[test]
    fn what_a_planted_directory_leads_to_is_not_swept() {
        let temp = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(&temp.path().join("cache"));
        store(&blobs, temp.path(), b"object");
        let elsewhere = temp.path().join("elsewhere");
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("precious"), "").unwrap();
        std::os::unix::fs::symlink(&elsewhere, temp.path().join("cache/blobs/zz")).unwrap();
        blobs.sweep(i64::MAX, |_| false);
        blobs.delete_unknown(|_| false);
        assert!(elsewhere.join("precious").exists());
    }

    #[test]
    fn a_damaged_blob_is_an_error_and_gone() {
        type Damage = fn(&Path);
        let damages: [Damage; 4] = [
            |p| std::fs::write(p, "objecT").unwrap(),
            |p| std::fs::write(p, "obj").unwrap(),
            |p| std::fs::remove_file(p).unwrap(),
            |p| {
                std::fs::remove_file(p).unwrap();
                rustix::fs::mknodat(rustix::fs::CWD, p, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
            },
        ];
        for damage in damages {
            let temp = tempfile::tempdir().unwrap();
            let blobs = Blobs::new(temp.path());
            let file = store(&blobs, temp.path(), b"object");
            let path = blobs.path(file.digest);
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            damage(&path);
            assert!(read(&blobs, &file).is_err());
            assert_eq!(read(&blobs, &file).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
    }

    #[test]
    fn a_sweep_deletes_strangers_and_leftovers_only() {
        let temp = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(temp.path());
        let kept = store(&blobs, temp.path(), b"kept");
        let orphan = store(&blobs, temp.path(), b"orphan");
        std::fs::write(temp.path().join("blobs/tmp/1-1"), "half").unwrap();
        blobs.sweep(0, |_| false);
        assert!(read(&blobs, &orphan).is_ok());
        blobs.sweep(i64::MAX, |d| d == kept.digest);
        assert!(read(&blobs, &kept).is_ok());
        assert!(read(&blobs, &orphan).is_err());
        assert!(!temp.path().join("blobs/tmp/1-1").exists());
    }
}
