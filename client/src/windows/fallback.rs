//! Fallback, on Windows: the twin of `fallback.rs`.
//!
//! A service starts no tools here, so there is none to end first, and none of its output was shown.

use std::fs::File;
use std::io::{self, Write};

use zccache_proto::endpoint::Endpoint;

/// The size at which the file of reports stops growing, in bytes: enough for a day without a service.
const REPORTS_BYTES_MAX: u64 = 64 * 1024;

/// Leaves a byte for the service to count. Without consequences: a build does not care whether it was counted.
pub fn report(endpoint: &Endpoint) {
    let _ = leave_byte(endpoint);
}

fn leave_byte(endpoint: &Endpoint) -> io::Result<()> {
    let mut file = File::options().append(true).create(true).open(endpoint.fallbacks())?;
    if file.metadata()?.len() < REPORTS_BYTES_MAX {
        file.write_all(b".")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_byte_and_the_file_stops_growing() {
        let temp = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::in_directory(temp.path().join("run"));
        assert!(leave_byte(&endpoint).is_err());
        endpoint.prepare().unwrap();
        let length = || endpoint.fallbacks().metadata().unwrap().len();
        leave_byte(&endpoint).unwrap();
        assert_eq!(length(), 1);
        std::fs::write(endpoint.fallbacks(), vec![b'.'; REPORTS_BYTES_MAX as usize - 1]).unwrap();
        for _ in 0..2 {
            leave_byte(&endpoint).unwrap();
            assert_eq!(length(), REPORTS_BYTES_MAX);
        }
    }
}
