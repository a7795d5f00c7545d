//! What starting a service is the same in on every platform: how long it may take, how often it is tried, and that a start
//! which failed is remembered for a while, so that a broken installation costs a build next to nothing.

use std::fs::File;
use std::io::{self, Write};
use std::time::{Duration, Instant, SystemTime};

/// From the wrapper's start to a greeting, at most: the promise of "within 1 s".
pub const BUDGET: Duration = Duration::from_secs(1);

/// The first pause between two attempts: a service answers in a few milliseconds.
pub const PAUSE_MIN: Duration = Duration::from_millis(2);
/// The longest, so that many waiting wrappers do not keep the service from starting.
const PAUSE_MAX: Duration = Duration::from_millis(32);

/// How long a failed start is remembered.
const FAILURE_MEMORY: Duration = Duration::from_secs(5);

/// The service's exit status when another one holds the lock (`docs/contract.md`).
pub const EXIT_ALREADY_RUNNING: i32 = 4;

/// Attempts within a wrapper's time, with pauses that grow between them.
pub struct Attempts {
    deadline: Instant,
    pause: Duration,
    count: u32,
}

impl Attempts {
    /// Attempts for a wrapper that began its work at `begun`.
    pub fn new(begun: Instant) -> Self {
        Self { deadline: begun + BUDGET, pause: PAUSE_MIN, count: 0 }
    }

    /// Waits before the next attempt, if it is not the first. Returns whether there is time for it.
    pub fn begin(&mut self) -> bool {
        self.count += 1;
        if self.is_first() {
            return true;
        }
        let in_time = self.pause < self.left();
        if in_time {
            std::thread::sleep(self.pause);
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        in_time
    }

    /// Whether this is the first one.
    pub fn is_first(&self) -> bool {
        self.count == 1
    }

    /// How much time is left.
    pub fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

/// Writes into the start lock's file that starting has failed, with the file's time as the moment.
pub fn remember_failure(mut lock: File) {
    let _ = lock.set_len(0);
    let _ = lock.write_all(b"failed\n");
}

/// Whether a start has failed a moment ago. One that failed longer ago is forgotten.
///
/// # Errors
/// The system's.
pub fn failed_lately(lock: &File) -> io::Result<bool> {
    let metadata = lock.metadata()?;
    if metadata.len() == 0 {
        return Ok(false);
    }
    // A time in the future (the clock was set back) does not count.
    let age = SystemTime::now().duration_since(metadata.modified()?);
    if age.is_ok_and(|age| age < FAILURE_MEMORY) {
        return Ok(true);
    }
    lock.set_len(0)?;
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_waited_for_no_longer_than_a_wrapper_has_time() {
        let mut attempts = Attempts::new(Instant::now());
        assert!(attempts.begin() && attempts.is_first());
        assert!(attempts.begin() && !attempts.is_first());
        let mut late = Attempts::new(Instant::now().checked_sub(BUDGET).unwrap());
        assert!(late.begin(), "there is always one attempt");
        assert!(!late.begin());
    }

    #[test]
    fn a_start_that_failed_is_remembered_for_a_while() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("lock");
        let lock =
            || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        assert!(!failed_lately(&lock()).unwrap());
        remember_failure(lock());
        assert!(failed_lately(&lock()).unwrap());
        lock().set_modified(SystemTime::now() - FAILURE_MEMORY).unwrap();
        assert!(!failed_lately(&lock()).unwrap());
        // And is forgotten then.
        assert_eq!(lock().metadata().unwrap().len(), 0);
    }
}
