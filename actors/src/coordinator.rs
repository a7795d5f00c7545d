//! The coordinator: equal requests in flight run the tool once.
//!
//! - Owns: the table of flights.
//! - Runs on: an arbiter of its own.
//! - Receives: `Enter`, `Landed` from connections.
//! - Sends: replies only.
//! - Mailbox: 4096, one `Enter` and one `Landed` for each of the most clients we expect.
//! - On failure: rebuilt empty; waiters find their reply dropped and run for themselves.
//! - Never blocks.

use actix::prelude::*;
use tokio::sync::oneshot;

use crate::faults;
use crate::flights::{Flights, Landing, Role};
use crate::key::RequestKey;
use crate::supervision::Probe;

/// A connection asks whether to work on `key`. Answered at once when there is nobody else, otherwise when the
/// leader has landed. May not be repeated without `Landed` in between.
#[derive(Message)]
#[rtype(result = "Entered")]
pub struct Enter {
    /// What is to be worked on.
    pub key: RequestKey,
}

/// The answer to `Enter`.
pub enum Entered {
    /// Do the work, and send `Landed` whatever happens.
    Lead,
    /// Somebody else is at it; this tells how it ends. Dropped without a word if the coordinator is rebuilt.
    Follow(oneshot::Receiver<Landing>),
}

/// The leader says how its work ended.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Landed {
    /// What was worked on.
    pub key: RequestKey,
    /// How it ended.
    pub landing: Landing,
}

/// The actor.
#[derive(Default)]
pub struct Coordinator {
    flights: Flights<RequestKey, oneshot::Sender<Landing>>,
}

/// See the header.
const MAILBOX: usize = 4096;

impl Actor for Coordinator {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Enter> for Coordinator {
    type Result = MessageResult<Enter>;

    fn handle(&mut self, message: Enter, _: &mut Self::Context) -> Self::Result {
        faults::pass("coordinator");
        let (sender, receiver) = oneshot::channel();
        MessageResult(match self.flights.enter(message.key, || sender) {
            Role::Lead => Entered::Lead,
            Role::Follow => Entered::Follow(receiver),
        })
    }
}

impl Handler<Landed> for Coordinator {
    type Result = ();

    fn handle(&mut self, message: Landed, _: &mut Self::Context) {
        for waiter in self.flights.land(&message.key) {
            // A waiter that has gone does not mind. After an abandoned flight each of them enters anew, and the
            // first to do so leads.
            let _ = waiter.send(message.landing);
        }
    }
}

impl Handler<Probe> for Coordinator {
    type Result = ();

    fn handle(&mut self, _: Probe, _: &mut Self::Context) {}
}

/// A led flight: lands when dropped, as abandoned unless told otherwise.
pub struct Flight {
    coordinator: Addr<Coordinator>,
    key: RequestKey,
    landing: Landing,
}

impl Flight {
    /// The flight of the leader of `key`.
    pub fn new(coordinator: Addr<Coordinator>, key: RequestKey) -> Self {
        Self { coordinator, key, landing: Landing::Abandoned }
    }

    /// Lands.
    pub fn land(mut self, landing: Landing) {
        self.landing = landing;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // `do_send`: a drop cannot wait, and a landing that is lost would leave its followers waiting.
        self.coordinator.do_send(Landed { key: self.key, landing: self.landing });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix::test]
    async fn a_coordinator_takes_so_many_messages_and_no_more() {
        let addr = Coordinator::default().start();
        let taken = crate::test_support::mailbox_takes(&addr, || Probe).await;
        // One more than it says, by the way these are counted.
        assert!((MAILBOX..=MAILBOX + 1).contains(&taken), "{taken}");
    }
}
