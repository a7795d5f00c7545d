//! What the observer remembers from run to run: nothing that a run's result hangs on, only what spares work
//! (each entry is good for as long as a signature stands), and which tools need the full filter.

use std::hash::Hash;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::{FxHashMap, FxHashSet};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::include_names::IncludeNames;
use super::resolve::Place;
use crate::program_file::{Format, format_of, needed_libraries};
use crate::signature::{FileKind, Signature, coarse_now_ns};

/// The most texts whose names are kept; some hundred bytes each.
const TEXTS_MAX: usize = 50_000;

/// The most directories whose links are kept.
const DIRECTORIES_MAX: usize = 10_000;

/// The most tools that are remembered to need the full filter.
const DISTRUSTED_MAX: usize = 10_000;

/// The most programs whose kind is kept.
const PROGRAMS_MAX: usize = 10_000;

/// The largest text that is read for names, in bytes: beyond, its names count as unclear.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// A directory that changed less than this ago, in nanoseconds, changes again: it is being built in.
const RESTLESS_NS: i64 = 10_000_000_000;

/// The most names a directory may have to be looked through for links.
const LISTED_NAMES_MAX: usize = 100_000;

/// A program or a catalogue of messages is no source, though strings in it may look like one.
const ELF_MAGIC: &[u8] = b"\x7fELF";

/// The names in a directory by which a way may lead on.
#[derive(Debug, Default)]
pub struct Onward {
    /// Those that are symbolic links.
    pub links: FxHashSet<Vec<u8>>,
    /// Those that are directories.
    pub directories: FxHashSet<Vec<u8>>,
}

/// What is known of the names in a directory.
#[derive(Debug, Clone)]
pub enum Listed {
    /// All of them by which a way may lead on.
    All(Arc<Onward>),
    /// Looking at names one by one costs less, or says more.
    NotWorthwhile,
}

/// Directories, and what was listed of each when it had this signature.
type Listings = FxHashMap<Vec<u8>, (Signature, Arc<Onward>)>;

/// See the module.
#[derive(Debug, Default)]
pub struct Memory {
    texts: Mutex<FxHashMap<Signature, Arc<IncludeNames>>>,
    directories: Mutex<Listings>,
    programs: Mutex<FxHashMap<Signature, Format>>,
    /// Whether programs go well with the interposer.
    hosts: Mutex<FxHashMap<Signature, bool>>,
    distrusted: Mutex<FxHashSet<Vec<u8>>>,
}

impl Memory {
    /// The names that the file at `path` could include, if it still has this signature.
    pub fn include_names(&self, place: &Place, path: &[u8], signature: &Signature) -> Arc<IncludeNames> {
        if let Some(names) = locked(&self.texts).get(signature) {
            return Arc::clone(names);
        }
        let unclear = || Arc::new(IncludeNames { unclear: true, ..IncludeNames::default() });
        if signature.size > TEXT_BYTES_MAX {
            return unclear();
        }
        let Ok(names) = read_names(place, path, signature) else { return unclear() };
        let names = Arc::new(names);
        remember(&self.texts, TEXTS_MAX, *signature, Arc::clone(&names));
        names
    }

    /// The names in the directory `path` by which a way may lead on. With `few` to be looked for, a directory that has just
    /// changed is not listed, since it will change again; none if it cannot be told.
    pub fn onward_from(&self, place: &Place, path: &[u8], few: bool) -> Option<Listed> {
        let now_ns = coarse_now_ns();
        let shown = if path.is_empty() { &b"."[..] } else { path };
        let signature = place.signature(shown, false).ok()?;
        let key = place.absolute(path);
        if let Some((known, names)) = locked(&self.directories).get(&key)
            && *known == signature
        {
            return Some(Listed::All(Arc::clone(names)));
        }
        if few && is_restless(&signature, now_ns) {
            return Some(Listed::NotWorthwhile);
        }
        let Some(names) = list(place, shown).ok()?.map(Arc::new) else { return Some(Listed::NotWorthwhile) };
        if signature.is_settled(now_ns) {
            remember(&self.directories, DIRECTORIES_MAX, key, (signature, Arc::clone(&names)));
        }
        Some(Listed::All(names))
    }

    /// What the program at `path`, which has this signature, says about how it is run.
    pub fn format_of(&self, place: &Place, path: &[u8], signature: &Signature) -> Format {
        if let Some(format) = locked(&self.programs).get(signature) {
            return format.clone();
        }
        let is_settled = signature.is_settled(coarse_now_ns());
        let format = format_of(place.cwd(), path);
        // One of no known kind may only not have been read, for want of descriptors.
        let is_known = format != Format::Unknown;
        if is_known && is_settled && place.signature(path, true) == Ok(*signature) {
            remember(&self.programs, PROGRAMS_MAX, *signature, format.clone());
        }
        format
    }

