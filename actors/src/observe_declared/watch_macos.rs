//! Notices, once a tool has run, the names that decide where its inputs are and that came and went: by the times of the
//! directories that they are in. The twin of `watch_linux.rs`.
//!
//! Nothing tells which name it was, so whatever came or went in one of these directories counts: a compile that writes
//! its object beside its source is not stored.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use crate::signature::{Signature, coarse_now_ns};

/// Watched directories, as they were.
pub struct Watch {
    directories: Vec<(PathBuf, Option<Signature>)>,
}

impl Watch {
    /// Begins to watch. A directory that is not there needs no watch: its name is one in another directory.
    ///
    /// # Errors
    /// If one has changed too lately to tell of another change.
    pub fn new(steps: &HashMap<PathBuf, HashSet<OsString>>) -> io::Result<Self> {
        let now_ns = coarse_now_ns();
        let mut directories = Vec::with_capacity(steps.len());
        for directory in steps.keys() {
            let signature = Signature::of(directory.as_path()).ok();
            if signature.is_some_and(|signature| !signature.is_settled(now_ns)) {
                return Err(io::Error::other(format!("{} has just changed", directory.display())));
            }
            directories.push((directory.clone(), signature));
        }
        Ok(Self { directories })
    }

    /// The first directory in which a name came, went or was replaced, if one did.
    pub fn changed(&mut self) -> Option<String> {
        let is_other = |(directory, before): &&(PathBuf, Option<Signature>)| {
            Signature::of(directory.as_path()).ok() != *before
        };
        self.directories.iter().find(is_other).map(|(directory, _)| directory.display().to_string())
    }
}
