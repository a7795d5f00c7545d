//! Starts a tool's process exactly as its user would have had it, with or without a seccomp filter.
//!
//! Why not `std::process::Command`: with the filter installed, the child's own `execve` is notified and waits
//! for an answer, while `Command` waits for the `execve`. So a helper thread makes the child (sharing memory,
//! as `vfork` does, so that the service's size costs nothing), and the caller answers in the meantime.
//!
//! The child runs in our memory until it executes: between `clone` and `execve` it must only make system
//! calls, never allocate, lock or panic. It executes when it is told to ([`Started::let_go`]), so that everybody
//! who must know of it does before the tool does anything.

#![expect(unsafe_code, reason = "clone, and system calls in the child between clone and exec")]

use std::ffi::{CString, c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc;

use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};

use super::exec_strings::Strings;
use super::filter;
use super::inherited::Inherited;
use crate::exec;
use crate::invocation::Invocation;
use crate::kept_files::KEPT_FROM;
use crate::kept_threads::KeptThreads;

/// Stack of the child until it executes, in bytes: a few small frames of ours and of the C library's wrappers.
const CHILD_STACK_BYTES: usize = 64 * 1024;

/// The highest signal number of Linux.
const SIGNAL_MAX: c_int = 64;

/// The size of the kernel's own `struct sigaction`, in words of 8 bytes: handler, flags, restorer, mask.
const KERNEL_SIGACTION_WORDS: usize = 4;

/// The size of the kernel's own signal set, in bytes: 64 signals.
const KERNEL_SIGSET_BYTES: usize = 8;

/// Status of a child that could not execute; nobody sees it, since its error number is told first.
const CANNOT_EXECUTE_STATUS: c_int = 127;

/// The child's report: two numbers of 4 bytes.
const REPORT_BYTES: usize = 8;

/// A child's death follows that of the thread that made it, so each run has one of these to itself.
static PARENTS: KeptThreads = KeptThreads::new("tool-parent");

/// The word on which the child executes: any byte.
const GO: [u8; 1] = [1];

/// A process that was started, and waits to be let go and served.
pub struct Started {
    /// Its process id, which is its process group's as well.
    pub pid: Pid,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
    /// The filter's listener, if a filter was asked for.
    pub listener: Option<OwnedFd>,
    /// Readable when the program runs, or could not be executed: see [`Started::execution`].
    pub executing: OwnedFd,
    /// The child's death follows that of the thread that made it, so this keeps that thread.
    _keeper: mpsc::Sender<()>,
}

