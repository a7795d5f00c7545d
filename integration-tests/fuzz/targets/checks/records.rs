//! What a disk may hold: any bytes are sound records or none, and sound records come back as they were.

use zccache_actors::record::{RECORDS_PER_KEY_MAX, Record, decode_manifest, encode_manifest};

/// Panics if that is not so. Says whether there were records.
pub fn check(stored: &[u8]) -> bool {
    let records = decode_manifest(stored);
    assert!(records.len() <= RECORDS_PER_KEY_MAX);
    assert!(records.iter().all(Record::is_sound));
    if records.is_empty() {
        return false;
    }
    let references: Vec<&Record> = records.iter().collect();
    let encoded = encode_manifest(&references).expect("a record can be encoded");
    assert_eq!(decode_manifest(&encoded), records);
    true
}
