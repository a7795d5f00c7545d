//! Many wrappers at a time: how many runs there are in a second, and what one costs the service.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::attic::Attic;
use super::contestant::{Contestant, in_turn};
use super::table::{Budget, Table};

/// How many run at a time.
const AT_A_TIME: usize = 8;

/// How many each of them runs in a round.
const RUNS_EACH: usize = 25;

/// Rounds. Of some 200 ms each, for a median that moves little.
const ROUNDS: usize = 7;

/// The same small compile by everyone but the bare compiler, warm, eight at a time.
///
/// # Errors
/// If a run fails.
pub fn run(contestants: &[Contestant], words: &[String], place: &Path) -> io::Result<()> {
    let runs = AT_A_TIME * RUNS_EACH;
    let title = format!("{runs} warm hits, trivial C, {AT_A_TIME} at a time ({ROUNDS} rounds)");
    let mut table = Table::new(title, "/bin/true", Some(Budget::MANY));
    let mut service = None;
    let attic = Attic::new(place)?;
    // The first round makes the results of the other outputs' names.
    for round in 0..=ROUNDS {
        for contestant in in_turn(contestants, |c| !c.is_bare()) {
            let before = contestant.service_cpu();
            for (number, run) in (0..AT_A_TIME).flat_map(|n| (0..RUNS_EACH).map(move |run| (n, run))) {
                attic.put(&place.join(output(number, run)))?;
            }
            let took = one_round(contestant, words, place)?;
            if round > 0 {
                table.add(contestant.name, took);
                if let (Some(before), Some(after)) = (before, contestant.service_cpu()) {
                    let (cpu, hits) = service.get_or_insert((Duration::ZERO, 0));
                    *cpu += after.saturating_sub(before);
                    *hits += runs as u32;
                }
            }
        }
    }
    table.print();
    if let Some((cpu, hits)) = service {
        println!("our service: {:.0} us of processor time for each hit", (cpu / hits).as_secs_f64() * 1e6);
    }
    for contestant in contestants {
        if let Some(bytes) = contestant.service_memory_bytes() {
            println!("our service: {:.1} MiB of memory", bytes as f64 / f64::from(1 << 20));
        }
    }
    Ok(())
}

/// The output of one run of a round: each has its own, as in a build.
fn output(number: usize, run: usize) -> String {
    format!("out{number}_{run}.o")
}

fn one_round(contestant: &Contestant, words: &[String], place: &Path) -> io::Result<Duration> {
    at_once(AT_A_TIME, |number| {
        (0..RUNS_EACH).try_for_each(|run| {
            let own = |word: &String| word.replace("out.o", &output(number, run));
            let words: Vec<String> = words.iter().map(own).collect();
            super::timed(contestant, &words, place).map(drop)
        })
    })
}

/// How long a contestant takes for all `lines`, so many at a time.
///
/// # Errors
/// If a run fails.
pub fn build(
    contestant: &Contestant,
    lines: &[Vec<String>],
    at_a_time: usize,
    place: &Path,
) -> io::Result<Duration> {
    let next = AtomicUsize::new(0);
    at_once(at_a_time, |_| {
        while let Some(words) = lines.get(next.fetch_add(1, Ordering::Relaxed)) {
            super::timed(contestant, words, place)?;
        }
        Ok(())
    })
}

/// How long it takes until so many threads have done `work`.
fn at_once(threads: usize, work: impl Fn(usize) -> io::Result<()> + Sync) -> io::Result<Duration> {
    let from = Instant::now();
    std::thread::scope(|scope| {
        let work = &work;
        let runners: Vec<_> = (0..threads).map(|number| scope.spawn(move || work(number))).collect();
        runners
            .into_iter()
            .try_for_each(|runner| runner.join().unwrap_or_else(|_| Err(io::Error::other("run a thread"))))
    })?;
    Ok(from.elapsed())
}
