//! Which environment variables are inputs of a Rust compile before anything is known of it.
//!
//! What the source asks for (`env!`, `option_env!`) the compiler tells afterwards (`# env-dep:` in its dependency
//! information), and those become part of the record; where a procedural macro took part, all of them do (see
//! `review`). This table is what compiler, linker and rustup read themselves. Since rustc links by way of a C compiler,
//! the table of the C family counts as well.
//!
//! Sources: the calls of `getenv` by rustc, clippy-driver, rustup's proxies, `cc` and their linkers, noted by a library
//! loaded into them; the manuals of rustc and rustup.

use zccache_proto::ByteStrings;

use super::names::Driver;
use crate::c_family;
use crate::c_family::names::Compiler;

/// One variable, or all whose names begin so (`*`).
#[derive(Debug)]
pub struct Variable {
    /// The name; a trailing `*` stands for any tail.
    pub name: &'static str,
    /// What it does.
    pub why: &'static str,
}

const fn var(name: &'static str, why: &'static str) -> Variable {
    Variable { name, why }
}

/// Every variable that enters the request key beside the C family's, sorted by name.
#[rustfmt::skip] // one line an entry
pub static VARIABLES: &[Variable] = &[
    var("CARGO", "whether Cargo called, which diagnostics mention"),
    var("CARGO_CRATE_NAME", "whether Cargo called, which diagnostics mention"),
    var("CARGO_HOME", "where rustup's proxies look for themselves"),
    var("CI", "how rustc reports its own crashes"),
    var("CLIPPY_*", "clippy's arguments and configuration"),
    var("LIBCTF_DEBUG", "what the GNU linker prints"),
    var("RUSTC_*", "switches of rustc: RUSTC_BOOTSTRAP, RUSTC_LOG, RUSTC_FORCE_RUSTC_VERSION"),
    var("RUSTUP_*", "which toolchain rustup's proxies run"),
    var("RUST_*", "RUST_MIN_STACK, RUST_BACKTRACE, RUST_TARGET_PATH"),
    var("SYSROOT", "where clippy looks for the standard library"),
    var("VCINSTALLDIR", "where a linker for Windows is looked for"),
];

/// Variables of Cargo's that clippy reads itself.
const CLIPPY_READS: [&[u8]; 3] = [b"CARGO_MANIFEST_DIR", b"CARGO_PKG_RUST_VERSION", b"CARGO_PRIMARY_PACKAGE"];

/// The entries of `env` that enter the request key, sorted, each once.
pub fn key_entries(env: &ByteStrings, driver: Driver) -> Vec<Vec<u8>> {
    let name_of = |entry: &[u8]| entry.split(|&b| b == b'=').next().unwrap_or_default().to_vec();
    let mut entries: Vec<Vec<u8>> =
        env.iter().filter(|e| enters_key(&name_of(e), driver)).map(<[u8]>::to_vec).collect();
    // A stable sort by name: of several entries of one name the first is what `getenv` finds.
    entries.sort_by_key(|entry| name_of(entry));
    entries.dedup();
    entries
}

/// Whether a variable enters the key.
pub fn enters_key(name: &[u8], driver: Driver) -> bool {
    let covers = |variable: &Variable| match variable.name.strip_suffix('*') {
        Some(head) => name.starts_with(head.as_bytes()),
        None => name == variable.name.as_bytes(),
    };
    VARIABLES.iter().any(covers)
        || (driver == Driver::Clippy && CLIPPY_READS.contains(&name))
        || [Compiler::Gcc, Compiler::Clang].into_iter().any(|c| c_family::environment::enters_key(name, c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_says_what_enters() {
        assert!(VARIABLES.is_sorted_by(|a, b| a.name.trim_end_matches('*') < b.name.trim_end_matches('*')));
        for (name, rustc, clippy) in [
            ("RUSTC_BOOTSTRAP", true, true),
            ("LD_LIBRARY_PATH", true, true),
            ("PATH", true, true),
            ("CARGO_MANIFEST_DIR", false, true),
            ("CARGO_PKG_VERSION", false, false),
            ("CARGO_MAKEFLAGS", false, false),
            ("MY_OWN", false, false),
        ] {
            assert_eq!(enters_key(name.as_bytes(), Driver::Rustc), rustc, "{name}");
            assert_eq!(enters_key(name.as_bytes(), Driver::Clippy), clippy, "{name}");
        }
    }
}
