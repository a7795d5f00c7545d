//! Freshness: do a record's observations still hold?
//!
//! The baseline of the design: one `statx` for each file, and one for each directory with absent names. What
//! a signature says is believed only if it was settled when it was taken; everything else is looked at again.
//! A check never guesses: whatever cannot be established does not hold, and the tool runs.

mod check;
mod groups;
mod memo;
mod seen;

use crate::sys::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::sys::fs::{AtFlags, Mode, OFlags};
use rustc_hash::FxHashMap;

use check::Check;
use groups::{Group, groups};
use memo::{Memo, is_sure};

use crate::digest::Digest;
use crate::file_table::FileTable;
use crate::observation::{Fact, Observation};
use crate::record::{NO_FILE, Record};
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
    /// The number of the observation that is the likeliest not to hold: what did not last time, before that the file
    /// that had changed last when the record was made. Any number is right; a good one saves work.
    suspect: AtomicU32,
}

/// The files whose contents a record was found to rest on, as they were found.
pub struct Inputs {
    record: Arc<Record>,
    memo: Arc<Memo>,
    changed: FxHashMap<u32, Option<Signature>>,
}

impl Inputs {
    /// Whether this file is one of them, by another name than `path`. A tool that writes what it reads has read it as
    /// `path`, and that is part of its record; by another name it is not what it was when the record was made.
    pub fn include(&self, file: (u64, u64), path: &[u8]) -> bool {
        let is_it = |(number, o): (u32, &Arc<Observation>)| {
            matches!(o.fact, Fact::Content { .. }) && o.path.0 != path && self.identity(number) == Some(file)
        };
        (0..).zip(&self.record.observations).any(is_it)
    }

    /// For each observation the number of the first one that names the same file.
    fn identities(&self) -> Vec<u32> {
        identities((0..).zip(&self.record.observations).map(|(number, _)| self.identity(number)))
    }

    fn identity(&self, number: u32) -> Option<(u64, u64)> {
        let expected = || self.memo.expected(&self.record, number);
        let found = self.changed.get(&number).copied().unwrap_or_else(expected);
        found.map(|s| (s.dev, s.ino))
    }

    /// What of this can be believed next time: what is settled.
    fn remembered(&self, now_ns: i64) -> FxHashMap<u32, Option<Signature>> {
        let mut otherwise = self.memo.otherwise.clone();
        for (&number, found) in &self.changed {
            let sure = found.filter(|found| is_sure(found, now_ns));
            if sure == self.record.observations[number as usize].signature() {
                otherwise.remove(&number);
            } else {
                otherwise.insert(number, sure);
            }
        }
        otherwise
    }
}

/// What does not hold: the path, for `why`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// As spelled.
    pub path: Vec<u8>,
}

impl LiveRecord {
    /// Prepares `record` for checking.
    pub fn new(mut record: Record) -> Self {
        // It stays in memory for long.
        record.observations.shrink_to_fit();
        let groups = groups(&record.observations);
        let memo = Memo::new(groups.len());
        let lists = record.observations.iter().any(|o| matches!(o.fact, Fact::Listed { .. }));
        let changed_at =
            |(_, o): &(u32, &Arc<Observation>)| o.signature().map(|signature| signature.ctime_ns);
        let youngest = (0..).zip(&record.observations).max_by_key(changed_at);
        Self {
            suspect: AtomicU32::new(youngest.map_or(0, |(number, _)| number)),
            record: Arc::new(record),
            groups: groups.into(),
            lists,
            memo: RwLock::new(Arc::new(memo)),
        }
    }

    /// Checks every observation, as seen from `cwd`.
    ///
    /// # Errors
    /// One that does not hold.
    pub fn check(&self, cwd: &Arc<WorkingDirectory>, files: &Arc<FileTable>) -> Result<(), Broken> {
        self.check_and(cwd, files, || ()).map(drop)
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
    ) -> Result<(T, Inputs), Broken> {
        let look = || self.look(cwd, files, false, also);
        let (found, fresh, also) = look().inspect_err(|broken| self.suspect(broken))?;
        if !found.changed.is_empty() && found.identities() != self.record.identities {
            return Err(Broken { path: b"which names are one file".to_vec() });
        }
        if fresh != *found.memo {
            *self.memo.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        }
        Ok((also, found))
    }

