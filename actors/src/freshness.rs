//! Freshness: do a record's observations still hold?
//!
//! The baseline of the design: one `statx` for each file, and one for each directory with absent names. What
//! a signature says is believed only if it was settled when it was taken; everything else is looked at again.
//! A check never guesses: whatever cannot be established does not hold, and the tool runs.

mod groups;

use crate::sys::{AsFd, BorrowedFd, OwnedFd};
use std::collections::HashMap;
use std::ffi::CStr;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::sys::fs::{AtFlags, Mode, OFlags};
use crate::sys::io::Errno;

use groups::{Group, groups};

use crate::digest::Digest;
use crate::file_table::FileTable;
use crate::name_filter::names_in;
use crate::observation::{Fact, Observation};
use crate::record::{NO_FILE, Record};
use crate::second_hand;
use crate::signature::{FileKind, Signature, coarse_now_ns};

/// The most names a listed directory may have to be looked at again: reading more costs as much as a compile.
const LISTED_NAMES_MAX: usize = 100_000;

/// The requester's working directory, which relative paths mean.
#[derive(Debug)]
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
        Ok(Self { fd: crate::sys::fs::open(path, flags, Mode::empty())? })
    }

    /// The directory's own path, without links.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn path(&self) -> std::io::Result<Vec<u8>> {
        crate::sys::path_of(&self.fd)
    }

    /// The descriptor (`O_PATH`).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A record with what was last seen of its files, so that checking it again is mostly comparing.
pub struct LiveRecord {
    /// The record.
    pub record: Arc<Record>,
    /// Its observations by directory.
    groups: Arc<[Group]>,
    /// Directories' names are among them.
    lists: bool,
    /// What was seen when everything last held.
    memo: RwLock<Arc<Memo>>,
}

/// From this many observations on, the check is split over two processors: it takes some 100 µs then, several times
/// what it costs to wake another thread.
const SPLIT_OBSERVATIONS_MIN: usize = 120;

#[derive(Clone, PartialEq)]
struct Memo {
    /// Per observation; `None` where there is nothing to compare or nothing settled was seen.
    observations: Vec<Option<Signature>>,
    /// Per group with absent names: the directory, as long as that can stand for them.
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
        let groups = groups(&record.observations);
        let observations = record.observations.iter().map(|o| match o.fact {
            Fact::Content { signature, .. } => Some(signature),
            _ => None,
        });
        let memo = Memo { observations: observations.collect(), directories: vec![None; groups.len()] };
        let lists = record.observations.iter().any(|o| matches!(o.fact, Fact::Listed { .. }));
        Self { record: Arc::new(record), groups: groups.into(), lists, memo: RwLock::new(Arc::new(memo)) }
    }

    /// Checks every observation, as seen from `cwd`.
    ///
    /// # Errors
    /// One that does not hold.
    pub fn check(&self, cwd: &Arc<WorkingDirectory>, files: &Arc<FileTable>) -> Result<(), Broken> {
        self.check_and(cwd, files, || ())
    }

    /// Checks every observation, and does `also`, whose result counts only if all hold: in the meantime where a
    /// second hand checks, else afterwards. It may make temporary files, but change nothing that is observed.
    ///
    /// # Errors
    /// As [`LiveRecord::check`].
    pub fn check_and<T>(
        &self,
        cwd: &Arc<WorkingDirectory>,
        files: &Arc<FileTable>,
        also: impl FnOnce() -> T,
    ) -> Result<T, Broken> {
        let memo = Arc::clone(&self.memo.read().unwrap_or_else(PoisonError::into_inner));
        // Taken before anything is looked at: what changes later is stamped with this time or a later one.
        let now_ns = coarse_now_ns();
        let check = Check {
            record: Arc::clone(&self.record),
            groups: Arc::clone(&self.groups),
            left: Arc::new(Mutex::new(0..self.groups.len())),
            memo: Arc::clone(&memo),
            cwd: Arc::clone(cwd),
            files: Arc::clone(files),
            now_ns,
        };
        let (seen, also) = check.run(also, self.lists)?;
        let mut observations = vec![None; memo.observations.len()];
        for (number, signature) in seen.observations {
            observations[number] = signature;
        }
        if observations != memo.observations
            && identities(observations.iter().map(identity)) != self.record.identities
        {
            return Err(Broken { path: b"which names are one file".to_vec() });
        }
        let settled = |s: Option<Signature>| s.filter(|s| s.is_settled(now_ns));
        let mut directories = vec![None; memo.directories.len()];
        for (number, signature) in seen.directories {
            directories[number] = signature;
        }
        let fresh = Memo { observations: observations.into_iter().map(settled).collect(), directories };
        if fresh != *memo {
            *self.memo.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        }
        Ok(also)
    }
}

