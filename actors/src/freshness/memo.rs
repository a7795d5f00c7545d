//! What was seen of a record's files when everything last held.

use rustc_hash::FxHashMap;

use crate::record::Record;
use crate::signature::{FileKind, Signature};

/// See the module.
#[derive(Clone, PartialEq)]
pub struct Memo {
    /// Of each observation of which something else was seen than its fact says: the file, or nothing where it was not
    /// sure. Few: most files are what they were when the record was made.
    pub otherwise: FxHashMap<u32, Option<Signature>>,
    /// Per group with absent names, or with names that say all: the directory, as long as that can stand for them.
    pub directories: Vec<Option<Directory>>,
    /// Per observation of a directory's names: the directory, as long as that can stand for them.
    pub listed: FxHashMap<u32, Signature>,
    /// Which mounts there were, if anybody knows.
    pub mounts: Option<u64>,
}

impl Memo {
    /// Nothing yet of a record with so many groups.
    pub fn new(groups: usize) -> Self {
        Self {
            otherwise: FxHashMap::default(),
            directories: vec![None; groups],
            listed: FxHashMap::default(),
            mounts: None,
        }
    }

    /// What the file of an observation of `record` is to be if it has not changed; nothing where nothing is known, or
    /// nothing to compare.
    pub fn expected(&self, record: &Record, number: u32) -> Option<Signature> {
        let from_fact = || record.observations[number as usize].signature();
        self.otherwise.get(&number).copied().unwrap_or_else(from_fact)
    }
}

/// A directory as it was when its names were looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Directory {
    /// Settled.
    pub signature: Signature,
    /// The number of the mount it was reached by, if anybody knows.
    pub mount: Option<u64>,
}

/// Whether what was seen of a file at `now_ns` tells all later changes that matter. Of a directory only which one it is
/// matters, and that is looked at each time.
pub fn is_sure(seen: &Signature, now_ns: i64) -> bool {
    seen.kind() == FileKind::Directory || seen.is_settled(now_ns)
}
