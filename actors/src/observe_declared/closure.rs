//! Every file that a compile can come to read by including, and every place where it would look first.
//!
//! Names are what the texts spell; each is looked for in every directory of the search list, at once and without
//! regard to order. Whatever is there counts as read, and is searched in its turn; whatever is not must stay
//! away. So the facts are more than the compiler asks for, and never fewer.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::composed::{self, Source, Text};
use super::facts::{Facts, Found, directory_of, join};
use super::source_scan::{self, Name, Scan, fingerprint};
use super::toolchain::Toolchain;
use crate::plan::DeclaredInputs;
use crate::signature::{Signature, coarse_now_ns};
use crate::spelling;
use crate::sys::AsFd;
use crate::sys::fs::{AtFlags, Mode, OFlags};

/// How many files' scans are remembered: the headers of several large projects, some hundred bytes each.
const SCANS_MAX: usize = 50_000;

/// The largest source that is scanned, in bytes: beyond, it is generated data.
const SOURCE_BYTES_MAX: u64 = 64 << 20;

/// Scans by file, valid as long as the signature is.
#[derive(Default)]
pub struct Scans {
    by_file: Mutex<HashMap<(u64, u64), Known>>,
}

/// A scan, and the file's signature for which it stands.
type Known = (Signature, Arc<Scan>);

/// What the closure came to, besides facts.
#[derive(Debug, Default)]
pub struct Closure {
    /// Some text's lines are said to be another file's.
    pub is_anothers: bool,
    /// Names made of these may tell the time.
    pub pieces: BTreeSet<Vec<u8>>,
    /// All files that may be read.
    pub files: HashSet<Vec<u8>>,
    /// Macros that are included by, and not defined in any of the files.
    pub computed: BTreeSet<Vec<u8>>,
}

impl Scans {
    /// Adds to `facts` everything that compiling as declared can include. `definitions` are the command line's words,
    /// those that define a macro as directives.
    ///
    /// # Errors
    /// What the texts leave open.
    pub fn close(
        &self,
        declared: &DeclaredInputs,
        toolchain: &Toolchain,
        definitions: &[Vec<u8>],
        facts: &mut Facts,
    ) -> Result<Closure, String> {
        let source = &declared.source.as_ref().ok_or("no source is declared")?.0;
        let spelled = declared.quote_dirs.iter().chain(&declared.search_dirs).map(|dir| &dir.0);
        let mut dirs: Vec<&Vec<u8>> = Vec::new();
        let mut known = HashSet::new();
        for dir in spelled.chain(&toolchain.dirs).filter(|dir| known.insert(*dir)) {
            match facts.look(dir) {
                Found::File(_) => return Err("a search directory that is a file".into()),
                _ => dirs.push(dir),
            }
        }
        let mut work = Work {
            dirs,
            frameworks: &toolchain.frameworks,
            facts,
            asked: HashSet::new(),
            pending: Vec::new(),
            has_precompiled: false,
        };
        work.pending.push(source.clone());
        work.precompiled(source);
        for forced in &declared.forced_includes {
            let name = Name { text: forced.0.clone(), is_quoted: true };
            work.ask(b"", &name);
            work.precompiled_of(b"", &name);
        }
        // gcc includes this one by itself.
        let predefined = Name { text: b"stdc-predef.h".to_vec(), is_quoted: false };
        work.ask(b"", &predefined);
        work.precompiled_of(b"", &predefined);
        let is_forced = |path: &[u8]| declared.forced_includes.iter().any(|forced| path.ends_with(&forced.0));
        let mut closure = Closure::default();
        let mut defined = HashSet::new();
        let mut texts = Vec::new();
        while let Some(path) = work.pending.pop() {
            if !closure.files.insert(path.clone()) {
                continue;
            }
            let Found::File(_) = work.facts.read(&path, false) else { continue };
            let absolute = work.facts.absolute(&path);
            let (signature, scan) = self.scan(&absolute).map_err(|e| e.to_string())?;
            if let Some(hazard) = scan.hazard {
                return Err(format!("{hazard} in {}", String::from_utf8_lossy(&path)));
            }
            closure.pieces.extend(scan.pieces.iter().cloned());
            closure.is_anothers |= scan.is_anothers;
            closure.computed.extend(scan.computed.iter().cloned());
            defined.extend(scan.defined.iter().copied());
            texts.push(Text::new(Source::File(absolute, signature), Arc::clone(&scan)));
            let directory = directory_of(&path).to_vec();
            for name in &scan.names {
                work.ask(&directory, name);
                // gcc takes a precompiled header for the first that is included, and for that alone.
                if path == *source || is_forced(&path) {
                    work.precompiled_of(&directory, name);
                }
            }
        }
        if let Some(name) = closure.computed.iter().find(|name| defined.contains(&fingerprint(name))) {
            return Err(format!("#include {}", String::from_utf8_lossy(name)));
        }
        if work.has_precompiled {
            return Err("a precompiled header".into());
        }
        let typed = definitions.join(&b'\n');
        let scan = Arc::new(source_scan::scan(&typed));
        defined.extend(scan.defined.iter().copied());
        texts.push(Text::new(Source::CommandLine(typed), scan));
        composed::check(&texts, &defined)?;
        Ok(closure)
    }

