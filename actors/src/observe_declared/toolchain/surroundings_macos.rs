//! Where compilers on macOS look around besides the directories that they tell of: the twin of `surroundings_linux.rs`.

use std::path::{Path, PathBuf};

use super::super::facts::bytes_of;
use super::Toolchain;
use crate::spelling;

/// Where the stand-ins for the developer tools are: which compiler they start is a setting, and a matter of variables.
const STAND_INS: &str = "/usr/bin";

/// What names the system's version, with which all libraries of its own come.
const SYSTEM_VERSION: &[u8] = b"/System/Library/CoreServices/SystemVersion.plist";

/// What clang reads of a development kit before all headers.
const KIT_SETTINGS: &str = "SDKSettings.json";

/// Tools of which it cannot be known what they run.
///
/// # Errors
/// Why not.
pub fn refuse(tool: &Path) -> Result<(), String> {
    let real = std::fs::canonicalize(tool).map_err(|e| e.to_string())?;
    if real.parent() == Some(Path::new(STAND_INS)) {
        return Err(format!("{} stands for another compiler; name that one", real.display()));
    }
    Ok(())
}

/// The directories in a value of `PATH`.
pub fn search_path(value: &[u8]) -> Vec<Vec<u8>> {
    spelling::list(value)
}

/// What the loader reads and misses, whatever it loads.
///
/// # Errors
/// None here.
pub fn of_loader(toolchain: &mut Toolchain) -> Result<(), String> {
    toolchain.files.push(SYSTEM_VERSION.to_vec());
    for program in &toolchain.programs {
        let tool = Path::new(<std::ffi::OsStr as crate::sys::OsStrExt>::from_bytes(program));
        refuse(tool)?;
    }
    Ok(())
}

/// What clang looks at when it starts: the development kit, and what lies beside itself. `bins` are where it lies.
///
/// # Errors
/// If it does not say for which kit it compiles.
pub fn of_clang(
    toolchain: &mut Toolchain,
    said: &str,
    bins: &[PathBuf],
    _path: &[Vec<u8>],
) -> Result<(), String> {
    let kit = kit(said).ok_or("clang does not say which development kit it takes")?;
    toolchain.files.push(bytes_of(Path::new(&kit).join(KIT_SETTINGS)));
    for bin in bins {
        let prefix = bin.join("..");
        toolchain.list_tree(&prefix.join("include").join("c++"), 0);
        toolchain.list_tree(&prefix.join("lib"), 0);
    }
    Ok(())
}

/// The development kit of clang's inner command: `-isysroot KIT`, each quoted or not.
fn kit(said: &str) -> Option<String> {
    let (_, rest) = said.split_once("-isysroot")?;
    let rest = rest.trim_start_matches(['"', ' ']);
    let end = rest.find(['"', '\n']).or_else(|| rest.find(' ')).unwrap_or(rest.len());
    let value = &rest[..end];
    // Without quotes the next argument begins at a space.
    Some(value.split(" -").next().unwrap_or(value).trim().to_owned())
}
