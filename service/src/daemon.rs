//! Daemon life cycle: leaving the client that started us, and being the only one at an endpoint.
//!
//! A service started by a wrapper must hold nothing of that wrapper's: a `make | cat` ends when make ends.
#![expect(unsafe_code, reason = "fork and signal dispositions have no safe form")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::Context;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use zccache_proto::endpoint::Endpoint;

/// Closes every descriptor but the standard ones. To be called before anything is opened.
pub fn close_inherited_descriptors() {
    // SAFETY: nothing in this process owns a descriptor above 2 yet.
    unsafe { libc::close_range(3, libc::c_uint::MAX, 0) };
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

/// The lock that makes this the one service at its endpoint, for as long as it is held.
#[derive(Debug)]
pub struct ServiceLock {
    _file: File,
}

/// There is a service at this endpoint already.
#[derive(Debug, thiserror::Error)]
#[error("a service is running already (process {pid}) at {directory}")]
pub struct AlreadyRunning {
    pid: String,
    directory: String,
}

impl ServiceLock {
    /// Takes the lock, and writes the process id beside it.
    ///
    /// # Errors
    /// [`AlreadyRunning`], or that the runtime directory cannot be used.
    pub fn take(endpoint: &Endpoint) -> anyhow::Result<Self> {
        let directory = endpoint.directory().display().to_string();
        endpoint.prepare().with_context(|| format!("runtime directory {directory}"))?;
        let open = |path| File::options().create(true).truncate(false).write(true).mode(0o600).open(path);
        let path = endpoint.service_lock();
        let file = open(path.clone()).with_context(|| path.display().to_string())?;
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let pid = std::fs::read_to_string(endpoint.pid_file()).unwrap_or_default().trim().to_owned();
            return Err(AlreadyRunning { pid, directory }.into());
        }
        Ok(Self { _file: file })
    }

    /// Writes the process id for people and scripts. To be called by the process that stays.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write_pid(&self, endpoint: &Endpoint) -> io::Result<()> {
        let mut file =
            File::options().create(true).truncate(true).write(true).mode(0o600).open(endpoint.pid_file())?;
        writeln!(file, "{}", std::process::id())
    }
}
