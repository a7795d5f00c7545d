//! The target directory of a Cargo build, as a rustc command line tells it: what lies above `--out-dir`.

use std::ffi::OsStr;
use std::path::Path;
use zccache_actors::sys::OsStrExt;

use super::command_line::CommandLine;

/// What Cargo puts into every target directory when it makes one.
const TAG: &str = "CACHEDIR.TAG";

/// How far above `--out-dir` it may be: `TARGET/MACHINE/PROFILE/build/CRATE/out/…` is the deepest in use, by compilers that
/// build scripts try out.
const LEVELS_MAX: usize = 8;

/// The nearest directory above `--out-dir` that is tagged as one of Cargo's.
pub fn target_dir(line: &CommandLine) -> Option<Vec<u8>> {
    let out_dir = Path::new(OsStr::from_bytes(line.out_dir.as_ref()?));
    if !out_dir.is_absolute() {
        return None;
    }
    let target = out_dir.ancestors().skip(1).take(LEVELS_MAX).find(|dir| dir.join(TAG).exists())?;
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
        for out_dir in [
            "debug/deps",
            "release/examples",
            "debug/build/a-1",
            "wasm32/debug/deps",
            "debug/build/a-1/out/probe",
        ] {
            assert_eq!(find(out_dir), expect, "{out_dir}");
        }
        let deep = |levels: usize| (0..levels).map(|n| n.to_string()).collect::<Vec<_>>().join("/");
        assert_eq!(find(&deep(LEVELS_MAX)), expect);
        assert_eq!(find(&deep(LEVELS_MAX + 1)), None);
    }
}
