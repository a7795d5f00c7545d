//! Digesting: from what an observer saw of a run to a record.
//!
//! A file that changed since the tool opened it, or that was too new then to tell, makes the run unstorable; so
//! does anything else that is not any more as the tool saw it, unless the tool itself changed it ([`Seen::Before`]).

use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

use crate::digest::Digest;
use crate::file_table::FileTable;
use crate::freshness::{LiveRecord, WorkingDirectory, identities, identity_of, listing_digest};
use crate::observation::{Fact, Observation, Seen, Sighting, Spelled};
use crate::observer::Unstorable;
use crate::record::{Record, RunResult, Variable};
use crate::signature::Signature;
use crate::sys::fs::AtFlags;

/// The most observations of one record. A C++ file has some hundreds, a large Rust crate some thousands.
const OBSERVATIONS_MAX: usize = 50_000;

/// A run of which a record is to be made.
pub struct Run {
    /// What the observer saw.
    pub sightings: Vec<Sighting>,
    /// What there is to replay.
    pub result: RunResult,
    /// The digest of the whole environment, if a program took part whose reads of it are not known.
    pub environment: Option<Digest>,
    /// The environment variables that it is known to hang on, beyond those in the key.
    pub variables: Vec<Variable>,
    /// The time stamps of files that were read can have entered the result.
    pub pin_mtimes: bool,
    /// Whether a text that was read says that they have.
    pub tells_times: Option<fn(&[u8]) -> bool>,
    /// Files whose own time stamps cannot have, whatever `pin_mtimes` says.
    pub timeless: Vec<Spelled>,
    /// Their permission bits can have.
    pub pin_modes: bool,
    /// The time stamps of files with equal content can have.
    pub pin_twins: bool,
}

/// Makes the record of a run, and makes sure that it holds now.
///
/// # Errors
/// Why the run must not be stored.
pub fn make_record(
    run: Run,
    files: &Arc<FileTable>,
    cwd: &Arc<WorkingDirectory>,
) -> Result<LiveRecord, Unstorable> {
    if run.sightings.len() > OBSERVATIONS_MAX {
        return Err(Unstorable::TooMany("observations"));
    }
    let mut pins =
        Pins { modes: run.pin_modes, mtimes: run.pin_mtimes, timeless: &run.timeless, twins: run.pin_twins };
    let (mut before, mut still) = (Vec::new(), Vec::new());
    for sighting in run.sightings {
        let observations =
            if matches!(sighting.seen, Seen::Before { .. }) { &mut before } else { &mut still };
        let fact = fact(&sighting, files, cwd)?;
        observations.push(Observation { path: sighting.path, fact });
    }
    if let Some(tells) = run.tells_times {
        let is_telling = |o: &Observation| match o.fact {
            Fact::Content { digest, executed: false, .. } => files.says(cwd.fd(), &o.path.0, digest, tells),
            _ => false,
        };
        pins.mtimes |= still.iter().any(is_telling);
    }
    pins.add_to(&mut still);
    let record = Record {
        observations: still.into_iter().map(Arc::new).collect(),
        identities: Vec::new(),
        environment: run.environment,
        variables: run.variables,
        origin: None,
        result: run.result,
    };
    // What was absent when the tool first asked may have been there when it asked again.
    let live = LiveRecord::establish(record, cwd, files)
        .map_err(|broken| Unstorable::InputChanged(String::from_utf8_lossy(&broken.path).into_owned()))?;
    if before.is_empty() {
        return Ok(live);
    }
    let mut record = Arc::unwrap_or_clone(live.record);
    pins.add_to(&mut before);
    record.observations.extend(before.into_iter().map(Arc::new));
    record.identities = identities(record.observations.iter().map(|o| identity_of(o, cwd)));
    Ok(LiveRecord::new(record))
}

/// Which metadata of files that were read must be as it was, beyond what equal contents ask for.
#[derive(Clone, Copy)]
struct Pins<'a> {
    modes: bool,
    mtimes: bool,
    /// Not of these.
    timeless: &'a [Spelled],
    twins: bool,
}

