//! The index: which records a key has, which blobs they need, when each was last used. The only file that
//! knows sled.
//!
//! The index can be lost without harm: that loses hits. What it must never do is name a blob whose content is
//! another (blobs verify themselves) or a record that was not stored (records are checked for soundness).
//! Every change is one transaction over all trees, so that what is counted is what is there, after a crash too.

mod values;

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use sled::Transactional;
use sled::transaction::{TransactionError, TransactionalTree};

use crate::digest::Digest;
use crate::faults;
use crate::key::RequestKey;
use crate::record::{RECORD_VERSION, Record, RecordUse, decode_record};
pub use values::{BlobUse, Encoded, Totals, decode_uses, encode_uses};
use values::{blob_of, blob_value, name_of, named_by};

/// Page cache of the index, in bytes: the hot manifests are kept as objects elsewhere, so this serves only
/// first look-ups and writes.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// What the trees hold: raised whenever that changes; with the records' own version it names a format. An index of
/// another one is not read, but made anew.
const FORMAT: [u8; 2] = [3, RECORD_VERSION];

/// Names in the tree `meta`.
mod meta {
    /// [`super::FORMAT`].
    pub const FORMAT: &[u8] = b"format";
    /// [`super::Totals`].
    pub const TOTALS: &[u8] = b"totals";
    /// Whatever is to survive a restart for the counters.
    pub const COUNTERS: &[u8] = b"counters";
    /// The digest of the head start that was copied from this index, as long as that is what it was.
    pub const HEAD_START: &[u8] = b"head start";
}

/// How an index operation can fail.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The database's own error.
    #[error("index: {0}")]
    Sled(#[from] sled::Error),
    /// A record that cannot be encoded.
    #[error("index: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
    /// The database panicked, as it does on some kinds of damage.
    #[error("index: the database is damaged")]
    Damaged,
    /// Written by another version of this program.
    #[error("index: of another version")]
    OtherFormat,
}

/// The sled database.
pub struct Index {
    db: sled::Db,
    records: sled::Tree,
    uses: sled::Tree,
    blobs: sled::Tree,
    meta: sled::Tree,
}

/// A change, to be made as a whole or not at all.
#[derive(Debug)]
pub struct Change<'a> {
    /// The key whose records change.
    pub key: RequestKey,
    /// The uses of those it has then, newest first; none to forget the key. All others of its records go.
    pub uses: Vec<RecordUse>,
    /// The first of them, encoded, if it is new.
    pub added: Option<&'a [u8]>,
    /// Blobs whose numbers change; without a reference they are forgotten.
    pub blobs: Vec<(Digest, BlobUse)>,
}

impl Index {
    /// Opens or makes the index in `directory`.
    ///
    /// # Errors
    /// If the directory cannot be used, another process has it open, it is damaged or of another version.
    pub fn open(directory: &Path) -> Result<Self, IndexError> {
        let config = sled::Config::new()
            .path(directory)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            // We flush ourselves, right after each batch of stores.
            .flush_every_ms(None);
        faults::check("index.open").map_err(sled::Error::from)?;
        let (index, format) = guarded(|| {
            let db = config.open()?;
            let tree = |name: &str| db.open_tree(name);
            let (records, uses, blobs) = (tree("records")?, tree("uses")?, tree("blobs")?);
            let meta = tree("meta")?;
            let format = match meta.get(meta::FORMAT)? {
                None if records.is_empty() => {
                    meta.insert(meta::FORMAT, &FORMAT)?;
                    true
                }
                found => found.is_some_and(|found| found == FORMAT),
            };
            Ok((Self { db, records, uses, blobs, meta }, format))
        })?;
        if format { Ok(index) } else { Err(IndexError::OtherFormat) }
    }

    /// What there is in all.
    ///
    /// # Errors
    /// The database's.
    pub fn totals(&self) -> Result<Totals, IndexError> {
        guarded(|| {
            Ok(self.meta.get(meta::TOTALS)?.and_then(|v| rmp_serde::from_slice(&v).ok()).unwrap_or_default())
        })
    }

