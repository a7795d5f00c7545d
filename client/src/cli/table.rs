//! Reports as text for people.

use std::collections::BTreeMap;

use comfy_table::{CellAlignment, Table, presets};
use zccache_proto::endpoint::Endpoint;
use zccache_proto::report::{AllTimeReport, ServiceReport, StatsReport, StatusReport};

/// `zccache-client stats`.
pub fn stats(report: &StatsReport) -> String {
    let mut rows = Rows::new();
    rows.add("requests", report.requests);
    rows.add("hits", report.hits);
    rows.add("misses", report.misses);
    rows.add("hit rate", percentage(report.hits, report.hits + report.misses));
    rows.add("passed through", report.passed_through);
    rows.add_reasons(&report.pass_through_reasons);
    rows.add("stored", report.stored);
    rows.add("not stored", report.not_stored.values().sum::<u64>());
    rows.add_reasons(&report.not_stored);
    rows.add("fallbacks", report.fallbacks_reported);
    if !report.degraded.is_empty() {
        rows.add("degraded", report.degraded.values().sum::<u64>());
        rows.add_reasons(&report.degraded);
    }
    let store = &report.store;
    rows.add("results in the cache", store.records);
    rows.add("files in the cache", store.blobs);
    rows.add("size", format!("{} of {}", size(store.bytes), size(store.limit_bytes)));
    rows.add("full", percentage(store.bytes, store.limit_bytes));
    rows.add("kept once, not again", size(store.deduplicated_bytes));
    rows.add("size of the records", size(store.record_bytes));
    rows.add("evicted", store.evicted);
    rows.add_all_time(&report.all_time);
    rows.add_service(&report.service);
    rows.finish()
}

/// `zccache-client stats --timing`.
pub fn timing(report: &StatsReport) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["phase of a hit", "hits", "half within", "95 % within", "all within"]);
    for phase in &report.timing {
        let times = [phase.p50_ns, phase.p95_ns, phase.max_ns].map(time);
        table.add_row([phase.phase.clone(), phase.count.to_string()].into_iter().chain(times));
    }
    for column in 1..5 {
        if let Some(numbers) = table.column_mut(column) {
            numbers.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// `zccache-client status`.
pub fn status(report: &StatusReport, endpoint: &Endpoint) -> String {
    let mut rows = Rows::new();
    rows.add("state", &report.state);
    rows.add_service(&report.service);
    rows.add("running tools", report.running);
    rows.add("observer", &report.observer);
    rows.add("cache", &report.cache_dir);
    rows.add("log", &report.log_file);
    rows.add("socket", endpoint.socket().display());
    for reason in &report.degraded {
        rows.add("degraded", reason);
    }
    rows.finish()
}

struct Rows(Table);

impl Rows {
    fn new() -> Self {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        Self(table)
    }

    fn add(&mut self, name: &str, value: impl ToString) {
        self.0.add_row([name.to_string(), value.to_string()]);
    }

    fn add_reasons(&mut self, reasons: &BTreeMap<String, u64>) {
        let mut reasons: Vec<_> = reasons.iter().collect();
        reasons.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (reason, count) in reasons {
            self.add(&format!("  {reason}"), count);
        }
    }

    fn add_all_time(&mut self, all: &AllTimeReport) {
        if all.requests == 0 {
            return;
        }
        self.add("of all times, requests", all.requests);
        self.add("  hits", all.hits);
        self.add("  misses", all.misses);
        self.add("  hit rate", percentage(all.hits, all.hits + all.misses));
        self.add("  passed through", all.passed_through);
        self.add("  fallbacks", all.fallbacks_reported);
    }

    fn add_service(&mut self, service: &ServiceReport) {
        self.add("service", format!("{} (protocol {})", service.version, service.protocol));
        self.add("process", service.pid);
        self.add("up for", duration(service.uptime_s));
        if service.rss_bytes > 0 {
            self.add("memory", size(service.rss_bytes));
        }
    }

    fn finish(mut self) -> String {
        if let Some(names) = self.0.column_mut(0) {
            names.set_padding((0, 1));
        }
        self.0.trim_fmt()
    }
}

/// Bytes in the unit that leaves at most four digits before the point.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Nanoseconds in the unit that leaves at most four digits before the point.
fn time(nanoseconds: u64) -> String {
    match nanoseconds {
        0..10_000_000 => format!("{:.1} us", nanoseconds as f64 / 1e3),
        _ => format!("{:.1} ms", nanoseconds as f64 / 1e6),
    }
}

fn percentage(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".into(),
        whole => format!("{:.1} %", part as f64 * 100.0 / whole as f64),
    }
}

fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zccache_proto::report::PhaseReport;

    #[test]
    fn sizes_rates_and_times_are_for_people() {
        let sizes =
            [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536, "1.5 KiB"), (1 << 20, "1.0 MiB")];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size(10 << 30), "10.0 GiB");
        assert_eq!(size(u64::MAX), "16384.0 PiB");
        assert_eq!((percentage(0, 0), percentage(1, 3)), ("-".into(), "33.3 %".into()));
        for (seconds, text) in [(9, "9 s"), (61, "1 min 1 s"), (7260, "2 h 1 min"), (90_000, "1 d 1 h")] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn each_phase_has_a_line_with_its_times() {
        let phase = |phase: &str, p50_ns| PhaseReport {
            phase: phase.into(),
            count: 3,
            p50_ns,
            p95_ns: 9_999_960,
            max_ns: 12_345_678,
        };
        let report =
            StatsReport { timing: vec![phase("plan", 7_000), phase("total", 150)], ..StatsReport::default() };
        let text = timing(&report);
        let lines: Vec<_> =
            text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(lines[1..], ["plan 3 7.0 us 10000.0 us 12.3 ms", "total 3 0.1 us 10000.0 us 12.3 ms"]);
    }

    #[test]
    fn a_table_has_the_reasons_below_their_sum_most_frequent_first() {
        let mut report = StatsReport { hits: 3, misses: 1, passed_through: 5, ..StatsReport::default() };
        report.pass_through_reasons = [("linking".to_string(), 1), ("stdin".to_string(), 4)].into();
        let text = stats(&report);
        let lines: Vec<_> =
            text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let at =
            |line: &str| lines.iter().position(|l| l == line).unwrap_or_else(|| panic!("{line} in {text}"));
        at("hit rate 75.0 %");
        assert_eq!(at("passed through 5") + 1, at("stdin 4"));
        assert_eq!(at("stdin 4") + 1, at("linking 1"));
    }
}
