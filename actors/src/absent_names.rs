//! Names known to be absent from a directory, for as long as its signature stands: making a name in a directory
//! changes the directory's own time stamps.
//!
//! The compiles of a project look for the same headers in the same directories, so what one record's check has
//! established, the next one's need not. An entry is made only of a settled signature that was taken before its
//! names were looked for.

use dashmap::DashMap;
use rustc_hash::{FxBuildHasher, FxHashSet};

use crate::signature::Signature;

/// How many names are remembered in one directory: more than all headers of a system. Beyond, they are looked for.
const NAMES_MAX: usize = 20_000;

/// How many directories are remembered. At some 100 bytes for each name, and some hundred names where there are
/// many, 10 MB; when it is full it is emptied.
const DIRECTORIES_MAX: usize = 2_000;

type Names = FxHashSet<Box<[u8]>>;

/// See the module.
#[derive(Default)]
pub struct AbsentNames {
    directories: DashMap<(u64, u64), (Signature, Names), FxBuildHasher>,
}

impl AbsentNames {
    /// Whether none of `names` is in the directory that has this signature now.
    pub fn has_none_of<'a>(&self, directory: &Signature, mut names: impl Iterator<Item = &'a [u8]>) -> bool {
        let entry = self.directories.get(&(directory.dev, directory.ino));
        entry.is_some_and(|known| known.0 == *directory && names.all(|name| known.1.contains(name)))
    }

    /// Remembers that none of `names` is there. `directory` is settled, and was taken before they were looked for.
    pub fn remember<'a>(&self, directory: Signature, names: impl Iterator<Item = &'a [u8]>) {
        if self.directories.len() >= DIRECTORIES_MAX {
            self.directories.clear();
        }
        let new = || (directory, Names::default());
        let mut known = self.directories.entry((directory.dev, directory.ino)).or_insert_with(new);
        if known.0 != directory {
            *known = new();
        }
        for name in names {
            if known.1.len() < NAMES_MAX && !known.1.contains(name) {
                known.1.insert(name.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_until_the_directory_changes() {
        let temp = tempfile::tempdir().unwrap();
        let names = |names: &'static [&str]| names.iter().map(|name| name.as_bytes());
        let before = Signature::of(temp.path()).unwrap();
        let known = AbsentNames::default();
        assert!(!known.has_none_of(&before, names(&["a.h"])));
        known.remember(before, names(&["a.h", "b.h"]));
        assert!(known.has_none_of(&before, names(&["b.h", "a.h"])));
        assert!(!known.has_none_of(&before, names(&["a.h", "c.h"])));
        let after = Signature { mtime_ns: before.mtime_ns + 1, ..before };
        assert!(!known.has_none_of(&after, names(&["a.h"])));
        known.remember(after, names(&["c.h"]));
        assert!(!known.has_none_of(&after, names(&["a.h"])) && known.has_none_of(&after, names(&["c.h"])));
    }

    #[test]
    fn so_many_names_of_a_directory_and_so_many_directories_are_remembered() {
        let temp = tempfile::tempdir().unwrap();
        let any = Signature::of(temp.path()).unwrap();
        let directory = |ino: usize| Signature { ino: ino as u64, ..any };
        let names: Vec<String> = (0..=NAMES_MAX).map(|n| n.to_string()).collect();
        let (all, first) = (|| names.iter().map(String::as_bytes), || std::iter::once(names[0].as_bytes()));
        let known = AbsentNames::default();
        known.remember(directory(1), all());
        assert!(known.has_none_of(&directory(1), all().take(NAMES_MAX)));
        assert!(!known.has_none_of(&directory(1), all().skip(NAMES_MAX)));
        (2..=DIRECTORIES_MAX).for_each(|ino| known.remember(directory(ino), first()));
        assert!((1..=DIRECTORIES_MAX).all(|ino| known.has_none_of(&directory(ino), first())));
        known.remember(directory(DIRECTORIES_MAX + 1), first());
        assert!((1..=DIRECTORIES_MAX).all(|ino| !known.has_none_of(&directory(ino), first())));
        assert!(known.has_none_of(&directory(DIRECTORIES_MAX + 1), first()));
    }
}
