//! `zccache`: the wrapper put before a compiler. What it does is told in `zccache_client`'s `wrapper`.
#![cfg_attr(unix, no_main)]

#[cfg(unix)]
#[path = "../entry_unix.rs"]
mod entry;

/// Windows has nothing that a tool could inherit from a runtime in front of `main`.
#[cfg(windows)]
fn main() {
    std::process::exit(zccache_client::wrapper::run());
}
