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
    let manifest = stored(order, peers).await?;
    hit::however_long(order, &manifest, peers).await
}

/// What is stored under the request's own key, whether or not it holds.
pub async fn stored(order: &Order, peers: &Peers) -> Option<Arc<Manifest>> {
    first(&[order.key], peers).await.map(|(_, manifest)| manifest)
}

/// Looks under the request's own key, then for a result that equal requests from elsewhere share. One of those that
/// holds here becomes a record of this request, and is served as such.
pub async fn anywhere(order: &Order, peers: &Peers) -> Option<Arc<LiveRecord>> {
    let shared = shared_requests(&order.invocation, &order.plan, &order.cwd);
    let keys: Vec<RequestKey> =
        [order.key].into_iter().chain(shared.iter().map(|request| request.key)).collect();
    let mut next = 0;
    while let Some((place, manifest)) = first(&keys[next..], peers).await {
        let live = match (next + place).checked_sub(1) {
            None => hit::however_long(order, &manifest, peers).await,
            Some(index) => from(order, &shared[index], &manifest, peers).await,
        };
        if live.is_some() {
            return live;
        }
        next += place + 1;
    }
    None
}

/// The first of `keys` under which something is stored, by its place among them.
async fn first(keys: &[RequestKey], peers: &Peers) -> Option<(usize, Arc<Manifest>)> {
    let first = *keys.first()?;
    if let Some(manifest) = peers.hot.get(first) {
        return Some((0, manifest));
    }
    let in_memory = || peers.hot.get(first).map(|manifest| Ok(Ok(Some((0, manifest)))));
    let stored = peers.store.send(FindManifest { keys: keys.to_vec() });
    let Some(found) = peers.hot.readiness.in_time(in_memory, stored).await else {
        peers.counters.degraded.count("index_opening");
        return None;
    };
    match found {
        Ok(Ok(found)) => found,
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

/// What is stored under a shared key, made this request's own and delivered, if it holds here.
async fn from(
    order: &Order,
    request: &SharedRequest,
    shared: &Manifest,
    peers: &Peers,
) -> Option<Arc<LiveRecord>> {
    let (record, contents) = match order.plan.target {
        Some(_) => from_other_target(order, request, shared, peers),
        None => from_other_place(order, request, shared, peers),
    }?;
    let root = order.invocation.cwd.clone();
    let insert = Insert { key: order.key, record: LiveRecord::new(record), root, contents };
    match peers.store.send(insert).await {
        Ok(Ok(())) => here(order, peers).await,
        _ => None,
    }
}

/// The first record of those made in other places that holds here.
fn from_other_place(
    order: &Order,
    request: &SharedRequest,
    shared: &Manifest,
    peers: &Peers,
) -> Option<(Record, Vec<PendingBlob>)> {
    let (live, (), _) = shared.find(&order.cwd, &peers.files, |_| true, |_| ()).ok()?;
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
        let localised = target::localise(&live.record, request, &order.invocation, &peers.blobs);
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
