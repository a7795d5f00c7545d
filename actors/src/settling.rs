//! When a file's time stamps can be trusted to tell a later change: a rule that the interposer (`actors/interposer`) goes by
//! as well, so it needs nothing but numbers.

/// The coarsest time stamp in use on file systems that people build on: FAT's 2 s.
pub const COARSE_GRAIN_NS: i64 = 2_000_000_000;

/// Whether a change made from now on must show in these stamps, the file system's clock standing at `now_ns`. All in nanoseconds
/// since the epoch.
pub const fn is_settled(mtime_ns: i64, ctime_ns: i64, now_ns: i64) -> bool {
    let changed_ns = if mtime_ns > ctime_ns { mtime_ns } else { ctime_ns };
    // Whole seconds: a file system that keeps no finer stamps (FAT: 2 s), or chance. Either way, wait.
    let grain_ns = if ctime_ns % 1_000_000_000 == 0 { COARSE_GRAIN_NS } else { 0 };
    // A file system that keeps no such time says nothing, or a moment long before there were any.
    ctime_ns > 0 && changed_ns.saturating_add(grain_ns) < now_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_in_whole_seconds_settles_later() {
        let whole = 1_000_000_000_000;
        assert!(!is_settled(0, whole, whole + COARSE_GRAIN_NS));
        assert!(is_settled(0, whole, whole + COARSE_GRAIN_NS + 1));
        assert!(!is_settled(0, whole + 1, whole + 1));
        assert!(is_settled(0, whole + 1, whole + 2));
        assert!(!is_settled(whole + 5, whole + 1, whole + 5));
        assert!(!is_settled(0, 0, whole));
    }
}
