//! The observer alone: the same compile with and without it, in turn, in one process; nothing is looked up or stored.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::workload::{self, Lua};

/// Pairs of a small compile, and of a large one, which takes a hundred times as long.
const SMALL_PAIRS: usize = 100;
const LARGE_PAIRS: usize = 15;

/// What an observed compile may take of a bare one.
const BUDGET: f64 = 1.03;

/// Prints what being observed costs a small C file, the quickest of Lua's and one of middling size, and a large C++ one.
///
/// # Errors
/// If a run fails.
pub fn run(ours: &Path, lua: &Lua, cpp: &workload::Compile, place: &Path) -> io::Result<()> {
    println!("\nthe observer alone, medians of paired ratios (budget: {BUDGET:.2} x or less)");
    let lines = lua.write(place, usize::MAX)?;
    let of = |source: &str| lines.iter().find(|line| line.iter().any(|word| word == source));
    for source in ["lctype.c", "lapi.c"] {
        let line = of(source).ok_or_else(|| io::Error::other(format!("find {source}")))?;
        compare(&format!("gcc, {source} of Lua"), line, SMALL_PAIRS, ours, place)?;
    }
    compare(&format!("g++, {} headers", cpp.headers), &cpp.words, LARGE_PAIRS, ours, place)
}

fn compare(title: &str, line: &[String], pairs: usize, ours: &Path, place: &Path) -> io::Result<()> {
    let mut observe = Command::new(ours.join("examples/observe"));
    observe.arg("--compare").arg(pairs.to_string()).args(line);
    let output = observe.current_dir(place).stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("observe {line:?}: {}", output.status)));
    }
    println!("{title} ({pairs} pairs): {}", String::from_utf8_lossy(&output.stdout).trim());
    Ok(())
}