impl Pins<'_> {
    /// Adds what they demand.
    fn add_to(self, observations: &mut Vec<Observation>) {
        if self.modes && !self.mtimes {
            let mode = |o: &Observation| match o.fact {
                Fact::Content { signature, .. } => {
                    Some(Observation { path: o.path.clone(), fact: Fact::Mode { mode: signature.mode } })
                }
                _ => None,
            };
            let modes: Vec<_> = observations.iter().filter_map(mode).collect();
            observations.extend(modes);
        }
        if self.mtimes || self.twins {
            let is_asked_for = |path: &Spelled| self.mtimes && !self.timeless.contains(path);
            pin_mtimes(observations, is_asked_for);
        }
    }
}

/// Makes time stamps of files read part of what must hold: of those that it `is_asked_for`, and of those whose content
/// several files have, which `#pragma once` tells apart by their times.
fn pin_mtimes(observations: &mut Vec<Observation>, is_asked_for: impl Fn(&Spelled) -> bool) {
    let mut first_with: FxHashMap<Digest, (u64, u64)> = FxHashMap::default();
    let mut shared: FxHashSet<Digest> = FxHashSet::default();
    for observation in &*observations {
        if let Fact::Content { digest, signature, .. } = observation.fact
            && let identity = (signature.dev, signature.ino)
            && signature.size > 0
            && *first_with.entry(digest).or_insert(identity) != identity
        {
            shared.insert(digest);
        }
    }
    let pinned = |o: &Observation| match o.fact {
        Fact::Content { signature: s, digest, .. } if is_asked_for(&o.path) || shared.contains(&digest) => {
            Some(Observation {
                path: o.path.clone(),
                fact: Fact::Metadata { follow: true, size: s.size, mtime_ns: s.mtime_ns, mode: s.mode },
            })
        }
        _ => None,
    };
    let pins: Vec<_> = observations.iter().filter_map(pinned).collect();
    observations.extend(pins);
}

/// The fact that `seen` stands for, of a path that the run has changed since.
fn fact_before(path: &[u8], seen: &Seen, digest: Option<Digest>) -> Result<Fact, Unstorable> {
    Ok(match (seen, digest) {
        (Seen::Read { signature, executed, linked }, Some(digest)) => {
            Fact::Content { digest, signature: *signature, executed: *executed, linked: *linked }
        }
        (Seen::Absent, _) => Fact::Absent,
        (Seen::Symlink { target }, _) => Fact::Symlink { target: target.clone() },
        (Seen::Kind { follow, kind }, _) => Fact::Kind { follow: *follow, kind: *kind },
        (Seen::Metadata { follow, signature }, _) => metadata(*follow, signature),
        (Seen::Read { .. } | Seen::Listed { .. } | Seen::Names { .. } | Seen::Before { .. }, _) => {
            return Err(Unstorable::InputChanged(String::from_utf8_lossy(path).into_owned()));
        }
    })
}

fn metadata(follow: bool, signature: &Signature) -> Fact {
    Fact::Metadata { follow, size: signature.size, mtime_ns: signature.mtime_ns, mode: signature.mode }
}