    fn scan(&self, path: &Path) -> std::io::Result<Known> {
        let signature = Signature::of(path)?;
        let key = (signature.dev, signature.ino);
        let known = self.by_file.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known.filter(|(known, _)| *known == signature) {
            return Ok(known);
        }
        let now_ns = coarse_now_ns();
        let (before, text) = read(path)?;
        let scan = Arc::new(source_scan::scan(&text));
        if before.is_settled(now_ns) {
            self.remember(before, &scan);
        }
        Ok((before, scan))
    }

    fn remember(&self, file: Signature, scan: &Arc<Scan>) {
        let mut scans = self.by_file.lock().unwrap_or_else(PoisonError::into_inner);
        if scans.len() >= SCANS_MAX {
            scans.clear();
        }
        scans.insert((file.dev, file.ino), (file, Arc::clone(scan)));
    }
}

/// A source, and the file's signature while it was read.
pub fn read(path: &Path) -> std::io::Result<(Signature, Vec<u8>)> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = std::fs::File::from(crate::sys::fs::open(path, flags, Mode::empty())?);
    let before = Signature::at(file.as_fd(), c"", AtFlags::EMPTY_PATH)?;
    let mut text = Vec::new();
    (&file).take(SOURCE_BYTES_MAX + 1).read_to_end(&mut text)?;
    let after = Signature::at(file.as_fd(), c"", AtFlags::EMPTY_PATH)?;
    if before != after || text.len() as u64 > SOURCE_BYTES_MAX {
        return Err(std::io::Error::other("a source that is too large, or changes"));
    }
    Ok((before, text))
}

/// Where a header `Framework/rest` is, in a directory of frameworks: none, if its name is not of that form.
fn in_framework(dir: &[u8], name: &[u8]) -> Vec<Vec<u8>> {
    let Some(slash) = name.iter().position(|&b| b == b'/') else { return Vec::new() };
    let (framework, rest) = (&name[..slash], &name[slash + 1..]);
    let places = [&b"Headers"[..], b"PrivateHeaders"];
    places.iter().map(|place| join(dir, &[framework, b".framework/", place, b"/", rest].concat())).collect()
}

fn position(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// What is still to be looked at.
struct Work<'a> {
    dirs: Vec<&'a Vec<u8>>,
    frameworks: &'a [Vec<u8>],
    facts: &'a mut Facts,
    /// Names looked for in all directories of the list.
    asked: HashSet<Vec<u8>>,
    pending: Vec<Vec<u8>>,
    has_precompiled: bool,
}

impl Work<'_> {
    /// Looks for a name that a file in `directory` spells.
    fn ask(&mut self, directory: &[u8], name: &Name) {
        let text = spelling::plain(&name.text);
        let is_absolute = spelling::is_absolute(&text);
        if name.is_quoted || is_absolute {
            self.candidate(join(directory, &text));
        }
        if !is_absolute && self.asked.insert(text.to_vec()) {
            for dir in self.dirs.clone() {
                self.candidate(join(dir, &text));
            }
            for dir in self.frameworks {
                in_framework(dir, &text).into_iter().for_each(|path| self.candidate(path));
            }
        }
        // A framework's header finds those of the frameworks within it.
        if let Some(end) = position(directory, b".framework/").filter(|_| !self.frameworks.is_empty()) {
            let within = [&directory[..end], b".framework/Frameworks"].concat();
            in_framework(&within, &text).into_iter().for_each(|path| self.candidate(path));
        }
    }

    fn candidate(&mut self, path: Vec<u8>) {
        if let Found::File(_) = self.facts.look(&path) {
            self.pending.push(path);
        }
    }

    /// Looks for precompiled forms of a header wherever it may be found.
    fn precompiled_of(&mut self, directory: &[u8], name: &Name) {
        let text = spelling::plain(&name.text);
        self.precompiled(&join(directory, &text));
        for dir in self.dirs.clone() {
            self.precompiled(&join(dir, &text));
        }
    }

    fn precompiled(&mut self, header: &[u8]) {
        for extension in [&b".gch"[..], b".pch"] {
            self.has_precompiled |= self.facts.look(&[header, extension].concat()) != Found::Nothing;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_texts_are_known_and_then_none() {
        let (scans, scan) = (Scans::default(), Arc::new(source_scan::scan(b"")));
        let file = Signature::of(Path::new("/")).unwrap();
        let known = || scans.by_file.lock().unwrap().len();
        for ino in 0..SCANS_MAX as u64 {
            scans.remember(Signature { ino, ..file }, &scan);
        }
        assert_eq!(known(), SCANS_MAX);
        scans.remember(Signature { ino: u64::MAX, ..file }, &scan);
        assert_eq!(known(), 1);
    }

    #[test]
    fn a_source_longer_than_is_scanned_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.h");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(SOURCE_BYTES_MAX).unwrap();
        assert!(read(&path).is_ok());
        file.set_len(SOURCE_BYTES_MAX + 1).unwrap();
        assert!(read(&path).is_err());
    }

    #[test]
    fn headers_of_frameworks_are_looked_for_in_their_directories() {
        let places = in_framework(b"/F", b"A/b/c.h");
        assert_eq!(places, [&b"/F/A.framework/Headers/b/c.h"[..], b"/F/A.framework/PrivateHeaders/b/c.h"]);
        assert!(in_framework(b"/F", b"a.h").is_empty());
    }
}
