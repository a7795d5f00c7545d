//! The life of one compile: plan, key, look-up; hit: deliver and replay; miss: run once, reply, settle.
//!
//! ```text
//! Compile -> plan --pass through--> PassThrough
//!             | key
//!             +-> a record in memory holds -> deliver -> Finished              (no other thread is asked)
//!             +-> enter flight -> follow -> landed stored -> look again
//!                     | lead
//!                     +-> a stored record holds -> deliver -> Finished
//!                     +-> run the tool: Started, Output…, Finished; then settle (settle.rs)
//! ```
//! Whatever fails on the way, the client is told to run the tool itself, or the tool is run here.

use crate::sys::OwnedFd;
use std::sync::Arc;

use serde_bytes::ByteBuf;
use tokio::sync::{mpsc, oneshot};
use zccache_proto::async_transport::Connection as Stream;
use zccache_proto::message::{Compile, Finished, Reply};

use crate::connection::Peers;
use crate::coordinator::{Enter, Entered, Flight};
use crate::counters::count;
use crate::faults;
use crate::flights::Landing;
use crate::freshness::{LiveRecord, WorkingDirectory};
use crate::heritage;
use crate::invocation::Invocation;
use crate::key::RequestKey;
use crate::lease::Lease;
use crate::look_up;
use crate::observer::{Job, Unstorable};
use crate::overdue;
use crate::plan::{Plan, Planned};
use crate::runner::{Run, RunEvent};
use crate::settle::{NotStored, Settlement, prepare, settle};
use crate::standard_input::StandardInput;
use crate::turn::{Entry, Turn, follow};
use crate::units;
use crate::work::WorkGuard;

/// What is sent while the work goes on may wait for a slow client here.
pub const OUTBOX: usize = 8;

/// A request on its way.
pub struct Order {
    /// What was typed.
    pub invocation: Invocation,
    /// What it means.
    pub plan: Plan,
    /// The digest of both.
    pub key: RequestKey,
    /// Where relative paths begin.
    pub cwd: Arc<WorkingDirectory>,
    /// How long the client is sure to wait still.
    pub lease: Arc<Lease>,
    /// Nothing is to be served.
    pub recache: bool,
    client_pid: Option<u32>,
    /// What there is to read on standard input, if that is part of the request.
    pub input: Option<StandardInput>,
    _work: WorkGuard,
}

impl Order {
    /// The order of a part of this one, for the same client.
    pub fn of_unit(&self, invocation: Invocation, plan: Plan, key: RequestKey, peers: &Peers) -> Self {
        let (cwd, lease) = (Arc::clone(&self.cwd), Arc::clone(&self.lease));
        let (recache, client_pid, _work) = (self.recache, self.client_pid, peers.work.begin_request());
        Self { invocation, plan, key, cwd, lease, recache, client_pid, input: None, _work }
    }
}

/// How the work on a request ended.
pub enum Outcome {
    /// A stored result is in place.
    Hit(Arc<LiveRecord>),
    /// The tool was run.
    Finished {
        /// What there is to tell the client.
        end: Finished,
        /// It had options from a file, or may have had: not everything was seen.
        has_more_options: bool,
    },
    /// The client is to run the tool, since something went wrong.
    Refused(String),
    /// The client is to run the tool, since it cannot be served.
    PassedThrough(&'static str),
}

/// What is to be done.
///
/// # Errors
/// The reason to pass the request through.
pub fn order(request: Compile, stream: &Stream, peers: &Arc<Peers>) -> Result<Order, &'static str> {
    let client_pid = stream.peer_pid();
    let (recache, sent, root) = (request.recache, request.descriptors.clone(), request.root);
    let lease = Arc::new(Lease::new(request.patient_until_ns));
    if !request.is_sound() {
        return Err("malformed");
    }
    let mut invocation = Invocation::from(request);
    // A client whose process we cannot see lives in a container.
    let pid = client_pid.filter(|&pid| crate::world::is_ours(pid, root)).ok_or("other_namespace")?;
    // Files that are made for it would belong to another group.
    if !stream.peer_has_our_groups() {
        return Err("other_groups");
    }
    let mut plan = match peers.planner.plan(&invocation) {
        Planned::Cache(plan) => *plan,
        Planned::PassThrough(why) => return Err(why.reason),
    };
    if plan.policy.caution.heritage {
        plan.key_env.push(heritage::key_entry(pid, &sent, &invocation)?);
    }
    if let Some(argv) = plan.argv.take() {
        invocation.argv = argv;
    }
    let cwd = Arc::new(WorkingDirectory::open(&invocation.cwd).map_err(|_| "no_working_directory")?);
    let key = RequestKey::of(&invocation, &plan);
    let _work = peers.work.begin_request();
    Ok(Order { invocation, plan, key, cwd, lease, recache, client_pid, input: None, _work })
}

/// Something to tell the client while the work goes on.
pub struct News {
    /// What.
    pub reply: Reply,
    /// Who waits for it to be sent.
    pub told: Option<oneshot::Sender<()>>,
}

