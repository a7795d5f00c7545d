//! Counters: what `stats` reports. Shared by all threads; counting never waits for an actor, so a client that
//! has its answer finds itself counted.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use zccache_proto::report::StatsReport;

/// The most distinct reasons kept per map: reasons are fixed phrases of ours, so this only bounds a mistake.
const REASONS_MAX: usize = 256;

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Counters {
    /// Compile requests received.
    pub requests: AtomicU64,
    /// Requests answered from the cache.
    pub hits: AtomicU64,
    /// Requests for which the tool was run.
    pub misses: AtomicU64,
    /// Requests handed back.
    pub passed_through: AtomicU64,
    /// Fallbacks that wrappers reported.
    pub fallbacks_reported: AtomicU64,
    /// Results stored.
    pub stored: AtomicU64,
    /// Results not stored, by reason.
    pub not_stored: Reasons,
    /// Requests passed through, by reason.
    pub pass_through_reasons: Reasons,
    /// Failures of the cache itself, by reason.
    pub degraded: Reasons,
}

/// Counts by reason.
#[derive(Debug, Default)]
pub struct Reasons(Mutex<BTreeMap<String, u64>>);

impl Reasons {
    /// Counts one more of `reason`.
    pub fn count(&self, reason: &str) {
        let mut map = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(n) = map.get_mut(reason) {
            *n += 1;
        } else if map.len() < REASONS_MAX {
            map.insert(reason.to_owned(), 1);
        }
    }

    fn read(&self, zero: bool) -> BTreeMap<String, u64> {
        let mut map = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if zero { std::mem::take(&mut map) } else { map.clone() }
    }
}

/// Counts one more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    /// All counters; `store` and `service` are left for others to fill in. With `zero` they start again at 0.
    pub fn read(&self, zero: bool) -> StatsReport {
        let number =
            |c: &AtomicU64| if zero { c.swap(0, Ordering::Relaxed) } else { c.load(Ordering::Relaxed) };
        StatsReport {
            requests: number(&self.requests),
            hits: number(&self.hits),
            misses: number(&self.misses),
            passed_through: number(&self.passed_through),
            fallbacks_reported: number(&self.fallbacks_reported),
            stored: number(&self.stored),
            not_stored: self.not_stored.read(zero),
            pass_through_reasons: self.pass_through_reasons.read(zero),
            degraded: self.degraded.read(zero),
            ..StatsReport::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_reads_and_resets() {
        let counters = Counters::default();
        count(&counters.hits);
        counters.not_stored.count("signal");
        counters.not_stored.count("signal");
        let report = counters.read(true);
        assert_eq!((report.hits, report.not_stored["signal"]), (1, 2));
        assert_eq!(counters.read(false), StatsReport::default());
    }
}
