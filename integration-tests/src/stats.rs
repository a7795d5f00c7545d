//! The service's counters as `zccache-client stats --json` prints them, and how they changed.

use std::collections::BTreeMap;

use serde_json::Value;

/// The counters that a scenario's steps are held against.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Compile requests received.
    pub requests: u64,
    /// Answered from the cache.
    pub hits: u64,
    /// The tool was run by the service.
    pub misses: u64,
    /// Handed back to the wrapper.
    pub passed_through: u64,
    /// The wrapper ran the tool for want of an answer.
    pub fallbacks_reported: u64,
    /// Results stored.
    pub stored: u64,
}

impl std::ops::Sub for Counters {
    type Output = Counters;

    fn sub(self, before: Counters) -> Counters {
        Counters {
            requests: self.requests.saturating_sub(before.requests),
            hits: self.hits.saturating_sub(before.hits),
            misses: self.misses.saturating_sub(before.misses),
            passed_through: self.passed_through.saturating_sub(before.passed_through),
            fallbacks_reported: self.fallbacks_reported.saturating_sub(before.fallbacks_reported),
            stored: self.stored.saturating_sub(before.stored),
        }
    }
}

/// One printed report.
#[derive(Debug, Clone)]
pub struct Stats {
    /// The counters.
    pub counters: Counters,
    /// The whole object.
    pub json: Value,
}

impl Stats {
    /// Reads what `stats --json` printed.
    ///
    /// # Panics
    /// If it is no JSON object, or a field of the contract is missing or no number.
    pub fn parse(printed: &[u8]) -> Self {
        let json: Value = serde_json::from_slice(printed).unwrap_or_else(|e| {
            panic!("`stats --json` printed no JSON ({e}): {}", String::from_utf8_lossy(printed))
        });
        let number = |name: &str| {
            json[name].as_u64().unwrap_or_else(|| panic!("`stats --json` has no number {name}: {json}"))
        };
        let counters = Counters {
            requests: number("requests"),
            hits: number("hits"),
            misses: number("misses"),
            passed_through: number("passed_through"),
            fallbacks_reported: number("fallbacks_reported"),
            stored: number("stored"),
        };
        Self { counters, json }
    }

    /// A table of reasons and counts: `not_stored`, `pass_through_reasons` or `degraded`.
    pub fn reasons(&self, table: &str) -> BTreeMap<String, u64> {
        let rows =
            self.json[table].as_object().unwrap_or_else(|| panic!("`stats --json` has no object {table}"));
        rows.iter().map(|(reason, count)| (reason.clone(), count.as_u64().unwrap_or_default())).collect()
    }
}
