//! Root: the end of things. Shutdown order, and what happens when supervision cannot help.
//!
//! - Owns: the order of shutdown.
//! - Runs on: the main arbiter.
//! - Receives: `BeginShutdown` from connections and signals, `Escalate` from supervision and acceptor.
//! - Sends: to acceptor and store.
//! - Mailbox: 64; its messages are rare.
//! - On failure: the process exits, and the next wrapper starts a new service.
//! - Never ends while a tool runs for a client, save after `DRAIN_TIMEOUT`.
//!
//! ```text
//! serving --BeginShutdown--> draining: no new clients, no new work; what runs finishes and is stored
//!                               --idle, or DRAIN_TIMEOUT--> index written down --> system stops
//! serving --Escalate--> exit with status 70; kernel and lock file tell everybody
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;

use crate::acceptor::{Acceptor, StopAccepting};
use crate::faults;
use crate::file_table::FileTable;
use crate::store::{Close, Store, Tidy};
use crate::supervision::{Pulse, Supervised};
use crate::work::Work;

/// How often the store writes down what is only in memory: when results were last used, and counters. A `kill -9`
/// loses no more than that; the store's thread is busy with it for milliseconds.
const TIDY_INTERVAL: Duration = Duration::from_secs(10);
/// A store that tidies for longer is probed meanwhile: a small part of the 5 s within which whoever is stuck is found,
/// and longer than tidying takes where there is nothing to write down.
const TIDIED_SOON: Duration = Duration::from_millis(100);

/// The exit status after an escalation: `EX_SOFTWARE` of sysexits.h.
const EXIT_ESCALATED: i32 = 70;

/// See the header.
const MAILBOX: usize = 64;

/// What `status` says of this service; made by the composition root.
#[derive(Debug, Clone)]
pub struct Description {
    /// The service's version.
    pub version: String,
    /// When it started.
    pub started: Instant,
    /// Where the cache is.
    pub cache_dir: PathBuf,
    /// Where the log is.
    pub log_file: PathBuf,
    /// Which observer runs tools.
    pub observer: String,
    /// What is not as it should be since the start, for people.
    pub degraded: Vec<String>,
}

/// Somebody wants an end: finish what runs, take nothing new, write down, go. May be repeated.
#[derive(Message)]
#[rtype(result = "()")]
pub struct BeginShutdown;

/// A fault that nobody below could mend, for people.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Escalate(pub String);

/// The children, once they are there.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Adopt {
    /// Lets clients in.
    pub acceptor: Addr<Acceptor>,
    /// Is closed last.
    pub store: Supervised<Store>,
    /// What is known of files; keeps some of them open while they are asked for.
    pub files: Arc<FileTable>,
}

/// The actor.
pub struct Root {
    work: Arc<Work>,
    children: Option<Adopt>,
    pulse: Arc<Pulse>,
}

impl Root {
    /// A root that waits for `work` before it ends.
    pub fn new(work: Arc<Work>) -> Self {
        Self { work, children: None, pulse: Arc::default() }
    }
}

impl Actor for Root {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        self.pulse.beat();
        ctx.run_interval(Pulse::INTERVAL, |root, _| {
            faults::pass("root");
            root.pulse.beat();
        });
        let stopped = || end("root does not answer");
        if let Err(e) = self.pulse.watch(stopped) {
            tracing::warn!(%e, "there is no watchdog");
        }
    }
}

/// Ends the process without another word to anybody in it.
fn end(reason: &str) {
    tracing::error!(reason, "giving up; the next client starts a new service");
    eprintln!("zccache-service: {reason}");
    std::process::exit(EXIT_ESCALATED);
}

impl Handler<Adopt> for Root {
    type Result = ();

    fn handle(&mut self, message: Adopt, ctx: &mut Self::Context) {
        let (store, files) = (message.store.clone(), Arc::clone(&message.files));
        let work = Arc::clone(&self.work);
        let tidying = async move {
            loop {
                tokio::time::sleep(TIDY_INTERVAL).await;
                files.kept.rest();
                // It may be stuck: that is found out though nobody else wants anything of it.
                let tidied = store.send(Tidy);
                tokio::pin!(tidied);
                let soon = tokio::time::timeout(TIDIED_SOON, &mut tidied).await;
                soon.is_err().then(|| work.want());
                match if let Ok(tidied) = soon { tidied } else { tidied.await } {
                    Ok(Ok(())) => {}
                    Ok(Err(e)) => tracing::debug!(%e, "nothing could be written down"),
                    Err(_) => work.want(),
                }
            }
        };
        ctx.spawn(tidying.into_actor(self));
        self.children = Some(message);
    }
}

impl Handler<BeginShutdown> for Root {
    type Result = ();

    fn handle(&mut self, _: BeginShutdown, ctx: &mut Self::Context) {
        if self.work.is_draining() {
            return;
        }
        self.work.drain();
        tracing::info!(running = self.work.running(), "shutting down");
        let (work, children) = (Arc::clone(&self.work), self.children.take());
        let end = async move {
            let Some(Adopt { acceptor, store, .. }) = children else { return };
            let _ = acceptor.send(StopAccepting).await;
            if !work.idle().await {
                tracing::warn!(running = work.running(), "tools are still running; ending all the same");
            }
            match store.send(Close).await {
                Ok(Ok(())) => tracing::info!("the index is written"),
                Ok(Err(e)) => tracing::warn!(%e, "the index could not be written"),
                Err(e) => tracing::warn!(%e, "the store is gone"),
            }
        };
        ctx.spawn(end.into_actor(self).map(|(), _, _| System::current().stop()));
    }
}

impl Handler<Escalate> for Root {
    type Result = ();

    fn handle(&mut self, message: Escalate, _: &mut Self::Context) {
        end(&message.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix::test]
    async fn a_root_takes_so_many_messages_and_no_more() {
        let root = Root::new(Arc::default());
        root.work.drain(); // so that a further wish for an end is nothing
        let pulse = Arc::clone(&root.pulse);
        // Its watchdog outlives this test, and would end the other tests with it.
        std::thread::spawn(move || {
            loop {
                pulse.beat();
                std::thread::sleep(Pulse::INTERVAL);
            }
        });
        let taken = crate::test_support::mailbox_takes(&root.start(), || BeginShutdown).await;
        // One more than it says, by the way these are counted.
        assert!((MAILBOX..=MAILBOX + 1).contains(&taken), "{taken}");
    }
}
