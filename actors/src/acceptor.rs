//! The acceptor: lets clients in and hands each to a worker.
//!
//! - Owns: the listener.
//! - Runs on: an arbiter of its own.
//! - Receives: `StopAccepting` from root.
//! - Sends: `BeginShutdown` to root, if nobody can find it any more; it starts connections.
//! - Mailbox: 16, root's messages only.
//! - On failure: the process exits, since a listener whose state is unknown may hold clients in its queue. A worker
//!   that does not answer gets no new clients until it does.
//! - Never reads a byte from a client.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use zccache_proto::async_transport::{AcceptError, Incoming, Listener};
use zccache_proto::endpoint::{Endpoint, FoundSocket};

use crate::connection::{Connection, Peers};
use crate::faults;
use crate::root::{BeginShutdown, Escalate};
use crate::supervision::Probe;
use crate::timing::Laps;
use crate::worker::{Worker, least_busy};

/// The pause after the system ran out of descriptors or memory: long enough for some to be given back, short
/// enough that a client that waits (1 s) is still let in.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

/// How often it is looked whether clients still find the socket. One whose directory was cleared away serves nobody, and
/// keeps the index from the service that took its place: that is without a cache for so long.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);

/// Root wants no more clients let in; the socket is removed.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopAccepting;

/// The actor.
pub struct Acceptor {
    endpoint: Endpoint,
    workers: Vec<Worker>,
    peers: Arc<Peers>,
    escalate: Recipient<Escalate>,
    accepting: Option<SpawnHandle>,
    /// What clients find, if it is ours.
    own: Option<FoundSocket>,
}

impl Acceptor {
    /// An acceptor at `endpoint` that starts connections on the least busy of `workers`. The caller holds the service lock.
    pub fn new(
        endpoint: Endpoint,
        workers: Vec<Worker>,
        peers: Arc<Peers>,
        escalate: Recipient<Escalate>,
    ) -> Self {
        Self { endpoint, workers, peers, escalate, accepting: None, own: None }
    }

    /// Whether clients find us. If the system does not tell, they may.
    fn is_found(&self) -> bool {
        self.endpoint.found_socket().map_or(true, |found| found == self.own)
    }
}

impl Actor for Acceptor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let escalate = self.escalate.clone();
        let listener = match Listener::bind(&self.endpoint) {
            Ok(listener) => listener,
            Err(e) => {
                let socket = self.endpoint.socket();
                escalate.do_send(Escalate(format!("cannot listen at {}: {e}", socket.display())));
                return;
            }
        };
        tracing::info!(socket = %self.endpoint.socket().display(), "listening");
        self.own = self.endpoint.found_socket().ok().flatten();
        ctx.run_interval(LOOK_INTERVAL, |acceptor, _| {
            if !acceptor.is_found() {
                tracing::warn!("the socket was taken away: no client finds this service any more");
                // Root is full of such wishes, or gone: then it ends as well.
                let _ = acceptor.peers.root.try_send(BeginShutdown);
            }
        });
        let accepting = accept(listener, std::mem::take(&mut self.workers), Arc::clone(&self.peers));
        let told = move |why| escalate.do_send(Escalate(why));
        self.accepting = Some(ctx.spawn(accepting.into_actor(self).map(move |why, _, _| told(why))));
    }
}

/// Accepts for as long as that is possible; returns why it is not any more.
async fn accept(listener: Listener, workers: Vec<Worker>, peers: Arc<Peers>) -> String {
    let mut lacks = false;
    loop {
        match next_client(&listener).await {
            Ok(incoming) => {
                peers.work.want();
                faults::pass("acceptor");
                lacks = false;
                let laps = Laps::begin();
                let peers = Arc::clone(&peers);
                let Some(worker) = least_busy(&workers) else { return "there is no worker".into() };
                let seat = worker.seat();
                let connection =
                    move |_: &mut Context<Connection>| Connection::new(incoming, laps, peers, seat);
                Connection::start_in_arbiter(&worker.thread, connection);
            }
            Err(e) if e.is_fatal() => return e.to_string(),
            Err(e) if e.is_shortage() => {
                // Once, and not twenty times a second for as long as it lasts.
                if !std::mem::replace(&mut lacks, true) {
                    tracing::warn!(%e, "clients cannot be let in for now; trying again and again");
                }
                tokio::time::sleep(SHORTAGE_PAUSE).await;
            }
            Err(e) => tracing::warn!(%e, "a connection was not accepted"),
        }
    }
}

async fn next_client(listener: &Listener) -> Result<Incoming, AcceptError> {
    faults::check("accept").map_err(AcceptError::Passing)?;
    listener.accept().await
}

impl Handler<StopAccepting> for Acceptor {
    type Result = ();

    fn handle(&mut self, _: StopAccepting, ctx: &mut Self::Context) {
        // Removed before it is closed: a client that finds no socket starts the next service at once.
        if self.is_found() {
            self.endpoint.remove_socket();
        }
        if let Some(accepting) = self.accepting.take() {
            ctx.cancel_future(accepting);
        }
    }
}

impl Handler<Probe> for Acceptor {
    type Result = ();

    fn handle(&mut self, _: Probe, _: &mut Self::Context) {}
}