    /// The uses of the records of `key`, newest first.
    ///
    /// # Errors
    /// The database's.
    pub fn uses(&self, key: RequestKey) -> Result<Vec<RecordUse>, IndexError> {
        guarded(|| Ok(self.uses.get(key.0.0)?.map(|uses| decode_uses(&uses)).unwrap_or_default()))
    }

    /// The record of `key` that was stored at this moment; nothing where it cannot be read.
    ///
    /// # Errors
    /// The database's.
    pub fn record(&self, key: RequestKey, stored_ms: u64) -> Result<Option<Record>, IndexError> {
        guarded(|| Ok(self.records.get(name_of(key, stored_ms))?.and_then(|encoded| decode_record(&encoded))))
    }

    /// The records of `key` with their uses, newest first; without those that cannot be read.
    ///
    /// # Errors
    /// The database's.
    pub fn entry(&self, key: RequestKey) -> Result<Vec<(Record, RecordUse)>, IndexError> {
        faults::check("index.read").map_err(sled::Error::from)?;
        let mut entry = Vec::new();
        for used in self.uses(key)? {
            entry.extend(self.record(key, used.stored_ms)?.map(|record| (record, used)));
        }
        Ok(entry)
    }

    /// What is written of `key`, if all of it is there.
    ///
    /// # Errors
    /// The database's.
    pub fn encoded(&self, key: RequestKey) -> Result<Option<Encoded>, IndexError> {
        guarded(|| {
            let Some(uses) = self.uses.get(key.0.0)? else { return Ok(None) };
            let mut records = Vec::new();
            for used in decode_uses(&uses) {
                let Some(record) = self.records.get(name_of(key, used.stored_ms))? else { return Ok(None) };
                records.push(record.to_vec());
            }
            Ok(Some(Encoded { uses: uses.to_vec(), records }))
        })
    }

    /// Notes which head start is a copy of this index, or that none is; returns which was noted before. Whoever changes
    /// anything has first to note that none is.
    ///
    /// # Errors
    /// The database's.
    pub fn name_head_start(&self, digest: Option<Digest>) -> Result<Option<Digest>, IndexError> {
        guarded(|| {
            let before = match digest {
                Some(digest) => self.meta.insert(meta::HEAD_START, &digest.0)?,
                None => self.meta.remove(meta::HEAD_START)?,
            };
            Ok(before.and_then(|name| name.as_ref().try_into().ok().map(Digest)))
        })
    }

    /// Makes a change, and with it the new totals; returns these, with the records' bytes put right.
    ///
    /// # Errors
    /// The database's; nothing is changed then.
    pub fn apply(&self, change: &Change<'_>, totals: Totals) -> Result<Totals, IndexError> {
        faults::check("index.write").map_err(sled::Error::from)?;
        let gone = self.going(change)?;
        let added = change.uses.first().zip(change.added);
        let added = added.map(|(used, encoded)| (name_of(change.key, used.stored_ms), encoded));
        let uses = encode_uses(&change.uses)?;
        let bytes_gone: u64 = gone.iter().map(|(_, bytes)| bytes).sum();
        let record_bytes = totals.record_bytes.saturating_sub(bytes_gone);
        let record_bytes = record_bytes + added.map_or(0, |(_, encoded)| encoded.len() as u64);
        let totals = Totals { record_bytes, ..totals };
        let encoded_totals = rmp_serde::to_vec(&totals)?;
        self.transact(|[of_records, of_uses, of_blobs, of_meta]| {
            for (name, _) in &gone {
                of_records.remove(&name[..])?;
            }
            if let Some((name, encoded)) = added {
                of_records.insert(&name[..], encoded)?;
            }
            match change.uses.is_empty() {
                true => drop(of_uses.remove(&change.key.0.0)?),
                false => drop(of_uses.insert(&change.key.0.0, uses.as_slice())?),
            }
            for (digest, known) in &change.blobs {
                match known.references {
                    0 => drop(of_blobs.remove(&digest.0)?),
                    _ => drop(of_blobs.insert(&digest.0, &blob_value(known))?),
                }
            }
            of_meta.insert(meta::TOTALS, encoded_totals.as_slice())?;
            Ok(())
        })?;
        Ok(totals)
    }

