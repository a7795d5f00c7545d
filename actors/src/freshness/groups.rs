//! A record's observations by directory: the order in which they are looked at.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::observation::{Fact, Observation};

/// From this many names on, opening and closing the directory pays.
const OPENED_NAMES_MIN: usize = 4;

/// From this many files on, looking at a directory by its path pays before they are looked at by descriptors (see
/// `kept_files`).
const KEPT_NAMES_MIN: usize = 4;

/// The observations of one directory, as spelled. Looking at names in an open directory costs a third of walking
/// a long path to each; and what is directly below a missing directory is missing.
///
/// There are some hundred thousand observations in memory, so a group has nothing but their numbers.
pub struct Group {
    /// Of what is there, then of what is there and whose name says all, then of what is not there.
    numbers: Box<[u32]>,
    present: usize,
    named: usize,
    /// Length of the directory's path, with its last slash; nothing of plain names.
    directory_bytes: usize,
    /// Whether the directory is opened for a check where it is not kept open.
    pub opened: bool,
    /// Whether so many of its names mean files themselves, and no links, that they are worth looking for by the
    /// directory's path.
    pub kept: bool,
    /// No absent name ends in a slash. One that does may be a link's, and what it leads to is not told by the
    /// directory.
    pub plain: bool,
}

impl Group {
    /// The numbers of what is there.
    pub fn present(&self) -> &[u32] {
        &self.numbers[..self.present]
    }

    /// Likewise, where the name itself says all: what it means is a link, or something whose kind matters alone. As long
    /// as the directory has the names it had, and no mount was made or undone, that holds.
    pub fn named(&self) -> &[u32] {
        &self.numbers[self.present..][..self.named]
    }

    /// The numbers of what is not there.
    pub fn absent(&self) -> &[u32] {
        &self.numbers[self.present + self.named..]
    }

    /// Its directory, with the last slash; `./` for plain names.
    pub fn directory<'a>(&self, observations: &'a [Arc<Observation>]) -> &'a [u8] {
        match (self.directory_bytes, self.numbers.first()) {
            (1.., Some(&any)) => &observations[any as usize].path.0[..self.directory_bytes],
            _ => b"./",
        }
    }

    /// The name that one of its observations has in the directory.
    pub fn name<'a>(&self, observation: &'a Observation) -> &'a [u8] {
        match &observation.path.0[self.directory_bytes..] {
            b"" => b".",
            name => name,
        }
    }

    /// Whether there are names that the directory can stand for.
    pub fn has_names(&self) -> bool {
        self.present < self.numbers.len()
    }
}

/// Groups observations by their directories as spelled.
pub fn groups(observations: &[Arc<Observation>]) -> Vec<Group> {
    let mut groups: Vec<(&[u8], Vec<u32>)> = Vec::new();
    let mut index: FxHashMap<&[u8], usize> = FxHashMap::default();
    for (number, observation) in (0..).zip(observations) {
        let directory = directory_of(&observation.path.0);
        let at = *index.entry(directory).or_insert_with(|| {
            groups.push((directory, Vec::new()));
            groups.len() - 1
        });
        groups[at].1.push(number);
    }
    groups.into_iter().map(|(directory, numbers)| group(directory, numbers, observations)).collect()
}

fn group(directory: &[u8], mut numbers: Vec<u32>, observations: &[Arc<Observation>]) -> Group {
    let of = |number: &u32| &*observations[*number as usize];
    // With a slash behind it, a link's name means what it leads to.
    let is_plain = |number: &u32| !of(number).path.0.ends_with(b"/");
    let kind = |number: &u32| match of(number).fact {
        Fact::Absent => Kind::Absent,
        Fact::Kind { follow: false, .. } | Fact::Symlink { .. } if is_plain(number) => Kind::Named,
        _ => Kind::Present,
    };
    numbers.sort_by_key(kind);
    let count = |wanted: Kind| numbers.iter().filter(|number| kind(number) == wanted).count();
    let (present, named) = (count(Kind::Present), count(Kind::Named));
    let opened = numbers.len() >= OPENED_NAMES_MIN;
    let files = numbers.iter().filter(|number| of(number).is_file_itself()).count();
    Group {
        present,
        named,
        directory_bytes: directory.len(),
        opened,
        kept: opened && files >= KEPT_NAMES_MIN,
        plain: numbers[present + named..].iter().all(is_plain),
        numbers: numbers.into(),
    }
}

/// What an observation says of its name, in the order in which a group has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Present,
    Named,
    Absent,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_path_is_spelled_as_it_was() {
        for (path, directory) in
            [("a", ""), ("a/b", "a/"), ("/a", "/"), ("../a", "../"), ("a//b", "a//"), ("a/b/", "a/")]
        {
            assert_eq!(directory_of(path.as_bytes()), directory.as_bytes(), "{path}");
        }
    }

    #[test]
    fn a_directory_is_opened_and_its_files_kept_from_so_many_names_on() {
        use crate::digest::Digest;
        use crate::observation::Spelled;
        use crate::signature::Signature;
        let signature = Signature::of("/").unwrap();
        let content = Fact::Content { digest: Digest::of(b""), signature, executed: false, linked: false };
        let group_of = |absent: usize, files: usize| {
            let absent = (0..absent).map(|n| (n, Fact::Absent));
            let files = (100..100 + files).map(|n| (n, content.clone()));
            let observations: Vec<_> = absent
                .chain(files)
                .map(|(n, fact)| Observation { path: Spelled(format!("d/{n}").into_bytes()), fact }.into())
                .collect();
            let mut all = groups(&observations);
            assert_eq!(all.len(), 1);
            all.remove(0)
        };
        assert!(!group_of(OPENED_NAMES_MIN - 1, 0).opened);
        assert!(group_of(OPENED_NAMES_MIN, 0).opened);
        assert!(!group_of(OPENED_NAMES_MIN, KEPT_NAMES_MIN - 1).kept);
        assert!(group_of(OPENED_NAMES_MIN, KEPT_NAMES_MIN).kept);
    }
}