/// Works on an order: looks it up, or has the tool run. News for the client go to `outbox`.
pub async fn work(
    mut order: Order,
    descriptors: Vec<(i32, OwnedFd)>,
    outbox: mpsc::Sender<News>,
    peers: &Arc<Peers>,
) -> Outcome {
    if order.plan.reads_input
        && let Err(e) = look_at_input(&mut order, &descriptors).await
    {
        tracing::debug!(%e, "standard input cannot be known beforehand");
        return Outcome::PassedThrough("source_on_stdin");
    }
    if let Some(outcome) = units::serve(&order, &descriptors, &outbox, peers).await {
        return outcome;
    }
    let mut flight = None;
    if !order.recache {
        match follow(async || enter(&order, peers).await, async || look_up::here(&order, peers).await).await {
            Turn::Served(live) => return Outcome::Hit(live),
            Turn::Lead(led) => {
                if let Some(live) = look_up::anywhere(&order, peers).await {
                    led.land(Landing::Stored);
                    return Outcome::Hit(live);
                }
                flight = Some(led);
            }
            Turn::Alone => {}
        }
    }
    run(order, flight, descriptors, outbox, peers).await
}

/// Makes what there is to read on standard input part of the request.
async fn look_at_input(order: &mut Order, descriptors: &[(i32, OwnedFd)]) -> std::io::Result<()> {
    let closed = || std::io::Error::other("standard input is closed");
    let (_, input) = descriptors.iter().find(|(number, _)| *number == 0).ok_or_else(closed)?;
    let input = input.try_clone()?;
    let looked = tokio::task::spawn_blocking(|| StandardInput::look(input)).await;
    let input = looked.map_err(std::io::Error::other)??;
    // A name that no variable has.
    order.plan.key_env.push([b"=standard input=", &input.digest.0[..]].concat());
    order.key = RequestKey::of(&order.invocation, &order.plan);
    order.input = Some(input);
    Ok(())
}

async fn enter(order: &Order, peers: &Peers) -> Entry<Flight> {
    let coordinator = peers.coordinator.addr();
    match coordinator.send(Enter { key: order.key }).await {
        Ok(Entered::Lead) => Entry::Lead(Flight::new(coordinator, order.key)),
        Ok(Entered::Follow(landing)) => Entry::Landed(landing.await.unwrap_or(Landing::NotStored)),
        // The coordinator is gone: without it everybody runs for themselves.
        Err(_) => Entry::Landed(Landing::NotStored),
    }
}

/// Runs the tool for the client, and has the result stored behind the reply.
async fn run(
    order: Order,
    flight: Option<Flight>,
    descriptors: Vec<(i32, OwnedFd)>,
    outbox: mpsc::Sender<News>,
    peers: &Arc<Peers>,
) -> Outcome {
    let job = Job {
        invocation: order.invocation.clone(),
        descriptors,
        client_pid: order.client_pid,
        policy: order.plan.policy,
        declared: order.plan.declared.clone(),
        outputs: order.plan.outputs.clone(),
        foreign_code: order.plan.foreign_code,
        input_is_known: order.input.is_some(),
    };
    let run = Run { job, cwd: Arc::clone(&order.cwd), outputs: order.plan.outputs.clone() };
    let started = peers.runner.send(run).await;
    let mut running = match started {
        Ok(Ok(running)) => running,
        Ok(Err(e)) => return refuse(peers, "tool_not_started", &e),
        Err(e) => return refuse(peers, "runner_gone", &e),
    };
    let mut ended = None;
    while let Some(event) = running.events.recv().await {
        let news = match event {
            RunEvent::Ended(exit) => {
                ended = Some(exit);
                break;
            }
            RunEvent::Starting { pid, told } => News { reply: Reply::Started { pid }, told: Some(told) },
            RunEvent::Output(stream, bytes) => News { reply: Reply::Output { stream, bytes }, told: None },
        };
        if outbox.send(news).await.is_err() {
            break;
        }
    }
    let report = match ended {
        Some(exit) => overdue::in_time(running.report, &peers.blobs).await.ok_or(exit),
        None => Ok(running.report.await),
    };
    let report = match report {
        Ok(Ok(Ok(report))) => Ok(report),
        Ok(Ok(Err(e))) => return refuse(peers, "tool_not_started", &e),
        Ok(Err(e)) => return refuse(peers, "runner_gone", &e),
        Err(exit) => Err(exit),
    };
    if report.as_ref().is_ok_and(|report| report.observed.unstorable == Some(Unstorable::Cancelled)) {
        // Its client went away: no fault of the cache, and nobody hears the answer.
        peers.counters.not_stored.count("cancelled");
        return Outcome::Refused("cancelled".into());
    }
    count(&peers.counters.misses);
    faults::pass("run.reported");
    let exit = report.as_ref().map_or_else(|exit| *exit, |report| report.observed.exit);
    let has_more_options =
        report.as_ref().map_or(true, |r| units::has_more_options(&r.observed, order.plan.policy));
    let prepared = match (&order.input, report) {
        (_, Err(_)) => Err(NotStored::Degraded("capture_slow", "the disk does not answer".into())),
        (Some(input), _) if !input.is_used_up() => Err(Unstorable::ReadStdin.into()),
        (_, Ok(report)) => {
            prepare(&order.invocation, &order.plan, Arc::clone(&order.cwd), report, peers).await
        }
    };
    let settlement = Settlement {
        key: order.key,
        invocation: order.invocation,
        plan: order.plan,
        cwd: order.cwd,
        prepared,
        flight,
        work: peers.work.begin_settling(),
    };
    actix::spawn(settle(settlement, Arc::clone(peers)));
    let end = Finished { exit, stdout: ByteBuf::new(), stderr: ByteBuf::new() };
    Outcome::Finished { end, has_more_options }
}

fn refuse(peers: &Peers, reason: &str, detail: &dyn std::fmt::Display) -> Outcome {
    tracing::warn!(reason, %detail, "a tool could not be run for a client");
    peers.counters.degraded.count(reason);
    Outcome::Refused(reason.to_owned())
}
