//! One run of a tool from start to end: its process, its streams, its cancellation, its exit.
//!
//! One poll loop on the caller's thread serves everything: the tool's output goes to the watcher as it comes,
//! and an [`Attendant`], if there is one, answers the system calls it had filtered. Without one this is just a
//! run, as the declared observer makes it.
//!
//! ```text
//! spawn -> announced -> executing -> running -> exited -> drained -> ended
//!             |            |            | cancelled: SIGTERM to the group, SIGKILL a moment later, then on as usual
//!             `-> could not execute: an error, nothing happened
//! ```

mod exec_strings;
mod filter;
pub mod inherited;
mod spawn;
mod tool_io;
mod turns;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::fs::OFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus};
use zccache_proto::message::{Exit, OUTPUT_CHUNK_BYTES_MAX, OutputStream};

use crate::faults;
use crate::observer::{Job, Watcher};
use spawn::Started;
use tool_io::ToolIo;
use turns::Turns;

/// How long after the tool's exit its output's end (and its last process's) is waited for: orphans that have
/// ended but are not yet reaped by the system's `init` look alive for about this long.
const GRACE: Duration = Duration::from_millis(10);

/// How long a cancelled tool may take to clean up behind itself: it has some files to remove. Less than a second.
const TERM_GRACE: Duration = Duration::from_millis(300);

/// Somebody who has a run's system calls filtered and answers them.
pub trait Attendant {
    /// The filter that the tool's processes are to have.
    fn filter(&self) -> &[libc::sock_filter];
    /// The tool's first process exists, with this listener; it waits for its `execve` to be answered.
    ///
    /// # Errors
    /// If the listener cannot be used; the run ends then before the tool has run.
    fn attach(&mut self, listener: OwnedFd) -> io::Result<()>;
    /// What to poll; [`Attendant::serve`] is called when it is readable.
    fn listener(&self) -> BorrowedFd<'_>;
    /// Answers one system call.
    fn serve(&mut self);
    /// Processes remain after the tool's exit: from now on, somebody else must answer their calls, and keep
    /// `outputs` open and empty so that nobody blocks on or is killed by them.
    fn hand_over(&mut self, outputs: Vec<OwnedFd>);
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How the tool's first process ended.
    pub exit: Exit,
    /// The watcher had the run killed.
    pub cancelled: bool,
    /// Processes were left behind.
    pub left_processes: bool,
}

/// Runs `job` to its end.
///
/// # Errors
/// If the tool could not be started; it did nothing then.
pub fn run(job: Job, watcher: &mut dyn Watcher, attendant: Option<&mut dyn Attendant>) -> io::Result<Ended> {
    let ToolIo { ours, theirs } = ToolIo::new(&job.invocation.stdio, job.descriptors)?;
    let filter = attendant.as_ref().map(|a| a.filter());
    // All that can fail before there is a process.
    let others = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut started = spawn::spawn(&job.invocation, theirs, job.client_pid, filter)?;
    let mut run = Run {
        others,
        outputs: ours,
        buffer: Vec::new(),
        attendant,
        listening: true,
        turns: Turns::default(),
        cancelled: false,
        kill_at: None,
    };
    let attached = match (&mut run.attendant, started.listener.take()) {
        (Some(attendant), Some(listener)) => attendant.attach(listener),
        _ => Ok(()),
    };
    let pid = started.pid.as_raw_nonzero().get().unsigned_abs();
    let let_go = attached.and_then(|()| watcher.starting(pid)).and_then(|()| started.let_go());
    if let_go.is_ok() {
        faults::pass("run.let_go");
    }
    let exit = match let_go.and_then(|()| run.attend(&started, watcher)) {
        Ok(exit) => exit,
        Err(error) => {
            // Whatever the reason, nothing may go on behind the back of a client that now runs the tool itself.
            kill_group(&started);
            let _ = reap(&started);
            return Err(error);
        }
    };
    let left_processes = run.wind_up(watcher);
    Ok(Ended { exit, cancelled: run.cancelled, left_processes })
}

/// What the poll loop works on.
struct Run<'a> {
    /// Everything but the listener. In an `epoll` of its own, so that the wait for a system call, which there
    /// are thousands of, looks at two descriptors only. The listener itself must be polled directly: the
    /// kernel's hint to stay on the asking task's processor does not pass through an `epoll`.
    others: OwnedFd,
    outputs: Vec<(OutputStream, OwnedFd)>,
    /// Of `OUTPUT_CHUNK_BYTES_MAX` bytes once there is any output: most runs print nothing.
    buffer: Vec<u8>,
    attendant: Option<&'a mut dyn Attendant>,
    /// Some process may have the filter.
    listening: bool,
    turns: Turns,
    cancelled: bool,
    /// When a cancelled tool that has not ended by itself is killed.
    kill_at: Option<Instant>,
}

/// What happened, the most urgent first. The order between an output and the exit does not matter, since
/// [`Run::wind_up`] takes what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happening {
    SystemCall,
    Cancelled,
    Executed,
    Output(OutputStream),
    Exited,
}

