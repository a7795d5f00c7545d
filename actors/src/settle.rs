//! Settling: from what a run came to, to a stored record. The record is made before the client has its reply, and
//! stored behind it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix::MailboxError;
use serde_bytes::ByteBuf;

use crate::blobs::PendingBlob;
use crate::connection::Peers;
use crate::coordinator::Flight;
use crate::counters::count;
use crate::digesting::Run;
use crate::faults;
use crate::flights::Landing;
use crate::freshness::{LiveRecord, WorkingDirectory};
use crate::hasher::{MakeRecord, Share};
use crate::invocation::Invocation;
use crate::journal::Note;
use crate::key::{RequestKey, environment_digest};
use crate::observation::{Seen, Sighting, Spelled};
use crate::observer::Unstorable;
use crate::passing;
use crate::plan::{Plan, Policy, ShownMetadata, Variables};
use crate::record::{RunResult, Variable};
use crate::runner::RunReport;
use crate::sharing::shared_requests;
use crate::spelling;
use crate::store::Insert;
use crate::work::WorkGuard;

/// What a run came to, ready to be stored or not.
pub struct Settlement {
    /// The request.
    pub key: RequestKey,
    /// What was typed.
    pub invocation: Invocation,
    /// What it means.
    pub plan: Plan,
    /// Where relative paths begin.
    pub cwd: Arc<WorkingDirectory>,
    /// The record with the contents it names, or why there is none.
    pub prepared: Prepared,
    /// The flight that this request leads, if it does.
    pub flight: Option<Flight>,
    /// Over when the result is stored or not.
    pub work: WorkGuard,
}

/// How long a client whose tool has ended waits for its inputs to be digested: some gigabytes. One thread of many may
/// be held up by a disk that others know nothing of.
const RECORD_PATIENCE: Duration = Duration::from_secs(10);

/// A record with the contents it names, or why there is none.
pub type Prepared = Result<(LiveRecord, Vec<PendingBlob>), NotStored>;

