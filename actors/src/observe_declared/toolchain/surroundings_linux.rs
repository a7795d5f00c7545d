//! Where compilers on Linux look around besides the directories that they tell of.

use std::path::{Path, PathBuf};

use super::Toolchain;
use crate::spelling;

/// Where the distributions note their names: clang's defaults hang on them.
const RELEASE_FILES: &[&str] = &[
    "/etc/os-release",
    "/usr/lib/os-release",
    "/etc/lsb-release",
    "/etc/redhat-release",
    "/etc/debian_version",
    "/etc/SuSE-release",
    "/etc/gentoo-release",
];

/// Tools of which it cannot be known what they run.
///
/// # Errors
/// Why not; here all can.
pub fn refuse(_: &Path) -> Result<(), String> {
    Ok(())
}

/// The directories in a value of `PATH`.
pub fn search_path(value: &[u8]) -> Vec<Vec<u8>> {
    spelling::list(value)
}

/// What the loader reads and misses, whatever it loads.
///
/// # Errors
/// If it is told to load something else beforehand.
pub fn of_loader(toolchain: &mut Toolchain) -> Result<(), String> {
    toolchain.files.push(b"/etc/ld.so.cache".to_vec());
    if Path::new("/etc/ld.so.preload").exists() {
        return Err("/etc/ld.so.preload".into());
    }
    toolchain.places.push(b"/etc/ld.so.preload".to_vec());
    Ok(())
}

/// What clang looks at when it starts: which installation of gcc lends its headers and libraries is decided by looking
/// around for all of them. `bins` are where it lies.
///
/// # Errors
/// None here.
pub fn of_clang(
    toolchain: &mut Toolchain,
    _said: &str,
    bins: &[PathBuf],
    _path: &[Vec<u8>],
) -> Result<(), String> {
    toolchain.files.extend(RELEASE_FILES.iter().map(|file| file.as_bytes().to_vec()));
    let mut prefixes = vec![PathBuf::from("/usr")];
    prefixes.extend(bins.iter().map(|bin| bin.join("..")));
    for prefix in &prefixes {
        for lib in ["lib", "lib32", "lib64", "libx32"] {
            for gcc in ["gcc", "gcc-cross"] {
                toolchain.list_tree(&prefix.join(lib).join(gcc), 2);
            }
        }
        toolchain.list_tree(&prefix.join("include/c++"), 0);
    }
    toolchain.list_tree(Path::new("/etc/env.d/gcc"), 0);
    toolchain.list_tree(Path::new("/opt"), 0);
    toolchain.places.push(b"/opt/rocm".to_vec());
    Ok(())
}
