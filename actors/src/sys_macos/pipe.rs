//! Pipes without a name.

use super::OwnedFd;

/// How a pipe is made.
#[derive(Debug, Clone, Copy)]
pub struct PipeFlags;

impl PipeFlags {
    /// No child gets it.
    pub const CLOEXEC: Self = Self;
}

/// A pipe: the end to read from, the end to write to.
///
/// # Errors
/// The system's.
pub fn pipe_with(_: PipeFlags) -> std::io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = std::io::pipe()?;
    Ok((reader.into(), writer.into()))
}
