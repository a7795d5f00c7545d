//! Digesting: from what an observer saw of a run to the observations of a record.
//!
//! A file that changed since the tool opened it, or that was too new then to tell, makes the run unstorable.

use crate::file_table::FileTable;
use crate::freshness::{WorkingDirectory, identities, identity_of, listing_digest};
use crate::observation::{Fact, Observation, Seen, Sighting};
use crate::observer::Unstorable;
use crate::signature::Signature;

/// The most observations of one record. A C++ file has some hundreds, a large Rust crate some thousands.
const OBSERVATIONS_MAX: usize = 50_000;

/// The observations of a run, and their identities (see `Record::identities`).
///
/// # Errors
/// Why the run must not be stored.
pub fn digest(
    sightings: Vec<Sighting>,
    files: &FileTable,
    cwd: &WorkingDirectory,
) -> Result<(Vec<Observation>, Vec<u32>), Unstorable> {
    if sightings.len() > OBSERVATIONS_MAX {
        return Err(Unstorable::TooMany("observations"));
    }
    let mut observations = Vec::with_capacity(sightings.len());
    for sighting in sightings {
        let fact = fact(&sighting, files, cwd)?;
        observations.push(Observation { path: sighting.path, fact });
    }
    let identities = identities(observations.iter().map(|o| identity_of(o, cwd)));
    Ok((observations, identities))
}

fn fact(sighting: &Sighting, files: &FileTable, cwd: &WorkingDirectory) -> Result<Fact, Unstorable> {
    let path = &sighting.path.0[..];
    let changed = || Unstorable::InputChanged(String::from_utf8_lossy(path).into_owned());
    Ok(match &sighting.seen {
        Seen::Read { signature, executed } => {
            let content = files.content(cwd.fd(), path).map_err(|_| changed())?;
            if content.signature != *signature {
                return Err(changed());
            }
            if !content.settled {
                return Err(Unstorable::InputTooNew(String::from_utf8_lossy(path).into_owned()));
            }
            Fact::Content { digest: content.digest, signature: *signature, executed: *executed }
        }
        Seen::Listed { signature } => {
            let digest = listing_digest(cwd.fd(), path).map_err(|_| changed())?;
            // What the run itself added and removed is gone again; a directory that ended up otherwise is not
            // what the tool listed.
            let now = Signature::at(cwd.fd(), path, rustix::fs::AtFlags::empty()).map_err(|_| changed())?;
            if now != *signature {
                return Err(changed());
            }
            Fact::Listed { digest }
        }
        Seen::Absent => Fact::Absent,
        Seen::Symlink { target } => Fact::Symlink { target: target.clone() },
        Seen::Kind { follow, kind } => Fact::Kind { follow: *follow, kind: *kind },
        Seen::Metadata { follow, signature } => Fact::Metadata {
            follow: *follow,
            size: signature.size,
            mtime_ns: signature.mtime_ns,
            mode: signature.mode,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::Spelled;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_file_that_changed_since_it_was_opened_is_not_stored() {
        let temp = tempfile::tempdir().unwrap();
        let cwd = WorkingDirectory::open(temp.path().as_os_str().as_bytes()).unwrap();
        let path = temp.path().join("a.h");
        std::fs::write(&path, "one").unwrap();
        let sighting = || {
            let signature = Signature::of(&path).unwrap();
            vec![Sighting { path: Spelled(b"a.h".to_vec()), seen: Seen::Read { signature, executed: false } }]
        };
        let old = sighting();
        while !Signature::of(&path).unwrap().is_settled(crate::signature::coarse_now_ns()) {
            std::thread::sleep(std::time::Duration::from_millis(1)); // the file system's clock has to move
        }
        let files = FileTable::default();
        let (observations, identities) = digest(sighting(), &files, &cwd).unwrap();
        assert_eq!((observations.len(), identities), (1, vec![0]));
        std::fs::write(&path, "two").unwrap();
        assert!(matches!(digest(old, &files, &cwd), Err(Unstorable::InputChanged(_))));
    }
}
