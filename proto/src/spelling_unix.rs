//! What an absolute path looks like on Unix, and a variable's name.

/// Whether `path` is absolute.
pub fn is_absolute(path: &[u8]) -> bool {
    path.starts_with(b"/")
}

/// Whether `one` and `other` are the same variable.
pub fn is_same_variable(one: &[u8], other: &[u8]) -> bool {
    one == other
}
