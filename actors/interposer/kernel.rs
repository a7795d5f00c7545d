//! The system calls that the interposer makes itself. They give what the kernel gives: a number, or an error as its negative.

#![expect(unsafe_code, reason = "system calls, made in a process of others")]

use core::arch::asm;
use core::ffi::{c_int, c_void};

/// Where a path starts that does not begin with a slash (linux/fcntl.h: `AT_FDCWD`).
const AT_FDCWD: isize = -100;

/// The numbers of the calls (asm/unistd_64.h).
#[cfg(target_arch = "x86_64")]
mod number {
    pub const CLOSE: isize = 3;
    pub const FSTAT: isize = 5;
    pub const MMAP: isize = 9;
    pub const GETPID: isize = 39;
    pub const OPENAT: isize = 257;
    pub const NEWFSTATAT: isize = 262;
    pub const READLINKAT: isize = 267;
    pub const FACCESSAT: isize = 269;
}

/// The numbers of the calls (asm-generic/unistd.h).
#[cfg(target_arch = "aarch64")]
mod number {
    pub const CLOSE: isize = 57;
    pub const FSTAT: isize = 80;
    pub const MMAP: isize = 222;
    pub const GETPID: isize = 172;
    pub const FACCESSAT: isize = 48;
    pub const OPENAT: isize = 56;
    pub const READLINKAT: isize = 78;
    pub const NEWFSTATAT: isize = 79;
}

/// Opens a path, in sight of the observer.
///
/// # Safety
/// `path` must be a path to the kernel, which reports a bad one.
pub unsafe fn open(path: *const u8, flags: c_int, mode: u32) -> isize {
    // SAFETY: the kernel checks what it is given.
    unsafe { call(number::OPENAT, [AT_FDCWD, path as isize, flags as isize, mode as isize, 0, 0]) }
}

/// Asks about a path, links followed, in sight of the observer.
///
/// # Safety
/// As [`fstat`], and `path` as [`open`].
pub unsafe fn stat(path: *const u8, stat: *mut c_void) -> isize {
    // SAFETY: by the promise.
    unsafe { call(number::NEWFSTATAT, [AT_FDCWD, path as isize, stat as isize, 0, 0, 0]) }
}

/// Asks whether a path may be used so, in sight of the observer.
///
/// # Safety
/// As [`open`].
pub unsafe fn access(path: *const u8, mode: c_int) -> isize {
    // SAFETY: the kernel checks what it is given.
    unsafe { call(number::FACCESSAT, [AT_FDCWD, path as isize, mode as isize, 0, 0, 0]) }
}

/// Opens a path to read, out of sight of the observer, who knows these marks.
///
/// # Safety
/// As [`open`].
pub unsafe fn open_marked(path: *const u8, flags: c_int, marks: &[u64; 2]) -> isize {
    // SAFETY: the kernel checks what it is given.
    unsafe { call_marked(number::OPENAT, [AT_FDCWD, path as isize, flags as isize, 0], marks) }
}

/// As [`stat`], out of sight.
///
/// # Safety
/// As [`stat`].
pub unsafe fn stat_marked(path: *const u8, stat: *mut c_void, marks: &[u64; 2]) -> isize {
    // SAFETY: by the promise.
    unsafe { call_marked(number::NEWFSTATAT, [AT_FDCWD, path as isize, stat as isize, 0], marks) }
}

/// As [`access`], out of sight.
///
/// # Safety
/// As [`open`].
pub unsafe fn access_marked(path: *const u8, mode: c_int, marks: &[u64; 2]) -> isize {
    // SAFETY: the kernel checks what it is given.
    unsafe { call_marked(number::FACCESSAT, [AT_FDCWD, path as isize, mode as isize, 0], marks) }
}

/// Asks whether a path is a symbolic link, out of sight. It is, unless this ends in an error.
///
/// # Safety
/// As [`open`].
pub unsafe fn is_link_marked(path: *const u8, marks: &[u64; 2]) -> isize {
    let mut start = [0_u8; 1];
    // SAFETY: the kernel writes as much of the link's target as there is room for.
    unsafe {
        call_marked(number::READLINKAT, [AT_FDCWD, path as isize, start.as_mut_ptr() as isize, 1], marks)
    }
}

/// Closes a descriptor.
pub fn close(fd: c_int) {
    // SAFETY: takes a number.
    unsafe { call(number::CLOSE, [fd as isize, 0, 0, 0, 0, 0]) };
}

/// Asks about an open file.
///
/// # Safety
/// `stat` must have room for what the kernel writes, or be no address of the process's at all.
pub unsafe fn fstat(fd: c_int, stat: *mut c_void) -> isize {
    // SAFETY: by the promise.
    unsafe { call(number::FSTAT, [fd as isize, stat as isize, 0, 0, 0, 0]) }
}

/// The number of this process.
pub fn getpid() -> isize {
    // SAFETY: takes nothing.
    unsafe { call(number::GETPID, [0; 6]) }
}

/// Maps the first `bytes` of a file, to be read and written by all who do.
pub fn map_shared(fd: c_int, bytes: usize) -> isize {
    const READ_AND_WRITE: isize = 3;
    const SHARED: isize = 1;
    // SAFETY: makes a new mapping.
    unsafe { call(number::MMAP, [0, bytes as isize, READ_AND_WRITE, SHARED, fd as isize, 0]) }
}

#[cfg(target_arch = "x86_64")]
unsafe fn call(number: isize, a: [isize; 6]) -> isize {
    let result;
    // SAFETY: the caller's, and the kernel destroys no more than is said here.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// The marks are in no register but for the call itself: left behind there, they would make another call go unreported.
#[cfg(target_arch = "x86_64")]
unsafe fn call_marked(number: isize, a: [isize; 4], marks: &[u64; 2]) -> isize {
    let result;
    // SAFETY: the caller's, and the kernel destroys no more than is said here.
    unsafe {
        asm!(
            "mov r8, qword ptr [{marks}]",
            "mov r9, qword ptr [{marks} + 8]",
            "syscall",
            "xor r8d, r8d",
            "xor r9d, r9d",
            marks = in(reg) marks.as_ptr(),
            inlateout("rax") number => result,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3],
            out("r8") _, out("r9") _, out("rcx") _, out("r11") _,
            options(nostack),
        );
    }
    result
}

#[cfg(target_arch = "aarch64")]
unsafe fn call(number: isize, a: [isize; 6]) -> isize {
    let result;
    // SAFETY: the caller's, and the kernel destroys no more than is said here.
    unsafe {
        asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") a[0] => result,
            in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5],
            options(nostack),
        );
    }
    result
}

/// The marks are in no register but for the call itself: left behind there, they would make another call go unreported.
#[cfg(target_arch = "aarch64")]
unsafe fn call_marked(number: isize, a: [isize; 4], marks: &[u64; 2]) -> isize {
    let result;
    // SAFETY: the caller's, and the kernel destroys no more than is said here.
    unsafe {
        asm!(
            "ldp x4, x5, [{marks}]",
            "svc #0",
            "mov x4, xzr",
            "mov x5, xzr",
            marks = in(reg) marks.as_ptr(),
            in("x8") number,
            inlateout("x0") a[0] => result,
            in("x1") a[1], in("x2") a[2], in("x3") a[3],
            out("x4") _, out("x5") _,
            options(nostack),
        );
    }
    result
}