impl Started {
    /// Lets the child execute the tool. Until then it has done nothing that anybody could see.
    ///
    /// # Errors
    /// The system's, if the child has ended.
    pub fn let_go(&self) -> io::Result<()> {
        rustix::net::send(&self.executing, &GO, rustix::net::SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Whether the program runs now. To be called once, when `executing` is readable.
    ///
    /// # Errors
    /// The error that `execve` (or a step before it) ended with; nothing happened then.
    pub fn execution(&self) -> io::Result<()> {
        let mut errno = [0_u8; 4];
        let (_, bytes) = rustix::net::recv(&self.executing, &mut errno, RecvFlags::empty())?;
        match i32::from_le_bytes(errno) {
            0 if bytes == errno.len() => Ok(()),
            0 => Err(io::Error::other("the tool's process ended before it ran")),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// One descriptor of the child: its number there, what it is a copy of here, and a number out of the way.
struct Descriptor {
    target: RawFd,
    source: OwnedFd,
    parked: RawFd,
}

/// Everything the child needs, made before it exists.
struct Launch {
    program: CString,
    argv: Strings,
    env: Strings,
    cwd: CString,
    umask: libc::mode_t,
    descriptors: Vec<Descriptor>,
    parking: RawFd,
    /// From this number on, no descriptor is the child's.
    not_its_own: RawFd,
    inherited: Inherited,
    filter: Option<Vec<libc::sock_filter>>,
    report: OwnedFd,
    /// The other end's number: a child that held it too would wait for its own word, and for ever.
    others_end: RawFd,
    /// Whose child it is. One whose parent was killed before it could follow it is nobody's.
    parent: libc::pid_t,
    errno: AtomicI32,
}

// SAFETY: the raw pointers in `Strings` point into the `CString`s beside them, which nobody changes.
unsafe impl Send for Launch {}

/// Starts `invocation` with these descriptors, the limits of `client_pid`, and under `filter`, if given.
///
/// # Errors
/// If no process could be made, or a step before the filter failed.
pub fn spawn(
    invocation: &Invocation,
    descriptors: Vec<(i32, OwnedFd)>,
    client_pid: Option<u32>,
    filter: Option<&[libc::sock_filter]>,
) -> io::Result<Started> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let parking = descriptors.iter().map(|(target, _)| target + 1).max().unwrap_or(0).max(3);
    let its_own = descriptors.iter().map(|(_, source)| source.as_raw_fd()).chain([theirs.as_raw_fd()]);
    let not_its_own = its_own.map(|number| number + 1).max().unwrap_or(0).max(KEPT_FROM);
    let client = client_pid.and_then(|pid| libc::pid_t::try_from(pid).ok());
    let launch = Launch {
        program: CString::new(invocation.tool.as_slice())?,
        argv: Strings::new(invocation.argv.iter().map(AsRef::as_ref))?,
        env: Strings::new(
            // What the user told us about the run is not the tool's.
            invocation.env.iter().map(AsRef::as_ref).filter(|entry: &&[u8]| !entry.starts_with(exec::PREFIX)),
        )?,
        cwd: CString::new(invocation.cwd.as_slice())?,
        umask: invocation.umask & 0o777,
        descriptors: descriptors
            .into_iter()
            .map(|(target, source)| Descriptor { target, source, parked: -1 })
            .collect(),
        parking,
        not_its_own,
        inherited: client.map(Inherited::of).unwrap_or_default(),
        filter: filter.map(<[_]>::to_vec),
        report: theirs,
        others_end: ours.as_raw_fd(),
        parent: rustix::process::getpid().as_raw_nonzero().get(),
        errno: AtomicI32::new(0),
    };
    let (keeper, kept) = mpsc::channel::<()>();
    PARENTS.run(move || be_parent(launch, &kept))?;
    let (pid, listener) = receive_report(&ours)?;
    match take_over(pid, listener) {
        Ok((pidfd, listener)) => Ok(Started { pid, pidfd, listener, executing: ours, _keeper: keeper }),
        Err(error) => {
            // It waits for an answer to its first call that nobody could give, and its parent waits for it.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            Err(error)
        }
    }
}

/// Descriptors for the child, and for its listener if it has one.
fn take_over(pid: Pid, listener: RawFd) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    let listener = match listener {
        0.. => Some(rustix::process::pidfd_getfd(&pidfd, listener, PidfdGetfdFlags::empty())?),
        _ => None,
    };
    Ok((pidfd, listener))
}

/// The child's word: its process id and the number of its listener. Or the error that came instead.
fn receive_report(socket: &OwnedFd) -> io::Result<(Pid, RawFd)> {
    let mut bytes = [0_u8; REPORT_BYTES];
    let (_, got) = rustix::net::recv(socket, &mut bytes, RecvFlags::empty())?;
    let word = |i: usize| i32::from_le_bytes(std::array::from_fn(|k| bytes[4 * i + k]));
    match (got, Pid::from_raw(word(0))) {
        (REPORT_BYTES, Some(pid)) => Ok((pid, word(1))),
        (4, _) if word(0) != 0 => Err(io::Error::from_raw_os_error(word(0))),
        _ => Err(io::Error::other("the tool's process ended before it was set up")),
    }
}

/// The helper thread: makes the child, tells how its `execve` ended, and lives as long as the run.
fn be_parent(mut launch: Launch, run: &mpsc::Receiver<()>) {
    // Not initialised: the child touches a page or two of it.
    let mut stack: Vec<MaybeUninit<u128>> = Vec::with_capacity(CHILD_STACK_BYTES / 16);
    let top = stack.spare_capacity_mut().as_mut_ptr_range().end.cast::<c_void>();
    // Descriptors are shared only until the child's first step: see `leave_descriptors`.
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | libc::SIGCHLD;
    // SAFETY: `sigfillset` initialises the set. A signal handler of ours must not run in the child, which
    // shares our memory; this thread does nothing else, so its mask need not come back.
    unsafe {
        let mut all = std::mem::zeroed::<libc::sigset_t>();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, std::ptr::null_mut());
    }
    // SAFETY: the stack and `launch` outlive the child's use of them, since CLONE_VFORK holds this thread
    // until the child has executed or ended; the child gets a table of signals of its own, and makes itself one of
    // descriptors before it touches any.
    let pid = unsafe { libc::clone(child, top, flags, (&raw mut launch).cast()) };
    let errno = if pid < 0 { last_errno() } else { launch.errno.load(Ordering::Acquire) };
    // A peer that is gone wants no answer.
    let _ = rustix::net::send(&launch.report, &errno.to_le_bytes(), rustix::net::SendFlags::NOSIGNAL);
    drop(launch);
    drop(stack);
    let _ = run.recv();
    if pid > 0 && errno != 0 {
        // SAFETY: a child of ours that has ended; nobody else waits for it, since its start failed.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    }
}

/// The child, until it executes. Only system calls from here on.
extern "C" fn child(launch: *mut c_void) -> c_int {
    // SAFETY: `be_parent` passes its `Launch`, and is suspended while we use it.
    let launch = unsafe { &mut *launch.cast::<Launch>() };
    // SAFETY: `set_up` and `execute` make system calls with arguments made for them.
    let errno = unsafe {
        match set_up(launch) {
            Ok(report) => match wait_for_go(report) {
                Ok(()) => execute(launch),
                Err(errno) => errno,
            },
            Err(errno) => errno,
        }
    };
    launch.errno.store(errno, Ordering::Release);
    // SAFETY: ends the child without running anything of ours.
    unsafe { libc::_exit(CANNOT_EXECUTE_STATUS) }
}

/// Everything that makes the process its client's, up to the filter. Gives the report's descriptor.
///
/// # Safety
/// Only in the child that [`be_parent`] makes.
unsafe fn set_up(launch: &mut Launch) -> Result<RawFd, c_int> {
    // SAFETY: plain system calls; pointers are to live values of the types they want.
    unsafe {
        leave_descriptors(launch.not_its_own)?;
        libc::close(launch.others_end);
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        if libc::getppid() != launch.parent {
            return Err(libc::ESRCH);
        }
        check(libc::setpgid(0, 0))?;
        for signal in 1..=SIGNAL_MAX {
            // Not by the C library, which keeps its own signals to itself; all zeroes is the default, one to ignore it.
            let mut action = [0_u64; KERNEL_SIGACTION_WORDS];
            action[0] = launch.inherited.ignored_signals >> (signal - 1) & 1;
            let nothing = std::ptr::null_mut::<c_void>();
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const action, nothing, KERNEL_SIGSET_BYTES);
        }
        check(libc::chdir(launch.cwd.as_ptr()))?;
        libc::umask(launch.umask);
        if let Some(nice) = launch.inherited.nice {
            libc::setpriority(libc::PRIO_PROCESS, 0, nice);
        }
        if let Some(cpus) = &launch.inherited.affinity {
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), cpus);
        }
        // Whatever else is open here closes on exec. Where the kernel lacks this (before 5.11), it does so
        // anyway: everything of ours is opened with O_CLOEXEC.
        libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
        for d in &mut launch.descriptors {
            d.parked = libc::fcntl(d.source.as_raw_fd(), libc::F_DUPFD_CLOEXEC, launch.parking);
            check(d.parked)?;
        }
        // The report's socket may have a number that the tool is to have.
        let report = libc::fcntl(launch.report.as_raw_fd(), libc::F_DUPFD_CLOEXEC, launch.parking);
        check(report)?;
        for d in &launch.descriptors {
            check(libc::dup2(d.parked, d.target))?;
        }
        for (resource, limit) in &launch.inherited.limits {
            libc::setrlimit(*resource as _, limit);
        }
        // Before the filter, which may have this call.
        let own = libc::getpid();
        let listener = match &launch.filter {
            Some(filter) => filter::install(filter)?,
            None => -1,
        };
        send_report(report, own, listener)?;
        Ok(report)
    }
}

