//! The seccomp filter of a tool's process, installed in the child before it executes: only system calls.

#![expect(unsafe_code, reason = "system calls in the child between clone and exec")]

use std::os::fd::RawFd;

use libc::c_int;

use super::spawn::{check, last_errno};

/// Installs the filter for this process and all that come of it; gives its listener.
///
/// # Safety
/// Only in the child.
pub unsafe fn install(filter: &[libc::sock_filter]) -> Result<RawFd, c_int> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // Speculation as without a filter: before 5.16, kernels slow filtered processes down otherwise.
    let new = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // Killable: a notified call must not be interrupted by signals that it would not have been interrupted
    // by (kernel 5.19). First as a privileged process may, since "no new privileges" changes what setuid
    // programs do; unprivileged ones need it.
    for privileged in [true, false] {
        for flags in [new | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, new] {
            // SAFETY: the program is valid for the call, and the kernel copies it.
            let fd = unsafe {
                libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
            };
            if fd >= 0 {
                return Ok(fd as RawFd);
            }
            if last_errno() != libc::EINVAL {
                break;
            }
        }
        if privileged {
            // SAFETY: takes plain numbers.
            check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
        }
    }
    Err(last_errno())
}
