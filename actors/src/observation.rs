//! `Observation`: one fact about the file system that a tool asked for, so that its result hangs on it.
//!
//! Paths are kept **as the tool spelled them**; a relative one means the requester's working directory. A
//! record may be served only while every one of its observations holds. What must never happen here: a fact
//! the tool saw that no observation stands for.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::name_filter::NameFilter;
use crate::signature::{FileKind, Signature};

/// A path as the tool spelled it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spelled(#[serde(with = "serde_bytes")] pub Vec<u8>);

/// What an observer saw of one path during a run, before anything was digested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The path as spelled; absolute when the process had left the client's working directory.
    pub path: Spelled,
    /// What was seen.
    pub seen: Seen,
}

/// What was seen of a path, at the moment the tool asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A regular file was opened for reading, mapped or executed, with this signature then.
    Read {
        /// The file's signature at the moment of opening.
        signature: Signature,
        /// It was executed (or is the interpreter or loader of what was), so the execute bits matter.
        executed: bool,
        /// The name itself is a symbolic link to the file.
        linked: bool,
    },
    /// There was nothing at this path (`ENOENT`, `ENOTDIR`).
    Absent,
    /// A directory's names were listed; the signature is of that moment.
    Listed {
        /// The directory's signature before the listing.
        signature: Signature,
    },
    /// A directory's names were looked through for certain ones.
    Names {
        /// Which ones.
        filter: NameFilter,
        /// Digest of those that were there.
        digest: Digest,
    },
    /// A symbolic link was read (`readlink`, `lstat`).
    Symlink {
        /// Where it points.
        target: Spelled,
    },
    /// Only whether something is there and of which kind: a `stat` of a directory, `access`, a `readlink`
    /// of what is no link. `permissions` are the permission bits where `access` asked for them.
    Kind {
        /// Symbolic links are followed.
        follow: bool,
        /// What is there.
        kind: FileKind,
    },
    /// A regular file was asked about (`stat`, `access`) but not opened: its metadata is all the tool knows.
    Metadata {
        /// Symbolic links are followed.
        follow: bool,
        /// Size, mtime and mode are what is compared.
        signature: Signature,
    },
    /// What was seen before the run itself changed it: true when the tool asked, and not any more.
    Before {
        /// What was seen.
        seen: Box<Seen>,
        /// The content, where that was read.
        digest: Option<Digest>,
    },
}

/// One fact that must still hold for a record to be served.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Observation {
    /// The path as spelled.
    pub path: Spelled,
    /// What must be true of it.
    pub fact: Fact,
}

impl Observation {
    /// The signature that the content was last seen with, if this is about a content.
    pub fn signature(&self) -> Option<Signature> {
        match self.fact {
            Fact::Content { signature, .. } => Some(signature),
            _ => None,
        }
    }

    /// Whether this is about the content of a file that its name itself means, and no link.
    pub fn is_file_itself(&self) -> bool {
        matches!(self.fact, Fact::Content { linked: false, .. })
    }
}

/// What must be true of an observed path.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Fact {
    /// A regular file with this content.
    Content {
        /// Digest of the whole content.
        digest: Digest,
        /// The signature that content was last seen with: as long as it stands, so does the content.
        signature: Signature,
        /// It must be executable.
        executed: bool,
        /// The name itself is a symbolic link to the file. One that was none must not become one: tools that
        /// resolve names (`__FILE__` of a system header) would tell.
        linked: bool,
    },
    /// Nothing is there.
    Absent,
    /// A directory with these names.
    Listed {
        /// Digest of the sorted names.
        digest: Digest,
    },
    /// A directory with, of certain names, these.
    Names {
        /// Which names.
        filter: NameFilter,
        /// Digest of those that are there.
        digest: Digest,
    },
    /// A symbolic link to this target.
    Symlink {
        /// Where it points.
        target: Spelled,
    },
    /// Something of this kind is there.
    Kind {
        /// Symbolic links are followed.
        follow: bool,
        /// Which kind.
        kind: FileKind,
    },
    /// A file with this type and permission bits.
    Mode {
        /// Type and permission bits.
        mode: u32,
    },
    /// A regular file with this metadata.
    Metadata {
        /// Symbolic links are followed.
        follow: bool,
        /// Size in bytes.
        size: u64,
        /// Modification time in nanoseconds since the epoch.
        mtime_ns: i64,
        /// Type and permission bits.
        mode: u32,
    },
}
