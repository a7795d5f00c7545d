//! An endpoint's socket, on Unix.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::Endpoint;
use crate::kernel::{self, SOCKET_ADDRESS_BYTES_MAX};
use crate::message::protocol_version;
use crate::own_directory;

/// A socket's file, told from any other under its name: while the socket is bound, no other file gets its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundSocket {
    device: u64,
    inode: u64,
}

/// Where an endpoint lies unless told otherwise. `absolute` is the environment, less what is no absolute path.
pub(super) fn default_directory(absolute: &impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    let ours = || PathBuf::from(format!("/tmp/zccache-{}", rustix::process::geteuid().as_raw()));
    absolute("XDG_RUNTIME_DIR").map_or_else(ours, |directory| directory.join("zccache"))
}

impl Endpoint {
    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join(socket_name())
    }

    /// What is found under the socket's name, if anything is.
    ///
    /// # Errors
    /// The system's, if it does not tell.
    pub fn found_socket(&self) -> io::Result<Option<FoundSocket>> {
        match std::fs::symlink_metadata(self.socket()) {
            Ok(found) => Ok(Some(FoundSocket { device: found.dev(), inode: found.ino() })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Removes the socket, so that nobody finds it any more.
    pub fn remove_socket(&self) {
        let _ = std::fs::remove_file(self.socket());
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
        with(&kernel::path_through(&directory, socket_name())?)
    }
}

fn socket_name() -> String {
    format!("zccache-{}.sock", protocol_version())
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
        // As long as fits an address stays as it is, and one byte more does not.
        let others = temp.path().join(socket_name()).as_os_str().len() + 1;
        for (more, is_as_it_is) in [(0, true), (1, false)] {
            let name = "x".repeat(SOCKET_ADDRESS_BYTES_MAX - others + more);
            let endpoint = Endpoint::in_directory(temp.path().join(name));
            endpoint.prepare().unwrap();
            let given = endpoint.with_short_path(|path| Ok(path.to_path_buf())).unwrap();
            assert_eq!(given == endpoint.socket(), is_as_it_is);
        }
    }
}
