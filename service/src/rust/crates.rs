//! Crates that rustc read, and which names in its search directories it goes by.
//!
//! rustc lists every `-L` directory whole, and picks candidates by name: `lib`, the crate's name, for a crate that
//! another one depends on also its extra file name, then anything, then one of a few suffixes
//! (`rustc_metadata::locator`). In `-L dependency=` directories, Cargo's, it looks for such dependencies of
//! dependencies alone. A build puts new crates there all the time, so what counts of such a listing is which names
//! begin as those of the crates that were read.
//!
//! A candidate that is there as `.rmeta` is not looked for as `.rlib` by a compile that links nothing; that one may
//! appear at any time (Cargo starts dependents before it is there), and does not count.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use zccache_actors::name_filter::{ByteName, NameFilter};
use zccache_actors::observation::{Seen, Sighting};
use zccache_actors::observer::{Listing, Observed};
use zccache_actors::signature::FileKind;

use super::command_line::{CommandLine, SearchDir};
use crate::c_family::language::base_name;

/// The ends of names that a crate or a native library may have, on any target; sorted.
const SUFFIXES: [&str; 9] = [".a", ".dll", ".dylib", ".lib", ".rlib", ".rmeta", ".rs", ".so", ".wasm"];

/// Codes of errors that have to do with crates that were not found or not taken (E0455 to E0469, E0514 and others):
/// then any name may have mattered.
const CRATE_ERRORS: [&[u8]; 6] = [b"E045", b"E046", b"E0514", b"E0519", b"E0523", b"E0786"];

/// Replaces what a run saw of its search directories by what it went by.
pub fn narrow_listings(line: &CommandLine, observed: &mut Observed, stderr: &[u8]) {
    let is_clear = observed.exit.success() || !tells_of_crates(stderr);
    if !is_clear || line.tells_candidates {
        return;
    }
    let read: HashSet<Vec<u8>> =
        observed.sightings.iter().filter_map(path_read).map(<[u8]>::to_vec).collect();
    let prefixes = prefixes(read.iter().map(Vec::as_slice).filter(|path| is_crate(line, observed, path)));
    let ignored = unneeded_libraries(&read);
    let is_unneeded = |s: &Sighting| {
        matches!(s.seen, Seen::Kind { follow: false, kind: FileKind::File })
            && is_ignored(&s.path.0, &ignored)
    };
    observed.sightings.retain(|sighting| !is_unneeded(sighting));
    for sighting in &mut observed.sightings {
        if let Seen::Listed { .. } = sighting.seen
            && let Some(dir) = line.search_dirs.iter().rfind(|dir| is_same(&dir.path, &sighting.path.0))
            && let Some(listing) = observed.listings.iter().find(|listing| listing.path == sighting.path)
            && let Some(filter) = filter(line, dir, &prefixes, &ignored)
        {
            sighting.seen = seen(filter, listing);
        }
    }
}

fn seen(filter: NameFilter, listing: &Listing) -> Seen {
    let digest = filter.digest(&listing.names);
    Seen::Names { filter, digest }
}

/// Which names in a search directory count; `None` if all do.
fn filter(
    line: &CommandLine,
    dir: &SearchDir,
    prefixes: &BTreeSet<Vec<u8>>,
    ignored: &BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
) -> Option<NameFilter> {
    // The same directory may be given for several kinds of crates.
    let mut kinds = line.search_dirs.iter().filter(|other| is_same(&other.path, &dir.path));
    let names = |set: &BTreeSet<Vec<u8>>| set.iter().map(|name| ByteName::from(name.as_slice())).collect();
    let mut filter = NameFilter { suffixes: SUFFIXES.map(ByteName::from).to_vec(), ..NameFilter::default() };
    if kinds.clone().any(is_native) {
        return None;
    }
    if kinds.all(|other| other.kind == b"dependency") {
        filter.prefixes = names(prefixes);
        filter.ignored = ignored.get(trimmed(&dir.path)).map(names).unwrap_or_default();
    } else {
        // Here crates are looked for by their names alone, which their files' names need not tell.
        filter.prefixes = vec![ByteName::new()];
    }
    Some(filter)
}

/// What the names of candidates begin with: the stems of the crates that were read, with and without `lib`.
fn prefixes<'a>(crates: impl Iterator<Item = &'a [u8]>) -> BTreeSet<Vec<u8>> {
    let stems = crates.filter_map(|path| stem(base_name(path)));
    stems.flat_map(|stem| [Some(stem), stem.strip_prefix(b"lib")]).flatten().map(<[u8]>::to_vec).collect()
}

/// Whether a file that was read may be a crate: it is named as one, or is in a directory that was searched for crates.
/// (The linker reads libraries of all kinds elsewhere.)
fn is_crate(line: &CommandLine, observed: &Observed, path: &[u8]) -> bool {
    let directory = &path[..path.len() - base_name(path).len()];
    let is_native = |dir: &SearchDir| is_same(&dir.path, directory) && is_native(dir);
    let is_listed = |listing: &Listing| is_same(&listing.path.0, directory);
    line.extern_paths.iter().any(|named| named == path)
        || (observed.listings.iter().any(is_listed) && !line.search_dirs.iter().any(is_native))
}

