//! Work in progress: what must be over before the service may go, or before `stats` is the whole truth.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// How long `stats` waits for results that are on their way into the store, so that a client that has its
/// answer finds it counted. Under an endless stream of stores it answers with what is.
pub const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long running tools may take to finish after a request to shut down: longer than any compile, shorter than
/// a machine's patience with a service that it wants to stop for good.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(600);

/// Counts of work, and whether more is taken.
#[derive(Default)]
pub struct Work {
    running: AtomicU64,
    settling: AtomicU64,
    draining: AtomicBool,
    ended: Notify,
}

/// One piece of work; over when dropped.
pub struct WorkGuard {
    work: Arc<Work>,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Running,
    Settling,
}

impl Work {
    fn counter(&self, kind: Kind) -> &AtomicU64 {
        match kind {
            Kind::Running => &self.running,
            Kind::Settling => &self.settling,
        }
    }

    fn begin(self: &Arc<Self>, kind: Kind) -> WorkGuard {
        self.counter(kind).fetch_add(1, Ordering::SeqCst);
        WorkGuard { work: Arc::clone(self), kind }
    }

    /// A request has begun.
    pub fn begin_request(self: &Arc<Self>) -> WorkGuard {
        self.begin(Kind::Running)
    }

    /// A result is on its way into the store.
    pub fn begin_settling(self: &Arc<Self>) -> WorkGuard {
        self.begin(Kind::Settling)
    }

    /// Requests in progress.
    pub fn running(&self) -> u64 {
        self.running.load(Ordering::SeqCst)
    }

    /// From now on no more work is taken.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
    }

    /// Whether no more work is taken.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Waits until every result that was on its way is stored, at most `SETTLE_TIMEOUT`; says whether it was.
    pub async fn settled(&self) -> bool {
        self.wait(SETTLE_TIMEOUT, || self.settling.load(Ordering::SeqCst) == 0).await
    }

    /// Waits until there is no work at all, at most `DRAIN_TIMEOUT`; says whether there was none.
    pub async fn idle(&self) -> bool {
        self.wait(DRAIN_TIMEOUT, || self.running() == 0 && self.settling.load(Ordering::SeqCst) == 0).await
    }

    async fn wait(&self, patience: Duration, done: impl Fn() -> bool) -> bool {
        let waiting = async {
            loop {
                let ended = self.ended.notified();
                tokio::pin!(ended);
                ended.as_mut().enable();
                if done() {
                    return;
                }
                ended.await;
            }
        };
        tokio::time::timeout(patience, waiting).await.is_ok()
    }
}

impl Drop for WorkGuard {
    fn drop(&mut self) {
        self.work.counter(self.kind).fetch_sub(1, Ordering::SeqCst);
        self.work.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long a wait takes by a clock that moves on while everybody waits, and how it ends.
    async fn timed(wait: impl Future<Output = bool>) -> (bool, Duration) {
        let begun = tokio::time::Instant::now();
        (wait.await, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn idle_waits_for_the_last_guard_and_no_longer_than_the_limit() {
        let work = Arc::new(Work::default());
        let (running, settling) = (work.begin_request(), work.begin_settling());
        let (settled, took) = timed(work.settled()).await;
        assert!(!settled && took.abs_diff(SETTLE_TIMEOUT) < Duration::from_millis(10), "{took:?}");
        drop(settling);
        assert_eq!(timed(work.settled()).await, (true, Duration::ZERO));
        let (idle, took) = timed(work.idle()).await;
        assert!(!idle && took.abs_diff(DRAIN_TIMEOUT) < Duration::from_millis(10), "{took:?}");
        let almost = DRAIN_TIMEOUT - Duration::from_secs(1);
        let ends = async {
            tokio::time::sleep(almost).await;
            drop(running);
        };
        let (_, (idle, took)) = tokio::join!(ends, timed(work.idle()));
        assert!(idle && took.abs_diff(almost) < Duration::from_millis(10), "{took:?}");
    }
}
