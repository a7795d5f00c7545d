//! The acceptor: lets clients in, on the very thread that will serve them.
//!
//! Workers take turns: one waits for a client; when one has come, it passes the turn on and serves the client itself.
//! So no client waits for one thread to wake another, and a busy worker keeps nobody out.
//!
//! - Owns: the listener.
//! - Runs on: an arbiter of its own; the accepting itself on the workers.
//! - Receives: `StopAccepting` from root.
//! - Sends: nothing; it starts connections.
//! - Mailbox: 16, root's messages only.
//! - On failure: the process exits, since a listener whose state is unknown may hold clients in its queue.
//! - Never reads a byte from a client.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{Semaphore, watch};
use zccache_proto::async_unix::{Incoming, Listener};
use zccache_proto::endpoint::Endpoint;

use crate::connection::{Connection, Peers};
use crate::root::Escalate;
use crate::supervision::Probe;

/// The pause after the system ran out of descriptors or memory: long enough for some to be given back, short
/// enough that a client that waits (1 s) is still let in.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(50);

/// Root wants no more clients let in; the socket is removed.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopAccepting;

/// The actor.
pub struct Acceptor {
    endpoint: Endpoint,
    workers: Vec<ArbiterHandle>,
    peers: Arc<Peers>,
    escalate: Recipient<Escalate>,
    /// Accepting goes on for as long as this is kept.
    accepting: Option<watch::Sender<()>>,
}

impl Acceptor {
    /// An acceptor at `endpoint` whose connections run on `workers`. The caller holds the service lock.
    pub fn new(
        endpoint: Endpoint,
        workers: Vec<ArbiterHandle>,
        peers: Arc<Peers>,
        escalate: Recipient<Escalate>,
    ) -> Self {
        Self { endpoint, workers, peers, escalate, accepting: None }
    }
}

impl Actor for Acceptor {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
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
        let (keep, stopped) = watch::channel(());
        let turn = Arc::new(Semaphore::new(1));
        for worker in &self.workers {
            let door = Door {
                listener: listener.clone(),
                turn: Arc::clone(&turn),
                stopped: stopped.clone(),
                peers: Arc::clone(&self.peers),
                escalate: escalate.clone(),
            };
            worker.spawn(door.attend());
        }
        self.accepting = Some(keep);
    }
}

/// One worker's part in accepting.
struct Door {
    listener: Listener,
    /// Has one permit: whoever holds it accepts. The others get it in the order in which they asked.
    turn: Arc<Semaphore>,
    stopped: watch::Receiver<()>,
    peers: Arc<Peers>,
    escalate: Recipient<Escalate>,
}

impl Door {
    /// Accepts and serves until root wants no more, or until that is not possible any more.
    async fn attend(mut self) {
        loop {
            let accepted = tokio::select! {
                biased;
                _ = self.stopped.changed() => return,
                accepted = next(&self.listener, &self.turn) => accepted,
            };
            match accepted {
                Ok(incoming) => drop(Connection::new(incoming, Arc::clone(&self.peers)).start()),
                Err(why) => return self.escalate.do_send(Escalate(why)),
            }
        }
    }
}

/// The next client whose turn is ours; or why there can be none any more.
async fn next(listener: &Listener, turn: &Semaphore) -> Result<Incoming, String> {
    let _turn = turn.acquire().await.map_err(|e| e.to_string())?;
    loop {
        match listener.accept().await {
            Ok(incoming) => return Ok(incoming),
            Err(e) if e.is_fatal() => return Err(e.to_string()),
            Err(e) => {
                tracing::warn!(%e, "a connection was not accepted");
                if e.is_shortage() {
                    tokio::time::sleep(SHORTAGE_PAUSE).await;
                }
            }
        }
    }
}

impl Handler<StopAccepting> for Acceptor {
    type Result = ();

    fn handle(&mut self, _: StopAccepting, _: &mut Self::Context) {
        // Removed before it is closed: a client that finds no socket starts the next service at once.
        let _ = std::fs::remove_file(self.endpoint.socket());
        self.accepting = None;
    }
}

impl Handler<Probe> for Acceptor {
    type Result = ();

    fn handle(&mut self, _: Probe, _: &mut Self::Context) {}
}
