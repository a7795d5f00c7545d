//! One run of a tool from start to end: its process, its streams, its cancellation, its exit.
//!
//! One poll loop on the caller's thread serves everything: the tool's output goes to the watcher as it comes,
//! and an [`Attendant`], if there is one, answers the system calls it had filtered. Without one this is just a
//! run, as the declared observer makes it.
//!
//! ```text
//! spawn -> executing -> running -> exited -> drained -> ended
//!             |            | cancelled: SIGKILL to the group, then on as usual
//!             `-> could not execute: an error, nothing happened
//! ```

mod spawn;
mod tool_io;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Signal, WaitId, WaitIdOptions, WaitIdStatus};
use zccache_proto::message::{Exit, OUTPUT_CHUNK_BYTES_MAX, OutputStream};

use crate::observer::{Job, Watcher};
use spawn::Started;
use tool_io::ToolIo;

/// How long after the tool's exit its output's end (and its last process's) is waited for: orphans that have
/// ended but are not yet reaped by the system's `init` look alive for about this long.
const GRACE: Duration = Duration::from_millis(10);

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
    let mut started = spawn::spawn(&job.invocation, theirs, job.client_pid, filter)?;
    let mut run = Run {
        outputs: ours,
        buffer: vec![0; OUTPUT_CHUNK_BYTES_MAX],
        attendant,
        executing: true,
        cancelled: false,
        watch_cancel: true,
    };
    if let (Some(attendant), Some(listener)) = (&mut run.attendant, started.listener.take())
        && let Err(error) = attendant.attach(listener)
    {
        kill_group(&started);
        let _ = rustix::process::waitid(WaitId::PidFd(started.pidfd.as_fd()), WaitIdOptions::EXITED);
        return Err(error);
    }
    let exit = run.attend(&started, watcher)?;
    let left_processes = run.wind_up(watcher);
    Ok(Ended { exit, cancelled: run.cancelled, left_processes })
}

/// What the poll loop works on.
struct Run<'a> {
    outputs: Vec<(OutputStream, OwnedFd)>,
    buffer: Vec<u8>,
    attendant: Option<&'a mut dyn Attendant>,
    executing: bool,
    cancelled: bool,
    watch_cancel: bool,
}

/// What a poll found, the most urgent first.
enum Event {
    SystemCall,
    Executed,
    Output(usize),
    Exited,
    Cancelled { closed: bool },
}

/// Which polled descriptors are which: outputs come behind these.
const LISTENER: usize = 0;
const EXECUTING: usize = 1;
const PROCESS: usize = 2;
const CANCEL: usize = 3;
const OUTPUTS: usize = 4;

impl<'a> Run<'a> {
    /// Serves everything until the tool's first process has ended and is reaped.
    fn attend(&mut self, started: &Started, watcher: &mut dyn Watcher) -> io::Result<Exit> {
        loop {
            match self.next_event(started, watcher)? {
                Event::SystemCall => {
                    if let Some(attendant) = &mut self.attendant {
                        attendant.serve();
                    }
                }
                Event::Executed => {
                    self.executing = false;
                    started.execution()?;
                    watcher.started(started.pid.as_raw_nonzero().get().unsigned_abs());
                }
                Event::Output(index) => self.pass_on(index, watcher),
                Event::Exited => return reap(started),
                Event::Cancelled { closed } => {
                    self.watch_cancel = false;
                    if !closed {
                        self.cancelled = true;
                        kill_group(started);
                    }
                }
            }
        }
    }

