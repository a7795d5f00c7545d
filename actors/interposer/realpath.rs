//! `realpath` of absolute paths without links or dots: what compilers ask of each system header, at a call of the kernel's for
//! each name in it.

#![expect(unsafe_code, reason = "strings of callers in C")]

use core::ffi::{c_char, c_int};

use crate::kernel;
use crate::ledger::{NO_LINK, NO_LINK_THERE, Note, PATH_BYTES_MAX};
use crate::notes::Notes;
use crate::{EINVAL, ENAMETOOLONG, ENOENT, ENOTDIR};

unsafe extern "C" {
    fn canonicalize_file_name(path: *const c_char) -> *mut c_char;
    fn free(memory: *mut c_char);
}

/// The way that was noted last, whose names need not be noted again on the way to the next file beside it.
pub struct LastWay {
    bytes: [u8; PATH_BYTES_MAX],
    length: usize,
}

impl LastWay {
    /// None yet.
    pub const NONE: Self = Self { bytes: [0; PATH_BYTES_MAX], length: 0 };

    /// How far `path` goes along this way, in bytes, by whole names.
    fn shared_with(&self, path: &[u8]) -> usize {
        let way = self.bytes.get(..self.length).unwrap_or_default();
        let equal = way.iter().zip(path).take_while(|(a, b)| a == b).count();
        let is_name_end = |bytes: &[u8]| bytes.get(equal).is_none_or(|&b| b == b'/');
        if is_name_end(way) && is_name_end(path) {
            return equal;
        }
        way.iter().take(equal).rposition(|&b| b == b'/').unwrap_or(0)
    }

    fn set(&mut self, path: &[u8]) {
        self.length = 0;
        if let Some(bytes) = self.bytes.get_mut(..path.len()) {
            bytes.iter_mut().zip(path).for_each(|(to, from)| *to = *from);
            self.length = path.len();
        }
    }
}

/// Writes the path into `resolved`, as far as it is there, and gives 0 or the error. None, and nothing done, if that is better
/// left to the C library, all of whose calls are reported.
///
/// # Safety
/// There must be room for a path, and a NUL, at `resolved`.
pub unsafe fn resolve(notes: &Notes, last: &mut LastWay, path: &[u8], resolved: *mut c_char) -> Option<c_int> {
    if !is_plain(path) {
        return None;
    }
    let shared = last.shared_with(path);
    last.length = 0;
    let mut end = 0;
    while end < path.len() {
        let (before, rest) = (path.get(..end)?, path.get(end + 1..)?);
        end += 1 + rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
        let way = path.get(..end)?;
        let entry = notes.begin(way)?;
        // SAFETY: a path with its NUL.
        let answer = unsafe { kernel::is_link_marked(entry.path(), notes.marks()) };
        match answer {
            EINVAL if end <= shared => {}
            EINVAL => entry.end(Note { kind: NO_LINK, ..Note::default() }),
            ENOENT | ENOTDIR => {
                entry.end(Note { kind: NO_LINK_THERE, ..Note::default() });
                last.set(before);
                // SAFETY: the caller's; a part of the path is no longer than that.
                unsafe { write(way, resolved) };
                return Some(-answer as c_int);
            }
            _ => return None,
        }
    }
    last.set(path);
    // SAFETY: the caller's.
    unsafe { write(path, resolved) };
    Some(0)
}

/// Whether a path is absolute, and has nothing but names, with single slashes between them.
fn is_plain(path: &[u8]) -> bool {
    path.len() <= PATH_BYTES_MAX
        && path.strip_prefix(b"/").is_some_and(|names| {
            names.split(|&b| b == b'/').all(|name| !matches!(name, b"" | b"." | b".."))
        })
}

/// As the C library has it, whose own way there is by another name.
///
/// # Safety
/// As `realpath`, with room at `resolved` if that is not null.
pub unsafe fn by_the_library(path: *const c_char, resolved: *mut c_char) -> *mut c_char {
    // SAFETY: the caller's.
    let found = unsafe { canonicalize_file_name(path) };
    if found.is_null() || resolved.is_null() {
        return found;
    }
    // SAFETY: a string of the library's, which is the caller's now, and written only if there is room for it.
    unsafe {
        let text = core::ffi::CStr::from_ptr(found).to_bytes();
        let fits = text.len() <= PATH_BYTES_MAX;
        if fits {
            write(text, resolved);
        }
        free(found);
        if fits {
            return resolved;
        }
    }
    crate::ended(ENAMETOOLONG);
    core::ptr::null_mut()
}

/// # Safety
/// There must be room for this, and a NUL.
unsafe fn write(text: &[u8], to: *mut c_char) {
    // SAFETY: by the promise.
    unsafe {
        to.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
        to.add(text.len()).write(0);
    }
}
