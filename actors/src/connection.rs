//! A connection: one client, from handshake to close.
//!
//! - Owns: one framed stream, its time-outs, its request's life.
//! - Runs on: a worker arbiter.
//! - Receives: nothing but frames.
//! - Sends: to coordinator, runner, hasher, store, journal, root.
//! - Mailbox: unused.
//! - On failure: its client falls back, nobody else notices.
//! - Never waits for a client longer than the time-outs below, save while a tool runs for it.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use zccache_proto::async_transport::{Connection as Stream, Incoming};
use zccache_proto::handshake::{Hello, MismatchReason, Welcome, check};
use zccache_proto::message::{Reply, Request, protocol_version};
use zccache_proto::report::{ServiceReport, StatsReport, StatusReport};
use zccache_proto::transport::{RecvError, Timeout};

use crate::blobs::Blobs;
use crate::conversation;
use crate::coordinator::Coordinator;
use crate::counters::Counters;
use crate::file_table::FileTable;
use crate::hasher::Hasher;
use crate::journal::{Journal, TakeFallbacks};
use crate::manifest::HotManifests;
use crate::plan::Planner;
use crate::root::{BeginShutdown, Description};
use crate::runner::Runner;
use crate::storage::{Gone, StorageError};
use crate::store::{Clear, CollectGarbage, EvictSome, Report, Store};
use crate::supervision::Supervised;
use crate::timing::{Laps, Phase};
use crate::work::Work;
use crate::worker::Seat;

/// How long a client may take for its greeting: it sends it right after connecting, so this is for a client
/// that was stopped just then; a stranger who says nothing is not kept longer.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a client may be silent between requests: wrappers ask once, so only an idle `zccache-client` of the
/// future or a forgotten debugger session reaches it.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long `stats` waits for the store, which may be opening a large index: with [`crate::work::SETTLE_TIMEOUT`] before
/// it, shorter than a client waits for its answer (5 s).
pub const REPORT_PATIENCE: Duration = Duration::from_secs(2);

/// How long a client may leave an answer unread, tools' output aside, before it counts as gone.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// A wrapper asks once. If it were the first to hang up, that would wake us, and on a busy processor before it gets to what
/// it was answered for. (With a pipe of Windows's, what was not read yet may be lost.)
const LEAVES_FIRST: bool = cfg!(unix);

/// Everything a connection reads or sends to.
pub struct Peers {
    /// Tells what an invocation means.
    pub planner: Box<dyn Planner>,
    /// Manifests in memory.
    pub hot: Arc<HotManifests>,
    /// Known contents of files.
    pub files: Arc<FileTable>,
    /// Stored contents.
    pub blobs: Arc<Blobs>,
    /// What `stats` reports.
    pub counters: Arc<Counters>,
    /// What is in progress.
    pub work: Arc<Work>,
    /// Single flight.
    pub coordinator: Supervised<Coordinator>,
    /// Runs tools.
    pub runner: Supervised<Runner>,
    /// Digests what they read.
    pub hasher: Supervised<Hasher>,
    /// Finds and keeps results.
    pub store: Supervised<Store>,
    /// Writes down what happened.
    pub journal: Supervised<Journal>,
    /// Is told when somebody wants an end.
    pub root: Recipient<BeginShutdown>,
    /// What `status` says of this service.
    pub description: Description,
}

/// The actor.
pub struct Connection {
    incoming: Option<Incoming>,
    laps: Laps,
    peers: Arc<Peers>,
    _seat: Seat,
}

impl Connection {
    /// The actor for a client that was let in when `laps` began.
    pub fn new(incoming: Incoming, laps: Laps, peers: Arc<Peers>, seat: Seat) -> Self {
        Self { incoming: Some(incoming), laps, peers, _seat: seat }
    }
}

