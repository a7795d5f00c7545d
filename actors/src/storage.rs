//! Storage: index and blobs as one thing with a size limit. The plain component behind the store actor.
//!
//! Without a usable index (missing rights, a full disk, damage, another service on the same directory) it says
//! why and answers "nothing known"; it tries again now and then. It never fails a compile.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use zccache_proto::report::StoreReport;

use crate::blobs::{Blobs, PendingBlob};
use crate::digest::Digest;
use crate::index::{BlobUse, Index, IndexError};
use crate::key::RequestKey;
use crate::manifest::{HotManifests, Manifest, now_ms};
use crate::record::Record;

/// How long an unusable index is left alone before it is tried again: soon enough after a disk was freed, rare
/// enough to cost nothing.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What part of the limit an eviction frees beyond what is needed, as a divisor: a tenth, so that evictions
/// (which sort all keys by use) stay rare.
const EVICTION_SLACK: u64 = 10;

/// How many damaged indexes are set aside in a row before a start gives up: each is a renamed directory.
const SET_ASIDE_MAX: u32 = 100;

/// Index, blobs, and how much they may take.
pub struct Storage {
    cache_dir: PathBuf,
    limit_bytes: u64,
    blobs: Arc<Blobs>,
    hot: Arc<HotManifests>,
    state: State,
}

enum State {
    Open(Box<Open>),
    Unavailable {
        why: String,
        since: Instant,
    },
    /// For good: the next service may have it open already.
    Closed,
}

struct Open {
    index: Index,
    known: HashMap<Digest, BlobUse>,
    bytes: u64,
    records: u64,
}

/// Why something was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No usable index; says why.
    #[error("the cache is unavailable: {0}")]
    Unavailable(String),
    /// The result alone is larger than the limit.
    #[error("the result is larger than the cache")]
    LargerThanCache,
    /// The index failed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A blob could not be written.
    #[error("blob: {0}")]
    Blob(#[from] std::io::Error),
}

impl Storage {
    /// Storage below `cache_dir`, at most `limit_bytes` of blobs. Opens nothing yet.
    pub fn new(cache_dir: &Path, limit_bytes: u64, blobs: Arc<Blobs>, hot: Arc<HotManifests>) -> Self {
        let state = State::Unavailable { why: "not opened yet".into(), since: Instant::now() };
        Self { cache_dir: cache_dir.into(), limit_bytes, blobs, hot, state }
    }

    /// Opens the index. Returns the names of all known blobs, for a sweep, or why it cannot be used.
    ///
    /// # Errors
    /// `Unavailable`.
    pub fn open(&mut self) -> Result<Vec<Digest>, StorageError> {
        match open(&self.cache_dir) {
            Ok(open) => {
                let known = open.known.keys().copied().collect();
                self.state = State::Open(Box::new(open));
                Ok(known)
            }
            Err(why) => {
                self.state = State::Unavailable { why: why.clone(), since: Instant::now() };
                Err(StorageError::Unavailable(why))
            }
        }
    }

    /// Deletes, on a thread of its own, what an earlier service left behind: blobs that the index does not know,
    /// last changed before `before_ns` (the start of this service, nanoseconds since the epoch).
    pub fn sweep_in_background(&self, before_ns: i64, known: Vec<Digest>) {
        let blobs = Arc::clone(&self.blobs);
        let sweep = move || {
            let known: std::collections::HashSet<_> = known.into_iter().collect();
            blobs.sweep(before_ns, |digest| known.contains(&digest));
        };
        // Without a thread it is done after the next start.
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
        if let Some(manifest) = self.hot.get(key) {
            return Ok(Some(manifest));
        }
        let records = self.with_open(|open, _| Ok(open.index.records(key)?))?;
        if records.is_empty() {
            return Ok(None);
        }
        let manifest = Arc::new(Manifest::new(records));
        self.keep_hot(key, Arc::clone(&manifest));
        Ok(Some(manifest))
    }

