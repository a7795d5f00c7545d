//! Frames: a `u32` length in little-endian order, then that many bytes of MessagePack.
//!
//! Messages are maps with field names, so that a field can be added. A frame over the limit is refused before
//! it is sent, and before a byte of it is allocated when it comes in.

use serde::{Serialize, de::DeserializeOwned};

/// The most bytes one frame's body may have (16 MiB): room for the longest argument list and environment that
/// Linux takes (6 MiB), small enough that a stranger's length field cannot exhaust memory.
pub const FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of the length field.
pub const HEADER_BYTES: usize = 4;

/// Why bytes are not a frame, or a message cannot be one.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Over the limit.
    #[error("frame of {bytes} bytes is over the limit of {FRAME_BYTES_MAX}")]
    TooLarge {
        /// The body's length.
        bytes: usize,
    },
    /// The body is not the message that was expected: garbage, or a message unknown to this version.
    #[error("not a known message: {0}")]
    Decode(#[from] rmp_serde::decode::Error),
    /// The message cannot be written down (never seen for the messages of this crate).
    #[error("message cannot be encoded: {0}")]
    Encode(#[from] rmp_serde::encode::Error),
}

/// Appends `message` to `buffer` as one frame.
///
/// # Errors
/// `TooLarge` if its body exceeds [`FRAME_BYTES_MAX`]; `buffer` is then as before.
pub fn encode_into<T: Serialize>(message: &T, buffer: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
    let written = rmp_serde::encode::write_named(buffer, message);
    let bytes = buffer.len() - start - HEADER_BYTES;
    let outcome = match written {
        Err(e) => Err(e.into()),
        Ok(()) if bytes > FRAME_BYTES_MAX => Err(FrameError::TooLarge { bytes }),
        Ok(()) => {
            let header = u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
            buffer[start..start + HEADER_BYTES].copy_from_slice(&header);
            return Ok(());
        }
    };
    buffer.truncate(start);
    outcome
}

/// `message` as one frame.
///
/// # Errors
/// As [`encode_into`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let mut buffer = Vec::with_capacity(256);
    encode_into(message, &mut buffer)?;
    Ok(buffer)
}

/// The length of the whole first frame (header included) if `received` holds its header.
///
/// # Errors
/// `TooLarge` if the header announces more than [`FRAME_BYTES_MAX`].
pub fn frame_bytes(received: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(header) = received.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let bytes = u32::from_le_bytes(*header) as usize;
    if bytes > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge { bytes });
    }
    Ok(Some(HEADER_BYTES + bytes))
}

/// The message in a whole frame's body.
///
/// # Errors
/// `Decode` if the body is not a `T`.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    Ok(rmp_serde::from_slice(body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Request;

    #[test]
    fn a_frame_is_its_length_and_a_map_with_field_names() {
        let frame = encode(&Request::Ping { nonce: 7 }).unwrap();
        assert_eq!(frame, b"\x0e\0\0\0\x81\xa4Ping\x81\xa5nonce\x07");
        assert_eq!(frame_bytes(&frame).unwrap(), Some(frame.len()));
        assert!(matches!(decode(&frame[HEADER_BYTES..]), Ok(Request::Ping { nonce: 7 })));
    }

    #[test]
    fn a_header_in_pieces_is_waited_for() {
        for n in 0..HEADER_BYTES {
            assert!(frame_bytes(&[0xff; HEADER_BYTES][..n]).unwrap().is_none());
        }
    }

    #[test]
    fn over_the_limit_is_refused_on_both_sides() {
        assert!(matches!(frame_bytes(&u32::MAX.to_le_bytes()), Err(FrameError::TooLarge { .. })));
        let mut buffer = b"before".to_vec();
        let huge = serde_bytes::ByteBuf::from(vec![0u8; FRAME_BYTES_MAX + 1]);
        assert!(matches!(encode_into(&huge, &mut buffer), Err(FrameError::TooLarge { .. })));
        assert_eq!(buffer, b"before");
    }

    #[test]
    fn garbage_and_unknown_messages_are_errors() {
        for body in [
            &b""[..],
            b"\xc1",
            b"\x81\xa7Unknown\x80",
            b"\xff\xff\xff\xff",
            b"\x81\xa4Ping\x81\xa5nonce\xa1x",
        ] {
            assert!(matches!(decode::<Request>(body), Err(FrameError::Decode(_))), "{body:?}");
        }
    }
}
