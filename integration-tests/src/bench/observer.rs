//! The observer alone: the same compile with and without it, in turn, in one process; nothing is looked up or stored.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::workload::{self, Lua};

/// Pairs of a small compile, of each of many, and of a large one, which takes a hundred times as long.
const SMALL_PAIRS: usize = 100;
const EACH_PAIRS: usize = 5;
const LARGE_PAIRS: usize = 15;

/// What an observed compile may take of a bare one.
const BUDGET: f64 = 1.03;

/// A small C file: it takes what the one took by which the design's prototype was measured.
const SMALL: &str = "lapi.c";

/// The quickest of Lua's to compile, a twentieth of that: what starting three programs costs shows most there.
const QUICKEST: &str = "lctype.c";

/// Prints what being observed costs a small C file, the quickest of Lua's, all of Lua's together, and a large C++ one.
///
/// # Errors
/// If a run fails.
pub fn run(ours: &Path, lua: &Lua, cpp: &workload::Compile, place: &Path) -> io::Result<()> {
    println!("\nthe observer alone, medians of paired ratios");
    let lines = lua.write(place, usize::MAX)?;
    let compare = |line: &[String], pairs| compare(line, pairs, ours, place);
    let of = |source: &str| {
        let line = lines.iter().find(|line| line.iter().any(|word| word == source));
        line.ok_or_else(|| io::Error::other(format!("find {source}")))
    };
    let small = compare(of(SMALL)?, SMALL_PAIRS)?;
    small.print(&format!("gcc, {SMALL} of Lua ({SMALL_PAIRS} pairs)"), true);
    let quickest = compare(of(QUICKEST)?, SMALL_PAIRS)?;
    quickest.print(&format!("gcc, {QUICKEST}, the quickest of Lua's ({SMALL_PAIRS} pairs)"), false);
    let mut all = Compared { bare_ms: 0.0, observed_ms: 0.0 };
    for line in &lines {
        let one = compare(line, EACH_PAIRS)?;
        all.bare_ms += one.bare_ms;
        all.observed_ms += one.observed_ms;
    }
    all.print(&format!("gcc, all {} files of Lua ({EACH_PAIRS} pairs each)", lines.len()), false);
    let large = compare(&cpp.words, LARGE_PAIRS)?;
    large.print(&format!("g++, {} headers ({LARGE_PAIRS} pairs)", cpp.headers), true);
    Ok(())
}

/// A compile bare, and what it takes observed by the median of its pairs.
struct Compared {
    bare_ms: f64,
    observed_ms: f64,
}

impl Compared {
    fn print(&self, title: &str, has_budget: bool) {
        let ratio = self.observed_ms / self.bare_ms;
        let verdict = match (has_budget, ratio <= BUDGET) {
            (true, true) => format!("; budget: {BUDGET:.2} x or less; kept"),
            (true, false) => format!("; budget: {BUDGET:.2} x or less; MISSED"),
            (false, _) => String::new(),
        };
        println!("{title}: bare {:.1} ms, observed {ratio:.3} x{verdict}", self.bare_ms);
    }
}

fn compare(line: &[String], pairs: usize, ours: &Path, place: &Path) -> io::Result<Compared> {
    let mut observe = Command::new(ours.join("examples/observe"));
    observe.arg("--compare").arg(pairs.to_string()).args(line);
    let output = observe.current_dir(place).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    // `bare 12.34 ms, observed 1.0123 x; …`
    let number = |after: &str| said.split_once(after)?.1.split(' ').next()?.parse::<f64>().ok();
    match (output.status.success(), number("bare "), number("observed ")) {
        (true, Some(bare_ms), Some(ratio)) => Ok(Compared { bare_ms, observed_ms: bare_ms * ratio }),
        _ => Err(io::Error::other(format!("observe {line:?}: {}: {said}", output.status))),
    }
}