/// The most that can happen at once, the system call apart.
const HAPPENINGS: usize = 5;

impl Happening {
    /// All but the system call, in their order.
    const OTHERS: [Self; HAPPENINGS] = [
        Self::Cancelled,
        Self::Executed,
        Self::Output(OutputStream::Stdout),
        Self::Output(OutputStream::Stderr),
        Self::Exited,
    ];

    /// As a number that the kernel keeps for us.
    fn token(self) -> epoll::EventData {
        let index = Self::OTHERS.iter().position(|&h| h == self).unwrap_or(HAPPENINGS);
        epoll::EventData::new_u64(index as u64)
    }
}

impl Run<'_> {
    /// Serves everything until the tool's first process has ended and is reaped.
    fn attend(&mut self, started: &Started, watcher: &mut dyn Watcher) -> io::Result<Exit> {
        self.expect(&started.executing, Happening::Executed)?;
        for (stream, fd) in &self.outputs {
            self.expect(fd, Happening::Output(*stream))?;
        }
        match self.expect(watcher.cancelled(), Happening::Cancelled) {
            // What cannot be waited for (a file) never tells of a cancellation.
            Ok(()) | Err(rustix::io::Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
        loop {
            match self.next(watcher.cancelled(), started)? {
                Happening::SystemCall => {
                    if let Some(attendant) = &mut self.attendant {
                        attendant.serve();
                    }
                }
                Happening::Executed => {
                    epoll::delete(&self.others, &started.executing)?;
                    started.execution()?;
                    self.expect(&started.pidfd, Happening::Exited)?;
                }
                Happening::Output(stream) => _ = self.pass_on(stream, watcher),
                Happening::Exited => return reap(started),
                Happening::Cancelled => {
                    epoll::delete(&self.others, watcher.cancelled())?;
                    self.cancelled = true;
                    // As Ctrl-C would have it: tools remove what they have half written.
                    let _ = rustix::process::kill_process_group(started.pid, Signal::TERM);
                    self.kill_at = Some(Instant::now() + TERM_GRACE);
                }
            }
        }
    }

    fn expect(&self, fd: impl AsFd, what: Happening) -> rustix::io::Result<()> {
        epoll::add(&self.others, fd, what.token(), epoll::EventFlags::IN)
    }

    /// Waits for something to happen. (`cancelled` is polled with the rest; it stands in for the listener
    /// where there is none.)
    fn next(&mut self, cancelled: BorrowedFd<'_>, started: &Started) -> io::Result<Happening> {
        loop {
            let left = self.kill_at.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                self.kill_at = None;
                kill_group(started);
                continue;
            }
            let timeout = left.map(|left| Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) });
            let listener = self.attendant.as_ref().filter(|_| self.listening).map(|a| a.listener());
            let mut polled = [
                PollFd::new(&self.others, PollFlags::IN),
                PollFd::from_borrowed_fd(listener.unwrap_or(cancelled), PollFlags::IN),
            ];
            let count = if listener.is_some() { 2 } else { 1 };
            match poll(&mut polled[..count], timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let called = listener.is_some() && polled[1].revents().contains(PollFlags::IN);
            if self.turns.is_calls(called) {
                return Ok(Happening::SystemCall);
            }
            let hung_up = listener.is_some() && polled[1].revents().contains(PollFlags::HUP);
            if !polled[0].revents().is_empty()
                && let Some(happening) = self.most_urgent()?
            {
                return Ok(happening);
            }
            if hung_up {
                // Nobody is left to serve; polling on would not wait.
                self.listening = false;
            }
        }
    }

    /// The most urgent of what happened beside system calls.
    fn most_urgent(&self) -> io::Result<Option<Happening>> {
        let nothing =
            || epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(u64::MAX) };
        let mut events: [epoll::Event; HAPPENINGS] = std::array::from_fn(|_| nothing());
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let count = match epoll::wait(&self.others, &mut events, Some(&now)) {
            Err(rustix::io::Errno::INTR) => 0,
            other => other?,
        };
        let first = events[..count].iter().filter_map(|event| usize::try_from(event.data.u64()).ok()).min();
        Ok(first.and_then(|index| Happening::OTHERS.get(index).copied()))
    }

    /// Reads once from an output and passes it on; forgets the output at its end. Returns how many bytes there were.
    fn pass_on(&mut self, stream: OutputStream, watcher: &mut dyn Watcher) -> usize {
        let Some(index) = self.outputs.iter().position(|(s, _)| *s == stream) else { return 0 };
        self.buffer.resize(OUTPUT_CHUNK_BYTES_MAX, 0);
        match rustix::io::read(&self.outputs[index].1, self.buffer.as_mut_slice()) {
            Ok(bytes @ 1..) => {
                watcher.output(stream, &self.buffer[..bytes]);
                return bytes;
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            // A terminal's end is EIO.
            Ok(0) | Err(_) => {
                let (_, ended) = self.outputs.remove(index);
                // Closed, it would leave the `epoll` by itself, were it not open in some child that another thread
                // has just made, and that has not executed yet: until then, it would be readable for ever.
                let _ = epoll::delete(&self.others, &ended);
            }
        }
        0
    }

    /// Passes on what was there when the tool had ended, however long the watcher takes: it is the tool's own.
    fn pass_on_the_rest(&mut self, watcher: &mut dyn Watcher) {
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let output = self.outputs.iter().find(|(s, _)| *s == stream);
            let mut rest = output.map_or(0, |(_, fd)| rustix::io::ioctl_fionread(fd).unwrap_or(0));
            while rest > 0 {
                match self.pass_on(stream, watcher) {
                    0 => break,
                    bytes => rest = rest.saturating_sub(bytes as u64),
                }
            }
        }
    }

    /// After the exit: passes on what is left of the output. Says whether processes were left behind, whose
    /// calls and output somebody else then takes care of.
    fn wind_up(&mut self, watcher: &mut dyn Watcher) -> bool {
        for (_, fd) in &self.outputs {
            let flags = rustix::fs::fcntl_getfl(fd).unwrap_or(OFlags::RDWR);
            let _ = rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK);
        }
        self.pass_on_the_rest(watcher);
        let deadline = Instant::now() + GRACE;
        while self.is_busy() {
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.wind_up_step(left, watcher) && left.is_zero() {
                break;
            }
        }
        let left_processes = self.is_busy();
        if left_processes {
            for (_, fd) in &self.outputs {
                let flags = rustix::fs::fcntl_getfl(fd).unwrap_or(OFlags::RDWR);
                let _ = rustix::fs::fcntl_setfl(fd, flags - OFlags::NONBLOCK);
            }
            let outputs: Vec<OwnedFd> = self.outputs.drain(..).map(|(_, fd)| fd).collect();
            match &mut self.attendant {
                Some(attendant) => attendant.hand_over(outputs),
                None => discard_forever(outputs),
            }
        }
        left_processes
    }

    /// Whether some process still has the tool's output or filter.
    fn is_busy(&self) -> bool {
        !self.outputs.is_empty() || self.attendant.as_ref().is_some_and(|a| !is_hung_up(a.listener()))
    }

    /// Waits up to `left` for output or system calls, and takes them. Says whether there were any.
    fn wind_up_step(&mut self, left: Duration, watcher: &mut dyn Watcher) -> bool {
        let outputs_before = self.outputs.len();
        let listener = self.attendant.as_ref().map(|a| a.listener()).filter(|l| !is_hung_up(*l));
        let mut polled: Vec<PollFd<'_>> =
            self.outputs.iter().map(|(_, fd)| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)).collect();
        polled.extend(listener.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        let ready = matches!(poll(&mut polled, Some(&timeout)), Ok(n) if n > 0);
        let output = (0..self.outputs.len()).find(|&i| !polled[i].revents().is_empty());
        let call = listener.is_some() && polled.last().is_some_and(|p| p.revents().contains(PollFlags::IN));
        drop(polled);
        if let Some(index) = output {
            self.pass_on(self.outputs[index].0, watcher);
        }
        if let (true, Some(attendant)) = (call, &mut self.attendant) {
            attendant.serve();
        }
        // A process that writes or asks for ever is not waited for beyond the grace. An end is always taken.
        let has_ended = self.outputs.len() < outputs_before;
        ready && output.is_some() && (has_ended || !left.is_zero())
    }
}

