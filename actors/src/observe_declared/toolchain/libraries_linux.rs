//! Which libraries a program is loaded with, as its own loader tells.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::CWD;

use crate::invocation::Invocation;
use crate::program_file::{Format, format_of};

/// What loading a program reads.
#[derive(Debug, Default)]
pub struct Libraries {
    /// The loader and the libraries.
    pub files: Vec<Vec<u8>>,
    /// Where libraries were looked for in vain.
    pub missing: Vec<Vec<u8>>,
}

/// Where libraries are looked for: the loader knows by itself.
pub struct Search;

impl Search {
    /// For a tool that is called so.
    pub fn new(_: &Invocation, _path: &[Vec<u8>]) -> Self {
        Self
    }
}

/// The libraries of the program at `path`, which is not run.
///
/// # Errors
/// If that is a script, or its loader does not tell.
pub fn of(path: &Path, _: &Search) -> Result<Libraries, String> {
    let loader = match format_of(CWD, std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())) {
        Format::Elf(None) => return Ok(Libraries::default()),
        Format::Elf(Some(loader)) => String::from_utf8(loader).map_err(|_| "a loader of a strange name")?,
        _ => return Err(format!("{} is a script", path.display())),
    };
    let mut command = Command::new(&loader);
    // glibc's: every path that it tries goes to standard error.
    command.arg("--list").arg(path).env_clear().env("LD_DEBUG", "libs").stdin(Stdio::null());
    let output = command.output().map_err(|e| format!("{loader}: {e}"))?;
    let (listed, tried) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() || !tried.contains("find library=") {
        return Err(format!("{loader} does not tell which libraries it loads"));
    }
    let mut libraries = Libraries { files: vec![loader.into_bytes()], ..Libraries::default() };
    libraries.files.extend(listed.lines().filter_map(loaded));
    for path in tried.lines().filter_map(|line| line.split_once("trying file=")).map(|(_, path)| path.trim())
    {
        let path = path.as_bytes().to_vec();
        if !libraries.files.contains(&path) {
            libraries.missing.push(path);
        }
    }
    Ok(libraries)
}

/// `libz.so.1 => /lib/libz.so.1 (0x…)`; the kernel's own library has no path.
fn loaded(line: &str) -> Option<Vec<u8>> {
    let (_, path) = line.split_once(" => ")?;
    let path = path.rsplit_once(" (0x").map_or(path, |(path, _)| path).trim();
    path.starts_with('/').then(|| path.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_loaded_with_its_loader_and_libc() {
        let own = std::env::current_exe().unwrap();
        let libraries = of(&own, &Search).unwrap();
        let names: Vec<_> = libraries.files.iter().map(|f| String::from_utf8_lossy(f).into_owned()).collect();
        assert!(names.iter().any(|n| n.contains("/libc.so")), "{names:?}");
        assert!(names[0].contains("/ld-"), "{names:?}");
    }

    #[test]
    fn scripts_are_refused() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("gcc"), "#!/bin/sh\n").unwrap();
        assert!(of(&temp.path().join("gcc"), &Search).is_err());
    }
}
