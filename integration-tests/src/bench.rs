//! The benchmarks: the same command by each contestant in turn, again and again, compared by medians.
//!
//! Contestants take turns (A B C A B C …), so that whatever else the machine does meets all of them alike. Each
//! has a cache, a service and a `HOME` of its own in a temporary directory. What is timed is one process from
//! its start to its end; files are written and removed outside.

mod attic;
mod contestant;
mod many;
mod observer;
mod project;
mod records;
mod restart;
mod rust;
mod table;
mod tools;
mod workload;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use attic::Attic;
use contestant::{Contestant, in_turn};
use table::{Budget, Table};

/// Rounds of a single compile: enough for a median that moves by less than a tenth between runs.
const HIT_ROUNDS: usize = 60;

/// Rounds before the measured ones: the first compiles, and whatever a cache does only later (an inode cache
/// waits until files have aged).
const WARM_UP_ROUNDS: usize = 3;

/// Rounds of a warm measurement in which the bare compiler takes part: it is there for scale, and takes seconds.
const BARE_ROUNDS: usize = 3;

/// Rounds of a cold build.
const COLD_ROUNDS: usize = 7;

/// The parts, in their order.
const PARTS: [&str; 7] = ["warm", "cold", "observer", "records", "tools", "project", "rust"];

/// What is built of other people's sources, and where those are.
pub struct Sources<'a> {
    /// Lua's C files.
    pub lua: &'a Path,
    /// HDF5, as it is published.
    pub hdf5: &'a Path,
    /// Projects in Rust.
    pub rust: &'a [PathBuf],
}

/// Runs all benchmarks and prints their tables; of `only` one part if that is named.
///
/// # Errors
/// If a file cannot be written, the bare compiler fails, a contestant's result is not the bare one's, or there is no such
/// part.
pub fn run(ours: &Path, peers: &Path, sources: &Sources<'_>, only: Option<&str>) -> io::Result<()> {
    if let Some(part) = only.filter(|part| !PARTS.contains(part)) {
        return Err(io::Error::other(format!("find a part {part:?}: there are {}", PARTS.join(", "))));
    }
    let place = tempfile::Builder::new().prefix("zcb-").tempdir()?;
    // Commands run elsewhere, where a relative path would lead nowhere.
    let (ours, peers) = (std::path::absolute(ours)?, std::path::absolute(peers)?);
    let (contestants, missing) = contestant::all(&ours, &peers, place.path());
    for name in &missing {
        println!("missing, not measured: {name}");
    }
    for contestant in &contestants {
        contestant.start()?;
    }
    let is_asked = |part: &str| only.is_none_or(|only| only == part);
    let cpp = workload::headers_cpp(place.path())?;
    if is_asked("warm") {
        warm(&contestants, &cpp, place.path())?;
    }
    let lua = workload::Lua::read(sources.lua)?;
    if is_asked("cold") {
        cold_compiles(&contestants, &cpp, &lua, place.path())?;
        restart::run(&contestants, place.path())?;
    }
    if is_asked("observer") {
        observer::run(&ours, &lua, &cpp, place.path())?;
    }
    if is_asked("records") {
        records::run(&ours, place.path())?;
    }
    if is_asked("tools") {
        tools::run(&contestants, place.path())?;
    }
    if is_asked("project") {
        project::run(&contestants, sources.hdf5, place.path())?;
    }
    if is_asked("rust") {
        rust::run(&contestants, sources.rust, place.path())?;
    }
    for contestant in &contestants {
        contestant.report();
    }
    Ok(())
}

/// Compiles of C and C++ that were made before, and what is not cached.
fn warm(contestants: &[Contestant], cpp: &workload::Compile, place: &Path) -> io::Result<()> {
    let title = format!("warm hit, C++ of {} headers, object of {} KB", cpp.headers, cpp.object_bytes / 1000);
    single(&title, contestants, &cpp.words, place, "/bin/true", Some(Budget::HIT))?;
    let c = workload::trivial_c(place)?;
    single("warm hit, trivial C", contestants, &c.words, place, "/bin/true", Some(Budget::HIT))?;
    many::run(contestants, &c.words, place)?;
    let version = ["gcc", "--version"].map(String::from);
    single("pass-through, gcc --version", contestants, &version, place, "bare", None)
}

