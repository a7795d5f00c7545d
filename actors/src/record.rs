//! `Record`: a result, and the observations under which it may be served.
//!
//! Records are what the index stores. One from disk is untrusted input: it is checked before it is used.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zccache_proto::ByteStrings;
use zccache_proto::message::Exit;

use crate::digest::Digest;
use crate::observation::{Observation, Spelled};
use crate::sharing::Standpoint;

/// Raised whenever `Record`'s encoding changes; records of another version are not read.
pub const RECORD_VERSION: u8 = 7;

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
    /// When it was stored, in milliseconds since the epoch (by `UseClock`, so no two are equal): its name under its key.
    pub stored_ms: u64,
    /// Length of the encoded record in bytes.
    pub bytes: u64,
    /// When it was last used, in milliseconds since the epoch (by `UseClock`).
    pub last_use_ms: u64,
    /// The directories that it belongs to: the requester's, and those outside of it that outputs went to.
    pub places: Vec<ByteBuf>,
}

impl RecordUse {
    /// Of a record that is stored now; the index sees to its length.
    pub fn stored(now_ms: u64, places: Vec<ByteBuf>) -> Self {
        Self { stored_ms: now_ms, bytes: 0, last_use_ms: now_ms, places }
    }
}

/// The most that LZ4 makes of a byte: a length goes on by one byte for each 255 (lz4_Block_format.md).
const LZ4_RATIO_MAX: usize = 255;

/// A record as bytes for the index: its version, then MessagePack, packed. Its paths begin alike, which packing makes
/// little of: a third is left of HDF5's.
///
/// # Errors
/// If it cannot be encoded (not seen for these types).
pub fn encode_record(record: &Record) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    Ok(pack(&rmp_serde::to_vec(record)?))
}

/// MessagePack as [`encode_record`] packs it.
pub fn pack(plain: &[u8]) -> Vec<u8> {
    let mut packed = lz4_flex::block::compress_prepend_size(plain);
    packed.insert(0, RECORD_VERSION);
    packed
}

/// The record in a value of the index, if it is sound; none if it is of another version or garbage.
pub fn decode_record(bytes: &[u8]) -> Option<Record> {
    let (&RECORD_VERSION, packed) = bytes.split_first()? else { return None };
    let (plain_bytes, body) = plain_bytes(packed)?;
    let plain = lz4_flex::block::decompress(body, plain_bytes).ok()?;
    let record: Record = rmp_serde::from_slice(&plain).ok()?;
    if !record.is_sound() {
        tracing::warn!(
            "a stored record is not sound, so it is not used: somebody else has written to the index"
        );
        return None;
    }
    Some(record)
}

/// What packed bytes say that they take unpacked, and the rest of them; nothing if they cannot: whoever can write to the
/// index could ask for any amount of memory.
fn plain_bytes(packed: &[u8]) -> Option<(usize, &[u8])> {
    let said = lz4_flex::block::uncompressed_size(packed).ok();
    said.filter(|(plain_bytes, body)| *plain_bytes <= body.len().saturating_mul(LZ4_RATIO_MAX))
}

/// So many bytes that packing makes no shorter (Marsaglia's xorshift).
#[cfg(test)]
pub fn unpackable(bytes: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next).flatten().take(bytes).collect()
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
    fn a_record_comes_back_as_it_was() {
        let record = record();
        assert_eq!(decode_record(&encode_record(&record).unwrap()), Some(record));
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
        let good = encode_record(&record()).unwrap();
        assert!(decode_record(&[]).is_none());
        assert!(decode_record(&good[..good.len() - 1]).is_none());
        assert!(decode_record(&[&[9], &good[1..]].concat()).is_none());
        let mut unsound = record();
        unsound.identities.clear();
        assert!(decode_record(&encode_record(&unsound).unwrap()).is_none());
    }

    #[test]
    fn no_more_memory_is_asked_for_than_packed_bytes_can_fill() {
        let plain = vec![b'x'; 1 << 20];
        let packed = pack(&plain);
        let (said, body) = plain_bytes(&packed[1..]).expect("as much as was packed");
        assert_eq!(said, plain.len());
        let said = |bytes: usize| {
            let bytes = u32::try_from(bytes).unwrap().to_le_bytes();
            plain_bytes(&[&bytes[..], &body[..10]].concat()).is_some()
        };
        assert!(said(10 * LZ4_RATIO_MAX) && !said(10 * LZ4_RATIO_MAX + 1) && !said(u32::MAX as usize));
    }
}
