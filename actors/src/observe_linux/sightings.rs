//! What was seen so far, each path at most once per kind of question. Pure state.
//!
//! The first answer to a question stands for the run: whoever uses the sightings compares them with the file
//! system after the run, so an answer that changed in between shows there.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::digest::Digest;
use crate::observation::{Seen, Sighting, Spelled};
use crate::signature::{FileKind, Signature};

/// The most sightings one run may have: a hundred times a large C++ compile's. Beyond, a record would cost
/// more to check than the tool to run.
pub const SIGHTINGS_MAX: usize = 100_000;

/// A kind of question, as a bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Question {
    /// Opened for reading.
    Read = 1,
    /// Executed.
    Execute = 2,
    /// Asked about, links followed.
    Stat = 4,
    /// Asked about, links not followed.
    Lstat = 8,
    /// Listed.
    List = 16,
    /// Asked whether it is a link, and where to.
    Readlink = 128,
}

/// The answer "nothing there" settles all questions.
const ABSENT: u8 = 32;
/// The run made this path's state itself: nothing more is to be asked.
const OWN: u8 = 64;

/// Room for as many sightings as most runs have, so that what was noted is not moved again and again.
const SIGHTINGS_USUAL: usize = 512;

/// See the module.
pub struct Sightings {
    asked: FxHashMap<Vec<u8>, u8>,
    /// Paths that were to be read, and were not there.
    not_read: FxHashSet<Vec<u8>>,
    list: Vec<Sighting>,
}

impl Default for Sightings {
    fn default() -> Self {
        let asked = FxHashMap::with_capacity_and_hasher(SIGHTINGS_USUAL, Default::default());
        Self { asked, not_read: FxHashSet::default(), list: Vec::with_capacity(SIGHTINGS_USUAL) }
    }
}

impl Sightings {
    /// Whether the answer is known already.
    pub fn is_settled(&self, path: &[u8], question: Question) -> bool {
        self.asked.get(path).is_some_and(|asked| asked & (question as u8 | ABSENT | OWN) != 0)
    }

    /// Whether this path's state is the run's own.
    pub fn is_own(&self, path: &[u8]) -> bool {
        self.asked.get(path).is_some_and(|asked| asked & OWN != 0)
    }

    /// Whether nothing was there.
    pub fn is_absent(&self, path: &[u8]) -> bool {
        self.asked.get(path).is_some_and(|asked| asked & ABSENT != 0)
    }

    /// The answer to a question. Says false if there are too many.
    pub fn add(&mut self, path: &[u8], question: Question, seen: Seen) -> bool {
        let bits = question as u8 | if seen == Seen::Absent { ABSENT } else { 0 };
        self.mark(path, bits);
        if question == Question::Read && seen == Seen::Absent {
            self.not_read.insert(path.to_vec());
        }
        if self.list.len() >= SIGHTINGS_MAX {
            return false;
        }
        self.list.push(Sighting { path: Spelled(path.to_vec()), seen });
        true
    }

    /// The question was asked, and its answer is no sighting.
    pub fn ignore(&mut self, path: &[u8], question: Question) {
        self.mark(path, question as u8);
    }

    /// From now on, nothing about this path is news.
    pub fn own(&mut self, path: &[u8]) {
        self.mark(path, OWN);
    }

    fn mark(&mut self, path: &[u8], bits: u8) {
        match self.asked.get_mut(path) {
            Some(asked) => *asked |= bits,
            None => drop(self.asked.insert(path.to_vec(), bits)),
        }
    }

    /// Whether the file with this device and inode was read.
    pub fn has_read(&self, file: &Signature) -> bool {
        self.list.iter().any(|s| is_reading_of(&s.seen, file))
    }

    /// The file that was read, as it is now, is about to be changed; its content is this. Says false if it is not any
    /// more what was read.
    pub fn keep_content(&mut self, file: &Signature, digest: Digest) -> bool {
        for s in self.list.iter_mut().filter(|s| is_reading_of(&s.seen, file)) {
            if !matches!(&s.seen, Seen::Read { signature, .. } if signature == file) {
                return false;
            }
            let seen = Box::new(std::mem::replace(&mut s.seen, Seen::Absent));
            s.seen = Seen::Before { seen, digest: Some(digest) };
        }
        true
    }

    /// The path was opened, and yet not read.
    pub fn forget_reading(&mut self, path: &[u8]) {
        self.list.retain(|s| s.path.0 != path || !matches!(s.seen, Seen::Read { .. }));
    }

    /// Paths that were to be read, and were not there.
    pub fn take_not_read(&mut self) -> FxHashSet<Vec<u8>> {
        std::mem::take(&mut self.not_read)
    }

    /// All that was seen so far.
    pub fn seen(&self) -> &[Sighting] {
        &self.list
    }

    /// The sightings, without those that another one implies: kind and metadata of what was read as well (under whatever
    /// spelling, told by `normal`), a plain reading of what was executed, a directory behind links that is one
    /// without any. What was asked of files is no reading of them where it `counts_by_itself`.
    pub fn into_list(self, counts_by_itself: bool, normal: impl Fn(&[u8]) -> Vec<u8>) -> Vec<Sighting> {
        let Self { mut list, .. } = self;
        let mut read = FxHashSet::default();
        let mut executed = FxHashSet::default();
        let mut plain_directories = FxHashSet::default();
        for s in &list {
            match s.seen {
                Seen::Read { executed: true, .. } => drop(executed.insert(s.path.clone())),
                Seen::Kind { follow: false, kind: FileKind::Directory } => {
                    plain_directories.insert(s.path.clone());
                }
                _ => {}
            }
            let first = match &s.seen {
                Seen::Before { seen, .. } => seen,
                seen => seen,
            };
            if let Seen::Read { .. } = first {
                read.insert(normal(&s.path.0));
            }
        }
        list.retain(|s| match &s.seen {
            Seen::Metadata { .. } if counts_by_itself => true,
            Seen::Metadata { .. } | Seen::Kind { follow: false, kind: FileKind::File } => {
                !read.contains(&normal(&s.path.0))
            }
            Seen::Read { executed: false, .. } => !executed.contains(&s.path),
            Seen::Kind { follow: true, kind: FileKind::Directory } => !plain_directories.contains(&s.path),
            _ => true,
        });
        list
    }
}

fn is_reading_of(seen: &Seen, file: &Signature) -> bool {
    matches!(seen, Seen::Read { signature, .. } if (signature.dev, signature.ino) == (file.dev, file.ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_sightings_are_kept_and_one_more_is_told() {
        let mut sightings = Sightings::default();
        let mut add = |number: usize| sightings.add(&number.to_le_bytes(), Question::Read, Seen::Absent);
        assert!((0..SIGHTINGS_MAX).all(&mut add));
        assert!(!add(SIGHTINGS_MAX));
        assert_eq!(sightings.seen().len(), SIGHTINGS_MAX);
    }
}
