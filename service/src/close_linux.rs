//! Closing what a client left open, on Linux.
#![expect(unsafe_code, reason = "closing what nobody owns has no safe form")]

/// Closes every descriptor from `first` on. Nothing in this process may own one of them.
pub fn close_from(first: libc::c_uint) {
    // SAFETY: nobody owns any of these, says the caller.
    unsafe { libc::close_range(first, libc::c_uint::MAX, 0) };
}