/// Why a result was not stored.
pub enum NotStored {
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

/// Makes the record of a run. Before the reply: what a build does next may change the very files that the run read,
/// and a record of what is no more cannot be made.
pub async fn prepare(
    invocation: &Invocation,
    plan: &Plan,
    cwd: Arc<WorkingDirectory>,
    report: RunReport,
    peers: &Peers,
) -> Prepared {
    let RunReport { observed, reviewed, named, captured, stdout, stderr } = report;
    if let Some(why) = observed.unstorable {
        return Err(why.into());
    }
    if observed.asked_time && !plan.time_is_fixed {
        return Err(Unstorable::AskedTime.into());
    }
    if passing::tells_of_signal(observed.exit) {
        return Err(Unstorable::Signalled.into());
    }
    if !observed.exit.success() && passing::may_pass(&[&stdout, &stderr], &invocation.stdio, &invocation.env)
    {
        return Err(Unstorable::PassingFailure.into());
    }
    // What the text of its place said before is not known any more, and elsewhere it would not be written over.
    if let (Some(_), Some(path)) =
        (&plan.sharing, observed.reread.iter().find(|path| plan.outputs.contains(path)))
    {
        return Err(Unstorable::InputChanged(path.0.escape_ascii().to_string()).into());
    }
    let captured = captured?;
    let (mut variables, any_variable) = match reviewed {
        Variables::None => (Vec::new(), false),
        Variables::Named(names) => {
            let variable = |name| Variable::in_environment(name, &invocation.env);
            (names.into_iter().map(variable).collect(), false)
        }
        Variables::Any => (Vec::new(), true),
    };
    variables.extend(named.into_iter().map(|name| Variable::in_environment(name, &invocation.env)));
    let known = !any_variable
        && !brings_options(&observed.sightings, plan.policy)
        && knows_all(&observed.programs, plan.policy, invocation);
    let (metadata, tells_times) = (plan.policy.caution.metadata, plan.policy.caution.tells_times);
    let (stdout, stderr) = (ByteBuf::from(stdout), ByteBuf::from(stderr));
    let run = Run {
        sightings: observed.sightings,
        result: RunResult { exit: observed.exit, stdout, stderr, outputs: captured.outputs },
        variables,
        environment: (!known).then(|| environment_digest(invocation)),
        // Even with a fixed `__DATE__`, `__TIMESTAMP__` tells a file's own time, and asks for the zone like it.
        pin_mtimes: plan.pin_mtimes
            || observed.asked_time
            || metadata == ShownMetadata::All
            || tells_times.is_some_and(|tells| invocation.argv.iter().any(tells)),
        tells_times,
        timeless: plan.timeless.clone(),
        pin_modes: metadata == ShownMetadata::Mode,
        pin_twins: metadata != ShownMetadata::ContentOnly,
    };
    let record = in_time(peers.hasher.send(MakeRecord { run, cwd })).await?;
    Ok((record, captured.contents))
}

/// The record that the hasher makes, if it comes within `RECORD_PATIENCE`.
async fn in_time(
    making: impl Future<Output = Result<Result<LiveRecord, Unstorable>, MailboxError>>,
) -> Result<LiveRecord, NotStored> {
    let made = tokio::time::timeout(RECORD_PATIENCE, making).await;
    let made = made.map_err(|e| NotStored::Degraded("hasher_slow", e.to_string()))?;
    Ok(made.map_err(|e| NotStored::Degraded("hasher_gone", e.to_string()))??)
}

/// Stores the result, counts what came of it, and lands the flight. Behind the reply.
pub async fn settle(settlement: Settlement, peers: Arc<Peers>) {
    let Settlement { key, invocation, plan, cwd, prepared, mut flight, work: _work } = settlement;
    faults::pass("settle");
    let (mut shareable, root) = (None, invocation.cwd.clone());
    let stored = match prepared {
        Ok((record, contents)) => {
            let requests = shared_requests(&invocation, &plan, &cwd);
            let kept = (!requests.is_empty()).then(|| Arc::clone(&record.record));
            let storing = store(key, record, root.clone(), contents, &peers);
            tokio::pin!(storing);
            let stored = match peers.hot.readiness.in_time(|| None, &mut storing).await {
                Some(stored) => stored,
                None => {
                    // Nobody waits until the index is open.
                    flight.take().into_iter().for_each(|flight| flight.land(Landing::NotStored));
                    storing.await
                }
            };
            shareable = kept.filter(|_| stored.is_ok()).map(|record| Share { record, requests, plan, cwd });
            stored
        }
        Err(why) => Err(why),
    };
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
    Note { key, invocation, outcome, detail }.hand_to(&peers.journal.addr());
    if let Some(flight) = flight {
        flight.land(landing);
    }
    if let Some(share) = shareable {
        store_shared(share, &root, &peers).await;
    }
}

/// Stores a result for requests from elsewhere as well, if it proves to be good for them. Nothing is lost if not.
async fn store_shared(share: Share, root: &[u8], peers: &Peers) {
    let Ok(general) = peers.hasher.send(share).await else { return };
    for (key, record) in general {
        // Its contents are stored already.
        let _ = store(key, LiveRecord::new(record), root.to_vec(), Vec::new(), peers).await;
    }
}

async fn store(
    key: RequestKey,
    record: LiveRecord,
    root: Vec<u8>,
    contents: Vec<PendingBlob>,
    peers: &Peers,
) -> Result<(), NotStored> {
    let failed = |e: &dyn std::fmt::Display| NotStored::Degraded("store_failed", e.to_string());
    let stored = peers.store.send(Insert { key, record, root, contents }).await;
    stored.map_err(|e| failed(&e))?.map_err(|e| failed(&e))
}

/// Whether the environment reads of every program that took part are in the family's table. Of two that do the same, one
/// is somebody's own under that name, which starts the other and may read anything before.
fn knows_all(programs: &[Spelled], policy: &Policy, invocation: &Invocation) -> bool {
    use crate::sys::OsStrExt;
    let mut doers: Vec<(Vec<u8>, PathBuf)> = Vec::new();
    let mut known = |program: &Spelled| {
        let path = invocation.cwd_path().join(Path::new(std::ffi::OsStr::from_bytes(&program.0)));
        let Ok(resolved) = std::fs::canonicalize(path) else { return false };
        let name =
            resolved.file_name().map(|name| spelling::program(name.as_bytes()).to_vec()).unwrap_or_default();
        let task = (policy.caution.task)(&name).map(<[u8]>::to_vec);
        let is_second = doers.iter().any(|(done, by)| task.as_ref() == Some(done) && *by != resolved);
        doers.extend(task.map(|task| (task, resolved)));
        !is_second && (policy.knows_program)(&name)
    };
    programs.iter().all(&mut known)
}

/// Whether a file was read that nobody named and that brings options or code, which may ask for any variable.
fn brings_options(sightings: &[Sighting], policy: &Policy) -> bool {
    let brings = |path: &Spelled| {
        path.0 == PRELOADED
            || (policy.caution.holds_options)(path.0.rsplit(|&b| b == b'/').next().unwrap_or_default())
    };
    sightings.iter().any(|s| matches!(s.seen, Seen::Read { .. }) && brings(&s.path))
}

/// The list of libraries that the loader loads into every program.
const PRELOADED: &[u8] = b"/etc/ld.so.preload";

/// The name under which `stats` counts a reason (documented in `docs/contract.md`).
fn label(why: &Unstorable) -> &'static str {
    match why {
        Unstorable::NotObservable(_) => "not_observable",
        Unstorable::ChangedExisting(_) => "changed_existing_file",
        Unstorable::ReadStdin => "read_stdin",
        Unstorable::AskedTime => "asked_time",
        Unstorable::ReadClock => "read_clock",
        Unstorable::TookRandomNumbers => "took_random_numbers",
        Unstorable::AskedProcessNumber => "asked_process_number",
        Unstorable::UsedSocket => "used_socket",
        Unstorable::ReadUnstable(_) => "read_device",
        Unstorable::LeftProcess => "left_process",
        Unstorable::InputTooNew(_) => "input_too_new",
        Unstorable::InputChanged(_) => "input_changed",
        Unstorable::Signalled => "signalled",
        Unstorable::PassingFailure => "passing_failure",
        Unstorable::OutputTooLarge(_) => "output_too_large",
        Unstorable::Cancelled => "cancelled",
        Unstorable::TooMany(_) => "too_many_files",
        Unstorable::NotCaptured(_) => "not_captured",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_record_that_is_not_made_in_time_is_not_waited_for() {
        let begun = tokio::time::Instant::now();
        let never = in_time(std::future::pending()).await;
        assert!(matches!(never, Err(NotStored::Degraded("hasher_slow", _))));
        assert!(begun.elapsed().abs_diff(RECORD_PATIENCE) < Duration::from_millis(10));
        let late = async {
            tokio::time::sleep(RECORD_PATIENCE - Duration::from_secs(1)).await;
            Ok(Err(Unstorable::AskedTime))
        };
        assert!(matches!(in_time(late).await, Err(NotStored::Unstorable(Unstorable::AskedTime))));
        let gone = in_time(async { Err(MailboxError::Closed) }).await;
        assert!(matches!(gone, Err(NotStored::Degraded("hasher_gone", _))));
    }
}