/// Makes this process a table of descriptors of its own, without those from `not_its_own` on: copying and then closing
/// thousands of kept files would take longer than starting a process does.
///
/// # Safety
/// Only in the child.
unsafe fn leave_descriptors(not_its_own: RawFd) -> Result<(), c_int> {
    // SAFETY: plain numbers.
    unsafe {
        match libc::syscall(libc::SYS_close_range, not_its_own, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE)
        {
            0 => Ok(()),
            // Before 5.9.
            _ => check(libc::unshare(libc::CLONE_FILES)),
        }
    }
}

/// Tells our process id, and the number of the listener (-1 if there is none).
///
/// # Safety
/// Only in the child.
unsafe fn send_report(socket: RawFd, own: libc::pid_t, listener: RawFd) -> Result<(), c_int> {
    let mut bytes = [0_u8; REPORT_BYTES];
    // SAFETY: plain system calls; the pointer is to a local. `write` is none of the filtered calls: nobody
    // could answer before the listener is known.
    let sent = unsafe {
        bytes[..4].copy_from_slice(&own.to_le_bytes());
        bytes[4..].copy_from_slice(&listener.to_le_bytes());
        libc::write(socket, bytes.as_ptr().cast(), bytes.len())
    };
    if sent < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Waits for [`GO`]; an end instead means that nobody wants the tool to run.
///
/// # Safety
/// Only in the child.
unsafe fn wait_for_go(socket: RawFd) -> Result<(), c_int> {
    let mut word = [0_u8; GO.len()];
    // SAFETY: a plain system call with a pointer to a local. Reading is notified of descriptor 0 alone, which
    // is the tool's.
    match unsafe { libc::read(socket, word.as_mut_ptr().cast(), word.len()) } {
        1.. => Ok(()),
        0 => Err(libc::ECANCELED),
        _ => Err(last_errno()),
    }
}

/// Becomes the tool; returns only with the error number if that cannot be.
///
/// # Safety
/// Only in the child.
unsafe fn execute(launch: &Launch) -> c_int {
    // SAFETY: the arrays end in null and their strings live; the set of signals is of the size given.
    unsafe {
        let (blocked, nothing) =
            (&raw const launch.inherited.blocked_signals, std::ptr::null_mut::<c_void>());
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, blocked, nothing, KERNEL_SIGSET_BYTES);
        libc::execve(launch.program.as_ptr(), launch.argv.pointers.as_ptr(), launch.env.pointers.as_ptr());
    }
    last_errno()
}

