//! Values of the index: what is kept of a key and of a blob, and how it is written.

use serde::{Deserialize, Serialize};

use crate::record::{Record, RecordUse, decode_manifest};

/// What the index counts of one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobUse {
    /// Length in bytes.
    pub bytes: u64,
    /// How many outputs of records name it.
    pub references: u64,
}

/// What there is in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Records of requests' own runs: not what is kept of them for requests from elsewhere.
    pub records: u64,
    /// Bytes of all encoded manifests.
    pub record_bytes: u64,
    /// Distinct contents.
    pub blobs: u64,
    /// Their bytes.
    pub blob_bytes: u64,
    /// Bytes of all outputs of these records, as if none were shared.
    pub output_bytes: u64,
    /// No use is later than this, in milliseconds since the epoch.
    pub latest_use_ms: u64,
}

/// All that the index has of one key.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// Newest first.
    pub records: Vec<(Record, RecordUse)>,
    /// Length of the encoded records.
    pub encoded_bytes: u64,
}

/// The same as it is written.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// See [`crate::record::encode_manifest`].
    pub records: Vec<u8>,
    /// A use for each of them, in MessagePack.
    pub uses: Vec<u8>,
}

/// Records with their uses; where these do not fit, as if never used.
pub fn entry_of(encoded: &[u8], uses: &[u8]) -> Entry {
    let records = decode_manifest(encoded);
    let mut uses = decode_uses(uses);
    if uses.len() != records.len() {
        uses = vec![RecordUse::default(); records.len()];
    }
    Entry { records: records.into_iter().zip(uses).collect(), encoded_bytes: encoded.len() as u64 }
}

/// The uses of a key's records; none if they are garbage.
pub fn decode_uses(bytes: &[u8]) -> Vec<RecordUse> {
    rmp_serde::from_slice(bytes).unwrap_or_default()
}

/// As the tree `blobs` has it.
pub fn blob_value(known: &BlobUse) -> [u8; 16] {
    let mut value = [0; 16];
    value[..8].copy_from_slice(&known.bytes.to_be_bytes());
    value[8..].copy_from_slice(&known.references.to_be_bytes());
    value
}

/// The reverse of [`blob_value`], if it is one.
pub fn blob_of(value: &[u8]) -> Option<BlobUse> {
    let (bytes, references) = value.split_first_chunk::<8>()?;
    let references = references.try_into().map(u64::from_be_bytes).ok()?;
    Some(BlobUse { bytes: u64::from_be_bytes(*bytes), references })
}
