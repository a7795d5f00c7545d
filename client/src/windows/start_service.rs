//! Connects to the service, and starts one where there is none: the twin of `start_service.rs`.
//!
//! All of it ends within [`crate::starting::BUDGET`] of the wrapper's start. One of many wrappers starts the service, the others wait.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use zccache_proto::blocking_transport::Connection;
use zccache_proto::endpoint::Endpoint;

use crate::process::spawn_detached;
use crate::starting::{Attempts, EXIT_ALREADY_RUNNING, failed_lately, remember_failure};
use crate::wrapper::is_on;

/// The service's program.
pub const SERVICE_NAME: &str = "zccache-service.exe";

/// Attempts to get a connection.
pub struct Starter<'a> {
    endpoint: &'a Endpoint,
    attempts: Attempts,
    /// What was started by us, who hold the lock.
    ours: Option<(Child, File)>,
}

impl<'a> Starter<'a> {
    /// Attempts for a wrapper that began its work at `begun`.
    pub fn new(endpoint: &'a Endpoint, begun: Instant) -> Self {
        Self { endpoint, attempts: Attempts::new(begun), ours: None }
    }

    /// A connection to a service, which may have had to be started. `None` when the tool should be run instead.
    pub fn connect(&mut self) -> Option<Connection> {
        loop {
            if !self.attempts.begin() {
                self.give_up();
                return None;
            }
            match Connection::connect(self.endpoint, self.attempts.left()) {
                Ok(connection) => return Some(connection),
                Err(e) if e.kind() == io::ErrorKind::NotFound => self.see_to_one().ok()?,
                Err(_) => return None,
            }
        }
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