fn is_native(dir: &SearchDir) -> bool {
    matches!(dir.kind.as_slice(), b"native" | b"framework")
}

/// The part of a crate file's name before its suffix.
fn stem(name: &[u8]) -> Option<&[u8]> {
    SUFFIXES.iter().filter(|suffix| **suffix != ".rs").find_map(|suffix| name.strip_suffix(suffix.as_bytes()))
}

/// By directory, the names of libraries that were not read since their metadata was there on its own.
fn unneeded_libraries(read: &HashSet<Vec<u8>>) -> BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>> {
    let mut unneeded: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for path in read {
        let Some(stem) = path.strip_suffix(b".rmeta") else { continue };
        let library = [stem, b".rlib"].concat();
        if !read.contains(&library) {
            let name = base_name(&library);
            let directory = trimmed(&library[..library.len() - name.len()]).to_vec();
            unneeded.entry(directory).or_default().insert(name.to_vec());
        }
    }
    unneeded
}

fn is_ignored(path: &[u8], ignored: &BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>) -> bool {
    let name = base_name(path);
    let directory = trimmed(&path[..path.len() - name.len()]);
    ignored.get(directory).is_some_and(|names| names.contains(name))
}

fn path_read(sighting: &Sighting) -> Option<&[u8]> {
    matches!(sighting.seen, Seen::Read { .. }).then_some(&sighting.path.0[..])
}

fn is_same(a: &[u8], b: &[u8]) -> bool {
    trimmed(a) == trimmed(b)
}

fn trimmed(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&b| b != b'/').map_or(0, |last| last + 1);
    &path[..end]
}

fn tells_of_crates(stderr: &[u8]) -> bool {
    CRATE_ERRORS.iter().any(|code| memchr::memmem::find(stderr, code).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zccache_actors::observation::Spelled;
    use zccache_actors::signature::Signature;
    use zccache_proto::message::Exit;

    fn read(path: &str) -> Sighting {
        let signature = Signature { dev: 1, ino: 1, size: 1, mtime_ns: 1, ctime_ns: 1, mode: 0o100_644 };
        Sighting {
            path: Spelled(path.into()),
            seen: Seen::Read { signature, executed: false, linked: false },
        }
    }

    fn observed(exit: i32, names: &[&str]) -> Observed {
        let Seen::Read { signature, .. } = read("").seen else { unreachable!() };
        let deps = || Spelled(b"/t/deps".to_vec());
        Observed {
            exit: Exit::Code(exit),
            sightings: vec![
                read("/t/deps/liba-1.rmeta"),
                read("/t/deps/libb-2.rlib"),
                Sighting {
                    path: Spelled(b"/t/deps/liba-1.rlib".to_vec()),
                    seen: Seen::Kind { follow: false, kind: FileKind::File },
                },
                Sighting { path: deps(), seen: Seen::Listed { signature } },
            ],
            effects: vec![],
            reread: vec![],
            listings: vec![Listing {
                path: deps(),
                names: names.iter().map(|n| n.as_bytes().to_vec()).collect(),
            }],
            programs: vec![],
            asked_time: false,
            unstorable: None,
        }
    }

    fn line(kind: &str) -> CommandLine {
        let dir = SearchDir { kind: kind.into(), path: b"/t/deps/".to_vec() };
        CommandLine { search_dirs: vec![dir], ..CommandLine::default() }
    }

    fn narrowed(kind: &str, exit: i32, stderr: &str, names: &[&str]) -> Seen {
        let mut observed = observed(exit, names);
        narrow_listings(&line(kind), &mut observed, stderr.as_bytes());
        observed.sightings.pop().unwrap().seen
    }

    #[test]
    fn of_dependencies_only_candidates_for_what_was_read_count() {
        let plain = narrowed("dependency", 0, "", &["liba-1.rmeta", "libb-2.rlib"]);
        for (names, same) in [
            (&["liba-1.rmeta", "liba-1.rlib", "libb-2.rlib", "libother-3.rlib", "b-2.d"][..], true),
            (&["liba-1.rmeta", "libb-2.rlib", "libb-2.rmeta"], false),
            (&["liba-1.rmeta", "libb-2.rlib", "libb-2x.so"], false),
        ] {
            assert_eq!(narrowed("dependency", 0, "", names) == plain, same, "{names:?}");
        }
        let mut run = observed(0, &[]);
        narrow_listings(&line("dependency"), &mut run, b"");
        assert_eq!(run.sightings.len(), 3, "that there is a library as well does not count");
    }

    #[test]
    fn elsewhere_and_after_a_failed_search_more_counts() {
        let any = narrowed("", 0, "", &["liba-1.rmeta"]);
        assert_ne!(any, narrowed("", 0, "", &["liba-1.rmeta", "libother.rlib"]));
        assert_eq!(any, narrowed("", 0, "", &["liba-1.rmeta", "a.o"]));
        assert!(matches!(narrowed("native", 0, "", &[]), Seen::Listed { .. }));
        assert!(matches!(narrowed("dependency", 1, "error[E0463]", &[]), Seen::Listed { .. }));
        assert!(matches!(narrowed("dependency", 1, "error[E0308]", &[]), Seen::Names { .. }));
    }
}
