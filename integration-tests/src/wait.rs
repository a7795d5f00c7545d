//! Waiting for something to become true, with an end to the wait.
//!
//! Tests never sleep for a guessed time: they ask again until it is so, and fail when it never is.

use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// How long anything may take before a test fails: far longer than needed on a loaded machine, since only a
/// failing test ever waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long to wait before asking again. Short against a process's start, long against a system call.
const INTERVAL: Duration = Duration::from_millis(5);

/// Asks until `question` has an answer.
///
/// # Panics
/// After [`PATIENCE`], with `what` in the message.
pub fn until<T>(what: &str, mut question: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = question() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {} s in vain: {what}", PATIENCE.as_secs());
        std::thread::sleep(INTERVAL);
    }
}

/// Waits for the end of `child`; kills it when that does not come.
///
/// # Panics
/// After [`PATIENCE`].
pub fn for_exit(child: &mut Child, what: &str) -> ExitStatus {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return status;
        }
        if Instant::now() >= end {
            child.kill().ok();
            child.wait().ok();
            panic!("{what} has not ended within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Whether a process of this id exists and is not merely waiting to be reaped.
pub fn is_alive(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state is the first word behind the name, which is in parentheses and may hold any others.
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}