    /// Stores `record` and the contents it names.
    ///
    /// # Errors
    /// If it cannot be; nothing of it is then served.
    pub fn insert(
        &mut self,
        key: RequestKey,
        record: Record,
        contents: &[PendingBlob],
    ) -> Result<(), StorageError> {
        let new_bytes: u64 = contents.iter().map(|c| c.bytes).sum();
        if new_bytes > self.limit_bytes {
            return Err(StorageError::LargerThanCache);
        }
        let manifest = self.manifest(key)?.unwrap_or_else(|| Arc::new(Manifest::new([])));
        let hot = Arc::clone(&self.hot);
        let (blobs, limit_bytes) = (Arc::clone(&self.blobs), self.limit_bytes);
        let of_manifest = Arc::clone(&manifest);
        self.with_open(move |open, _| {
            if open.bytes + new_bytes > limit_bytes {
                let goal = (limit_bytes - new_bytes).saturating_sub(limit_bytes / EVICTION_SLACK);
                open.evict(goal, key, &blobs, &hot)?;
            }
            for content in contents {
                blobs.commit(content)?;
            }
            let added = digests(&record);
            let gone = of_manifest.insert(record);
            open.records = (open.records + 1).saturating_sub(gone.len() as u64);
            open.reference(&added)?;
            for old in &gone {
                open.release(&old.record, &blobs)?;
            }
            let records = of_manifest.records();
            let records: Vec<&Record> = records.iter().map(|r| &r.record).collect();
            Ok(open.index.put_records(key, &records, now_ms())?)
        })?;
        self.keep_hot(key, manifest);
        Ok(())
    }

    /// Makes everything so far survive a crash.
    ///
    /// # Errors
    /// If the index cannot be used.
    pub fn flush(&mut self) -> Result<(), StorageError> {
        self.with_open(|open, _| Ok(open.index.flush()?))
    }

    /// Writes down when what is in memory was last used, flushes, and lets go of the index: before an orderly end.
    ///
    /// # Errors
    /// If the index cannot be used.
    pub fn close(&mut self) -> Result<(), StorageError> {
        let uses = self.hot.uses();
        let written = self.with_open(|open, _| {
            for (key, at_ms) in uses {
                open.index.touch(key, at_ms)?;
            }
            Ok(open.index.flush()?)
        });
        self.state = State::Closed;
        written
    }

    /// Forgets everything. Returns how many records and blobs there were.
    ///
    /// # Errors
    /// If the cache cannot be used.
    pub fn clear(&mut self) -> Result<(u64, u64), StorageError> {
        self.hot.clear();
        let blobs = Arc::clone(&self.blobs);
        self.with_open(|open, _| {
            let counts = (open.records, open.known.len() as u64);
            open.index.clear()?;
            open.known.clear();
            (open.bytes, open.records) = (0, 0);
            blobs.clear()?;
            Ok(counts)
        })
    }

    /// How much is stored.
    pub fn report(&self) -> StoreReport {
        let limit_bytes = self.limit_bytes;
        match &self.state {
            State::Open(o) => {
                StoreReport { blobs: o.known.len() as u64, records: o.records, bytes: o.bytes, limit_bytes }
            }
            _ => StoreReport { limit_bytes, ..StoreReport::default() },
        }
    }

    fn keep_hot(&mut self, key: RequestKey, manifest: Arc<Manifest>) {
        for (gone, at_ms) in self.hot.put(key, manifest) {
            // Only the order of evictions hangs on it.
            let _ = self.with_open(|open, _| Ok(open.index.touch(gone, at_ms)?));
        }
    }

    /// Calls `with` on the open index, after another try to open it if it is time. An error of the index
    /// itself closes it: what it holds in memory can no longer be vouched for.
    fn with_open<T>(
        &mut self,
        with: impl FnOnce(&mut Open, &Path) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        if matches!(&self.state, State::Unavailable { since, .. } if since.elapsed() >= RETRY_AFTER) {
            let _ = self.open();
        }
        let open = match &mut self.state {
            State::Open(open) => open,
            State::Unavailable { why, .. } => return Err(StorageError::Unavailable(why.clone())),
            State::Closed => return Err(StorageError::Unavailable("the service is shutting down".into())),
        };
        let result = with(open, &self.cache_dir);
        if let Err(StorageError::Index(e)) = &result {
            self.hot.clear();
            self.state = State::Unavailable { why: e.to_string(), since: Instant::now() };
        }
        result
    }
}

impl Open {
    fn reference(&mut self, digests: &[(Digest, u64)]) -> Result<(), StorageError> {
        for &(digest, bytes) in digests {
            let known = self.known.entry(digest).or_insert_with(|| {
                self.bytes += bytes;
                BlobUse { bytes, references: 0 }
            });
            known.references += 1;
            self.index.put_blob(digest, Some(*known))?;
        }
        Ok(())
    }