    /// The names of the records that go with a change, and their bytes.
    fn going(&self, change: &Change<'_>) -> Result<Vec<(Vec<u8>, u64)>, IndexError> {
        if change.uses.is_empty() {
            // All that there are, whatever the uses say.
            let all = || self.records.scan_prefix(change.key.0.0).collect::<Result<Vec<_>, _>>();
            let all = guarded(all)?;
            return Ok(all
                .into_iter()
                .map(|(name, encoded)| (name.to_vec(), encoded.len() as u64))
                .collect());
        }
        let stays = |used: &RecordUse| change.uses.iter().any(|kept| kept.stored_ms == used.stored_ms);
        let gone = self.uses(change.key)?.into_iter().filter(|used| !stays(used));
        Ok(gone.map(|used| (name_of(change.key, used.stored_ms).to_vec(), used.bytes)).collect())
    }

    fn transact(
        &self,
        change: impl Fn([&TransactionalTree; 4]) -> Result<(), sled::transaction::UnabortableTransactionError>,
    ) -> Result<(), IndexError> {
        let trees = (&self.records, &self.uses, &self.blobs, &self.meta);
        let transaction = || match trees.transaction(|(r, u, b, m)| Ok(change([r, u, b, m])?)) {
            Ok(()) => Ok(()),
            Err(TransactionError::Storage(e)) => Err(e),
            Err(TransactionError::Abort(())) => Err(sled::Error::Unsupported("an abort".into())),
        };
        guarded(transaction)
    }

    /// Notes when records of `key` were last used; of those that are not there any more, nothing.
    ///
    /// # Errors
    /// The database's.
    pub fn touch(&self, key: RequestKey, uses: &[RecordUse]) -> Result<(), IndexError> {
        let mut known = self.uses(key)?;
        if known.is_empty() {
            return Ok(());
        }
        for used in &mut known {
            let touched = uses.iter().find(|touched| touched.stored_ms == used.stored_ms);
            used.last_use_ms = touched.map_or(used.last_use_ms, |touched| touched.last_use_ms);
        }
        let encoded = encode_uses(&known)?;
        guarded(|| self.uses.insert(key.0.0, encoded).map(drop))
    }

    /// Calls `with` with each key and its uses, in no order that means anything.
    ///
    /// # Errors
    /// The database's.
    pub fn each_use(&self, mut with: impl FnMut(RequestKey, Vec<RecordUse>)) -> Result<(), IndexError> {
        guarded(|| {
            for entry in &self.uses {
                let (key, uses) = entry?;
                if let Ok(key) = key.as_ref().try_into() {
                    with(RequestKey(Digest(key)), decode_uses(&uses));
                }
            }
            Ok(())
        })
    }

    /// All keys that have records.
    ///
    /// # Errors
    /// The database's.
    pub fn keys(&self) -> Result<Vec<RequestKey>, IndexError> {
        guarded(|| {
            let mut keys = Vec::new();
            for key in self.uses.iter().keys() {
                if let Ok(key) = key?.as_ref().try_into() {
                    keys.push(RequestKey(Digest(key)));
                }
            }
            Ok(keys)
        })
    }

    /// What is known of a blob.
    ///
    /// # Errors
    /// The database's.
    pub fn blob(&self, digest: Digest) -> Result<Option<BlobUse>, IndexError> {
        guarded(|| Ok(self.blobs.get(digest.0)?.and_then(|value| blob_of(&value))))
    }

