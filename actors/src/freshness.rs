//! Freshness: do a record's observations still hold?
//!
//! The baseline of the design: one `statx` for each file, and one for each directory with absent names. What
//! a signature says is believed only if it was settled when it was taken; everything else is looked at again.
//! A check never guesses: whatever cannot be established does not hold, and the tool runs.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, RwLock};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::file_table::FileTable;
use crate::observation::{Fact, Observation};
use crate::record::{NO_FILE, Record};
use crate::signature::{FileKind, Signature, coarse_now_ns};

/// The most names a listed directory may have to be looked at again: reading more costs as much as a compile.
const LISTED_NAMES_MAX: usize = 100_000;

/// The requester's working directory, which relative paths mean.
pub struct WorkingDirectory {
    fd: OwnedFd,
}

impl WorkingDirectory {
    /// Opens `path`, which must be absolute.
    ///
    /// # Errors
    /// If it is not there.
    pub fn open(path: &[u8]) -> std::io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// The descriptor (`O_PATH`).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A record with what was last seen of its files, so that checking it again is mostly comparing.
pub struct LiveRecord {
    /// The record.
    pub record: Record,
    /// Absent observations by directory.
    absent: Vec<AbsentGroup>,
    /// What was seen when everything last held.
    memo: RwLock<Arc<Memo>>,
}

/// Names looked for in one directory and not found.
struct AbsentGroup {
    directory: Vec<u8>,
    /// Whole paths, as spelled.
    paths: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq)]
struct Memo {
    /// Per observation; `None` where there is nothing to compare or nothing settled was seen.
    observations: Vec<Option<Signature>>,
    /// Per absent group.
    directories: Vec<Option<Signature>>,
}

/// What does not hold: the path, for `why`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// As spelled.
    pub path: Vec<u8>,
}

impl LiveRecord {
    /// Prepares `record` for checking.
    pub fn new(record: Record) -> Self {
        let absent = absent_groups(&record.observations);
        let observations = record.observations.iter().map(|o| match o.fact {
            Fact::Content { signature, .. } => Some(signature),
            _ => None,
        });
        let memo = Memo { observations: observations.collect(), directories: vec![None; absent.len()] };
        Self { record, absent, memo: RwLock::new(Arc::new(memo)) }
    }

    /// Checks every observation, as seen from `cwd`.
    ///
    /// # Errors
    /// The first one that does not hold.
    pub fn check(&self, cwd: &WorkingDirectory, files: &FileTable) -> Result<(), Broken> {
        let memo = Arc::clone(&self.memo.read().expect("invariant: no panic while the memo is locked"));
        // Taken before anything is looked at: what changes later is stamped with this time or a later one.
        let now_ns = coarse_now_ns();
        let check = Check { cwd, files, now_ns };
        let mut seen = Vec::with_capacity(memo.observations.len());
        let mut same = true;
        for (observation, known) in self.record.observations.iter().zip(&memo.observations) {
            let found = check.observation(observation, known.as_ref())?;
            same &= found.is_none() || found == *known;
            seen.push(found);
        }
        let mut directories = Vec::with_capacity(self.absent.len());
        for (group, known) in self.absent.iter().zip(&memo.directories) {
            directories.push(check.absent(group, known.as_ref())?);
        }
        if !same && !self.same_identities(&seen) {
            return Err(Broken { path: b"which names are one file".to_vec() });
        }
        let settled = |s: &Option<Signature>| s.filter(|s| s.is_settled(now_ns));
        let fresh = Memo { observations: seen.iter().map(settled).collect(), directories };
        if fresh != *memo {
            *self.memo.write().expect("invariant: no panic while the memo is locked") = Arc::new(fresh);
        }
        Ok(())
    }

    fn same_identities(&self, seen: &[Option<Signature>]) -> bool {
        identities(seen.iter().map(|s| s.map(|s| (s.dev, s.ino)))) == self.record.identities
    }
}

/// For each file the number of the first one with the same device and inode, as `Record::identities` has it.
pub fn identities(files: impl Iterator<Item = Option<(u64, u64)>>) -> Vec<u32> {
    let mut first = HashMap::new();
    let number = |(i, file): (usize, Option<(u64, u64)>)| match file {
        Some(id) => *first.entry(id).or_insert(u32::try_from(i).unwrap_or(NO_FILE)),
        None => NO_FILE,
    };
    files.enumerate().map(number).collect()
}

/// The identity of what `observation` names, as a check would find it: for making `Record::identities`.
pub fn identity_of(observation: &Observation, cwd: &WorkingDirectory) -> Option<(u64, u64)> {
    match observation.fact {
        Fact::Content { signature, .. } => Some((signature.dev, signature.ino)),
        Fact::Kind { follow: true, kind: FileKind::Directory } => {
            let s = Signature::at(cwd.fd(), &observation.path.0[..], AtFlags::empty()).ok()?;
            Some((s.dev, s.ino))
        }
        _ => None,
    }
}

