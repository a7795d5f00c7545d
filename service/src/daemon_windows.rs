//! Daemon life cycle on Windows, where whoever starts a service has it leave them (`client/src/windows/process.rs`).

use std::io;

/// None are inherited but those that were meant to be.
pub fn close_inherited_descriptors() {}

/// Goes on in a directory that nobody wants to remove.
///
/// # Errors
/// If there is none.
pub fn detach() -> io::Result<()> {
    std::env::set_current_dir(std::env::var_os("SystemRoot").unwrap_or_else(|| "\\".into()))
}

/// There is nothing that a client could have left in its children.
pub fn reset_process_state() {}
