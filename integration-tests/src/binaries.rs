//! Where the built programs are.
//!
//! Cargo tells a test only of the programs of its own package. Ours are those of others, so they are looked for
//! beside the test itself: `target/PROFILE/deps/hits-…` finds `target/PROFILE/zccache`.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The directory with `zccache`, `zccache-client` and `zccache-service`.
///
/// # Panics
/// If one of them is missing; the message says how to build them.
pub fn directory() -> &'static Path {
    static FOUND: LazyLock<PathBuf> = LazyLock::new(find);
    &FOUND
}

/// The wrapper as it is shipped (`make wrapper`): optimized, static. Present when `make test` runs.
///
/// # Panics
/// If it has not been built.
pub fn release_wrapper() -> PathBuf {
    let path = directory().parent().map(|target| target.join("release/zccache")).unwrap_or_default();
    assert!(path.is_file(), "{} is missing: run `make wrapper`", path.display());
    path
}

/// The checkout's top directory.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

fn find() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let directory = match std::env::var_os("ZCCACHE_TEST_BINARIES") {
        Some(chosen) => PathBuf::from(chosen),
        None => test.ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default(),
    };
    for name in ["zccache", "zccache-client", "zccache-service"] {
        let path = directory.join(name);
        assert!(
            path.is_file(),
            "{} is missing: run `make test-binaries` (or `cargo build --workspace --bins`) first",
            path.display()
        );
    }
    directory
}
