//! What is chosen by the size of the machine.

use std::path::Path;

/// The most bytes a cache takes unless told otherwise: several large projects in several configurations.
const LIMIT_BYTES_MAX: u64 = 10 << 30;

/// What part of the disk a cache takes at most unless told otherwise, as a divisor: a tenth.
const DISK_SHARE: u64 = 10;

/// The limit for a cache in `directory`: 10 GiB or a tenth of its disk, whichever is less.
pub fn default_limit_bytes(directory: &Path) -> u64 {
    limit_bytes(directory.ancestors().find_map(|d| zccache_actors::sys::disk_bytes(d).ok()))
}

/// The limit on a disk of so many bytes, if that is known.
fn limit_bytes(disk: Option<u64>) -> u64 {
    disk.map_or(LIMIT_BYTES_MAX, |bytes| bytes / DISK_SHARE).min(LIMIT_BYTES_MAX)
}

/// The number of processors we may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_takes_ten_gibibytes_or_a_tenth_of_its_disk() {
        let gib = |n: u64| n << 30;
        for (disk, limit) in [
            (None, gib(10)),
            (Some(gib(1000)), gib(10)),
            (Some(gib(100)), gib(10)),
            (Some(gib(50)), gib(5)),
            (Some(0), 0),
        ] {
            assert_eq!(limit_bytes(disk), limit, "{disk:?}");
        }
        // In a directory that is yet to be made, it is that of the disk it will lie on.
        let temp = tempfile::tempdir().unwrap();
        let missing = temp.path().join("not/yet");
        assert_eq!(default_limit_bytes(&missing), default_limit_bytes(temp.path()));
    }
}
