//! Accounts: an open index together with the blobs it counts. Every change of one is a change of the other.
//!
//! Evictions take record after record, the one that was used longest ago first, and no more than needed. The order
//! is known for some thousands of records at a time: whatever was used after they were put in order is younger than
//! all of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::blobs::{Blobs, PendingBlob};
use crate::digest::Digest;
use crate::faults;
use crate::freshness::LiveRecord;
use crate::index::{BlobUse, Change, Index, IndexError, Totals};
use crate::key::RequestKey;
use crate::manifest::{HotManifests, Manifest};
use crate::record::{OutputFile, Record, RecordUse, encode_record};
use crate::storage::StorageError;

/// How many records are put in order for eviction at a time: a few hundred kilobytes, and far more than one result
/// ever takes the place of.
const CANDIDATES_MAX: usize = 10_000;

/// What went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gone {
    /// Results.
    pub records: u64,
    /// Distinct contents.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A record that is new, and what it names.
#[derive(Clone, Copy)]
struct Added<'a> {
    encoded: &'a [u8],
    outputs: &'a [OutputFile],
    is_own: bool,
}

/// An open index, its blobs, and the manifests that are in memory.
pub struct Accounts {
    index: Index,
    blobs: Arc<Blobs>,
    hot: Arc<HotManifests>,
    totals: Totals,
    /// The records used longest ago, the oldest last: moment of last use, and key.
    candidates: Vec<(u64, RequestKey)>,
    evicted: u64,
}

impl Accounts {
    /// Accounts of what `index` knows.
    ///
    /// # Errors
    /// The index's.
    pub fn new(index: Index, blobs: Arc<Blobs>, hot: Arc<HotManifests>) -> Result<Self, StorageError> {
        let totals = index.totals()?;
        hot.clock.advance(totals.latest_use_ms);
        Ok(Self { index, blobs, hot, totals, candidates: Vec::new(), evicted: 0 })
    }

    /// The index, for what is no matter of counting.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// What there is.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Records evicted since the start.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Bytes that `contents` add to those that are there.
    ///
    /// # Errors
    /// The index's.
    pub fn new_bytes(&self, contents: &[PendingBlob]) -> Result<u64, StorageError> {
        let distinct: BTreeMap<Digest, u64> = contents.iter().map(|c| (c.digest, c.bytes)).collect();
        let mut new = 0;
        for (digest, bytes) in distinct {
            if self.index.blob(digest)?.is_none() {
                new += bytes;
            }
        }
        Ok(new)
    }

    /// Commits `contents` and puts `record` into `manifest`, which is that of `key`.
    ///
    /// # Errors
    /// The index's and the blobs'; nothing new is there then.
    pub fn insert(
        &mut self,
        key: RequestKey,
        manifest: &Manifest,
        record: LiveRecord,
        mut used: RecordUse,
        contents: &[PendingBlob],
    ) -> Result<(), StorageError> {
        for file in outputs_of(&record.record) {
            // What a shared result names was stored before it, and may have gone since.
            let comes = contents.iter().any(|content| content.digest == file.digest);
            if !comes && self.index.blob(file.digest)?.is_none() {
                return Err(StorageError::ContentMissing);
            }
        }
        let encoded = encode_record(&record.record).map_err(IndexError::from)?;
        used.bytes = encoded.len() as u64;
        for (number, content) in contents.iter().enumerate() {
            if let Err(e) = self.blobs.commit(content) {
                self.take_back(&contents[..number])?;
                return Err(e.into());
            }
        }
        faults::pass("insert.committed");
        let (outputs, is_own) = (outputs_of(&record.record), is_own(&record.record));
        let gone = manifest.insert(record, used);
        let gone: Vec<&Record> = gone.iter().map(|live| &*live.record).collect();
        let added = Added { encoded: &encoded, outputs: &outputs, is_own };
        self.change(key, manifest.uses(), Some(added), &gone)?;
        Ok(())
    }

    /// Deletes contents that were committed for nothing.
    fn take_back(&self, contents: &[PendingBlob]) -> Result<(), StorageError> {
        for content in contents {
            if self.index.blob(content.digest)?.is_none() {
                self.blobs.remove(content.digest)?;
            }
        }
        Ok(())
    }

