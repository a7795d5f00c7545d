//! Lease: how long a client is sure to wait still, so that whatever is done for it is done before it gives up.
//!
//! A client that hears nothing for a while runs the tool itself. From then on nothing of ours may touch its outputs,
//! though this process may have slept meanwhile (a debugger, a freezer, a disk that hung): the client may have gone on
//! to other sources long since. So the client says until when it waits at least, each frame that is sent to it
//! prolongs that, and nobody puts a file in place for it without a look at the clock just before.
//!
//! What remains is the moment between that look and the system call behind it. A thread can lose its processor there,
//! so `delivery.rs` never takes away what has come since. A tool is not started on a lease at all, but once its
//! client has been told of it (`compile.rs`).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::sys::time::{ClockId, clock_gettime};
use zccache_proto::message::SILENCE_MAX_MS;

/// What is left of a client's patience when it counts as over: longer than a system call takes on a busy machine.
const MARGIN: Duration = Duration::from_millis(100);

/// A client's patience, in nanoseconds of the system's monotonic clock, which all processes share.
#[derive(Debug)]
pub struct Lease {
    until_ns: AtomicU64,
}

impl Lease {
    /// The lease of a client that waits until `until_ns` at least; 0: it did not say, so as of now.
    pub fn new(until_ns: u64) -> Self {
        let most = now_ns().saturating_add(nanoseconds(Duration::from_millis(SILENCE_MAX_MS)));
        // No client waits longer; one from another time namespace may seem to.
        Self { until_ns: AtomicU64::new(if until_ns == 0 { most } else { until_ns.min(most) }) }
    }

    /// A frame has been sent: the client waits for the next one from now on.
    pub fn renew(&self) {
        let until = now_ns().saturating_add(nanoseconds(Duration::from_millis(SILENCE_MAX_MS)));
        // One that has ended stays so.
        let later = |known: u64| (known != ENDED).then_some(known.max(until));
        let _ = self.until_ns.fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
    }

    /// The client has gone.
    pub fn end(&self) {
        self.until_ns.store(ENDED, Ordering::Release);
    }

    /// Whether the client is sure to wait still.
    pub fn holds(&self) -> bool {
        let until = self.until_ns.load(Ordering::Acquire);
        until != ENDED && now_ns().saturating_add(nanoseconds(MARGIN)) < until
    }
}

/// No moment: the lease has ended.
const ENDED: u64 = 1;

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(now.tv_nsec).unwrap_or(0))
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_holds_until_shortly_before_the_client_gives_up() {
        assert!(Lease::new(0).holds());
        let far = Lease::new(now_ns() + nanoseconds(MARGIN * 1000));
        assert!(far.holds() && far.until_ns.into_inner() <= now_ns() + SILENCE_MAX_MS * 1_000_000);
        for over in [1, now_ns(), now_ns() + nanoseconds(MARGIN / 2)] {
            assert!(!Lease::new(over).holds());
        }
    }

    #[test]
    fn frames_prolong_it_and_nothing_brings_it_back() {
        let lease = Lease::new(now_ns());
        assert!(!lease.holds());
        lease.renew();
        assert!(lease.holds());
        lease.end();
        lease.renew();
        assert!(!lease.holds());
    }
}
