//! How names are spelled on Unix: paths and lists of them, programs, variables.

use std::borrow::Cow;
use std::path::PathBuf;

pub use zccache_proto::spelling::is_absolute;

/// What may stand for no input at all on a compiler's command line.
pub const NO_INPUT: &str = "/dev/null";

/// Whether this stands between a directory and a name.
pub fn is_separator(b: u8) -> bool {
    b == b'/'
}

/// A path as the rest of this crate takes it apart: at slashes.
pub fn plain(path: &[u8]) -> Cow<'_, [u8]> {
    Cow::Borrowed(path)
}

/// Where an absolute path begins, with its slash, and the rest of it; nothing for a relative one.
pub fn split_root(path: &[u8]) -> Option<(&[u8], &[u8])> {
    path.starts_with(b"/").then(|| path.split_at(1))
}

/// Why a compiler may take this name for another one than we do, if it may.
pub fn oddness(_: &[u8]) -> Option<&'static str> {
    None
}

/// The paths in a list such as `PATH` is.
pub fn list(list: &[u8]) -> Vec<Vec<u8>> {
    list.split(|&b| b == b':').map(<[u8]>::to_vec).collect()
}

/// A program's name as tables have it, from the name of its file.
pub fn program(file: &[u8]) -> Cow<'_, [u8]> {
    Cow::Borrowed(file)
}

/// The names that the file of a program may have, the first that is there being the one.
pub fn program_files(name: &str) -> Vec<Vec<u8>> {
    vec![name.as_bytes().to_vec()]
}

/// A variable's name as tables have it.
pub fn variable(name: &[u8]) -> Cow<'_, [u8]> {
    Cow::Borrowed(name)
}

/// How a program at `path` is started so that it is called `name`: by its path, as the name goes its own way.
pub fn called(path: PathBuf, _: &[u8]) -> PathBuf {
    path
}

/// Whether programs may take this argument for others than it is when it is handed to them by us: here it comes to them
/// as it is.
pub fn is_expanded(_argument: &[u8]) -> bool {
    false
}
