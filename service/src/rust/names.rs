//! Names of Rust's compilers and of the programs that they run.

use crate::c_family::names::{is_clang_program, is_gcc_program};

/// Which of Rust's compilers a tool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Driver {
    /// `rustc`.
    Rustc,
    /// `clippy-driver`: rustc with more lints, called with or without `rustc` as its first argument.
    Clippy,
}

/// The compiler of this base name. Distributions add a version (`rustc-1.75`).
pub fn driver_named(name: &[u8]) -> Option<Driver> {
    match without_version(name) {
        b"rustc" => Some(Driver::Rustc),
        b"clippy-driver" => Some(Driver::Clippy),
        _ => None,
    }
}

/// Whether a program, by the base name of its resolved path, is one whose reading of the environment is in the table:
/// the compilers, rustup's stand-in for all of them, and linkers.
pub fn is_rust_program(name: &[u8]) -> bool {
    const LINKERS: &[&[u8]] =
        &[b"rust-lld", b"lld-wrapper", b"lld", b"wild", b"mold", b"ld64.lld", b"wasm-ld"];
    driver_named(name).is_some()
        || name == b"rustup"
        || LINKERS.contains(&name)
        || is_gcc_program(name)
        || is_clang_program(name)
}

fn without_version(name: &[u8]) -> &[u8] {
    let is_version = |b: &u8| b.is_ascii_digit() || *b == b'.';
    let end = name.iter().rposition(|b| !is_version(b)).map_or(0, |last| last + 1);
    match name[..end].strip_suffix(b"-") {
        Some(stem) if end < name.len() => stem,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compilers_are_known_with_and_without_a_version() {
        for (name, expect) in [
            ("rustc", Some(Driver::Rustc)),
            ("rustc-1.75", Some(Driver::Rustc)),
            ("clippy-driver", Some(Driver::Clippy)),
            ("rustdoc", None),
            ("rustc-", None),
            ("rustc1.75", None),
            ("cargo", None),
        ] {
            assert_eq!(driver_named(name.as_bytes()), expect, "{name}");
        }
    }

    #[test]
    fn linkers_are_known_and_shells_are_not() {
        for name in
            ["rustc", "rustup", "rust-lld", "ld.lld", "x86_64-linux-gnu-gcc-12", "collect2", "clang-14"]
        {
            assert!(is_rust_program(name.as_bytes()), "{name}");
        }
        for name in ["dash", "sccache", "python3"] {
            assert!(!is_rust_program(name.as_bytes()), "{name}");
        }
    }
}
