//! Manifests in memory: the records of a key, ready to be checked, and the map that hits read.
//!
//! Each record knows when it was last used, since that is the order of evictions. The index is told now and then
//! (`Storage::tidy`), not at every hit.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dashmap::DashMap;
use rustc_hash::FxBuildHasher;

use crate::faults;
use crate::file_table::FileTable;
use crate::freshness::{Broken, Inputs, LiveRecord, WorkingDirectory};
use crate::head_start::HeadStart;
use crate::key::RequestKey;
use crate::observation_pool::ObservationPool;
use crate::readiness::Readiness;
use crate::record::{RECORDS_PER_KEY_MAX, Record, RecordUse};

/// How many manifests are kept in memory; the least recently used tenth goes when the number is reached.
pub const HOT_MANIFESTS_MAX: usize = 4_000;

/// How many observations these have together: each takes some 30 bytes beside what it shares with others. A small C
/// file has 100 to 500 of them, HDF5's have 1,240: this is three thousand of these.
const HOT_OBSERVATIONS_MAX: usize = 4_000_000;

/// How many different ones, at some 250 bytes each. A project has some thousands.
const HOT_DISTINCT_MAX: usize = 200_000;

/// The most bytes of output that are written before it is known whether the record holds: where it does not, that was
/// for nothing, and took a millisecond.
const EARLY_BYTES_MAX: u64 = 4 << 20;

/// The records of one key, newest first.
pub struct Manifest {
    records: RwLock<Vec<Held>>,
    /// When it was last looked at; of no meaning but for what stays in memory.
    looked_at_ms: AtomicU64,
    /// Some record was used since the index was told.
    is_used: AtomicBool,
}

/// A record, and what the index keeps beside it.
#[derive(Clone)]
struct Held {
    live: Arc<LiveRecord>,
    /// Moment of the last use, by [`UseClock`].
    last_use_ms: Arc<AtomicU64>,
    /// As it was stored or read.
    used: Arc<RecordUse>,
}

impl Held {
    fn new(record: LiveRecord, used: RecordUse) -> Self {
        Self {
            live: Arc::new(record),
            last_use_ms: Arc::new(AtomicU64::new(used.last_use_ms)),
            used: Arc::new(used),
        }
    }

    fn used(&self) -> RecordUse {
        let last_use_ms = self.last_use_ms.load(Ordering::Relaxed);
        RecordUse { last_use_ms, ..RecordUse::clone(&self.used) }
    }
}

impl Manifest {
    /// A manifest of these records.
    pub fn new(records: impl IntoIterator<Item = (Record, RecordUse)>) -> Self {
        let records =
            records.into_iter().map(|(record, used)| Held::new(LiveRecord::new(record), used)).collect();
        Self {
            records: RwLock::new(records),
            looked_at_ms: AtomicU64::new(now_ms()),
            is_used: AtomicBool::new(false),
        }
    }

