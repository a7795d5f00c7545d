//! Reach: where a stored result may write, judged by the request that it is served to.
//!
//! A record comes from a disk, so its output paths are not taken at their word: what is delivered lies below the
//! requester's directory, beside an output that the command line names, or in a directory that an argument names.
//! Anything else is not served; the tool runs.

use crate::invocation::Invocation;
use crate::plan::Plan;

/// Whether a result of this request may write to `path`, as spelled.
pub fn allows(path: &[u8], invocation: &Invocation, plan: &Plan) -> bool {
    let inside = match path.strip_prefix(&invocation.cwd[..]) {
        Some(rest) => rest.strip_prefix(b"/").unwrap_or(path),
        None => path,
    };
    let climbs = path.split(|&b| b == b'/').any(|part| part == b"..");
    if !inside.starts_with(b"/") && !climbs {
        return true;
    }
    let directory = directory_of(path);
    plan.outputs.iter().any(|output| directory_of(&output.0) == directory)
        || invocation.argv.iter().skip(1).any(|argument| names(argument, directory))
}

/// What stands before the last slash; empty if there is none.
fn directory_of(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&b| b == b'/').map_or(b"", |slash| &path[..slash])
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

    #[test]
    fn a_result_stays_where_its_request_could_have_written() {
        let mut request =
            invocation(&["gcc", "-c", "a.c", "-o", "../out/a.o", "-aux-info", "/info/a.X", "--out-dir=/o/d"]);
        request.cwd = b"/home/user/project".to_vec();
        let mut plan = plan();
        plan.outputs = vec![Spelled(b"../out/a.o".to_vec())];
        let may = |path: &str| allows(path.as_bytes(), &request, &plan);
        for path in [
            "a.o",
            "sub/a.o",
            "./a.o",
            "/home/user/project/a.o",
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
        ] {
            assert!(!may(path), "{path}");
        }
    }
}