/// Whether no process has the filter any more.
fn is_hung_up(listener: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(listener, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut polled, Some(&now)), Ok(1)) && polled[0].revents().contains(PollFlags::HUP)
}

/// Reads `outputs` to their ends on a thread of its own, so that processes left behind can go on writing.
pub fn discard_forever(outputs: Vec<OwnedFd>) {
    for fd in outputs {
        let discard = move || {
            let mut buffer = [0_u8; 4096];
            loop {
                match rustix::io::read(&fd, &mut buffer) {
                    Ok(0) => break,
                    Ok(_) | Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                    Err(_) => break,
                }
            }
        };
        // Without a thread the output is closed: the best that can be done.
        let _ = std::thread::Builder::new().name("tool-leftover".into()).spawn(discard);
    }
}

/// Kills the tool's whole process group. Its leader is not reaped yet, so the number is still its own.
fn kill_group(started: &Started) {
    let _ = rustix::process::kill_process_group(started.pid, Signal::KILL);
}

/// Takes the ended first process's status.
fn reap(started: &Started) -> io::Result<Exit> {
    let status = loop {
        match rustix::process::waitid(WaitId::PidFd(started.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    Ok(exit_of(status))
}

fn exit_of(status: Option<WaitIdStatus>) -> Exit {
    let Some(status) = status else { return Exit::Signal(libc::SIGKILL) };
    match status.exit_status() {
        Some(code) => Exit::Code(code),
        None => Exit::Signal(status.terminating_signal().unwrap_or(libc::SIGKILL)),
    }
}
