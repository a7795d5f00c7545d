//! Connects to the service, and starts one where there is none: one of many wrappers does, the others wait.
//!
//! All of it ends within [`BUDGET`] of the wrapper's start.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use zccache_proto::blocking_transport::Connection;
use zccache_proto::endpoint::Endpoint;
use zccache_proto::message::SILENCE_MAX_MS;

use crate::kernel;
use crate::process::{Child, Ended, Process, Setup};
use crate::starting::{Attempts, BUDGET, EXIT_ALREADY_RUNNING, PAUSE_MIN, failed_lately, remember_failure};
use crate::tool_search;

/// Until when a wrapper that began at `begun` waits at least, as a [`Compile`](zccache_proto::message::Compile) says it.
pub fn patient_until_ns(begun: Instant) -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let left = BUDGET.saturating_sub(begun.elapsed());
    let now = Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0));
    u64::try_from((now + left).as_nanos()).unwrap_or(0)
}

/// How long the first attempt waits: as long as for a frame later on, so that the socket is told but once.
const PATIENCE: Duration = Duration::from_millis(SILENCE_MAX_MS);

/// How long the process that makes the service a daemon is waited for once the service answers.
const REAP_PATIENCE: Duration = Duration::from_millis(100);

/// The service's program.
pub const SERVICE_NAME: &str = "zccache-service";

/// Attempts to get a connection.
pub struct Starter<'a> {
    process: &'a Process,
    endpoint: &'a Endpoint,
    attempts: Attempts,
    start: Start,
}

/// How far starting a service has come.
enum Start {
    /// Not tried.
    Not,
    /// Tried by us, who hold the lock.
    Ours { child: Child, lock: File },
    /// Done; the process that was started has left the service behind.
    Done { lock: File },
    /// Not to be tried.
    Never,
}

impl<'a> Starter<'a> {
    /// Attempts for a wrapper that began its work at `begun`.
    pub fn new(process: &'a Process, endpoint: &'a Endpoint, begun: Instant) -> Self {
        Self { process, endpoint, attempts: Attempts::new(begun), start: Start::Not }
    }

    /// A connection to a service, which may have had to be started. `None` when the tool should be run instead.
    pub fn connect(&mut self) -> Option<Connection> {
        loop {
            if !self.attempts.begin() {
                self.give_up();
                return None;
            }
            let outcome = match self.attempt() {
                Attempt::NobodyThere => self.see_to_one(),
                outcome => outcome,
            };
            match outcome {
                Attempt::Connected(connection) => {
                    self.reap();
                    return Some(connection);
                }
                Attempt::NobodyThere => {}
                Attempt::Failed => return None,
            }
        }
    }

    fn attempt(&self) -> Attempt {
        let patience = if self.attempts.is_first() { PATIENCE } else { PATIENCE.min(self.attempts.left()) };
        match Connection::connect(self.endpoint, patience) {
            Ok(connection) => Attempt::Connected(connection),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                Attempt::NobodyThere
            }
            Err(_) => Attempt::Failed,
        }
    }

    /// Does what there is to do about a missing service. `NobodyThere`: another attempt makes sense.
    fn see_to_one(&mut self) -> Attempt {
        match std::mem::replace(&mut self.start, Start::Never) {
            Start::Never => Attempt::Failed,
            Start::Done { lock } => {
                self.start = Start::Done { lock };
                Attempt::NobodyThere
            }
            Start::Ours { child, lock } => self.look_after(child, lock),
            Start::Not => self.begin().unwrap_or(Attempt::Failed),
        }
    }

    fn look_after(&mut self, child: Child, lock: File) -> Attempt {
        match child.try_wait() {
            None => self.start = Start::Ours { child, lock },
            Some(Ended::Code(0)) => self.start = Start::Done { lock },
            // Somebody else's was faster, or the last one is still leaving.
            Some(Ended::Code(EXIT_ALREADY_RUNNING)) => self.start = Start::Not,
            Some(_) => {
                remember_failure(lock);
                return Attempt::Failed;
            }
        }
        Attempt::NobodyThere
    }

    /// The time is over. A service that was started and lives may only be slow; one that does not has failed.
    fn give_up(&mut self) {
        if let Start::Done { lock } | Start::Ours { lock, .. } =
            std::mem::replace(&mut self.start, Start::Never)
            && !lock_is_held(self.endpoint)
        {
            remember_failure(lock);
        }
    }

    /// Starts a service if nobody else does.
    fn begin(&mut self) -> io::Result<Attempt> {
        if self.process.switch("ZCCACHE_NO_SPAWN") {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.endpoint.prepare()?;
        let program = find_service(self.process).ok_or(io::ErrorKind::NotFound)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let lock = rustix::fs::open(self.endpoint.start_lock(), flags, Mode::RUSR | Mode::WUSR)?;
        let lock = File::from(lock);
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            // Somebody else is starting one. Should that come to nothing, the lock will be free again.
            self.start = Start::Not;
            return Ok(Attempt::NobodyThere);
        }
        if failed_lately(&lock)? {
            return Err(io::ErrorKind::Other.into());
        }
        // The service may have come up between our attempt and the lock.
        match self.attempt() {
            Attempt::NobodyThere => {}
            outcome => return Ok(outcome),
        }
        let null = open_null()?;
        let null = Some(null.as_fd());
        let setup = Setup { streams: [null; 3], detached: true };
        let child = self.process.spawn(&program, &[&program, c"--daemon"], &setup)?;
        self.start = Start::Ours { child, lock };
        Ok(Attempt::NobodyThere)
    }

    /// Waits a little for the process that we started, so that it is nobody's zombie.
    fn reap(&mut self) {
        if let Start::Ours { child, .. } = std::mem::replace(&mut self.start, Start::Not) {
            let deadline = Instant::now() + REAP_PATIENCE;
            while child.try_wait().is_none() && Instant::now() < deadline {
                std::thread::sleep(PAUSE_MIN);
            }
        }
    }
}

enum Attempt {
    Connected(Connection),
    NobodyThere,
    Failed,
}

/// Whether a service holds its lock: lives, though it may not answer yet, or no more. Asked by a shared lock of
/// a moment. Should that moment keep a service from starting, it says so ([`EXIT_ALREADY_RUNNING`]), and is
/// started again.
pub fn lock_is_held(endpoint: &Endpoint) -> bool {
    let held = |lock: File| flock(&lock, FlockOperation::NonBlockingLockShared).is_err();
    File::open(endpoint.service_lock()).is_ok_and(held)
}

/// The service's program: beside our own, else on `PATH`.
pub fn find_service(process: &Process) -> Option<CString> {
    if let Ok(mut beside) = kernel::own_path() {
        beside.set_file_name(SERVICE_NAME);
        let beside = CString::new(beside.into_os_string().into_vec()).ok()?;
        if rustix::fs::access(&beside, rustix::fs::Access::EXEC_OK).is_ok() {
            return Some(beside);
        }
    }
    let name = CString::new(SERVICE_NAME).ok()?;
    tool_search::find(&name, process.var("PATH"), None).ok().map(|found| found.path)
}

fn open_null() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}