    /// A handle that tells, from any thread, whether a blob is known; an index that cannot tell says yes.
    pub fn knows_blob(&self) -> impl Fn(Digest) -> bool + Send + 'static {
        let blobs = self.blobs.clone();
        move |digest| guarded(|| blobs.contains_key(digest.0)).unwrap_or(true)
    }

    /// Replaces what is known of blobs, and the totals, after everything was counted anew. Records without uses go.
    ///
    /// # Errors
    /// The database's.
    pub fn recount(&self, blobs: &HashMap<Digest, BlobUse>, totals: &Totals) -> Result<(), IndexError> {
        let totals = rmp_serde::to_vec(totals)?;
        guarded(|| {
            for name in self.records.iter().keys() {
                let name = name?;
                if !self.is_used(&name)? {
                    self.records.remove(&name)?;
                }
            }
            self.blobs.clear()?;
            for (digest, known) in blobs {
                self.blobs.insert(digest.0, &blob_value(known))?;
            }
            self.meta.insert(meta::TOTALS, totals)?;
            Ok(())
        })
    }

    fn is_used(&self, name: &[u8]) -> Result<bool, sled::Error> {
        let Some((key, stored_ms)) = named_by(name) else { return Ok(false) };
        let uses = self.uses.get(key.0.0)?.map(|uses| decode_uses(&uses)).unwrap_or_default();
        Ok(uses.iter().any(|used| used.stored_ms == stored_ms))
    }

    /// What [`Self::put_counters`] was given last.
    ///
    /// # Errors
    /// The database's.
    pub fn counters(&self) -> Result<Option<Vec<u8>>, IndexError> {
        guarded(|| Ok(self.meta.get(meta::COUNTERS)?.map(|v| v.to_vec())))
    }

    /// Keeps bytes for the counters.
    ///
    /// # Errors
    /// The database's.
    pub fn put_counters(&self, bytes: &[u8]) -> Result<(), IndexError> {
        guarded(|| self.meta.insert(meta::COUNTERS, bytes).map(drop))
    }

    /// Forgets everything but the counters and the moment of the latest use.
    ///
    /// # Errors
    /// The database's.
    pub fn clear(&self, totals: &Totals) -> Result<(), IndexError> {
        let totals = rmp_serde::to_vec(totals)?;
        guarded(|| {
            self.records.clear()?;
            self.uses.clear()?;
            self.blobs.clear()?;
            self.meta.insert(meta::TOTALS, totals)?;
            self.db.flush()?;
            Ok(())
        })
    }

    /// Makes everything so far survive a crash.
    ///
    /// # Errors
    /// The database's.
    pub fn flush(&self) -> Result<(), IndexError> {
        faults::check("index.flush").map_err(sled::Error::from)?;
        guarded(|| {
            self.db.flush()?;
            Ok(())
        })
    }
}

