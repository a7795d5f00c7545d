//! What a disk may hold: any bytes are a sound record or none, and a sound record comes back as it was.

use zccache_actors::record::{decode_record, encode_record, pack};

/// Panics if that is not so, of `bytes` as they are and of what they are if packed. Says whether these were a record.
pub fn check(bytes: &[u8]) -> bool {
    let _ = is_record(bytes);
    is_record(&pack(bytes))
}

fn is_record(stored: &[u8]) -> bool {
    let Some(record) = decode_record(stored) else { return false };
    assert!(record.is_sound());
    let encoded = encode_record(&record).expect("a record can be encoded");
    assert_eq!(decode_record(&encoded), Some(record));
    true
}
