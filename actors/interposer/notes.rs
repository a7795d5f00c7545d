//! The turn to write the ledger.

#![expect(unsafe_code, reason = "memory shared with another process")]

use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, AtomicIsize, AtomicPtr, Ordering};

use crate::kernel;
use crate::ledger::{Entry, Head, LEDGER_BYTES, MAGIC, PATH_BYTES_MAX, Writer};

/// Where the kernel's own files are. What they are may change from one moment to the next.
const NOT_PLAIN: [&[u8]; 3] = [b"/dev/", b"/proc/", b"/sys/"];

/// The ledger; null as long as there is none.
static LEDGER: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());

/// The process that the ledger is for. A copy of it, made by `fork` or `vfork`, writes none.
static PROCESS: AtomicIsize = AtomicIsize::new(0);

/// Somebody writes the ledger.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes the ledger that is open as `fd`.
pub fn take_ledger(fd: c_int) {
    let start = kernel::map_shared(fd, LEDGER_BYTES);
    // Errors are the last page's addresses, negative.
    if (-4095..=0).contains(&start) {
        return;
    }
    let start = start as *mut u8;
    // SAFETY: just mapped, and a page is aligned for anything.
    if unsafe { (*start.cast::<Head>()).magic } == MAGIC {
        PROCESS.store(kernel::getpid(), Ordering::Relaxed);
        LEDGER.store(start, Ordering::Release);
    }
}

/// See the module.
pub struct Notes {
    writer: Writer,
    head: &'static Head,
}

impl Notes {
    /// The turn. None if there is no ledger, it is not this process's, or the turn is somebody else's: another thread's, or
    /// that of whom a signal interrupted.
    pub fn take() -> Option<Self> {
        let ledger = LEDGER.load(Ordering::Acquire);
        if ledger.is_null() || TAKEN.swap(true, Ordering::Acquire) {
            return None;
        }
        // SAFETY: mapped, and never unmapped; and it is our turn, which ends when this is dropped.
        let notes = unsafe { Self { writer: Writer::new(ledger), head: &*ledger.cast::<Head>() } };
        (kernel::getpid() == PROCESS.load(Ordering::Relaxed)).then_some(notes)
    }

    /// Begins a note about this path, if there is room for it, and it is one of which something can be noted.
    pub fn begin(&self, path: &[u8]) -> Option<Entry<'_>> {
        let is_plain = !path.is_empty()
            && path.len() <= PATH_BYTES_MAX
            && !NOT_PLAIN.iter().any(|place| path.starts_with(place));
        if is_plain { self.writer.begin(path) } else { None }
    }

    /// What a call bears to go unreported.
    pub fn marks(&self) -> &[u64; 2] {
        &self.head.marks
    }

    /// Whether it is to be noted that something is no link.
    pub fn are_about_links(&self) -> bool {
        self.head.notes_links != 0
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        TAKEN.store(false, Ordering::Release);
    }
}
