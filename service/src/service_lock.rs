//! Being the only service at an endpoint.

use std::fs::File;
use std::io::{self, Write};

use anyhow::Context;
use zccache_actors::sys::OpenOptionsExt;
use zccache_proto::endpoint::Endpoint;

/// The lock that makes this the one service at its endpoint, for as long as it is held.
#[derive(Debug)]
pub struct ServiceLock {
    _file: File,
}

/// There is a service at this endpoint already.
#[derive(Debug, thiserror::Error)]
#[error("a service is running already (process {pid}) at {directory}")]
pub struct AlreadyRunning {
    pid: String,
    directory: String,
}

impl ServiceLock {
    /// Takes the lock, and writes the process id beside it.
    ///
    /// # Errors
    /// [`AlreadyRunning`], or that the runtime directory cannot be used.
    pub fn take(endpoint: &Endpoint) -> anyhow::Result<Self> {
        let directory = endpoint.directory().display().to_string();
        endpoint.prepare().with_context(|| format!("runtime directory {directory}"))?;
        let open = |path| File::options().create(true).truncate(false).write(true).mode(0o600).open(path);
        let path = endpoint.service_lock();
        let file = open(path.clone()).with_context(|| path.display().to_string())?;
        if file.try_lock().is_err() {
            let pid = std::fs::read_to_string(endpoint.pid_file()).unwrap_or_default().trim().to_owned();
            return Err(AlreadyRunning { pid, directory }.into());
        }
        Ok(Self { _file: file })
    }

    /// Writes the process id for people and scripts. To be called by the process that stays. Returns that of the last
    /// service here, if it did not end by itself.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write_pid(&self, endpoint: &Endpoint) -> io::Result<Option<String>> {
        let path = endpoint.pid_file();
        let before = std::fs::read_to_string(&path).map(|text| text.trim().to_owned());
        let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(path)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(before.ok().filter(|pid| !pid.is_empty()))
    }

    /// Ends being the service here, everything being written and closed.
    pub fn release(self, endpoint: &Endpoint) {
        // Before the lock is free, or it might be the next service's: as it is if the directory was cleared away meanwhile.
        // One that stays only has the next one say so.
        let path = endpoint.pid_file();
        if std::fs::read_to_string(&path).is_ok_and(|text| text.trim() == std::process::id().to_string()) {
            let _ = std::fs::remove_file(path);
        }
    }
}
