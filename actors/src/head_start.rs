//! The head start: the manifests that were looked at last, in one file, so that the next service serves them while its
//! index is still being opened.
//!
//! Written when a service ends in order; read and removed by the next one before it opens the index. All of it was copied
//! from the index, and counts only until that is open: then the index must say that it is still what it was
//! ([`HeadStart::is_of`]), or everything that came from here is forgotten. So nothing that was cleared or evicted comes
//! back for longer than that. From the disk, it is untrusted input: damaged, too long or of another version, it is none.
//!
//! ```text
//! MAGIC | digest of what follows | totals | key, uses, records | key, uses, records | ...
//! ```
//! Keys and the digest have 32 bytes; all else has its length before it, in 32 bits, big-endian: so has each record within
//! the records. Records and uses are as the index has them.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use crate::digest::Digest;
use crate::faults;
use crate::index::{Encoded, Index, Totals, decode_uses};
use crate::key::RequestKey;
use crate::manifest::HOT_MANIFESTS_MAX;
use crate::record::{Record, RecordUse, decode_record};
use crate::storage::StorageError;

/// The file's name below the cache directory.
const NAME: &str = "head-start";

/// How the file begins; the last byte is the version of what follows.
const MAGIC: &[u8] = b"zccache head start\n\x02";

/// The most bytes of the file: some hundreds of files in C++ or two thousand in C, read and verified within some 10 ms,
/// and held in memory until the index is open.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of a digest.
const DIGEST_BYTES: usize = 32;

/// What an earlier service left.
pub struct HeadStart {
    bytes: Vec<u8>,
    digest: Digest,
    totals: Totals,
    /// Those looked at last come first.
    keys: Vec<RequestKey>,
    /// Where in `bytes` the uses and records of each are.
    places: HashMap<RequestKey, [Range<usize>; 2]>,
}

impl HeadStart {
    /// What there is below `cache_dir`, which is removed. What cannot be removed is left alone: it would be found again
    /// when it is no longer true.
    pub fn take(cache_dir: &Path) -> Option<Self> {
        let bytes = read(cache_dir);
        match remove(cache_dir) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => {
                tracing::warn!(%e, "a head start cannot be removed, so it is not used");
                return None;
            }
        }
        let found = bytes.ok().and_then(Self::parse);
        if found.is_none() {
            tracing::info!("a head start cannot be read; waiting for the index");
        }
        found
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let (digest, body) = bytes.strip_prefix(MAGIC)?.split_first_chunk::<DIGEST_BYTES>()?;
        let digest = Digest(*digest);
        if Digest::of(body) != digest {
            return None;
        }
        let mut rest = Pieces { bytes: &bytes, at: MAGIC.len() + DIGEST_BYTES };
        let totals = rmp_serde::from_slice(&bytes[rest.next()?]).ok()?;
        let (mut keys, mut places) = (Vec::new(), HashMap::new());
        while rest.at < bytes.len() {
            let key = RequestKey(Digest(bytes[rest.take(DIGEST_BYTES)?].try_into().ok()?));
            keys.push(key);
            places.insert(key, [rest.next()?, rest.next()?]);
        }
        Some(Self { digest, totals, keys, places, bytes })
    }

    /// The records of `key`, newest first, if any came.
    pub fn records(&self, key: RequestKey) -> Vec<(Record, RecordUse)> {
        let Some([uses, records]) = self.places.get(&key) else { return Vec::new() };
        let mut rest = Pieces { bytes: &self.bytes[..records.end], at: records.start };
        let record_of = |used: RecordUse| Some((decode_record(&self.bytes[rest.next()?])?, used));
        decode_uses(&self.bytes[uses.clone()])
            .into_iter()
            .map(record_of)
            .collect::<Option<_>>()
            .unwrap_or_default()
    }

    /// No use that it knows of is later, in milliseconds since the epoch.
    pub fn latest_use_ms(&self) -> u64 {
        self.totals.latest_use_ms
    }

    /// Whether it was copied from an index that says this of itself: which head start was `named` last, and its totals.
    /// The name alone would do, but for versions that change an index and know of no names.
    pub fn is_of(&self, named: Option<Digest>, totals: Totals) -> bool {
        named == Some(self.digest) && totals == self.totals
    }

    /// Which keys came, those looked at last first.
    pub fn keys(&self) -> &[RequestKey] {
        &self.keys
    }

    /// The same, when it is not needed any more.
    pub fn into_keys(self) -> Vec<RequestKey> {
        self.keys
    }
}

