//! Hit: the first record that holds, delivered.
//!
//! Small results are delivered on the connection's own thread, which is what makes a hit fast. A large one takes a
//! thread of its own, so that the client hears heartbeats meanwhile, and so do all others that this thread serves.

use std::sync::Arc;

use crate::compile::Order;
use crate::connection::Peers;
use crate::counters::count;
use crate::delivery::{DeliveryError, deliver};
use crate::freshness::LiveRecord;
use crate::key::environment_digest;
use crate::manifest::Manifest;
use crate::reach;
use crate::record::{Output, Record};

/// The most bytes of outputs that are delivered on the connection's thread: copied within some 20 ms by any disk's
/// cache, a small part of a client's patience.
const AT_ONCE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// The first record that holds, delivered at once; `None` if none does, or if it would take a while.
pub fn at_once(order: &Order, manifest: &Manifest, peers: &Peers) -> Option<Arc<LiveRecord>> {
    let live = find(order, manifest, peers)?;
    if bytes(&live) > AT_ONCE_BYTES_MAX {
        return None;
    }
    let delivered = deliver(&live.record.result.outputs, &peers.blobs, &order.cwd, &order.lease);
    settle(delivered, live, manifest, peers)
}

/// The first record that holds, delivered; `None` if the tool has to run.
pub async fn however_long(order: &Order, manifest: &Manifest, peers: &Peers) -> Option<Arc<LiveRecord>> {
    let live = find(order, manifest, peers)?;
    let (delivering, blobs) = (Arc::clone(&live), Arc::clone(&peers.blobs));
    let (cwd, lease) = (Arc::clone(&order.cwd), Arc::clone(&order.lease));
    let deliver = move || deliver(&delivering.record.result.outputs, &blobs, &cwd, &lease);
    let delivered = match bytes(&live) {
        ..=AT_ONCE_BYTES_MAX => deliver(),
        // Should the client go meanwhile, its lease ends, and nothing is put in place any more.
        _ => tokio::task::spawn_blocking(deliver).await.ok()?,
    };
    if let (Ok(()), Some(input)) = (&delivered, &order.input) {
        let _ = input.use_up(); // Whoever reads on finds what the tool would have left.
    }
    settle(delivered, live, manifest, peers)
}

fn bytes(live: &LiveRecord) -> u64 {
    live.record.result.outputs.iter().filter_map(|output| output.file.map(|file| file.bytes)).sum()
}

fn find(order: &Order, manifest: &Manifest, peers: &Peers) -> Option<Arc<LiveRecord>> {
    let environment = std::cell::OnceCell::new();
    let accepts = |record: &Record| {
        let digest = || *environment.get_or_init(|| environment_digest(&order.invocation.env));
        record.environment.is_none_or(|recorded| recorded == digest())
    };
    let live = match manifest.find(&order.cwd, &peers.files, accepts) {
        Ok(live) => live,
        Err(broken) => {
            if let Some(broken) = broken {
                tracing::debug!(path = %broken.path.escape_ascii(), "an observation does not hold any more");
            }
            return None;
        }
    };
    let may_write = |output: &Output| reach::allows(&output.path.0, &order.invocation, &order.plan);
    if live.record.result.outputs.iter().all(may_write) {
        return Some(live);
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
