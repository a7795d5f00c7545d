//! `bench`: what a hit, a pass-through and a cold build cost, beside `/bin/true`, the bare compiler and other caches.
//!
//! Prints ratios within one run; never fails for being slow. `make bench` sets up what it needs.

use std::path::PathBuf;
use std::process::ExitCode;

use zccache_integration_tests::bench;

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [ours, peers, lua, hdf5, projects @ ..] = &arguments[..] else {
        eprintln!(
            "usage: bench DIRECTORY-OF-OUR-BINARIES DIRECTORY-OF-THE-PEERS LUAS-SOURCES HDF5S-SOURCES RUST-PROJECT..."
        );
        return ExitCode::from(2);
    };
    // One part of it alone, for who works on that.
    let only = std::env::var("BENCH_ONLY").ok().filter(|part| !part.is_empty());
    let sources = bench::Sources { lua, hdf5, rust: projects };
    match bench::run(ours, peers, &sources, only.as_deref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: failed to {e}");
            ExitCode::FAILURE
        }
    }
}