    fn release(&mut self, record: &Record, blobs: &Blobs) -> Result<(), StorageError> {
        for (digest, _) in digests(record) {
            let Some(known) = self.known.get_mut(&digest) else { continue };
            known.references = known.references.saturating_sub(1);
            if known.references > 0 {
                self.index.put_blob(digest, Some(*known))?;
                continue;
            }
            self.bytes = self.bytes.saturating_sub(known.bytes);
            self.known.remove(&digest);
            self.index.put_blob(digest, None)?;
            blobs.remove(digest)?;
        }
        Ok(())
    }

    /// Forgets keys, least recently used first, until at most `goal_bytes` are left; never `keep`.
    fn evict(
        &mut self,
        goal_bytes: u64,
        keep: RequestKey,
        blobs: &Blobs,
        hot: &HotManifests,
    ) -> Result<(), StorageError> {
        let recent: HashMap<_, _> = hot.uses().into_iter().collect();
        let mut uses = self.index.uses()?;
        for (at_ms, key) in &mut uses {
            *at_ms = recent.get(key).map_or(*at_ms, |r| (*r).max(*at_ms));
        }
        uses.sort_unstable();
        let before = self.bytes;
        for (_, key) in uses {
            if self.bytes <= goal_bytes {
                break;
            }
            if key == keep {
                continue;
            }
            let records = self.index.records(key)?;
            self.index.remove(key)?;
            hot.remove(key);
            self.records = self.records.saturating_sub(records.len() as u64);
            for record in &records {
                self.release(record, blobs)?;
            }
        }
        tracing::info!(before, after = self.bytes, goal_bytes, "evicted least recently used results");
        Ok(())
    }
}

/// The contents that a record names, once per output, with their lengths.
fn digests(record: &Record) -> Vec<(Digest, u64)> {
    record.result.outputs.iter().filter_map(|o| o.file.map(|f| (f.digest, f.bytes))).collect()
}

fn open(cache_dir: &Path) -> Result<Open, String> {
    use std::os::unix::fs::DirBuilderExt;
    let explain = |e: &dyn std::fmt::Display| format!("{}: {e}", cache_dir.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(cache_dir).map_err(|e| explain(&e))?;
    // sled makes its files before it finds that it cannot write them; ask first, for a clearer message.
    let probe = cache_dir.join(".writable");
    std::fs::write(&probe, b"zccache")
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|e| explain(&e))?;
    let directory = cache_dir.join("index");
    let index = match Index::open(&directory) {
        Ok(index) => index,
        Err(IndexError::Sled(sled::Error::Io(e))) if e.kind() == std::io::ErrorKind::Other => {
            return Err(format!("{}: in use by another service ({e})", cache_dir.display()));
        }
        Err(IndexError::Sled(sled::Error::Io(e))) if e.raw_os_error().is_some() && directory.is_dir() => {
            return Err(explain(&e));
        }
        Err(damage) => {
            tracing::warn!(%damage, "the index cannot be read; starting with an empty one");
            set_aside(&directory)?;
            Index::open(&directory).map_err(|e| explain(&e))?
        }
    };
    let known = index.blobs().map_err(|e| explain(&e))?;
    let bytes = known.values().map(|b| b.bytes).sum();
    let records = index.len() as u64;
    Ok(Open { index, known, bytes, records })
}

