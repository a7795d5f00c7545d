//! The store: the one owner of the index and of what is written below the cache directory.
//!
//! - Owns: `Storage` (sled index, blob accounting, eviction).
//! - Runs on: a sync pool of one thread.
//! - Receives: `FindManifest`, `Insert`, `Clear`, `EvictSome`, `CollectGarbage`, `Report` from connections, `Tidy`
//!   and `Close` from root.
//! - Sends: replies only.
//! - Mailbox: unbounded in practice, one message per miss.
//! - On failure: rebuilt from the index; the manifests in memory, which nobody can vouch for, are forgotten.
//! - Never fails a compile: without an index there are only misses.

use std::sync::Arc;

use actix::prelude::*;
use zccache_proto::message::Evict;
use zccache_proto::report::StoreReport;

use crate::blobs::PendingBlob;
use crate::counters::Counters;
use crate::faults;
use crate::freshness::LiveRecord;
use crate::key::RequestKey;
use crate::manifest::Manifest;
use crate::signature::coarse_now_ns;
use crate::storage::{Gone, Storage, StorageError};
use crate::supervision::Probe;

/// A connection looks for the first of `keys` under which something is stored. Answered with its place among them, and
/// what that is. May be repeated.
#[derive(Message)]
#[rtype(result = "Result<Option<(usize, Arc<Manifest>)>, StorageError>")]
pub struct FindManifest {
    /// The request's own key, and those that it shares.
    pub keys: Vec<RequestKey>,
}

/// A connection has a result to store. Answered when it is found by the next request and survives a crash.
#[derive(Message)]
#[rtype(result = "Result<(), StorageError>")]
pub struct Insert {
    /// The request.
    pub key: RequestKey,
    /// The result and its observations.
    pub record: LiveRecord,
    /// The requester's directory.
    pub root: Vec<u8>,
    /// The contents that the record names.
    pub contents: Vec<PendingBlob>,
}

/// A person wants everything forgotten. Answered with what went.
#[derive(Message)]
#[rtype(result = "Result<Gone, StorageError>")]
pub struct Clear;

/// A person wants some results forgotten. Answered with what went. May be repeated.
#[derive(Message)]
#[rtype(result = "Result<Gone, StorageError>")]
pub struct EvictSome(pub Evict);

/// A person wants everything looked through and put right. Answered with what went. May be repeated.
#[derive(Message)]
#[rtype(result = "Result<Gone, StorageError>")]
pub struct CollectGarbage;

/// How much is stored, and why nothing can be if so. May be repeated.
#[derive(Message)]
#[rtype(result = "(StoreReport, Option<String>)")]
pub struct Report;

/// Root says that some time has passed: write down what is only in memory, and look for what is too old.
#[derive(Message)]
#[rtype(result = "Result<(), StorageError>")]
pub struct Tidy;

/// Root is about to end the process: write down what is only in memory.
#[derive(Message)]
#[rtype(result = "Result<(), StorageError>")]
pub struct Close;

/// The actor.
pub struct Store {
    storage: Storage,
    counters: Arc<Counters>,
}

impl Store {
    /// The one thread that works on what `make` makes, and keeps `counters` for the next service.
    pub fn start_with(
        counters: Arc<Counters>,
        make: impl Fn() -> Storage + Send + Sync + 'static,
    ) -> Addr<Self> {
        SyncArbiter::start(1, move || Self { storage: make(), counters: Arc::clone(&counters) })
    }

    /// Gives the counters what earlier services have counted, as soon as the index tells.
    fn adopt_counters(&self) {
        if self.counters.all_time().is_none()
            && let Some(earlier) = self.storage.earlier_counters()
        {
            self.counters.adopt(earlier);
        }
    }
}

impl Actor for Store {
    type Context = SyncContext<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        let before_ns = coarse_now_ns();
        match self.storage.begin() {
            Ok(()) => self.storage.sweep_in_background(before_ns),
            Err(why) => tracing::warn!(%why, "nothing is cached"),
        }
        self.adopt_counters();
    }
}

impl Handler<FindManifest> for Store {
    type Result = Result<Option<(usize, Arc<Manifest>)>, StorageError>;

    fn handle(&mut self, message: FindManifest, _: &mut Self::Context) -> Self::Result {
        faults::pass("store");
        for (place, key) in message.keys.into_iter().enumerate() {
            if let Some(manifest) = self.storage.manifest(key)? {
                return Ok(Some((place, manifest)));
            }
        }
        Ok(None)
    }
}

impl Handler<Insert> for Store {
    type Result = Result<(), StorageError>;

    fn handle(&mut self, message: Insert, _: &mut Self::Context) -> Self::Result {
        faults::pass("insert.begin");
        self.storage.insert(message.key, message.record, &message.root, &message.contents)?;
        faults::pass("insert.done");
        self.storage.flush()?;
        faults::pass("insert.flushed");
        Ok(())
    }
}

impl Handler<Clear> for Store {
    type Result = Result<Gone, StorageError>;

    fn handle(&mut self, _: Clear, _: &mut Self::Context) -> Self::Result {
        self.storage.clear()
    }
}

impl Handler<EvictSome> for Store {
    type Result = Result<Gone, StorageError>;

    fn handle(&mut self, message: EvictSome, _: &mut Self::Context) -> Self::Result {
        self.storage.evict(&message.0)
    }
}

impl Handler<CollectGarbage> for Store {
    type Result = Result<Gone, StorageError>;

    fn handle(&mut self, _: CollectGarbage, _: &mut Self::Context) -> Self::Result {
        self.storage.gc()
    }
}

impl Handler<Report> for Store {
    type Result = MessageResult<Report>;

    fn handle(&mut self, _: Report, _: &mut Self::Context) -> Self::Result {
        MessageResult((self.storage.report(), self.storage.trouble()))
    }
}

impl Handler<Tidy> for Store {
    type Result = Result<(), StorageError>;

    fn handle(&mut self, _: Tidy, _: &mut Self::Context) -> Self::Result {
        self.adopt_counters();
        self.storage.tidy(self.counters.all_time())
    }
}

impl Handler<Close> for Store {
    type Result = Result<(), StorageError>;

    fn handle(&mut self, _: Close, _: &mut Self::Context) -> Self::Result {
        self.storage.close(self.counters.all_time())
    }
}

impl Handler<Probe> for Store {
    type Result = ();

    fn handle(&mut self, _: Probe, _: &mut Self::Context) {}
}
