//! Work in progress: what must be over before the service may go, or before `stats` is the whole truth.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

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

    /// Waits until every result that was on its way is stored, at most `patience`; says whether it was.
    pub async fn settled(&self, patience: Duration) -> bool {
        self.wait(patience, || self.settling.load(Ordering::SeqCst) == 0).await
    }

    /// Waits until there is no work at all, at most `patience`; says whether there was none.
    pub async fn idle(&self, patience: Duration) -> bool {
        self.wait(patience, || self.running() == 0 && self.settling.load(Ordering::SeqCst) == 0).await
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

    #[tokio::test(start_paused = true)]
    async fn idle_waits_for_the_last_guard_and_no_longer_than_told() {
        let work = Arc::new(Work::default());
        let (running, settling) = (work.begin_request(), work.begin_settling());
        assert!(!work.settled(Duration::from_secs(1)).await);
        drop(settling);
        assert!(work.settled(Duration::from_secs(1)).await);
        assert!(!work.idle(Duration::from_secs(1)).await);
        drop(running);
        assert!(work.idle(Duration::from_secs(1)).await);
    }
}
