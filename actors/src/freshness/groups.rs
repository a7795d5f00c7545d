//! A record's observations by directory: the order in which they are looked at.

use std::ffi::{CStr, CString};

use rustc_hash::FxHashMap;

use crate::observation::{Fact, Observation};

/// From this many names on, opening and closing the directory pays.
const OPENED_NAMES_MIN: usize = 4;

/// From this many files on, looking at a directory by its path pays before they are looked at by descriptors (see
/// `kept_files`).
const KEPT_NAMES_MIN: usize = 4;

/// The observations of one directory, as spelled. Looking at names in an open directory costs a third of walking
/// a long path to each; and what is directly below a missing directory is missing.
pub struct Group {
    /// With its last slash; `./` for plain names.
    pub directory: CString,
    /// Whether it was spelled so; plain names were not.
    is_spelled: bool,
    /// Whether the directory is opened for a check where it is not kept open.
    pub opened: bool,
    /// Whether so many of its names mean files themselves, and no links, that they are worth looking for by the
    /// directory's path.
    pub kept: bool,
    /// What is there: the number of the observation, and the name.
    pub present: Vec<(usize, CString)>,
    /// Likewise, where the name itself says all: what it means is a link, or something whose kind matters alone. As long
    /// as the directory has the names it had, and no mount was made or undone, that holds.
    pub named: Vec<(usize, CString)>,
    /// What is not there.
    pub absent: Vec<CString>,
    /// No absent name ends in a slash. One that does may be a link's, and what it leads to is not told by the
    /// directory.
    pub plain: bool,
}

impl Group {
    /// The path of a name in it, as spelled.
    pub fn path(&self, name: &CStr) -> CString {
        let directory: &[u8] = if self.is_spelled { self.directory.to_bytes() } else { b"" };
        CString::new([directory, name.to_bytes()].concat()).unwrap_or_default()
    }

    /// Whether there are names that the directory can stand for.
    pub fn has_names(&self) -> bool {
        !(self.named.is_empty() && self.absent.is_empty())
    }

    /// Whether its path means the same from everywhere.
    pub fn is_absolute(&self) -> bool {
        self.directory.to_bytes().starts_with(b"/")
    }
}

/// Groups observations by their directories as spelled.
pub fn groups(observations: &[Observation]) -> Vec<Group> {
    let mut groups: Vec<(&[u8], Vec<usize>)> = Vec::new();
    let mut index: FxHashMap<&[u8], usize> = FxHashMap::default();
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

fn group(directory: &[u8], numbers: &[usize], observations: &[Observation]) -> Group {
    let opened = numbers.len() >= OPENED_NAMES_MIN;
    let text = |bytes: &[u8]| CString::new(bytes).unwrap_or_default(); // records with a NUL in a path are not sound
    let name = |path: &[u8]| match &path[directory.len()..] {
        b"" => c".".to_owned(),
        name => text(name),
    };
    let is_file = |number: &&usize| observations[**number].is_file_itself();
    let kept = numbers.iter().filter(is_file).count() >= KEPT_NAMES_MIN;
    let mut group = Group {
        directory: text(if directory.is_empty() { b"./" } else { directory }),
        is_spelled: !directory.is_empty(),
        opened,
        kept: opened && kept,
        present: Vec::new(),
        named: Vec::new(),
        absent: Vec::new(),
        plain: true,
    };
    for &number in numbers {
        let Observation { path, fact } = &observations[number];
        // With a slash behind it, a link's name means what it leads to.
        let is_plain = !path.0.ends_with(b"/");
        match fact {
            Fact::Absent => {
                group.plain &= is_plain;
                group.absent.push(name(&path.0));
            }
            Fact::Kind { follow: false, .. } | Fact::Symlink { .. } if is_plain => {
                group.named.push((number, name(&path.0)));
            }
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
                .map(|(n, fact)| Observation { path: Spelled(format!("d/{n}").into_bytes()), fact })
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
