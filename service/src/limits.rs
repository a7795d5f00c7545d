//! What is chosen by the size of the machine.

use std::path::Path;

/// The most bytes a cache takes unless told otherwise: several large projects in several configurations.
const LIMIT_BYTES_MAX: u64 = 10 << 30;

/// What part of the disk a cache takes at most unless told otherwise, as a divisor: a tenth.
const DISK_SHARE: u64 = 10;

/// The limit for a cache in `directory`: 10 GiB or a tenth of its disk, whichever is less.
pub fn default_limit_bytes(directory: &Path) -> u64 {
    let disk = directory.ancestors().find_map(|d| zccache_actors::sys::disk_bytes(d).ok());
    let share = disk.map_or(LIMIT_BYTES_MAX, |bytes| bytes / DISK_SHARE);
    share.min(LIMIT_BYTES_MAX)
}

/// The number of processors we may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
