//! The interposer: a library that the observer has loaded into compilers, so that what they look for need not be reported
//! by the kernel, call by call.
//!
//! It takes the place of a few functions of the C library, and writes down what comes of them in a [`ledger`], which the
//! observer reads whenever the kernel reports another call, and in the end. It never answers a call itself: the kernel does, and the
//! program gets that. Whatever is not as plain as it is in nearly all cases is left to a call that is reported.
//!
//! Loaded into somebody else's process, it keeps to itself: no allocation, no thread, no library of its own, nothing
//! that can panic, and all but nothing of the C library's.
//!
//! What must never happen: a file that is opened and not noted, or noted otherwise than it was.

#![no_std]
#![expect(unsafe_code, reason = "a library for callers in C, in a process of others")]

mod kernel;
mod ledger;
mod notes;
mod realpath;
#[path = "../src/settling.rs"]
mod settling;

use core::ffi::{c_char, c_int, c_long, c_uint, c_void};
use core::mem::MaybeUninit;

use ledger::{LEDGER_PATH, Note, PATH_BYTES_MAX};
use notes::Notes;
use realpath::LastWay;

/// Flags of `open` (asm/fcntl.h, which differ between architectures).
#[cfg(target_arch = "x86_64")]
const O_LARGEFILE: c_int = 0o100_000;
#[cfg(target_arch = "aarch64")]
const O_LARGEFILE: c_int = 0o400_000;
const O_RDWR: c_int = 2;
const O_NOCTTY: c_int = 0o400;
const O_CLOEXEC: c_int = 0o2_000_000;

/// Flags with which a file is only read, links followed.
const PLAIN_FLAGS: c_int = O_NOCTTY | O_CLOEXEC | O_LARGEFILE;

const ENOENT: isize = -2;
const ENOTDIR: isize = -20;
const EINVAL: isize = -22;
const ENAMETOOLONG: isize = -36;

/// Kinds of files in `st_mode` (linux/stat.h).
const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;

/// The clock by which the kernel stamps files (linux/time.h: `CLOCK_REALTIME_COARSE`).
const STAMPS_CLOCK: c_int = 5;

/// What the kernel says of a file.
#[repr(C)]
#[cfg(target_arch = "x86_64")]
struct Stat {
    dev: u64,
    ino: u64,
    links: u64,
    mode: u32,
    owner: [u32; 2],
    _unused: u32,
    rdev: u64,
    size: i64,
    block_bytes: i64,
    blocks: i64,
    /// Of access, of modification, of status change.
    times: [Time; 3],
    _reserved: [i64; 3],
}

/// What the kernel says of a file.
#[repr(C)]
#[cfg(target_arch = "aarch64")]
struct Stat {
    dev: u64,
    ino: u64,
    mode: u32,
    links: u32,
    owner: [u32; 2],
    rdev: u64,
    _unused: u64,
    size: i64,
    block_bytes: i32,
    _unused_too: i32,
    blocks: i64,
    /// Of access, of modification, of status change.
    times: [Time; 3],
    _reserved: [i32; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Time {
    s: i64,
    ns: c_long,
}

impl Time {
    fn in_ns(self) -> i64 {
        self.s.saturating_mul(1_000_000_000).saturating_add(self.ns)
    }
}

unsafe extern "C" {
    fn __errno_location() -> *mut c_int;
    fn clock_gettime(clock: c_int, time: *mut Time) -> c_int;
    fn strnlen(string: *const c_char, bytes_max: usize) -> usize;
}

#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

/// Asks the observer for a ledger.
extern "C" fn start() {
    // SAFETY: a path with its NUL.
    let fd = unsafe { kernel::open(LEDGER_PATH.as_ptr().cast(), O_RDWR | O_CLOEXEC, 0) };
    if fd < 0 {
        return;
    }
    notes::take_ledger(fd as c_int);
    kernel::close(fd as c_int);
}

/// As the C library's.
///
/// # Safety
/// As the C library's. (What follows the flags may be missing; then it has no meaning.)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's.
    let result = unsafe { open_noted(path, flags).unwrap_or_else(|| kernel::open(path.cast(), flags, mode)) };
    ended(result)
}

/// As the C library's.
///
/// # Safety
/// As [`open`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's.
    unsafe { open(path, flags, mode) }
}