    /// Whether the program at `path` goes well with a library that its loader is told to load.
    pub fn is_host(&self, path: &str) -> bool {
        let Ok(signature) = Signature::of(path) else { return false };
        if let Some(is_host) = locked(&self.hosts).get(&signature) {
            return *is_host;
        }
        let is_host =
            needed_libraries(rustix::fs::CWD, path.as_bytes()).is_some_and(|names| goes_well(&names));
        if signature.is_settled(coarse_now_ns()) && Signature::of(path) == Ok(signature) {
            remember(&self.hosts, PROGRAMS_MAX, signature, is_host);
        }
        is_host
    }

    /// From now on this tool, or this tool in this directory, gets the full filter.
    pub fn distrust(&self, tool: &[u8], cwd: Option<&[u8]>) {
        let mut distrusted = locked(&self.distrusted);
        if distrusted.len() >= DISTRUSTED_MAX {
            distrusted.clear();
        }
        distrusted.insert(key(tool, cwd));
    }

    /// Whether this tool needs the full filter wherever it runs: it brought in programs or code that nobody knows.
    pub fn distrusts_everywhere(&self, tool: &[u8]) -> bool {
        locked(&self.distrusted).contains(&key(tool, None))
    }

    /// Whether this tool in this directory needs the full filter.
    pub fn distrusts(&self, tool: &[u8], cwd: &[u8]) -> bool {
        let distrusted = locked(&self.distrusted);
        !distrusted.is_empty()
            && (distrusted.contains(&key(tool, None)) || distrusted.contains(&key(tool, Some(cwd))))
    }
}

/// Whether a program with these libraries has the C library, and no sanitizer: those must be the first that is loaded, and
/// end a program in which another is.
fn goes_well(libraries: &[Vec<u8>]) -> bool {
    libraries.iter().any(|name| name == b"libc.so.6")
        && !libraries.iter().any(|name| name.windows(3).any(|part| part == b"san"))
}

fn is_restless(directory: &Signature, now_ns: i64) -> bool {
    now_ns.saturating_sub(directory.ctime_ns) < RESTLESS_NS
}

