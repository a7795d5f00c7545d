//! Where a service listens, and what else lies beside its socket.
//!
//! The socket's name carries the protocol version, so that services of different versions run side by side.
//! The directory is refused if anybody else could put a socket of theirs into it.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::message::protocol_version;
use crate::own_directory;
#[cfg(unix)]
pub use unix::FoundSocket;
#[cfg(unix)]
use unix::default_directory;
#[cfg(windows)]
pub use windows::FoundSocket;
#[cfg(windows)]
use windows::default_directory;

/// A runtime directory and the names of ours in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    directory: PathBuf,
}

impl Endpoint {
    /// The endpoint for an environment: `ZCCACHE_RUNTIME_DIR`, else the platform's place: `$XDG_RUNTIME_DIR/zccache`,
    /// else `/tmp/zccache-UID`; on Windows `%LOCALAPPDATA%\zccache\run`. Relative and empty values count as unset, as
    /// the XDG specification has it.
    pub fn resolve(var: impl Fn(&str) -> Option<OsString>) -> Self {
        let absolute = |name: &str| var(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let directory = absolute("ZCCACHE_RUNTIME_DIR").unwrap_or_else(|| default_directory(&absolute));
        Self { directory }
    }

    /// The endpoint in this directory.
    pub fn in_directory(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The runtime directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Held (locked) for as long as a service lives: there is at most one.
    pub fn service_lock(&self) -> PathBuf {
        self.directory.join(format!("service-{}.lock", protocol_version()))
    }

    /// Held (locked) by the one client that starts a service while others wait.
    pub fn start_lock(&self) -> PathBuf {
        self.directory.join(format!("start-{}.lock", protocol_version()))
    }

    /// The service's process id in decimal digits, for people and scripts.
    pub fn pid_file(&self) -> PathBuf {
        self.directory.join(format!("service-{}.pid", protocol_version()))
    }

    /// One byte per fallback since the service last looked: wrappers append, the service counts its length.
    pub fn fallbacks(&self) -> PathBuf {
        self.directory.join(format!("fallbacks-{}", protocol_version()))
    }

    /// Makes the directory if it is missing, and checks that it is safe.
    ///
    /// # Errors
    /// If it cannot be made, is no directory, belongs to somebody else, or others may write to it, or to one
    /// above it.
    pub fn prepare(&self) -> io::Result<()> {
        own_directory::prepare_strictly(&self.directory)
    }
}
