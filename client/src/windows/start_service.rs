//! Connects to the service, and starts one where there is none: the twin of `start_service.rs`.
//!
//! All of it ends within [`BUDGET`] of the wrapper's start. One of many wrappers starts the service, the others wait.

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use zccache_proto::blocking_transport::Connection;
use zccache_proto::endpoint::Endpoint;

use crate::process::spawn_detached;
use crate::wrapper::is_on;

/// From the wrapper's start to a greeting, at most: the promise of "within 1 s".
pub const BUDGET: Duration = Duration::from_secs(1);

/// The first pause between two attempts: a service answers in a few milliseconds.
const PAUSE_MIN: Duration = Duration::from_millis(2);
/// The longest, so that many waiting wrappers do not keep the service from starting.
const PAUSE_MAX: Duration = Duration::from_millis(32);

/// How long a failed start is remembered.
const FAILURE_MEMORY: Duration = Duration::from_secs(5);

/// The service's exit status when another one holds the lock (`docs/contract.md`).
pub const EXIT_ALREADY_RUNNING: i32 = 4;

/// The service's program.
pub const SERVICE_NAME: &str = "zccache-service.exe";

/// Attempts to get a connection.
pub struct Starter<'a> {
    endpoint: &'a Endpoint,
    deadline: Instant,
    pause: Duration,
    attempts: u32,
    /// What was started by us, who hold the lock.
    ours: Option<(Child, File)>,
}

impl<'a> Starter<'a> {
    /// Attempts for a wrapper that began its work at `begun`.
    pub fn new(endpoint: &'a Endpoint, begun: Instant) -> Self {
        Self { endpoint, deadline: begun + BUDGET, pause: PAUSE_MIN, attempts: 0, ours: None }
    }

    /// A connection to a service, which may have had to be started. `None` when the tool should be run instead.
    pub fn connect(&mut self) -> Option<Connection> {
        loop {
            self.attempts += 1;
            if self.attempts > 1 && !self.pause() {
                self.give_up();
                return None;
            }
            match Connection::connect(self.endpoint, self.left()) {
                Ok(connection) => return Some(connection),
                Err(e) if e.kind() == io::ErrorKind::NotFound => self.see_to_one().ok()?,
                Err(_) => return None,
            }
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Waits before another attempt. Returns whether there is time for one.
    fn pause(&mut self) -> bool {
        let in_time = self.pause < self.left();
        if in_time {
            std::thread::sleep(self.pause);
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        in_time
    }

    /// Does what there is to do about a missing service. An error: another attempt makes no sense.
    fn see_to_one(&mut self) -> io::Result<()> {
        match self.ours.take() {
            None => self.begin(),
            Some((mut child, lock)) => match child.try_wait()?.map(|status| status.code()) {
                None => {
                    self.ours = Some((child, lock));
                    Ok(())
                }
                // Somebody else's was faster, or the last one is still leaving.
                Some(Some(EXIT_ALREADY_RUNNING)) => Ok(()),
                Some(_) => {
                    remember_failure(lock);
                    Err(io::ErrorKind::NotFound.into())
                }
            },
        }
    }

    /// Starts a service if nobody else does.
    fn begin(&mut self) -> io::Result<()> {
        if is_on("ZCCACHE_NO_SPAWN") {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.endpoint.prepare()?;
        let program = find_service().ok_or(io::ErrorKind::NotFound)?;
        let lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.endpoint.start_lock())?;
        if lock.try_lock().is_err() {
            // Somebody else is starting one. Should that come to nothing, the lock will be free again.
            return Ok(());
        }
        if failed_lately(&lock)? {
            return Err(io::ErrorKind::Other.into());
        }
        let mut command = Command::new(program);
        command.arg("--daemon").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.ours = Some((spawn_detached(&mut command)?, lock));
        Ok(())
    }

    /// The time is over. A service that was started and lives may only be slow; one that does not has failed.
    fn give_up(&mut self) {
        if let Some((_, lock)) = self.ours.take()
            && !lock_is_held(self.endpoint)
        {
            remember_failure(lock);
        }
    }
}

/// Writes into the start lock's file that starting has failed, with the file's time as the moment.
fn remember_failure(mut lock: File) {
    let _ = lock.set_len(0);
    let _ = lock.write_all(b"failed\n");
}

fn failed_lately(lock: &File) -> io::Result<bool> {
    let metadata = lock.metadata()?;
    if metadata.len() == 0 {
        return Ok(false);
    }
    // A time in the future (the clock was set back) does not count.
    let age = SystemTime::now().duration_since(metadata.modified()?);
    if age.is_ok_and(|age| age < FAILURE_MEMORY) {
        return Ok(true);
    }
    lock.set_len(0)?;
    Ok(false)
}

/// Whether a service holds its lock: lives, though it may not answer yet, or no more.
pub fn lock_is_held(endpoint: &Endpoint) -> bool {
    File::open(endpoint.service_lock()).is_ok_and(|lock| lock.try_lock_shared().is_err())
}

/// The service's program: beside our own, else on `PATH`.
pub fn find_service() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(SERVICE_NAME));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join(SERVICE_NAME));
    beside.into_iter().chain(on_path).find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_waited_for_no_longer_than_a_wrapper_has_time() {
        let temp = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::in_directory(temp.path());
        let now = Instant::now();
        assert!(Starter::new(&endpoint, now).pause());
        assert!(!Starter::new(&endpoint, now.checked_sub(BUDGET).unwrap()).pause());
    }

    #[test]
    fn a_start_that_failed_is_remembered_for_a_while() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("lock");
        let lock =
            || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        assert!(!failed_lately(&lock()).unwrap());
        remember_failure(lock());
        assert!(failed_lately(&lock()).unwrap());
        lock().set_modified(SystemTime::now() - FAILURE_MEMORY).unwrap();
        assert!(!failed_lately(&lock()).unwrap());
        // And is forgotten then.
        assert_eq!(lock().metadata().unwrap().len(), 0);
    }
}
