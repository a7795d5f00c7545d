//! Procedural macros: code of the user's that runs within the compiler. What it opens is observed; which variables it
//! reads and whether it asks for the time is not, so every variable counts where one took part, and a result is not
//! stored where one can ask for the time.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{LazyLock, Mutex, PoisonError};
use zccache_actors::sys::OsStrExt;

use memchr::memmem;
use object::{Object, ObjectSymbol};
use zccache_actors::observation::{Seen, Sighting};
use zccache_actors::signature::Signature;

use crate::c_family::language::base_name;

/// Functions of the C library that tell the time of day.
const CLOCKS: [&[u8]; 6] =
    [b"clock_gettime", b"ftime", b"gettimeofday", b"time", b"timespec_get", b"ntp_gettime"];

/// The standard library's, within its symbols' names under either way of mangling (where it is a library of its own).
const STD_CLOCK: &[u8] = b"10SystemTime3now";

/// Which libraries can ask for the time.
type Known = HashMap<Signature, bool>;

/// Libraries remembered at most. A project has some dozens.
const REMEMBERED_MAX: usize = 10_000;

/// Directories of the system's own libraries, which the compiler and the linker load.
const SYSTEM: [&[u8]; 3] = [b"/lib/", b"/lib64/", b"/usr/"];

/// The libraries among what was read that may have run as part of the compiler: all that are neither the system's nor
/// the toolchain's.
pub fn loaded<'a>(
    sightings: &'a [Sighting],
    programs: impl Iterator<Item = &'a [u8]>,
    cwd: &Path,
) -> Vec<(&'a [u8], Signature)> {
    let toolchains: Vec<Vec<u8>> = programs.flat_map(toolchains).collect();
    let is_below = |path: &[u8]| {
        SYSTEM.iter().any(|system| path.starts_with(system))
            || toolchains
                .iter()
                .any(|t| path.strip_prefix(&t[..]).is_some_and(|rest| rest.starts_with(b"/lib/")))
    };
    let is_known = |path: &[u8]| {
        is_below(&plain(path))
            || own_name(&cwd.join(OsStr::from_bytes(path))).is_some_and(|path| is_below(&path))
    };
    let library = |sighting: &'a Sighting| match sighting.seen {
        Seen::Read { signature, .. } if is_library(&sighting.path.0) => {
            Some((&sighting.path.0[..], signature))
        }
        _ => None,
    };
    sightings.iter().filter_map(library).filter(|(path, _)| !is_known(path)).collect()
}

/// The directory in which the toolchain of this program is: the one with `bin/rustc`; by the name by which the program was
/// started, and by its own. rustup makes toolchains that are links, and the loader finds libraries by either name.
fn toolchains(program: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let own = own_name(Path::new(OsStr::from_bytes(program)));
    let names = [Some(program.to_vec()), own].into_iter().flatten();
    names.filter_map(|program| Some(toolchain(&program)?.to_vec()))
}

/// The name of a file without links.
fn own_name(path: &Path) -> Option<Vec<u8>> {
    Some(std::fs::canonicalize(path).ok()?.as_os_str().as_bytes().to_vec())
}

fn toolchain(program: &[u8]) -> Option<&[u8]> {
    super::names::driver_named(base_name(program))?;
    program[..program.len() - base_name(program).len()].strip_suffix(b"/bin/")
}

