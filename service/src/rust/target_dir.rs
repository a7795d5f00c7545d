//! The target directory of a Cargo build, as a rustc command line tells it: what lies above `--out-dir`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::command_line::CommandLine;

/// What Cargo puts into every target directory when it makes one.
const TAG: &str = "CACHEDIR.TAG";

/// The directory, if this is a compile of Cargo's: its `--out-dir` is `TARGET/PROFILE/deps`, `TARGET/PROFILE/examples`
/// or `TARGET/PROFILE/build/CRATE`, with a directory for the machine that is compiled for before the profile if that
/// was named.
pub fn target_dir(line: &CommandLine) -> Option<Vec<u8>> {
    let out_dir = Path::new(OsStr::from_bytes(line.out_dir.as_ref()?));
    let named = |dir: &Path, name: &str| dir.file_name().is_some_and(|n| n == name);
    let parent = out_dir.parent()?;
    let profile = if named(out_dir, "deps") || named(out_dir, "examples") {
        parent
    } else if named(parent, "build") {
        parent.parent()?
    } else {
        return None;
    };
    let directory = profile.parent().filter(|dir| dir.is_absolute())?;
    let has_tag = |dir: &&Path| dir.join(TAG).exists();
    let target = [Some(directory), directory.parent()].into_iter().flatten().find(has_tag)?;
    Some(target.as_os_str().as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_with_the_tag_is_found_above_the_outputs() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("t");
        std::fs::create_dir(&root).unwrap();
        let find = |out_dir: &str| {
            let out_dir = root.join(out_dir).into_os_string().into_encoded_bytes();
            target_dir(&CommandLine { out_dir: Some(out_dir), ..CommandLine::default() })
        };
        assert_eq!(find("debug/deps"), None);
        std::fs::write(root.join(TAG), "").unwrap();
        let expect = Some(root.as_os_str().as_bytes().to_vec());
        for out_dir in ["debug/deps", "release/examples", "debug/build/a-1", "wasm32/debug/deps"] {
            assert_eq!(find(out_dir), expect, "{out_dir}");
        }
        assert_eq!(find("debug/other"), None);
        assert_eq!(find("a/b/c/deps"), None);
    }
}