fn identity(seen: &Option<Signature>) -> Option<(u64, u64)> {
    seen.map(|s| (s.dev, s.ino))
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

/// One check in progress, by one or two threads.
#[derive(Clone)]
struct Check {
    record: Arc<Record>,
    groups: Arc<[Group]>,
    /// The groups that nobody has taken: we take from the front, a second hand from the back.
    left: Arc<Mutex<Range<usize>>>,
    memo: Arc<Memo>,
    cwd: Arc<WorkingDirectory>,
    files: Arc<FileTable>,
    now_ns: i64,
}

/// What a check saw, by number.
#[derive(Default)]
struct Seen {
    /// Of each observation whose file's identity counts.
    observations: Vec<(usize, Option<Signature>)>,
    /// Of each group's directory, where that can stand for its absent names.
    directories: Vec<(usize, Option<Signature>)>,
}

impl Check {
    /// Checks everything and does `also`, with a second hand if there is much to do: the client's own processor waits
    /// for us. `lists`: some directory's names are compared, among which no temporary file may be.
    fn run<T>(&self, also: impl FnOnce() -> T, lists: bool) -> Result<(Seen, T), Broken> {
        if lists || self.record.observations.len() < SPLIT_OBSERVATIONS_MIN {
            let seen = self.take_groups(Range::next)?;
            return Ok((seen, also()));
        }
        let theirs = self.clone();
        let help = second_hand::offer(move || theirs.take_groups(Range::next_back));
        let also = also();
        let ours = self.take_groups(Range::next);
        let theirs = match help.take() {
            Ok(None) => return ours.map(|seen| (seen, also)),
            Ok(Some(theirs)) => theirs?,
            Err(second_hand::Panicked) => return Err(Broken { path: b"a check that failed".to_vec() }),
        };
        let mut seen = ours?;
        seen.observations.extend(theirs.observations);
        seen.directories.extend(theirs.directories);
        Ok((seen, also))
    }

    /// Checks groups that `take` takes, until none is left. What is broken ends it for both sides.
    fn take_groups(&self, take: fn(&mut Range<usize>) -> Option<usize>) -> Result<Seen, Broken> {
        let mut seen = Seen::default();
        let locked = || self.left.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let taken = take(&mut locked());
            let Some(number) = taken else { return Ok(seen) };
            if let Err(broken) = self.group(number, &mut seen) {
                *locked() = 0..0;
                return Err(broken);
            }
        }
    }

    fn group(&self, number: usize, seen: &mut Seen) -> Result<(), Broken> {
        let (group, known, cwd) = (&self.groups[number], self.memo.directories[number], self.cwd.fd());
        let opened = if group.opened {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match crate::sys::fs::openat(cwd, &*group.directory, flags, Mode::empty()) {
                Ok(fd) => Some(fd),
                Err(Errno::NOENT | Errno::NOTDIR) if group.present.is_empty() => {
                    return Ok(());
                }
                Err(_) => return Err(Broken { path: group.directory.as_bytes().to_vec() }),
            }
        } else {
            None
        };
        let base = opened.as_ref().map_or(cwd, AsFd::as_fd);
        for (observation, name) in &group.present {
            seen.observations.push((*observation, self.present(*observation, base, name)?));
        }
        let directory = match &opened {
            _ if group.absent.is_empty() => Ok(None),
            Some(fd) => Signature::at(fd, c"", AtFlags::EMPTY_PATH).map(Some),
            None => Signature::at(cwd, &*group.directory, AtFlags::empty()).map(Some),
        };
        seen.directories.push((number, self.absent(group, base, known, directory)?));
        Ok(())
    }

    /// Checks something that is to be there; returns its signature if its identity counts.
    fn present(&self, number: usize, base: BorrowedFd<'_>, name: &CStr) -> Result<Option<Signature>, Broken> {
        let Observation { path, fact } = &self.record.observations[number];
        let broken = || Broken { path: path.0.clone() };
        let stat = |follow: bool| {
            let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
            Signature::at(base, name, flags).map_err(|_| broken())
        };
        let holds = |yes: bool| if yes { Ok(None) } else { Err(broken()) };
        match fact {
            Fact::Absent => Ok(None),
            Fact::Content { digest, executed, linked, .. } => {
                let now = stat(*linked)?;
                if self.memo.observations[number] == Some(now) {
                    return Ok(Some(now));
                }
                if now.kind() != FileKind::File {
                    return Err(broken());
                }
                let content = self.files.content(base, name).map_err(|_| broken())?;
                let runnable = !executed || content.signature.mode & 0o111 != 0;
                if content.digest == *digest && runnable {
                    Ok(Some(content.signature))
                } else {
                    Err(broken())
                }
            }
            Fact::Kind { follow, kind } => {
                let now = stat(*follow)?;
                if now.kind() != *kind {
                    return Err(broken());
                }
                // Of a directory only the identity counts, not what is in it.
                let identity = Signature { size: 0, mtime_ns: 0, ctime_ns: 0, ..now };
                Ok((*follow && *kind == FileKind::Directory).then_some(identity))
            }
            Fact::Mode { mode } => holds(stat(true)?.mode == *mode),
            Fact::Metadata { follow, size, mtime_ns, mode } => {
                let now = stat(*follow)?;
                holds((now.size, now.mtime_ns, now.mode) == (*size, *mtime_ns, *mode))
            }
            Fact::Symlink { target } => {
                let now = crate::sys::fs::readlinkat(base, name, Vec::new()).map_err(|_| broken())?;
                holds(now.as_bytes() == target.0)
            }
            Fact::Listed { digest } => {
                let now = listing_digest(base, name).map_err(|_| broken())?;
                holds(now == *digest)
            }
            Fact::Names { filter, digest } => {
                let now = names_in(base, name).map_err(|_| broken())?;
                holds(filter.digest(&now) == *digest)
            }
        }
    }

    /// Checks that the absent names of `group` are; returns the directory's signature if that can stand for them
    /// next time.
    fn absent(
        &self,
        group: &Group,
        base: BorrowedFd<'_>,
        known: Option<Signature>,
        directory: Result<Option<Signature>, Errno>,
    ) -> Result<Option<Signature>, Broken> {
        match directory {
            Ok(None) | Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Ok(now) if now == known => return Ok(now),
            // Names in the directory itself, that is: what follows a link's name with a slash is elsewhere.
            Ok(Some(now)) if group.opened && self.files.absent.has_none_of(&now, &group.absent) => {
                return Ok(now.is_settled(self.now_ns).then_some(now));
            }
            _ => {}
        }
        for name in &group.absent {
            // Not following: a link whose target is missing may be seen by `lstat`.
            match Signature::at(base, &**name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                _ if group.opened => {
                    return Err(Broken { path: [group.directory.as_bytes(), name.as_bytes()].concat() });
                }
                _ => return Err(Broken { path: name.as_bytes().to_vec() }),
            }
        }
        let settled = directory.ok().flatten().filter(|d| d.is_settled(self.now_ns) && group.plain);
        if let (Some(directory), true) = (settled, group.opened) {
            self.files.absent.remember(directory, &group.absent);
        }
        Ok(settled)
    }
}

