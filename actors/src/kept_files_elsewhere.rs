//! Kept files where mounts are not told of: there are none.

use std::ffi::{CStr, CString};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::signature::Signature;
use crate::sys::{BorrowedFd, OwnedFd};

/// No kept files.
#[derive(Default)]
pub struct KeptFiles;

/// What is kept: there is no such thing.
pub enum Kept {}

/// Descriptors by name.
pub type Files = FxHashMap<CString, Arc<OwnedFd>>;

impl KeptFiles {
    /// What is kept: nothing.
    pub fn kept(&self) -> Option<Arc<Kept>> {
        None
    }

    /// Does nothing.
    pub fn rest(&self) {}
}

impl Kept {
    /// A directory with its kept files.
    pub fn of(&self, _cwd: BorrowedFd<'_>, _path: &CStr) -> Option<(Signature, Arc<Files>)> {
        match *self {}
    }

    /// Notes that a check has found files as they were.
    pub fn note<'a>(
        &self,
        _directory: Signature,
        _base: BorrowedFd<'_>,
        _names: impl Iterator<Item = (&'a CStr, Signature)>,
    ) {
        match *self {}
    }
}
