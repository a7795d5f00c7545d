//! Workers: the threads that serve clients, and who of them is the least busy. On each lives an actor, `Alive`:
//!
//! - Owns: nothing.
//! - Runs on: the worker.
//! - Receives: probes.
//! - Sends: nothing.
//! - Mailbox: 16, probes only.
//! - On failure: it is made anew. While it does not answer, its worker gets no new clients.
//! - Never waits; the connections beside it may.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actix::prelude::*;

use crate::supervision::{Probe, Supervised};

/// A thread that serves clients, and the actor on it that shows whether it is alive.
pub struct Worker {
    /// The thread.
    pub thread: ArbiterHandle,
    /// Passed over while a client's disk holds the thread up.
    pub alive: Supervised<Alive>,
    clients: Arc<AtomicUsize>,
}

impl Worker {
    /// The worker on this thread, without clients.
    pub fn new(thread: ArbiterHandle, alive: Supervised<Alive>) -> Self {
        Self { thread, alive, clients: Arc::default() }
    }

    /// A place for one client more.
    pub fn seat(&self) -> Seat {
        self.clients.fetch_add(1, Ordering::Relaxed);
        Seat(Arc::clone(&self.clients))
    }
}

/// A client's place on a worker, for as long as it is connected.
pub struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The worker with the fewest clients of those that answer, or of all if none does. The first of them: one client after
/// another meets the same thread, which has all at hand that the last one needed.
pub fn least_busy(workers: &[Worker]) -> Option<&Worker> {
    let busy = |worker: &&Worker| (worker.alive.trouble().is_some(), worker.clients.load(Ordering::Relaxed));
    workers.iter().min_by_key(busy)
}

/// Shows, by answering probes, that the thread it lives on is not held up.
#[derive(Debug, Default)]
pub struct Alive;

impl Actor for Alive {
    type Context = Context<Self>;
}

impl Handler<Probe> for Alive {
    type Result = ();

    fn handle(&mut self, _: Probe, _: &mut Self::Context) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix::test]
    async fn the_first_of_the_least_busy_is_taken() {
        let alive = || Supervised::start("worker", || Alive.start());
        let workers: Vec<_> = (0..3).map(|_| Worker::new(Arbiter::current(), alive())).collect();
        let taken = || workers.iter().position(|worker| std::ptr::eq(worker, least_busy(&workers).unwrap()));
        let mut seats = Vec::new();
        for expected in [0, 1, 2, 0] {
            assert_eq!(taken(), Some(expected));
            seats.push(workers[expected].seat());
        }
        drop(seats.remove(2));
        assert_eq!(taken(), Some(2), "its client has left");
    }
}