    /// Waits for something to happen.
    fn next_event(&self, started: &Started, watcher: &dyn Watcher) -> io::Result<Event> {
        let process = started.pidfd.as_fd();
        // `poll` has no notion of an unused entry in safe code, so the process stands in, with no events asked.
        let off = PollFlags::empty();
        let listener = self.attendant.as_ref().map(|a| a.listener());
        let cancel = watcher.cancelled();
        let on = |wanted: bool| if wanted { PollFlags::IN } else { off };
        let mut polled = [
            PollFd::from_borrowed_fd(listener.unwrap_or(process), on(listener.is_some())),
            PollFd::from_borrowed_fd(started.executing.as_fd(), on(self.executing)),
            PollFd::from_borrowed_fd(process, on(!self.executing)),
            PollFd::from_borrowed_fd(if self.watch_cancel { cancel } else { process }, on(self.watch_cancel)),
            PollFd::from_borrowed_fd(self.output_fd(0).unwrap_or(process), on(!self.outputs.is_empty())),
            PollFd::from_borrowed_fd(self.output_fd(1).unwrap_or(process), on(self.outputs.len() > 1)),
        ];
        let count = OUTPUTS + self.outputs.len();
        loop {
            match poll(&mut polled[..count], None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let any = |index: usize| !polled[index].revents().is_empty();
            if listener.is_some() && polled[LISTENER].revents().contains(PollFlags::IN) {
                return Ok(Event::SystemCall);
            }
            if let Some(index) = (0..self.outputs.len()).find(|i| any(OUTPUTS + i)) {
                return Ok(Event::Output(index));
            }
            if self.executing && any(EXECUTING) {
                return Ok(Event::Executed);
            }
            if !self.executing && polled[PROCESS].revents().contains(PollFlags::IN) {
                return Ok(Event::Exited);
            }
            if self.watch_cancel && any(CANCEL) {
                return Ok(Event::Cancelled { closed: polled[CANCEL].revents().contains(PollFlags::NVAL) });
            }
            if listener.is_some() && polled[LISTENER].revents().contains(PollFlags::HUP) {
                // Nobody is left to serve, and the exit is about to show. Polling the listener on would spin.
                return self.wait_for_exit(started, watcher);
            }
        }
    }

    /// The end without a listener: nothing but the process (and its streams, later) is of interest.
    fn wait_for_exit(&self, started: &Started, watcher: &dyn Watcher) -> io::Result<Event> {
        if self.executing {
            return Ok(Event::Executed);
        }
        let mut polled = vec![PollFd::from_borrowed_fd(started.pidfd.as_fd(), PollFlags::IN)];
        if self.watch_cancel {
            polled.push(PollFd::from_borrowed_fd(watcher.cancelled(), PollFlags::IN));
        }
        polled.extend(self.outputs.iter().map(|(_, fd)| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)));
        loop {
            match poll(&mut polled, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let first = usize::from(self.watch_cancel) + 1;
            if let Some(i) = (first..polled.len()).find(|&i| !polled[i].revents().is_empty()) {
                return Ok(Event::Output(i - first));
            }
            if !polled[0].revents().is_empty() {
                return Ok(Event::Exited);
            }
            if self.watch_cancel && !polled[1].revents().is_empty() {
                return Ok(Event::Cancelled { closed: polled[1].revents().contains(PollFlags::NVAL) });
            }
        }
    }

    fn output_fd(&self, index: usize) -> Option<BorrowedFd<'_>> {
        self.outputs.get(index).map(|(_, fd)| fd.as_fd())
    }

    /// Reads once from an output and passes it on; forgets the output at its end.
    fn pass_on(&mut self, index: usize, watcher: &mut dyn Watcher) {
        let (stream, fd) = &self.outputs[index];
        match rustix::io::read(fd, self.buffer.as_mut_slice()) {
            Ok(0) => drop(self.outputs.remove(index)),
            Ok(bytes) => watcher.output(*stream, &self.buffer[..bytes]),
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            // A terminal's end is EIO.
            Err(_) => drop(self.outputs.remove(index)),
        }
    }

    /// After the exit: passes on what is left of the output. Says whether processes were left behind, whose
    /// calls and output somebody else then takes care of.
    fn wind_up(&mut self, watcher: &mut dyn Watcher) -> bool {
        for (_, fd) in &self.outputs {
            let flags = rustix::fs::fcntl_getfl(fd).unwrap_or(OFlags::RDWR);
            let _ = rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK);
        }
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
            self.pass_on(index, watcher);
        }
        if let (true, Some(attendant)) = (call, &mut self.attendant) {
            attendant.serve();
        }
        // A process that writes or asks for ever is not waited for beyond the grace.
        ready && output.is_some() && !left.is_zero()
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
