//! What `execve` is given: strings that end in NUL, and an array of pointers to them.

use std::ffi::{CString, c_char};
use std::io;

/// A pointer array for `execve`, and what it points to.
pub struct Strings {
    _owned: Vec<CString>,
    /// Ends in null.
    pub pointers: Vec<*const c_char>,
}

impl Strings {
    /// Copies them.
    ///
    /// # Errors
    /// If one holds a NUL.
    pub fn new<'a>(strings: impl Iterator<Item = &'a [u8]>) -> io::Result<Self> {
        let owned = strings.map(CString::new).collect::<Result<Vec<_>, _>>()?;
        let pointers = owned.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Ok(Self { _owned: owned, pointers })
    }
}
