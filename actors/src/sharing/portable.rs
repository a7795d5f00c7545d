//! What an observation becomes for requesters whose base lies elsewhere.
//!
//! A relative path means each requester's own directory as it is. An absolute one is made relative if it leads below
//! the base. Other absolute paths do not hang on where the base is: unless a path climbs out of the base, in which
//! case the tool may have gone on with the absolute path of where that led.

use std::collections::HashMap;

use crate::observation::{Fact, Observation};
use crate::record::NO_FILE;
use crate::signature::FileKind;

/// See [`port`].
#[derive(Debug, PartialEq, Eq)]
pub enum Ported {
    /// It holds for everybody in the same words.
    AsItIs,
    /// With this path, relative to the working directory.
    To(Vec<u8>),
    /// It is true wherever a base is: that what is above it are directories.
    Needless,
}

/// `observation` for those who stand elsewhere, where `within` is the working directory below the base; nothing if
/// it ties the record to this base.
pub fn port(observation: &Observation, base: &[u8], within: &[u8]) -> Option<Ported> {
    let path = &observation.path.0[..];
    if path.first() != Some(&b'/') {
        let depth = parts(within).count();
        return stays_below(depth, path, &observation.fact).then_some(Ported::AsItIs);
    }
    let lies_in =
        |outer: &[u8]| path.strip_prefix(outer).filter(|rest| matches!(rest.first(), None | Some(b'/')));
    if let Some(rest) = lies_in(base) {
        let is_plain = parts(rest).all(|part| part != b"..") && stays_below(0, rest, &observation.fact);
        return is_plain.then(|| Ported::To(relative(rest, within)));
    }
    let is_directory = matches!(observation.fact, Fact::Kind { kind: FileKind::Directory, .. });
    let above = path.strip_suffix(b"/").unwrap_or(path);
    if base.strip_prefix(above).is_some_and(|rest| rest.first() == Some(&b'/')) {
        return is_directory.then_some(Ported::Needless);
    }
    // A detour over the base, or a link into it.
    let touches_base = parts(path).any(|part| part == b"..") && parts(path).next() == parts(base).next();
    let links_into_base = matches!(&observation.fact, Fact::Symlink { target } if target.0.starts_with(base));
    (!touches_base && !links_into_base).then_some(Ported::AsItIs)
}

/// Whether a path that starts `depth` directories below the base never climbs out of it, and, if it is a link, its
/// target does not either.
pub fn stays_below(depth: usize, path: &[u8], fact: &Fact) -> bool {
    let Some(end) = descend(depth, path) else { return false };
    match fact {
        Fact::Symlink { target } if target.0.first() != Some(&b'/') => {
            end > 0 && descend(end - 1, &target.0).is_some()
        }
        _ => true,
    }
}

/// How deep below the base a path ends that starts `depth` below it; nothing if it climbs out on the way.
pub fn descend(depth: usize, path: &[u8]) -> Option<usize> {
    parts(path).try_fold(depth, |depth, part| match part {
        b".." => depth.checked_sub(1),
        _ => Some(depth + 1),
    })
}

/// The path from `within` to `rest`, both below the base.
fn relative(rest: &[u8], within: &[u8]) -> Vec<u8> {
    let common = parts(rest).zip(parts(within)).take_while(|(a, b)| a == b).count();
    let up = parts(within).skip(common).map(|_| &b".."[..]);
    let path = up.chain(parts(rest).skip(common)).collect::<Vec<_>>().join(&b'/');
    if path.is_empty() { b".".to_vec() } else { path }
}

/// The components of a path that lead anywhere.
fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// Identities as `Record::identities` has them, after some observations went.
pub fn renumbered(identities: &[u32]) -> Vec<u32> {
    let mut first = HashMap::new();
    let number = |(i, &old): (usize, &u32)| match old {
        NO_FILE => NO_FILE,
        old => *first.entry(old).or_insert(u32::try_from(i).unwrap_or(NO_FILE)),
    };
    identities.iter().enumerate().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::Spelled;

    fn ported(path: &str, fact: Fact) -> Option<Ported> {
        let observation = Observation { path: Spelled(path.into()), fact };
        port(&observation, b"/home/u/p", b"/build/x")
    }

    #[test]
    fn what_is_below_the_base_becomes_relative_and_what_is_elsewhere_stays() {
        let absent = || Fact::Absent;
        let to = |path: &str| Some(Ported::To(path.into()));
        for (path, expect) in [
            ("a.h", Some(Ported::AsItIs)),
            ("../../inc/a.h", Some(Ported::AsItIs)),
            ("../../../other/a.h", None),
            ("sub/../../../../other/a.h", None),
            ("/usr/include/a.h", Some(Ported::AsItIs)),
            ("/home/u/p/inc/a.h", to("../../inc/a.h")),
            ("/home/u/p/build/x/a.h", to("a.h")),
            ("/home/u/p/build/x", to(".")),
            ("/home/u/p", to("../..")),
            ("/home/u/p/../q", None),
            ("/home/u/pp", Some(Ported::AsItIs)),
            ("/home/u", None),
            ("/home/v/../u/p/a.h", None),
        ] {
            assert_eq!(ported(path, absent()), expect, "{path}");
        }
    }

    #[test]
    fn that_directories_are_above_the_base_goes_without_saying() {
        let directory = || Fact::Kind { follow: false, kind: FileKind::Directory };
        for path in ["/", "/home", "/home/u"] {
            assert_eq!(ported(path, directory()), Some(Ported::Needless), "{path}");
        }
        assert_eq!(ported("/usr", directory()), Some(Ported::AsItIs));
    }

    #[test]
    fn links_must_not_lead_out_of_the_base_and_on() {
        let link = |target: &str| Fact::Symlink { target: Spelled(target.into()) };
        assert_eq!(ported("inc", link("real")), Some(Ported::AsItIs));
        assert_eq!(ported("inc", link("../../src")), Some(Ported::AsItIs));
        assert_eq!(ported("inc", link("../../../q")), None);
        assert_eq!(ported("inc", link("/opt/q")), Some(Ported::AsItIs));
        assert_eq!(ported("/usr/lib/q", link("/home/u/p/q")), None);
    }
}
