//! The ledger: memory that a program's interposer writes and the observer reads. Its layout, and the writing half; the
//! reading half is `actors/src/observe_linux/ledger.rs`.
//!
//! ```text
//! | Head, padded to HEAD_BYTES | ring of RING_BYTES: Note, path, padding to 8 bytes, Note, path, … |
//! ```
//! A ring with one writer at a time and one reader. Positions count bytes since the start and never go back; what lies
//! between `read` and `written` is whole. An entry never goes over the ring's end: a note of kind `SKIPPED` fills it up.

#![expect(unsafe_code, reason = "memory shared with another process")]

use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering};

/// Opened by the observer in the interposer's place. Nothing can be there: nobody makes files in `/proc`.
pub const LEDGER_PATH: &CStr = c"/proc/zccache-ledger";

/// Begins a ledger of this layout ("zcledgr" and a version), so that no other file is taken for one.
pub const MAGIC: u64 = u64::from_le_bytes(*b"zcledgr\x01");

/// Room for the head: a page, so that the ring begins at another.
pub const HEAD_BYTES: usize = 4096;

/// Room for notes: some 900, more than nearly any program makes between two calls that the kernel reports. A full one
/// only means that the next call is reported, too.
pub const RING_BYTES: usize = 128 * 1024;

/// All of it.
pub const LEDGER_BYTES: usize = HEAD_BYTES + RING_BYTES;

/// The longest path that is noted, in bytes, without a NUL (the kernel takes one byte more: `PATH_MAX`).
pub const PATH_BYTES_MAX: usize = 4095;

/// The rest of the ring was not long enough for the next entry.
pub const SKIPPED: u32 = 0;
/// The path was opened to read.
pub const OPENED: u32 = 1;
/// The path was to be opened to read, and nothing was there.
pub const NOT_THERE: u32 = 2;
/// The path is no symbolic link.
pub const NO_LINK: u32 = 3;
/// The path was asked whether it is a symbolic link, and nothing was there.
pub const NO_LINK_THERE: u32 = 4;
/// The path was asked about, links followed, and nothing was there.
pub const NOTHING: u32 = 5;

/// The start of a ledger.
#[repr(C)]
pub struct Head {
    /// [`MAGIC`].
    pub magic: u64,
    /// What a call bears in its last two arguments to go unreported.
    pub marks: [u64; 2],
    /// Not 0: that something is no link is to be noted.
    pub notes_links: u64,
    /// Bytes written to the ring so far.
    pub written: AtomicU64,
    /// Bytes read of them.
    pub read: AtomicU64,
}

/// What a program saw: kind and length alone where that is all there is to say. The path follows.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Note {
    /// One of the kinds above.
    pub kind: u32,
    /// Length of the path that follows, or for `SKIPPED` of what is skipped, this note not counted.
    pub path_bytes: u32,
    /// Of `OPENED`: the file system's clock before the file was opened, in nanoseconds since the epoch.
    pub at_ns: i64,
    /// Of `OPENED`, as all that follows: what `fstat` said of the file. Its device in the kernel's encoding.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: i64,
    /// Modification time in nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Status change time, likewise.
    pub ctime_ns: i64,
    /// Type and permission bits.
    pub mode: u64,
}

/// Size of a note, in bytes.
pub const NOTE_BYTES: usize = size_of::<Note>();

/// Of a note that skips, only as much is written.
pub const SKIP_BYTES: usize = 8;

/// How many bytes an entry with a path this long takes.
pub const fn entry_bytes(path_bytes: usize) -> usize {
    (NOTE_BYTES + path_bytes).next_multiple_of(8)
}

/// The writing half. Nobody else may write meanwhile.
pub struct Writer {
    head: *mut Head,
}

/// Room for an entry whose path is there already (ended by a NUL), but not yet its note.
pub struct Entry<'a> {
    writer: &'a Writer,
    note: *mut u8,
    path_bytes: usize,
    /// What `written` is once the entry is.
    end: u64,
}

impl Writer {
    /// Takes the ledger at `start`.
    ///
    /// # Safety
    /// There must be `LEDGER_BYTES` of readable and writable memory, aligned to 8 bytes, for as long as the writer lives.
    pub const unsafe fn new(start: *mut u8) -> Self {
        Self { head: start.cast() }
    }

    /// Begins an entry with this path, if there is room for it.
    pub fn begin(&self, path: &[u8]) -> Option<Entry<'_>> {
        // SAFETY: by the promise to `new`.
        let head = unsafe { &*self.head };
        let read = head.read.load(Ordering::Acquire);
        let mut written = head.written.load(Ordering::Relaxed);
        // A NUL more, so that the kernel can be given the very path that is noted.
        let bytes = entry_bytes(path.len() + 1) as u64;
        let rest = RING_BYTES as u64 - written % RING_BYTES as u64;
        let skipped = if rest < bytes { rest } else { 0 };
        if path.len() > PATH_BYTES_MAX || written + skipped + bytes - read > RING_BYTES as u64 {
            return None;
        }
        if skipped > 0 {
            let (kind, length) = (SKIPPED.to_ne_bytes(), (skipped as u32 - SKIP_BYTES as u32).to_ne_bytes());
            // SAFETY: within the ring, of which this part is the writer's; entries are multiples of 8 bytes.
            unsafe {
                let at = self.at(written);
                at.copy_from_nonoverlapping(kind.as_ptr(), 4);
                at.add(4).copy_from_nonoverlapping(length.as_ptr(), 4);
            }
            written += skipped;
        }
        let note = self.at(written);
        // SAFETY: there are `bytes` from here to the ring's end, and they are the writer's.
        unsafe {
            let to = note.add(NOTE_BYTES);
            to.copy_from_nonoverlapping(path.as_ptr(), path.len());
            to.add(path.len()).write(0);
        }
        Some(Entry { writer: self, note, path_bytes: path.len(), end: written + bytes })
    }

    fn at(&self, position: u64) -> *mut u8 {
        // SAFETY: within the ledger.
        unsafe { self.head.cast::<u8>().add(HEAD_BYTES + (position % RING_BYTES as u64) as usize) }
    }
}

impl Entry<'_> {
    /// The path, with a NUL at its end.
    pub fn path(&self) -> *const u8 {
        // SAFETY: within the entry.
        unsafe { self.note.add(NOTE_BYTES) }
    }

    /// Ends the entry: from now on it is told. One that is not ended is forgotten.
    pub fn end(self, note: Note) {
        let note = Note { path_bytes: self.path_bytes as u32, ..note };
        // SAFETY: entries begin at multiples of 8 bytes, and have room for the note.
        unsafe { self.note.cast::<Note>().write(note) };
        // SAFETY: by the promise to `Writer::new`.
        unsafe { (*self.writer.head).written.store(self.end, Ordering::Release) };
    }
}
