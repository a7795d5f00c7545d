//! Finds the real tool, as a shell would, and never ourselves.
//!
//! Ourselves is a file, not a name: whatever leads to the executable that runs now is passed over, and so is a
//! link to another copy of the wrapper, with which this one would otherwise call each other for ever.

use std::ffi::{CStr, CString};

use rustix::fs::{Access, AtFlags, CWD, FileType, Stat};

use crate::invocation::{OWN_NAME, base_name};
use crate::kernel;

/// Where tools are looked for if `PATH` is not set: what the C library takes then.
const PATH_DEFAULT: &[u8] = b"/bin:/usr/bin";

/// A file, whatever its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    device: rustix::fs::Dev,
    inode: u64,
}

impl FileId {
    /// The file of which this is the status.
    pub fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }

    /// The executable of this process.
    pub fn own() -> Option<Self> {
        let by_proc = rustix::fs::stat(kernel::OWN_PROGRAM).ok();
        let stat = by_proc.or_else(|| rustix::fs::stat(kernel::started_by()?).ok())?;
        Some(Self::of(&stat))
    }
}

/// Why there is no tool to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchError {
    /// No such name on `PATH`.
    NotFound,
    /// There are files of that name, but none that may be executed.
    NotExecutable,
}

/// What a path leads to.
enum Candidate {
    Tool,
    Ourselves,
    NotExecutable,
    Missing,
}

/// A tool that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Spelled as found, without following links: tools look at the name they are called by.
    pub path: CString,
    /// A way to ourselves was passed over. The tool, looking for itself by the name as typed, would find that.
    pub passed_over: bool,
}

/// Finds `name`: itself if it has a slash and is not us, else on `path` (the value of `PATH`).
///
/// # Errors
/// See [`SearchError`]. A name with a slash is given back even if nothing is there, since running it gives
/// the right error.
pub fn find(name: &CStr, path: Option<&[u8]>, own: Option<FileId>) -> Result<Found, SearchError> {
    let mut passed_over = false;
    let mut name = name.to_bytes();
    if name.contains(&b'/') {
        let typed = CString::new(name).map_err(|_| SearchError::NotFound)?;
        match judge(&typed, own) {
            Candidate::Ourselves => (name, passed_over) = (base_name(name), true),
            _ => return Ok(Found { path: typed, passed_over }),
        }
    }
    if name.is_empty() || name == OWN_NAME {
        return Err(SearchError::NotFound);
    }
    let mut error = SearchError::NotFound;
    for directory in path.unwrap_or(PATH_DEFAULT).split(|&b| b == b':') {
        let mut candidate = Vec::with_capacity(directory.len() + name.len() + 2);
        // An empty entry is the current directory, which must be spelled to have a slash.
        candidate.extend_from_slice(if directory.is_empty() { b"." } else { directory });
        if !candidate.ends_with(b"/") {
            candidate.push(b'/');
        }
        candidate.extend_from_slice(name);
        let Ok(candidate) = CString::new(candidate) else { continue };
        match judge(&candidate, own) {
            Candidate::Tool => return Ok(Found { path: candidate, passed_over }),
            Candidate::NotExecutable => error = SearchError::NotExecutable,
            Candidate::Ourselves => passed_over = true,
            Candidate::Missing => {}
        }
    }
    Err(error)
}

fn judge(path: &CStr, own: Option<FileId>) -> Candidate {
    let Ok(stat) = rustix::fs::stat(path) else { return Candidate::Missing };
    if own == Some(FileId::of(&stat)) || is_link_to_a_wrapper(path) {
        return Candidate::Ourselves;
    }
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile if may_execute(path) => Candidate::Tool,
        FileType::RegularFile => Candidate::NotExecutable,
        _ => Candidate::Missing,
    }
}

