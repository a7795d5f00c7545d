//! The hasher: digests what runs have read, and makes their records.
//!
//! - Owns: nothing but its threads; the file table it writes is shared with every reader.
//! - Runs on: a sync pool, one thread per processor.
//! - Receives: `MakeRecord` and `Share` from connections.
//! - Sends: replies only.
//! - Mailbox: unbounded in practice, one message per finished run.
//! - On failure: the job is answered `Degraded`, the thread lives on.
//! - Never serves a digest of a file that did not stand still.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use actix::prelude::*;

use crate::blobs::Blobs;
use crate::digesting::{Run, make_record};
use crate::faults;
use crate::file_table::FileTable;
use crate::freshness::{LiveRecord, WorkingDirectory};
use crate::key::RequestKey;
use crate::observer::Unstorable;
use crate::plan::Plan;
use crate::record::Record;
use crate::sharing::{SharedRequest, shared_records};
use crate::supervision::Probe;

/// A connection wants the record of a finished run. May be repeated.
#[derive(Message)]
#[rtype(result = "Result<LiveRecord, Unstorable>")]
pub struct MakeRecord {
    /// What the run came to.
    pub run: Run,
    /// Where relative paths begin.
    pub cwd: Arc<WorkingDirectory>,
}

/// A connection wants to know for which requests from elsewhere a stored result is good as well. Answered with a
/// record for each shared key under which it is worth keeping.
#[derive(Message)]
#[rtype(result = "Vec<(RequestKey, Record)>")]
pub struct Share {
    /// The record as stored.
    pub record: Arc<Record>,
    /// The ways in which the request may share, the nearest first.
    pub requests: Vec<SharedRequest>,
    /// What the request means.
    pub plan: Plan,
    /// Where relative paths begin.
    pub cwd: Arc<WorkingDirectory>,
}

/// The actor.
pub struct Hasher {
    files: Arc<FileTable>,
    blobs: Arc<Blobs>,
}

impl Hasher {
    /// A pool of `threads` that fill `files`, and look into `blobs`.
    pub fn pool(threads: usize, files: Arc<FileTable>, blobs: Arc<Blobs>) -> Addr<Self> {
        SyncArbiter::start(threads, move || Self { files: Arc::clone(&files), blobs: Arc::clone(&blobs) })
    }
}

impl Actor for Hasher {
    type Context = SyncContext<Self>;
}

impl Handler<MakeRecord> for Hasher {
    type Result = Result<LiveRecord, Unstorable>;

    fn handle(&mut self, message: MakeRecord, _: &mut Self::Context) -> Self::Result {
        // A panic would cost the pool a thread for good.
        let job = AssertUnwindSafe(|| {
            faults::pass("hasher");
            make_record(message.run, &self.files, &message.cwd)
        });
        std::panic::catch_unwind(job).unwrap_or(Err(Unstorable::NotCaptured("a digest failed".into())))
    }
}

impl Handler<Share> for Hasher {
    type Result = MessageResult<Share>;

    fn handle(&mut self, message: Share, _: &mut Self::Context) -> Self::Result {
        let Share { record, requests, plan, cwd } = message;
        let job = AssertUnwindSafe(|| shared_records(&record, requests, &plan, &cwd, &self.blobs));
        MessageResult(std::panic::catch_unwind(job).unwrap_or_default())
    }
}

impl Handler<Probe> for Hasher {
    type Result = ();

    fn handle(&mut self, _: Probe, _: &mut Self::Context) {}
}