    /// Makes the records of these `uses` those of `key`: `added` is the first of them, if it is new; `gone` are those that
    /// are not among them any more.
    fn change(
        &mut self,
        key: RequestKey,
        uses: Vec<RecordUse>,
        added: Option<Added<'_>>,
        gone: &[&Record],
    ) -> Result<Gone, StorageError> {
        let mut blobs: BTreeMap<Digest, BlobUse> = BTreeMap::new();
        let mut totals = self.totals;
        let (outputs, adds_own) = added.map(|added| (added.outputs, added.is_own)).unwrap_or_default();
        let own = gone.iter().filter(|record| is_own(record)).count() as u64;
        let mut went = Gone { records: own, ..Gone::default() };
        let latest = uses.iter().map(|used| used.last_use_ms).max().unwrap_or(0);
        totals.latest_use_ms = totals.latest_use_ms.max(latest);
        totals.records = (totals.records + u64::from(adds_own)).saturating_sub(went.records);
        for file in outputs {
            let known = self.known(&mut blobs, file)?;
            known.references += 1;
            if known.references == 1 {
                totals.blobs += 1;
                totals.blob_bytes += known.bytes;
            }
            totals.output_bytes += if adds_own { file.bytes } else { 0 };
        }
        let gone = gone.iter().flat_map(|record| {
            let bytes_if_own = move |bytes| if is_own(record) { bytes } else { 0 };
            outputs_of(record).into_iter().map(move |file| (file, bytes_if_own(file.bytes)))
        });
        for (file, bytes_if_own) in gone {
            let known = self.known(&mut blobs, &file)?;
            // One that is not counted stays so: its number is 0 already.
            if known.references == 1 {
                totals.blobs = totals.blobs.saturating_sub(1);
                totals.blob_bytes = totals.blob_bytes.saturating_sub(known.bytes);
                went = Gone { blobs: went.blobs + 1, bytes: went.bytes + known.bytes, ..went };
            }
            known.references = known.references.saturating_sub(1);
            totals.output_bytes = totals.output_bytes.saturating_sub(bytes_if_own);
        }
        let added = added.map(|added| added.encoded);
        let change = Change { key, uses, added, blobs: blobs.into_iter().collect() };
        faults::pass("change.begin");
        self.totals = self.index.apply(&change, totals)?;
        faults::pass("change.applied");
        for (digest, _) in change.blobs.iter().filter(|(_, known)| known.references == 0) {
            if let Err(error) = self.blobs.remove(*digest) {
                // It is not counted any more, and the next start sweeps it away.
                tracing::warn!(%error, "a content could not be deleted");
            }
        }
        Ok(went)
    }

