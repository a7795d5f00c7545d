//! An endpoint's named pipe, on Windows.

use std::io;
use std::path::{Path, PathBuf};

use super::Endpoint;
use crate::message::protocol_version;

/// FNV-1a's start and factor for 64 bits (draft-eastlake-fnv): a short name for a long path, no secret. Two paths with
/// one number would share a pipe; the second service then says that there is one already.
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_FACTOR: u64 = 0x0100_0000_01b3;

/// Where an endpoint lies unless told otherwise. `absolute` is the environment, less what is no absolute path.
pub(super) fn default_directory(absolute: &impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    let ours = absolute("LOCALAPPDATA")
        .or_else(|| absolute("USERPROFILE").map(|home| home.join("AppData").join("Local")))
        .unwrap_or_else(std::env::temp_dir);
    ours.join("zccache").join("run")
}

/// A pipe, of which there is one under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundSocket;

impl Endpoint {
    /// The named pipe: one for each runtime directory, since pipes lie in no directory.
    pub fn socket(&self) -> PathBuf {
        let number = number_of(&self.directory);
        PathBuf::from(format!(r"\\.\pipe\zccache-{}-{number:016x}", protocol_version()))
    }

    /// A pipe goes with its last instance; there is nothing to remove.
    pub fn remove_socket(&self) {}

    /// What is found under the pipe's name: nobody can take that away.
    ///
    /// # Errors
    /// None here.
    pub fn found_socket(&self) -> io::Result<Option<FoundSocket>> {
        Ok(Some(FoundSocket))
    }
}

/// The same for every way to write a directory: the file system does not tell case, nor `/` from `\`.
fn number_of(directory: &Path) -> u64 {
    let whole = std::path::absolute(directory).unwrap_or_else(|_| directory.to_path_buf());
    let text = whole.to_string_lossy().to_lowercase().replace('/', r"\");
    let text = text.trim_end_matches('\\');
    text.bytes().fold(FNV_START, |number, byte| (number ^ u64::from(byte)).wrapping_mul(FNV_FACTOR))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(vars: &[(&str, &str)]) -> PathBuf {
        Endpoint::resolve(|n| vars.iter().find(|v| v.0 == n).map(|v| v.1.into())).directory
    }

    #[test]
    fn the_directory_is_ours_then_the_users_own() {
        let local = ("LOCALAPPDATA", r"C:\Users\a\AppData\Local");
        assert_eq!(resolve(&[("ZCCACHE_RUNTIME_DIR", r"D:\r"), local]), Path::new(r"D:\r"));
        let default = Path::new(r"C:\Users\a\AppData\Local\zccache\run");
        assert_eq!(resolve(&[("ZCCACHE_RUNTIME_DIR", "relative"), local]), default);
        assert_eq!(resolve(&[("USERPROFILE", r"C:\Users\a")]), default);
    }

    #[test]
    fn one_directory_has_one_pipe_however_it_is_written() {
        let pipe = |directory: &str| Endpoint::in_directory(directory).socket();
        assert_eq!(pipe(r"C:\Run\zccache"), pipe(r"c:/run/zccache/"));
        assert_ne!(pipe(r"C:\Run\zccache"), pipe(r"C:\Run\zccache2"));
        assert!(pipe(r"C:\Run").to_string_lossy().starts_with(r"\\.\pipe\zccache-1-"));
    }
}
