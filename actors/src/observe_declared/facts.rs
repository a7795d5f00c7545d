//! What a compile's result hangs on, as gathered by looking before it runs, and whether it still is so after.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use super::host;
use crate::observation::{Seen, Sighting, Spelled};
use crate::observer::Unstorable;
use crate::signature::{FileKind, Signature, coarse_now_ns};
use crate::spelling;
use crate::sys::fs::{AtFlags, CWD, readlinkat};
use crate::sys::io::Errno;
use crate::sys::{OsStrExt, OsStringExt};

/// The most symbolic links one path may lead through (the kernel's own limit).
const LINKS_MAX: u8 = 40;

/// The most facts of one compile: half of what a record may hold. A C++ file has some thousands.
const FACTS_MAX: usize = 25_000;

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// A regular file, not yet among the facts.
    File(Signature),
    /// A directory.
    Directory,
}

/// See the module.
pub struct Facts {
    cwd: PathBuf,
    seen: HashMap<Vec<u8>, Found>,
    read: HashSet<Vec<u8>>,
    sightings: Vec<Sighting>,
    /// Which names decide where the paths lead, by directory.
    steps: HashMap<PathBuf, HashSet<OsString>>,
    walked: HashSet<Vec<u8>>,
    /// Of each disk, whether the times of what lies there tell of changes.
    disks: HashMap<u64, bool>,
    trouble: Option<Unstorable>,
}

impl Facts {
    /// None yet. Relative paths begin at `cwd`, which is absolute.
    pub fn new(cwd: &Path) -> Self {
        let mut facts = Self {
            cwd: cwd.to_owned(),
            seen: HashMap::new(),
            read: HashSet::new(),
            sightings: Vec::new(),
            steps: HashMap::new(),
            walked: HashSet::new(),
            disks: HashMap::new(),
            trouble: None,
        };
        facts.walk(cwd, &spelling::plain(cwd.as_os_str().as_bytes()), None, 0);
        facts
    }

    /// The first thing that makes these facts unfit for a record.
    pub fn trouble(&self) -> Option<&Unstorable> {
        self.trouble.as_ref()
    }

    /// Which names decide where the paths lead, by directory.
    pub fn steps(&self) -> &HashMap<PathBuf, HashSet<OsString>> {
        &self.steps
    }

    /// The facts, as sightings.
    pub fn into_sightings(self) -> Vec<Sighting> {
        let Self { mut sightings, read, .. } = self;
        // What was read was there, and a file.
        sightings.retain(|s| !matches!(s.seen, Seen::Kind { .. }) || !read.contains(&s.path.0));
        sightings
    }

    /// The path as the kernel is to be asked for it.
    pub fn absolute(&self, path: &[u8]) -> PathBuf {
        self.cwd.join(OsStr::from_bytes(path))
    }

