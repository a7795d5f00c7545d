//! The wrapper's entry point on Unix.
//!
//! No Rust runtime in front of `main`: that would change signal dispositions which the tool must inherit, and
//! cost system calls on every compile.
#![expect(unsafe_code, reason = "the C entry point, called by the system with raw pointers")]

use std::ffi::{c_char, c_int};

use zccache_client::process::Process;

/// The entry point that the C library calls.
///
/// # Safety
/// Called once, with what `execve` was given.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(
    argc: c_int,
    argv: *const *const c_char,
    environ: *const *const c_char,
) -> c_int {
    // SAFETY: promised by the caller; nothing here ever changes the environment.
    let process = unsafe { Process::from_main(argc, argv, environ) };
    zccache_client::wrapper::run(&process)
}
