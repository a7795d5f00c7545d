//! Freshness: do a record's observations still hold?
//!
//! The baseline of the design: one `statx` for each file, and one for each directory with absent names. What
//! a signature says is believed only if it was settled when it was taken; everything else is looked at again.
//! A check never guesses: whatever cannot be established does not hold, and the tool runs.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError, RwLock};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::file_table::FileTable;
use crate::name_filter::names_in;
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

    /// The directory's own path, without links.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn path(&self) -> std::io::Result<Vec<u8>> {
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.fd));
        Ok(rustix::fs::readlink(link, Vec::with_capacity(256))?.into_bytes())
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
    /// Its observations by directory.
    groups: Vec<Group>,
    /// The number of groups that make up about half of the work.
    middle: usize,
    /// What was seen when everything last held.
    memo: RwLock<Arc<Memo>>,
}

/// The observations of one directory, as spelled. Looking at names in an open directory costs a third of walking
/// a long path to each; and what is directly below a missing directory is missing.
struct Group {
    /// With its last slash; `./` for plain names.
    directory: CString,
    /// Whether the directory is opened for a check. The names below are relative to it then, else whole paths.
    opened: bool,
    /// What is there: the number of the observation, and the name.
    present: Vec<(usize, CString)>,
    /// What is not.
    absent: Vec<CString>,
}

/// From this many names on, opening and closing the directory pays.
const OPENED_NAMES_MIN: usize = 4;

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
        let middle = middle(&groups);
        Self { record, groups, middle, memo: RwLock::new(Arc::new(memo)) }
    }

    /// Checks every observation, as seen from `cwd`.
    ///
    /// # Errors
    /// One that does not hold.
    pub fn check(&self, cwd: &WorkingDirectory, files: &FileTable) -> Result<(), Broken> {
        let memo = Arc::clone(&self.memo.read().unwrap_or_else(PoisonError::into_inner));
        // Taken before anything is looked at: what changes later is stamped with this time or a later one.
        let now_ns = coarse_now_ns();
        let check =
            Check { observations: &self.record.observations, memo: &memo, cwd: cwd.fd(), files, now_ns };
        let seen = if memo.observations.len() < SPLIT_OBSERVATIONS_MIN {
            check.groups(&self.groups, 0)?
        } else {
            self.check_in_halves(&check)?
        };
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
        let fresh = Memo {
            observations: observations.into_iter().map(settled).collect(),
            directories: seen.directories,
        };
        if fresh != *memo {
            *self.memo.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        }
        Ok(())
    }

    /// Half of the groups here, the other half on another processor: the client's own waits for us.
    fn check_in_halves(&self, check: &Check<'_>) -> Result<Seen, Broken> {
        let (first, second) = self.groups.split_at(self.middle);
        let mut there = None;
        let here = rayon_core::in_place_scope(|scope| {
            scope.spawn(|_| there = Some(check.groups(second, self.middle)));
            check.groups(first, 0)
        });
        let mut seen = here?;
        let there = there.expect("invariant: a scope ends when all that it spawned has ended")?;
        seen.observations.extend(there.observations);
        seen.directories.extend(there.directories);
        Ok(seen)
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

/// One check in progress.
struct Check<'a> {
    observations: &'a [Observation],
    memo: &'a Memo,
    cwd: BorrowedFd<'a>,
    files: &'a FileTable,
    now_ns: i64,
}

/// What a check saw.
#[derive(Default)]
struct Seen {
    /// Of each observation whose file's identity counts.
    observations: Vec<(usize, Option<Signature>)>,
    /// Of each group's directory, where that can stand for its absent names.
    directories: Vec<Option<Signature>>,
}

