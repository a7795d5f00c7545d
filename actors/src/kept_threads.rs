//! Threads that are kept for the next run: making one costs more than handing one a job.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a thread waits for another job: longer than the pauses within a build, shorter than a coffee.
const IDLE_MAX: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// Threads of one kind that wait for a job, the one that began to wait last on top.
pub struct KeptThreads {
    name: &'static str,
    /// How long each waits for another job.
    idle_max: Duration,
    idle: Mutex<Vec<Idle>>,
    next: AtomicU64,
}

/// A thread that waits.
struct Idle {
    number: u64,
    give: SyncSender<Job>,
}

impl KeptThreads {
    /// None yet.
    pub const fn new(name: &'static str) -> Self {
        Self::waiting(name, IDLE_MAX)
    }

    const fn waiting(name: &'static str, idle_max: Duration) -> Self {
        Self { name, idle_max, idle: Mutex::new(Vec::new()), next: AtomicU64::new(0) }
    }

    /// Has `job` done, on a thread that waits or a new one. A panic ends the job alone.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn run(&'static self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let job: Job = Box::new(job);
        let waiting = self.idle().pop();
        match waiting {
            // Off the list it waits until it gets its job, and its channel has room for one.
            Some(thread) => thread.give.send(job).map_err(|_| io::Error::other("a kept thread ended")),
            None => {
                std::thread::Builder::new().name(self.name.into()).spawn(move || self.live(job)).map(drop)
            }
        }
    }

    fn live(&self, first: Job) {
        let mut job = first;
        loop {
            let _ = catch_unwind(AssertUnwindSafe(job));
            let (give, given) = sync_channel(1);
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            self.idle().push(Idle { number, give });
            job = match given.recv_timeout(self.idle_max) {
                Ok(job) => job,
                Err(_) if self.leaves(number) => return,
                // Taken off the list just now: the job is on its way.
                Err(_) => match given.recv() {
                    Ok(job) => job,
                    Err(_) => return,
                },
            };
        }
    }

    /// Takes a thread off the list; says false if somebody else has, to give it a job.
    fn leaves(&self, number: u64) -> bool {
        let mut idle = self.idle();
        let place = idle.iter().position(|thread| thread.number == number);
        place.map(|at| idle.remove(at)).is_some()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn every_job_is_done_and_threads_are_used_again() {
        static KEPT: KeptThreads = KeptThreads::new("kept-test");
        let (tell, told) = channel();
        for round in 0..100 {
            let tell = tell.clone();
            KEPT.run(move || {
                let _ = tell.send((round, std::thread::current().id()));
                assert!(round % 10 != 9, "a panic, as the test wants it");
            })
            .unwrap();
            let (done, _) = told.recv().unwrap();
            assert_eq!(done, round);
            while KEPT.idle().is_empty() {
                std::thread::yield_now();
            }
        }
        assert_eq!(KEPT.idle().len(), 1);
    }

    #[test]
    fn a_thread_that_gets_no_other_job_ends() {
        static KEPT: KeptThreads = KeptThreads::waiting("kept-test", Duration::from_millis(1));
        /// Tells that the thread which has it ends.
        struct Last(SyncSender<()>);
        impl Drop for Last {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        thread_local! {
            static LAST: std::cell::RefCell<Option<Last>> = const { std::cell::RefCell::new(None) };
        }
        assert_eq!(KeptThreads::new("kept-test").idle_max, IDLE_MAX);
        let (tell, told) = sync_channel(1);
        KEPT.run(move || LAST.with(|last| *last.borrow_mut() = Some(Last(tell)))).unwrap();
        // Far longer than it waits, to fail rather than to hang.
        told.recv_timeout(Duration::from_secs(100)).unwrap();
        assert!(KEPT.idle().is_empty());
    }
}