/// The digest of the sorted names in a directory.
///
/// # Errors
/// If it cannot be listed, or holds more than `LISTED_NAMES_MAX` names.
pub fn listing_digest(dir: BorrowedFd<'_>, path: impl crate::sys::path::Arg) -> std::io::Result<Digest> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = crate::sys::fs::openat(dir, path, flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in crate::sys::fs::Dir::new(opened)? {
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
        files: Arc<FileTable>,
        live: LiveRecord,
    }

    impl Fixture {
        /// Observes `facts` in a directory with `a.h` (one), `dir/`, and a link `link -> a.h`.
        fn new(facts: impl FnOnce(&Path, &FileTable) -> Vec<(&'static str, Fact)>) -> Self {
            let temp = tempfile::tempdir().unwrap();
            std::fs::write(temp.path().join("a.h"), "one").unwrap();
            std::fs::create_dir(temp.path().join("dir")).unwrap();
            std::os::unix::fs::symlink("a.h", temp.path().join("link")).unwrap();
            let files = Arc::new(FileTable::default());
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
            let live = LiveRecord::new(Record {
                observations,
                identities,
                environment: None,
                variables: vec![],
                origin: None,
                result,
            });
            Self { temp, files, live }
        }

        fn content(root: &Path, files: &FileTable, name: &str) -> Fact {
            let c = files.content(rustix::fs::CWD, root.join(name).as_os_str().as_bytes()).unwrap();
            Fact::Content { digest: c.digest, signature: c.signature, executed: false, linked: false }
        }

        fn holds(&self) -> bool {
            let cwd = WorkingDirectory::open(self.temp.path().as_os_str().as_bytes()).unwrap();
            self.live.check(&Arc::new(cwd), &self.files).is_ok()
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
                ("dir", Fact::Listed { digest: listing_digest(dir.as_fd(), "dir").unwrap() }),
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
    fn a_large_record_is_checked_whole_and_what_is_done_beside_counts_only_if_it_holds() {
        const DIRECTORIES: usize = 40;
        let names: Vec<String> =
            (0..DIRECTORIES * 5).map(|n| format!("d{}/f{n}.h", n % DIRECTORIES)).collect();
        let names: &'static [String] = names.leak();
        let f = Fixture::new(|root, files| {
            let fact = |name: &'static String| {
                std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
                std::fs::write(root.join(name), name).unwrap();
                (name.as_str(), Fixture::content(root, files, name))
            };
            let absent = (0..DIRECTORIES).map(|n| (&*format!("d{n}/absent.h").leak(), Fact::Absent));
            names.iter().map(fact).chain(absent).collect()
        });
        let cwd = Arc::new(WorkingDirectory::open(f.temp.path().as_os_str().as_bytes()).unwrap());
        let checked = || f.live.check_and(&cwd, &f.files, || "done");
        for (round, name) in names.iter().enumerate() {
            assert_eq!(checked(), Ok("done"), "{name}");
            let broken = if round % 5 == 0 {
                let new = format!("d{}/absent.h", round % DIRECTORIES);
                std::fs::write(f.path(&new), "").unwrap();
                let broken = checked();
                std::fs::remove_file(f.path(&new)).unwrap();
                (broken, new)
            } else {
                std::fs::write(f.path(name), "edited").unwrap();
                let broken = checked();
                std::fs::write(f.path(name), name).unwrap();
                (broken, name.clone())
            };
            assert_eq!(broken.0, Err(Broken { path: broken.1.into_bytes() }));
        }
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
}
