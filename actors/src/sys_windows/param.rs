//! What the machine is like.

/// Bytes of a page of memory: as on every machine that Windows runs on.
pub fn page_size() -> usize {
    4096
}
