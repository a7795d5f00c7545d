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
use crate::record::{RECORD_VERSION, Record, RecordUse, encode_manifest};
pub use values::{BlobUse, Encoded, Entry, Totals, entry_of};
use values::{blob_of, blob_value, decode_uses};

/// Page cache of the index, in bytes: the hot manifests are kept as objects elsewhere, so this serves only
/// first look-ups and writes.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// What the trees hold: raised whenever that changes; with the records' own version it names a format. An index of
/// another one is not read, but made anew.
const FORMAT: [u8; 2] = [2, RECORD_VERSION];

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
    /// Its records then; none to forget the key.
    pub records: Vec<(&'a Record, RecordUse)>,
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

    /// The records of `key` with their uses.
    ///
    /// # Errors
    /// The database's.
    pub fn entry(&self, key: RequestKey) -> Result<Entry, IndexError> {
        faults::check("index.read").map_err(sled::Error::from)?;
        guarded(|| {
            let Some(encoded) = self.records.get(key.0.0)? else { return Ok(Entry::default()) };
            let uses = self.uses.get(key.0.0)?;
            Ok(entry_of(&encoded, uses.as_deref().unwrap_or_default()))
        })
    }

    /// What is written of `key`, if anything is.
    ///
    /// # Errors
    /// The database's.
    pub fn encoded(&self, key: RequestKey) -> Result<Option<Encoded>, IndexError> {
        guarded(|| {
            let (records, uses) = (self.records.get(key.0.0)?, self.uses.get(key.0.0)?);
            let bytes = |value: Option<sled::IVec>| value.map(|value| value.to_vec());
            Ok(bytes(records).map(|records| Encoded { records, uses: bytes(uses).unwrap_or_default() }))
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
        let records: Vec<&Record> = change.records.iter().map(|(record, _)| *record).collect();
        let encoded = if records.is_empty() { Vec::new() } else { encode_manifest(&records)? };
        let uses: Vec<&RecordUse> = change.records.iter().map(|(_, used)| used).collect();
        let uses = rmp_serde::to_vec(&uses)?;
        let before = guarded(|| Ok(self.records.get(change.key.0.0)?.map_or(0, |v| v.len() as u64)))?;
        let record_bytes = totals.record_bytes.saturating_sub(before) + encoded.len() as u64;
        let totals = Totals { record_bytes, ..totals };
        let encoded_totals = rmp_serde::to_vec(&totals)?;
        self.transact(|[of_records, of_uses, of_blobs, of_meta]| {
            if records.is_empty() {
                of_records.remove(&change.key.0.0)?;
                of_uses.remove(&change.key.0.0)?;
            } else {
                of_records.insert(&change.key.0.0, encoded.as_slice())?;
                of_uses.insert(&change.key.0.0, uses.as_slice())?;
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

    /// Notes when the records of `key` were last used, if they are still so many.
    ///
    /// # Errors
    /// The database's.
    pub fn touch(&self, key: RequestKey, uses: &[RecordUse]) -> Result<(), IndexError> {
        let new = rmp_serde::to_vec(uses)?;
        guarded(|| {
            let known = self.uses.get(key.0.0)?;
            if known.is_some_and(|known| decode_uses(&known).len() == uses.len()) {
                self.uses.insert(key.0.0, new)?;
            }
            Ok(())
        })
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
            for key in self.records.iter().keys() {
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

    /// Replaces what is known of blobs, and the totals, after everything was counted anew. Uses without records go.
    ///
    /// # Errors
    /// The database's.
    pub fn recount(&self, blobs: &HashMap<Digest, BlobUse>, totals: &Totals) -> Result<(), IndexError> {
        let totals = rmp_serde::to_vec(totals)?;
        guarded(|| {
            for key in self.uses.iter().keys() {
                let key = key?;
                if !self.records.contains_key(&key)? {
                    self.uses.remove(&key)?;
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
