//! What a client's process hands on to its tools, where nobody can tell: such tools are run, and not stored, there.

use crate::invocation::Invocation;

/// An entry that says nothing.
///
/// # Errors
/// None.
pub fn key_entry(_pid: u32, _sent: &[i32], _invocation: &Invocation) -> Result<Vec<u8>, &'static str> {
    Ok(b"=heritage=".to_vec())
}
