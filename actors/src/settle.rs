//! Settling: what happens to a run's result behind the reply. Digest its inputs, make a record, store it.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use serde_bytes::ByteBuf;

use crate::connection::Peers;
use crate::coordinator::Flight;
use crate::counters::count;
use crate::digest::Digest;
use crate::flights::Landing;
use crate::freshness::WorkingDirectory;
use crate::hasher::DigestRun;
use crate::invocation::Invocation;
use crate::journal::Note;
use crate::key::{RequestKey, environment_digest};
use crate::observation::{Fact, Observation, Spelled};
use crate::observer::Unstorable;
use crate::plan::{Plan, Policy};
use crate::record::{NO_FILE, Record, RunResult};
use crate::runner::RunReport;
use crate::store::Insert;
use crate::work::WorkGuard;

/// A finished run whose client has its answer.
pub struct Settlement {
    /// The request.
    pub key: RequestKey,
    /// What was typed.
    pub invocation: Invocation,
    /// What it meant.
    pub plan: Plan,
    /// Where relative paths begin.
    pub cwd: Arc<WorkingDirectory>,
    /// What the run came to.
    pub report: RunReport,
    /// The flight that this request leads, if it does.
    pub flight: Option<Flight>,
    /// Over when the result is stored or not.
    pub work: WorkGuard,
}

/// Why a result was not stored.
enum NotStored {
    /// By its nature: counted as `not_stored`.
    Unstorable(Unstorable),
    /// By a failure of ours: counted as `degraded`.
    Degraded(&'static str, String),
}

impl From<Unstorable> for NotStored {
    fn from(why: Unstorable) -> Self {
        Self::Unstorable(why)
    }
}

/// Stores the result, counts what came of it, and lands the flight.
pub async fn settle(settlement: Settlement, peers: Arc<Peers>) {
    let Settlement { key, invocation, plan, cwd, report, flight, work: _work } = settlement;
    let stored = store(key, &invocation, &plan, cwd, report, &peers).await;
    let landing = if stored.is_ok() { Landing::Stored } else { Landing::NotStored };
    let (outcome, detail) = match stored {
        Ok(()) => {
            count(&peers.counters.stored);
            ("stored", String::new())
        }
        Err(NotStored::Unstorable(why)) => {
            peers.counters.not_stored.count(label(&why));
            (label(&why), why.to_string())
        }
        Err(NotStored::Degraded(reason, detail)) => {
            peers.counters.not_stored.count("degraded");
            peers.counters.degraded.count(reason);
            (reason, detail)
        }
    };
    tracing::debug!(outcome, detail, key = %key.0.to_hex(), "a run was settled");
    // `do_send`: nobody waits for the journal, and a full one loses lines, not results.
    peers.journal.addr().do_send(Note { key, invocation, outcome, detail });
    if let Some(flight) = flight {
        flight.land(landing);
    }
}

async fn store(
    key: RequestKey,
    invocation: &Invocation,
    plan: &Plan,
    cwd: Arc<WorkingDirectory>,
    report: RunReport,
    peers: &Peers,
) -> Result<(), NotStored> {
    let RunReport { observed, captured, stdout, stderr } = report;
    if let Some(why) = observed.unstorable {
        return Err(why.into());
    }
    if observed.asked_time && !plan.time_is_fixed {
        return Err(Unstorable::AskedTime.into());
    }
    let captured = captured?;
    let digested = peers.hasher.send(DigestRun { sightings: observed.sightings, cwd });
    let (mut observations, mut identities) =
        digested.await.map_err(|e| NotStored::Degraded("hasher_gone", e.to_string()))??;
    // Even with a fixed `__DATE__`, `__TIMESTAMP__` tells a file's own time, and asks for the time zone like it.
    let pin_all = plan.pin_mtimes || observed.asked_time;
    let copies = copies(&observations, &identities);
    pin_mtimes(&mut observations, &mut identities, |i| pin_all || copies.contains(&i));
    let known = knows_all(&observed.programs, plan.policy, invocation);
    let environment = (!known).then(|| environment_digest(&invocation.env));
    let (stdout, stderr) = (ByteBuf::from(stdout), ByteBuf::from(stderr));
    let result = RunResult { exit: observed.exit, stdout, stderr, outputs: captured.outputs };
    let record = Record { observations, identities, environment, result };
    let stored = peers.store.send(Insert { key, record, contents: captured.contents }).await;
    let failed = |e: &dyn std::fmt::Display| NotStored::Degraded("store_failed", e.to_string());
    stored.map_err(|e| failed(&e))?.map_err(|e| failed(&e))
}

/// Makes the time stamps of the files read part of what must hold, for those that `is_pinned` says, by index:
/// clang writes all of them into precompiled headers.
fn pin_mtimes(
    observations: &mut Vec<Observation>,
    identities: &mut Vec<u32>,
    is_pinned: impl Fn(usize) -> bool,
) {
    let pin = |(i, o): (usize, &Observation)| match o.fact {
        Fact::Content { signature: s, .. } if is_pinned(i) => Some(Observation {
            path: o.path.clone(),
            fact: Fact::Metadata { follow: true, size: s.size, mtime_ns: s.mtime_ns, mode: s.mode },
        }),
        _ => None,
    };
    let pins: Vec<_> = observations.iter().enumerate().filter_map(pin).collect();
    identities.resize(identities.len() + pins.len(), NO_FILE);
    observations.extend(pins);
}

/// The files read that have a copy among the files read: equal content in another file. With `#pragma once` gcc
/// takes the two for one if their times are equal as well, so there the times are inputs.
fn copies(observations: &[Observation], identities: &[u32]) -> HashSet<usize> {
    let mut by_content: HashMap<Digest, Vec<usize>> = HashMap::new();
    for (i, observation) in observations.iter().enumerate() {
        if let Fact::Content { digest, signature, .. } = observation.fact
            && signature.size > 0
        {
            by_content.entry(digest).or_default().push(i);
        }
    }
    let are_several = |same: &Vec<usize>| same.iter().any(|&i| identities[i] != identities[same[0]]);
    by_content.into_values().filter(are_several).flatten().collect()
}

/// Whether the environment reads of every program that took part are in the family's table.
fn knows_all(programs: &[Spelled], policy: &Policy, invocation: &Invocation) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let known = |program: &Spelled| {
        let path = invocation.cwd_path().join(Path::new(std::ffi::OsStr::from_bytes(&program.0)));
        let resolved = std::fs::canonicalize(path).ok();
        resolved.and_then(|p| p.file_name().map(|n| (policy.knows_program)(n.as_bytes()))).unwrap_or(false)
    };
    programs.iter().all(known)
}

/// The name under which `stats` counts a reason (documented in `docs/contract.md`).
fn label(why: &Unstorable) -> &'static str {
    match why {
        Unstorable::NotObservable(_) => "not_observable",
        Unstorable::ChangedExisting(_) => "changed_existing_file",
        Unstorable::ReadStdin => "read_stdin",
        Unstorable::AskedTime => "asked_time",
        Unstorable::UsedSocket => "used_socket",
        Unstorable::ReadUnstable(_) => "read_device",
        Unstorable::LeftProcess => "left_process",
        Unstorable::InputTooNew(_) => "input_too_new",
        Unstorable::InputChanged(_) => "input_changed",
        Unstorable::Signalled => "signalled",
        Unstorable::OutputTooLarge(_) => "output_too_large",
        Unstorable::Cancelled => "cancelled",
        Unstorable::TooMany(_) => "too_many_files",
        Unstorable::NotCaptured(_) => "not_captured",
    }
}