    fn held(&self) -> Vec<Held> {
        self.records.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// The records, newest first, each with its last use.
    pub fn records(&self) -> Vec<(Arc<LiveRecord>, RecordUse)> {
        self.held().into_iter().map(|held| (Arc::clone(&held.live), held.used())).collect()
    }

    /// The uses of its records, newest first.
    pub fn uses(&self) -> Vec<RecordUse> {
        self.held().iter().map(Held::used).collect()
    }

    /// The first record that holds, as seen from `cwd`, what `also` made of it (see [`LiveRecord::check_and`]), and the
    /// files that it rests on; `accepts` decides on what is not an observation.
    ///
    /// # Errors
    /// What broke the newest record; nothing if there is no record.
    pub fn find<T>(
        &self,
        cwd: &Arc<WorkingDirectory>,
        files: &Arc<FileTable>,
        accepts: impl Fn(&Record) -> bool,
        also: impl Fn(&Record) -> T,
    ) -> Result<(Arc<LiveRecord>, T, Inputs), Option<Broken>> {
        self.looked_at_ms.store(now_ms(), Ordering::Relaxed);
        let mut broken = None;
        for live in self.held().into_iter().map(|held| held.live).filter(|live| accepts(&live.record)) {
            // Where the newest does not hold, the others are not likely to: nothing is done for them in advance.
            let checked = match broken {
                None if output_bytes(&live.record) <= EARLY_BYTES_MAX => {
                    live.check_and(cwd, files, || also(&live.record))
                }
                _ => live.check_and(cwd, files, || ()).map(|((), inputs)| (also(&live.record), inputs)),
            };
            match checked {
                Ok((also, inputs)) => return Ok((live, also, inputs)),
                Err(b) => broken = broken.or(Some(b)),
            }
        }
        Err(broken)
    }

    /// How many observations its records have.
    fn observations(&self) -> usize {
        let records = self.records.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        records.iter().map(|held| held.live.record.observations.len()).sum()
    }

    /// Notes that `live`, one of these records, was used at `at_ms`.
    pub fn note_use(&self, live: &Arc<LiveRecord>, at_ms: u64) {
        let records = self.records.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(held) = records.iter().find(|held| Arc::ptr_eq(&held.live, live)) {
            held.last_use_ms.fetch_max(at_ms, Ordering::Relaxed);
            self.is_used.store(true, Ordering::Release);
        }
    }

    /// Puts `record` first, in the place of one with the same observations; returns the records that went.
    pub fn insert(&self, record: LiveRecord, used: RecordUse) -> Vec<Arc<LiveRecord>> {
        let mut records = self.records.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let same = |held: &Held| {
            let (old, new) = (&held.live.record, &record.record);
            old.environment == new.environment
                && old.variables == new.variables
                && old.observations.iter().eq(&new.observations)
        };
        let (mut gone, mut kept): (Vec<_>, Vec<_>) = records.drain(..).partition(same);
        kept.insert(0, Held::new(record, used));
        gone.extend(kept.drain(RECORDS_PER_KEY_MAX.min(kept.len())..));
        *records = kept;
        gone.into_iter().map(|held| held.live).collect()
    }
}

/// The moments of uses: the wall clock's, but never twice the same and never going back, so that the order of
/// evictions is that of uses whatever is done to the clock.
#[derive(Debug, Default)]
pub struct UseClock(AtomicU64);

impl UseClock {
    /// A moment later than every one before, in milliseconds since the epoch or a little more.
    pub fn stamp(&self) -> u64 {
        let now = now_ms();
        let next = |last: u64| Some(now.max(last.saturating_add(1)));
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).map_or(now, |last| now.max(last + 1))
    }

    /// From now on all moments are later than `at_ms`.
    pub fn advance(&self, at_ms: u64) {
        self.0.fetch_max(at_ms, Ordering::Relaxed);
    }
}

/// A manifest in memory.
struct Hot {
    manifest: Arc<Manifest>,
    /// How many observations it had when it was put there.
    observations: usize,
}

/// The manifests that are in memory. Read by everybody, written by the store; until that has an index, what is asked
/// for comes from the head start.
#[derive(Default)]
pub struct HotManifests {
    map: DashMap<RequestKey, Hot, FxBuildHasher>,
    /// How many observations all of them have.
    observations: AtomicUsize,
    pool: ObservationPool,
    head_start: RwLock<Option<HeadStart>>,
    /// Tells the moments of uses.
    pub clock: UseClock,
    /// Tells whether the store can be asked yet.
    pub readiness: Readiness,
}

impl HotManifests {
    /// The manifest of `key`, if it is in memory.
    pub fn get(&self, key: RequestKey) -> Option<Arc<Manifest>> {
        let hot = self.map.get(&key).map(|hot| Arc::clone(&hot.manifest));
        hot.or_else(|| self.get_early(key))
    }

    /// The manifest of `key` from the head start, now also in memory.
    fn get_early(&self, key: RequestKey) -> Option<Arc<Manifest>> {
        // Held until it is in the map: with the head start goes all that came from it.
        let head_start = self.head_start.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        let records = head_start.as_ref()?.records(key);
        let manifest = (!records.is_empty()).then(|| Arc::new(self.manifest_of(records)))?;
        self.put(key, Arc::clone(&manifest));
        Some(manifest)
    }

    /// A manifest of these records, which share their observations with all others. It is not kept yet.
    pub fn manifest_of(&self, mut records: Vec<(Record, RecordUse)>) -> Manifest {
        records.iter_mut().for_each(|(record, _)| self.pool.share(record));
        Manifest::new(records)
    }

