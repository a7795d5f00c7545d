//! Which libraries a program is loaded with, and where others of their names would be found first: the twin of
//! `libraries_linux.rs`.
//!
//! Programs and libraries name what they need; the loader looks for each beside the program, in the system's
//! directories, in the current one and on `PATH` ("Dynamic-link library search order"). What the system knows by itself
//! it takes from its own directory whatever lies elsewhere: a file of such a name beside a program is one fact too many.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::Path;

use object::read::pe::{ImageNtHeaders, PeFile};
use object::read::{ReadCache, ReadRef};
use object::{FileKind, LittleEndian};

use super::super::facts::{bytes_of, join};
use super::following::follow;
use crate::invocation::Invocation;
use crate::spelling;
use crate::sys::OsStrExt;

/// What loading a program reads.
#[derive(Debug, Default)]
pub struct Libraries {
    /// The libraries.
    pub files: Vec<Vec<u8>>,
    /// Where libraries were looked for in vain.
    pub missing: Vec<Vec<u8>>,
}

/// Where libraries are looked for, beside the program's own directory.
pub struct Search {
    system: Vec<u8>,
    others: Vec<Vec<u8>>,
}

impl Search {
    /// For a tool that is called so, with these directories in `PATH`.
    pub fn new(invocation: &Invocation, path: &[Vec<u8>]) -> Self {
        let system = std::env::var_os("SystemRoot").unwrap_or_default();
        let cwd = spelling::plain(&invocation.cwd).into_owned();
        Self {
            system: spelling::plain(system.as_bytes()).into_owned(),
            others: std::iter::once(cwd).chain(path.iter().cloned()).collect(),
        }
    }

    /// All directories, in order. Programs of 32 bits have a system directory of their own.
    fn dirs(&self, program: &Path, is_narrow: bool) -> Vec<Vec<u8>> {
        let own = program.parent().map(|parent| bytes_of(parent.to_path_buf())).unwrap_or_default();
        let systems: &[&[u8]] = if is_narrow { &[b"SysWOW64", b"System32"] } else { &[b"System32"] };
        let systems = systems.iter().copied().chain([&b"System"[..]]).map(|name| join(&self.system, name));
        let mut dirs = vec![own];
        dirs.extend(systems);
        dirs.push(self.system.clone());
        dirs.extend(self.others.iter().cloned());
        dirs
    }
}

/// The libraries of the program at `path`, which is not run.
///
/// # Errors
/// If that is no program, or needs more than can be followed.
pub fn of(path: &Path, search: &Search) -> Result<Libraries, String> {
    let (is_narrow, first) = needs(path)?;
    let dirs = search.dirs(path, is_narrow);
    let mut libraries = Libraries::default();
    follow(first.into_iter().collect(), |name| {
        for file in dirs.iter().map(|dir| join(dir, name)) {
            let place = Path::new(OsStr::from_bytes(&file));
            if place.is_file() {
                // What the system loads without looking need not be one that we can read.
                let needed = needs(place).map(|(_, needed)| needed).unwrap_or_default();
                libraries.files.push(file);
                return Ok(needed.into_iter().collect());
            }
            libraries.missing.push(file);
        }
        Ok(Vec::new())
    })?;
    Ok(libraries)
}

/// Whether the program or library at `path` is one of 32 bits, and the libraries that it names, in lower case.
fn needs(path: &Path) -> Result<(bool, BTreeSet<Vec<u8>>), String> {
    let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let file = std::fs::File::open(path).map_err(|e| failed(&e))?;
    let cache = ReadCache::new(file);
    match FileKind::parse(&cache).map_err(|e| failed(&e))? {
        FileKind::Pe64 => named::<object::pe::ImageNtHeaders64, _>(&cache)
            .map(|names| (false, names))
            .map_err(|e| failed(&e)),
        FileKind::Pe32 => named::<object::pe::ImageNtHeaders32, _>(&cache)
            .map(|names| (true, names))
            .map_err(|e| failed(&e)),
        _ => Err(format!("{} is no program", path.display())),
    }
}

fn named<'data, Headers: ImageNtHeaders, R: ReadRef<'data>>(data: R) -> object::Result<BTreeSet<Vec<u8>>> {
    let file = PeFile::<Headers, R>::parse(data)?;
    let mut names = BTreeSet::new();
    if let Some(table) = file.import_table()? {
        let mut descriptors = table.descriptors()?;
        while let Some(descriptor) = descriptors.next()? {
            names.insert(table.name(descriptor.name.get(LittleEndian))?.to_ascii_lowercase());
        }
    }
    if let Some(table) =
        file.data_directories().delay_load_import_table(file.data(), &file.section_table())?
    {
        let mut descriptors = table.descriptors()?;
        while let Some(descriptor) = descriptors.next()? {
            names.insert(table.name(descriptor.dll_name_rva.get(LittleEndian))?.to_ascii_lowercase());
        }
    }
    Ok(names)
}