/// Leaves a head start of what `index` has of `keys`, and then of `more`. Nothing may change in the index afterwards.
///
/// # Errors
/// If it cannot be written; there is none then.
pub fn leave(
    cache_dir: &Path,
    index: &Index,
    mut keys: Vec<RequestKey>,
    more: &[RequestKey],
) -> Result<(), StorageError> {
    let first: HashSet<_> = keys.iter().copied().collect();
    keys.extend(more.iter().filter(|key| !first.contains(key)));
    keys.truncate(HOT_MANIFESTS_MAX);
    let entries = keys.into_iter().filter_map(|key| Some((key, index.encoded(key).ok()??)));
    let digest = write(cache_dir, &index.totals()?, entries)?;
    index.name_head_start(Some(digest))?;
    faults::pass("head_start.named");
    Ok(())
}

/// Writes a head start of as many `entries` as there is room for; returns its name.
fn write(
    cache_dir: &Path,
    totals: &Totals,
    entries: impl IntoIterator<Item = (RequestKey, Encoded)>,
) -> io::Result<Digest> {
    let mut bytes = [MAGIC, &[0; DIGEST_BYTES]].concat();
    put(&mut bytes, &rmp_serde::to_vec(totals).map_err(io::Error::other)?);
    for (key, Encoded { uses, records }) in entries {
        let mut pieces = Vec::new();
        records.iter().for_each(|record| put(&mut pieces, record));
        let more = DIGEST_BYTES + 2 * size_of::<u32>() + pieces.len() + uses.len();
        // Shorter ones may still fit.
        if bytes.len().saturating_add(more) <= BYTES_MAX {
            bytes.extend_from_slice(&key.0.0);
            put(&mut bytes, &uses);
            put(&mut bytes, &pieces);
        }
    }
    let (head, body) = bytes.split_at_mut(MAGIC.len() + DIGEST_BYTES);
    let digest = Digest::of(body);
    head[MAGIC.len()..].copy_from_slice(&digest.0);
    faults::check("head_start.write")?;
    let path = cache_dir.join(NAME);
    let new = path.with_extension("new");
    let written = std::fs::write(&new, &bytes).and_then(|()| std::fs::rename(&new, path));
    written.inspect_err(|_| _ = std::fs::remove_file(new))?;
    faults::pass("head_start.written");
    Ok(digest)
}

/// Removes what there is.
///
/// # Errors
/// If it cannot be removed, or there is none.
pub fn remove(cache_dir: &Path) -> io::Result<()> {
    std::fs::remove_file(cache_dir.join(NAME))
}

