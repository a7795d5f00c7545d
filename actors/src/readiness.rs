//! Readiness: how far the store has come since its start, and how long others wait for it meanwhile.
//!
//! A small index is open before a compile would be over, so a request that the head start does not answer waits for it. A
//! large one takes seconds, of which a build knows nothing: the request waits a moment, and then its tool is run.
//!
//! ```text
//! starting --head start read--> opening --index open, or found to be of no use--> ready
//! ```

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// How long a request waits for a small index that is being opened: three times what that took on two slow processors.
/// Then it is not looked up.
pub const OPENING_PATIENCE: Duration = Duration::from_millis(500);

/// The same, for a large one: hardly to be felt.
pub const LARGE_OPENING_PATIENCE: Duration = Duration::from_millis(50);

/// A longer database is a large index, in bytes: some thousands of results.
const SMALL_INDEX_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// How far the store has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was read yet.
    Starting,
    /// What an earlier service left is in memory.
    Opening,
    /// The index can be asked, or it is known why not.
    Ready,
}

/// How far the store has come, for everybody to see.
#[derive(Debug)]
pub struct Readiness {
    stage: watch::Sender<Stage>,
    is_large: AtomicBool,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { stage: watch::Sender::new(Stage::Starting), is_large: AtomicBool::new(false) }
    }
}

impl Readiness {
    /// The store says how far it is.
    pub fn set(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }

    /// The database that is about to be opened is so long.
    pub fn expect(&self, bytes: u64) {
        self.is_large.store(bytes > SMALL_INDEX_BYTES_MAX, Ordering::Relaxed);
    }

    fn patience(&self) -> Duration {
        if self.is_large.load(Ordering::Relaxed) { LARGE_OPENING_PATIENCE } else { OPENING_PATIENCE }
    }

    /// What the store answers, or what `in_memory` finds before; `None` if the index is not open in time.
    pub async fn in_time<T>(
        &self,
        in_memory: impl Fn() -> Option<T>,
        answer: impl Future<Output = T>,
    ) -> Option<T> {
        let mut stage = self.stage.subscribe();
        let late = tokio::time::sleep(self.patience());
        tokio::pin!(answer, late);
        loop {
            if *stage.borrow_and_update() == Stage::Ready {
                return Some(answer.await);
            }
            if let Some(found) = in_memory() {
                return Some(found);
            }
            tokio::select! {
                biased;
                answer = &mut answer => return Some(answer),
                Ok(()) = stage.changed() => {}
                () = &mut late => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::{pending, ready};
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn an_index_that_is_being_opened_is_waited_for_a_moment_and_no_longer() {
        let readiness = Readiness::default();
        for (stage, bytes, patience) in [
            (Stage::Starting, 0, OPENING_PATIENCE),
            (Stage::Opening, SMALL_INDEX_BYTES_MAX, OPENING_PATIENCE),
            (Stage::Opening, SMALL_INDEX_BYTES_MAX + 1, LARGE_OPENING_PATIENCE),
        ] {
            readiness.set(stage);
            readiness.expect(bytes);
            let begun = Instant::now();
            assert_eq!(readiness.in_time(|| None, pending::<u8>()).await, None);
            assert!(begun.elapsed().abs_diff(patience) < Duration::from_millis(10));
            assert_eq!(readiness.in_time(|| None, ready(1)).await, Some(1));
            assert_eq!(readiness.in_time(|| Some(2), pending()).await, Some(2));
        }
        // One that is open is waited for: it may have much to do.
        readiness.set(Stage::Ready);
        let slow = async {
            tokio::time::sleep(OPENING_PATIENCE * 10).await;
            3
        };
        assert_eq!(readiness.in_time(|| Some(2), slow).await, Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_into_memory_meanwhile_is_found_at_once() {
        let readiness = Readiness::default();
        let in_memory = Cell::new(None);
        let comes = async {
            tokio::time::sleep(OPENING_PATIENCE / 2).await;
            in_memory.set(Some("manifest"));
            readiness.set(Stage::Opening);
        };
        let begun = Instant::now();
        let (found, ()) = tokio::join!(readiness.in_time(|| in_memory.get(), pending()), comes);
        assert_eq!(found, Some("manifest"));
        assert!(begun.elapsed().abs_diff(OPENING_PATIENCE / 2) < Duration::from_millis(10));
    }
}
