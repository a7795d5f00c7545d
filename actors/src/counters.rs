//! Counters: what `stats` reports. Shared by all threads; counting never waits for an actor, so a client that
//! has its answer finds itself counted.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use zccache_proto::report::{AllTimeReport, StatsReport};

use crate::manifest::now_ms;
use crate::timing::Timings;

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
    /// Where the time of hits went.
    pub timings: Timings,
    /// What earlier services have counted, once the index has told.
    earlier: Mutex<Option<AllTimeReport>>,
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
    /// Takes over what earlier services have counted (nothing, if they left no word); only the first call counts.
    pub fn adopt(&self, earlier: Option<AllTimeReport>) {
        let mut known = self.earlier.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        known.get_or_insert_with(|| {
            earlier.unwrap_or_else(|| AllTimeReport { since_s: now_ms() / 1000, ..AllTimeReport::default() })
        });
    }

    /// What all services have counted; `None` as long as the earlier ones' part is not known.
    pub fn all_time(&self) -> Option<AllTimeReport> {
        let earlier = (*self.earlier.lock().unwrap_or_else(std::sync::PoisonError::into_inner))?;
        let sum = |before: u64, now: &AtomicU64| before.saturating_add(now.load(Ordering::Relaxed));
        Some(AllTimeReport {
            since_s: earlier.since_s,
            requests: sum(earlier.requests, &self.requests),
            hits: sum(earlier.hits, &self.hits),
            misses: sum(earlier.misses, &self.misses),
            passed_through: sum(earlier.passed_through, &self.passed_through),
            fallbacks_reported: sum(earlier.fallbacks_reported, &self.fallbacks_reported),
            stored: sum(earlier.stored, &self.stored),
        })
    }

    /// All counters; `store` and `service` are left for others to fill in. With `zero` they start again at 0.
    pub fn read(&self, zero: bool) -> StatsReport {
        let number =
            |c: &AtomicU64| if zero { c.swap(0, Ordering::Relaxed) } else { c.load(Ordering::Relaxed) };
        let all_time = self.all_time().unwrap_or_default();
        if zero {
            let mut earlier = self.earlier.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *earlier = Some(AllTimeReport { since_s: now_ms() / 1000, ..AllTimeReport::default() });
        }
        StatsReport {
            all_time,
            requests: number(&self.requests),
            hits: number(&self.hits),
            misses: number(&self.misses),
            passed_through: number(&self.passed_through),
            fallbacks_reported: number(&self.fallbacks_reported),
            stored: number(&self.stored),
            not_stored: self.not_stored.read(zero),
            pass_through_reasons: self.pass_through_reasons.read(zero),
            degraded: self.degraded.read(zero),
            timing: self.timings.read(zero),
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
        let all_time = counters.all_time().unwrap();
        assert_eq!((all_time.hits, all_time.requests), (0, 0));
        assert_eq!(counters.read(false), StatsReport { all_time, ..StatsReport::default() });
    }

    #[test]
    fn so_many_reasons_are_counted_and_no_others() {
        let reasons = Reasons::default();
        for number in 0..=REASONS_MAX {
            reasons.count(&format!("{number:04}"));
            reasons.count("0000");
        }
        let read = reasons.read(false);
        assert_eq!(read.len(), REASONS_MAX);
        assert_eq!(read["0000"], REASONS_MAX as u64 + 2, "those that are known are counted on");
        assert!(!read.contains_key(&format!("{REASONS_MAX:04}")));
    }

    #[test]
    fn what_earlier_services_counted_is_added_once() {
        let counters = Counters::default();
        count(&counters.hits);
        assert_eq!(counters.all_time(), None);
        let earlier = AllTimeReport { since_s: 7, hits: 10, ..AllTimeReport::default() };
        counters.adopt(Some(earlier));
        counters.adopt(None);
        count(&counters.misses);
        let expected = AllTimeReport { hits: 11, misses: 1, ..earlier };
        assert_eq!(counters.all_time(), Some(expected));
        assert_eq!(counters.read(true).all_time, expected);
        assert_eq!(counters.all_time().unwrap().hits, 0);
    }
}