/// A tool, and the directory where it is meant. Neither holds a NUL.
fn key(tool: &[u8], cwd: Option<&[u8]>) -> Vec<u8> {
    cwd.map_or_else(|| tool.to_vec(), |cwd| [tool, cwd].join(&0))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is a single insertion, so a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn remember<K: Hash + Eq, V>(map: &Mutex<FxHashMap<K, V>>, count_max: usize, key: K, value: V) {
    let mut map = locked(map);
    if map.len() >= count_max {
        map.clear();
    }
    map.insert(key, value);
}

fn read_names(place: &Place, path: &[u8], signature: &Signature) -> std::io::Result<IncludeNames> {
    use std::io::Read;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let mut file = std::fs::File::from(rustix::fs::openat(place.cwd(), path, flags, Mode::empty())?);
    let is_same =
        |file: &std::fs::File| Signature::at(file.as_fd(), "", AtFlags::EMPTY_PATH) == Ok(*signature);
    if !is_same(&file) {
        return Err(Errno::STALE.into());
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    if !is_same(&file) {
        return Err(Errno::STALE.into());
    }
    let is_program = text.starts_with(ELF_MAGIC) && path.windows(3).any(|part| part == b".so");
    let is_catalogue = path.ends_with(b".mo");
    Ok(if is_program || is_catalogue { IncludeNames::default() } else { IncludeNames::of(&text) })
}

/// None where other spellings of a name mean the same.
fn list(place: &Place, path: &[u8]) -> std::io::Result<Option<Onward>> {
    /// A directory in which case does not count (linux/fs.h: `FS_CASEFOLD_FL`).
    const CASEFOLD: u32 = 0x4000_0000;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(place.cwd(), path, flags, Mode::empty())?;
    // Where there are no such flags, there is no such thing.
    if rustix::fs::ioctl_getflags(&directory).is_ok_and(|flags| flags.bits() & CASEFOLD != 0) {
        return Ok(None);
    }
    let mut names = Onward::default();
    for (count, entry) in rustix::fs::Dir::read_from(&directory)?.enumerate() {
        if count >= LISTED_NAMES_MAX {
            return Err(Errno::OVERFLOW.into());
        }
        let entry = entry?;
        let kind = match entry.file_type() {
            FileType::Symlink => FileKind::Symlink,
            FileType::Directory => FileKind::Directory,
            FileType::Unknown => {
                Signature::at(&directory, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?.kind()
            }
            _ => FileKind::Other,
        };
        let name = || entry.file_name().to_bytes().to_vec();
        match kind {
            FileKind::Symlink => drop(names.links.insert(name())),
            FileKind::Directory => drop(names.directories.insert(name())),
            FileKind::File | FileKind::Other => {}
        }
    }
    Ok(Some(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(directory: &std::path::Path) -> Place {
        Place::new(directory.as_os_str().as_encoded_bytes()).unwrap()
    }

    #[test]
    fn so_many_texts_directories_programs_and_tools_are_remembered_and_then_none() {
        let temp = tempfile::tempdir().unwrap();
        let place = place(temp.path());
        std::fs::write(temp.path().join("a.h"), "#include \"b.h\"").unwrap();
        let text = Signature::of(temp.path().join("a.h")).unwrap();
        // `/` is older than any test, so that what is seen there is remembered.
        let root = Signature::of("/").unwrap();
        let memory = Memory::default();
        let (names, onward) = (Arc::<IncludeNames>::default(), Arc::<Onward>::default());
        for number in 1..TEXTS_MAX as u64 {
            locked(&memory.texts)
                .insert(Signature { ino: number, dev: u64::MAX, ..text }, Arc::clone(&names));
        }
        for number in 1..DIRECTORIES_MAX {
            locked(&memory.directories).insert(number.to_string().into(), (root, Arc::clone(&onward)));
        }
        let program = Signature::of("/proc/self/exe").unwrap();
        for number in 1..PROGRAMS_MAX as u64 {
            let other = Signature { ino: number, dev: u64::MAX, ..program };
            locked(&memory.programs).insert(other, Format::Unknown);
        }
        (1..DISTRUSTED_MAX).for_each(|number| memory.distrust(number.to_string().as_bytes(), None));
        memory.include_names(&place, b"a.h", &text);
        memory.onward_from(&place, b"/", false).unwrap();
        memory.format_of(&place, b"/proc/self/exe", &program);
        memory.distrust(b"one", None);
        assert_eq!(locked(&memory.texts).len(), TEXTS_MAX);
        assert_eq!(locked(&memory.programs).len(), PROGRAMS_MAX);
        assert_eq!(locked(&memory.directories).len(), DIRECTORIES_MAX);
        assert!(memory.distrusts(b"1", b"/") && memory.distrusts(b"one", b"/"));
        std::fs::write(temp.path().join("b.h"), "").unwrap();
        memory.include_names(&place, b"b.h", &Signature::of(temp.path().join("b.h")).unwrap());
        memory.onward_from(&place, b"/usr", false).unwrap();
        memory.format_of(&place, b"/bin/sh", &Signature::of("/bin/sh").unwrap());
        memory.distrust(b"another", None);
        assert_eq!(locked(&memory.texts).len(), 1);
        assert_eq!(locked(&memory.programs).len(), 1);
        assert_eq!(locked(&memory.directories).len(), 1);
        assert!(!memory.distrusts(b"1", b"/") && memory.distrusts(b"another", b"/"));
    }

    #[test]
    fn a_program_of_no_known_kind_is_looked_at_again() {
        let (memory, root) = (Memory::default(), Signature::of("/").unwrap());
        assert_eq!(memory.format_of(&place("/".as_ref()), b"/", &root), Format::Unknown);
        assert!(locked(&memory.programs).is_empty());
    }

    #[test]
    fn a_text_longer_than_is_read_may_include_anything() {
        let temp = tempfile::tempdir().unwrap();
        // A library names nothing, and is looked into no further; so this is only about its length.
        let path = temp.path().join("lib.so");
        std::fs::write(&path, ELF_MAGIC).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let is_unclear = |bytes: u64| {
            file.set_len(bytes).unwrap();
            let signature = Signature::of(&path).unwrap();
            Memory::default().include_names(&place(temp.path()), b"lib.so", &signature).unclear
        };
        assert!(!is_unclear(TEXT_BYTES_MAX));
        assert!(is_unclear(TEXT_BYTES_MAX + 1));
    }

    #[test]
    fn a_directory_that_changed_a_moment_ago_is_not_listed_for_a_few_names() {
        let temp = tempfile::tempdir().unwrap();
        let signature = Signature::of(temp.path()).unwrap();
        assert!(is_restless(&signature, signature.ctime_ns + RESTLESS_NS - 1));
        assert!(!is_restless(&signature, signature.ctime_ns + RESTLESS_NS));
        let listed = |few: bool| Memory::default().onward_from(&place(temp.path()), b"", few).unwrap();
        assert!(matches!(listed(true), Listed::NotWorthwhile));
        assert!(matches!(listed(false), Listed::All(_)));
    }

    #[test]
    fn a_directory_of_more_names_than_are_looked_through_is_not_listed() {
        // In memory, where a hundred thousand names are soon made. Two of those that are there are the directory itself
        // and the one above.
        let temp = tempfile::tempdir_in("/dev/shm").unwrap();
        let directory = std::fs::File::open(temp.path()).unwrap();
        let link = |name: &str| rustix::fs::symlinkat("x", &directory, name).unwrap();
        (2..LISTED_NAMES_MAX).for_each(|number| link(&number.to_string()));
        let listed = || Memory::default().onward_from(&place(temp.path()), b"", false);
        assert!(matches!(listed(), Some(Listed::All(names)) if names.links.len() == LISTED_NAMES_MAX - 2));
        link("one more");
        assert!(listed().is_none());
    }
}