fn fact(sighting: &Sighting, files: &FileTable, cwd: &WorkingDirectory) -> Result<Fact, Unstorable> {
    let path = &sighting.path.0[..];
    let changed = || Unstorable::InputChanged(String::from_utf8_lossy(path).into_owned());
    Ok(match &sighting.seen {
        Seen::Read { signature, executed, linked } => {
            let digest = match files.known(signature) {
                Some(digest) => digest,
                None => {
                    let content = files.content(cwd.fd(), path).map_err(|_| changed())?;
                    if content.signature != *signature {
                        return Err(changed());
                    }
                    if !content.settled {
                        return Err(Unstorable::InputTooNew(String::from_utf8_lossy(path).into_owned()));
                    }
                    content.digest
                }
            };
            Fact::Content { digest, signature: *signature, executed: *executed, linked: *linked }
        }
        Seen::Listed { signature } => {
            let digest = listing_digest(cwd.fd(), path).map_err(|_| changed())?;
            // What the run itself added and removed is gone again; a directory that ended up otherwise is not
            // what the tool listed.
            let now = Signature::at(cwd.fd(), path, AtFlags::empty()).map_err(|_| changed())?;
            if now != *signature {
                return Err(changed());
            }
            Fact::Listed { digest }
        }
        Seen::Names { filter, digest } => Fact::Names { filter: filter.clone(), digest: *digest },
        Seen::Absent => Fact::Absent,
        Seen::Symlink { target } => Fact::Symlink { target: target.clone() },
        Seen::Kind { follow, kind } => Fact::Kind { follow: *follow, kind: *kind },
        Seen::Metadata { follow, signature } => metadata(*follow, signature),
        Seen::Before { seen, digest } => fact_before(path, seen, *digest)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use zccache_proto::message::Exit;

    fn run(sightings: Vec<Sighting>) -> Run {
        let result = RunResult {
            exit: Exit::Code(0),
            stdout: Default::default(),
            stderr: Default::default(),
            outputs: vec![],
        };
        Run {
            sightings,
            result,
            environment: None,
            variables: vec![],
            pin_mtimes: false,
            tells_times: None,
            timeless: vec![],
            pin_modes: false,
            pin_twins: true,
        }
    }

    #[test]
    fn a_file_that_changed_since_it_was_opened_is_not_stored() {
        let temp = tempfile::tempdir().unwrap();
        let cwd = Arc::new(WorkingDirectory::open(temp.path().as_os_str().as_bytes()).unwrap());
        let path = temp.path().join("a.h");
        std::fs::write(&path, "one").unwrap();
        let sighting = || {
            let signature = Signature::of(&path).unwrap();
            vec![Sighting {
                path: Spelled(b"a.h".to_vec()),
                seen: Seen::Read { signature, executed: false, linked: false },
            }]
        };
        let old = sighting();
        while !Signature::of(&path).unwrap().is_settled(crate::signature::coarse_now_ns()) {
            std::thread::sleep(std::time::Duration::from_millis(1)); // the file system's clock has to move
        }
        let files = Arc::new(FileTable::default());
        let record = make_record(run(sighting()), &files, &cwd).unwrap().record;
        assert_eq!((record.observations.len(), &record.identities[..]), (1, &[0][..]));
        // The same again, but who knows what it was in between.
        for text in ["two", "one"] {
            std::fs::write(&path, text).unwrap();
            let made = make_record(run(old.clone()), &files, &cwd);
            assert!(matches!(made, Err(Unstorable::InputChanged(_))), "{text}");
        }
    }

    #[test]
    fn a_run_that_saw_too_much_is_not_stored() {
        let temp = tempfile::tempdir().unwrap();
        let cwd = Arc::new(WorkingDirectory::open(temp.path().as_os_str().as_bytes()).unwrap());
        let absent = Sighting { path: Spelled(b"a.h".to_vec()), seen: Seen::Absent };
        let made = make_record(run(vec![absent; OBSERVATIONS_MAX + 1]), &Arc::default(), &cwd);
        assert!(matches!(made, Err(Unstorable::TooMany("observations"))));
    }

    #[test]
    fn a_file_that_appeared_during_the_run_is_not_stored() {
        let temp = tempfile::tempdir().unwrap();
        let cwd = Arc::new(WorkingDirectory::open(temp.path().as_os_str().as_bytes()).unwrap());
        let absent = || vec![Sighting { path: Spelled(b"a.h".to_vec()), seen: Seen::Absent }];
        let files = Arc::new(FileTable::default());
        assert!(make_record(run(absent()), &files, &cwd).is_ok());
        std::fs::write(temp.path().join("a.h"), "").unwrap();
        assert!(matches!(make_record(run(absent()), &files, &cwd), Err(Unstorable::InputChanged(_))));
    }
}
