//! This process as the system made it, and the calls that replace it, end it or make another.
//!
//! The client's `unsafe` code, with `kernel_linux.rs` and `kernel_macos.rs`. Arguments and environment stay the very strings that came in,
//! so that a tool run from here cannot tell the wrapper from its caller.
#![expect(unsafe_code, reason = "execve, fork and signals, with no more done to the process than needed")]

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use crate::kernel;

/// The arguments and environment given to `main`; they live as long as the process.
pub struct Process {
    args: Vec<&'static CStr>,
    environ: *const *const c_char,
    /// What SIGCHLD did before we had children; the next program is to find it so.
    child_signal: Cell<Option<libc::sighandler_t>>,
}

impl Process {
    /// Takes what `main` was given.
    ///
    /// # Safety
    /// `argv` has `argc` entries, `environ` ends with a null pointer, and both and all strings stay as they
    /// are for the life of the process: nobody calls `setenv`.
    pub unsafe fn from_main(argc: c_int, argv: *const *const c_char, environ: *const *const c_char) -> Self {
        let count = usize::try_from(argc).unwrap_or(0);
        // SAFETY: promised by the caller.
        let args = (0..count).map(|n| unsafe { CStr::from_ptr(*argv.add(n)) }).collect();
        Self { args, environ, child_signal: Cell::new(None) }
    }

    /// The arguments, `argv[0]` first. There may be none at all.
    pub fn args(&self) -> &[&'static CStr] {
        &self.args
    }

    /// The environment's entries, in order.
    pub fn env(&self) -> impl Iterator<Item = &'static CStr> {
        let mut next = self.environ;
        std::iter::from_fn(move || {
            // SAFETY: `next` is within the array that ends with a null pointer, promised by `from_main`.
            unsafe {
                let entry = *next;
                if entry.is_null() {
                    return None;
                }
                next = next.add(1);
                Some(CStr::from_ptr(entry))
            }
        })
    }

    /// The value of the environment variable `name`.
    pub fn var(&self, name: &str) -> Option<&'static [u8]> {
        self.env().find_map(|entry| entry.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }

    /// Whether the switch `name` is set: to anything but nothing and `0`.
    pub fn switch(&self, name: &str) -> bool {
        self.var(name).is_some_and(|value| !value.is_empty() && value != b"0")
    }

    /// Becomes `program`. Returns only if that fails, with the reason.
    pub fn exec(&self, program: &CStr, argv: &[&CStr]) -> io::Error {
        let arguments = Arguments::new(argv);
        if let Some(before) = self.child_signal.take() {
            // SAFETY: a plain system call.
            unsafe { libc::signal(libc::SIGCHLD, before) };
        }
        // SAFETY: all pointers are to strings that end with NUL, in arrays that end with a null pointer.
        unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), self.environ) };
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ENOEXEC) {
            return error;
        }
        // A script without its first line: what shells and `execvp` do.
        let shell = c"/bin/sh";
        let script: Vec<&CStr> = [shell, program].into_iter().chain(argv.iter().skip(1).copied()).collect();
        let arguments = Arguments::new(&script);
        // SAFETY: as above.
        unsafe { libc::execve(shell.as_ptr(), arguments.as_ptr(), self.environ) };
        io::Error::last_os_error()
    }

    /// Starts `program` with the given standard streams (`None`: ours).
    ///
    /// # Errors
    /// The system's, of `fork`. If the program itself cannot be run, the child ends with status 127.
    pub fn spawn(&self, program: &CStr, argv: &[&CStr], setup: &Setup<'_>) -> io::Result<Child> {
        if self.child_signal.get().is_none() {
            // Were it ignored, a child's status would be lost.
            // SAFETY: a plain system call.
            self.child_signal.set(Some(unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) }));
        }
        let parent = own_number();
        // SAFETY: there is one thread, so the child may do what the parent could.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                if setup.detached {
                    self.child_signal.set(None);
                }
                if setup.apply(parent).is_ok() {
                    let _ = self.exec(program, argv);
                }
                exit(127)
            }
            pid => Ok(Child { pid }),
        }
    }
}

/// What a child is given before it becomes another program.
pub struct Setup<'a> {
    /// Descriptors for standard input, output and error; `None` keeps ours.
    pub streams: [Option<BorrowedFd<'a>>; 3],
    /// A service: no descriptor above 2, no ignored or blocked signal. Otherwise a tool, which inherits all
    /// that we did, and ends when we do.
    pub detached: bool,
}

