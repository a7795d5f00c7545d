//! The links that gcc may have resolved on its way to a header without any sign but a `readlink`.
//!
//! In a directory of system headers, a header's path is resolved first, and where the result is shorter it takes
//! the path's place: `inc/long_name.h -> ../s/r.h` is opened as `s/r.h` alone. So the names that the texts of the
//! run include are looked for in all directories that can have been searched, and what is a link there, or
//! behind one, is taken for used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::include_names::{IncludeNames, mark_of};
use super::links::{Links, Stone};
use super::memory::{Listed, Memory};
use super::resolve::{Place, parent};
use crate::observation::{Seen, Sighting};
use crate::signature::{FileKind, Signature};

/// The header that gcc includes unasked.
const PREDEFINED: &[u8] = b"stdc-predef.h";

/// Options whose value, joined, is a header.
const FORCING: &[&[u8]] =
    &[b"-include", b"-imacros", b"--include=", b"--imacros=", b"--include", b"--imacros"];

/// Up to so many names are looked at one by one, rather than listing a directory that is being written to.
const LOOKED_AT_NAMES_MAX: usize = 16;

/// Names to be looked for, by their directory part (empty, or with its slash).
type Names<'a> = BTreeMap<&'a [u8], BTreeSet<&'a [u8]>>;

/// Why not all names can be told: the text that may include what it does not name, or the directory that could
/// not be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unclear(pub Vec<u8>);

/// Walks, in `links`, every way that a header named in the texts that were read may have been found by.
///
/// # Errors
/// If not all ways can be told.
pub fn walk_all<'a>(
    sightings: &[Sighting],
    argv: impl Iterator<Item = &'a [u8]>,
    place: &Place,
    memory: &Memory,
    links: &mut Links,
    found: &mut impl FnMut(Stone),
) -> Result<(), Unclear> {
    let words: Vec<_> = argv.collect();
    let texts: Vec<_> = sightings
        .iter()
        .filter_map(as_text)
        .map(|(path, signature)| (path, memory.include_names(place, path, signature)))
        .collect();
    let mut everywhere = Names::new();
    let mut nearby: BTreeMap<&[u8], Names> = BTreeMap::new();
    let mut searched = BTreeSet::new();
    add(&mut everywhere, PREDEFINED);
    for word in words.iter().flat_map(|argument| argument.split(|&b| b == b',')) {
        add(&mut everywhere, word);
        for option in FORCING {
            word.strip_prefix(*option).into_iter().for_each(|name| add(&mut everywhere, name));
        }
    }
    for (path, names) in &texts {
        if names.unclear || names.computed.iter().any(|name| may_be_defined(name, &words, &texts)) {
            return Err(Unclear(path.to_vec()));
        }
        names.quoted.iter().chain(&names.angled).for_each(|name| add(&mut everywhere, name));
        let near = nearby.entry(parent(path).unwrap_or_default()).or_default();
        names.quoted.iter().filter(|name| !name.starts_with(b"/")).for_each(|name| add(near, name));
    }
    for sighting in sightings {
        // Each directory that is searched is asked about first.
        if matches!(sighting.seen, Seen::Kind { follow: true, kind: FileKind::Directory }) {
            searched.insert(&sighting.path.0);
        }
    }
    let mut ways = Ways { place, memory, links, listed: FxHashMap::default(), found };
    // The same from wherever they are named.
    let (absolute, everywhere) = everywhere.into_iter().partition(|(part, _)| part.starts_with(b"/"));
    ways.walk(b"", &absolute)?;
    searched.into_iter().try_for_each(|directory| ways.walk(directory, &everywhere))?;
    nearby.iter().try_for_each(|(directory, names)| ways.walk(directory, names))
}

fn is_link(place: &Place, path: &[u8]) -> bool {
    place.signature(path, false).is_ok_and(|signature| signature.kind() == FileKind::Symlink)
}

/// Whether any text or the command line may define the macro `name`; a precompiled header may define any.
fn may_be_defined(name: &[u8], words: &[&[u8]], texts: &[(&[u8], Arc<IncludeNames>)]) -> bool {
    let mark = mark_of(name);
    words.iter().any(|word| word.windows(name.len()).any(|w| w == name))
        || texts.iter().any(|(path, names)| {
            path.ends_with(b".gch")
                || path.windows(5).any(|w| w == b".gch/")
                || names.defined.binary_search(&mark).is_ok()
        })
}

/// The path and signature of what may be a source text.
fn as_text(sighting: &Sighting) -> Option<(&[u8], &Signature)> {
    match &sighting.seen {
        Seen::Read { signature, executed: false, .. } => Some((&sighting.path.0, signature)),
        _ => None,
    }
}

fn add<'a>(names: &mut Names<'a>, name: &'a [u8]) {
    let split = name.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    let (directory, last) = name.split_at(split);
    names.entry(directory).or_default().insert(last);
}

/// The name that is looked up first on a way that begins in a directory; none if it does not lead below that.
fn first_name(way: &[u8]) -> Option<&[u8]> {
    let first = way.split(|&b| b == b'/').next().unwrap_or_default();
    (!matches!(first, b"" | b"." | b"..")).then_some(first)
}

struct Ways<'a, F> {
    place: &'a Place,
    memory: &'a Memory,
    links: &'a mut Links,
    /// The directories that were come to.
    listed: FxHashMap<Vec<u8>, Listed>,
    found: &'a mut F,
}

