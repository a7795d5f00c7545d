//! An index of many results: how long a start takes to its first answer, what a hit takes then, and how much memory the
//! service needs to know of all of them.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::contestant::{self, Contestant};
use super::table::{median, sorted};
use super::workload;

/// How many results there are: few, for comparison, and many.
const RESULTS: [usize; 2] = [1_000, 100_000];

/// Names a number of results that takes the place of the larger one: a million take half an hour to make.
const MORE: &str = "BENCH_RESULTS";

/// Observations of each: as a small file in C has.
const OBSERVATIONS: usize = 50;

/// Starts, for a median.
const STARTS: usize = 5;

/// Hits, for a median.
const HITS: usize = 60;

/// How long nothing is asked of a service before its memory is looked at.
const REST: Duration = Duration::from_secs(3);

/// How long an index may take until it is open, and how often it is looked whether it is.
const OPENING_MAX: Duration = Duration::from_secs(600);
const OPENING_STEP: Duration = Duration::from_millis(100);

/// Prints for each number of results what a service with so many takes.
///
/// # Errors
/// If a cache cannot be filled, the service not started, or a run fails.
pub fn run(binaries: &Path, place: &Path) -> io::Result<()> {
    let words = workload::trivial_c(place)?.words;
    let more = std::env::var(MORE).ok().and_then(|number| number.parse().ok());
    let mut services = Vec::new();
    for (number, results) in [RESULTS[0], more.unwrap_or(RESULTS[1])].into_iter().enumerate() {
        let Some(service) = contestant::ours_alone(binaries, &place.join(format!("r{number}"))) else {
            return Ok(());
        };
        let took = fill(binaries, &service, results)?;
        println!(
            "\n{results} results of {OBSERVATIONS} observations, made within {:.0} s",
            took.as_secs_f64()
        );
        let mut starts = Vec::new();
        for _ in 0..STARTS {
            service.stop()?;
            let from = Instant::now();
            service.start()?;
            starts.push(from.elapsed());
        }
        let opened = opened(&service, &words, place)?;
        std::thread::sleep(REST);
        let bytes = service.service_memory_bytes().unwrap_or_default();
        println!("start to the first answer {:.1} ms ({STARTS} starts)", median(&sorted(&starts)));
        println!(
            "hits from {:.1} s after it: until then the index is being opened, and tools are run",
            opened.as_secs_f64()
        );
        println!("memory of the service then {:.1} MiB", bytes as f64 / f64::from(1 << 20));
        services.push((results, service, Vec::new()));
    }
    // In turns, whatever else the machine does; the first ones make the result.
    for round in 0..HITS + 3 {
        for (_, service, hits) in &mut services {
            let took = super::timed(service, &words, place)?;
            if round >= 3 {
                hits.push(took);
            }
        }
    }
    println!();
    for (results, _, hits) in &services {
        println!("a hit among {results} results: {:.2} ms ({HITS} hits)", median(&sorted(hits)));
    }
    Ok(())
}

/// How long it takes until a service that has just been started finds what is not in its head start: a hit, which the
/// index must be open for.
fn opened(service: &Contestant, words: &[String], place: &Path) -> io::Result<Duration> {
    let from = Instant::now();
    while service.hits()? == 0 {
        if from.elapsed() > OPENING_MAX {
            return Err(io::Error::other("find a result: the index is not opened"));
        }
        super::timed(service, words, place)?;
        std::thread::sleep(OPENING_STEP);
    }
    Ok(from.elapsed())
}

/// Fills the cache of a service that does not run.
fn fill(binaries: &Path, service: &Contestant, results: usize) -> io::Result<Duration> {
    let from = Instant::now();
    let mut command = Command::new(binaries.join("examples/fill_cache"));
    let words = [results, OBSERVATIONS].map(|number| OsString::from(number.to_string()));
    command.arg(service.cache_dir()).args(words).stdin(Stdio::null()).stdout(Stdio::null());
    match command.status()?.success() {
        true => Ok(from.elapsed()),
        false => Err(io::Error::other("fill a cache")),
    }
}
