//! Values of the index: what is kept of a key and of a blob, and how it is written.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::key::RequestKey;
use crate::record::{RECORDS_PER_KEY_MAX, RecordUse};

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
    /// Bytes of all encoded records.
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

/// All that the index has of one key, as it is written.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// See [`encode_uses`].
    pub uses: Vec<u8>,
    /// The record that belongs to each of the uses (see [`crate::record::encode_record`]).
    pub records: Vec<Vec<u8>>,
}

/// Bytes of a record's name in the index: its key's, then the moment at which it was stored.
const NAME_BYTES: usize = 32 + 8;

/// The name of a record.
pub fn name_of(key: RequestKey, stored_ms: u64) -> [u8; NAME_BYTES] {
    let mut name = [0; NAME_BYTES];
    name[..32].copy_from_slice(&key.0.0);
    name[32..].copy_from_slice(&stored_ms.to_be_bytes());
    name
}

/// The reverse of [`name_of`], if it is one.
pub fn named_by(name: &[u8]) -> Option<(RequestKey, u64)> {
    let (key, stored_ms) = name.split_first_chunk::<32>()?;
    Some((RequestKey(Digest(*key)), u64::from_be_bytes(stored_ms.try_into().ok()?)))
}

/// The uses of a key's records, newest first.
///
/// # Errors
/// If they cannot be encoded (not seen for these types).
pub fn encode_uses(uses: &[RecordUse]) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    rmp_serde::to_vec(uses)
}

/// The reverse of [`encode_uses`]; none if they are garbage.
pub fn decode_uses(bytes: &[u8]) -> Vec<RecordUse> {
    let mut uses: Vec<RecordUse> = rmp_serde::from_slice(bytes).unwrap_or_default();
    uses.truncate(RECORDS_PER_KEY_MAX);
    uses
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_records_than_a_key_has_are_not_read() {
        let uses = vec![RecordUse::default(); RECORDS_PER_KEY_MAX + 5];
        assert_eq!(decode_uses(&encode_uses(&uses).unwrap()).len(), RECORDS_PER_KEY_MAX);
    }

    #[test]
    fn names_and_blobs_come_back_as_they_were() {
        let key = RequestKey(Digest::of(b"a"));
        assert_eq!(named_by(&name_of(key, 77)), Some((key, 77)));
        assert_eq!(named_by(&name_of(key, 77)[1..]), None);
        let known = BlobUse { bytes: 1, references: u64::MAX };
        assert_eq!(blob_of(&blob_value(&known)), Some(known));
        assert_eq!(blob_of(&blob_value(&known)[1..]), None);
    }
}