/// Turns the panics that sled answers damage with into an error. The caller drops the index after one.
fn guarded<T>(operation: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, IndexError> {
    match std::panic::catch_unwind(AssertUnwindSafe(operation)) {
        Ok(result) => Ok(result?),
        Err(_) => Err(IndexError::Damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{RunResult, encode_record};
    use zccache_proto::message::Exit;

    const KEY: RequestKey = RequestKey(Digest([7; 32]));

    fn record(exit: i32) -> Record {
        let (stdout, stderr) = Default::default();
        let result = RunResult { exit: Exit::Code(exit), stdout, stderr, outputs: Vec::new() };
        let (observations, identities, variables) = Default::default();
        Record { observations, identities, environment: None, variables, origin: None, result }
    }

    fn encoded(exit: i32) -> Vec<u8> {
        encode_record(&record(exit)).unwrap()
    }

    fn used(stored_ms: u64) -> RecordUse {
        RecordUse { stored_ms, bytes: encoded(0).len() as u64, ..RecordUse::default() }
    }

    /// An index with records stored at 1, 2 and 3 under `KEY`, and one under another key.
    fn index(directory: &Path) -> (Index, Totals) {
        let index = Index::open(directory).unwrap();
        let mut totals = Totals::default();
        let mut put = |key, uses: &[u64]| {
            let encoded = encoded(i32::try_from(uses[0]).unwrap());
            let uses = uses.iter().copied().map(used).collect();
            totals =
                index.apply(&Change { key, uses, added: Some(&encoded), blobs: vec![] }, totals).unwrap();
        };
        put(KEY, &[1]);
        put(KEY, &[2, 1]);
        put(KEY, &[3, 2, 1]);
        put(RequestKey(Digest([8; 32])), &[4]);
        assert_eq!(totals.record_bytes, 4 * encoded(0).len() as u64);
        (index, totals)
    }

    fn keep(index: &Index, stored_ms: &[u64], totals: Totals) -> Totals {
        let uses = stored_ms.iter().copied().map(used).collect();
        index.apply(&Change { key: KEY, uses, added: None, blobs: vec![] }, totals).unwrap()
    }

    fn stored(index: &Index) -> Vec<u64> {
        index.entry(KEY).unwrap().iter().map(|(_, used)| used.stored_ms).collect()
    }

    #[test]
    fn records_are_read_newest_first_and_those_not_named_go() {
        let temp = tempfile::tempdir().unwrap();
        let (index, totals) = index(temp.path());
        let exits: Vec<Exit> =
            index.entry(KEY).unwrap().iter().map(|(record, _)| record.result.exit).collect();
        assert_eq!(exits, [3, 2, 1].map(Exit::Code));
        let totals = keep(&index, &[3, 1], totals);
        assert_eq!((stored(&index), index.records.len()), (vec![3, 1], 3));
        assert_eq!(totals.record_bytes, 3 * encoded(0).len() as u64);
        let totals = keep(&index, &[], totals);
        assert_eq!((stored(&index), index.records.len(), index.uses.len()), (vec![], 1, 1));
        assert_eq!(totals.record_bytes, encoded(0).len() as u64);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_passed_over_and_goes_with_the_next_change() {
        let temp = tempfile::tempdir().unwrap();
        let (index, totals) = index(temp.path());
        index.records.insert(name_of(KEY, 2), b"damage").unwrap();
        assert_eq!(stored(&index), [3, 1]);
        let known: Vec<u64> = stored(&index);
        let totals = keep(&index, &known, totals);
        assert_eq!((index.records.len(), totals.record_bytes), (3, 3 * encoded(0).len() as u64));
    }

    #[test]
    fn where_the_uses_are_damaged_the_records_go_with_their_key() {
        let temp = tempfile::tempdir().unwrap();
        let (index, totals) = index(temp.path());
        index.uses.insert(KEY.0.0, b"damage").unwrap();
        assert!(stored(&index).is_empty());
        let totals = keep(&index, &[], totals);
        assert_eq!((index.records.len(), totals.record_bytes), (1, encoded(0).len() as u64));
    }

    #[test]
    fn counting_anew_forgets_records_that_no_use_names() {
        let temp = tempfile::tempdir().unwrap();
        let (index, totals) = index(temp.path());
        index.records.insert(name_of(KEY, 9), encoded(9)).unwrap();
        index.records.insert(b"of no key", encoded(9)).unwrap();
        index.recount(&HashMap::new(), &totals).unwrap();
        assert_eq!((stored(&index), index.records.len()), (vec![3, 2, 1], 4));
    }

    #[test]
    fn uses_are_noted_of_records_that_are_still_there() {
        let temp = tempfile::tempdir().unwrap();
        let (index, totals) = index(temp.path());
        keep(&index, &[3, 1], totals);
        let at = |stored_ms, last_use_ms| RecordUse { last_use_ms, ..used(stored_ms) };
        index.touch(KEY, &[at(2, 20), at(1, 10)]).unwrap();
        assert_eq!(index.uses(KEY).unwrap(), [at(3, 0), at(1, 10)]);
        keep(&index, &[], totals);
        index.touch(KEY, &[at(1, 11)]).unwrap();
        assert_eq!((index.uses(KEY).unwrap(), index.uses.len()), (vec![], 1));
    }

    #[test]
    fn what_is_written_of_a_key_is_all_or_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let (index, _) = index(temp.path());
        assert_eq!(index.encoded(KEY).unwrap().unwrap().records, [3, 2, 1].map(encoded));
        index.records.remove(name_of(KEY, 2)).unwrap();
        assert!(index.encoded(KEY).unwrap().is_none());
    }
}
