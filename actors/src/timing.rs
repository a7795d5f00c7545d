//! Timing: where the time of hits goes, phase by phase, for `stats --timing`.
//!
//! Always on: a lap is a reading of the clock (some 25 ns), a hit one lock.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use zccache_proto::report::PhaseReport;

/// A stretch of a hit's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// From the thread that lets clients in to one that serves them.
    HandOver,
    /// Until the request is read.
    Receive,
    /// What the request means, and its key.
    Plan,
    /// Looking at everything that the result hangs on; its files are written beside their places meanwhile.
    Check,
    /// Putting the files in place.
    Place,
    /// Instead of these two, for a result that was not at hand: the index, those who wait for the same, a large copy.
    LookUp,
    /// Output and end are sent.
    Reply,
    /// All of it.
    Total,
}

/// All of them with their names, in the order in which a hit goes through them.
const PHASES: [(Phase, &str); 8] = [
    (Phase::HandOver, "hand_over"),
    (Phase::Receive, "receive"),
    (Phase::Plan, "plan"),
    (Phase::Check, "check"),
    (Phase::Place, "place"),
    (Phase::LookUp, "look_up"),
    (Phase::Reply, "reply"),
    (Phase::Total, "total"),
];

/// Longer than any phase of a hit that somebody waited for; what takes longer counts as this.
const LONGEST: Duration = Duration::from_secs(600);

/// Digits that are told apart: 97 from 98, not 970 from 975. Some 30 KB for each phase.
const DIGITS: u8 = 2;

/// The times of one request, taken at the end of each phase.
#[derive(Debug, Clone, Copy)]
pub struct Laps {
    began: Instant,
    last: Instant,
    took: [Option<Duration>; PHASES.len()],
}

impl Laps {
    /// Of a request that comes in now.
    pub fn begin() -> Self {
        let now = Instant::now();
        Self { began: now, last: now, took: [None; PHASES.len()] }
    }

    /// `phase` ends now; it began when the one before it ended.
    pub fn lap(&mut self, phase: Phase) {
        let now = Instant::now();
        self.took[phase as usize] = Some(now - self.last);
        self.took[Phase::Total as usize] = Some(now - self.began);
        self.last = now;
    }
}

/// How long the phases of hits took. Takes some 30 KB for each phase, once there is a hit.
#[derive(Debug, Default)]
pub struct Timings(Mutex<Vec<Histogram<u32>>>);

impl Timings {
    /// Adds one hit's.
    pub fn add(&self, laps: &Laps) {
        let mut histograms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if histograms.is_empty() {
            let longest = nanoseconds(LONGEST);
            // Fails for bounds that make no sense only; then nothing is told.
            let Ok(empty) = Histogram::new_with_bounds(1, longest, DIGITS) else { return };
            histograms.resize(PHASES.len(), empty);
        }
        for (histogram, took) in histograms.iter_mut().zip(laps.took) {
            if let Some(took) = took {
                histogram.saturating_record(nanoseconds(took));
            }
        }
    }

    /// What came together of each phase that hits went through. With `zero`, nothing did from now on.
    pub fn read(&self, zero: bool) -> Vec<PhaseReport> {
        let mut histograms = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |((_, name), histogram): (&(Phase, &str), &Histogram<u32>)| PhaseReport {
            phase: (*name).into(),
            count: histogram.len(),
            p50_ns: histogram.value_at_quantile(0.5),
            p95_ns: histogram.value_at_quantile(0.95),
            max_ns: histogram.max(),
        };
        let reports =
            PHASES.iter().zip(histograms.iter()).map(of).filter(|report| report.count > 0).collect();
        if zero {
            histograms.clear();
        }
        reports
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laps(milliseconds: u64) -> Laps {
        let mut laps = Laps::begin();
        laps.took[Phase::Check as usize] = Some(Duration::from_millis(milliseconds));
        laps
    }

    #[test]
    fn phases_stand_where_their_numbers_say() {
        for (number, (phase, _)) in PHASES.into_iter().enumerate() {
            assert_eq!(phase as usize, number);
        }
    }

    #[test]
    fn half_and_nineteen_of_twenty_took_no_longer() {
        let timings = Timings::default();
        assert_eq!(timings.read(false), []);
        for milliseconds in 1..=100 {
            timings.add(&laps(milliseconds));
        }
        let [check] = &timings.read(true)[..] else { panic!("one phase was gone through") };
        assert_eq!((&check.phase[..], check.count), ("check", 100));
        for (told, milliseconds) in [(check.p50_ns, 50), (check.p95_ns, 95), (check.max_ns, 100)] {
            let is = milliseconds * 1_000_000;
            assert!(told.abs_diff(is) <= is / 100, "{told} for {is}");
        }
        assert_eq!(timings.read(false), [], "since zero");
    }

    #[test]
    fn what_takes_longer_than_anybody_waits_counts_as_the_longest() {
        let timings = Timings::default();
        timings.add(&laps(nanoseconds(LONGEST * 3) / 1_000_000));
        let told = timings.read(false)[0].max_ns;
        assert!(told.abs_diff(nanoseconds(LONGEST)) <= nanoseconds(LONGEST) / 50, "{told}");
    }

    #[test]
    fn a_phase_begins_where_the_one_before_it_ended() {
        let mut laps = Laps::begin();
        std::thread::sleep(Duration::from_millis(5));
        laps.lap(Phase::Receive);
        laps.lap(Phase::Plan);
        let took = |phase: Phase| laps.took[phase as usize].unwrap();
        assert!(took(Phase::Receive) >= Duration::from_millis(5));
        assert!(took(Phase::Plan) < took(Phase::Receive));
        assert_eq!(took(Phase::Total), took(Phase::Receive) + took(Phase::Plan));
    }
}
