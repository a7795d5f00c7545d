//! `zccache-service`: the process that answers the wrappers. Only starts things; see `system.rs`.

use std::process::ExitCode;

/// What one thread allocates, others free (a run's sightings end in the store): the C library's allocator is slow at
/// that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    zccache_service::cli::main()
}
