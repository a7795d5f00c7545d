//! What the wrapper asks of Linux alone.
#![expect(unsafe_code, reason = "plain system calls without a safe form")]

use std::ffi::{CStr, CString, c_int};
use std::io;
use std::os::fd::OwnedFd;
use std::ptr;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// Leads to this process's program, whatever its name is now.
pub const OWN_PROGRAM: &CStr = c"/proc/self/exe";

/// Closes every descriptor from `first` on, in a process that is about to become another program.
pub fn close_from(first: c_int) {
    /// Above every descriptor that is likely to be open where `close_range` is missing (before Linux 5.9).
    const DESCRIPTORS_LIKELY: c_int = 1024;
    // SAFETY: plain system calls; the process uses none of these any more.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) != 0 {
            for descriptor in first..DESCRIPTORS_LIKELY {
                libc::close(descriptor);
            }
        }
    }
}

/// Has this process end when its parent does, of which this is the number.
///
/// # Errors
/// If the parent has ended already: its death is no signal any more.
pub fn end_with_parent(parent: c_int) -> io::Result<()> {
    // SAFETY: plain system calls.
    let now = unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
        libc::getppid()
    };
    if now == parent { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
}

/// Has this process leave no core: one that goes to a program (`core_pattern` with `|`) ignores the limit.
pub fn leave_no_core() {
    // SAFETY: a plain system call.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
}

/// The path that this process was started by, if the system told it.
pub fn started_by() -> Option<CString> {
    // SAFETY: `AT_EXECFN` is the address of a string on the process's first stack page, or 0.
    unsafe {
        let address = libc::getauxval(libc::AT_EXECFN);
        (address != 0).then(|| CStr::from_ptr(ptr::with_exposed_provenance(address as usize)).to_owned())
    }
}

/// The path of this process's program.
///
/// # Errors
/// The system's.
pub fn own_path() -> io::Result<std::path::PathBuf> {
    std::fs::read_link("/proc/self/exe")
}

/// A descriptor that can be read when process `pid` has ended. `None` before Linux 5.3.
pub fn end_of(pid: i32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()
}

/// A pipe that no child gets by chance: the end to read from, the end to write to.
///
/// # Errors
/// The system's.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe_with(PipeFlags::CLOEXEC)?)
}

/// Permissions as a request has them.
pub fn mode_bits(mode: rustix::fs::Mode) -> u32 {
    mode.bits()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_whose_parent_has_ended_already_is_told() {
        // SAFETY: plain system calls. The wish is this thread's, and ends with it.
        std::thread::spawn(|| unsafe {
            assert!(end_with_parent(libc::getppid()).is_ok());
            let error = end_with_parent(libc::getpid()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
            libc::prctl(libc::PR_SET_PDEATHSIG, 0);
        })
        .join()
        .unwrap();
    }
}
