//! Everything a command leaves behind that somebody could notice, and where two of them differ.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Output;

/// The bytes of an output that a failure message shows.
const SHOWN_BYTES_MAX: usize = 2000;

/// How a command ended and what it printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Exit status, or the signal as a negative number.
    pub status: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Outcome {
    /// Whether the command succeeded.
    pub fn success(&self) -> bool {
        self.status == 0
    }

    /// Standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Itself, if the command succeeded.
    ///
    /// # Panics
    /// If it did not; the message holds all it printed.
    #[track_caller]
    pub fn expect_success(self) -> Self {
        assert!(self.success(), "the command failed: {self:?}");
        self
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        let signal = || output.status.signal().map_or(i32::MIN, |s| -s);
        Self {
            status: output.status.code().unwrap_or_else(signal),
            stdout: output.stdout,
            stderr: output.stderr,
        }
    }
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text =
            |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES_MAX)]).into_owned();
        write!(
            f,
            "status {}\n--- stdout\n{}\n--- stderr\n{}\n---",
            self.status,
            text(&self.stdout),
            text(&self.stderr)
        )
    }
}

/// What one name in a directory stands for.
#[derive(Clone, PartialEq, Eq)]
pub enum Entry {
    /// A regular file: its permission bits and content.
    File(u32, Vec<u8>),
    /// A directory: its permission bits.
    Directory(u32),
    /// A symbolic link: where it leads.
    Symlink(OsString),
    /// Anything else: its whole mode.
    Other(u32),
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(mode, bytes) => write!(f, "file {mode:o}, {} bytes", bytes.len()),
            Self::Directory(mode) => write!(f, "directory {mode:o}"),
            Self::Symlink(target) => write!(f, "link to {}", target.display()),
            Self::Other(mode) => write!(f, "mode {mode:o}"),
        }
    }
}

/// Everything below a directory, by path relative to it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Tree(BTreeMap<PathBuf, Entry>);

impl Tree {
    /// Reads all of `root`.
    ///
    /// # Panics
    /// If something in it cannot be read.
    pub fn read(root: &Path) -> Self {
        let mut tree = Self::default();
        tree.add(root, Path::new(""));
        tree
    }

    /// The bytes of a regular file.
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        match self.0.get(Path::new(path)) {
            Some(Entry::File(_, bytes)) => Some(bytes),
            _ => None,
        }
    }

    /// Leaves only existence and mode of a regular file to be compared.
    pub fn forget_content(&mut self, path: &Path) {
        if let Some(Entry::File(_, bytes)) = self.0.get_mut(path) {
            bytes.clear();
        }
    }

    /// The same for all whose path is of this kind.
    pub fn forget_contents(&mut self, is_meant: impl Fn(&Path) -> bool) {
        for (_, entry) in self.0.iter_mut().filter(|(path, _)| is_meant(path)) {
            if let Entry::File(_, bytes) = entry {
                bytes.clear();
            }
        }
    }

    /// Where `self` (the bare tool's) and `other` (the cached one's) differ, for people; empty if nowhere.
    pub fn differences(&self, other: &Tree) -> String {
        let mut text = String::new();
        for (path, bare) in &self.0 {
            match other.0.get(path) {
                Some(cached) if cached == bare => {}
                Some(Entry::File(mode, bytes)) if matches!(bare, Entry::File(m, _) if m == mode) => {
                    let Entry::File(_, expected) = bare else { continue };
                    let at = expected.iter().zip(bytes).take_while(|(a, b)| a == b).count();
                    let _ = writeln!(
                        text,
                        "{}: {} bytes bare, {} cached, first difference at {at}",
                        path.display(),
                        expected.len(),
                        bytes.len()
                    );
                }
                cached => _ = writeln!(text, "{}: bare {bare:?}, cached {cached:?}", path.display()),
            }
        }
        for (path, cached) in other.0.iter().filter(|(path, _)| !self.0.contains_key(*path)) {
            let _ = writeln!(text, "{}: not there bare, cached {cached:?}", path.display());
        }
        text
    }

    fn add(&mut self, root: &Path, below: &Path) {
        let directory = root.join(below);
        let entries = std::fs::read_dir(&directory)
            .unwrap_or_else(|e| panic!("cannot list {}: {e}", directory.display()));
        for entry in entries {
            let entry = entry.expect("a directory's entry can be read");
            let path = below.join(entry.file_name());
            let value = read_entry(&entry.path());
            let is_directory = matches!(value, Entry::Directory(_));
            self.0.insert(path.clone(), value);
            if is_directory {
                self.add(root, &path);
            }
        }
    }
}

fn read_entry(path: &Path) -> Entry {
    let metadata = path.symlink_metadata().unwrap_or_else(|e| panic!("cannot stat {}: {e}", path.display()));
    let mode = metadata.mode();
    if metadata.is_symlink() {
        let target = std::fs::read_link(path).expect("a link can be read").into_os_string().into_vec();
        Entry::Symlink(OsString::from_vec(target))
    } else if metadata.is_dir() {
        Entry::Directory(mode & 0o7777)
    } else if metadata.is_file() {
        let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()));
        Entry::File(mode & 0o7777, bytes)
    } else {
        Entry::Other(mode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn bytes_modes_and_existence_all_show() {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for root in [&a, &b] {
            std::fs::create_dir(root.path().join("d")).unwrap();
            std::fs::write(root.path().join("d/same"), "x").unwrap();
        }
        let compare = || Tree::read(a.path()).differences(&Tree::read(b.path()));
        assert_eq!(compare(), "");
        std::fs::write(a.path().join("only"), "").unwrap();
        assert!(compare().contains("only: bare file"));
        std::fs::write(b.path().join("only"), "").unwrap();
        std::fs::set_permissions(b.path().join("only"), PermissionsExt::from_mode(0o755)).unwrap();
        assert!(compare().contains("cached Some(file 755"));
        std::fs::remove_file(a.path().join("only")).unwrap();
        assert!(compare().contains("not there bare"));
        std::fs::remove_file(b.path().join("only")).unwrap();
        std::fs::write(b.path().join("d/same"), "y").unwrap();
        assert!(compare().contains("first difference at 0"));
    }
}