    /// Has a new record share its observations with all others.
    pub fn share(&self, live: &mut LiveRecord) {
        self.pool.share(Arc::make_mut(&mut live.record));
    }

    /// From now on manifests come from this head start.
    pub fn begin_head_start(&self, head_start: Option<HeadStart>) {
        if let Some(head_start) = &head_start {
            self.clock.advance(head_start.latest_use_ms());
        }
        *self.head_start.write().unwrap_or_else(std::sync::PoisonError::into_inner) = head_start;
    }

    /// Takes what the head start has into memory, those looked at last first, for as long as there is patience: they are
    /// the likeliest to be asked for, and it will be gone.
    pub fn take_in_head_start(&self, patience: Duration) {
        let begun = Instant::now();
        let keys = {
            let head_start = self.head_start.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            head_start.as_ref().map(|head_start| head_start.keys().to_vec())
        };
        for key in keys.into_iter().flatten() {
            if begun.elapsed() >= patience {
                break;
            }
            self.get(key);
        }
    }

    /// No more manifests come from the head start. Unless it was there and `is_true`, all that are in memory are
    /// forgotten. Returns which keys it knew.
    pub fn end_head_start(&self, is_true: impl FnOnce(&HeadStart) -> bool) -> Vec<RequestKey> {
        let mut head_start = self.head_start.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        match head_start.take() {
            Some(head_start) if is_true(&head_start) => head_start.into_keys(),
            _ => {
                self.clear();
                Vec::new()
            }
        }
    }

    /// The keys of all that are in memory, those looked at last first.
    pub fn keys_by_look(&self) -> Vec<RequestKey> {
        let mut keys = self.keys_oldest_first();
        keys.reverse();
        keys
    }

    fn keys_oldest_first(&self) -> Vec<RequestKey> {
        let looked_at = |hot: &Hot| hot.manifest.looked_at_ms.load(Ordering::Relaxed);
        let mut keys: Vec<_> = self.map.iter().map(|e| (looked_at(e.value()), *e.key())).collect();
        keys.sort_unstable();
        keys.into_iter().map(|(_, key)| key).collect()
    }

    /// Keeps a manifest, or what has become of one that is kept. Returns those that had to go.
    pub fn put(&self, key: RequestKey, manifest: Arc<Manifest>) -> Vec<(RequestKey, Arc<Manifest>)> {
        let observations = manifest.observations();
        let before = self.map.get(&key).map(|hot| hot.observations);
        // What it was is not in the way of what it is.
        let more = observations.saturating_sub(before.unwrap_or(0));
        let is_full = before.is_none() && self.map.len() >= HOT_MANIFESTS_MAX;
        let gone = match is_full || self.observations().saturating_add(more) > HOT_OBSERVATIONS_MAX {
            true => self.shrink(more),
            false if self.pool.count_at_most() > HOT_DISTINCT_MAX && self.pool.count() > HOT_DISTINCT_MAX => {
                let count = self.map.len();
                self.shrink_to(count - count.div_ceil(4))
            }
            false => Vec::new(),
        };
        self.observations.fetch_add(observations, Ordering::Relaxed);
        if let Some(before) = self.map.insert(key, Hot { manifest, observations }) {
            self.observations.fetch_sub(before.observations, Ordering::Relaxed);
        }
        gone
    }

    fn observations(&self) -> usize {
        self.observations.load(Ordering::Relaxed)
    }

    /// The manifests of which some record was used since the last call.
    pub fn take_used(&self) -> Vec<(RequestKey, Arc<Manifest>)> {
        let used = self.map.iter().filter(|e| e.manifest.is_used.swap(false, Ordering::AcqRel));
        used.map(|e| (*e.key(), Arc::clone(&e.manifest))).collect()
    }

    /// Forgets one.
    pub fn remove(&self, key: RequestKey) -> Option<Arc<Manifest>> {
        let (_, hot) = self.map.remove(&key)?;
        self.observations.fetch_sub(hot.observations, Ordering::Relaxed);
        Some(hot.manifest)
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.map.clear();
        self.observations.store(0, Ordering::Relaxed);
    }

    /// Forgets the least recently used, but for so many.
    fn shrink_to(&self, kept: usize) -> Vec<(RequestKey, Arc<Manifest>)> {
        let keys = self.keys_oldest_first();
        let going = keys.len().saturating_sub(kept);
        keys.into_iter()
            .take(going)
            .filter_map(|key| self.remove(key).map(|manifest| (key, manifest)))
            .collect()
    }