/// Compiles of C and C++ that were never made.
fn cold_compiles(
    contestants: &[Contestant],
    cpp: &workload::Compile,
    lua: &workload::Lua,
    place: &Path,
) -> io::Result<()> {
    for at_a_time in [1, 2] {
        let title = format!("cold build of Lua, {} small C files, {at_a_time} at a time", lua.count());
        let write = |round| lua.write(place, at_a_time * (COLD_ROUNDS + 1) + round);
        cold(&title, contestants, place, at_a_time, Budget::COLD, write)?;
    }
    let title = format!("cold build of {} trivial C files", workload::TRIVIAL_FILES);
    cold(&title, contestants, place, 1, Budget::COLD, |round| workload::trivial_files(place, round))?;
    let title = format!("cold compile, C++ of {} headers", cpp.headers);
    let write = |round| workload::new_headers_cpp(place, round);
    cold(&title, contestants, place, 1, Budget::COLD_LARGE, write)
}

/// One command, by everyone, warm.
fn single(
    title: &str,
    contestants: &[Contestant],
    words: &[String],
    place: &Path,
    base: &str,
    budget: Option<Budget>,
) -> io::Result<()> {
    let compiles = words.iter().any(|word| word == "-c");
    let mut table = Table::new(format!("{title} ({HIT_ROUNDS} rounds)"), base, budget);
    let object = place.join("out.o");
    let attic = Attic::new(place)?;
    let mut expected: Option<Vec<u8>> = None;
    for round in 0..WARM_UP_ROUNDS + HIT_ROUNDS {
        for contestant in in_turn(contestants, |_| true) {
            // Its first round makes the object that all others are compared with.
            let bare_rounds = WARM_UP_ROUNDS..WARM_UP_ROUNDS + BARE_ROUNDS;
            if compiles && contestant.is_bare() && round != 0 && !bare_rounds.contains(&round) {
                continue;
            }
            attic.put(&object)?;
            let took = timed(contestant, words, place)?;
            if round >= WARM_UP_ROUNDS {
                table.add(contestant.name, took);
            }
            if compiles && contestant.compiles() {
                let bytes = std::fs::read(&object)?;
                let same = expected.get_or_insert_with(|| bytes.clone()) == &bytes;
                if !same {
                    return Err(io::Error::other(format!(
                        "match the bare object: {}'s differs",
                        contestant.name
                    )));
                }
            }
        }
    }
    table.print();
    Ok(())
}

/// New C files each round, so many at a time, by everyone but `/bin/true`.
fn cold(
    title: &str,
    contestants: &[Contestant],
    place: &Path,
    at_a_time: usize,
    budget: Budget,
    write: impl Fn(usize) -> io::Result<Vec<Vec<String>>>,
) -> io::Result<()> {
    let title = format!("{title} ({COLD_ROUNDS} rounds)");
    let mut table = Table::new(title, "bare", Some(budget));
    // The first round is not measured: it starts what is started only once.
    for round in 0..=COLD_ROUNDS {
        let files = write(round)?;
        for contestant in in_turn(contestants, Contestant::compiles) {
            let took = many::build(contestant, &files, at_a_time, place)?;
            if round > 0 {
                table.add(contestant.name, took);
            }
        }
    }
    table.print();
    Ok(())
}

/// One process, from before its start until it has been waited for.
fn timed(contestant: &Contestant, words: &[String], place: &Path) -> io::Result<Duration> {
    let mut command = contestant.command(words, place);
    let from = Instant::now();
    let status = command.status()?;
    let took = from.elapsed();
    if !status.success() {
        return Err(io::Error::other(format!("run {:?}: {status}", command)));
    }
    Ok(took)
}
