//! The checkout of a Cargo build: the working directory, if all that the command says of it is where results go and what takes
//! its place, so that the same compile in another checkout may be the same but for that.

use std::ffi::OsStr;
use std::path::{Component, Path};
use zccache_actors::plan::Checkout;
use zccache_actors::sys::OsStrExt;
use zccache_proto::ByteStrings;

use super::command_line::CommandLine;

/// The working directory as a checkout that others may have elsewhere. Nothing if the source is not named from there, if an
/// option is in play whose use of paths is not settled (`-Z`, argument files), or if a prefix map takes away more than the
/// checkout, or some of where the results go: what is left of a path then tells where it was, and a search does not find it.
pub fn checkout(
    line: &CommandLine,
    argv: &ByteStrings,
    cwd: &Path,
    target: Option<&[u8]>,
) -> Option<Checkout> {
    let [source] = line.sources.as_slice() else { return None };
    let is_below =
        Path::new(OsStr::from_bytes(source)).components().all(|c| matches!(c, Component::Normal(_)));
    let has_argument_file = argv.iter().any(|argument| argument.starts_with(b"@"));
    if !is_below || has_argument_file || line.is_unstable || line.brings_code {
        return None;
    }
    let target = Path::new(OsStr::from_bytes(target?));
    let mut is_mapped_away = false;
    for map in &line.prefix_maps {
        let old = old_half(map)?;
        let takes = |path: &Path| path.starts_with(old);
        if old == cwd {
            is_mapped_away = true;
        } else if takes(cwd) || (takes(target) && !old.starts_with(cwd)) {
            return None;
        }
    }
    let path = cwd.as_os_str().as_bytes().to_vec();
    Some(Checkout { path, is_mapped_away: is_mapped_away && !line.limits_maps })
}

/// What a prefix map takes away: all before the last `=`, as rustc splits it.
fn old_half(map: &[u8]) -> Option<&Path> {
    let end = map.iter().rposition(|&b| b == b'=')?;
    Some(Path::new(OsStr::from_bytes(&map[..end])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_of_the_checkout_alone_hide_it() {
        let find = |line: &str| {
            let argv: ByteStrings = line.split(' ').map(str::as_bytes).collect();
            let words: Vec<Vec<u8>> = argv.iter().skip(1).map(<[u8]>::to_vec).collect();
            let line = CommandLine::parse(&words);
            let found = checkout(&line, &argv, Path::new("/a/b"), Some(b"/a/b/target"));
            found.map(|checkout| checkout.is_mapped_away)
        };
        for (line, expect) in [
            ("rustc src/lib.rs", Some(false)),
            ("rustc src/lib.rs --remap-path-prefix=/a/b=.", Some(true)),
            ("rustc src/lib.rs --remap-path-prefix /a/b/=x", Some(true)),
            ("rustc src/lib.rs --remap-path-prefix=/a/b/src=x", Some(false)),
            ("rustc src/lib.rs --remap-path-prefix=/other=x", Some(false)),
            ("rustc src/lib.rs --remap-path-prefix=/a/b=x=y", Some(false)),
            ("rustc src/lib.rs --remap-path-prefix=/a/b=. --remap-path-scope=macro", Some(false)),
            ("rustc src/lib.rs --remap-path-prefix=/a/b=. --remap-path-prefix=/a=x", None),
            ("rustc src/lib.rs --remap-path-prefix==x", None),
            ("rustc src/lib.rs --remap-path-prefix=x", None),
            ("rustc src/lib.rs -Zthreads=2", None),
            ("rustc @arguments src/lib.rs", None),
            ("rustc /a/b/src/lib.rs", None),
            ("rustc ../src/lib.rs", None),
        ] {
            assert_eq!(find(line), expect, "{line}");
        }
    }
}
