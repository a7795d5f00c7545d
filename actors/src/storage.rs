//! Storage: index and blobs as one thing with a size limit. The plain component behind the store actor.
//!
//! Without a usable index (missing rights, a full disk, damage, another service on the same directory) it says
//! why and answers "nothing known"; it tries again now and then. It never fails a compile.

mod accounts;
mod error;
mod opening;
mod places;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use zccache_proto::message::Evict;
use zccache_proto::report::{AllTimeReport, StoreReport};

use crate::blobs::{Blobs, PendingBlob};
use crate::freshness::LiveRecord;
use crate::head_start::{self, HeadStart};
use crate::index::IndexError;
use crate::key::RequestKey;
use crate::manifest::{HotManifests, Manifest, now_ms};
use crate::readiness::Stage;
use crate::record::RecordUse;
use accounts::Accounts;
pub use accounts::Gone;
pub use error::StorageError;
use places::{is_at_home_in, places};

/// How long an unusable index is left alone before it is tried again: soon enough after a disk was freed, rare
/// enough to cost nothing.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How long what the head start has is taken into memory, once the index is open: time for the records of some five
/// hundred files in C. Whoever waits for the index waits for that as well.
const TAKING_IN_MAX: Duration = Duration::from_millis(50);

/// How often results are looked through for those beyond the age limit, which is a matter of days.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(3600);

/// Bytes of records that are kept whatever the limit, which is one of contents: with a small limit, the records of
/// small files would otherwise outweigh these.
const RECORD_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of all blobs, at most; of all records, too, but for `RECORD_BYTES_MIN`.
    pub bytes: u64,
    /// How long a result may be unused, if there is a limit to it.
    pub age: Option<Duration>,
}

/// Index, blobs, and how much they may take.
pub struct Storage {
    cache_dir: PathBuf,
    limits: Limits,
    blobs: Arc<Blobs>,
    hot: Arc<HotManifests>,
    state: State,
    expired: Option<Instant>,
    written: Option<AllTimeReport>,
    /// What the head start knew: what of it nobody has looked at since is for the next one.
    early: Vec<RequestKey>,
}

enum State {
    Open(Box<Accounts>),
    Unavailable {
        why: String,
        since: Instant,
    },
    /// For good: the next service may have it open already.
    Closed,
}

impl Storage {
    /// Storage below `cache_dir` within `limits`. Opens nothing yet.
    pub fn new(cache_dir: &Path, limits: Limits, blobs: Arc<Blobs>, hot: Arc<HotManifests>) -> Self {
        let state = State::Unavailable { why: "not opened yet".into(), since: Instant::now() };
        let (cache_dir, early) = (cache_dir.into(), Vec::new());
        Self { cache_dir, limits, blobs, hot, state, expired: None, written: None, early }
    }

    /// Begins: with what an earlier service left to be served until the index is open, and with opening that.
    ///
    /// # Errors
    /// As [`Storage::open`].
    pub fn begin(&mut self) -> Result<(), StorageError> {
        self.hot.readiness.expect(opening::database_bytes(&self.cache_dir));
        self.hot.begin_head_start(HeadStart::take(&self.cache_dir));
        self.hot.readiness.set(Stage::Opening);
        let opened = self.open();
        self.hot.readiness.set(Stage::Ready);
        opened
    }

    /// Opens the index.
    ///
    /// # Errors
    /// `Unavailable`, with the reason.
    pub fn open(&mut self) -> Result<(), StorageError> {
        let opened = opening::open_index(&self.cache_dir).and_then(|index| {
            Accounts::new(index, Arc::clone(&self.blobs), Arc::clone(&self.hot)).map_err(|e| e.to_string())
        });
        match opened {
            Ok(accounts) => {
                self.hot.take_in_head_start(TAKING_IN_MAX);
                let named = accounts.index().name_head_start(None).ok().flatten();
                // What is in memory may be ahead of an index that was not closed properly.
                self.early = self.hot.end_head_start(|early| early.is_of(named, accounts.totals()));
                // One that came after the start is of a service that ended meanwhile, and of what will now change.
                let _ = head_start::remove(&self.cache_dir);
                self.state = State::Open(Box::new(accounts));
                Ok(())
            }
            Err(why) => {
                self.hot.end_head_start(|_| false);
                self.state = State::Unavailable { why: why.clone(), since: Instant::now() };
                Err(StorageError::Unavailable(why))
            }
        }
    }

