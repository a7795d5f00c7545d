//! Manifests in memory: the records of a key, ready to be checked, and the map that hits read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use dashmap::DashMap;

use crate::file_table::FileTable;
use crate::freshness::{Broken, LiveRecord, WorkingDirectory};
use crate::key::RequestKey;
use crate::record::{RECORDS_PER_KEY_MAX, Record};

/// How many manifests are kept in memory. One of a C file with 50 observations takes about 10 KB, one with 300
/// about 50 KB; the least recently used tenth goes when the number is reached.
const HOT_MANIFESTS_MAX: usize = 4_000;

/// The records of one key, newest first.
pub struct Manifest {
    records: RwLock<Vec<Arc<LiveRecord>>>,
    last_use_ms: AtomicU64,
}

impl Manifest {
    /// A manifest of these records.
    pub fn new(records: impl IntoIterator<Item = Record>) -> Self {
        let records = records.into_iter().map(|r| Arc::new(LiveRecord::new(r))).collect();
        Self { records: RwLock::new(records), last_use_ms: AtomicU64::new(now_ms()) }
    }

    /// The records, newest first.
    pub fn records(&self) -> Vec<Arc<LiveRecord>> {
        self.records.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// The first record that holds, as seen from `cwd`; `accepts` decides on what is not an observation.
    ///
    /// # Errors
    /// What broke the newest record; nothing if there is no record.
    pub fn find(
        &self,
        cwd: &WorkingDirectory,
        files: &FileTable,
        accepts: impl Fn(&Record) -> bool,
    ) -> Result<Arc<LiveRecord>, Option<Broken>> {
        let mut broken = None;
        for record in self.records().into_iter().filter(|r| accepts(&r.record)) {
            match record.check(cwd, files) {
                Ok(()) => {
                    self.last_use_ms.store(now_ms(), Ordering::Relaxed);
                    return Ok(record);
                }
                Err(b) => broken = broken.or(Some(b)),
            }
        }
        Err(broken)
    }

    /// Puts `record` first, in the place of one with the same observations; returns the records that went.
    pub fn insert(&self, record: Record) -> Vec<Arc<LiveRecord>> {
        let mut records = self.records.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let same = |r: &Arc<LiveRecord>| {
            r.record.environment == record.environment
                && r.record.variables == record.variables
                && r.record.observations.iter().eq(&record.observations)
        };
        let (mut gone, mut kept): (Vec<_>, Vec<_>) = records.drain(..).partition(same);
        kept.insert(0, Arc::new(LiveRecord::new(record)));
        gone.extend(kept.drain(RECORDS_PER_KEY_MAX.min(kept.len())..));
        *records = kept;
        gone
    }
}

/// The manifests that are in memory. Read by everybody, written by the store.
#[derive(Default)]
pub struct HotManifests {
    map: DashMap<RequestKey, Arc<Manifest>>,
}

impl HotManifests {
    /// The manifest of `key`, if it is in memory.
    pub fn get(&self, key: RequestKey) -> Option<Arc<Manifest>> {
        self.map.get(&key).map(|m| Arc::clone(&m))
    }

    /// Keeps a manifest. Returns those that had to go, with the time of their last use.
    pub fn put(&self, key: RequestKey, manifest: Arc<Manifest>) -> Vec<(RequestKey, u64)> {
        let gone = if self.map.len() >= HOT_MANIFESTS_MAX { self.shrink() } else { Vec::new() };
        self.map.insert(key, manifest);
        gone
    }

    /// When each manifest in memory was last used, in milliseconds since the epoch.
    pub fn uses(&self) -> Vec<(RequestKey, u64)> {
        self.map.iter().map(|e| (*e.key(), e.value().last_use_ms.load(Ordering::Relaxed))).collect()
    }

    /// Forgets one.
    pub fn remove(&self, key: RequestKey) {
        self.map.remove(&key);
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.map.clear();
    }

    fn shrink(&self) -> Vec<(RequestKey, u64)> {
        let mut uses = self.uses();
        uses.sort_unstable_by_key(|u| u.1);
        uses.truncate(HOT_MANIFESTS_MAX / 10);
        for (key, _) in &uses {
            self.map.remove(key);
        }
        uses
    }
}

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