fn may_execute(path: &CStr) -> bool {
    // The mode does not tell all: there are mounts that forbid it, and access control lists.
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

fn is_link_to_a_wrapper(path: &CStr) -> bool {
    rustix::fs::readlink(path, [0; 256]).is_ok_and(|target| base_name(target.to_bytes()) == OWN_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    fn make(path: &Path, mode: u32) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    fn id(path: &Path) -> FileId {
        FileId::of(&rustix::fs::stat(path).unwrap())
    }

    /// `a/gcc` is a link to us, `b/gcc` a directory, `c/gcc` not executable, `d/gcc` and `e/gcc` are tools.
    fn tree() -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        make(&root.join("bin/zccache"), 0o755);
        make(&root.join("c/gcc"), 0o644);
        make(&root.join("d/gcc"), 0o755);
        make(&root.join("e/gcc"), 0o700);
        make(&root.join("other/zccache"), 0o755);
        for (dir, target) in [("a", "bin/zccache"), ("f", "other/zccache")] {
            std::fs::create_dir(root.join(dir)).unwrap();
            symlink(root.join(target), root.join(dir).join("gcc")).unwrap();
        }
        std::fs::create_dir_all(root.join("b/gcc")).unwrap();
        temp
    }

    fn check(dirs: &[&str], name: &str, expect: Result<&str, SearchError>) {
        let temp = tree();
        let join = |dir: &&str| temp.path().join(dir).into_os_string().into_encoded_bytes();
        let path = dirs.iter().map(join).collect::<Vec<_>>().join(&b':');
        let name = CString::new(name.replace("ROOT", temp.path().to_str().unwrap())).unwrap();
        let found = find(&name, Some(&path), Some(id(&temp.path().join("bin/zccache"))));
        let expect = expect.map(|e| CString::new(temp.path().join(e).as_os_str().as_bytes()).unwrap());
        assert_eq!(found.map(|f| f.path), expect, "{dirs:?} {name:?}");
    }

    #[test]
    fn the_first_tool_that_may_be_executed_is_found_and_never_ourselves() {
        check(&["a", "b", "c", "d", "e"], "gcc", Ok("d/gcc"));
        check(&["a", "e", "d"], "gcc", Ok("e/gcc"));
        check(&["a", "b"], "gcc", Err(SearchError::NotFound));
        check(&["a", "c"], "gcc", Err(SearchError::NotExecutable));
        check(&["d"], "g++", Err(SearchError::NotFound));
        check(&["d"], "", Err(SearchError::NotFound));
        check(&["bin", "other"], "zccache", Err(SearchError::NotFound));
    }

    #[test]
    fn it_is_told_whether_we_were_on_the_way() {
        let temp = tree();
        let path = ["a", "d"].map(|d| temp.path().join(d).into_os_string().into_encoded_bytes()).join(&b':');
        let own = Some(id(&temp.path().join("bin/zccache")));
        assert!(find(c"gcc", Some(&path), own).unwrap().passed_over);
        assert!(!find(c"gcc", Some(path.split(|&b| b == b':').nth(1).unwrap()), own).unwrap().passed_over);
    }

    #[test]
    fn another_copy_of_the_wrapper_is_passed_over_as_well() {
        check(&["f", "a", "d"], "gcc", Ok("d/gcc"));
    }

    #[test]
    fn a_path_is_taken_as_typed_unless_it_is_ours() {
        check(&["e"], "ROOT/d/gcc", Ok("d/gcc"));
        check(&["e"], "ROOT/a/gcc", Ok("e/gcc"));
        check(&["e"], "ROOT/nowhere/gcc", Ok("nowhere/gcc"));
        check(&["e"], "ROOT/bin/zccache", Err(SearchError::NotFound));
    }

    #[test]
    fn empty_entries_are_the_current_directory_and_no_path_is_the_default() {
        assert_eq!(find(c"Cargo.toml", Some(b":/nowhere"), None), Err(SearchError::NotExecutable));
        assert_eq!(find(c"Cargo.toml", Some(b"/nowhere"), None), Err(SearchError::NotFound));
        assert!(find(c"sh", None, None).unwrap().path.to_bytes().ends_with(b"/bin/sh"));
    }
}
