//! The attic: where outputs go that are in the way.
//!
//! Removing them would not do. ext4 leaves an inode unused for minutes after its removal, and goes through all such ones for
//! each file that is made: whoever makes files would pay for the rounds before, and most who makes most.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};

/// See the module.
pub struct Attic {
    directory: PathBuf,
    count: Cell<usize>,
}

impl Attic {
    /// An empty one in `place`.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(place: &Path) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("attic").tempdir_in(place)?.keep();
        Ok(Self { directory, count: Cell::new(0) })
    }

    /// Puts away what is at `path`, if anything.
    ///
    /// # Errors
    /// If it cannot be moved.
    pub fn put(&self, path: &Path) -> io::Result<()> {
        let number = self.count.replace(self.count.get() + 1);
        match std::fs::rename(path, self.directory.join(number.to_string())) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}
