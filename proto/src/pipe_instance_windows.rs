//! The service's ends of a named pipe: instances that wait for one client each.
#![expect(unsafe_code, reason = "a security descriptor is passed on as a pointer")]

use std::io;
use std::path::Path;

use tokio::net::windows::named_pipe::{NamedPipeServer, PipeMode, ServerOptions};

use crate::security_windows::OwnerOnly;

/// Bytes that the system keeps for a side that is not reading yet, each way: a request with its environment, most times.
const BUFFER_BYTES: u32 = 64 * 1024;

/// A new instance of the pipe `name`, for us alone, on this machine alone; the `first` only if there is no other. Must
/// be called within a tokio runtime, which then drives it.
///
/// # Errors
/// The system's; `PermissionDenied` if the first is not, or another's.
pub fn create(name: &Path, first: bool, access: &OwnerOnly) -> io::Result<NamedPipeServer> {
    let mut options = ServerOptions::new();
    options
        .first_pipe_instance(first)
        .reject_remote_clients(true)
        .pipe_mode(PipeMode::Byte)
        .in_buffer_size(BUFFER_BYTES)
        .out_buffer_size(BUFFER_BYTES);
    access.with_attributes(|attributes| {
        // SAFETY: the attributes are valid for as long as this closure runs.
        unsafe { options.create_with_security_attributes_raw(name, attributes.cast()) }
    })
}
