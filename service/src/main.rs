//! `zccache-service`: the process that answers the wrappers. Only starts things; see `system.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    zccache_service::cli::main()
}