struct Check<'a> {
    cwd: &'a WorkingDirectory,
    files: &'a FileTable,
    now_ns: i64,
}

impl Check<'_> {
    /// Checks one observation other than an absent path; returns the signature that identifies the file, for
    /// facts in which identity counts.
    fn observation(&self, o: &Observation, known: Option<&Signature>) -> Result<Option<Signature>, Broken> {
        let path = &o.path.0[..];
        let broken = || Broken { path: path.to_vec() };
        let holds = |yes: bool| if yes { Ok(None) } else { Err(broken()) };
        match &o.fact {
            Fact::Absent => Ok(None),
            Fact::Content { digest, executed, .. } => {
                let now = self.stat(path, true).map_err(|_| broken())?;
                if known == Some(&now) {
                    return Ok(Some(now));
                }
                let content = self.files.content(self.cwd.fd(), path).map_err(|_| broken())?;
                let runnable = !executed || content.signature.mode & 0o111 != 0;
                if content.digest == *digest && runnable {
                    Ok(Some(content.signature))
                } else {
                    Err(broken())
                }
            }
            Fact::Kind { follow, kind } => {
                let now = self.stat(path, *follow).map_err(|_| broken())?;
                if now.kind() != *kind {
                    return Err(broken());
                }
                // A directory counts as a file of which only the identity matters, not what is in it.
                let identity = Signature { size: 0, mtime_ns: 0, ctime_ns: 0, ..now };
                Ok((*follow && *kind == FileKind::Directory).then_some(identity))
            }
            Fact::Metadata { follow, size, mtime_ns, mode } => {
                let now = self.stat(path, *follow).map_err(|_| broken())?;
                holds((now.size, now.mtime_ns, now.mode) == (*size, *mtime_ns, *mode))
            }
            Fact::Symlink { target } => {
                let now = rustix::fs::readlinkat(self.cwd.fd(), path, Vec::new()).map_err(|_| broken())?;
                holds(now.as_bytes() == target.0)
            }
            Fact::Listed { digest } => {
                let now = listing_digest(self.cwd.fd(), path).map_err(|_| broken())?;
                holds(now == *digest)
            }
        }
    }

    /// Checks the absent paths of one directory; returns its signature if that can stand for them next time.
    fn absent(&self, group: &AbsentGroup, known: Option<&Signature>) -> Result<Option<Signature>, Broken> {
        match self.stat(&group.directory, true) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Ok(now) if known == Some(&now) => Ok(Some(now)),
            directory => {
                for path in &group.paths {
                    // Not following: a link whose target is missing may be seen by `lstat`.
                    match self.stat(path, false) {
                        Err(Errno::NOENT | Errno::NOTDIR) => {}
                        _ => return Err(Broken { path: path.clone() }),
                    }
                }
                Ok(directory.ok().filter(|d| d.is_settled(self.now_ns)))
            }
        }
    }

    fn stat(&self, path: &[u8], follow: bool) -> Result<Signature, Errno> {
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        if path.first() == Some(&b'/') {
            Signature::at(CWD, path, flags)
        } else {
            Signature::at(self.cwd.fd(), path, flags)
        }
    }
}

/// Groups absent paths by their directory as spelled. What is directly below a missing directory is missing,
/// so one look at the directory settles the group.
fn absent_groups(observations: &[Observation]) -> Vec<AbsentGroup> {
    let mut groups: Vec<AbsentGroup> = Vec::new();
    let mut index: HashMap<&[u8], usize> = HashMap::new();
    for observation in observations.iter().filter(|o| o.fact == Fact::Absent) {
        let path = &observation.path.0[..];
        let directory = directory_of(path);
        let at = *index.entry(directory).or_insert_with(|| {
            groups.push(AbsentGroup { directory: directory.to_vec(), paths: Vec::new() });
            groups.len() - 1
        });
        groups[at].paths.push(path.to_vec());
    }
    groups
}

/// Everything before the last component, so that `directory_of(p)/name` resolves as `p` does.
fn directory_of(path: &[u8]) -> &[u8] {
    let trimmed = path.iter().rposition(|&b| b != b'/').map_or(&path[..0], |end| &path[..=end]);
    match trimmed.iter().rposition(|&b| b == b'/') {
        Some(slash) => &path[..=slash],
        None => b".",
    }
}

