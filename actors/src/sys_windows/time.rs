//! Clocks.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Which clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockId {
    /// One that never goes back. It is this process's own: clients say nothing of theirs on Windows.
    Monotonic,
    /// The one that files are stamped with.
    RealtimeCoarse,
}

/// A moment.
#[derive(Debug, Clone, Copy)]
pub struct Timespec {
    /// Whole seconds.
    pub tv_sec: i64,
    /// Nanoseconds beyond them.
    pub tv_nsec: i64,
}

/// Where the monotonic clock begins: an hour before it is first asked, so that no moment is 0.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);
const START_S: u64 = 3600;

/// Files are stamped by a clock that stands still between ticks of the system's timer, and the one that can be read does
/// not: the longest tick there is (1/64 s), so that what is read is never ahead of what a file would be stamped with.
const TICK: Duration = Duration::from_micros(15_625);

/// The time by `clock`.
pub fn clock_gettime(clock: ClockId) -> Timespec {
    let (seconds, nanoseconds) = match clock {
        ClockId::Monotonic => {
            let since = START.elapsed();
            (START_S + since.as_secs(), since.subsec_nanos())
        }
        ClockId::RealtimeCoarse => {
            let now = SystemTime::now().checked_sub(TICK).unwrap_or(UNIX_EPOCH);
            let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
            (since.as_secs(), since.subsec_nanos())
        }
    };
    Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: nanoseconds.into() }
}
