//! `@file` arguments: rustc reads more arguments from the file, one a line.

use std::ffi::OsStr;
use std::path::Path;
use zccache_actors::sys::OsStrExt;

/// The most bytes of an argument file that are read (16 MiB), many times what a system's command line may hold.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// The arguments with those in argument files put in their places. Such files hold no further ones.
///
/// # Errors
/// If one cannot be read, or is split by a shell's rules (`@shell:`).
pub fn expand<'a>(
    arguments: impl Iterator<Item = &'a [u8]>,
    cwd: &Path,
) -> Result<Vec<Vec<u8>>, &'static str> {
    let mut expanded = Vec::new();
    for argument in arguments {
        match argument.strip_prefix(b"@") {
            None => expanded.push(argument.to_vec()),
            Some(path) => {
                let text = read(&cwd.join(OsStr::from_bytes(path))).ok_or("response_file")?;
                expanded.extend(text.lines().map(|line| line.as_bytes().to_vec()));
            }
        }
    }
    Ok(expanded)
}

fn read(path: &Path) -> Option<String> {
    let metadata = std::fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return None;
    }
    std::fs::read_to_string(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_an_argument_and_files_do_not_nest() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("args"), "--cfg\nfeature=\"a b\"\n@args\n").unwrap();
        let arguments = [&b"a.rs"[..], b"@args", b"-O"];
        let expanded = expand(arguments.into_iter(), temp.path()).unwrap();
        assert_eq!(expanded, [&b"a.rs"[..], b"--cfg", b"feature=\"a b\"", b"@args", b"-O"]);
        for missing in [&b"@missing"[..], b"@shell:args", b"@."] {
            assert_eq!(expand([missing].into_iter(), temp.path()), Err("response_file"));
        }
    }

    #[test]
    fn a_file_longer_than_any_command_line_is_not_read() {
        let temp = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(temp.path().join("args")).unwrap();
        for (bytes, is_read) in [(FILE_BYTES_MAX, true), (FILE_BYTES_MAX + 1, false)] {
            file.set_len(bytes).unwrap();
            assert_eq!(expand([&b"@args"[..]].into_iter(), temp.path()).is_ok(), is_read, "{bytes}");
        }
    }
}
