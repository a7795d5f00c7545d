//! What an absolute path looks like on Unix.

/// Whether `path` is absolute.
pub fn is_absolute(path: &[u8]) -> bool {
    path.starts_with(b"/")
}
