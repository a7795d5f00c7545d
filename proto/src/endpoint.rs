//! Where a service listens, and what else lies beside its socket.
//!
//! The socket's name carries the protocol version, so that services of different versions run side by side.
//! The directory is refused if anybody else could put a socket of theirs into it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::message::PROTOCOL_VERSION;
use crate::own_directory;

/// The most bytes a socket address holds on Linux (`sun_path`, with its NUL). Longer paths are reached
/// through the directory's descriptor.
const SOCKET_ADDRESS_BYTES_MAX: usize = 107;

/// A runtime directory and the names of ours in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    directory: PathBuf,
}

impl Endpoint {
    /// The endpoint for an environment: `ZCCACHE_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/zccache`, else
    /// `/tmp/zccache-UID`. Relative and empty values count as unset, as the XDG specification has it.
    pub fn resolve(var: impl Fn(&str) -> Option<OsString>) -> Self {
        let absolute = |name| var(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let directory = absolute("ZCCACHE_RUNTIME_DIR")
            .or_else(|| absolute("XDG_RUNTIME_DIR").map(|d| d.join("zccache")))
            .unwrap_or_else(|| {
                PathBuf::from(format!("/tmp/zccache-{}", rustix::process::geteuid().as_raw()))
            });
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

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join(socket_name())
    }

    /// Held (`flock`) for as long as a service lives: there is at most one.
    pub fn service_lock(&self) -> PathBuf {
        self.directory.join(format!("service-{PROTOCOL_VERSION}.lock"))
    }

    /// Held (`flock`) by the one client that starts a service while others wait.
    pub fn start_lock(&self) -> PathBuf {
        self.directory.join(format!("start-{PROTOCOL_VERSION}.lock"))
    }

    /// The service's process id in decimal digits, for people and scripts.
    pub fn pid_file(&self) -> PathBuf {
        self.directory.join(format!("service-{PROTOCOL_VERSION}.pid"))
    }

    /// One byte per fallback since the service last looked: wrappers append, the service counts its length.
    pub fn fallbacks(&self) -> PathBuf {
        self.directory.join(format!("fallbacks-{PROTOCOL_VERSION}"))
    }

    /// Makes the directory if it is missing, and checks that it is safe.
    ///
    /// # Errors
    /// If it cannot be made, is no directory, belongs to somebody else, or others may write to it, or to one
    /// above it.
    pub fn prepare(&self) -> io::Result<()> {
        own_directory::prepare_strictly(&self.directory)
    }

    /// The directory, opened, after the checks of [`prepare`](Self::prepare) that cost nothing.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare), but a missing directory is an error too.
    pub fn open_directory(&self) -> io::Result<OwnedFd> {
        own_directory::open_strictly(&self.directory)
    }

    /// Calls `with` with a path to the socket that fits a socket address, however long the directory's is.
    ///
    /// # Errors
    /// Those of `with`, and of opening the directory if its path is too long.
    pub fn with_short_path<T>(&self, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        let path = self.socket();
        if path.as_os_str().as_bytes().len() <= SOCKET_ADDRESS_BYTES_MAX {
            return with(&path);
        }
        let directory = self.open_directory()?;
        with(&Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(socket_name()))
    }
}

fn socket_name() -> String {
    format!("zccache-{PROTOCOL_VERSION}.sock")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn resolve(vars: &[(&str, &str)]) -> PathBuf {
        Endpoint::resolve(|n| vars.iter().find(|v| v.0 == n).map(|v| v.1.into())).directory
    }

    #[test]
    fn the_directory_is_ours_then_xdg_then_tmp() {
        assert_eq!(resolve(&[("ZCCACHE_RUNTIME_DIR", "/r"), ("XDG_RUNTIME_DIR", "/x")]), Path::new("/r"));
        assert_eq!(
            resolve(&[("ZCCACHE_RUNTIME_DIR", ""), ("XDG_RUNTIME_DIR", "/x")]),
            Path::new("/x/zccache")
        );
        assert!(resolve(&[("XDG_RUNTIME_DIR", "relative")]).starts_with("/tmp"));
    }

    #[test]
    fn a_directory_that_others_may_write_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::in_directory(temp.path().join("a/b"));
        endpoint.prepare().unwrap();
        assert_eq!(endpoint.directory().metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::set_permissions(endpoint.directory(), PermissionsExt::from_mode(0o770)).unwrap();
        assert!(endpoint.prepare().unwrap_err().to_string().contains("written by others"));
        std::os::unix::fs::symlink(temp.path().join("a"), temp.path().join("link")).unwrap();
        assert!(Endpoint::in_directory(temp.path().join("link")).prepare().is_err());
    }

    #[test]
    fn long_directories_give_short_paths() {
        let temp = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::in_directory(temp.path().join("x".repeat(200)));
        endpoint.prepare().unwrap();
        endpoint.with_short_path(|p| std::fs::write(p, "found")).unwrap();
        assert_eq!(std::fs::read_to_string(endpoint.socket()).unwrap(), "found");
    }
}
