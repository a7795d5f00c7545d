//! What a client has received and not taken yet.

use crate::frame::{self, HEADER_BYTES};
use crate::transport::RecvError;

/// Bytes asked for by one `recv`: a welcome and the answer to most compiles at once.
const READ_BYTES: usize = 16 * 1024;

/// The most that the buffer grows ahead of what has come, in bytes: a length field alone takes no memory.
const READ_AHEAD_BYTES_MAX: usize = 1024 * 1024;

/// What has come and was not taken yet: whole frames and perhaps the start of one more.
#[derive(Debug, Default)]
pub(crate) struct Received {
    buffer: Vec<u8>,
    /// Bytes at the buffer's start that were taken.
    taken: usize,
    /// Bytes that ever came.
    pub(crate) bytes: u64,
}

impl Received {
    /// The body of the first whole frame, which counts as taken.
    pub(crate) fn next_frame(&mut self) -> Result<Option<&[u8]>, RecvError> {
        let start = self.taken;
        match frame::frame_bytes(&self.buffer[start..])? {
            Some(bytes) if self.buffer.len() - start >= bytes => {
                self.taken += bytes;
                Ok(Some(&self.buffer[start + HEADER_BYTES..start + bytes]))
            }
            _ => Ok(None),
        }
    }

    /// The buffer, with room at its end for one read, to which what comes is to be appended.
    pub(crate) fn room(&mut self) -> &mut Vec<u8> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let announced = frame::frame_bytes(&self.buffer).ok().flatten().unwrap_or(0);
        let wanted = announced.saturating_sub(self.buffer.len()).clamp(READ_BYTES, READ_AHEAD_BYTES_MAX);
        self.buffer.reserve(wanted);
        &mut self.buffer
    }

    /// How a connection ends that was closed now.
    pub(crate) fn closed(&self) -> RecvError {
        match self.buffer.len() - self.taken {
            0 => RecvError::Closed,
            received => RecvError::ClosedMidFrame { received },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_alone_takes_no_more_memory_than_is_read_ahead() {
        let room_behind = |announced: usize| {
            let mut received = Received::default();
            received.buffer.extend_from_slice(&u32::try_from(announced).unwrap().to_le_bytes());
            received.buffer.shrink_to_fit();
            received.room().capacity() - HEADER_BYTES
        };
        assert_eq!(room_behind(READ_AHEAD_BYTES_MAX), READ_AHEAD_BYTES_MAX);
        assert_eq!(room_behind(frame::FRAME_BYTES_MAX - HEADER_BYTES), READ_AHEAD_BYTES_MAX);
    }
}
