//! The composition root: the one place where actors are made and meet.
//!
//! Sinks first: store and hasher, then coordinator, runner and journal, then what sends to them, and the acceptor
//! last, when everything behind it stands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use zccache_actors::acceptor::Acceptor;
use zccache_actors::blobs::Blobs;
use zccache_actors::connection::Peers;
use zccache_actors::coordinator::Coordinator;
use zccache_actors::counters::Counters;
use zccache_actors::file_table::FileTable;
use zccache_actors::hasher::Hasher;
use zccache_actors::journal::Journal;
use zccache_actors::manifest::HotManifests;
use zccache_actors::root::{Adopt, BeginShutdown, Description, Escalate, Root};
use zccache_actors::runner::Runner;
use zccache_actors::storage::Storage;
use zccache_actors::store::Store;
use zccache_actors::supervision::{PATIENCE, Probe, Supervised};
use zccache_actors::work::Work;
use zccache_proto::endpoint::Endpoint;

use crate::config::Config;
use crate::limits::{default_limit_bytes, processors};
use crate::observers;
use crate::planner::ToolPlanner;

/// How long the store may take to answer a probe: it may be deleting a whole cache, or wait for a slow disk.
const STORE_PATIENCE: Duration = Duration::from_secs(120);

/// Builds the system and runs it until it is told to stop. `degraded` is what already went wrong, for `status`.
///
/// # Errors
/// If it cannot be built; what goes wrong later ends the process by escalation.
pub fn run(
    config: &Config,
    endpoint: &Endpoint,
    log_file: Result<std::path::PathBuf, String>,
) -> anyhow::Result<()> {
    let system = System::new();
    system.block_on(build(config, endpoint, log_file))?;
    system.run().context("the actor system failed")?;
    tracing::info!("gone");
    Ok(())
}

async fn build(
    config: &Config,
    endpoint: &Endpoint,
    log_file: Result<std::path::PathBuf, String>,
) -> anyhow::Result<()> {
    let blobs = Arc::new(Blobs::new(&config.cache_dir));
    let (hot, files, work) =
        (Arc::<HotManifests>::default(), Arc::<FileTable>::default(), Arc::<Work>::default());
    let root = Root::new(Arc::clone(&work)).start();
    let observers::Chosen { observer, name, trouble } = observers::choose(config.observer);

    let limit_bytes = config.limit_bytes.unwrap_or_else(|| default_limit_bytes(&config.cache_dir));
    let store = {
        let (dir, blobs, hot) = (config.cache_dir.clone(), Arc::clone(&blobs), Arc::clone(&hot));
        Supervised::start("store", move || {
            let (dir, blobs, hot) = (dir.clone(), Arc::clone(&blobs), Arc::clone(&hot));
            Store::start_with(move || Storage::new(&dir, limit_bytes, Arc::clone(&blobs), Arc::clone(&hot)))
        })
    };
    let hasher = {
        let (files, blobs) = (Arc::clone(&files), Arc::clone(&blobs));
        Supervised::start("hasher", move || {
            Hasher::pool(processors(), Arc::clone(&files), Arc::clone(&blobs))
        })
    };
    let workers: Vec<_> =
        (0..config.workers.unwrap_or((2 * processors()).max(4))).map(|_| Arbiter::new().handle()).collect();
    // Coordinator, runner and journal answer in microseconds and share one thread, away from the clients'.
    let desk = Arbiter::new().handle();
    let coordinator = on(&desk, "coordinator", Coordinator::default);
    let runner = {
        let blobs = Arc::clone(&blobs);
        on(&desk, "runner", move || Runner::new(Arc::clone(&observer), Arc::clone(&blobs)))
    };
    let journal = {
        let (dir, fallbacks) = (config.cache_dir.clone(), endpoint.fallbacks());
        on(&Arbiter::new().handle(), "journal", move || Journal::new(&dir, fallbacks.clone()))
    };

    let no_log = log_file.as_ref().err().cloned();
    let description = Description {
        version: env!("CARGO_PKG_VERSION").into(),
        started: Instant::now(),
        cache_dir: config.cache_dir.clone(),
        log_file: log_file.unwrap_or_default(),
        observer: name.into(),
        degraded: trouble.into_iter().chain(no_log).collect(),
    };
    watch(&root, store.clone(), STORE_PATIENCE);
    watch(&root, hasher.clone(), STORE_PATIENCE);
    watch(&root, coordinator.clone(), PATIENCE);
    watch(&root, runner.clone(), PATIENCE);
    watch(&root, journal.clone(), STORE_PATIENCE);
    let peers = Arc::new(Peers {
        planner: Box::new(ToolPlanner::new(config.strip_incremental)),
        hot,
        files,
        blobs,
        counters: Arc::<Counters>::default(),
        work,
        coordinator,
        runner,
        hasher,
        store: store.clone(),
        journal,
        root: root.clone().recipient(),
        description,
    });
    let acceptor = {
        let (endpoint, escalate) = (endpoint.clone(), root.clone().recipient());
        let start = move |_: &mut Context<Acceptor>| Acceptor::new(endpoint, workers, peers, escalate);
        Acceptor::start_in_arbiter(&Arbiter::new().handle(), start)
    };
    root.send(Adopt { acceptor, store }).await?;
    shut_down_on_signals(root)
}

fn on<A>(
    arbiter: &ArbiterHandle,
    name: &'static str,
    make: impl Fn() -> A + Send + Sync + 'static,
) -> Supervised<A>
where
    A: Actor<Context = Context<A>>,
{
    let (arbiter, make) = (arbiter.clone(), Arc::new(make));
    Supervised::start(name, move || {
        let make = Arc::clone(&make);
        A::start_in_arbiter(&arbiter, move |_| make())
    })
}

fn watch<A>(root: &Addr<Root>, supervised: Supervised<A>, patience: Duration)
where
    A: Actor + Handler<Probe>,
    A::Context: actix::dev::ToEnvelope<A, Probe>,
{
    let root = root.clone();
    actix::spawn(async move {
        let why = supervised.watch(patience).await;
        root.do_send(Escalate(why)); // the last thing that happens; nobody is left to wait
    });
}

fn shut_down_on_signals(root: Addr<Root>) -> anyhow::Result<()> {
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let (mut signals, root) = (signal(kind)?, root.clone());
        actix::spawn(async move {
            while signals.recv().await.is_some() {
                root.do_send(BeginShutdown); // repeated signals are one request
            }
        });
    }
    Ok(())
}
