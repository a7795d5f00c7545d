//! Looking elsewhere: a result that was made in another place and proved to be good for this request as well
//! (`sharing.rs`) becomes a record of this request, and is served as such.

use std::sync::Arc;

use crate::blobs::PendingBlob;
use crate::compile::{Order, look_up, manifest};
use crate::connection::Peers;
use crate::freshness::LiveRecord;
use crate::manifest::Manifest;
use crate::record::Record;
use crate::sharing::target::localise as localise_target;
use crate::sharing::{SharedRequest, localise, shared_requests};
use crate::store::Insert;

/// The first record of those made for other target directories that holds for this request's.
fn from_other_target(
    order: &Order,
    request: &SharedRequest,
    shared: &Manifest,
    peers: &Peers,
) -> Option<(Record, Vec<PendingBlob>)> {
    let here = |live: Arc<LiveRecord>| {
        let localised = localise_target(&live.record, &request.standpoint, &order.invocation, &peers.blobs);
        let (record, contents) = localised.ok()?;
        let local = LiveRecord::new(record);
        local.check(&order.cwd, &peers.files).is_ok().then(|| (Arc::unwrap_or_clone(local.record), contents))
    };
    let is_for_us = |live: &Arc<LiveRecord>| {
        let holds = live.record.variables.iter().all(|v| v.holds_in(&order.invocation.env));
        holds && request.accepts(&live.record)
    };
    shared.records().into_iter().map(|(live, _)| live).filter(is_for_us).find_map(here)
}

/// Looks for a result that equal requests from elsewhere share. One that holds here becomes a record of this request,
/// and is served as such.
pub async fn look(order: &Order, peers: &Peers) -> Option<Arc<LiveRecord>> {
    for request in shared_requests(&order.invocation, &order.plan, &order.cwd) {
        let Some(shared) = manifest(request.key, peers).await else { continue };
        if order.plan.target.is_some() {
            if let Some(local) = from_other_target(order, &request, &shared, peers) {
                let (record, contents) = local;
                let root = order.invocation.cwd.clone();
                let insert = Insert { key: order.key, record, root, contents };
                if let Ok(Ok(())) = peers.store.send(insert).await {
                    return look_up(order, peers).await;
                }
            }
            continue;
        }
        let found = shared.find(&order.cwd, &peers.files, |_| true, |_| ());
        let Ok((live, ())) = found else { continue };
        match localise(&live.record, &request.standpoint, &order.plan, &peers.blobs) {
            Ok((record, contents)) => {
                shared.note_use(&live, peers.hot.clock.stamp());
                let root = order.invocation.cwd.clone();
                let insert = Insert { key: order.key, record, root, contents };
                if let Ok(Ok(())) = peers.store.send(insert).await {
                    return look_up(order, peers).await;
                }
            }
            Err(e) => tracing::debug!(%e, "a shared result could not be used"),
        }
    }
    None
}