    fn known<'a>(
        &self,
        blobs: &'a mut BTreeMap<Digest, BlobUse>,
        file: &OutputFile,
    ) -> Result<&'a mut BlobUse, StorageError> {
        Ok(match blobs.entry(file.digest) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(unknown) => {
                let counted = self.index.blob(file.digest)?;
                unknown.insert(counted.unwrap_or(BlobUse { bytes: file.bytes, references: 0 }))
            }
        })
    }

    /// Tells the index when the records in memory were last used. Says whether there was anything to tell.
    ///
    /// # Errors
    /// The index's.
    pub fn write_uses(&mut self) -> Result<bool, StorageError> {
        let used = self.hot.take_used();
        for (key, manifest) in &used {
            self.touch(*key, manifest)?;
        }
        Ok(!used.is_empty())
    }

    /// Tells the index when the records of one manifest were last used.
    ///
    /// # Errors
    /// The index's.
    pub fn touch(&mut self, key: RequestKey, manifest: &Manifest) -> Result<(), StorageError> {
        let uses = manifest.uses();
        let latest = uses.iter().map(|used| used.last_use_ms).max().unwrap_or(0);
        self.totals.latest_use_ms = self.totals.latest_use_ms.max(latest);
        Ok(self.index.touch(key, &uses)?)
    }

    /// Evicts, the longest unused first, until `is_enough`; says whether it ever was.
    ///
    /// # Errors
    /// The index's.
    pub fn evict_until(
        &mut self,
        is_enough: impl Fn(&Self) -> Result<bool, StorageError>,
    ) -> Result<bool, StorageError> {
        let mut went = Gone::default();
        while !is_enough(self)? {
            if self.candidates.is_empty() {
                self.find_candidates()?;
            }
            let Some((at_ms, key)) = self.candidates.pop() else { return Ok(false) };
            went += self.forget(key, |used| used.last_use_ms <= at_ms)?;
        }
        if went.records > 0 {
            tracing::info!(?went, left = ?self.totals, "evicted the results longest unused");
        }
        Ok(true)
    }

    fn find_candidates(&mut self) -> Result<(), StorageError> {
        self.write_uses()?;
        let mut found = Vec::new();
        self.index.each_use(|key, uses| match uses.is_empty() {
            // Damaged: first to go.
            true => found.push((0, key)),
            false => found.extend(uses.iter().map(|used| (used.last_use_ms, key))),
        })?;
        self.candidates = longest_unused(found);
        Ok(())
    }

    /// Evicts every record whose use `is_to_go`.
    ///
    /// # Errors
    /// The index's.
    pub fn evict_all(&mut self, is_to_go: impl Fn(&RecordUse) -> bool) -> Result<Gone, StorageError> {
        self.write_uses()?;
        let mut keys = Vec::new();
        self.index.each_use(|key, uses| {
            if uses.iter().any(&is_to_go) {
                keys.push(key);
            }
        })?;
        let mut went = Gone::default();
        for key in keys {
            went += self.forget(key, &is_to_go)?;
        }
        Ok(went)
    }

    /// Forgets the records of `key` whose use `is_to_go`.
    fn forget(
        &mut self,
        key: RequestKey,
        is_to_go: impl Fn(&RecordUse) -> bool,
    ) -> Result<Gone, StorageError> {
        if let Some(manifest) = self.hot.get(key) {
            // What is in memory was used since the index was told, perhaps.
            self.touch(key, &manifest)?;
        }
        let (going, kept): (Vec<_>, Vec<_>) = self.index.uses(key)?.into_iter().partition(is_to_go);
        if going.is_empty() && !kept.is_empty() {
            return Ok(Gone::default());
        }
        self.hot.remove(key);
        let mut gone = Vec::new();
        for used in going {
            gone.extend(self.index.record(key, used.stored_ms)?);
        }
        let went = self.change(key, kept, None, &gone.iter().collect::<Vec<_>>())?;
        self.evicted += went.records;
        Ok(went)
    }

    /// Forgets everything but the counters.
    ///
    /// # Errors
    /// The index's and the blobs'.
    pub fn clear(&mut self) -> Result<Gone, StorageError> {
        let Totals { records, blobs, blob_bytes, latest_use_ms, .. } = self.totals;
        self.hot.clear();
        self.candidates.clear();
        self.totals = Totals { latest_use_ms, ..Totals::default() };
        self.index.clear(&self.totals)?;
        self.blobs.clear()?;
        Ok(Gone { records, blobs, bytes: blob_bytes })
    }

    /// Looks through everything: forgets records that are damaged or whose contents are not there, counts anew, and
    /// deletes contents that nobody knows.
    ///
    /// # Errors
    /// The index's.
    pub fn recount(&mut self) -> Result<Gone, StorageError> {
        self.write_uses()?;
        self.hot.clear();
        self.candidates.clear();
        let before = self.totals.records;
        let mut counted: HashMap<Digest, BlobUse> = HashMap::new();
        let latest_use_ms = self.totals.latest_use_ms;
        let mut totals = Totals { latest_use_ms, ..Totals::default() };
        for key in self.index.keys()? {
            let records = self.index.entry(key)?;
            let is_whole = |record: &Record| outputs_of(record).iter().all(|file| self.blobs.is_there(file));
            let kept: Vec<_> = records.iter().filter(|(record, _)| is_whole(record)).collect();
            for (record, _) in &kept {
                for file in outputs_of(record) {
                    let known = counted.entry(file.digest);
                    known.or_insert(BlobUse { bytes: file.bytes, references: 0 }).references += 1;
                    totals.output_bytes += if is_own(record) { file.bytes } else { 0 };
                }
                totals.records += u64::from(is_own(record));
            }
            // What the change says of bytes is of those that go, which were never counted.
            let uses: Vec<RecordUse> = kept.into_iter().map(|(_, used)| used.clone()).collect();
            totals.record_bytes += uses.iter().map(|used| used.bytes).sum::<u64>();
            if uses != self.index.uses(key)? || uses.is_empty() {
                let change = Change { key, uses, added: None, blobs: Vec::new() };
                let record_bytes = totals.record_bytes;
                totals = Totals { record_bytes, ..self.index.apply(&change, totals)? };
            }
        }
        totals.blobs = counted.len() as u64;
        totals.blob_bytes = counted.values().map(|known| known.bytes).sum();
        self.index.recount(&counted, &totals)?;
        self.totals = totals;
        let (blobs, bytes) = self.blobs.delete_unknown(|digest| counted.contains_key(&digest));
        Ok(Gone { records: before.saturating_sub(totals.records), blobs, bytes })
    }
}

impl std::ops::AddAssign for Gone {
    fn add_assign(&mut self, more: Self) {
        self.records += more.records;
        self.blobs += more.blobs;
        self.bytes += more.bytes;
    }
}

/// The `CANDIDATES_MAX` records used longest ago, the oldest last.
fn longest_unused(mut found: Vec<(u64, RequestKey)>) -> Vec<(u64, RequestKey)> {
    if found.len() > CANDIDATES_MAX {
        found.select_nth_unstable(CANDIDATES_MAX);
        found.truncate(CANDIDATES_MAX);
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    found
}

/// Whether a record is of a request's own run: those under shared keys repeat it for requests from elsewhere, and are
/// no results of their own to those who count.
fn is_own(record: &Record) -> bool {
    record.origin.is_none()
}

/// The contents that a record names, once per output.
fn outputs_of(record: &Record) -> Vec<OutputFile> {
    record.result.outputs.iter().filter_map(|output| output.file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_are_put_in_order_and_no_older_one_is_left_out() {
        let key = RequestKey(Digest::of(b""));
        // In no order: the numbers below twice the limit, each once.
        let all = CANDIDATES_MAX as u64 * 2;
        let found: Vec<_> = (0..all).map(|n| ((n * 7919) % all, key)).collect();
        let oldest: Vec<u64> = longest_unused(found).into_iter().map(|(at_ms, _)| at_ms).collect();
        assert_eq!(oldest, (0..CANDIDATES_MAX as u64).rev().collect::<Vec<_>>());
    }
}
