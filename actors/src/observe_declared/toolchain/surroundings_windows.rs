//! Where compilers on Windows look around besides the directories that they tell of: the twin of
//! `surroundings_linux.rs`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::super::facts::{bytes_of, join};
use super::{Toolchain, questions};
use crate::spelling;
use crate::sys::OsStrExt;

/// The names, without a target before them, under which clang looks on `PATH` for a gcc whose headers and libraries it
/// may use.
const LENDERS: &[&str] =
    &["mingw32-gcc", "x86_64-w64-mingw32-gcc", "i686-w64-mingw32-gcc", "aarch64-w64-mingw32-gcc"];

/// How deep the directories below a prefix lie of which the names decide: `lib/gcc/TARGET/VERSION`.
const VERSIONS_DEPTH: usize = 2;

/// Tools of which it cannot be known what they run.
///
/// # Errors
/// Why not; here all can, as those that start another program say so.
pub fn refuse(_: &Path) -> Result<(), String> {
    Ok(())
}

/// The directories in a value of `PATH`. Quotes around one mean nothing, nor does an empty one.
pub fn search_path(value: &[u8]) -> Vec<Vec<u8>> {
    let unquoted = |dir: Vec<u8>| dir.into_iter().filter(|&b| b != b'"').collect::<Vec<u8>>();
    spelling::list(value).into_iter().map(unquoted).filter(|dir| !dir.is_empty()).collect()
}

/// What the loader reads and misses, whatever it loads.
///
/// # Errors
/// None here.
pub fn of_loader(toolchain: &mut Toolchain) -> Result<(), String> {
    // Beside a program: another choice of libraries, for it alone.
    for program in &toolchain.programs {
        toolchain.places.extend([&b".local"[..], b".manifest"].map(|name| [&program[..], name].concat()));
    }
    Ok(())
}

/// What clang looks at when it starts: where its headers and libraries are is decided by looking beside itself, and for
/// a gcc on `PATH`.
///
/// # Errors
/// If it compiles for Microsoft's libraries: where those are it reads from the registry and asks an installer, and the
/// time goes into its objects.
pub fn of_clang(
    toolchain: &mut Toolchain,
    said: &str,
    bins: &[PathBuf],
    path: &[Vec<u8>],
) -> Result<(), String> {
    let target = questions::value(said, "Target:").unwrap_or_default();
    if !target.ends_with("-windows-gnu") && !target.ends_with("-mingw32") && !target.contains("-w64-mingw32")
    {
        return Err(format!("clang for {target}"));
    }
    let mut names: Vec<String> = LENDERS.iter().map(|name| (*name).to_owned()).collect();
    names.push(format!("{target}-gcc"));
    let mut prefixes: Vec<PathBuf> = bins.iter().map(|bin| bin.join("..")).collect();
    for dir in path {
        for file in names.iter().flat_map(|name| spelling::program_files(name)) {
            let lender = join(dir, &file);
            if Path::new(OsStr::from_bytes(&lender)).exists() {
                prefixes.push(Path::new(OsStr::from_bytes(dir)).join(".."));
            }
            toolchain.places.push(lender);
        }
    }
    for prefix in &prefixes {
        toolchain.list_tree(prefix, 0);
        for lib in ["lib", "lib64"] {
            toolchain.list_tree(&prefix.join(lib).join("gcc"), VERSIONS_DEPTH);
        }
        toolchain.list_tree(&prefix.join("include").join("c++"), 0);
        for sysroot in std::fs::read_dir(prefix).into_iter().flatten().flatten() {
            let include = sysroot.path().join("include");
            if include.is_dir() {
                toolchain.places.push(bytes_of(include.clone()));
                toolchain.list_tree(&include.join("c++"), 0);
            }
        }
    }
    Ok(())
}