    /// Deletes, on a thread of its own, what an earlier service left behind: blobs that the index does not know,
    /// last changed before `before_ns` (the start of this service, nanoseconds since the epoch).
    pub fn sweep_in_background(&self, before_ns: i64) {
        let State::Open(accounts) = &self.state else { return };
        let (blobs, knows) = (Arc::clone(&self.blobs), accounts.index().knows_blob());
        // Without a thread it is done after the next start.
        let sweep = move || blobs.sweep(before_ns, knows);
        let _ = std::thread::Builder::new().name("sweep".into()).spawn(sweep);
    }

    /// Why the cache cannot be used, if it cannot.
    pub fn trouble(&self) -> Option<String> {
        match &self.state {
            State::Open(_) => self.blobs.trouble(),
            State::Unavailable { why, .. } => Some(why.clone()),
            State::Closed => Some("the service is shutting down".into()),
        }
    }

    /// The manifest of `key`, now also in memory; `None` if there is none.
    ///
    /// # Errors
    /// If the index cannot be used.
    pub fn manifest(&mut self, key: RequestKey) -> Result<Option<Arc<Manifest>>, StorageError> {
        let found = self.find(key)?;
        found.iter().for_each(|manifest| self.keep_hot(key, Arc::clone(manifest)));
        Ok(found)
    }

    /// The manifest of `key`, from memory or from the index.
    fn find(&mut self, key: RequestKey) -> Result<Option<Arc<Manifest>>, StorageError> {
        if let Some(manifest) = self.hot.get(key) {
            return Ok(Some(manifest));
        }
        let records = self.with_open(|accounts| Ok(accounts.index().entry(key)?))?;
        Ok((!records.is_empty()).then(|| Arc::new(self.hot.manifest_of(records))))
    }

    /// Stores `record` and the contents it names, of a request made in the directory `root`.
    ///
    /// # Errors
    /// If it cannot be; nothing of it is then served.
    pub fn insert(
        &mut self,
        key: RequestKey,
        mut record: LiveRecord,
        root: &[u8],
        contents: &[PendingBlob],
    ) -> Result<(), StorageError> {
        self.make_room(contents)?;
        self.hot.share(&mut record);
        // What is shared with requests from elsewhere is in memory when one of them has asked, and not before.
        let stays = record.record.origin.is_none() || self.hot.get(key).is_some();
        let manifest = self.find(key)?.unwrap_or_else(|| Arc::new(Manifest::new([])));
        let used = RecordUse::stored(self.hot.clock.stamp(), places(&record.record, root));
        let inserted = self.with_open(|accounts| accounts.insert(key, &manifest, record, used, contents));
        if inserted.is_err() {
            // In memory it may be there, though nothing of it was written down.
            self.hot.remove(key);
        }
        inserted?;
        if stays {
            self.keep_hot(key, manifest);
        }
        Ok(())
    }

    /// Evicts until `contents` fit beside what is stored and what else is on its way in.
    fn make_room(&mut self, contents: &[PendingBlob]) -> Result<(), StorageError> {
        let Limits { bytes: limit, .. } = self.limits;
        let ours: u64 = contents.iter().map(|c| c.bytes).sum();
        let others = self.blobs.pending_bytes().saturating_sub(ours);
        let fits = move |accounts: &Accounts, others: u64| -> Result<bool, StorageError> {
            let bytes = accounts.totals().blob_bytes + accounts.new_bytes(contents)?;
            let record_bytes = accounts.totals().record_bytes;
            Ok(bytes.saturating_add(others) <= limit && record_bytes <= limit.max(RECORD_BYTES_MIN))
        };
        if distinct_bytes(contents) > limit {
            return Err(StorageError::LargerThanCache);
        }
        self.with_open(|accounts| {
            // What others have on its way in may be more than the whole limit, and is not ours to wait for.
            let others = others.min(limit.saturating_sub(accounts.new_bytes(contents)?));
            if accounts.evict_until(|a| fits(a, others))? {
                return Ok(());
            }
            // Nothing is left to evict, so nothing but the new is counted, unless something was miscounted.
            accounts.recount()?;
            if fits(accounts, 0)? { Ok(()) } else { Err(StorageError::LargerThanCache) }
        })
    }

    /// Makes everything so far survive a crash.
    ///
    /// # Errors
    /// If the index cannot be used.
    pub fn flush(&mut self) -> Result<(), StorageError> {
        self.with_open(|accounts| Ok(accounts.index().flush()?))
    }

    /// What earlier services left for the counters, if the index can be used; `Some(None)` if they left nothing.
    pub fn earlier_counters(&self) -> Option<Option<AllTimeReport>> {
        let State::Open(accounts) = &self.state else { return None };
        let bytes = accounts.index().counters().ok()?;
        Some(bytes.and_then(|bytes| rmp_serde::from_slice(&bytes).ok()))
    }

