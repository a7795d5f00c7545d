//! A service that has just been started: the first warm build by it, beside the second; and what it takes while idle.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::contestant::Contestant;
use super::many;
use super::table::{median, sorted};
use super::workload;

/// Restarts, for a median.
const RESTARTS: usize = 7;

/// A round of trivial files that no other row has.
const OWN_ROUND: usize = 1_000_000;

/// What the first build may take of the second.
const BUDGET: f64 = 1.5;

/// How long nothing is asked of the service, to see what it takes all the same: its clocks tick every few seconds.
const IDLE: Duration = Duration::from_secs(30);

/// Prints the two builds of our service, and its processor time while idle.
///
/// # Errors
/// If a run fails or the service cannot be started again.
pub fn run(contestants: &[Contestant], place: &Path) -> io::Result<()> {
    let Some(ours) = contestants.iter().find(|c| c.service_cpu().is_some()) else { return Ok(()) };
    let files = workload::trivial_files(place, OWN_ROUND)?;
    let (mut firsts, mut seconds) = (Vec::new(), Vec::new());
    many::build(ours, &files, 1, place)?;
    for _ in 0..RESTARTS {
        ours.restart()?;
        firsts.push(many::build(ours, &files, 1, place)?);
        seconds.push(many::build(ours, &files, 1, place)?);
    }
    let [first, second] = [&firsts, &seconds].map(|times| median(&sorted(times)));
    println!("\nour service after a restart, {} trivial C files ({RESTARTS} restarts)", files.len());
    let verdict = if first / second <= BUDGET { "kept" } else { "MISSED" };
    println!("first warm build {first:.1} ms, second {second:.1} ms");
    println!("budget: {BUDGET:.2} x the second or less; {verdict} with {:.2}", first / second);
    let before = ours.service_cpu().unwrap_or_default();
    std::thread::sleep(IDLE);
    let took = ours.service_cpu().unwrap_or_default().saturating_sub(before);
    println!(
        "idle for {} s: {:.3} % of a processor",
        IDLE.as_secs(),
        100.0 * took.as_secs_f64() / IDLE.as_secs_f64()
    );
    Ok(())
}