/// An absolute path without detours: the loader looks for a program's libraries in `bin/../lib`.
fn plain(path: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&b| b == b'/') {
        match part {
            b".." => drop(parts.pop()),
            b"" | b"." if !parts.is_empty() => {}
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

fn is_library(path: &[u8]) -> bool {
    let name = base_name(path);
    // `libx.so.1`, not `ld.so.cache`.
    let is_version = |at: usize| name.get(at + 4).is_some_and(u8::is_ascii_digit);
    let is_versioned = || memmem::find(name, b".so.").is_some_and(is_version);
    [&b".so"[..], b".dylib", b".dll"].iter().any(|suffix| name.ends_with(suffix)) || is_versioned()
}

/// Whether the library at `path` can ask for the time, or cannot be looked into.
pub fn tells_time(path: &[u8], cwd: &Path, signature: Signature) -> bool {
    static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(&tells) = known().get(&signature) {
        return tells;
    }
    let Ok(bytes) = std::fs::read(cwd.join(OsStr::from_bytes(path))) else { return true };
    let tells = imports_clock(&bytes);
    remember(&mut known(), signature, tells);
    tells
}

fn remember(known: &mut Known, signature: Signature, tells: bool) {
    if known.len() >= REMEMBERED_MAX {
        known.clear();
    }
    known.insert(signature, tells);
}

/// Whether a library imports what tells the time. A text is none (linkers take scripts for libraries).
fn imports_clock(library: &[u8]) -> bool {
    if !library.starts_with(&object::elf::ELFMAG) {
        return false;
    }
    let Ok(library) = object::File::parse(library) else { return true };
    let is_clock = |name: &[u8]| CLOCKS.contains(&name) || memmem::find(name, STD_CLOCK).is_some();
    library.dynamic_symbols().any(|symbol| symbol.is_undefined() && symbol.name_bytes().is_ok_and(is_clock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zccache_actors::observation::Spelled;

    #[test]
    fn the_systems_and_the_toolchains_libraries_are_not_the_users() {
        let signature = Signature { dev: 1, ino: 1, size: 1, mtime_ns: 1, ctime_ns: 1, mode: 0o100_644 };
        let read = |path: &&str| Sighting {
            path: Spelled(path.as_bytes().to_vec()),
            seen: Seen::Read { signature, executed: false, linked: false },
        };
        let sightings = [
            "/etc/ld.so.cache",
            "/lib/libc.so.6",
            "/t/bin/../lib/librustc_driver-1.so",
            "/t/lib/librustc_driver-1.so",
            "/p/libm-1.so",
            "/p/liba.rlib",
            "b.so",
            "/t/x.so.1",
        ];
        let sightings: Vec<_> = sightings.iter().map(read).collect();
        let found = loaded(&sightings, [&b"/t/bin/rustc"[..], b"/usr/bin/cc"].into_iter(), Path::new("/"));
        let paths: Vec<_> = found.iter().map(|(path, _)| *path).collect();
        assert_eq!(paths, [&b"/p/libm-1.so"[..], b"b.so", b"/t/x.so.1"]);
    }

    #[test]
    fn a_toolchain_that_is_a_link_has_its_libraries_where_it_leads() {
        let temp = tempfile::tempdir().unwrap();
        let place = temp.path().canonicalize().unwrap();
        std::fs::create_dir_all(place.join("real/bin")).unwrap();
        std::fs::write(place.join("real/bin/rustc"), "").unwrap();
        std::os::unix::fs::symlink("real", place.join("linked")).unwrap();
        let found: Vec<_> = toolchains(place.join("linked/bin/rustc").as_os_str().as_bytes()).collect();
        let expect = ["linked", "real"].map(|name| place.join(name).into_os_string().as_bytes().to_vec());
        assert_eq!(found, expect);
    }

    #[test]
    fn a_library_that_imports_a_clock_is_found_out() {
        let temp = tempfile::tempdir().unwrap();
        for (name, source, tells) in [
            ("a.so", "extern long time(long *); long f(void) { return time(0); }", true),
            ("b.so", "char *f(void) { return \"clock_gettime\"; }", false),
        ] {
            std::fs::write(temp.path().join("a.c"), source).unwrap();
            let made = std::process::Command::new("cc")
                .current_dir(&temp)
                .args(["-shared", "-fPIC", "-o", name, "a.c"])
                .status();
            assert!(made.unwrap().success());
            let signature = Signature::of(temp.path().join(name)).unwrap();
            assert_eq!(tells_time(name.as_bytes(), temp.path(), signature), tells, "{name}");
            assert_eq!(tells_time(name.as_bytes(), temp.path(), signature), tells, "{name} again");
        }
        assert!(!imports_clock(b"INPUT(libx.a)"));
    }

    #[test]
    fn so_many_libraries_are_remembered_and_then_none() {
        let any = Signature { dev: 1, ino: 1, size: 1, mtime_ns: 1, ctime_ns: 1, mode: 0o100_644 };
        let mut known = Known::new();
        (1..=REMEMBERED_MAX as u64).for_each(|ino| remember(&mut known, Signature { ino, ..any }, false));
        assert_eq!(known.len(), REMEMBERED_MAX);
        remember(&mut known, Signature { ino: u64::MAX, ..any }, true);
        assert_eq!(known.len(), 1);
    }
}