    /// Forgets the least recently used, until there is room for a tenth, and for so many observations more.
    fn shrink(&self, observations: usize) -> Vec<(RequestKey, Arc<Manifest>)> {
        let is_enough = || {
            let all = self.observations().saturating_add(observations);
            self.map.len() <= HOT_MANIFESTS_MAX / 10 * 9 && all <= HOT_OBSERVATIONS_MAX / 10 * 9
        };
        let going = self.keys_oldest_first().into_iter().map_while(|key| (!is_enough()).then_some(key));
        going.filter_map(|key| self.remove(key).map(|manifest| (key, manifest))).collect()
    }
}

fn output_bytes(record: &Record) -> u64 {
    record.result.outputs.iter().filter_map(|output| output.file).map(|file| file.bytes).sum()
}

/// Milliseconds since the epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    now_ms.saturating_add_signed(faults::clock_s().saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::observation::{Fact, Observation, Spelled};
    use crate::record::{RunResult, Variable};
    use serde_bytes::ByteBuf;
    use zccache_proto::message::Exit;

    fn record(exit: i32) -> Record {
        let result = RunResult {
            exit: Exit::Code(exit),
            stdout: ByteBuf::new(),
            stderr: ByteBuf::new(),
            outputs: Vec::new(),
        };
        let variables = vec![Variable { name: exit.to_string().into(), value: None }];
        let (observations, identities) = (Vec::new(), Vec::new());
        Record { observations, identities, environment: None, variables, origin: None, result }
    }

    #[test]
    fn a_key_keeps_so_many_records_and_the_oldest_go() {
        let manifest = Manifest::new([]);
        let many = i32::try_from(RECORDS_PER_KEY_MAX).unwrap();
        for exit in 0..many {
            assert!(manifest.insert(LiveRecord::new(record(exit)), RecordUse::default()).is_empty());
        }
        let gone = manifest.insert(LiveRecord::new(record(many)), RecordUse::default());
        assert_eq!(gone.iter().map(|live| live.record.result.exit).collect::<Vec<_>>(), [Exit::Code(0)]);
        assert_eq!(manifest.records().len(), RECORDS_PER_KEY_MAX);
        assert_eq!(manifest.records()[0].0.record.result.exit, Exit::Code(many));
    }

    #[test]
    fn a_large_result_is_not_written_before_its_record_holds() {
        let files = Arc::<FileTable>::default();
        let temp = tempfile::tempdir().unwrap();
        use std::os::unix::ffi::OsStrExt;
        let cwd = Arc::new(WorkingDirectory::open(temp.path().as_os_str().as_bytes()).unwrap());
        // As many as are checked while something else is done, and broken all but the one that is looked at before.
        std::fs::write(temp.path().join("999.h"), "").unwrap();
        let missing = |n| Observation {
            path: Spelled(format!("{n}.h").into_bytes()),
            fact: Fact::Kind { follow: true, kind: crate::signature::FileKind::File },
        };
        for (bytes, is_early) in [(EARLY_BYTES_MAX, true), (EARLY_BYTES_MAX + 1, false)] {
            let file =
                crate::record::OutputFile { digest: Digest([0; 32]), bytes, mode: 0o644, replaces: false };
            let output = crate::record::Output { path: Spelled(b"a.o".to_vec()), file: Some(file) };
            let mut large = record(0);
            large.observations = (0..1000).map(missing).map(Arc::new).collect();
            large.identities = vec![crate::record::NO_FILE; 1000];
            large.result.outputs.push(output);
            let manifest = Manifest::new([(large, RecordUse::default())]);
            let written = AtomicBool::new(false);
            let found = manifest.find(&cwd, &files, |_| true, |_| written.store(true, Ordering::Relaxed));
            assert!(found.is_err());
            assert_eq!(written.into_inner(), is_early, "{bytes}");
        }
    }

    #[test]
    fn so_many_manifests_stay_in_memory_and_the_longest_unused_go() {
        let hot = HotManifests::default();
        let key = |n: usize| RequestKey(Digest::of(&n.to_le_bytes()));
        let manifest = |looked_at_ms: usize| {
            let manifest = Manifest::new([]);
            manifest.looked_at_ms.store(looked_at_ms as u64, Ordering::Relaxed);
            Arc::new(manifest)
        };
        for n in 0..HOT_MANIFESTS_MAX {
            assert!(hot.put(key(n), manifest(n)).is_empty());
        }
        let gone = hot.put(key(HOT_MANIFESTS_MAX), manifest(HOT_MANIFESTS_MAX));
        assert_eq!(gone.len(), HOT_MANIFESTS_MAX / 10);
        assert!((0..gone.len()).all(|n| hot.get(key(n)).is_none()), "the oldest should have gone");
        assert!((gone.len()..=HOT_MANIFESTS_MAX).all(|n| hot.get(key(n)).is_some()));
    }

    #[test]
    fn so_many_observations_stay_in_memory_and_the_longest_unused_go() {
        let hot = HotManifests::default();
        let key = |n: usize| RequestKey(Digest::of(&n.to_le_bytes()));
        let manifest = |looked_at_ms: usize, observations: usize| {
            let observation = Arc::new(Observation { path: Spelled(b"a.h".to_vec()), fact: Fact::Absent });
            let record = Record { observations: vec![observation; observations], ..record(0) };
            let manifest = Manifest::new([(record, RecordUse::default())]);
            manifest.looked_at_ms.store(looked_at_ms as u64, Ordering::Relaxed);
            Arc::new(manifest)
        };
        let tenth = HOT_OBSERVATIONS_MAX / 10;
        for n in 0..10 {
            let manifest = manifest(n, tenth);
            assert!(hot.put(key(n), Arc::clone(&manifest)).is_empty());
            // The same once more weighs nothing.
            assert!(hot.put(key(n), manifest).is_empty());
        }
        let gone: Vec<RequestKey> =
            hot.put(key(10), manifest(10, tenth)).into_iter().map(|(k, _)| k).collect();
        assert_eq!(gone, [key(0), key(1)]);
        assert_eq!(hot.observations(), HOT_OBSERVATIONS_MAX / 10 * 9);
        hot.remove(key(10));
        assert!(hot.put(key(11), manifest(11, 2 * tenth)).is_empty());
        // One that is over the limit by itself is all there is.
        assert_eq!(hot.put(key(12), manifest(12, HOT_OBSERVATIONS_MAX + 1)).len(), 9);
        hot.clear();
        assert_eq!(hot.observations(), 0);
    }

    #[test]
    fn so_many_different_observations_stay_in_memory_and_a_quarter_of_the_manifests_goes() {
        let hot = HotManifests::default();
        let key = |n: usize| RequestKey(Digest::of(&n.to_le_bytes()));
        let tenth = HOT_DISTINCT_MAX / 10;
        let put = |n: usize, numbers: std::ops::Range<usize>| {
            let path = |n: usize| Spelled(format!("{n}.h").into_bytes());
            let observations = numbers.map(|n| Arc::new(Observation { path: path(n), fact: Fact::Absent }));
            let record = Record { observations: observations.collect(), ..record(0) };
            let manifest = hot.manifest_of(vec![(record, RecordUse::default())]);
            manifest.looked_at_ms.store(n as u64, Ordering::Relaxed);
            hot.put(key(n), Arc::new(manifest)).into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        for n in 0..10 {
            assert!(put(n, n * tenth..(n + 1) * tenth).is_empty());
        }
        // Others that have the same add nothing.
        assert!(put(10, 0..tenth).is_empty() && put(11, tenth..2 * tenth).is_empty());
        // One more is one too many; of two that went, the observations are still those of two that are there.
        assert_eq!(put(12, 10 * tenth..10 * tenth + 1), [key(0), key(1), key(2)]);
        assert_eq!(hot.pool.count(), 9 * tenth + 1);
    }

    #[test]
    fn moments_of_use_never_repeat_and_never_go_back() {
        let clock = UseClock::default();
        let (first, second) = (clock.stamp(), clock.stamp());
        assert!(first < second && now_ms() <= second + 1);
        // As if the clock had been right until now, and were then set back by a day.
        let ahead = now_ms() + 24 * 3600 * 1000;
        clock.advance(ahead);
        assert_eq!((clock.stamp(), clock.stamp()), (ahead + 1, ahead + 2));
    }
}
