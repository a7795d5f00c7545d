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
use std::time::Duration;

use serde_bytes::ByteBuf;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use zccache_proto::async_transport::Connection as Stream;
use zccache_proto::message::{Compile, Finished, HEARTBEAT_INTERVAL_MS, Reply, Request};
use zccache_proto::transport::{RecvError, Timeout};

use crate::connection::{End, Peers, send};
use crate::coordinator::{Enter, Entered, Flight};
use crate::counters::count;
use crate::faults;
use crate::flights::Landing;
use crate::freshness::{LiveRecord, WorkingDirectory};
use crate::heritage;
use crate::hit;
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

/// Serves one `Compile` request.
///
/// # Errors
/// When the connection cannot be used any more.
pub async fn serve(
    request: Compile,
    descriptors: Vec<OwnedFd>,
    stream: &mut Stream,
    peers: &Arc<Peers>,
) -> Result<(), End> {
    count(&peers.counters.requests);
    faults::pass("connection");
    if peers.work.is_draining() {
        return send(stream, &Reply::Refused { reason: "the service is shutting down".into() }).await;
    }
    let numbers = request.descriptors.clone();
    let order = match order(request, stream, peers) {
        Ok(order) => order,
        Err(reason) => return pass_through(reason, stream, peers).await,
    };
    if !order.recache
        && !order.plan.reads_input
        && let Some(manifest) = peers.hot.get(order.key)
        && let Some(live) = hit::at_once(&order, &manifest, peers)
    {
        return hit::replay(stream, &live.record.result).await;
    }
    if numbers.len() != descriptors.len() {
        return send(stream, &Reply::Refused { reason: "descriptors are missing".into() }).await;
    }
    let descriptors = numbers.into_iter().zip(descriptors).collect();
    converse(order, descriptors, stream, peers).await
}

async fn pass_through(reason: &'static str, stream: &mut Stream, peers: &Peers) -> Result<(), End> {
    count(&peers.counters.passed_through);
    peers.counters.pass_through_reasons.count(reason);
    send(stream, &Reply::PassThrough { reason: reason.into() }).await
}

/// What is to be done, or the reason to pass the request through.
fn order(request: Compile, stream: &Stream, peers: &Arc<Peers>) -> Result<Order, &'static str> {
    let client_pid = stream.peer_pid();
    let (recache, sent) = (request.recache, request.descriptors.clone());
    let lease = Arc::new(Lease::new(request.patient_until_ns));
    if !request.is_sound() {
        return Err("malformed");
    }
    let mut invocation = Invocation::from(request);
    // A client whose process we cannot see lives in a container.
    let pid = client_pid.filter(|&pid| crate::world::is_ours(pid)).ok_or("other_namespace")?;
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

/// Works on an order while talking with its client: heartbeats and output go out, a hang-up cancels.
async fn converse(
    order: Order,
    descriptors: Vec<(i32, OwnedFd)>,
    stream: &mut Stream,
    peers: &Arc<Peers>,
) -> Result<(), End> {
    let lease = EndsWhenDropped(Arc::clone(&order.lease));
    if !lease.0.holds() {
        // It took us long to come to this; if the client is there still, it waits on.
        check_presence(stream).await?;
        send_patiently(stream, &Reply::Heartbeat, &lease.0).await?;
    }
    let (outbox, mut outgoing) = mpsc::channel(OUTBOX);
    let work = work(order, descriptors, outbox, peers);
    tokio::pin!(work);
    let mut heartbeat = tokio::time::interval(Duration::from_millis(HEARTBEAT_INTERVAL_MS));
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat.reset();
    let outcome = loop {
        tokio::select! {
            biased;
            // First of all: a client that has given up on us runs the tool itself, and ours must not start then.
            unexpected = stream.recv_with::<Request>(Timeout::Never) => {
                // The client is gone, or does not keep to the protocol. Dropping `work` kills its tool.
                return Err(unexpected.err().unwrap_or(RecvError::Closed).into());
            }
            Some(news) = outgoing.recv() => tell(stream, news, &lease.0).await?,
            outcome = &mut work => break outcome,
            _ = heartbeat.tick() => send_patiently(stream, &Reply::Heartbeat, &lease.0).await?,
        }
    };
    while let Ok(news) = outgoing.try_recv() {
        tell(stream, news, &lease.0).await?;
    }
    match outcome {
        Outcome::Hit(live) => hit::replay(stream, &live.record.result).await,
        Outcome::Finished { end, .. } => {
            faults::pass("finish");
            send(stream, &Reply::Finished(end)).await
        }
        Outcome::Refused(reason) => send(stream, &Reply::Refused { reason }).await,
        Outcome::PassedThrough(reason) => pass_through(reason, stream, peers).await,
    }
}

/// Something to tell the client while the work goes on.
pub struct News {
    /// What.
    pub reply: Reply,
    /// Who waits for it to be sent.
    pub told: Option<oneshot::Sender<()>>,
}

/// Sends news, and says so. What was sent before the client hung up, it reads, if only then.
async fn tell(stream: &mut Stream, news: News, lease: &Lease) -> Result<(), End> {
    send_patiently(stream, &news.reply, lease).await?;
    if let Some(told) = news.told {
        let _ = told.send(()); // The run may have been cancelled meanwhile.
    }
    Ok(())
}

/// Sends with no time-out: while a tool runs, a client may be stopped (Ctrl-Z) for as long as its user likes.
async fn send_patiently(stream: &mut Stream, reply: &Reply, lease: &Lease) -> Result<(), End> {
    stream.send(reply).await.map_err(|e| End::Send(e.to_string()))?;
    lease.renew();
    Ok(())
}

/// A client's lease, for as long as somebody talks with it.
struct EndsWhenDropped(Arc<Lease>);

impl Drop for EndsWhenDropped {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Whether the client is there still, as far as the socket knows.
async fn check_presence(stream: &mut Stream) -> Result<(), End> {
    tokio::select! {
        biased;
        unexpected = stream.recv_with::<Request>(Timeout::Never) => {
            Err(unexpected.err().unwrap_or(RecvError::Closed).into())
        }
        () = std::future::ready(()) => Ok(()),
    }
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