impl<F: FnMut(Stone)> Ways<'_, F> {
    fn onward_from(&mut self, path: &[u8], few: bool) -> Result<Listed, Unclear> {
        match self.listed.get(path) {
            Some(Listed::NotWorthwhile) if !few => {}
            Some(listed) => return Ok(listed.clone()),
            None => {}
        }
        let listed = self.memory.onward_from(self.place, path, few).ok_or_else(|| Unclear(path.to_vec()))?;
        self.listed.insert(path.to_vec(), listed.clone());
        Ok(listed)
    }

    /// Walks to all `names` in `directory` (empty for the working directory).
    fn walk(&mut self, directory: &[u8], names: &Names) -> Result<(), Unclear> {
        let start = self.links.walk(self.place, directory, self.found);
        if !start.is_directory {
            return Ok(());
        }
        // Most directories that are searched have nothing of a header's directory part: that is known without looking.
        let begin_here = names.keys().filter(|part| first_name(part).is_some()).count();
        let onward = match begin_here {
            0 => None,
            count => self.onward_from(&start.path, count <= LOOKED_AT_NAMES_MAX).ok(),
        };
        for (part, lasts) in names {
            if let (Some(Listed::All(onward)), Some(first)) = (&onward, first_name(part))
                && !onward.links.contains(first)
                && !onward.directories.contains(first)
            {
                continue;
            }
            let way = if directory.is_empty() { part.to_vec() } else { [directory, part].join(&b'/') };
            let end = self.links.walk(self.place, &way, self.found);
            if !end.is_directory {
                continue;
            }
            let slash: &[u8] = if matches!(end.path.last(), None | Some(b'/')) { b"" } else { b"/" };
            let below = |last: &[u8]| [&end.path[..], slash, last].concat();
            let listed = self.onward_from(&end.path, lasts.len() <= LOOKED_AT_NAMES_MAX)?;
            let is_link = |last: &[u8]| match &listed {
                Listed::All(onward) => !onward.links.is_empty() && onward.links.contains(last),
                Listed::NotWorthwhile => is_link(self.place, &below(last)),
            };
            for last in lasts.iter().filter(|last| is_link(last)) {
                self.links.walk(self.place, &below(last), self.found);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_names_are_looked_at_one_by_one_and_more_by_listing_their_directory() {
        // Made just now, so that listing it would not be remembered.
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("real.h"), "").unwrap();
        std::os::unix::fs::symlink("real.h", temp.path().join("0.h")).unwrap();
        let place = Place::new(temp.path().as_os_str().as_encoded_bytes()).unwrap();
        for (count, is_listed) in [(LOOKED_AT_NAMES_MAX, false), (LOOKED_AT_NAMES_MAX + 1, true)] {
            let headers: Vec<_> = (0..count).map(|number| format!("{number}.h")).collect();
            let mut names = Names::new();
            headers.iter().for_each(|name| add(&mut names, name.as_bytes()));
            let (memory, mut links, mut stones) = (Memory::default(), Links::default(), Vec::new());
            let found = &mut |stone: Stone| stones.push(stone.path);
            let mut ways = Ways {
                place: &place,
                memory: &memory,
                links: &mut links,
                listed: FxHashMap::default(),
                found,
            };
            ways.walk(b"", &names).unwrap();
            assert_eq!(ways.listed.len(), 1);
            assert_eq!(ways.listed.values().all(|l| matches!(l, Listed::All(_))), is_listed, "{count}");
            assert!(stones.contains(&b"0.h".to_vec()), "the link is found either way");
        }
    }

    #[test]
    fn names_below_directories_and_links_are_walked_to() {
        use std::os::unix::fs::symlink;
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("real")).unwrap();
        symlink("a.h", temp.path().join("real/b.h")).unwrap();
        symlink("real", temp.path().join("other")).unwrap();
        std::fs::write(temp.path().join("file"), "").unwrap();
        let place = Place::new(temp.path().as_os_str().as_encoded_bytes()).unwrap();
        for name in ["real/b.h", "./real/b.h", "other/b.h", "../other/b.h", "none/b.h", "file/b.h"] {
            let below = temp.path().join("real").to_str().unwrap().to_owned();
            let mut names = Names::new();
            add(&mut names, name.as_bytes());
            // More names than are looked at one by one, so that the directory is listed.
            let others: Vec<_> = (0..LOOKED_AT_NAMES_MAX).map(|number| format!("none{number}/x.h")).collect();
            others.iter().for_each(|other| add(&mut names, other.as_bytes()));
            let (memory, mut links, mut stones) = (Memory::default(), Links::default(), Vec::new());
            let found = &mut |stone: Stone| stones.push(stone.path);
            let listed = FxHashMap::default();
            let mut ways = Ways { place: &place, memory: &memory, links: &mut links, listed, found };
            let directory = if name.starts_with("..") { below.as_bytes() } else { b"" };
            ways.walk(directory, &names).unwrap();
            let is_seen = |end: &str| stones.iter().any(|path| path.ends_with(end.as_bytes()));
            assert_eq!(is_seen("real/b.h"), !name.starts_with(['n', 'f']), "{name}: {stones:?}");
            assert_eq!(is_seen("other"), name.contains("other"), "{name}: {stones:?}");
        }
    }
}