    /// Looks whether something is at `path`: its absence, or its kind, becomes a fact.
    pub fn look(&mut self, path: &[u8]) -> Found {
        if let Some(found) = self.seen.get(path) {
            return *found;
        }
        if let Some(odd) = spelling::oddness(path) {
            let name = format!("{odd}, {}", String::from_utf8_lossy(path));
            self.trouble.get_or_insert(Unstorable::NotObservable(name));
        }
        let spelled = spelling::split_root(path).map_or_else(Vec::new, |(root, _)| root.to_vec());
        self.walk(&self.cwd.clone(), path, Some(spelled), 0);
        let found = match Signature::of(self.absolute(path)) {
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.add(path, Seen::Absent);
                Found::Nothing
            }
            Ok(s) if !self.tells_changes(path, &s) => {
                let name = format!("{} lies where times do not tell", String::from_utf8_lossy(path));
                self.trouble.get_or_insert(Unstorable::NotObservable(name));
                Found::Nothing
            }
            Ok(s) if s.kind() == FileKind::File => {
                self.add(path, Seen::Kind { follow: true, kind: FileKind::File });
                Found::File(s)
            }
            Ok(s) if s.kind() == FileKind::Directory => {
                self.add(path, Seen::Kind { follow: true, kind: FileKind::Directory });
                Found::Directory
            }
            _ => {
                let name = String::from_utf8_lossy(path).into_owned();
                self.trouble.get_or_insert(Unstorable::ReadUnstable(name));
                Found::Nothing
            }
        };
        self.seen.insert(path.to_vec(), found);
        found
    }

    /// Whether a change of this file, or of the names in this directory, must show in its signature.
    fn tells_changes(&mut self, path: &[u8], signature: &Signature) -> bool {
        let absolute = self.absolute(path);
        *self.disks.entry(signature.dev).or_insert_with(|| host::tells_changes(&absolute))
    }

    /// Looks, and if a regular file is there, its content becomes a fact.
    pub fn read(&mut self, path: &[u8], executed: bool) -> Found {
        let now_ns = coarse_now_ns();
        let found = self.look(path);
        if let Found::File(signature) = found
            && self.read.insert(path.to_vec())
        {
            if !signature.is_settled(now_ns) {
                let name = String::from_utf8_lossy(path).into_owned();
                self.trouble.get_or_insert(Unstorable::InputTooNew(name));
            }
            let name = Signature::at(CWD, self.absolute(path), AtFlags::SYMLINK_NOFOLLOW);
            let linked = name.is_ok_and(|name| name.kind() == FileKind::Symlink);
            self.add(path, Seen::Read { signature, executed, linked });
        }
        found
    }

    /// The names in a directory become a fact, or that there is none.
    pub fn list(&mut self, path: &[u8]) -> Found {
        let found = self.look(path);
        if found == Found::Directory
            && let Ok(signature) = Signature::of(self.absolute(path))
        {
            self.add(path, Seen::Listed { signature });
        }
        found
    }

    fn add(&mut self, path: &[u8], seen: Seen) {
        if self.sightings.len() >= FACTS_MAX {
            self.trouble.get_or_insert(Unstorable::TooMany("observations"));
            return;
        }
        self.sightings.push(Sighting { path: Spelled(path.to_vec()), seen });
    }

    /// Goes along `path` from `start`, notes each name on the way, and follows links as the kernel does.
    /// `spelled` is how the part gone so far is spelled; with it, links become facts.
    fn walk(&mut self, start: &Path, path: &[u8], mut spelled: Option<Vec<u8>>, links: u8) {
        let (mut at, path) = match spelling::split_root(path) {
            Some((root, rest)) => (PathBuf::from(OsStr::from_bytes(root)), rest),
            None => (start.to_owned(), path),
        };
        for name in path.split(|&b| b == b'/').filter(|name| !name.is_empty() && name != b".") {
            let next = at.join(OsStr::from_bytes(name));
            if let Some(spelled) = &mut spelled {
                if !spelled.is_empty() && !spelled.ends_with(b"/") {
                    spelled.push(b'/');
                }
                spelled.extend_from_slice(name);
            }
            if name != b".." && self.walked.insert(next.as_os_str().as_bytes().to_vec()) {
                self.steps.entry(at.clone()).or_default().insert(OsStr::from_bytes(name).to_owned());
                if let Ok(target) = readlinkat(CWD, &next, Vec::new()) {
                    let target = target.into_bytes();
                    // What it says there is each process's own.
                    if next.starts_with("/proc") {
                        let name = String::from_utf8_lossy(path).into_owned();
                        self.trouble.get_or_insert(Unstorable::ReadUnstable(name));
                    }
                    if let Some(spelled) = &spelled {
                        self.add(&spelled.clone(), Seen::Symlink { target: Spelled(target.clone()) });
                    }
                    if links < LINKS_MAX {
                        let target = spelling::plain(&target);
                        let root = spelling::split_root(&target).map(|(root, _)| root);
                        let from = root.unwrap_or_else(|| at.as_os_str().as_bytes());
                        let spelled = spelled.is_some().then(|| spelling::plain(from).into_owned());
                        self.walk(&at, &target, spelled, links + 1);
                    }
                }
            }
            at = next;
        }
    }

    /// Looks at everything again.
    ///
    /// # Errors
    /// What is not as it was.
    pub fn check(&self) -> Result<(), Unstorable> {
        for sighting in &self.sightings {
            if !self.still(sighting) {
                let name = String::from_utf8_lossy(&sighting.path.0).into_owned();
                return Err(Unstorable::InputChanged(name));
            }
        }
        Ok(())
    }

    fn still(&self, sighting: &Sighting) -> bool {
        let path = self.absolute(&sighting.path.0);
        match &sighting.seen {
            Seen::Read { signature, .. } | Seen::Listed { signature } => {
                Signature::of(&path) == Ok(*signature)
            }
            // Not following: a link whose target is missing may be seen by `lstat`.
            Seen::Absent => matches!(
                Signature::at(CWD, &path, AtFlags::SYMLINK_NOFOLLOW),
                Err(Errno::NOENT | Errno::NOTDIR)
            ),
            Seen::Kind { kind, .. } => Signature::of(&path).is_ok_and(|s| s.kind() == *kind),
            Seen::Symlink { target } => {
                readlinkat(CWD, &path, Vec::new()).is_ok_and(|now| now.as_bytes() == &target.0[..])
            }
            Seen::Metadata { .. } | Seen::Names { .. } | Seen::Before { .. } => false,
        }
    }
}

/// `directory/name`, the working directory being spelled as nothing or a dot.
pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match directory {
        _ if spelling::is_absolute(name) => name.to_vec(),
        b"" => name.to_vec(),
        _ if directory.ends_with(b"/") => [directory, name].concat(),
        _ => [directory, b"/", name].concat(),
    }
}

/// The directory part of a path; empty if it has none.
pub fn directory_of(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&b| b == b'/') {
        Some(0) => b"/",
        Some(slash) => &path[..slash],
        None => b"",
    }
}

/// A path's bytes, plain.
pub fn bytes_of(path: PathBuf) -> Vec<u8> {
    spelling::plain(&path.into_os_string().into_vec()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_facts_than_a_record_takes_are_trouble() {
        let mut facts = Facts::new(Path::new("/"));
        let have = facts.sightings.len();
        for number in have..FACTS_MAX {
            facts.add(format!("{number}").as_bytes(), Seen::Absent);
        }
        assert!(facts.trouble.is_none());
        facts.add(b"one more", Seen::Absent);
        assert!(matches!(facts.trouble, Some(Unstorable::TooMany("observations"))), "{:?}", facts.trouble);
        assert_eq!(facts.sightings.len(), FACTS_MAX);
    }

    #[test]
    fn as_many_links_are_followed_as_the_kernel_follows() {
        let temp = tempfile::tempdir().unwrap();
        let last = u32::from(LINKS_MAX) + 2;
        (1..=last).for_each(|n| {
            std::os::unix::fs::symlink((n - 1).to_string(), temp.path().join(n.to_string())).unwrap();
        });
        let mut facts = Facts::new(temp.path());
        facts.look(last.to_string().as_bytes());
        let is_link = |s: &&Sighting| matches!(s.seen, Seen::Symlink { .. });
        let is_here = |s: &&Sighting| {
            !s.path.0[1..].contains(&b'/') || s.path.0.starts_with(temp.path().as_os_str().as_bytes())
        };
        // The first is no link's target.
        assert_eq!(
            facts.sightings.iter().filter(is_link).filter(is_here).count(),
            usize::from(LINKS_MAX) + 1
        );
    }
}