    /// Writes down what is only in memory (when results were last used, and `counters`), and now and then evicts
    /// what is beyond the age limit.
    ///
    /// # Errors
    /// If the index cannot be used.
    pub fn tidy(&mut self, counters: Option<AllTimeReport>) -> Result<(), StorageError> {
        let expires =
            self.limits.age.filter(|_| self.expired.is_none_or(|at| at.elapsed() >= EXPIRY_INTERVAL));
        let new_counters = counters.filter(|_| counters != self.written);
        let gone = self.with_open(|accounts| {
            let mut wrote = accounts.write_uses()?;
            if let Some(counters) = new_counters {
                let bytes = rmp_serde::to_vec_named(&counters).map_err(IndexError::from)?;
                accounts.index().put_counters(&bytes)?;
                wrote = true;
            }
            if wrote {
                accounts.index().flush()?;
            }
            match expires.map(before) {
                Some(moment_ms) => accounts.evict_all(|used| used.last_use_ms < moment_ms),
                None => Ok(Gone::default()),
            }
        })?;
        self.written = counters;
        if expires.is_some() {
            self.expired = Some(Instant::now());
        }
        if gone.records > 0 {
            tracing::info!(?gone, "evicted results beyond the age limit");
        }
        Ok(())
    }

    /// Writes down what is only in memory, flushes, and lets go of the index: before an orderly end.
    ///
    /// # Errors
    /// If the index cannot be used.
    pub fn close(&mut self, counters: Option<AllTimeReport>) -> Result<(), StorageError> {
        self.limits.age = None; // There is time for that at the next start.
        let tidied = self.tidy(counters);
        if let Err(e) = self.leave_head_start() {
            tracing::debug!(%e, "the next service has no head start");
        }
        let written = tidied.and_then(|()| self.flush());
        self.state = State::Closed;
        written
    }

    /// Leaves what was looked at last to the next service.
    fn leave_head_start(&self) -> Result<(), StorageError> {
        let State::Open(accounts) = &self.state else { return Ok(()) };
        head_start::leave(&self.cache_dir, accounts.index(), self.hot.keys_by_look(), &self.early)
    }

    /// Forgets everything.
    ///
    /// # Errors
    /// If the cache cannot be used.
    pub fn clear(&mut self) -> Result<Gone, StorageError> {
        self.hot.clear();
        self.with_open(Accounts::clear)
    }

    /// Forgets what `which` asks for.
    ///
    /// # Errors
    /// If the cache cannot be used.
    pub fn evict(&mut self, which: &Evict) -> Result<Gone, StorageError> {
        let moment_ms = which.older_than_s.map(|s| before(Duration::from_secs(s)));
        let is_to_go = |used: &RecordUse| {
            moment_ms.is_none_or(|moment_ms| used.last_use_ms <= moment_ms)
                && (which.roots.is_empty() || which.roots.iter().any(|root| is_at_home_in(used, root)))
        };
        self.with_open(|accounts| {
            let gone = accounts.evict_all(is_to_go)?;
            accounts.index().flush()?;
            Ok(gone)
        })
    }

    /// Looks through everything, forgets what is damaged or beyond the limits, and counts anew.
    ///
    /// # Errors
    /// If the cache cannot be used.
    pub fn gc(&mut self) -> Result<Gone, StorageError> {
        let Limits { bytes: limit, age } = self.limits;
        self.with_open(|accounts| {
            let mut gone = accounts.recount()?;
            if let Some(moment_ms) = age.map(before) {
                gone += accounts.evict_all(|used| used.last_use_ms < moment_ms)?;
            }
            let before = accounts.totals();
            accounts.evict_until(|a| Ok(a.totals().blob_bytes <= limit))?;
            let after = accounts.totals();
            gone += Gone {
                records: before.records.saturating_sub(after.records),
                blobs: before.blobs.saturating_sub(after.blobs),
                bytes: before.blob_bytes.saturating_sub(after.blob_bytes),
            };
            accounts.index().flush()?;
            Ok(gone)
        })
    }

    /// How much is stored.
    pub fn report(&self) -> StoreReport {
        let limit_bytes = self.limits.bytes;
        match &self.state {
            State::Open(accounts) => {
                let totals = accounts.totals();
                StoreReport {
                    blobs: totals.blobs,
                    records: totals.records,
                    bytes: totals.blob_bytes,
                    limit_bytes,
                    deduplicated_bytes: totals.output_bytes.saturating_sub(totals.blob_bytes),
                    record_bytes: totals.record_bytes,
                    evicted: accounts.evicted(),
                }
            }
            _ => StoreReport { limit_bytes, ..StoreReport::default() },
        }
    }

    fn keep_hot(&mut self, key: RequestKey, manifest: Arc<Manifest>) {
        for (gone, manifest) in self.hot.put(key, manifest) {
            // Only the order of evictions hangs on it.
            let _ = self.with_open(|accounts| accounts.touch(gone, &manifest));
        }
    }

