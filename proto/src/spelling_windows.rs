//! What an absolute path looks like on Windows, and a variable's name.

/// Whether `path` is absolute: begins at a drive (`C:\`, `C:/`) or is a share's (`\\server\…`).
pub fn is_absolute(path: &[u8]) -> bool {
    match path {
        [drive, b':', b'\\' | b'/', ..] => drive.is_ascii_alphabetic(),
        [b'\\', b'\\', ..] => true,
        _ => false,
    }
}

/// Whether `one` and `other` are the same variable: `Path` is `PATH`.
pub fn is_same_variable(one: &[u8], other: &[u8]) -> bool {
    one.eq_ignore_ascii_case(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives_and_shares_are_absolute_and_nothing_else_is() {
        for absolute in [r"C:\", "d:/a b", r"\\server\share\x", r"\\?\C:\x"] {
            assert!(is_absolute(absolute.as_bytes()), "{absolute}");
        }
        for relative in ["", "C:", r"C:x", r"\x", "/x", "x", r"1:\x"] {
            assert!(!is_absolute(relative.as_bytes()), "{relative}");
        }
    }

    #[test]
    fn the_case_of_a_variable_means_nothing() {
        assert!(is_same_variable(b"Path", b"PATH"));
        assert!(!is_same_variable(b"Path", b"PATHEXT"));
    }
}
