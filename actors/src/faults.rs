//! Faults: places where a test can make things go wrong.
//!
//! A build with debug assertions reads `ZCCACHE_FAULTS`: the path of a file with a line per fault, `POINT ACTION`,
//! which is read again at every point, so that a test arms and disarms a running service. A fault strikes once, and
//! leaves an empty file `FILE.POINT` to say so; with `always` behind it, each time. Any other build has nothing
//! of this: a point is an empty function.
//!
//! | action | what happens |
//! |---|---|
//! | `kill` | the process dies as by `kill -9` |
//! | `panic` | a panic |
//! | `full` | the operation fails: no space left on the device |
//! | `files` | the operation fails: too many open files in the system |
//! | `sleep:MS` | the thread sleeps for so long |
//! | `stop` | the process stops itself (SIGSTOP) |
//!
//! The line `clock SECONDS` is none of these: the wall clock is ahead by so much (behind, with a minus) for as long as it
//! is there.

/// A point in an operation that can fail. Free of charge in a release build.
///
/// # Errors
/// What was asked for by a test.
#[inline]
pub fn check(point: &'static str) -> std::io::Result<()> {
    #[cfg(debug_assertions)]
    return armed::strike(point);
    #[cfg(not(debug_assertions))]
    {
        let _ = point;
        Ok(())
    }
}

/// A point in something that cannot fail; an error asked for by a test does not matter here.
#[inline]
pub fn pass(point: &'static str) {
    let _ = check(point);
}

/// How far a test has set the wall clock forward, in seconds.
#[inline]
pub fn clock_s() -> i64 {
    #[cfg(debug_assertions)]
    return armed::clock_s();
    #[cfg(not(debug_assertions))]
    0
}

#[cfg(debug_assertions)]
mod armed {
    use std::fs::File;
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::LazyLock;
    use std::time::Duration;

    use crate::sys::process::{Signal, getpid, kill_process};

    static FILE: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        let named = std::env::var_os("ZCCACHE_FAULTS").map(PathBuf::from);
        named.filter(|path| path.is_absolute())
    });

    pub fn strike(point: &str) -> io::Result<()> {
        let Some(file) = &*FILE else { return Ok(()) };
        let Ok(text) = std::fs::read_to_string(file) else { return Ok(()) };
        let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let Some(words) = lines.find(|words| words.first() == Some(&point)) else { return Ok(()) };
        let first = leave_mark(file, point);
        if !first && words.get(2) != Some(&"always") {
            return Ok(());
        }
        act(words.get(1).copied().unwrap_or_default(), point)
    }

    pub fn clock_s() -> i64 {
        let text = FILE.as_ref().and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        let seconds = text.lines().find_map(|line| line.strip_prefix("clock "));
        seconds.and_then(|seconds| seconds.trim().parse().ok()).unwrap_or(0)
    }

    /// Whether this fault strikes for the first time.
    fn leave_mark(file: &Path, point: &str) -> bool {
        let mut mark = file.as_os_str().to_owned();
        mark.push(".");
        mark.push(point);
        File::options().write(true).create_new(true).open(mark).is_ok()
    }

    fn act(action: &str, point: &str) -> io::Result<()> {
        match action {
            "kill" | "stop" => {
                let signal = if action == "kill" { Signal::KILL } else { Signal::STOP };
                let _ = kill_process(getpid(), signal);
                // A signal to oneself is there at once; but not by promise, where there are threads.
                std::thread::sleep(Duration::from_millis(50));
                Ok(())
            }
            "panic" => panic!("a fault at {point}, on purpose"),
            "full" => Err(io::Error::from_raw_os_error(crate::sys::ENOSPC)),
            "files" => Err(io::Error::from_raw_os_error(crate::sys::ENFILE)),
            sleep => {
                let ms = sleep.strip_prefix("sleep:").and_then(|ms| ms.parse().ok());
                std::thread::sleep(Duration::from_millis(ms.unwrap_or(0)));
                Ok(())
            }
        }
    }
}
