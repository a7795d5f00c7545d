//! Closing what a client left open, on macOS.
#![expect(unsafe_code, reason = "closing what nobody owns has no safe form")]

/// Above every descriptor that is likely to be open.
const DESCRIPTORS_LIKELY: libc::c_int = 1024;

/// Closes every descriptor from `first` on. Nothing in this process may own one of them.
pub fn close_from(first: libc::c_int) {
    for descriptor in first..DESCRIPTORS_LIKELY {
        // SAFETY: nobody owns any of these, says the caller.
        unsafe { libc::close(descriptor) };
    }
}
