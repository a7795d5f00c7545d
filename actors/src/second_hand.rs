//! A second hand: a thread that stands by to do part of a job that is already under way.
//!
//! Only where nothing else is to be done: with a tool or another check under way the processors have work, and a helper
//! that has begun and must wait for its turn holds the job up for longer than it saves.
//!
//! Handing over costs a wake-up, after which the helper sleeps again at once: unlike a work-stealing pool's, its
//! threads never look for work, on processors that a client or a compiler could use. Nothing waits for a helper
//! that has not begun.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// The most helpers: each serves one job at a time, and a job without one is only slower.
const HELPERS_MAX: usize = 4;

type Job = Box<dyn FnOnce() + Send>;

/// What is under way that keeps a processor busy.
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// Something that keeps a processor busy, until dropped.
pub struct Busy {
    alone: bool,
}

/// Begins something that keeps a processor busy: nobody is offered help meanwhile.
pub fn busy() -> Busy {
    Busy { alone: BUSY.fetch_add(1, Ordering::Relaxed) == 0 }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where `task` stands.
enum Task<F, T> {
    Offered(F),
    Begun,
    Withdrawn,
    Done(T),
}

/// What a helper may do, or has done.
pub struct Help<F, T> {
    task: Arc<Mutex<Task<F, T>>>,
    done: Receiver<()>,
    _busy: Busy,
}

/// Offers `task` to a helper, if one stands by and nothing else is under way.
pub fn offer<F, T>(task: F) -> Help<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let task = Arc::new(Mutex::new(Task::Offered(task)));
    let (tell, done) = sync_channel(1);
    let theirs = Arc::clone(&task);
    let job = move || {
        let Task::Offered(task) = swap(&theirs, Task::Begun) else {
            let _ = swap(&theirs, Task::Withdrawn);
            return;
        };
        // A panic shows by the result that is missing.
        if let Ok(result) = catch_unwind(AssertUnwindSafe(task)) {
            let _ = swap(&theirs, Task::Done(result));
        }
        let _ = tell.send(());
    };
    let busy = busy();
    if busy.alone {
        // Nobody stands by: the caller does it all.
        let _ = helpers().try_send(Box::new(job));
    }
    Help { task, done, _busy: busy }
}

impl<F, T> Help<F, T> {
    /// What the helper came to; none if it had not begun, and now will not.
    ///
    /// # Errors
    /// If the task panicked.
    pub fn take(self) -> Result<Option<T>, Panicked> {
        match swap(&self.task, Task::Withdrawn) {
            Task::Offered(_) | Task::Withdrawn => return Ok(None),
            Task::Done(result) => return Ok(Some(result)),
            Task::Begun => {}
        }
        let _ = self.done.recv();
        match swap(&self.task, Task::Withdrawn) {
            Task::Done(result) => Ok(Some(result)),
            _ => Err(Panicked),
        }
    }
}

/// A helper's task ended without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Panicked;

fn swap<F, T>(task: &Mutex<Task<F, T>>, with: Task<F, T>) -> Task<F, T> {
    std::mem::replace(&mut *task.lock().unwrap_or_else(PoisonError::into_inner), with)
}

/// Takes a job only while a helper waits for one.
fn helpers() -> &'static SyncSender<Job> {
    static HELPERS: OnceLock<SyncSender<Job>> = OnceLock::new();
    HELPERS.get_or_init(|| {
        let (offer, offers) = sync_channel::<Job>(0);
        let offers = Arc::new(Mutex::new(offers));
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..helpers_on(processors) {
            let offers = Arc::clone(&offers);
            let stand_by = move || {
                loop {
                    // One helper waits for a job, the others for its place.
                    let job = offers.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok(job) = job else { return };
                    job();
                }
            };
            // Without a thread there is no helper.
            let _ = std::thread::Builder::new().name("second-hand".into()).spawn(stand_by);
        }
        offer
    })
}

/// How many helpers stand by on a machine of so many processors: the caller has one of them.
fn helpers_on(processors: usize) -> usize {
    processors.saturating_sub(1).min(HELPERS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_so_many_helpers_and_no_more() {
        let counts = [0, 1, 2, HELPERS_MAX + 1, HELPERS_MAX + 2, 1000].map(helpers_on);
        assert_eq!(counts, [0, 0, 1, HELPERS_MAX, HELPERS_MAX, HELPERS_MAX]);
    }

    #[test]
    fn a_task_is_done_once_or_withdrawn() {
        let done = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let mut helped = 0;
        for round in 0..2_000 {
            let theirs = Arc::clone(&done);
            let help = offer(move || {
                theirs.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                round
            });
            if round % 2 == 0 {
                std::thread::yield_now();
            }
            if let Some(result) = help.take().unwrap() {
                assert_eq!(result, round);
                helped += 1;
            }
        }
        assert_eq!(done.load(std::sync::atomic::Ordering::SeqCst), helped);
    }

    #[test]
    fn a_panic_is_told_and_the_helper_lives_on() {
        for _ in 0..2 * HELPERS_MAX {
            let begun = Arc::new(std::sync::Barrier::new(1));
            let help: Help<_, ()> = offer(move || {
                begun.wait();
                panic!("as the test wants it")
            });
            assert!(matches!(help.take(), Ok(None) | Err(Panicked)));
        }
        assert!(offer(|| 1).take().is_ok());
    }
}
