//! `Record`: a result, and the observations under which it may be served; `Manifest`: the records of one key.
//!
//! These are what the index stores. A record from disk is untrusted input: it is checked before it is used.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zccache_proto::ByteStrings;
use zccache_proto::message::Exit;

use crate::digest::Digest;
use crate::observation::{Observation, Spelled};
use crate::sharing::Standpoint;

/// Raised whenever `Record`'s encoding changes; records of another version are not read.
pub const RECORD_VERSION: u8 = 6;

/// How many records a manifest keeps: enough to switch between a dozen branches and hit on each; the oldest
/// go first. Each is checked in turn on a miss, so the number bounds that cost too.
pub const RECORDS_PER_KEY_MAX: usize = 16;

/// One result, and when it may be served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// All of these must hold. Records in memory share them (`observation_pool`).
    pub observations: Vec<Arc<Observation>>,
    /// For each observation the number of the first one that names the same file (device and inode), itself
    /// if none before it does, `NO_FILE` if it names none. `#pragma once` and duplicate search directories
    /// hang on which names are one file, so that must be as it was.
    pub identities: Vec<u32>,
    /// The digest of the whole environment, if a program took part whose reads of it are not known.
    pub environment: Option<Digest>,
    /// Variables that the run is known to hang on, beyond those in the key.
    pub variables: Vec<Variable>,
    /// Of a record under a shared key: where the request stood whose run it is.
    pub origin: Option<Standpoint>,
    /// What to replay.
    pub result: RunResult,
}

/// An environment variable as a run found it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Its name.
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// Its value, if it was set.
    pub value: Option<ByteBuf>,
}

impl Variable {
    /// The variable of this name in `env`.
    pub fn in_environment(name: Vec<u8>, env: &ByteStrings) -> Self {
        let value = env.value_of(&name).map(ByteBuf::from);
        Self { name, value }
    }

    /// Whether it is the same in `env`.
    pub fn holds_in(&self, env: &ByteStrings) -> bool {
        env.value_of(&self.name) == self.value.as_ref().map(|value| value.as_slice())
    }
}

/// In `Record::identities`: this observation is not of an existing file.
pub const NO_FILE: u32 = u32::MAX;

/// What a run left to be seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunResult {
    /// How the tool ended.
    pub exit: Exit,
    /// All it wrote to standard output (and error, when merged).
    pub stdout: ByteBuf,
    /// All it wrote to standard error.
    pub stderr: ByteBuf,
    /// The files it left or removed.
    pub outputs: Vec<Output>,
}

/// One file that a run left or removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Where, as spelled.
    pub path: Spelled,
    /// What is to be there; nothing if the run removed it.
    pub file: Option<OutputFile>,
}

/// A file's content and mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputFile {
    /// Digest of the content; the blob's name.
    pub digest: Digest,
    /// Size in bytes.
    pub bytes: u64,
    /// Permission bits, as the run left them.
    pub mode: u32,
    /// The run is known to have put a new file in the place of an older one, whose mode and other names it left alone.
    pub replaces: bool,
}

impl Record {
    /// Whether the record is one that this code could have written.
    pub fn is_sound(&self) -> bool {
        let sound_path = |p: &Spelled| (1..=PATH_BYTES_MAX).contains(&p.0.len()) && !p.0.contains(&0);
        let count = self.observations.len() as u64;
        self.identities.len() == self.observations.len()
            && self.identities.iter().all(|&first| first == NO_FILE || u64::from(first) < count)
            && self.observations.iter().all(|o| sound_path(&o.path))
            && self.result.outputs.iter().all(|o| sound_path(&o.path))
            // No bits that make a program run as somebody else.
            && self.result.outputs.iter().all(|o| o.file.is_none_or(|file| file.mode <= 0o777))
            && matches!(self.result.exit, Exit::Code(0..=255))
    }
}

/// The most bytes of a path in a record: Linux takes 4096 at a time, and tools may go on from there.
const PATH_BYTES_MAX: usize = 64 * 1024;

/// What the index keeps of a record beside it: what changes without the record, and what evictions ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordUse {
    /// When it was last used, in milliseconds since the epoch (by `UseClock`).
    pub last_use_ms: u64,
    /// The directories that it belongs to: the requester's, and those outside of it that outputs went to.
    pub places: Vec<ByteBuf>,
}

/// The records of one key as bytes for the index, newest first.
///
/// # Errors
/// If they cannot be encoded (not seen for these types).
pub fn encode_manifest(records: &[&Record]) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    let mut bytes = vec![RECORD_VERSION];
    rmp_serde::encode::write(&mut bytes, records)?;
    Ok(bytes)
}

/// The sound records in an index entry; none if it is of another version or garbage.
pub fn decode_manifest(bytes: &[u8]) -> Vec<Record> {
    let Some((&RECORD_VERSION, body)) = bytes.split_first() else { return Vec::new() };
    let mut records: Vec<Record> = rmp_serde::from_slice(body).unwrap_or_default();
    records.truncate(RECORDS_PER_KEY_MAX);
    records.retain(|record| {
        let is_sound = record.is_sound();
        if !is_sound {
            tracing::warn!(
                "a stored record is not sound, so it is not used: somebody else has written to the index"
            );
        }
        is_sound
    });
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::Fact;

    fn record() -> Record {
        Record {
            observations: vec![Arc::new(Observation { path: Spelled(b"a.h".to_vec()), fact: Fact::Absent })],
            identities: vec![NO_FILE],
            environment: None,
            variables: vec![Variable { name: b"OUT_DIR".to_vec(), value: Some(ByteBuf::from(*b"/t")) }],
            origin: None,
            result: RunResult {
                exit: Exit::Code(1),
                stdout: ByteBuf::new(),
                stderr: ByteBuf::from(*b"\xff"),
                outputs: vec![Output { path: Spelled(b"a.o".to_vec()), file: None }],
            },
        }
    }

    #[test]
    fn a_manifest_comes_back_as_it_was() {
        let record = record();
        assert_eq!(decode_manifest(&encode_manifest(&[&record, &record]).unwrap()), [record.clone(), record]);
    }

    #[test]
    fn more_records_than_a_key_has_are_not_read() {
        let record = record();
        let encoded = encode_manifest(&[&record; RECORDS_PER_KEY_MAX + 5]).unwrap();
        assert_eq!(decode_manifest(&encoded).len(), RECORDS_PER_KEY_MAX);
    }

    #[test]
    fn a_path_longer_than_any_system_takes_is_not_read() {
        for (bytes, is_sound) in [(PATH_BYTES_MAX, true), (PATH_BYTES_MAX + 1, false), (0, false)] {
            let mut record = record();
            record.observations =
                vec![Arc::new(Observation { path: Spelled(vec![b'x'; bytes]), fact: Fact::Absent })];
            assert_eq!(record.is_sound(), is_sound, "{bytes}");
        }
    }

    #[test]
    fn garbage_is_no_record() {
        let good = encode_manifest(&[&record()]).unwrap();
        assert!(decode_manifest(&[]).is_empty());
        assert!(decode_manifest(&good[..good.len() - 1]).is_empty());
        assert!(decode_manifest(&[&[9], &good[1..]].concat()).is_empty());
        let mut unsound = record();
        unsound.identities.clear();
        assert!(decode_manifest(&encode_manifest(&[&unsound]).unwrap()).is_empty());
    }
}
