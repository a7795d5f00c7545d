//! Look-up: what is stored for a request, in memory or in the index, under its own key or under one that it has in
//! common with requests from elsewhere.

use std::sync::Arc;

use crate::blobs::PendingBlob;
use crate::compile::Order;
use crate::connection::Peers;
use crate::freshness::LiveRecord;
use crate::hit;
use crate::key::RequestKey;
use crate::manifest::Manifest;
use crate::record::Record;
use crate::sharing::{SharedRequest, localise, shared_requests, target};
use crate::store::{FindManifest, Insert};

/// Looks under the request's own key, and delivers what holds.
pub async fn here(order: &Order, peers: &Peers) -> Option<Arc<LiveRecord>> {
    let manifest = manifest(order.key, peers).await?;
    hit::however_long(order, &manifest, peers).await
}

/// Looks for a result that equal requests from elsewhere share. One that holds here becomes a record of this request,
/// and is served as such.
pub async fn elsewhere(order: &Order, peers: &Peers) -> Option<Arc<LiveRecord>> {
    for request in shared_requests(&order.invocation, &order.plan, &order.cwd) {
        let Some(shared) = manifest(request.key, peers).await else { continue };
        let local = match order.plan.target {
            Some(_) => from_other_target(order, &request, &shared, peers),
            None => from_other_place(order, &request, &shared, peers),
        };
        let Some((record, contents)) = local else { continue };
        let root = order.invocation.cwd.clone();
        let insert = Insert { key: order.key, record, root, contents };
        if let Ok(Ok(())) = peers.store.send(insert).await {
            return here(order, peers).await;
        }
    }
    None
}

async fn manifest(key: RequestKey, peers: &Peers) -> Option<Arc<Manifest>> {
    if let Some(manifest) = peers.hot.get(key) {
        return Some(manifest);
    }
    match peers.store.send(FindManifest { key }).await {
        Ok(Ok(manifest)) => manifest,
        Ok(Err(_)) => {
            peers.counters.degraded.count("index_unavailable");
            None
        }
        Err(_) => {
            peers.counters.degraded.count("store_gone");
            None
        }
    }
}

/// The first record of those made in other places that holds here.
fn from_other_place(
    order: &Order,
    request: &SharedRequest,
    shared: &Manifest,
    peers: &Peers,
) -> Option<(Record, Vec<PendingBlob>)> {
    let (live, ()) = shared.find(&order.cwd, &peers.files, |_| true, |_| ()).ok()?;
    match localise(&live.record, &request.standpoint, &order.plan, &peers.blobs) {
        Ok(local) => {
            shared.note_use(&live, peers.hot.clock.stamp());
            Some(local)
        }
        Err(e) => {
            tracing::debug!(%e, "a shared result could not be used");
            None
        }
    }
}

/// The first record of those made for other target directories that holds for this request's.
fn from_other_target(
    order: &Order,
    request: &SharedRequest,
    shared: &Manifest,
    peers: &Peers,
) -> Option<(Record, Vec<PendingBlob>)> {
    let here = |live: Arc<LiveRecord>| {
        let localised = target::localise(&live.record, &request.standpoint, &order.invocation, &peers.blobs);
        let (record, contents) = localised.ok()?;
        let local = LiveRecord::new(record);
        local.check(&order.cwd, &peers.files).ok()?;
        shared.note_use(&live, peers.hot.clock.stamp());
        Some((Arc::unwrap_or_clone(local.record), contents))
    };
    let is_for_us = |live: &Arc<LiveRecord>| {
        let holds = live.record.variables.iter().all(|v| v.holds_in(&order.invocation.env));
        holds && request.accepts(&live.record)
    };
    shared.records().into_iter().map(|(live, _)| live).filter(is_for_us).find_map(here)
}