pub(super) fn check(result: c_int) -> Result<(), c_int> {
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// `errno`, without anything that could allocate.
pub(super) fn last_errno() -> c_int {
    // SAFETY: always a valid pointer to this thread's own number.
    unsafe { *libc::__errno_location() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a child says that is made by this thread, if `parent` is whose child it is to be.
    fn word_of_a_child_of(parent: libc::pid_t) -> io::Result<(Pid, RawFd)> {
        let pair = || {
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        };
        let (ours, theirs) = pair().unwrap();
        let launch = Launch {
            program: c"/bin/true".into(),
            argv: Strings::new([&b"true"[..]].into_iter()).unwrap(),
            env: Strings::new(std::iter::empty()).unwrap(),
            cwd: c"/".into(),
            umask: 0o022,
            descriptors: Vec::new(),
            parking: 3,
            not_its_own: theirs.as_raw_fd() + 1,
            inherited: Inherited::default(),
            filter: None,
            others_end: ours.as_raw_fd(),
            report: theirs,
            parent,
            errno: AtomicI32::new(0),
        };
        let (keeper, kept) = mpsc::channel::<()>();
        PARENTS.run(move || be_parent(launch, &kept)).unwrap();
        let word = receive_report(&ours);
        // Nobody lets it go: it ends by itself, and its parent has waited for it when it lets go of its end.
        drop(ours);
        drop(keeper);
        word
    }

    /// The service is killed just when a child of it begins: its death is nobody's signal any more.
    #[test]
    fn a_child_whose_parent_was_killed_before_it_could_follow_it_ends() {
        let parent = rustix::process::getpid().as_raw_nonzero().get();
        let word = word_of_a_child_of(parent + 1);
        assert_eq!(word.unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn a_child_that_nobody_lets_go_ends_with_the_others_end() {
        let parent = rustix::process::getpid().as_raw_nonzero().get();
        let (pid, _) = word_of_a_child_of(parent).unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while rustix::process::test_kill_process(pid).is_ok() {
            assert!(std::time::Instant::now() < end, "it waits for a word that nobody can give");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}
