//! Daemon life cycle on Unix: leaving the client that started us.
//!
//! A service started by a wrapper must hold nothing of that wrapper's: a `make | cat` ends when make ends.
#![expect(unsafe_code, reason = "fork and signal dispositions have no safe form")]

#[cfg_attr(target_os = "linux", path = "close_linux.rs")]
#[cfg_attr(target_os = "macos", path = "close_macos.rs")]
mod close;

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit};

/// Closes every descriptor but the standard ones. To be called before anything is opened.
pub fn close_inherited_descriptors() {
    close::close_from(3);
}

/// Goes on as a process of its own session, without a terminal, in `/`; the caller's process ends here, with
/// status 0. To be called while there is one thread.
///
/// # Errors
/// If the system has no room for another process.
pub fn detach() -> io::Result<()> {
    fork_and_leave_parent()?;
    rustix::process::setsid()?;
    // Not the session's leader: it can never get a terminal again.
    fork_and_leave_parent()?;
    rustix::process::chdir("/")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(null.as_fd())?;
    rustix::stdio::dup2_stdout(null.as_fd())?;
    rustix::stdio::dup2_stderr(null.as_fd())?;
    Ok(())
}

fn fork_and_leave_parent() -> io::Result<()> {
    // SAFETY: one thread, so the child may do everything its parent could.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(()),
        // SAFETY: ends this process at once, without running the exit handlers that the child will run.
        _ => unsafe { libc::_exit(0) },
    }
}

/// Undoes what a client may have left in its children: blocked and ignored signals, a narrow mask of modes, a low
/// number of descriptors.
pub fn reset_process_state() {
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    // SAFETY: default dispositions and an empty mask are valid for every signal; failures (KILL, STOP) do not matter.
    unsafe {
        for signal in 1..32 {
            if signal != libc::SIGPIPE {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let _ = rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit { current: limit.maximum, maximum: limit.maximum },
    );
}
