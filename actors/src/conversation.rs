//! A conversation: what is said to a client while its compile is worked on.
//!
//! What a record in memory answers is said at once. Else heartbeats and output go out while the work goes on, and a
//! client that hangs up, or is out of patience, ends it.

use crate::sys::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use zccache_proto::async_transport::Connection as Stream;
use zccache_proto::message::{Compile, HEARTBEAT_INTERVAL_MS, Reply, Request};
use zccache_proto::transport::{RecvError, Timeout};

use crate::compile::{self, News, OUTBOX, Order, Outcome};
use crate::connection::{End, Peers, send};
use crate::counters::count;
use crate::faults;
use crate::freshness::LiveRecord;
use crate::hit;
use crate::lease::Lease;
use crate::timing::{Laps, Phase};

/// Serves one `Compile` request.
///
/// # Errors
/// When the connection cannot be used any more.
pub async fn serve(
    request: Compile,
    descriptors: Vec<OwnedFd>,
    stream: &mut Stream,
    peers: &Arc<Peers>,
    laps: &mut Laps,
) -> Result<(), End> {
    count(&peers.counters.requests);
    faults::pass("connection");
    if peers.work.is_draining() {
        return send(stream, &Reply::Refused { reason: "the service is shutting down".into() }).await;
    }
    let numbers = request.descriptors.clone();
    let order = match compile::order(request, stream, peers) {
        Ok(order) => order,
        Err(reason) => return pass_through(reason, stream, peers).await,
    };
    laps.lap(Phase::Plan);
    if !order.recache
        && !order.plan.reads_input
        && let Some(manifest) = peers.hot.get(order.key)
        && let Some(live) = hit::at_once(&order, &manifest, peers, laps)
    {
        return replay(stream, &live, peers, laps).await;
    }
    if numbers.len() != descriptors.len() {
        return send(stream, &Reply::Refused { reason: "descriptors are missing".into() }).await;
    }
    let descriptors = numbers.into_iter().zip(descriptors).collect();
    converse(order, descriptors, stream, peers, laps).await
}

async fn pass_through(reason: &'static str, stream: &mut Stream, peers: &Peers) -> Result<(), End> {
    count(&peers.counters.passed_through);
    peers.counters.pass_through_reasons.count(reason);
    send(stream, &Reply::PassThrough { reason: reason.into() }).await
}

/// Says what a stored result has to say, and notes how long it all took.
async fn replay(stream: &mut Stream, live: &LiveRecord, peers: &Peers, laps: &mut Laps) -> Result<(), End> {
    hit::replay(stream, &live.record.result).await?;
    laps.lap(Phase::Reply);
    peers.counters.timings.add(laps);
    Ok(())
}

/// Works on an order while talking with its client: heartbeats and output go out, a hang-up cancels.
async fn converse(
    order: Order,
    descriptors: Vec<(i32, OwnedFd)>,
    stream: &mut Stream,
    peers: &Arc<Peers>,
    laps: &mut Laps,
) -> Result<(), End> {
    let lease = EndsWhenDropped(Arc::clone(&order.lease));
    if !lease.0.holds() {
        // It took us long to come to this; if the client is there still, it waits on.
        check_presence(stream).await?;
        send_patiently(stream, &Reply::Heartbeat, &lease.0).await?;
    }
    let (outbox, mut outgoing) = mpsc::channel(OUTBOX);
    let work = compile::work(order, descriptors, outbox, peers);
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
        Outcome::Hit(live) => {
            laps.lap(Phase::LookUp);
            replay(stream, &live, peers, laps).await
        }
        Outcome::Finished { end, .. } => {
            faults::pass("finish");
            send(stream, &Reply::Finished(end)).await
        }
        Outcome::Refused(reason) => send(stream, &Reply::Refused { reason }).await,
        Outcome::PassedThrough(reason) => pass_through(reason, stream, peers).await,
    }
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
