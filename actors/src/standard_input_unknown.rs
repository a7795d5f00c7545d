//! Standard input where it cannot be looked at without taking it: a tool that reads its source there is passed through.
//!
//! The twin of `standard_input.rs`, for systems other than Linux.

use std::convert::Infallible;
use std::io;

use crate::digest::Digest;
use crate::sys::OwnedFd;

/// An input that is known whole: there is none here.
#[derive(Debug)]
pub struct StandardInput {
    /// The digest of what there is to read.
    pub digest: Digest,
    never: Infallible,
}

impl StandardInput {
    /// Looks at what there is to read.
    ///
    /// # Errors
    /// Always: it cannot be known.
    pub fn look(_: OwnedFd) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Whether all of it was read.
    pub fn is_used_up(&self) -> bool {
        match self.never {}
    }

    /// Has all of it read.
    ///
    /// # Errors
    /// Never.
    pub fn use_up(&self) -> io::Result<()> {
        match self.never {}
    }
}