/// The digest of the sorted names in a directory.
///
/// # Errors
/// If it cannot be listed, or holds more than `LISTED_NAMES_MAX` names.
pub fn listing_digest(dir: BorrowedFd<'_>, path: &[u8]) -> std::io::Result<Digest> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(dir, path, flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(opened)? {
        names.push(entry?.file_name().to_bytes_with_nul().to_vec());
        if names.len() > LISTED_NAMES_MAX {
            return Err(std::io::Error::other("too many names in one directory"));
        }
    }
    names.sort_unstable();
    Ok(Digest::of(&names.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::Spelled;
    use crate::record::RunResult;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;
    use zccache_proto::message::Exit;

    struct Fixture {
        temp: tempfile::TempDir,
        files: FileTable,
        live: LiveRecord,
    }

    impl Fixture {
        /// Observes `facts` in a directory with `a.h` (one), `dir/`, and a link `link -> a.h`.
        fn new(facts: impl FnOnce(&Path, &FileTable) -> Vec<(&'static str, Fact)>) -> Self {
            let temp = tempfile::tempdir().unwrap();
            std::fs::write(temp.path().join("a.h"), "one").unwrap();
            std::fs::create_dir(temp.path().join("dir")).unwrap();
            std::os::unix::fs::symlink("a.h", temp.path().join("link")).unwrap();
            let files = FileTable::default();
            let cwd = WorkingDirectory::open(temp.path().as_os_str().as_bytes()).unwrap();
            let facts = facts(temp.path(), &files);
            let observations: Vec<_> =
                facts.into_iter().map(|(p, fact)| Observation { path: Spelled(p.into()), fact }).collect();
            let identities = identities(observations.iter().map(|o| identity_of(o, &cwd)));
            let result = RunResult {
                exit: Exit::Code(0),
                stdout: Default::default(),
                stderr: Default::default(),
                outputs: vec![],
            };
            let live = LiveRecord::new(Record { observations, identities, environment: None, result });
            Self { temp, files, live }
        }

        fn content(root: &Path, files: &FileTable, name: &str) -> Fact {
            let c = files.content(CWD, root.join(name).as_os_str().as_bytes()).unwrap();
            Fact::Content { digest: c.digest, signature: c.signature, executed: false }
        }

        fn holds(&self) -> bool {
            let cwd = WorkingDirectory::open(self.temp.path().as_os_str().as_bytes()).unwrap();
            self.live.check(&cwd, &self.files).is_ok()
        }

        fn path(&self, name: &str) -> std::path::PathBuf {
            self.temp.path().join(name)
        }
    }

    #[test]
    fn an_edit_breaks_and_putting_it_back_mends() {
        let f = Fixture::new(|root, files| vec![("a.h", Fixture::content(root, files, "a.h"))]);
        assert!(f.holds() && f.holds());
        std::fs::write(f.path("a.h"), "two").unwrap();
        assert!(!f.holds());
        std::fs::write(f.path("a.h"), "one").unwrap();
        assert!(f.holds() && f.holds());
        std::fs::remove_file(f.path("a.h")).unwrap();
        assert!(!f.holds());
    }

    #[test]
    fn a_file_that_appears_is_noticed_at_once_every_time() {
        let absent = ["new.h", "dir/x.h", "dir/missing/x.h", "./dir//y.h"];
        let f = Fixture::new(|_, _| absent.map(|p| (p, Fact::Absent)).to_vec());
        for round in 0..200 {
            let path = f.path(absent[round % absent.len()]);
            assert!(f.holds(), "round {round}");
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            assert!(!f.holds(), "round {round}");
            std::fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn links_kinds_listings_and_metadata_are_compared() {
        let f = Fixture::new(|root, _| {
            let s = Signature::of(root.join("a.h")).unwrap();
            let dir = rustix::fs::open(root, OFlags::PATH, Mode::empty()).unwrap();
            vec![
                ("link", Fact::Symlink { target: Spelled(b"a.h".to_vec()) }),
                ("dir", Fact::Kind { follow: true, kind: FileKind::Directory }),
                ("dir", Fact::Listed { digest: listing_digest(dir.as_fd(), b"dir").unwrap() }),
                ("a.h", Fact::Metadata { follow: true, size: s.size, mtime_ns: s.mtime_ns, mode: s.mode }),
            ]
        });
        assert!(f.holds());
        std::fs::write(f.path("dir/x"), "").unwrap();
        assert!(!f.holds());
        std::fs::remove_file(f.path("dir/x")).unwrap();
        assert!(f.holds());
        std::fs::remove_file(f.path("link")).unwrap();
        std::os::unix::fs::symlink("b.h", f.path("link")).unwrap();
        assert!(!f.holds());
    }

    #[test]
    fn two_names_must_stay_two_files() {
        let f = Fixture::new(|root, files| {
            std::fs::write(root.join("b.h"), "one").unwrap();
            vec![("a.h", Fixture::content(root, files, "a.h")), ("b.h", Fixture::content(root, files, "b.h"))]
        });
        assert!(f.holds());
        std::fs::remove_file(f.path("b.h")).unwrap();
        std::fs::hard_link(f.path("a.h"), f.path("b.h")).unwrap();
        assert!(!f.holds());
    }

    #[test]
    fn the_directory_of_a_path_is_spelled_as_it_was() {
        for (path, directory) in
            [("a", "."), ("a/b", "a/"), ("/a", "/"), ("../a", "../"), ("a//b", "a//"), ("a/b/", "a/")]
        {
            assert_eq!(directory_of(path.as_bytes()), directory.as_bytes(), "{path}");
        }
    }
}
