//! Writes the tool's output to our own streams, and counts what was written.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// Writes all of `bytes`, waiting where the stream is non-blocking, and adds what was written to `written`,
/// also on an error.
///
/// # Errors
/// The system's: `PIPE` if nobody reads any more (and the signal for it is ignored), `NOSPC`, …
pub fn write_all(stream: BorrowedFd<'_>, mut bytes: &[u8], written: &mut u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(stream, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                bytes = &bytes[count..];
                *written += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(&stream, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            },
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
