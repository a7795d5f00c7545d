//! The store: the one owner of the index and of what is written below the cache directory.
//!
//! - Owns: `Storage` (sled index, blob accounting, eviction).
//! - Runs on: a sync pool of one thread.
//! - Receives: `FindManifest`, `Insert`, `Clear`, `Report`, `Close` from connections and root.
//! - Sends: replies only.
//! - Mailbox: unbounded in practice, one message per miss.
//! - On failure: the process exits; what is in memory cannot be vouched for.
//! - Never fails a compile: without an index there are only misses.

use std::sync::Arc;

use actix::prelude::*;
use zccache_proto::report::StoreReport;

use crate::blobs::PendingBlob;
use crate::key::RequestKey;
use crate::manifest::Manifest;
use crate::record::Record;
use crate::signature::coarse_now_ns;
use crate::storage::{Storage, StorageError};
use crate::supervision::Probe;

/// A connection looks for what is stored under `key` but not in memory. May be repeated.
#[derive(Message)]
#[rtype(result = "Result<Option<Arc<Manifest>>, StorageError>")]
pub struct FindManifest {
    /// The request.
    pub key: RequestKey,
}

/// A connection has a result to store. Answered when it is found by the next request and survives a crash.
#[derive(Message)]
#[rtype(result = "Result<(), StorageError>")]
pub struct Insert {
    /// The request.
    pub key: RequestKey,
    /// The result and its observations.
    pub record: Record,
    /// The contents that the record names.
    pub contents: Vec<PendingBlob>,
}

/// A person wants everything forgotten. Answered with the numbers of records and blobs.
#[derive(Message)]
#[rtype(result = "Result<(u64, u64), StorageError>")]
pub struct Clear;

/// How much is stored, and why nothing can be if so. May be repeated.
#[derive(Message)]
#[rtype(result = "(StoreReport, Option<String>)")]
pub struct Report;

/// Root is about to end the process: write down what is only in memory.
#[derive(Message)]
#[rtype(result = "Result<(), StorageError>")]
pub struct Close;

/// The actor.
pub struct Store {
    storage: Storage,
}

impl Store {
    /// The one thread that works on what `make` makes.
    pub fn start_with(make: impl Fn() -> Storage + Send + Sync + 'static) -> Addr<Self> {
        SyncArbiter::start(1, move || Self { storage: make() })
    }
}

impl Actor for Store {
    type Context = SyncContext<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        let before_ns = coarse_now_ns();
        match self.storage.open() {
            Ok(known) => self.storage.sweep_in_background(before_ns, known),
            Err(why) => tracing::warn!(%why, "nothing is cached"),
        }
    }
}

impl Handler<FindManifest> for Store {
    type Result = Result<Option<Arc<Manifest>>, StorageError>;

    fn handle(&mut self, message: FindManifest, _: &mut Self::Context) -> Self::Result {
        self.storage.manifest(message.key)
    }
}

impl Handler<Insert> for Store {
    type Result = Result<(), StorageError>;

    fn handle(&mut self, message: Insert, _: &mut Self::Context) -> Self::Result {
        self.storage.insert(message.key, message.record, &message.contents)?;
        self.storage.flush()
    }
}

impl Handler<Clear> for Store {
    type Result = Result<(u64, u64), StorageError>;

    fn handle(&mut self, _: Clear, _: &mut Self::Context) -> Self::Result {
        self.storage.clear()
    }
}

impl Handler<Report> for Store {
    type Result = MessageResult<Report>;

    fn handle(&mut self, _: Report, _: &mut Self::Context) -> Self::Result {
        MessageResult((self.storage.report(), self.storage.trouble()))
    }
}

impl Handler<Close> for Store {
    type Result = Result<(), StorageError>;

    fn handle(&mut self, _: Close, _: &mut Self::Context) -> Self::Result {
        self.storage.close()
    }
}

impl Handler<Probe> for Store {
    type Result = ();

    fn handle(&mut self, _: Probe, _: &mut Self::Context) {}
}
