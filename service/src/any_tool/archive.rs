//! Archives: whether what `ar` and `ranlib` write holds the times, owners and modes of files.
//!
//! With the modifier `D` it does not. Without, it hangs on how the tool was built, which its help tells; that text is
//! found in the program itself.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{PoisonError, RwLock};
use zccache_actors::sys::OsStrExt;

use zccache_actors::invocation::Invocation;
use zccache_actors::signature::Signature;

use crate::c_family::language::base_name;
use crate::c_family::names::stem_of;
use crate::c_family::response_files;
use crate::planner::Resolved;

/// What the help of an `ar`, a `ranlib` or a `strip` says that is deterministic unless told otherwise.
const DETERMINISTIC_HELP: &[&[u8]] = &[
    b"use zero for timestamps and uids/gids (default)",
    b"Use zero for symbol map timestamp (default)",
    b"Produce deterministic output when stripping archives (default)",
];

/// The most bytes of a program that are looked through: an `ar` with all of LLVM in it has some ten million.
const PROGRAM_BYTES_MAX: u64 = 256 << 20;

/// How many programs are remembered: a machine has one or two for each target.
const PROGRAMS_MAX: usize = 64;

/// Whether the result of this command is told by its files' contents: no metadata of members are written or compared.
pub fn is_repeatable(invocation: &Invocation, called: &[u8], real: &Resolved) -> bool {
    let is_ranlib = stem_of(called).ends_with(b"ranlib");
    let Ok(expanded) = response_files::expand(invocation.argv.iter().skip(1), invocation.cwd_path()) else {
        return false;
    };
    let arguments: Vec<&[u8]> = expanded.arguments.iter().map(Vec::as_slice).collect();
    let modifiers = if is_ranlib { ranlib_options(&arguments) } else { ar_modifiers(&arguments) };
    // Update by time; dates kept when extracting; metadata written or shown; a script on standard input.
    let tells_metadata = if is_ranlib { &b"Ut"[..] } else { b"UuoOvM" };
    let is_plain = !modifiers.iter().any(|m| tells_metadata.contains(m));
    is_plain
        && (modifiers.contains(&b'D')
            || stem_of(called).starts_with(b"llvm-")
            || is_deterministic(invocation, real))
}

/// The letters of `ar`'s operation: the first word that is no long option, with or without a dash, and all further
/// words of letters with one.
fn ar_modifiers(arguments: &[&[u8]]) -> Vec<u8> {
    let is_long = |word: &[u8]| word.starts_with(b"--");
    let is_option = |(i, word): &(usize, &&[u8])| !is_long(word) && (*i == 0 || word.starts_with(b"-"));
    let words = arguments.iter().filter(|word| !is_long(word)).enumerate();
    words.filter(is_option).flat_map(|(_, word)| word.to_vec()).collect()
}

fn ranlib_options(arguments: &[&[u8]]) -> Vec<u8> {
    let short = arguments.iter().filter(|word| word.starts_with(b"-") && !word.starts_with(b"--"));
    short.flat_map(|word| word.to_vec()).collect()
}

/// Whether every program that may come to write the archive is deterministic by itself. gcc's wrappers look for theirs
/// beside themselves and on `PATH`.
fn is_deterministic(invocation: &Invocation, real: &Resolved) -> bool {
    let real = Path::new(OsStr::from_bytes(&real.path));
    let stem = stem_of(real.file_name().map(OsStr::as_bytes).unwrap_or_default());
    let Some(wrapped) = stem.strip_prefix(b"gcc-") else { return says_so(real) };
    let path = invocation.env.value_of(b"PATH").unwrap_or_default();
    let on_path = path.split(|&b| b == b':').map(|directory| Path::new(OsStr::from_bytes(directory)));
    let mut found = real
        .parent()
        .into_iter()
        .chain(on_path)
        .map(|directory| directory.join(OsStr::from_bytes(wrapped)))
        .filter(|program| program.is_file())
        .peekable();
    found.peek().is_some() && found.all(|program| says_so(&program))
}

/// Whether this program, which copies archives with what it edits, gives their members no times.
pub fn copies_without_times(real: &Resolved) -> bool {
    stem_of(base_name(&real.path)).starts_with(b"llvm-") || says_so(Path::new(OsStr::from_bytes(&real.path)))
}

fn says_so(program: &Path) -> bool {
    static SAID: RwLock<Vec<Said>> = RwLock::new(Vec::new());
    let Ok(signature) = Signature::of(program) else { return false };
    let said = SAID.read().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, says)) = said.iter().find(|(known, _)| *known == signature) {
        return *says;
    }
    drop(said);
    let says = signature.size <= PROGRAM_BYTES_MAX
        && std::fs::read(program).is_ok_and(|text| {
            DETERMINISTIC_HELP.iter().any(|help| text.windows(help.len()).any(|w| w == *help))
        });
    remember(&mut SAID.write().unwrap_or_else(PoisonError::into_inner), (signature, says));
    says
}

/// A program, and whether its help says so.
type Said = (Signature, bool);

fn remember(said: &mut Vec<Said>, one: Said) {
    if said.len() >= PROGRAMS_MAX {
        said.clear();
    }
    said.push(one);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modifiers_are_found_where_ar_finds_them() {
        for (line, expect) in [
            ("rcs lib.a U.o", "rcs"),
            ("-rcsD lib.a a.o", "-rcsD"),
            ("--plugin=x rc lib.a u.o", "rc"),
            ("r -u lib.a a.o", "r-u"),
        ] {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            assert_eq!(String::from_utf8(ar_modifiers(&words)).unwrap(), expect, "{line}");
        }
    }

    #[test]
    fn a_program_longer_than_is_looked_through_says_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("ar");
        std::fs::write(&path, DETERMINISTIC_HELP[0]).unwrap();
        assert!(says_so(&path));
        for (bytes, says) in [(PROGRAM_BYTES_MAX, true), (PROGRAM_BYTES_MAX + 1, false)] {
            std::fs::File::options().write(true).open(&path).unwrap().set_len(bytes).unwrap();
            assert_eq!(says_so(&path), says, "{bytes}");
        }
    }

    #[test]
    fn so_many_programs_are_remembered_and_then_none() {
        let signature = Signature::of(Path::new("/")).unwrap();
        let mut said = Vec::new();
        (0..PROGRAMS_MAX).for_each(|_| remember(&mut said, (signature, true)));
        assert_eq!(said.len(), PROGRAMS_MAX);
        remember(&mut said, (signature, true));
        assert_eq!(said.len(), 1);
    }
}