/// Renames a damaged index, so that nothing a person may want to look at is lost; an older one goes.
fn set_aside(directory: &Path) -> Result<(), String> {
    let aside = directory.with_extension("damaged");
    for _ in 0..SET_ASIDE_MAX {
        let _ = std::fs::remove_dir_all(&aside).or_else(|_| std::fs::remove_file(&aside));
        match std::fs::rename(directory, &aside) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
            other => return other.map_err(|e| format!("{}: {e}", directory.display())),
        }
    }
    Err(format!("{}: cannot be set aside", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Output, OutputFile, RunResult};
    use std::fs::File;
    use zccache_proto::message::Exit;

    struct Fixture {
        temp: tempfile::TempDir,
        storage: Storage,
    }

    impl Fixture {
        fn new(limit_bytes: u64) -> Self {
            let temp = tempfile::tempdir().unwrap();
            let storage = Self::open(temp.path(), limit_bytes);
            Self { temp, storage }
        }

        fn open(directory: &Path, limit_bytes: u64) -> Storage {
            let cache = directory.join("cache");
            let mut storage = Storage::new(&cache, limit_bytes, Arc::new(Blobs::new(&cache)), Arc::default());
            storage.open().unwrap();
            storage
        }

        fn put(&mut self, key: RequestKey, content: &str) -> Result<(), StorageError> {
            let source = self.temp.path().join("source");
            std::fs::write(&source, content).unwrap();
            let pending = self.storage.blobs.receive(&mut File::open(&source).unwrap()).unwrap();
            let file =
                OutputFile { digest: pending.digest, bytes: pending.bytes, mode: 0o644, replaces: false };
            let path = crate::observation::Spelled(b"a.o".to_vec());
            let outputs = vec![Output { path, file: Some(file) }];
            let result = RunResult {
                exit: Exit::Code(0),
                stdout: Default::default(),
                stderr: Default::default(),
                outputs,
            };
            let record = Record {
                observations: vec![],
                identities: vec![],
                environment: None,
                variables: vec![],
                origin: None,
                result,
            };
            self.storage.insert(key, record, &[pending])
        }
    }

    fn key(name: &str) -> RequestKey {
        RequestKey(Digest::of(name.as_bytes()))
    }

    #[test]
    fn what_was_flushed_is_there_for_the_next_service() {
        let mut f = Fixture::new(1000);
        f.put(key("a"), "object").unwrap();
        f.storage.close().unwrap();
        let Fixture { temp, storage } = f;
        drop(storage);
        let mut storage = Fixture::open(temp.path(), 1000);
        assert_eq!(storage.manifest(key("a")).unwrap().unwrap().records().len(), 1);
        assert_eq!(storage.report(), StoreReport { blobs: 1, records: 1, bytes: 6, limit_bytes: 1000 });
    }

    #[test]
    fn equal_contents_are_kept_once_and_go_with_the_last_user() {
        let mut f = Fixture::new(1000);
        f.put(key("a"), "same").unwrap();
        f.put(key("b"), "same").unwrap();
        assert_eq!((f.storage.report().blobs, f.storage.report().bytes), (1, 4));
        f.put(key("a"), "other").unwrap(); // the same observations: takes the old record's place
        assert_eq!((f.storage.report().blobs, f.storage.report().records), (2, 2));
        f.put(key("b"), "other").unwrap();
        assert_eq!((f.storage.report().blobs, f.storage.report().bytes), (1, 5));
    }

    #[test]
    fn the_limit_holds_and_the_least_recently_used_goes() {
        let mut f = Fixture::new(100);
        for name in ["a", "b", "c", "d"] {
            f.put(key(name), &name.repeat(30)).unwrap();
            assert!(f.storage.report().bytes <= 100);
            std::thread::sleep(Duration::from_millis(2)); // uses are told apart by the millisecond
        }
        assert!(f.storage.manifest(key("a")).unwrap().is_none());
        assert!(f.storage.manifest(key("d")).unwrap().is_some());
        assert!(matches!(f.put(key("e"), &"e".repeat(101)), Err(StorageError::LargerThanCache)));
    }

    #[test]
    fn clear_forgets_all() {
        let mut f = Fixture::new(1000);
        f.put(key("a"), "object").unwrap();
        assert_eq!(f.storage.clear().unwrap(), (1, 1));
        assert!(f.storage.manifest(key("a")).unwrap().is_none());
        f.put(key("a"), "object").unwrap();
        assert_eq!(f.storage.report().records, 1);
    }

    #[test]
    fn a_garbage_index_is_set_aside_and_a_file_in_the_place_of_the_cache_is_told() {
        let temp = tempfile::tempdir().unwrap();
        let cache = temp.path().join("cache");
        std::fs::create_dir(&cache).unwrap();
        std::fs::write(cache.join("index"), "garbage").unwrap();
        let mut storage = Storage::new(&cache, 1, Arc::new(Blobs::new(&cache)), Arc::default());
        storage.open().unwrap();
        drop(storage);
        for file in ["db", "conf"] {
            std::fs::write(cache.join("index").join(file), "garbage".repeat(1000)).unwrap();
        }
        let mut storage = Storage::new(&cache, 1, Arc::new(Blobs::new(&cache)), Arc::default());
        storage.open().unwrap();
        let file = temp.path().join("file");
        std::fs::write(&file, "").unwrap();
        let mut storage = Storage::new(&file, 1, Arc::new(Blobs::new(&file)), Arc::default());
        assert!(matches!(storage.open(), Err(StorageError::Unavailable(_))));
        assert!(storage.trouble().is_some());
        assert!(storage.manifest(key("a")).is_err());
    }
}
