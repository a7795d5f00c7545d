//! The composition root: the one place where actors are made and meet.
//!
//! Sinks first: store and hasher, then coordinator, runner and journal, then what sends to them, and the acceptor
//! last, when everything behind it stands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use anyhow::Context as _;
use zccache_actors::acceptor::Acceptor;
use zccache_actors::blobs::Blobs;
use zccache_actors::connection::Peers;
use zccache_actors::coordinator::Coordinator;
use zccache_actors::counters::Counters;
use zccache_actors::file_table::FileTable;
use zccache_actors::hasher::Hasher;
use zccache_actors::journal::Journal;
use zccache_actors::manifest::HotManifests;
use zccache_actors::root::{Adopt, Description, Escalate, Root};
use zccache_actors::runner::Runner;
use zccache_actors::storage::{Limits, Storage};
use zccache_actors::store::Store;
use zccache_actors::supervision::{Probe, Supervised, WhenStuck, guard};
use zccache_actors::work::Work;
use zccache_actors::worker::{Alive, Worker};
use zccache_proto::endpoint::Endpoint;

use crate::config::Config;
use crate::limits::{default_limit_bytes, processors};
use crate::{observers, signals};

/// How long those that wait for disks may be stuck before they are given up: the store may be deleting a whole cache, a
/// network file system may come back. Nobody waits for them meanwhile.
const DISK_PATIENCE: Duration = Duration::from_secs(120);

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
    let observers::Chosen { observer, planner, name, trouble } = observers::choose(config);

    let bytes = config.limit_bytes.unwrap_or_else(|| default_limit_bytes(&config.cache_dir));
    let limits = Limits { bytes, age: config.max_age };
    let counters = Arc::<Counters>::default();
    let store = {
        let (dir, blobs, hot) = (config.cache_dir.clone(), Arc::clone(&blobs), Arc::clone(&hot));
        let counters = Arc::clone(&counters);
        Supervised::start("store", move || {
            let (dir, blobs, hot) = (dir.clone(), Arc::clone(&blobs), Arc::clone(&hot));
            let make = move || Storage::new(&dir, limits, Arc::clone(&blobs), Arc::clone(&hot));
            Store::start_with(Arc::clone(&counters), make)
        })
    };
    let hasher = {
        let (files, blobs) = (Arc::clone(&files), Arc::clone(&blobs));
        Supervised::start("hasher", move || {
            Hasher::pool(processors(), Arc::clone(&files), Arc::clone(&blobs))
        })
    };
    let workers: Vec<Worker> =
        (0..config.workers.unwrap_or((2 * processors()).max(4))).map(|_| worker()).collect();
    // Coordinator, runner and journal answer in microseconds and share one thread, away from the clients'.
    let desk = Arbiter::new().handle();
    let coordinator = on(&desk, "coordinator", Coordinator::default);
    let runner = {
        let blobs = Arc::clone(&blobs);
        on(&desk, "runner", move || Runner::new(Arc::clone(&observer), Arc::clone(&blobs)))
    };
    let journal = {
        let (dir, fallbacks) = (config.cache_dir.clone(), endpoint.fallbacks());
        // A thread of its own each time: the last one may be held up by a disk.
        Supervised::start("journal", move || {
            let (dir, fallbacks) = (dir.clone(), fallbacks.clone());
            Journal::start_in_arbiter(&Arbiter::new().handle(), move |_| Journal::new(&dir, fallbacks))
        })
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
    watch(&root, &work, store.clone(), WhenStuck::WaitFor(DISK_PATIENCE));
    watch(&root, &work, hasher.clone(), WhenStuck::WaitFor(DISK_PATIENCE));
    watch(&root, &work, coordinator.clone(), WhenStuck::Escalate);
    watch(&root, &work, runner.clone(), WhenStuck::Escalate);
    watch(&root, &work, journal.clone(), WhenStuck::Restart);
    for worker in &workers {
        watch(&root, &work, worker.alive.clone(), WhenStuck::WaitFor(DISK_PATIENCE));
    }
    let known_files = Arc::clone(&files);
    let peers = Arc::new(Peers {
        planner,
        hot,
        files,
        blobs,
        counters,
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
    escalate_after(&root, guard("acceptor", acceptor.clone()));
    root.send(Adopt { acceptor, store, files: known_files }).await?;
    signals::shut_down_on(root)
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

/// A thread for clients.
fn worker() -> Worker {
    let thread = Arbiter::new().handle();
    let alive = on(&thread, "worker", Alive::default);
    Worker::new(thread, alive)
}

fn watch<A>(root: &Addr<Root>, work: &Arc<Work>, supervised: Supervised<A>, when_stuck: WhenStuck)
where
    A: Actor + Handler<Probe>,
    A::Context: actix::dev::ToEnvelope<A, Probe>,
{
    escalate_after(root, supervised.watch(when_stuck, Arc::clone(work)));
}

fn escalate_after(root: &Addr<Root>, end: impl Future<Output = String> + 'static) {
    let root = root.clone();
    actix::spawn(async move {
        let why = end.await;
        root.do_send(Escalate(why)); // the last thing that happens; nobody is left to wait
    });
}