    /// Calls `with` on the open index, after another try to open it if it is time. An error of the index
    /// itself closes it: what it holds in memory can no longer be vouched for.
    fn with_open<T>(
        &mut self,
        with: impl FnOnce(&mut Accounts) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if matches!(&self.state, State::Unavailable { since, .. } if since.elapsed() >= RETRY_AFTER) {
            let _ = self.open();
        }
        let accounts = match &mut self.state {
            State::Open(accounts) => accounts,
            State::Unavailable { why, .. } => return Err(StorageError::Unavailable(why.clone())),
            State::Closed => return Err(StorageError::Unavailable("the service is shutting down".into())),
        };
        let result = with(accounts);
        if let Err(StorageError::Index(e)) = &result {
            self.hot.clear();
            self.state = State::Unavailable { why: e.to_string(), since: Instant::now() };
        }
        result
    }
}

/// The moment that lies `age` back, in milliseconds since the epoch.
fn before(age: Duration) -> u64 {
    now_ms().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

/// Bytes of `contents`, equal ones counted once.
fn distinct_bytes(contents: &[PendingBlob]) -> u64 {
    let distinct: BTreeMap<_, _> = contents.iter().map(|c| (c.digest, c.bytes)).collect();
    distinct.values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::index::Index;
    use crate::observation::{Fact, Observation, Spelled};
    use crate::record::{NO_FILE, Output, OutputFile, Record, RunResult, unpackable};
    use serde_bytes::ByteBuf;
    use std::fs::File;
    use zccache_proto::message::Exit;

    struct Fixture {
        temp: tempfile::TempDir,
        storage: Storage,
    }

    fn new(cache: &Path, limit_bytes: u64) -> Storage {
        let limits = Limits { bytes: limit_bytes, age: None };
        Storage::new(cache, limits, Arc::new(Blobs::new(cache)), Arc::default())
    }

    impl Fixture {
        fn new(limit_bytes: u64) -> Self {
            let temp = tempfile::tempdir().unwrap();
            let storage = Self::open(temp.path(), limit_bytes);
            Self { temp, storage }
        }

        fn open(directory: &Path, limit_bytes: u64) -> Storage {
            let cache = directory.join("cache");
            let mut storage = new(&cache, limit_bytes);
            // Threads of sled's may hold an index that was closed a moment ago.
            let end = Instant::now() + Duration::from_secs(60);
            while let Err(e) = storage.open() {
                assert!(e.to_string().contains("in use") && Instant::now() < end, "{e}");
                std::thread::sleep(Duration::from_millis(10));
            }
            storage
        }

        fn put(&mut self, key: RequestKey, content: &str) -> Result<(), StorageError> {
            self.put_version(key, 0, content)
        }

        /// Stores a result that differs from the key's others by an observation.
        fn put_version(&mut self, key: RequestKey, version: u8, content: &str) -> Result<(), StorageError> {
            let source = self.temp.path().join("source");
            std::fs::write(&source, content).unwrap();
            let pending = self.storage.blobs.receive(&mut File::open(&source).unwrap()).unwrap();
            let file =
                OutputFile { digest: pending.digest, bytes: pending.bytes, mode: 0o644, replaces: false };
            let path = Spelled(b"a.o".to_vec());
            let outputs = vec![Output { path, file: Some(file) }];
            let result = RunResult {
                exit: Exit::Code(0),
                stdout: Default::default(),
                stderr: Default::default(),
                outputs,
            };
            let path = Spelled(format!("{version}.h").into_bytes());
            let observations = vec![Arc::new(Observation { path, fact: Fact::Absent })];
            let identities = vec![NO_FILE];
            let record = Record {
                observations,
                identities,
                environment: None,
                variables: vec![],
                origin: None,
                result,
            };
            self.storage.insert(key, LiveRecord::new(record), b"/project", &[pending])
        }

        /// As a hit does it.
        fn use_(&mut self, key: RequestKey) {
            let manifest = self.storage.manifest(key).unwrap().expect("a record to use");
            let (live, _) = manifest.records().remove(0);
            manifest.note_use(&live, self.storage.hot.clock.stamp());
        }

        fn has(&mut self, key: RequestKey) -> bool {
            self.storage.manifest(key).unwrap().is_some()
        }

        /// The next service on the same directory.
        fn restart(&mut self) {
            self.storage.close(None).unwrap();
            let limit_bytes = self.storage.limits.bytes;
            // The old index must be let go of first.
            self.storage = new(Path::new("/nonexistent"), 0);
            self.storage = Self::open(self.temp.path(), limit_bytes);
        }
    }

    /// A service that ends, and the next one.
    impl Fixture {
        fn cache(&self) -> PathBuf {
            self.temp.path().join("cache")
        }

        fn end(&mut self) {
            self.storage.close(None).unwrap();
            self.let_go();
        }

        /// Ends as a killed one does, but that the index is free.
        fn let_go(&mut self) {
            let limit_bytes = self.storage.limits.bytes;
            self.storage = new(Path::new("/nonexistent"), limit_bytes);
            let index = File::open(self.cache().join("index/db")).unwrap();
            let end = Instant::now() + Duration::from_secs(60);
            while index.try_lock().is_err() {
                assert!(Instant::now() < end, "the index is still held");
                std::thread::sleep(Duration::from_millis(10));
            }
        }

        /// The next one comes as far as its head start.
        fn come(&mut self) {
            self.storage = new(&self.cache(), self.storage.limits.bytes);
            self.storage.hot.begin_head_start(HeadStart::take(&self.cache()));
        }

        /// The file that the last one left.
        fn head_start(&self) -> PathBuf {
            self.cache().join("head-start")
        }
    }

    fn key(name: &str) -> RequestKey {
        RequestKey(Digest::of(name.as_bytes()))
    }

    #[test]
    fn what_was_looked_at_last_is_there_before_the_index_is() {
        let mut f = Fixture::new(1000);
        f.put(key("a"), "object").unwrap();
        for round in 0..3 {
            f.end();
            f.come();
            let early = f.storage.hot.get(key("a")).expect("it was looked at last");
            assert!(f.storage.hot.get(key("b")).is_none());
            assert!(!f.head_start().exists(), "it is there for one start only");
            let (live, _) = early.records().remove(0);
            let at_ms = f.storage.hot.clock.stamp();
            early.note_use(&live, at_ms);
            f.storage.open().unwrap();
            let known = f.storage.manifest(key("a")).unwrap().unwrap();
            assert!(Arc::ptr_eq(&early, &known), "round {round}");
            f.storage.tidy(None).unwrap();
            assert_eq!(f.storage.report().records, 1);
            // One at which nobody looks is for the next one all the same.
            f.end();
            f.come();
            f.storage.open().unwrap();
            assert!(f.storage.hot.get(key("a")).is_some(), "nor has the index to be asked for it");
            assert_eq!(f.storage.manifest(key("a")).unwrap().unwrap().records()[0].1.last_use_ms, at_ms);
            f.storage.hot.clear();
        }
    }

    #[test]
    fn a_head_start_is_taken_into_memory_for_so_long_and_no_longer() {
        let mut f = Fixture::new(1000);
        f.put(key("a"), "object").unwrap();
        f.end();
        for (patience, is_taken) in [(Duration::ZERO, false), (TAKING_IN_MAX, true)] {
            f.come();
            f.storage.hot.take_in_head_start(patience);
            assert_eq!(f.storage.hot.keys_by_look().len(), usize::from(is_taken), "{patience:?}");
            f.storage.open().unwrap();
            assert_eq!(f.storage.hot.keys_by_look(), [key("a")], "it stays when the head start goes");
            f.end();
        }
    }

    #[test]
    fn nothing_that_was_forgotten_comes_back_by_a_head_start() {
        let forgets: [fn(&mut Fixture); 4] = [
            |f| _ = f.storage.clear().unwrap(),
            |f| _ = f.storage.evict(&Evict { older_than_s: None, roots: vec![] }).unwrap(),
            |f| f.put(key("b"), &"b".repeat(1000)).unwrap(),
            |f| {
                std::fs::remove_dir_all(f.cache().join("blobs")).unwrap();
                f.storage.gc().unwrap();
            },
        ];
        for (number, forget) in forgets.into_iter().enumerate() {
            for is_of_an_older_version in [false, true] {
                let what = format!("{number}, {is_of_an_older_version}");
                let mut f = Fixture::new(1000);
                f.put(key("a"), "object").unwrap();
                f.end();
                let kept = std::fs::read(f.head_start()).unwrap();
                f.come();
                let index = Index::open(&f.cache().join("index")).unwrap();
                let name = index.name_head_start(None).unwrap();
                drop(index);
                f.let_go();
                f.come();
                f.storage.open().unwrap();
                forget(&mut f);
                f.end();
                // Somebody puts it back; or it was left alone, by a version that knows neither of it nor of its name.
                std::fs::write(f.head_start(), &kept).unwrap();
                if is_of_an_older_version {
                    let index = Index::open(&f.cache().join("index")).unwrap();
                    index.name_head_start(name).unwrap();
                    index.flush().unwrap();
                    drop(index);
                    f.let_go();
                }
                f.come();
                assert!(f.storage.hot.get(key("a")).is_some(), "{what}: this test is of no use");
                f.storage.open().unwrap();
                assert!(!f.has(key("a")), "{what}");
            }
        }
    }

    #[test]
    fn a_killed_service_leaves_no_head_start() {
        let mut f = Fixture::new(1000);
        f.put(key("a"), "object").unwrap();
        f.end();
        f.come();
        f.storage.open().unwrap();
        f.storage.flush().unwrap();
        f.let_go();
        f.come();
        assert!(f.storage.hot.get(key("a")).is_none());
        f.storage.open().unwrap();
        assert!(f.has(key("a")));
        // One that comes behind the start is of no use to the next: what it was copied from will have changed.
        f.let_go();
        f.come();
        std::fs::write(f.head_start(), "later").unwrap();
        f.storage.open().unwrap();
        assert!(!f.head_start().exists());
    }

    #[test]
    fn what_was_written_is_there_for_the_next_service() {
        let mut f = Fixture::new(1000);
        f.put(key("a"), "object").unwrap();
        let before = f.storage.report();
        f.restart();
        assert_eq!(f.storage.manifest(key("a")).unwrap().unwrap().records().len(), 1);
        assert_eq!(f.storage.report(), before);
        assert_eq!((before.blobs, before.records, before.bytes, before.limit_bytes), (1, 1, 6, 1000));
    }

    #[test]
    fn records_are_counted_not_keys() {
        let mut f = Fixture::new(1000);
        for version in 0..3 {
            f.put_version(key("a"), version, "object").unwrap();
        }
        f.put(key("b"), "other").unwrap();
        assert_eq!(f.storage.report().records, 4);
        f.restart();
        assert_eq!(f.storage.report().records, 4);
    }

    #[test]
    fn equal_contents_are_kept_once_and_go_with_the_last_user() {
        let mut f = Fixture::new(1000);
        f.put(key("a"), "same").unwrap();
        f.put(key("b"), "same").unwrap();
        let report = f.storage.report();
        assert_eq!((report.blobs, report.bytes, report.deduplicated_bytes), (1, 4, 4));
        f.put(key("a"), "other").unwrap(); // the same observations: takes the old record's place
        assert_eq!((f.storage.report().blobs, f.storage.report().records), (2, 2));
        f.put(key("b"), "other").unwrap();
        assert_eq!((f.storage.report().blobs, f.storage.report().bytes), (1, 5));
    }

    #[test]
    fn shared_contents_count_once_towards_the_limit() {
        let mut f = Fixture::new(100);
        for name in ["a", "b", "c", "d", "e"] {
            f.put(key(name), &"x".repeat(60)).unwrap();
        }
        assert_eq!((f.storage.report().records, f.storage.report().bytes), (5, 60));
        assert_eq!(f.storage.report().evicted, 0);
    }

    #[test]
    fn no_more_goes_than_must_and_the_least_recently_used_first() {
        let mut f = Fixture::new(100);
        for name in ["a", "b", "c"] {
            f.put(key(name), &name.repeat(30)).unwrap();
        }
        f.use_(key("a"));
        f.put(key("d"), &"d".repeat(30)).unwrap();
        let left = ["a", "b", "c", "d"].map(|name| f.has(key(name)));
        assert_eq!(left, [true, false, true, true]);
        f.put(key("e"), &"e".repeat(30)).unwrap();
        let left = ["a", "c", "d", "e"].map(|name| f.has(key(name)));
        assert_eq!(left, [true, false, true, true]);
        assert_eq!(f.storage.report().evicted, 2);
        assert!(matches!(f.put(key("f"), &"f".repeat(101)), Err(StorageError::LargerThanCache)));
        assert_eq!(f.storage.report().records, 3);
    }

    #[test]
    fn uses_are_remembered_by_the_next_service() {
        let mut f = Fixture::new(100);
        for name in ["a", "b", "c"] {
            f.put(key(name), &name.repeat(30)).unwrap();
        }
        f.use_(key("a"));
        f.restart();
        f.put(key("d"), &"d".repeat(30)).unwrap();
        assert_eq!(["a", "b", "c", "d"].map(|name| f.has(key(name))), [true, false, true, true]);
    }

    #[test]
    fn the_versions_of_one_key_are_evicted_one_by_one() {
        let mut f = Fixture::new(100);
        for version in 0..5 {
            f.put_version(key("a"), version, &version.to_string().repeat(30)).unwrap();
            assert!(f.storage.report().bytes <= 100);
        }
        assert_eq!((f.storage.report().records, f.storage.report().bytes), (3, 90));
        let manifest = f.storage.manifest(key("a")).unwrap().unwrap();
        let newest = manifest.records().remove(0).0;
        assert_eq!(newest.record.observations[0].path.0, b"4.h");
    }

    #[test]
    fn records_share_their_observations_as_made_and_as_read() {
        let mut f = Fixture::new(1000);
        let first_of = |f: &mut Fixture, name| {
            let manifest = f.storage.manifest(key(name)).unwrap().unwrap();
            Arc::clone(&manifest.records()[0].0.record.observations[0])
        };
        f.put(key("a"), "one").unwrap();
        f.put(key("b"), "two").unwrap();
        let made = first_of(&mut f, "a");
        assert!(Arc::ptr_eq(&made, &first_of(&mut f, "b")));
        f.storage.hot.remove(key("b"));
        assert!(Arc::ptr_eq(&made, &first_of(&mut f, "b")));
    }

    #[test]
    fn what_was_asked_for_is_evicted() {
        let mut f = Fixture::new(1000);
        f.put(key("a"), "object").unwrap();
        let evict = |f: &mut Fixture, older_than_s, roots: &[&str]| {
            let roots = roots.iter().map(|root| ByteBuf::from(root.as_bytes())).collect();
            f.storage.evict(&Evict { older_than_s, roots }).unwrap()
        };
        assert_eq!(evict(&mut f, Some(60), &[]), Gone::default());
        assert_eq!(evict(&mut f, None, &["/proj", "/project/below"]), Gone::default());
        assert_eq!(evict(&mut f, Some(60), &["/project"]), Gone::default());
        assert_eq!(evict(&mut f, None, &["/project/"]), Gone { records: 1, blobs: 1, bytes: 6 });
        f.put(key("a"), "object").unwrap();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(evict(&mut f, Some(0), &["/"]), Gone { records: 1, blobs: 1, bytes: 6 });
        assert!(!f.has(key("a")));
    }

    #[test]
    fn what_is_too_old_goes_by_itself() {
        let mut f = Fixture::new(1000);
        f.put(key("a"), "object").unwrap();
        f.storage.limits.age = Some(Duration::from_secs(3600));
        f.storage.tidy(None).unwrap();
        assert!(f.has(key("a")));
        f.storage.limits.age = Some(Duration::ZERO);
        std::thread::sleep(Duration::from_millis(2));
        f.storage.tidy(None).unwrap();
        assert!(f.has(key("a")), "it was looked for a moment ago");
        // None on a machine that has not run for as long: then, too, it is time.
        f.storage.expired = Instant::now().checked_sub(EXPIRY_INTERVAL);
        f.storage.tidy(None).unwrap();
        assert!(!f.has(key("a")));
    }

    #[test]
    fn records_have_their_room_whatever_the_limit_and_no_more() {
        const BYTES: usize = 20 << 20;
        let mut f = Fixture::new(1000);
        let mut put = |name: &str| {
            let result = RunResult {
                exit: Exit::Code(0),
                stdout: unpackable(BYTES).into(),
                stderr: Default::default(),
                outputs: vec![],
            };
            let (observations, identities, variables) = (vec![], vec![], vec![]);
            let record =
                Record { observations, identities, environment: None, variables, origin: None, result };
            f.storage.insert(key(name), LiveRecord::new(record), b"/project", &[]).unwrap();
            f.storage.report()
        };
        // Far beyond the limit, which is one of contents.
        assert_eq!((put("a").records, put("b").records, put("c").records), (1, 2, 3));
        for name in ["d", "e", "f"] {
            let report = put(name);
            assert!(report.record_bytes <= RECORD_BYTES_MIN + BYTES as u64, "{report:?}");
            assert_eq!(report.records, 4, "{name}");
        }
        assert_eq!(["a", "b", "d", "f"].map(|name| f.has(key(name))), [false, false, true, true]);
    }

    #[test]
    fn an_index_that_could_not_be_used_is_tried_again_after_a_while() {
        let mut f = Fixture::new(1000);
        let unavailable = |since| State::Unavailable { why: "the disk is full".into(), since };
        f.storage.state = unavailable(Instant::now());
        assert!(f.put(key("a"), "object").is_err(), "too soon");
        f.storage.state = unavailable(Instant::now().checked_sub(RETRY_AFTER).unwrap());
        // Threads of sled's may hold the index that was let go of a moment ago.
        let end = Instant::now() + Duration::from_secs(60);
        while let Err(e) = f.put(key("a"), "object") {
            assert!(e.to_string().contains("in use") && Instant::now() < end, "{e}");
            std::thread::sleep(Duration::from_millis(10));
            f.storage.state = unavailable(Instant::now().checked_sub(RETRY_AFTER).unwrap());
        }
        assert!(f.has(key("a")));
    }

    #[test]
    fn counters_are_kept_for_the_next_service() {
        let mut f = Fixture::new(1000);
        assert_eq!(f.storage.earlier_counters(), Some(None));
        let counters = AllTimeReport { hits: 7, ..AllTimeReport::default() };
        f.storage.tidy(Some(counters)).unwrap();
        f.restart();
        assert_eq!(f.storage.earlier_counters(), Some(Some(counters)));
    }

    #[test]
    fn gc_puts_right_what_was_done_behind_our_back() {
        let mut f = Fixture::new(1000);
        for name in ["a", "b", "c"] {
            f.put(key(name), &name.repeat(30)).unwrap();
        }
        assert_eq!(f.storage.gc().unwrap(), Gone::default());
        let blobs = f.temp.path().join("cache/blobs");
        let path_of = |content: &str| {
            let hex = Digest::of(content.as_bytes()).to_hex();
            blobs.join(&hex[..2]).join(hex)
        };
        std::fs::remove_file(path_of(&"a".repeat(30))).unwrap();
        let stranger = blobs.join("00");
        std::fs::create_dir_all(&stranger).unwrap();
        std::fs::write(stranger.join("0".repeat(64)), "stranger").unwrap();
        std::fs::create_dir_all(blobs.join("tmp")).unwrap();
        std::fs::write(blobs.join("tmp/on-its-way"), "").unwrap();
        assert_eq!(f.storage.gc().unwrap(), Gone { records: 1, blobs: 1, bytes: 8 });
        assert_eq!((f.storage.report().records, f.storage.report().bytes), (2, 60));
        assert!(blobs.join("tmp/on-its-way").exists());
        f.restart();
        assert_eq!((f.storage.report().records, f.storage.report().bytes), (2, 60));
        f.storage.limits.bytes = 40;
        assert_eq!(f.storage.gc().unwrap(), Gone { records: 1, blobs: 1, bytes: 30 });
    }

    #[test]
    fn a_clock_that_was_set_back_changes_nothing_in_the_order() {
        let mut f = Fixture::new(100);
        // As if the uses so far had been made by a clock a day ahead.
        f.storage.hot.clock.advance(now_ms() + 24 * 3600 * 1000);
        for name in ["a", "b", "c"] {
            f.put(key(name), &name.repeat(30)).unwrap();
        }
        f.restart();
        f.use_(key("a"));
        f.put(key("d"), &"d".repeat(30)).unwrap();
        assert_eq!(["a", "b", "c", "d"].map(|name| f.has(key(name))), [true, false, true, true]);
    }

    #[test]
    fn clear_forgets_all() {
        let mut f = Fixture::new(1000);
        f.put(key("a"), "object").unwrap();
        assert_eq!(f.storage.clear().unwrap(), Gone { records: 1, blobs: 1, bytes: 6 });
        assert!(!f.has(key("a")));
        f.put(key("a"), "object").unwrap();
        assert_eq!(f.storage.report().records, 1);
    }

    #[test]
    fn an_index_of_another_version_is_made_anew_and_nothing_of_it_stays() {
        let mut f = Fixture::new(1000);
        f.put(key("a"), "object").unwrap();
        f.storage.close(None).unwrap();
        f.storage = new(Path::new("/nonexistent"), 0);
        let index = f.temp.path().join("cache/index");
        let db = sled::Config::new().path(&index).open().unwrap();
        db.open_tree("meta").unwrap().insert("format", "other").unwrap();
        db.flush().unwrap();
        drop(db);
        f.storage = Fixture::open(f.temp.path(), 1000);
        assert!(!f.has(key("a")));
        assert_eq!(f.storage.report().records, 0);
        assert!(!f.temp.path().join("cache/index.damaged").exists());
        assert_eq!(f.storage.gc().unwrap(), Gone { records: 0, blobs: 1, bytes: 6 });
    }

    #[test]
    fn a_garbage_index_is_set_aside_and_a_file_in_the_place_of_the_cache_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let cache = temp.path().join("cache");
        std::fs::create_dir(&cache).unwrap();
        std::fs::write(cache.join("index"), "garbage").unwrap();
        let mut storage = new(&cache, 1);
        storage.open().unwrap();
        drop(storage);
        for file in ["db", "conf"] {
            std::fs::write(cache.join("index").join(file), "garbage".repeat(1000)).unwrap();
        }
        Fixture::open(temp.path(), 1);
        let file = temp.path().join("file");
        std::fs::write(&file, "").unwrap();
        let mut storage = new(&file, 1);
        assert!(matches!(storage.open(), Err(StorageError::Unavailable(_))));
        assert!(storage.trouble().is_some());
        assert!(storage.manifest(key("a")).is_err());
    }
}
