//! Work in progress: what must be over before the service may go, or before `stats` is the whole truth; and whether
//! anybody wants anything at all, since nobody is probed for the sake of nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// How long `stats` waits for results that are on their way into the store, so that a client that has its
/// answer finds it counted. Under an endless stream of stores it answers with what is.
pub const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long running tools may take to finish after a request to shut down: longer than any compile, shorter than
/// a machine's patience with a service that it wants to stop for good.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(600);

/// How long after the last request, and after the end of the last work, something may still come of it: an actor that
/// was sent the last of it is probed behind that.
pub const AFTERMATH: Duration = Duration::from_secs(3);

/// Counts of work, and whether more is taken.
pub struct Work {
    running: AtomicU64,
    settling: AtomicU64,
    draining: AtomicBool,
    ended: Notify,
    /// When somebody wanted something last, in milliseconds since `begun`.
    wanted_ms: AtomicU64,
    /// Somebody waits until somebody wants something.
    is_quiet: AtomicBool,
    wanted: Notify,
    begun: Instant,
}

impl Default for Work {
    fn default() -> Self {
        let (running, settling, wanted_ms) = Default::default();
        let (draining, is_quiet) = Default::default();
        let (ended, wanted) = Default::default();
        Self { running, settling, draining, ended, wanted_ms, is_quiet, wanted, begun: Instant::now() }
    }
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
        self.want();
        self.counter(kind).fetch_add(1, Ordering::SeqCst);
        WorkGuard { work: Arc::clone(self), kind }
    }

    /// Somebody wants something of this service.
    pub fn want(&self) {
        self.wanted_ms.store(self.now_ms(), Ordering::SeqCst);
        if self.is_quiet.load(Ordering::SeqCst) {
            self.is_quiet.store(false, Ordering::SeqCst);
            self.wanted.notify_waiters();
        }
    }

    /// Returns when somebody wants something: at once, if that is so or was a moment ago.
    pub async fn is_wanted(&self) {
        loop {
            let wanted = self.wanted.notified();
            tokio::pin!(wanted);
            wanted.as_mut().enable();
            // Whoever wants something from here on finds that it is to be told.
            self.is_quiet.store(true, Ordering::SeqCst);
            let since_ms = self.now_ms().saturating_sub(self.wanted_ms.load(Ordering::SeqCst));
            let is_at_work = self.running() > 0 || self.settling.load(Ordering::SeqCst) > 0;
            if is_at_work || self.is_draining() || u128::from(since_ms) <= AFTERMATH.as_millis() {
                return;
            }
            wanted.await;
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
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
        self.want();
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
        self.work.want();
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

    #[tokio::test(start_paused = true)]
    async fn a_service_is_wanted_for_a_while_after_the_last_request_and_then_no_more() {
        let long = AFTERMATH * 10;
        let work = Arc::new(Work::default());
        let is_wanted = async || tokio::time::timeout(long, work.is_wanted()).await.is_ok();
        let passes = |time| tokio::time::sleep(time);
        // The start itself counts.
        assert!(is_wanted().await);
        passes(AFTERMATH + Duration::from_secs(1)).await;
        assert!(!is_wanted().await);
        work.want();
        passes(AFTERMATH - Duration::from_secs(1)).await;
        assert!(is_wanted().await);
        for begin in [Work::begin_request, Work::begin_settling] {
            let running = begin(&work);
            passes(long).await;
            assert!(is_wanted().await, "something is under way");
            drop(running);
            passes(AFTERMATH - Duration::from_secs(1)).await;
            assert!(is_wanted().await, "it has just ended");
            passes(AFTERMATH).await;
            assert!(!is_wanted().await);
        }
        // Whoever waits is told, every one of them.
        let wants = async {
            passes(AFTERMATH * 2).await;
            work.want();
        };
        let from = Instant::now();
        tokio::join!(work.is_wanted(), work.is_wanted(), wants);
        assert!(from.elapsed().abs_diff(AFTERMATH * 2) < Duration::from_millis(10));
        passes(long).await;
        work.drain();
        passes(long).await;
        assert!(is_wanted().await, "the end is waited for");
    }
}
