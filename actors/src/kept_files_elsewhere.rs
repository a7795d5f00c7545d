//! Kept files where mounts are not told of: there are none.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::signature::Signature;
use crate::sys::{BorrowedFd, OwnedFd};

/// No kept files.
#[derive(Default)]
pub struct KeptFiles;

/// There is nothing to make room for.
pub fn make_room() {}

/// What is kept: there is no such thing.
pub enum Kept {}

/// What a check has seen of kept directories.
#[derive(Default)]
pub struct Looks;

/// What a path leads to, by what is kept alone.
pub enum Stood {
    /// Nothing.
    Missing,
    /// A directory.
    There(Standing),
}

/// A directory as it stands now, and what of it is kept.
pub struct Standing {
    /// Its signature.
    pub signature: Signature,
    /// The number of the mount it is reached by.
    pub mount: u64,
    /// Its kept files.
    pub files: Arc<Files>,
}

/// Descriptors by name.
pub type Files = FxHashMap<Box<[u8]>, Arc<OwnedFd>>;

impl Standing {
    /// The directory itself: it is not kept open.
    pub fn base(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

impl KeptFiles {
    /// What is kept: nothing.
    pub fn kept(&self) -> Option<Arc<Kept>> {
        None
    }

    /// Does nothing.
    pub fn rest(&self) {}
}

impl Kept {
    /// Which mounts there are.
    pub fn mounts(&self) -> u64 {
        match *self {}
    }

    /// A directory, known by its way alone.
    pub fn by_way(&self, _path: &[u8], _looks: &mut Looks) -> Option<Stood> {
        match *self {}
    }

    /// Notes that a check has found everything in a directory as it was.
    pub fn note_way(&self, _path: &[u8]) {
        match *self {}
    }

    /// A directory with its kept files.
    pub fn of(&self, _cwd: BorrowedFd<'_>, _path: &[u8]) -> Option<Standing> {
        match *self {}
    }

    /// The signature of an open directory, and the number of its mount.
    pub fn look(&self, _directory: BorrowedFd<'_>) -> crate::sys::io::Result<(Signature, u64)> {
        match *self {}
    }

    /// Notes that a check has found files as they were.
    pub fn note<'a>(
        &self,
        _directory: Signature,
        _base: BorrowedFd<'_>,
        _names: impl Iterator<Item = (&'a [u8], Signature)>,
    ) {
        match *self {}
    }
}
