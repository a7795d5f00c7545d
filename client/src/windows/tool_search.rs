//! Finds the real tool, as the command interpreter would, and never ourselves: the twin of `tool_search.rs`.
//!
//! A name without an extension means the files that have one of `PATHEXT`. Ourselves is whatever holds the same program:
//! where links take a privilege, `gcc.exe` is a copy of the wrapper. Unlike the interpreter, the current directory is
//! looked into only if `PATH` says so.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

/// The wrapper's own name; under any other name it stands for the tool of that name.
pub const OWN_NAME: &str = "zccache";

/// The extensions of programs if `PATHEXT` is not set: what the interpreter takes then.
const EXTENSIONS_DEFAULT: &str = ".COM;.EXE;.BAT;.CMD";

/// Bytes compared at once.
const COMPARE_BYTES: usize = 64 * 1024;

/// Why there is no tool to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SearchError {
    /// No such name on `PATH`.
    NotFound,
}

/// What tools are looked for with.
pub struct Search<'a> {
    /// The value of `PATH`.
    pub path: &'a OsStr,
    /// The value of `PATHEXT`.
    pub extensions: Option<&'a OsStr>,
    /// The program that this process is.
    pub own: Option<&'a Path>,
}

impl Search<'_> {
    /// Finds `name`: itself if it has a directory and is not us, else on `PATH`.
    ///
    /// # Errors
    /// See [`SearchError`].
    pub fn find(&self, name: &OsStr) -> Result<PathBuf, SearchError> {
        let typed = Path::new(name);
        let is_plain = matches!(
            typed.components().collect::<Vec<_>>()[..],
            [Component::Normal(only)] if only == name
        );
        if !is_plain
            && let Some(found) = self.candidates(typed).find(|candidate| candidate.is_file())
            && !self.is_ours(&found)
        {
            return Ok(found);
        }
        let name = typed.file_name().ok_or(SearchError::NotFound)?;
        if base_name(name).eq_ignore_ascii_case(OWN_NAME) {
            return Err(SearchError::NotFound);
        }
        std::env::split_paths(self.path)
            .filter(|directory| !directory.as_os_str().is_empty())
            .find_map(|directory| {
                let mut here = self.candidates(&directory.join(name)).filter(|path| path.is_file());
                here.find(|path| !self.is_ours(path))
            })
            .ok_or(SearchError::NotFound)
    }

    /// The files that `path` may mean, the likeliest first.
    fn candidates(&self, path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
        let extensions = self.extensions.unwrap_or(OsStr::new(EXTENSIONS_DEFAULT)).to_string_lossy();
        let extensions: Vec<String> =
            extensions.split(';').filter(|extension| extension.starts_with('.')).map(str::to_owned).collect();
        let has_one = path.extension().is_some_and(|has| {
            let has = has.to_string_lossy();
            extensions.iter().any(|extension| extension[1..].eq_ignore_ascii_case(&has))
        });
        let whole = path.as_os_str().to_owned();
        let with = extensions.into_iter().map(move |extension| {
            let mut name = whole.clone();
            // As files are named; which is the same to the file system.
            name.push(extension.to_lowercase());
            PathBuf::from(name)
        });
        has_one.then(|| path.to_path_buf()).into_iter().chain(with)
    }

    fn is_ours(&self, candidate: &Path) -> bool {
        let Some(own) = self.own else { return false };
        same_file(own, candidate) || same_content(own, candidate).unwrap_or(false)
    }
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (std::fs::canonicalize(a), std::fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// Whether both hold the same. Nearly always the length says that they do not.
fn same_content(a: &Path, b: &Path) -> std::io::Result<bool> {
    let (mut a, mut b) = (File::open(a)?, File::open(b)?);
    let mut left = a.metadata()?.len();
    if left != b.metadata()?.len() {
        return Ok(false);
    }
    let mut buffers = (vec![0; COMPARE_BYTES], vec![0; COMPARE_BYTES]);
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(COMPARE_BYTES).min(COMPARE_BYTES);
        a.read_exact(&mut buffers.0[..part])?;
        b.read_exact(&mut buffers.1[..part])?;
        if buffers.0[..part] != buffers.1[..part] {
            return Ok(false);
        }
        left -= part as u64;
    }
    Ok(true)
}

/// A program's name without directory and extension.
pub fn base_name(program: &OsStr) -> String {
    let path = Path::new(program);
    let is_program = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("exe"));
    let name: Option<&OsStr> = if is_program { path.file_stem() } else { path.file_name() };
    name.map_or_else(|| OsString::from(program), OsStr::to_owned).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture {
        temp: tempfile::TempDir,
    }

    impl Fixture {
        /// Directories with files, each with a content.
        fn new(files: &[(&str, &str)]) -> Self {
            let temp = tempfile::tempdir().unwrap();
            for (name, content) in files {
                let path = temp.path().join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, content).unwrap();
            }
            Self { temp }
        }

        fn find(&self, name: &str, extensions: Option<&str>) -> Option<PathBuf> {
            let path = std::env::join_paths(["a", "b"].map(|d| self.temp.path().join(d))).unwrap();
            let own = self.temp.path().join("own.exe");
            let search =
                Search { path: &path, extensions: extensions.map(OsStr::new), own: Some(own.as_path()) };
            let found = search.find(OsStr::new(name)).ok()?;
            Some(found.strip_prefix(self.temp.path()).unwrap().to_path_buf())
        }
    }

    #[test]
    fn the_extensions_of_programs_are_tried_in_their_order() {
        let f = Fixture::new(&[("own.exe", "us"), ("a/gcc.bat", ""), ("a/gcc.exe", ""), ("a/gcc", "")]);
        assert_eq!(f.find("gcc", Some(".EXE;.BAT")), Some(r"a\gcc.exe".into()));
        assert_eq!(f.find("gcc", Some(".BAT;.EXE")), Some(r"a\gcc.bat".into()));
        assert_eq!(f.find("gcc.exe", Some(".BAT;.EXE")), Some(r"a\gcc.exe".into()));
        assert_eq!(f.find("gcc", None), Some(r"a\gcc.exe".into()));
        assert_eq!(f.find("gcc", Some(".py")), None);
        assert_eq!(f.find("clang", None), None);
    }

    #[test]
    fn a_version_is_no_extension() {
        let f = Fixture::new(&[("own.exe", "us"), ("b/gcc-12.2.exe", "")]);
        assert_eq!(f.find("gcc-12.2", None), Some(r"b\gcc-12.2.exe".into()));
    }

    #[test]
    fn copies_of_ourselves_are_passed_over() {
        let f = Fixture::new(&[("own.exe", "us"), ("a/gcc.exe", "us"), ("b/gcc.exe", "it")]);
        assert_eq!(f.find("gcc", None), Some(r"b\gcc.exe".into()));
        let copy = f.temp.path().join("a").join("gcc.exe");
        assert_eq!(f.find(copy.to_str().unwrap(), None), Some(r"b\gcc.exe".into()));
        let it = f.temp.path().join("b").join("gcc");
        assert_eq!(f.find(it.to_str().unwrap(), None), Some(r"b\gcc.exe".into()));
    }

    #[test]
    fn names_of_programs_are_known_with_and_without_extension() {
        for (program, name) in [
            (r"C:\bin\zccache.EXE", "zccache"),
            ("gcc-12.2", "gcc-12.2"),
            ("zccache", "zccache"),
            (r"a/b\c.exe", "c"),
        ] {
            assert_eq!(base_name(OsStr::new(program)), name);
        }
    }
}
