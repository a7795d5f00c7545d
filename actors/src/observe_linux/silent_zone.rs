//! Time zones for which the C library reads no file. Whoever then asks for the time of day leaves no trace, so that only
//! the texts tell whether it was asked for.
//!
//! `TZ=:` is one for the GNU library (`tzset` takes it for UTC at once); musl takes every zone that is spelled out
//! (`TZ=UTC0`, `TZ=`) as it stands, and a static program may have either library in it.

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;

use zccache_proto::ByteStrings;

use super::time_words;
use crate::invocation::Invocation;
use crate::observation::{Seen, Sighting, Spelled};
use crate::observe_declared::source_scan;
use crate::program_file::{Format, format_of};

/// What the loader of musl's programs is called.
const MUSL: &[u8] = b"ld-musl-";

/// The loader's own list of libraries, which every program reads and which is no text.
const LOADER_CACHE: &[u8] = b"/etc/ld.so.cache";

/// Whether these programs may have told the time without reading a zone's file first.
pub fn time_may_be_told(
    invocation: &Invocation,
    programs: &[Spelled],
    sightings: &[Sighting],
    cwd: BorrowedFd<'_>,
) -> bool {
    let Some(zone) = invocation.env.value_of(b"TZ") else { return false };
    let is_silent = zone == b":" || programs.iter().any(|program| spells_zones_out(program, cwd));
    is_silent && texts_may_tell(&invocation.argv, sightings, cwd)
}

/// Whether the library of this program may read no file for a zone that is spelled out.
fn spells_zones_out(program: &Spelled, cwd: BorrowedFd<'_>) -> bool {
    match format_of(cwd, &program.0) {
        Format::Elf(None) => true,
        Format::Elf(Some(loader)) => {
            loader.rsplit(|&b| b == b'/').next().is_some_and(|name| name.starts_with(MUSL))
        }
        Format::Script(_) | Format::Unknown => false,
    }
}

/// Whether the arguments and the texts that were read, together, can make a name that tells the time.
fn texts_may_tell(arguments: &ByteStrings, sightings: &[Sighting], cwd: BorrowedFd<'_>) -> bool {
    let of_argument = |argument: &[u8]| source_scan::pieces(&[b"#define ", argument].concat());
    let of_file = |path: &Spelled| source_scan::pieces(&time_words::read(cwd, &path.0)?);
    let is_text =
        |s: &&Sighting| matches!(s.seen, Seen::Read { executed: false, .. }) && s.path.0 != LOADER_CACHE;
    let read = sightings.iter().filter(is_text);
    let pieces: Option<Vec<BTreeSet<_>>> =
        arguments.iter().skip(1).map(of_argument).chain(read.map(|s| of_file(&s.path))).collect();
    // What cannot be read, or is ambiguous, may hold anything.
    pieces.is_none_or(|pieces| source_scan::asks_time(&pieces.into_iter().flatten().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::Signature;
    use crate::test_support::invocation;
    use std::os::fd::AsFd;

    #[test]
    fn only_where_no_file_tells_of_it_do_the_texts() {
        let temp = tempfile::tempdir().unwrap();
        let directory = std::fs::File::open(temp.path()).unwrap();
        let told = |text: &str, zone: Option<&str>, program: &str, words: &[&str]| {
            let path = temp.path().join("a.c");
            std::fs::write(&path, text).unwrap();
            let signature = Signature::of(&path).unwrap();
            let seen = Seen::Read { signature, executed: false, linked: false };
            let sightings = [Sighting { path: Spelled(b"a.c".to_vec()), seen }];
            let mut request = invocation(words);
            request.env = zone.map(|zone| format!("TZ={zone}")).iter().collect();
            let programs = [Spelled(program.as_bytes().to_vec())];
            time_may_be_told(&request, &programs, &sightings, directory.as_fd())
        };
        let (glibcs, line) = ("/bin/sh", &["gcc", "-c", "a.c"][..]);
        assert!(told("char *t = __TIME__;", Some(":"), glibcs, line));
        assert!(told("PASTE(__TI, ME__)\n#define PASTE(a, b) a ## b", Some(":"), glibcs, line));
        assert!(told("", Some(":"), glibcs, &["gcc", "-DX=__DATE__"]));
        assert!(told("/\r/", Some(":"), glibcs, line), "it is ambiguous");
        assert!(!told("int x = __LINE__;", Some(":"), glibcs, line));
        assert!(!told("char *t = __TIME__;", Some("UTC0"), glibcs, line), "a file is looked for");
        assert!(!told("char *t = __TIME__;", None, glibcs, line));
    }
}
