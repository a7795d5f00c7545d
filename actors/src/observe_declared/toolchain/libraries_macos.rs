//! Which libraries a program is loaded with, and where others of their names would be found first: the twin of
//! `libraries_linux.rs`.
//!
//! Programs and libraries name what they need by path, some from where they are themselves (`dyld(1)`). The system's own
//! are in no file any more; they come with its version.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use object::macho::{CPU_TYPE_ARM64, CPU_TYPE_X86_64, MachHeader64};
use object::read::macho::{FatArch, LoadCommandVariant, MachHeader, MachOFatFile32};
use object::{Endianness, FileKind};

use super::super::facts::bytes_of;
use super::following::follow;
use crate::invocation::Invocation;
use crate::sys::OsStrExt;

/// Where the system's own libraries seem to be.
const SYSTEMS: [&str; 2] = ["/usr/lib/", "/System/"];

/// What loading a program reads.
#[derive(Debug, Default)]
pub struct Libraries {
    /// The libraries.
    pub files: Vec<Vec<u8>>,
    /// Where libraries were looked for in vain.
    pub missing: Vec<Vec<u8>>,
}

/// Where libraries are looked for: programs say so themselves.
pub struct Search;

impl Search {
    /// For a tool that is called so.
    pub fn new(_: &Invocation, _path: &[Vec<u8>]) -> Self {
        Self
    }
}

/// What a program or library names.
#[derive(Default)]
struct Needs {
    /// Libraries, as they are named.
    libraries: Vec<String>,
    /// What `@rpath` stands for, in order.
    run_paths: Vec<String>,
}

/// The libraries of the program at `path`, which is not run.
///
/// # Errors
/// If that is no program, or needs more than can be followed.
pub fn of(path: &Path, _: &Search) -> Result<Libraries, String> {
    let real = std::fs::canonicalize(path).map_err(|e| e.to_string())?;
    let home = real.parent().unwrap_or(Path::new("/")).to_path_buf();
    let mut libraries = Libraries::default();
    follow(vec![(real, Vec::new())], |(file, outer)| {
        let needs = needs(file)?;
        let here = file.parent().unwrap_or(Path::new("/"));
        let place = |text: &str| -> PathBuf {
            let from = |mark: &str, directory: &Path| {
                text.strip_prefix(mark).map(|rest| format!("{}{rest}", directory.display()))
            };
            let place = from("@loader_path", here).or_else(|| from("@executable_path", &home));
            place.unwrap_or_else(|| text.to_owned()).into()
        };
        let mut run_paths: Vec<PathBuf> = needs.run_paths.iter().map(|text| place(text)).collect();
        run_paths.extend(outer.iter().cloned());
        let is_systems = |name: &&String| SYSTEMS.iter().any(|own| name.starts_with(own));
        let mut found = Vec::new();
        for name in needs.libraries.iter().filter(|name| !is_systems(name)) {
            let candidates: Vec<PathBuf> = match name.strip_prefix("@rpath/") {
                Some(rest) => run_paths.iter().map(|dir| dir.join(rest)).collect(),
                None => vec![place(name)],
            };
            let at = candidates.iter().position(|candidate| candidate.is_file());
            let missing = &candidates[..at.unwrap_or(candidates.len())];
            libraries.missing.extend(missing.iter().cloned().map(bytes_of));
            if let Some(library) = at.map(|at| candidates[at].clone()) {
                libraries.files.push(bytes_of(library.clone()));
                found.push((library, run_paths.clone()));
            }
        }
        Ok(found)
    })?;
    Ok(libraries)
}

fn needs(path: &Path) -> Result<Needs, String> {
    let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let data = std::fs::read(path).map_err(|e| failed(&e))?;
    let mut needs = Needs::default();
    match FileKind::parse(&data[..]).map_err(|e| failed(&e))? {
        FileKind::MachO64 => add(&data, &mut needs).map_err(|e| failed(&e))?,
        FileKind::MachOFat32 => {
            let fat = MachOFatFile32::parse(&data[..]).map_err(|e| failed(&e))?;
            let is_ours = |cpu: u32| [CPU_TYPE_ARM64, CPU_TYPE_X86_64].contains(&cpu);
            // Whichever of them is run.
            for arch in fat.arches().iter().filter(|arch| is_ours(arch.cputype())) {
                add(arch.data(&data[..]).map_err(|e| failed(&e))?, &mut needs).map_err(|e| failed(&e))?;
            }
        }
        _ => return Err(format!("{} is no program", path.display())),
    }
    Ok(needs)
}

fn add(data: &[u8], needs: &mut Needs) -> object::Result<()> {
    let header = MachHeader64::<Endianness>::parse(data, 0)?;
    let endian = header.endian()?;
    let mut commands = header.load_commands(endian, data, 0)?;
    while let Some(command) = commands.next()? {
        let text = |bytes: &[u8]| OsStr::from_bytes(bytes).to_string_lossy().into_owned();
        match command.variant()? {
            LoadCommandVariant::Dylib(library) => {
                needs.libraries.push(text(command.string(endian, library.dylib.name)?));
            }
            LoadCommandVariant::Rpath(run_path) => {
                needs.run_paths.push(text(command.string(endian, run_path.path)?));
            }
            _ => {}
        }
    }
    Ok(())
}