/// As the C library's, by the one call for it that asks about a descriptor alone: of the other, which older C libraries make,
/// the kernel reports each.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fstat(fd: c_int, stat: *mut c_void) -> c_int {
    // SAFETY: the caller's.
    ended(unsafe { kernel::fstat(fd, stat) })
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fstat64(fd: c_int, stat: *mut c_void) -> c_int {
    // SAFETY: the caller's.
    unsafe { fstat(fd, stat) }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stat(path: *const c_char, stat: *mut c_void) -> c_int {
    // SAFETY: the caller's.
    ended(unsafe {
        let noted = miss(path, |path, marks| kernel::stat_marked(path, stat, marks));
        noted.unwrap_or_else(|| kernel::stat(path.cast(), stat))
    })
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn stat64(path: *const c_char, buffer: *mut c_void) -> c_int {
    // SAFETY: the caller's.
    unsafe { stat(path, buffer) }
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn access(path: *const c_char, mode: c_int) -> c_int {
    // SAFETY: the caller's.
    ended(unsafe {
        let noted = miss(path, |path, marks| kernel::access_marked(path, mode, marks));
        noted.unwrap_or_else(|| kernel::access(path.cast(), mode))
    })
}

/// As the C library's.
///
/// # Safety
/// As the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn realpath(path: *const c_char, resolved: *mut c_char) -> *mut c_char {
    // SAFETY: the caller's.
    match unsafe { resolve(path, resolved) } {
        Some(0) => resolved,
        Some(error) => {
            ended(-(error as isize));
            core::ptr::null_mut()
        }
        // SAFETY: the caller's.
        None => unsafe { realpath::by_the_library(path, resolved) },
    }
}

/// What C makes of what the kernel gives.
fn ended(result: isize) -> c_int {
    if result >= 0 {
        return result as c_int;
    }
    // SAFETY: the C library's own place for it.
    unsafe { *__errno_location() = -result as c_int };
    -1
}

/// A string of the caller's, if it is no longer than a path.
///
/// # Safety
/// The string must live as long as what is given.
unsafe fn text<'a>(string: *const c_char) -> Option<&'a [u8]> {
    if string.is_null() {
        return None;
    }
    // SAFETY: the caller's.
    let text = unsafe { core::slice::from_raw_parts(string.cast::<u8>(), strnlen(string, PATH_BYTES_MAX + 1)) };
    (text.len() <= PATH_BYTES_MAX).then_some(text)
}

/// Resolves a path, if its way is noted. None if that is better left to the C library.
unsafe fn resolve(path: *const c_char, resolved: *mut c_char) -> Option<c_int> {
    /// Written by whose turn it is.
    static mut LAST_WAY: LastWay = LastWay::NONE;
    let notes = Notes::take()?;
    if resolved.is_null() || !notes.are_about_links() {
        return None;
    }
    // SAFETY: the caller's; and it is our turn.
    unsafe { realpath::resolve(&notes, &mut *&raw mut LAST_WAY, text(path)?, resolved) }
}

/// Makes a call about a path, out of sight, and notes that nothing is there. None, and nothing noted, if something is.
unsafe fn miss(path: *const c_char, call: impl FnOnce(*const u8, &[u64; 2]) -> isize) -> Option<isize> {
    let notes = Notes::take()?;
    // SAFETY: the caller's.
    let entry = notes.begin(unsafe { text(path)? })?;
    let result = call(entry.path(), notes.marks());
    if !matches!(result, ENOENT | ENOTDIR) {
        return None;
    }
    entry.end(Note { kind: ledger::NOTHING, ..Note::default() });
    Some(result)
}

/// Opens a path to read and notes what came of it. None if that is to be reported, as if nothing had been done.
unsafe fn open_noted(path: *const c_char, flags: c_int) -> Option<isize> {
    if flags & !PLAIN_FLAGS != 0 {
        return None;
    }
    let notes = Notes::take()?;
    // SAFETY: the caller's.
    let entry = notes.begin(unsafe { text(path)? })?;
    let at_ns = now_ns();
    // SAFETY: the entry's own copy, so that what is noted is what was opened.
    let result = unsafe { kernel::open_marked(entry.path(), flags, notes.marks()) };
    let note = match result {
        ENOENT | ENOTDIR => Note { kind: ledger::NOT_THERE, ..Note::default() },
        ..0 => return None,
        fd => {
            let note = opened(fd as c_int, at_ns);
            if note.is_none() {
                kernel::close(fd as c_int);
            }
            note?
        }
    };
    entry.end(note);
    Some(result)
}

/// What to note of a file that was opened at this time; none if that is better done once more, in sight.
fn opened(fd: c_int, at_ns: i64) -> Option<Note> {
    let mut stat = MaybeUninit::<Stat>::uninit();
    // SAFETY: the kernel's structure.
    if unsafe { kernel::fstat(fd, stat.as_mut_ptr().cast()) } < 0 {
        return None;
    }
    // SAFETY: filled by the kernel.
    let stat = unsafe { stat.assume_init() };
    let (mtime_ns, ctime_ns) = (stat.times[1].in_ns(), stat.times[2].in_ns());
    // A young file may change again without a sign: the observer waits for it to grow older. (Others than files are not
    // opened twice, which may have consequences; they are noted as what they are.)
    if stat.mode & S_IFMT == S_IFREG && !settling::is_settled(mtime_ns, ctime_ns, at_ns) {
        return None;
    }
    Some(Note {
        kind: ledger::OPENED,
        path_bytes: 0,
        at_ns,
        dev: stat.dev,
        ino: stat.ino,
        size: stat.size,
        mtime_ns,
        ctime_ns,
        mode: u64::from(stat.mode),
    })
}

fn now_ns() -> i64 {
    let mut now = Time { s: 0, ns: 0 };
    // SAFETY: the C library fills it. Should it fail, no file is older.
    unsafe { clock_gettime(STAMPS_CLOCK, &raw mut now) };
    now.in_ns()
}

/// Nothing here panics; a build for no particular system wants to be told what then.
#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
