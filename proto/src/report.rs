//! What `stats` and `status` report. The JSON form of `StatsReport` is a contract with users' scripts
//! (`docs/contract.md`): fields are added, never renamed or removed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Counters and sizes: what `zccache-client stats --json` prints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsReport {
    /// Compile requests received.
    pub requests: u64,
    /// Requests answered from the cache.
    pub hits: u64,
    /// Requests for which the tool was run.
    pub misses: u64,
    /// Requests handed back to the client, to run the tool itself.
    pub passed_through: u64,
    /// Times that a wrapper ran the tool itself because the service did not answer.
    pub fallbacks_reported: u64,
    /// Results stored.
    pub stored: u64,
    /// Results not stored, by reason.
    pub not_stored: BTreeMap<String, u64>,
    /// Requests passed through, by reason.
    pub pass_through_reasons: BTreeMap<String, u64>,
    /// Things that went wrong in the cache itself, by reason; builds went on without it.
    pub degraded: BTreeMap<String, u64>,
    /// The same since the cache was made, whatever services there were.
    #[serde(default)]
    pub all_time: AllTimeReport,
    /// Where the time of hits went, since the service's start: the phases in their order, then `total`. None before the first hit.
    #[serde(default)]
    pub timing: Vec<PhaseReport>,
    /// What is stored.
    pub store: StoreReport,
    /// The service.
    pub service: ServiceReport,
}

/// How long one phase of hits took, in nanoseconds, to within one in a hundred.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseReport {
    /// The phase: `hand_over`, `receive`, `plan`, `check`, `place`, `look_up`, `reply`, `total`; more may come.
    pub phase: String,
    /// How many hits went through it.
    pub count: u64,
    /// Half of them took no longer.
    pub p50_ns: u64,
    /// Of twenty, nineteen took no longer.
    pub p95_ns: u64,
    /// None took longer.
    pub max_ns: u64,
}

/// Counters that survive a restart: since the cache was made, or since `stats --zero`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AllTimeReport {
    /// When counting began, in seconds since the epoch; 0 if that is not known.
    pub since_s: u64,
    /// Compile requests received.
    pub requests: u64,
    /// Requests answered from the cache.
    pub hits: u64,
    /// Requests for which the tool was run.
    pub misses: u64,
    /// Requests handed back to the client.
    pub passed_through: u64,
    /// Times that a wrapper ran the tool for want of an answer.
    pub fallbacks_reported: u64,
    /// Results stored.
    pub stored: u64,
}

/// What is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreReport {
    /// Distinct contents.
    pub blobs: u64,
    /// Results.
    pub records: u64,
    /// Bytes of all blobs, each counted once.
    pub bytes: u64,
    /// Bytes that are not exceeded.
    pub limit_bytes: u64,
    /// Bytes that are not kept a second time, since several outputs have the same content.
    #[serde(default)]
    pub deduplicated_bytes: u64,
    /// Bytes of the records themselves, in the index.
    #[serde(default)]
    pub record_bytes: u64,
    /// Results evicted since the service's start, by limit, age or request.
    #[serde(default)]
    pub evicted: u64,
}

/// Who answers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// The service's version.
    pub version: String,
    /// `protocol_version`.
    pub protocol: u32,
    /// Process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Resident memory in bytes; 0 if the system does not tell.
    pub rss_bytes: u64,
}

/// How the service is: what `zccache-client status` prints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The service.
    pub service: ServiceReport,
    /// `serving` or `shutting down`.
    pub state: String,
    /// Where the cache is.
    pub cache_dir: String,
    /// Where the log is.
    pub log_file: String,
    /// Which observer runs tools: `observed` or `declared`.
    pub observer: String,
    /// Tools running now.
    pub running: u64,
    /// What keeps the cache from working as it should, for people, if anything does.
    pub degraded: Vec<String>,
}