impl Setup<'_> {
    /// In the child of this process.
    fn apply(&self, parent: c_int) -> io::Result<()> {
        for (number, stream) in self.streams.iter().enumerate() {
            let Some(stream) = stream else { continue };
            let number = c_int::try_from(number).unwrap_or(0);
            // SAFETY: plain system calls on numbers.
            let outcome = unsafe {
                if stream.as_raw_fd() == number {
                    // `dup2` of a descriptor to itself would leave it to be closed by `execve`.
                    libc::fcntl(number, libc::F_SETFD, 0)
                } else {
                    libc::dup2(stream.as_raw_fd(), number)
                }
            };
            if outcome < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        if self.detached {
            detach();
            return Ok(());
        }
        kernel::end_with_parent(parent)
    }
}

fn own_number() -> c_int {
    // SAFETY: a plain system call.
    unsafe { libc::getpid() }
}

fn detach() {
    kernel::close_from(3);
    // SAFETY: plain system calls; the child is about to become another program.
    unsafe {
        for signal in 1..32 {
            libc::signal(signal, libc::SIG_DFL);
        }
        set_signal_mask_empty();
    }
}

/// # Safety
/// The process has one thread.
unsafe fn set_signal_mask_empty() {
    // SAFETY: the set is made by `sigemptyset` before it is read; one thread, says the caller.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
    }
}

/// A process that we started.
#[derive(Debug)]
pub struct Child {
    pid: libc::pid_t,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Child {
    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// How it ended, if it has.
    pub fn try_wait(&self) -> Option<Ended> {
        self.wait_with(libc::WNOHANG)
    }

    /// How it ended, once it has. A child that is not there any more counts as failed.
    pub fn wait(&self) -> Ended {
        self.wait_with(0).unwrap_or(Ended::Code(127))
    }

    fn wait_with(&self, flags: c_int) -> Option<Ended> {
        let mut status = 0;
        loop {
            // SAFETY: `status` is ours to write.
            match unsafe { libc::waitpid(self.pid, &mut status, flags) } {
                0 => return None,
                -1 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                -1 => return Some(Ended::Code(127)),
                _ if libc::WIFSIGNALED(status) => return Some(Ended::Signal(libc::WTERMSIG(status))),
                _ => return Some(Ended::Code(libc::WEXITSTATUS(status))),
            }
        }
    }
}

/// Ends this process at once.
pub fn exit(status: i32) -> ! {
    // SAFETY: nothing of ours needs to be flushed.
    unsafe { libc::_exit(status) }
}

/// Ends this process as `ended` says: by the same signal, if it was one, but without a core file of our own.
pub fn end_as(ended: Ended) -> ! {
    let signal = match ended {
        Ended::Code(status) => exit(status),
        Ended::Signal(signal) => signal,
    };
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    kernel::leave_no_core();
    // SAFETY: plain system calls; there is one thread.
    unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &none);
        libc::signal(signal, libc::SIG_DFL);
        set_signal_mask_empty();
        libc::kill(libc::getpid(), signal);
    }
    // How shells tell of a signal that did not end us (as process 1 of a container, say).
    exit(128 + signal)
}

/// Sends a signal (0: only asks) to the process group `group`, which must not be ours, nor a number with a
/// meaning of its own to `kill`. Returns whether the group exists.
pub fn signal_group(group: u32, signal: i32) -> bool {
    let Ok(group) = libc::pid_t::try_from(group) else { return false };
    // SAFETY: plain system calls.
    unsafe { group > 1 && group != libc::getpgrp() && libc::kill(-group, signal) == 0 }
}

/// The descriptor of this number, which came from whoever started us. It may not be open: then what is done
/// with it fails. Nothing of ours ever closes one.
pub fn inherited(number: i32) -> BorrowedFd<'static> {
    // SAFETY: never -1, and never a descriptor that we own: those are made later, with numbers of their own.
    unsafe { BorrowedFd::borrow_raw(number.max(0)) }
}

/// Pointers to arguments, and the null pointer that ends them.
struct Arguments(Vec<*const c_char>);

impl Arguments {
    fn new(argv: &[&CStr]) -> Self {
        Self(argv.iter().map(|a| a.as_ptr()).chain([ptr::null()]).collect())
    }

    fn as_ptr(&self) -> *const *const c_char {
        self.0.as_ptr()
    }
}
