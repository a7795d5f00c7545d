//! What a check saw.

use crate::kept_files::Looks;
use crate::signature::Signature;

use super::memo::Directory;

/// See the module. All by number.
#[derive(Default)]
pub struct Seen {
    /// Of each observation that is not as the memo has it, or not settled: the file, if its identity counts.
    pub changed: Vec<(u32, Option<Signature>)>,
    /// Of each group's directory, where that can stand for its names.
    pub directories: Vec<(usize, Option<Directory>)>,
    /// Of each directory whose names were compared, from before that.
    pub listed: Vec<(u32, Signature)>,
    /// Of directories that are kept open.
    pub looks: Looks,
}

impl Seen {
    /// Adds what another thread saw in the same check.
    pub fn add(&mut self, other: Self) {
        self.changed.extend(other.changed);
        self.directories.extend(other.directories);
        self.listed.extend(other.listed);
    }
}
