//! Writing to the standard streams, on Windows: the twin of `output.rs`.

use std::io::{self, Write};

use crate::process::StandardStream;

/// Writes all of `bytes`, and counts in `written` how many went, whether it fails or not.
///
/// # Errors
/// The system's.
pub fn write_all(stream: StandardStream, mut bytes: &[u8], written: &mut u64) -> io::Result<()> {
    let mut file = stream.to_file()?;
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                *written += count as u64;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