fn read(cache_dir: &Path) -> io::Result<Vec<u8>> {
    let path = cache_dir.join(NAME);
    let found = std::fs::symlink_metadata(&path)?;
    if !found.is_file() || found.len() > BYTES_MAX as u64 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    faults::check("head_start.read")?;
    let mut bytes = Vec::with_capacity(usize::try_from(found.len()).unwrap_or(0));
    File::open(path)?.take(BYTES_MAX as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Appends a piece with its length before it.
fn put(bytes: &mut Vec<u8>, piece: &[u8]) {
    // What is longer than this is longer than the file, and was turned away.
    let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(piece);
}

/// Goes through pieces with their lengths before them.
struct Pieces<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Pieces<'_> {
    fn next(&mut self) -> Option<Range<usize>> {
        let length = self.take(size_of::<u32>())?;
        let length = u32::from_be_bytes(self.bytes[length].try_into().ok()?);
        self.take(usize::try_from(length).ok()?)
    }

    fn take(&mut self, length: usize) -> Option<Range<usize>> {
        let place = self.at..self.at.checked_add(length)?;
        self.bytes.get(place.clone())?;
        self.at = place.end;
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::encode_uses;
    use crate::record::{RunResult, encode_record, unpackable};
    use zccache_proto::message::Exit;

    fn key(number: usize) -> RequestKey {
        RequestKey(Digest::of(&number.to_le_bytes()))
    }

    /// An entry with a record that printed so many bytes.
    fn entry(number: usize, printed: usize) -> (RequestKey, Encoded) {
        let result = RunResult {
            exit: Exit::Code(0),
            stdout: unpackable(printed).into(),
            stderr: Default::default(),
            outputs: vec![],
        };
        let (observations, identities, variables) = (vec![], vec![], vec![]);
        let record = Record { observations, identities, environment: None, variables, origin: None, result };
        let uses = vec![RecordUse { last_use_ms: number as u64, ..RecordUse::default() }];
        let records = vec![encode_record(&record).unwrap()];
        (key(number), Encoded { records, uses: encode_uses(&uses).unwrap() })
    }

    fn totals(records: u64) -> Totals {
        Totals { records, latest_use_ms: 7, ..Totals::default() }
    }

    #[test]
    fn a_head_start_comes_back_once_and_as_it_was() {
        let temp = tempfile::tempdir().unwrap();
        let digest = write(temp.path(), &totals(2), [entry(1, 10), entry(2, 0)]).unwrap();
        let found = HeadStart::take(temp.path()).unwrap();
        let printed =
            |n| found.records(key(n)).iter().map(|(r, _)| r.result.stdout.len()).collect::<Vec<_>>();
        assert_eq!([1, 2, 3].map(printed), [vec![10], vec![0], vec![]]);
        assert_eq!(found.records(key(2))[0].1.last_use_ms, 2);
        assert!(found.is_of(Some(digest), totals(2)));
        assert!(!found.is_of(None, totals(2)));
        assert!(!found.is_of(Some(Digest::of(b"")), totals(2)));
        assert!(!found.is_of(Some(digest), totals(3)));
        assert_eq!((found.latest_use_ms(), found.into_keys()), (7, vec![key(1), key(2)]));
        assert!(HeadStart::take(temp.path()).is_none());
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_head_start_is_so_long_and_those_looked_at_last_come_first() {
        let temp = tempfile::tempdir().unwrap();
        let most = 40;
        let entries = (0..most).map(|number| entry(number, BYTES_MAX / 20));
        // Too long for any, and for what room there is left; the last one fits.
        let others = [entry(most, BYTES_MAX), entry(most + 1, BYTES_MAX / 20), entry(most + 2, 10)];
        write(temp.path(), &totals(0), entries.chain(others)).unwrap();
        let bytes = temp.path().join(NAME).metadata().unwrap().len();
        assert!(bytes <= BYTES_MAX as u64 && bytes > BYTES_MAX as u64 / 10 * 9, "{bytes}");
        let keys = HeadStart::take(temp.path()).unwrap().into_keys();
        assert_eq!(keys, (0..19).chain([most + 2]).map(key).collect::<Vec<_>>());
        // One that somebody else has made longer is not read.
        std::fs::write(temp.path().join(NAME), vec![0; BYTES_MAX + 1]).unwrap();
        assert!(HeadStart::take(temp.path()).is_none());
        assert!(!temp.path().join(NAME).exists());
    }

    #[test]
    fn a_damaged_head_start_is_none() {
        let temp = tempfile::tempdir().unwrap();
        write(temp.path(), &totals(0), [entry(1, 10)]).unwrap();
        let good = std::fs::read(temp.path().join(NAME)).unwrap();
        let taken = |bytes: &[u8]| {
            std::fs::write(temp.path().join(NAME), bytes).unwrap();
            let taken = HeadStart::take(temp.path());
            assert!(!temp.path().join(NAME).exists());
            taken
        };
        assert!(taken(&good).is_some());
        for at in 0..good.len() {
            assert!(taken(&good[..at]).is_none(), "cut at {at}");
            let mut bytes = good.clone();
            bytes[at] ^= 4;
            assert!(taken(&bytes).is_none(), "a bit flipped at {at}");
        }
        assert!(taken(&[&good[..], b"x"].concat()).is_none());
        // Whoever can write its digest, too, can say what lengths they like.
        let start = MAGIC.len() + DIGEST_BYTES;
        for at in start..good.len() {
            let mut bytes = good.clone();
            bytes[at] = 0xff;
            let digest = Digest::of(&bytes[start..]);
            bytes[MAGIC.len()..start].copy_from_slice(&digest.0);
            if let Some(found) = taken(&bytes) {
                let _ = found.records(key(1));
            }
        }
    }

    #[test]
    fn what_is_no_file_or_cannot_be_removed_is_no_head_start() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join(NAME)).unwrap();
        assert!(HeadStart::take(temp.path()).is_none());
        assert!(write(temp.path(), &totals(0), []).is_err());
        assert!(!temp.path().join(NAME).with_extension("new").exists());
        assert!(HeadStart::take(&temp.path().join("nothing")).is_none());
    }
}
