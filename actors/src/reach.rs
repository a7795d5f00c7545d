//! Reach: where a stored result may write, judged by the request that it is served to.
//!
//! A record comes from a disk, so its output paths are not taken at their word: what is delivered lies beside an output
//! that the command line names, in a directory that an argument names, or below the requester's directory, with no
//! link on the way there. Anything else is not served; the tool runs.

use crate::freshness::WorkingDirectory;
use crate::invocation::Invocation;
use crate::plan::Plan;
use crate::spelling;
use crate::sys::fs::{AtFlags, statat};

/// Whether a result of this request, whose directory `cwd` is, may write to `path`, as spelled.
pub fn allows(path: &[u8], invocation: &Invocation, plan: &Plan, cwd: &WorkingDirectory) -> bool {
    let directory = directory_of(path);
    if plan.outputs.iter().any(|output| directory_of(&output.0) == directory) {
        return true;
    }
    let inside = match path.strip_prefix(&invocation.cwd[..]) {
        Some(rest) => rest.strip_prefix(b"/").unwrap_or(path),
        None => path,
    };
    let climbs = path.split(|&b| b == b'/').any(|part| part == b"..");
    (!spelling::is_absolute(inside) && !climbs && is_without_links(directory_of(inside), cwd))
        || invocation.argv.iter().skip(1).any(|argument| names(argument, directory))
}

/// Whether every directory on the way from `cwd` to `directory` is one, and no link.
fn is_without_links(directory: &[u8], cwd: &WorkingDirectory) -> bool {
    let slashes = directory.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let ends = slashes.chain((!directory.is_empty()).then_some(directory.len()));
    ends.into_iter().map(|end| &directory[..end]).all(|step| {
        let kind =
            statat(cwd.fd(), step, AtFlags::SYMLINK_NOFOLLOW).map(|stat| stat.st_mode & crate::sys::S_IFMT);
        kind == Ok(crate::sys::S_IFDIR)
    })
}

/// What stands before the last slash: empty if there is none, the slash itself if it is the root's.
fn directory_of(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&b| b == b'/').map_or(b"", |slash| &path[..slash.max(1)])
}

/// Whether `argument` ends in `directory` (`-dumpdir out/`, `--out-dir=/out`), or in a file there (`-aux-info=/out/x`).
fn names(argument: &[u8], directory: &[u8]) -> bool {
    let argument = argument.strip_suffix(b"/").unwrap_or(argument);
    let ends = |text: &[u8]| {
        let before = text.strip_suffix(directory);
        // `/home` is not named by `-I/other/home`, nor `..` by `-I../..`.
        before.is_some_and(|before| {
            !before.ends_with(b"/") && (directory.starts_with(b"/") || !before.ends_with(b"."))
        })
    };
    !directory.is_empty() && (ends(argument) || ends(directory_of(argument)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::Spelled;
    use crate::test_support::{invocation, plan};
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_result_stays_where_its_request_could_have_written() {
        let mut request =
            invocation(&["gcc", "-c", "a.c", "-o", "../out/a.o", "-aux-info", "/info/a.X", "--out-dir=/o/d"]);
        request.cwd = b"/home/user/project".to_vec();
        let place = tempfile::tempdir().unwrap();
        std::fs::create_dir(place.path().join("sub")).unwrap();
        std::os::unix::fs::symlink("/", place.path().join("sub/link")).unwrap();
        let cwd = WorkingDirectory::open(place.path().as_os_str().as_bytes()).unwrap();
        let mut plan = plan();
        plan.outputs = vec![Spelled(b"../out/a.o".to_vec()), Spelled(b"a.d".to_vec())];
        let may = |path: &str| allows(path.as_bytes(), &request, &plan, &cwd);
        for path in [
            "a.o",
            "sub/a.o",
            "./a.o",
            "/home/user/project/a.o",
            "/home/user/project/sub/a.o",
            "../out/a.o",
            "../out/a.su",
            "/info/a.X",
            "/o/d/b.d",
        ] {
            assert!(may(path), "{path}");
        }
        for path in [
            "../a.o",
            "../../.profile",
            "sub/../../x",
            "/home/user/.profile",
            "/home/user/projects/x",
            "/etc/passwd",
            "/x",
            "/o/e/x",
            "/home/user/project/../x",
            "../out/../x",
            "sub/link/x",
            "sub/link/etc/x",
            "/home/user/project/sub/link/x",
            "missing/x",
        ] {
            assert!(!may(path), "{path}");
        }
    }
}
