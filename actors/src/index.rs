//! The index: which records a key has, which blobs they need, when each key was last used. The only file that
//! knows sled.
//!
//! The index can be lost without harm: that loses hits. What it must never do is name a blob whose content is
//! another (blobs verify themselves) or a record that was not stored (records are checked for soundness).

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use crate::digest::Digest;
use crate::key::RequestKey;
use crate::record::{Record, decode_manifest, encode_manifest};

/// Page cache of the index, in bytes: the hot manifests are kept as objects elsewhere, so this serves only
/// first look-ups and writes.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

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
}

/// The sled database.
pub struct Index {
    db: sled::Db,
    records: sled::Tree,
    blobs: sled::Tree,
    uses: sled::Tree,
}

/// What the index counts of one blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobUse {
    /// Length in bytes.
    pub bytes: u64,
    /// How many outputs of records name it.
    pub references: u64,
}

impl Index {
    /// Opens or makes the index in `directory`.
    ///
    /// # Errors
    /// If the directory cannot be used, another process has it open, or it is damaged.
    pub fn open(directory: &Path) -> Result<Self, IndexError> {
        let config = sled::Config::new()
            .path(directory)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            // We flush ourselves, right after each batch of stores.
            .flush_every_ms(None);
        guarded(|| {
            let db = config.open()?;
            let tree = |name: &str| db.open_tree(name);
            let (records, blobs, uses) = (tree("records")?, tree("blobs")?, tree("uses")?);
            Ok(Self { db, records, blobs, uses })
        })
    }

    /// The records of `key`, newest first.
    ///
    /// # Errors
    /// The database's.
    pub fn records(&self, key: RequestKey) -> Result<Vec<Record>, IndexError> {
        guarded(|| Ok(self.records.get(key.0.0)?.map(|v| decode_manifest(&v)).unwrap_or_default()))
    }

    /// Replaces the records of `key`; returns how many there were.
    ///
    /// # Errors
    /// The database's.
    pub fn put_records(&self, key: RequestKey, records: &[&Record], now_ms: u64) -> Result<(), IndexError> {
        let encoded = encode_manifest(records)?;
        guarded(|| {
            self.records.insert(key.0.0, encoded)?;
            self.uses.insert(key.0.0, &now_ms.to_be_bytes())?;
            Ok(())
        })
    }

    /// Forgets `key`.
    ///
    /// # Errors
    /// The database's.
    pub fn remove(&self, key: RequestKey) -> Result<(), IndexError> {
        guarded(|| {
            self.records.remove(key.0.0)?;
            self.uses.remove(key.0.0)?;
            Ok(())
        })
    }

    /// Notes when `key` was last used, in milliseconds since the epoch.
    ///
    /// # Errors
    /// The database's.
    pub fn touch(&self, key: RequestKey, at_ms: u64) -> Result<(), IndexError> {
        guarded(|| {
            if self.uses.contains_key(key.0.0)? {
                self.uses.insert(key.0.0, &at_ms.to_be_bytes())?;
            }
            Ok(())
        })
    }

    /// All keys with the time of their last use.
    ///
    /// # Errors
    /// The database's.
    pub fn uses(&self) -> Result<Vec<(u64, RequestKey)>, IndexError> {
        guarded(|| {
            let mut uses = Vec::new();
            for entry in &self.uses {
                let (key, at_ms) = entry?;
                let (Ok(key), Ok(at_ms)) = (key.as_ref().try_into(), at_ms.as_ref().try_into()) else {
                    continue;
                };
                uses.push((u64::from_be_bytes(at_ms), RequestKey(Digest(key))));
            }
            Ok(uses)
        })
    }

    /// All blobs and what is known of them.
    ///
    /// # Errors
    /// The database's.
    pub fn blobs(&self) -> Result<HashMap<Digest, BlobUse>, IndexError> {
        guarded(|| {
            let mut blobs = HashMap::new();
            for entry in &self.blobs {
                let (digest, value) = entry?;
                let (Ok(digest), Some((bytes, references))) =
                    (digest.as_ref().try_into(), value.split_first_chunk::<8>())
                else {
                    continue;
                };
                let Ok(references) = references.try_into().map(u64::from_be_bytes) else { continue };
                blobs.insert(Digest(digest), BlobUse { bytes: u64::from_be_bytes(*bytes), references });
            }
            Ok(blobs)
        })
    }

    /// Notes what is known of a blob; nothing any more if `known` is `None`.
    ///
    /// # Errors
    /// The database's.
    pub fn put_blob(&self, digest: Digest, known: Option<BlobUse>) -> Result<(), IndexError> {
        guarded(|| {
            match known {
                Some(b) => {
                    let value = [b.bytes.to_be_bytes(), b.references.to_be_bytes()].concat();
                    self.blobs.insert(digest.0, value)?;
                }
                None => drop(self.blobs.remove(digest.0)?),
            }
            Ok(())
        })
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// The database's.
    pub fn clear(&self) -> Result<(), IndexError> {
        guarded(|| {
            self.records.clear()?;
            self.uses.clear()?;
            self.blobs.clear()?;
            self.db.flush()?;
            Ok(())
        })
    }

    /// Makes everything so far survive a crash.
    ///
    /// # Errors
    /// The database's.
    pub fn flush(&self) -> Result<(), IndexError> {
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