    /// Makes sure that `record` holds, each file being as its signature says, and notes which names are one file.
    ///
    /// # Errors
    /// An observation that does not hold.
    pub fn establish(
        record: Record,
        cwd: &Arc<WorkingDirectory>,
        files: &Arc<FileTable>,
    ) -> Result<Self, Broken> {
        let mut live = Self::new(record);
        let (found, fresh, ()) = live.look(cwd, files, true, || ())?;
        let identities = found.identities();
        drop(found); // The record is ours alone again.
        Arc::make_mut(&mut live.record).identities = identities;
        live.memo = RwLock::new(Arc::new(fresh));
        Ok(live)
    }

    fn memo(&self) -> Arc<Memo> {
        Arc::clone(&self.memo.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at everything; gives what was seen, and what of that can be believed next time.
    fn look<T>(
        &self,
        cwd: &Arc<WorkingDirectory>,
        files: &Arc<FileTable>,
        exact: bool,
        also: impl FnOnce() -> T,
    ) -> Result<(Inputs, Memo, T), Broken> {
        // Taken before anything is looked at: what changes later is stamped with this time or a later one.
        let now_ns = coarse_now_ns();
        let memo = self.memo();
        let mut directories = vec![None; memo.directories.len()];
        let kept = files.kept.kept();
        let mounts = kept.as_ref().map(|kept| kept.mounts());
        let check = Check {
            record: Arc::clone(&self.record),
            groups: Arc::clone(&self.groups),
            left: Arc::new(Mutex::new(0..self.groups.len())),
            memo: Arc::clone(&memo),
            cwd: Arc::clone(cwd),
            files: Arc::clone(files),
            kept,
            now_ns,
            exact,
        };
        check.alone(self.suspect.load(Ordering::Relaxed))?;
        let (seen, also) = check.run(also, self.lists)?;
        for (number, signature) in seen.directories {
            directories[number] = signature;
        }
        let listed = seen.listed.into_iter().filter(|(_, directory)| directory.is_settled(now_ns)).collect();
        let changed = seen.changed.into_iter().collect();
        let found = Inputs { record: Arc::clone(&self.record), memo, changed };
        let fresh = Memo { otherwise: found.remembered(now_ns), directories, listed, mounts };
        Ok((found, fresh, also))
    }

    fn suspect(&self, broken: &Broken) {
        let is_it = |(_, o): &(u32, &Arc<Observation>)| o.path.0 == broken.path;
        if let Some((number, _)) = (0..).zip(&self.record.observations).find(is_it) {
            self.suspect.store(number, Ordering::Relaxed);
        }
    }
}

/// For each file the number of the first one with the same device and inode, as `Record::identities` has it.
pub fn identities(files: impl Iterator<Item = Option<(u64, u64)>>) -> Vec<u32> {
    let mut first = FxHashMap::default();
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
    use crate::freshness::check::IS_A_DIRECTORY;
    use crate::kept_files::{KeptFiles, Looks, raise_the_limit_of_descriptors, steady_directory};
    use crate::observation::Spelled;
    use crate::record::RunResult;
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;
    use zccache_proto::message::Exit;

    struct Fixture {
        temp: tempfile::TempDir,
        files: Arc<FileTable>,
        live: LiveRecord,
    }

    fn c_path(path: &Path) -> CString {
        CString::new(path.as_os_str().as_bytes()).unwrap()
    }

    impl Fixture {
        /// Observes `facts` in a directory with `a.h` (one), `dir/`, and a link `link -> a.h`.
        fn new(facts: impl FnOnce(&Path, &FileTable) -> Vec<(&'static str, Fact)>) -> Self {
            Self::below(tempfile::tempdir().unwrap(), facts)
        }

        /// The same in this directory.
        fn below(
            temp: tempfile::TempDir,
            facts: impl FnOnce(&Path, &FileTable) -> Vec<(&'static str, Fact)>,
        ) -> Self {
            std::fs::write(temp.path().join("a.h"), "one").unwrap();
            std::fs::create_dir(temp.path().join("dir")).unwrap();
            std::os::unix::fs::symlink("a.h", temp.path().join("link")).unwrap();
            raise_the_limit_of_descriptors();
            let mut files = FileTable::default();
            files.kept = KeptFiles::on_the_mount_of(&c_path(temp.path()));
            let files = Arc::new(files);
            let cwd = WorkingDirectory::open(temp.path().as_os_str().as_bytes()).unwrap();
            let live = Self::live(&cwd, facts(temp.path(), &files));
            Self { temp, files, live }
        }

        fn live(cwd: &WorkingDirectory, facts: Vec<(&'static str, Fact)>) -> LiveRecord {
            let observations: Vec<_> = facts
                .into_iter()
                .map(|(p, fact)| Observation { path: Spelled(p.into()), fact }.into())
                .collect();
            let identities = identities(observations.iter().map(|o: &Arc<Observation>| identity_of(o, cwd)));
            let result = RunResult {
                exit: Exit::Code(0),
                stdout: Default::default(),
                stderr: Default::default(),
                outputs: vec![],
            };
            LiveRecord::new(Record {
                observations,
                identities,
                environment: None,
                variables: vec![],
                origin: None,
                result,
            })
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

        /// Whether files of the directory `d` are kept open.
        fn is_kept(&self) -> bool {
            let kept = self.files.kept.kept().expect("mounts are told of");
            kept.of(rustix::fs::CWD, self.path("d").as_os_str().as_bytes())
                .is_some_and(|d| !d.files.is_empty())
        }

        /// Checks until they are: the clock of the file system has to move first.
        fn wait_until_kept(&self) {
            let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
            while !self.is_kept() {
                assert!(self.holds() && std::time::Instant::now() < end);
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
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
    fn a_name_that_appears_in_a_listed_directory_is_noticed_at_once_every_time() {
        let f = Fixture::new(|root, _| {
            let top = rustix::fs::open(root, OFlags::PATH, Mode::empty()).unwrap();
            let digest = listing_digest(top.as_fd(), "dir").unwrap();
            vec![("dir", Fact::Listed { digest })]
        });
        for round in 0..200 {
            assert!(f.holds(), "round {round}");
            std::fs::write(f.path("dir/new"), "").unwrap();
            assert!(!f.holds(), "round {round}");
            std::fs::remove_file(f.path("dir/new")).unwrap();
        }
        while f.live.memo().listed.is_empty() {
            assert!(f.holds());
            std::thread::sleep(std::time::Duration::from_millis(1)); // the file system's clock has to move
        }
        assert!(f.holds());
        std::fs::write(f.path("dir/new"), "").unwrap();
        assert!(!f.holds());
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
    fn a_directory_of_more_names_than_are_compared_has_no_digest() {
        // In memory, where a hundred thousand names are soon made. Two of those that are there are the directory itself
        // and the one above.
        let place = if cfg!(target_os = "linux") { "/dev/shm".into() } else { std::env::temp_dir() };
        let temp = tempfile::tempdir_in(place).unwrap();
        let cwd = WorkingDirectory::open(temp.path().as_os_str().as_bytes()).unwrap();
        let first = temp.path().join("0");
        std::fs::create_dir(&first).unwrap();
        let open = |at: &std::path::Path| WorkingDirectory::open(at.as_os_str().as_bytes()).unwrap();
        let below = open(&first);
        for number in 2..LISTED_NAMES_MAX {
            rustix::fs::symlinkat("x", below.fd(), number.to_string()).unwrap();
        }
        assert!(listing_digest(cwd.fd(), "0").is_ok());
        rustix::fs::symlinkat("x", below.fd(), "one more").unwrap();
        assert!(listing_digest(cwd.fd(), "0").is_err());
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
        let checked = || f.live.check_and(&cwd, &f.files, || "done").map(|(done, _)| done);
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
    fn what_is_not_settled_is_not_believed_the_next_time() {
        let f = Fixture::new(|root, files| vec![("a.h", Fixture::content(root, files, "a.h"))]);
        let remembered = || f.live.memo().otherwise.get(&0).copied();
        let is_settled = || Signature::of(f.path("a.h")).unwrap().is_settled(coarse_now_ns());
        let mut seen_unsettled = 0;
        // First as the record has it, then with another signature.
        while seen_unsettled < 2 {
            assert!(f.holds());
            if !is_settled() {
                assert_eq!(remembered(), Some(None));
                seen_unsettled += 1;
            }
            while !is_settled() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            assert!(f.holds());
            assert_ne!(remembered(), Some(None));
            std::fs::write(f.path("a.h"), "one").unwrap();
        }
        assert!(matches!(remembered(), Some(Some(_))));
    }

    #[test]
    fn what_a_links_name_with_a_slash_leads_to_is_not_told_by_the_links_directory() {
        let f = Fixture::new(|_, _| vec![("away/", Fact::Absent)]);
        std::os::unix::fs::symlink("dir/below", f.path("away")).unwrap();
        for _ in 0..3 {
            while !Signature::of(f.temp.path()).unwrap().is_settled(coarse_now_ns()) {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            assert!(f.holds());
        }
        std::fs::create_dir(f.path("dir/below")).unwrap();
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
    fn two_directories_must_stay_two_and_are_not_compared_anew_each_time() {
        let f = Fixture::new(|root, _| {
            std::fs::create_dir(root.join("other")).unwrap();
            ["dir", "other"].map(|name| (name, IS_A_DIRECTORY)).to_vec()
        });
        let cwd = Arc::new(WorkingDirectory::open(f.temp.path().as_os_str().as_bytes()).unwrap());
        let look = || f.live.look(&cwd, &f.files, false, || ()).unwrap().0.changed.len();
        assert_eq!(look(), 2);
        assert!(f.holds());
        assert_eq!(look(), 0, "though they were made a moment ago");
        std::fs::remove_dir(f.path("other")).unwrap();
        std::os::unix::fs::symlink("dir", f.path("other")).unwrap();
        assert!(!f.holds() && !f.holds());
        std::fs::remove_file(f.path("other")).unwrap();
        std::fs::create_dir(f.path("other")).unwrap();
        assert!(f.holds());
    }

    /// Files that are kept open after some checks; `f` is asked once they are.
    fn with_kept_files() -> Fixture {
        let f = Fixture::new(|root, files| {
            let fact = |name: &'static str| {
                std::fs::create_dir_all(root.join("d")).unwrap();
                std::fs::write(root.join(name), name).unwrap();
                (name, Fixture::content(root, files, name))
            };
            let mut facts: Vec<_> = ["d/1.h", "d/2.h", "d/3.h", "d/4.h"].map(fact).into();
            facts.push(("d/absent.h", Fact::Absent));
            facts.push(("d/.", IS_A_DIRECTORY));
            std::fs::create_dir(root.join("d/below")).unwrap();
            std::os::unix::fs::symlink("below", root.join("d/link")).unwrap();
            facts.push(("d/below", Fact::Kind { follow: false, kind: FileKind::Directory }));
            facts.push(("d/link", Fact::Symlink { target: Spelled(b"below".to_vec()) }));
            facts
        });
        f.wait_until_kept();
        f
    }

    #[test]
    fn files_that_are_kept_open_are_seen_to_change_in_any_way() {
        type Change = fn(&Fixture);
        let changes: [Change; 11] = [
            |f| std::fs::write(f.path("d/1.h"), "D/1.h").unwrap(),
            |f| std::fs::remove_file(f.path("d/2.h")).unwrap(),
            |f| std::fs::rename(f.path("d/1.h"), f.path("d/2.h")).unwrap(),
            |f| {
                std::fs::write(f.path("new"), "new").unwrap();
                std::fs::rename(f.path("new"), f.path("d/3.h")).unwrap();
            },
            |f| {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                let (cwd, one, other) = (rustix::fs::CWD, f.path("d/1.h"), f.path("d/2.h"));
                rustix::fs::renameat_with(cwd, one, cwd, other, exchange).unwrap();
            },
            |f| std::fs::write(f.path("d/absent.h"), "").unwrap(),
            |f| std::fs::rename(f.path("d"), f.path("e")).unwrap(),
            |f| {
                std::fs::rename(f.path("d"), f.path("e")).unwrap();
                std::fs::create_dir(f.path("d")).unwrap();
                for name in ["d/1.h", "d/2.h", "d/3.h"] {
                    std::fs::write(f.path(name), name).unwrap();
                }
                std::fs::write(f.path("d/4.h"), "another").unwrap();
            },
            |f| {
                std::fs::remove_file(f.path("d/4.h")).unwrap();
                std::os::unix::fs::symlink("../a.h", f.path("d/4.h")).unwrap();
            },
            |f| {
                std::os::unix::fs::symlink("1.h", f.path("new")).unwrap();
                std::fs::rename(f.path("new"), f.path("d/link")).unwrap();
            },
            |f| {
                std::fs::rename(f.path("d/below"), f.path("d/elsewhere")).unwrap();
                std::os::unix::fs::symlink("elsewhere", f.path("d/below")).unwrap();
            },
        ];
        for (number, change) in changes.iter().enumerate() {
            let f = with_kept_files();
            change(&f);
            assert!(!f.holds(), "change {number}");
            assert!(!f.holds(), "change {number}, again");
        }
    }

    #[test]
    fn what_was_done_to_kept_files_and_taken_back_holds_again() {
        let f = with_kept_files();
        for round in 0..20 {
            std::fs::rename(f.path("d/1.h"), f.path("d/gone.h")).unwrap();
            assert!(!f.holds(), "round {round}");
            std::fs::rename(f.path("d/gone.h"), f.path("d/1.h")).unwrap();
            assert!(f.holds(), "round {round}");
            f.wait_until_kept();
            std::fs::write(f.path("d/2.h"), format!("{round}")).unwrap();
            assert!(!f.holds(), "round {round}");
            std::fs::write(f.path("d/2.h"), "d/2.h").unwrap();
            assert!(f.holds(), "round {round}");
        }
    }

    #[test]
    fn what_one_record_has_learnt_of_a_directory_says_nothing_of_another_ones_names() {
        let temp = steady_directory();
        let [header, link, absent] = ["a.h", "link", "absent.h"]
            .map(|name| &*temp.path().join(name).to_str().unwrap().to_owned().leak());
        let directory = format!("{}/", temp.path().display()).into_bytes();
        let symlink = Fact::Symlink { target: Spelled(b"a.h".to_vec()) };
        // What is likeliest to have changed is looked at first, whatever is known: not the link.
        let of = |root: &Path, files: &FileTable| {
            vec![(header, Fixture::content(root, files, "a.h")), (link, symlink)]
        };
        let f = Fixture::below(temp, of);
        let cwd = Arc::new(WorkingDirectory::open(b"/").unwrap());
        let other = Fixture::live(&cwd, vec![(absent, Fact::Absent)]);
        let learn = |check: &dyn Fn()| {
            f.files.kept.rest();
            f.files.kept.rest(); // what others did on the way is forgotten
            while f.files.kept.kept().unwrap().by_way(&directory, &mut Looks::default()).is_none() {
                check();
                std::thread::sleep(std::time::Duration::from_millis(1)); // the file system's clock has to move
            }
        };
        let both = || assert!(f.live.check(&cwd, &f.files).is_ok() && other.check(&cwd, &f.files).is_ok());
        learn(&both);
        both();
        std::os::unix::fs::symlink("b.h", f.path("new")).unwrap();
        std::fs::rename(f.path("new"), f.path("link")).unwrap();
        learn(&|| assert!(other.check(&cwd, &f.files).is_ok()));
        assert!(f.live.check(&cwd, &f.files).is_err());
    }

    #[test]
    fn nothing_is_kept_open_of_directories_that_change_nor_when_nobody_asks() {
        let f = with_kept_files();
        f.files.kept.rest();
        assert!(f.is_kept());
        f.files.kept.rest();
        f.files.kept.rest();
        assert!(!f.is_kept());
        for _ in 0..20 {
            std::fs::write(f.path("d/object.o"), "").unwrap();
            std::fs::remove_file(f.path("d/object.o")).unwrap();
            assert!(f.holds() && !f.is_kept());
        }
        f.wait_until_kept();
    }
}