impl Check<'_> {
    /// Checks some groups, the first of which has the number `from`.
    fn groups(&self, groups: &[Group], from: usize) -> Result<Seen, Broken> {
        let mut seen = Seen::default();
        for (group, number) in groups.iter().zip(from..) {
            self.group(group, self.memo.directories[number], &mut seen)?;
        }
        Ok(seen)
    }

    fn group(&self, group: &Group, known: Option<Signature>, seen: &mut Seen) -> Result<(), Broken> {
        let opened = if group.opened {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match rustix::fs::openat(self.cwd, &*group.directory, flags, Mode::empty()) {
                Ok(fd) => Some(fd),
                Err(Errno::NOENT | Errno::NOTDIR) if group.present.is_empty() => {
                    seen.directories.push(None);
                    return Ok(());
                }
                Err(_) => return Err(Broken { path: group.directory.as_bytes().to_vec() }),
            }
        } else {
            None
        };
        let base = opened.as_ref().map_or(self.cwd, AsFd::as_fd);
        for (number, name) in &group.present {
            seen.observations.push((*number, self.present(*number, base, name)?));
        }
        let directory = match &opened {
            _ if group.absent.is_empty() => Ok(None),
            Some(fd) => Signature::at(fd, c"", AtFlags::EMPTY_PATH).map(Some),
            None => Signature::at(self.cwd, &*group.directory, AtFlags::empty()).map(Some),
        };
        seen.directories.push(self.absent(group, base, known, directory)?);
        Ok(())
    }

    /// Checks something that is to be there; returns its signature if its identity counts.
    fn present(&self, number: usize, base: BorrowedFd<'_>, name: &CStr) -> Result<Option<Signature>, Broken> {
        let Observation { path, fact } = &self.observations[number];
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
                let now = rustix::fs::readlinkat(base, name, Vec::new()).map_err(|_| broken())?;
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
        Ok(directory.ok().flatten().filter(|d| d.is_settled(self.now_ns)))
    }
}

/// Groups observations by their directories as spelled.
fn groups(observations: &[Observation]) -> Vec<Group> {
    let mut groups: Vec<(&[u8], Vec<usize>)> = Vec::new();
    let mut index: HashMap<&[u8], usize> = HashMap::new();
    for (number, observation) in observations.iter().enumerate() {
        let directory = directory_of(&observation.path.0);
        let at = *index.entry(directory).or_insert_with(|| {
            groups.push((directory, Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(number);
    }
    groups.into_iter().map(|(directory, numbers)| group(directory, &numbers, observations)).collect()
}

/// How many groups, from the first, hold about half of what is there.
fn middle(groups: &[Group]) -> usize {
    let work = |group: &Group| group.present.len() + 2;
    let half = groups.iter().map(work).sum::<usize>() / 2;
    let mut done = 0;
    let before_half = |group: &&Group| {
        done += work(group);
        done <= half
    };
    groups.iter().take_while(before_half).count()
}

fn group(directory: &[u8], numbers: &[usize], observations: &[Observation]) -> Group {
    let opened = numbers.len() >= OPENED_NAMES_MIN;
    let text = |bytes: &[u8]| CString::new(bytes).unwrap_or_default(); // records with a NUL in a path are not sound
    let name = |path: &[u8]| match &path[directory.len()..] {
        _ if !opened => text(path),
        b"" => c".".to_owned(),
        name => text(name),
    };
    let spelled = if directory.is_empty() { b"./" } else { directory };
    let mut group = Group { directory: text(spelled), opened, present: Vec::new(), absent: Vec::new() };
    for &number in numbers {
        let Observation { path, fact } = &observations[number];
        match fact {
            Fact::Absent => group.absent.push(name(&path.0)),
            _ => group.present.push((number, name(&path.0))),
        }
    }
    group
}

/// Everything before the last component, so that a name in `directory_of(p)` resolves as `p` does.
fn directory_of(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&b| b != b'/').map_or(path.len(), |last| last + 1);
    match path[..end].iter().rposition(|&b| b == b'/') {
        Some(slash) => &path[..=slash],
        None if path.first() == Some(&b'/') => path,
        None => b"",
    }
}

/// The digest of the sorted names in a directory.
///
/// # Errors
/// If it cannot be listed, or holds more than `LISTED_NAMES_MAX` names.
pub fn listing_digest(dir: BorrowedFd<'_>, path: impl rustix::path::Arg) -> std::io::Result<Digest> {
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
            [("a", ""), ("a/b", "a/"), ("/a", "/"), ("../a", "../"), ("a//b", "a//"), ("a/b/", "a/")]
        {
            assert_eq!(directory_of(path.as_bytes()), directory.as_bytes(), "{path}");
        }
    }
}
