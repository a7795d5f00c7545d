//! Times of each contestant, and how they are printed: as ratios of medians.

use std::time::Duration;

/// A bound that is aimed at; shown, never enforced.
#[derive(Clone, Copy)]
pub struct Budget {
    /// Of the median of ours to the base's.
    ratio: f64,
}

impl Budget {
    /// A warm hit against `/bin/true`.
    pub const HIT: Self = Self { ratio: 2.5 };
    /// Warm hits, eight at a time, against `/bin/true` started so: 0.6 of its rate.
    pub const MANY: Self = Self { ratio: 1.67 };
    /// A cold build against the bare one.
    pub const COLD: Self = Self { ratio: 1.15 };
    /// A cold compile of a large file against the bare one.
    pub const COLD_LARGE: Self = Self { ratio: 1.02 };
    /// A cold build of a whole project against the bare one.
    pub const COLD_PROJECT: Self = Self { ratio: 1.05 };
    /// A warm build by ninja against one with `/bin/true` for a compiler, which is ninja's own cost.
    pub const WARM_PROJECT: Self = Self { ratio: 1.3 };
    /// A build after an edit against the bare one.
    pub const EDITED_PROJECT: Self = Self { ratio: 1.03 };
    /// A cold build by Cargo against the bare one.
    pub const COLD_RUST: Self = Self { ratio: 1.05 };
    /// A warm build by Cargo into an empty target directory against the bare one: build scripts still run.
    pub const WARM_RUST: Self = Self { ratio: 0.15 };
}

/// One benchmark's times.
pub struct Table {
    title: String,
    base: &'static str,
    budget: Option<Budget>,
    rows: Vec<(&'static str, Vec<Duration>)>,
}

/// The contestant that a budget is for.
pub const OURS: &str = "zccache";

impl Table {
    /// An empty one, whose ratios are to the contestant named `base`.
    pub fn new(title: String, base: &str, budget: Option<Budget>) -> Self {
        let base = if base == "bare" { "bare" } else { "/bin/true" };
        Self { title, base, budget, rows: Vec::new() }
    }

    /// Adds one time.
    pub fn add(&mut self, name: &'static str, took: Duration) {
        match self.rows.iter_mut().find(|(known, _)| *known == name) {
            Some((_, times)) => times.push(took),
            None => self.rows.push((name, vec![took])),
        }
    }

    /// Prints it.
    pub fn print(&self) {
        println!("\n{}", self.title);
        let [base, ours] = [self.base, OURS].map(|name| self.median_of(name));
        println!(
            "{:<18}{:>10}{:>10}{:>10}{:>13}{:>11}",
            "",
            "min ms",
            "median",
            "max",
            format!("x {}", self.base),
            "x ours"
        );
        for (name, times) in &self.rows {
            let sorted = sorted(times);
            let median = median(&sorted);
            let ratio = |to: Option<f64>| to.map_or("-".to_string(), |to| format!("{:.2}", median / to));
            println!(
                "{name:<18}{:>10.2}{median:>10.2}{:>10.2}{:>13}{:>11}",
                sorted.first().copied().unwrap_or_default(),
                sorted.last().copied().unwrap_or_default(),
                ratio(base),
                ratio(ours)
            );
        }
        if let (Some(budget), Some(base), Some(ours)) = (self.budget, base, ours) {
            let verdict = if ours / base <= budget.ratio { "kept" } else { "MISSED" };
            println!(
                "budget: {:.2} x {} or less; {verdict} with {:.2}",
                budget.ratio,
                self.base,
                ours / base
            );
        }
    }

    /// In milliseconds.
    fn median_of(&self, name: &str) -> Option<f64> {
        self.rows.iter().find(|(known, _)| *known == name).map(|(_, times)| median(&sorted(times)))
    }
}

/// The times in milliseconds, rising.
pub fn sorted(times: &[Duration]) -> Vec<f64> {
    let mut ms: Vec<f64> = times.iter().map(|t| t.as_secs_f64() * 1000.0).collect();
    ms.sort_by(f64::total_cmp);
    ms
}

/// The middle of rising numbers; zero if there are none.
pub fn median(sorted: &[f64]) -> f64 {
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middle_ones() {
        for (ms, expected) in [(&[3, 1, 2][..], 2.0), (&[4, 1, 2, 3], 2.5), (&[7], 7.0), (&[], 0.0)] {
            let times: Vec<Duration> = ms.iter().map(|n| Duration::from_millis(*n)).collect();
            assert!((median(&sorted(&times)) - expected).abs() < 1e-9, "{ms:?}");
        }
    }
}
