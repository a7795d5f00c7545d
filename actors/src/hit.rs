//! Hit: the first record that holds, delivered and replayed.
//!
//! Small results are delivered on the connection's own thread, which is what makes a hit fast. A large one takes a
//! thread of its own, so that the client hears heartbeats meanwhile, and so do all others that this thread serves.

use std::sync::Arc;

use serde_bytes::ByteBuf;
use zccache_proto::async_transport::Connection as Stream;
use zccache_proto::message::{Finished, OUTPUT_CHUNK_BYTES_MAX, OutputStream, Reply};

use crate::compile::Order;
use crate::connection::{End, Peers, send};
use crate::counters::count;
use crate::delivery::{Delivery, DeliveryError, stage};
use crate::faults;
use crate::freshness::{Inputs, LiveRecord};
use crate::key::environment_digest;
use crate::manifest::Manifest;
use crate::reach;
use crate::record::{Output, Record, RunResult};
use crate::timing::{Laps, Phase};

/// The most bytes of outputs that are delivered on the connection's thread: copied within some 20 ms by any disk's
/// cache, a small part of a client's patience.
const AT_ONCE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Replayed output up to this many bytes goes within the `Finished` frame: one write, one read.
const INLINE_OUTPUT_BYTES_MAX: usize = 256 * 1024;

/// The first record that holds, delivered at once; `None` if none does, or if it would take a while.
pub fn at_once(
    order: &Order,
    manifest: &Manifest,
    peers: &Peers,
    laps: &mut Laps,
) -> Option<Arc<LiveRecord>> {
    let (live, staged, inputs) = find(order, manifest, peers)?;
    let Staged::Now(staged) = staged else { return None };
    laps.lap(Phase::Check);
    let delivered = staged
        .and_then(|delivery| delivery.sparing(&inputs))
        .and_then(|delivery| delivery.place(&order.lease));
    laps.lap(Phase::Place);
    settle(delivered, live, manifest, peers)
}

/// The first record that holds, delivered; `None` if the tool has to run.
pub async fn however_long(order: &Order, manifest: &Manifest, peers: &Peers) -> Option<Arc<LiveRecord>> {
    let (live, staged, inputs) = find(order, manifest, peers)?;
    let (delivering, blobs) = (Arc::clone(&live), Arc::clone(&peers.blobs));
    let (cwd, lease) = (Arc::clone(&order.cwd), Arc::clone(&order.lease));
    let delivered = match staged {
        Staged::Now(staged) => {
            staged.and_then(|delivery| delivery.sparing(&inputs)).and_then(|delivery| delivery.place(&lease))
        }
        // Should the client go meanwhile, its lease ends, and nothing is put in place any more.
        Staged::TakesLong => {
            let deliver = move || {
                let outputs = &delivering.record.result.outputs;
                stage(outputs, &blobs, &cwd)?.sparing(&inputs)?.place(&lease)
            };
            tokio::task::spawn_blocking(deliver).await.ok()?
        }
    };
    if let (Ok(()), Some(input)) = (&delivered, &order.input) {
        let _ = input.use_up(); // Whoever reads on finds what the tool would have left.
    }
    settle(delivered, live, manifest, peers)
}

/// What was written of a result while it was being checked.
enum Staged {
    Now(Result<Delivery, DeliveryError>),
    TakesLong,
}

fn bytes(record: &Record) -> u64 {
    record.result.outputs.iter().filter_map(|output| output.file.map(|file| file.bytes)).sum()
}

fn find(order: &Order, manifest: &Manifest, peers: &Peers) -> Option<(Arc<LiveRecord>, Staged, Inputs)> {
    let environment = std::cell::OnceCell::new();
    let accepts = |record: &Record| {
        let digest = || *environment.get_or_init(|| environment_digest(&order.invocation));
        record.variables.iter().all(|variable| variable.holds_in(&order.invocation.env))
            && record.environment.is_none_or(|recorded| recorded == digest())
    };
    let may_write =
        |output: &Output| reach::allows(&output.path.0, &order.invocation, &order.plan, &order.cwd);
    let staged = |record: &Record| {
        let outputs = &record.result.outputs;
        // Out of reach: see below.
        if bytes(record) > AT_ONCE_BYTES_MAX || !outputs.iter().all(may_write) {
            return Staged::TakesLong;
        }
        Staged::Now(stage(outputs, &peers.blobs, &order.cwd))
    };
    let (live, staged, inputs) = match manifest.find(&order.cwd, &peers.files, accepts, staged) {
        Ok(found) => found,
        Err(broken) => {
            if let Some(broken) = broken {
                tracing::debug!(path = %broken.path.escape_ascii(), "an observation does not hold any more");
            }
            return None;
        }
    };
    if live.record.result.outputs.iter().all(may_write) {
        return Some((live, staged, inputs));
    }
    tracing::warn!(key = %order.key.0.to_hex(), "a stored result would write where its request could not have");
    peers.counters.degraded.count("record_out_of_reach");
    None
}

/// Counts what came of a delivery.
fn settle(
    delivered: Result<(), DeliveryError>,
    live: Arc<LiveRecord>,
    manifest: &Manifest,
    peers: &Peers,
) -> Option<Arc<LiveRecord>> {
    match delivered {
        Ok(()) => {
            manifest.note_use(&live, peers.hot.clock.stamp());
            count(&peers.counters.hits);
            Some(live)
        }
        Err(e) => {
            tracing::debug!(%e, "a result could not be delivered; running the tool");
            match e {
                DeliveryError::Blob(_) => peers.counters.degraded.count("blob_missing_or_damaged"),
                DeliveryError::Late => peers.counters.degraded.count("delivery_too_slow"),
                DeliveryError::Unusual(_) | DeliveryError::Write { .. } => {}
            }
            None
        }
    }
}

/// Sends a stored result's output and end.
pub async fn replay(stream: &mut Stream, result: &RunResult) -> Result<(), End> {
    let mut end = Finished { exit: result.exit, stdout: ByteBuf::new(), stderr: ByteBuf::new() };
    if result.stdout.len() + result.stderr.len() <= INLINE_OUTPUT_BYTES_MAX {
        (end.stdout, end.stderr) = (result.stdout.clone(), result.stderr.clone());
    } else {
        for (which, bytes) in [(OutputStream::Stdout, &result.stdout), (OutputStream::Stderr, &result.stderr)]
        {
            for chunk in bytes.chunks(OUTPUT_CHUNK_BYTES_MAX) {
                send(stream, &Reply::Output { stream: which, bytes: chunk.to_vec() }).await?;
            }
        }
    }
    faults::pass("replay");
    send(stream, &Reply::Finished(end)).await
}