impl Actor for Connection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let Some(incoming) = self.incoming.take() else { return };
        let (peers, mut laps) = (Arc::clone(&self.peers), self.laps);
        laps.lap(Phase::HandOver);
        let life = async move {
            match incoming.into_connection() {
                Ok(mut stream) => end(session(&mut stream, laps, &peers).await, stream.peer_pid()),
                Err(e) => tracing::warn!(%e, "a connection could not be taken over"),
            }
        };
        ctx.spawn(life.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// By the client, or by what it sent or did not send.
    #[error(transparent)]
    Recv(#[from] RecvError),
    /// The client did not take what it was sent.
    #[error("failed to send: {0}")]
    Send(String),
    /// The two cannot talk.
    #[error("handshake: {0}")]
    Mismatch(MismatchReason),
}

fn end(end: Result<(), End>, pid: Option<u32>) {
    match end {
        Ok(()) | Err(End::Recv(RecvError::Closed)) => {}
        Err(reason) => tracing::warn!(%reason, pid, "a connection ended early"),
    }
}

/// Queues and sends within `SEND_TIMEOUT`.
pub(crate) async fn send(stream: &mut Stream, message: &impl serde::Serialize) -> Result<(), End> {
    stream.queue(message).map_err(|e| End::Send(e.to_string()))?;
    flush(stream).await
}

async fn flush(stream: &mut Stream) -> Result<(), End> {
    match tokio::time::timeout(SEND_TIMEOUT, stream.flush()).await {
        Ok(sent) => sent.map_err(|e| End::Send(e.to_string())),
        Err(_) => Err(End::Send(format!("nothing was taken for {} s", SEND_TIMEOUT.as_secs()))),
    }
}

async fn session(stream: &mut Stream, mut laps: Laps, peers: &Arc<Peers>) -> Result<(), End> {
    let hello: Hello = stream.recv_with(Timeout::After(HANDSHAKE_TIMEOUT)).await?;
    let draining = if peers.work.is_draining() { Err(MismatchReason::ShuttingDown) } else { Ok(()) };
    let build = peers.description.version.clone();
    if let Err(reason) = check(&hello).and(draining) {
        send(stream, &Welcome::Mismatch { reason, protocol: protocol_version(), build }).await?;
        return Err(End::Mismatch(reason));
    }
    let welcome = Welcome::Accepted { build, pid: std::process::id() };
    stream.queue(&welcome).map_err(|e| End::Send(e.to_string()))?;
    loop {
        let request = next_request(stream).await?;
        laps.lap(Phase::Receive);
        peers.work.want();
        let is_last = LEAVES_FIRST && matches!(request, Request::Compile(_));
        answer(request, stream, peers, &mut laps).await?;
        if is_last {
            return Ok(());
        }
        laps = Laps::begin();
    }
}

/// The next request. What is queued is sent first, unless the request is already there: then both go together.
async fn next_request(stream: &mut Stream) -> Result<Request, End> {
    tokio::select! {
        biased;
        request = stream.recv() => return Ok(request?),
        () = std::future::ready(()) => {}
    }
    flush(stream).await?;
    Ok(stream.recv_with(Timeout::After(IDLE_TIMEOUT)).await?)
}

async fn answer(
    request: Request,
    stream: &mut Stream,
    peers: &Arc<Peers>,
    laps: &mut Laps,
) -> Result<(), End> {
    let reply = match request {
        Request::Ping { nonce } => Reply::Pong { nonce },
        Request::Compile(request) => {
            let descriptors = stream.take_descriptors();
            return conversation::serve(*request, descriptors, stream, peers, laps).await;
        }
        Request::Stats { zero } => stats(peers, zero).await,
        Request::Status => status(peers).await,
        Request::Clear => clear(peers).await,
        Request::Evict(which) => evict(EvictSome(which), peers).await,
        Request::Gc => evict(CollectGarbage, peers).await,
        Request::Shutdown => {
            let running = peers.work.running();
            // Work in progress until the answer is sent, or the process might be gone before it.
            let _answering = peers.work.begin_request();
            peers.root.do_send(BeginShutdown); // root's mailbox never refuses; nobody else could be told
            return send(stream, &Reply::ShuttingDown { running }).await;
        }
    };
    send(stream, &reply).await
}

async fn stats(peers: &Peers, zero: bool) -> Reply {
    peers.work.settled().await;
    if let Ok(fallbacks) = peers.journal.send(TakeFallbacks).await {
        peers.counters.fallbacks_reported.fetch_add(fallbacks, std::sync::atomic::Ordering::Relaxed);
    }
    match tokio::time::timeout(REPORT_PATIENCE, peers.store.send(Report)).await {
        Ok(Ok((store, _))) => {
            let service = service_report(&peers.description);
            Reply::Stats(Box::new(StatsReport { store, service, ..peers.counters.read(zero) }))
        }
        Ok(Err(e)) => Reply::Failed { message: format!("the store does not answer: {e}") },
        Err(_) => Reply::Failed {
            message: "the store is busy, perhaps with opening a large index: ask again in a moment".into(),
        },
    }
}

async fn status(peers: &Peers) -> Reply {
    let d = &peers.description;
    let trouble = match peers.hot.readiness.in_time(|| None, peers.store.send(Report)).await {
        Some(Ok((_, trouble))) => trouble.map(|why| format!("nothing is cached: {why}")),
        Some(Err(e)) => Some(format!("the store does not answer: {e}")),
        // Its index is being opened, and nothing is known against it.
        None => None,
    };
    let stuck = [peers.hasher.trouble(), peers.journal.trouble()].into_iter().flatten();
    let state = if peers.work.is_draining() { "shutting down" } else { "serving" };
    Reply::Status(Box::new(StatusReport {
        service: service_report(d),
        state: state.into(),
        cache_dir: d.cache_dir.display().to_string(),
        log_file: d.log_file.display().to_string(),
        observer: d.observer.clone(),
        running: peers.work.running(),
        degraded: d.degraded.iter().cloned().chain(trouble).chain(stuck).collect(),
    }))
}

async fn clear(peers: &Peers) -> Reply {
    match evicted(Clear, peers).await {
        Ok(Gone { records, blobs, .. }) => Reply::Cleared { records, blobs },
        Err(message) => Reply::Failed { message },
    }
}

async fn evict<M>(message: M, peers: &Peers) -> Reply
where
    M: Message<Result = Result<Gone, StorageError>> + Send + 'static,
    Store: Handler<M>,
{
    match evicted(message, peers).await {
        Ok(Gone { records, blobs, bytes }) => Reply::Evicted { records, blobs, bytes },
        Err(message) => Reply::Failed { message },
    }
}

/// Has the store forget something; what is on its way into it now is stored first, and part of it then.
async fn evicted<M>(message: M, peers: &Peers) -> Result<Gone, String>
where
    M: Message<Result = Result<Gone, StorageError>> + Send + 'static,
    Store: Handler<M>,
{
    peers.work.settled().await;
    match peers.store.send(message).await {
        Ok(gone) => gone.map_err(|e| e.to_string()),
        Err(e) => Err(format!("the store does not answer: {e}")),
    }
}

fn service_report(description: &Description) -> ServiceReport {
    ServiceReport {
        version: description.version.clone(),
        protocol: protocol_version(),
        pid: std::process::id(),
        uptime_s: description.started.elapsed().as_secs(),
        rss_bytes: resident_bytes().unwrap_or(0),
    }
}

/// Resident memory in bytes, from the second field of `/proc/self/statm` (pages).
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * crate::sys::param::page_size() as u64)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use tokio::time::Instant;
    use zccache_proto::async_transport::Listener;
    use zccache_proto::endpoint::Endpoint;

    /// A client, and the service's side of its connection.
    async fn connected(temp: &tempfile::TempDir) -> (std::os::unix::net::UnixStream, Stream) {
        let endpoint = Endpoint::in_directory(temp.path().join("run"));
        endpoint.prepare().unwrap();
        let listener = Listener::bind(&endpoint).unwrap();
        let client = std::os::unix::net::UnixStream::connect(endpoint.socket()).unwrap();
        (client, listener.accept().await.unwrap().into_connection().unwrap())
    }

    #[tokio::test]
    async fn a_client_may_be_idle_for_a_while_and_no_longer() {
        let temp = tempfile::tempdir().unwrap();
        let (_client, mut stream) = connected(&temp).await;
        tokio::time::pause();
        let begun = Instant::now();
        let ended = next_request(&mut stream).await;
        assert!(matches!(ended, Err(End::Recv(RecvError::TimedOut(_)))), "{ended:?}");
        assert!(begun.elapsed().abs_diff(IDLE_TIMEOUT) < Duration::from_millis(10));
    }

    #[tokio::test]
    async fn a_client_that_leaves_its_answer_unread_counts_as_gone_after_a_while() {
        let temp = tempfile::tempdir().unwrap();
        let (_client, mut stream) = connected(&temp).await;
        tokio::time::pause();
        let begun = Instant::now();
        // More than any socket holds.
        let message = "x".repeat(8 << 20);
        let ended = send(&mut stream, &Reply::Failed { message }).await;
        assert!(matches!(&ended, Err(End::Send(why)) if why.contains("nothing was taken")), "{ended:?}");
        assert!(begun.elapsed().abs_diff(SEND_TIMEOUT) < Duration::from_millis(10));
    }
}
