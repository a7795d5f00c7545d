//! The runner: starts tools, one thread each, and reports what they did.
//!
//! - Owns: the observer and the runs in progress.
//! - Runs on: a worker arbiter, plus a thread per tool.
//! - Receives: `Run` from connections.
//! - Sends: `RunEvent`s to the connection that asked.
//! - Mailbox: 4096, one `Run` per client at a time.
//! - On failure: that run alone; its connection sees the channel close.
//! - Never outlives a cancelled client.

use crate::sys::{AsFd, BorrowedFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use crate::sys::fs::AtFlags;
use crate::sys::io::Errno;
use actix::prelude::*;
use tokio::sync::{mpsc, oneshot};
use zccache_proto::message::{Exit, OUTPUT_CHUNK_BYTES_MAX, OutputStream};

use crate::blobs::Blobs;
use crate::capture::{Captured, capture};
use crate::exec::Declaration;
use crate::faults;
use crate::freshness::WorkingDirectory;
use crate::kept_threads::KeptThreads;
use crate::named_variables::named;
use crate::observation::{Seen, Sighting, Spelled};
use crate::observer::{Job, Observed, Observer, Unstorable, Watcher};
use crate::plan::{Printed, Variables};
use crate::second_hand;
use crate::signature::{FileKind, Signature};
use crate::supervision::Probe;

/// A connection wants a tool run. Answered at once; what happens comes through the channels.
#[derive(Message)]
#[rtype(result = "std::io::Result<Running>")]
pub struct Run {
    /// What to run.
    pub job: Job,
    /// Where relative paths begin.
    pub cwd: Arc<WorkingDirectory>,
    /// The outputs that the command line names (see [`crate::plan::Plan::outputs`]).
    pub outputs: Vec<Spelled>,
}

/// A run in progress. Dropping it kills the tool with all its processes.
pub struct Running {
    /// What happens, as it happens.
    pub events: mpsc::Receiver<RunEvent>,
    /// What it came to.
    pub report: oneshot::Receiver<std::io::Result<RunReport>>,
    /// Hangs up when dropped, which cancels the run.
    pub alive: OwnedFd,
}

/// Something that happened during a run.
#[derive(Debug)]
pub enum RunEvent {
    /// The tool is about to run as this process, leader of its own group. It does once `told` is sent, which is to
    /// say that the client has been told, or will be before it can do anything about the run.
    Starting {
        /// The process.
        pid: u32,
        /// Where the word is waited for. Dropped: the tool must not run.
        told: oneshot::Sender<()>,
    },
    /// The tool wrote this.
    Output(OutputStream, Vec<u8>),
    /// The tool has ended so. The last event; the report follows when its outputs are captured.
    Ended(Exit),
}

/// What a run came to.
#[derive(Debug)]
pub struct RunReport {
    /// What the observer saw.
    pub observed: Observed,
    /// The variables that the result hangs on, beyond those in the key.
    pub reviewed: Variables,
    /// Variables that are left out of its environment, and yet named in its texts.
    pub named: Vec<Vec<u8>>,
    /// What the run left, copied; or why that could not be.
    pub captured: Result<Captured, Unstorable>,
    /// All of standard output.
    pub stdout: Vec<u8>,
    /// All of standard error.
    pub stderr: Vec<u8>,
}

/// The most output of a run that is kept for a record, in bytes, both streams together. More than any compiler
/// has ever been worth replaying, and less than half a frame.
const KEPT_OUTPUT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How many events may wait for a slow client before the tool waits too: 8 MiB of output, so that nobody's
/// single flight hangs on a client that was stopped.
const EVENTS_MAX: usize = 128;

/// A thread for each run.
static TOOLS: KeptThreads = KeptThreads::new("tool");

/// See the header.
const MAILBOX: usize = 4096;

/// The actor.
pub struct Runner {
    observer: Arc<dyn Observer>,
    blobs: Arc<Blobs>,
}

impl Runner {
    /// A runner that observes with `observer` and captures into `blobs`.
    pub fn new(observer: Arc<dyn Observer>, blobs: Arc<Blobs>) -> Self {
        Self { observer, blobs }
    }
}

impl Actor for Runner {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Run> for Runner {
    type Result = std::io::Result<Running>;

    fn handle(&mut self, message: Run, _: &mut Self::Context) -> Self::Result {
        faults::pass("runner");
        let (report_in, report) = oneshot::channel();
        let (mut tap, events, alive) = Tap::new()?;
        let (observer, blobs) = (Arc::clone(&self.observer), Arc::clone(&self.blobs));
        TOOLS.run(move || {
            let _busy = second_hand::busy();
            let job = AssertUnwindSafe(|| run(&*observer, &blobs, message, &mut tap));
            let outcome = std::panic::catch_unwind(job)
                .unwrap_or_else(|_| Err(std::io::Error::other("the observer failed")));
            // A connection that has gone does not mind.
            let _ = report_in.send(outcome);
        })?;
        Ok(Running { events, report, alive })
    }
}

impl Handler<Probe> for Runner {
    type Result = ();

    fn handle(&mut self, _: Probe, _: &mut Self::Context) {}
}

fn run(observer: &dyn Observer, blobs: &Blobs, message: Run, tap: &mut Tap) -> std::io::Result<RunReport> {
    let umask = message.job.invocation.umask;
    let directory = message.job.invocation.cwd_path().to_path_buf();
    let declaration = Declaration::in_environment(&message.job.invocation.env);
    let inputs = declaration.as_ref().map(|declared| declared.look(&message.cwd));
    let review = message.job.policy.review.map(|review| (review, message.job.invocation.clone()));
    let (arguments, all_texts) = (message.job.invocation.argv.clone(), message.job.policy.caution.heritage);
    faults::pass("run.begin");
    let mut observed = observer.run(message.job, tap)?;
    faults::pass("run.ended");
    // A closed channel means that the client has gone.
    let _ = tap.events.blocking_send(RunEvent::Ended(observed.exit));
    if let (Some(declared), Some(inputs)) = (declaration, inputs) {
        declared.add_to(&mut observed, inputs, &message.cwd, &directory);
    }
    if tap.overflow {
        observed.unstorable.get_or_insert(Unstorable::OutputTooLarge(KEPT_OUTPUT_BYTES_MAX));
    }
    if !observed.exit.success() {
        let places = message.outputs.iter().filter_map(|path| empty_place(path, &message.cwd));
        observed.sightings.extend(places.flatten());
    }
    let mut reviewed = Variables::None;
    if let (Some((review, invocation)), None) = (review, &observed.unstorable) {
        let printed = Printed { stdout: &tap.stdout, stderr: &tap.stderr };
        match review(&invocation, &mut observed, &printed) {
            Ok(variables) => reviewed = variables,
            Err(why) => observed.unstorable = Some(why),
        }
    }
    let named = match &observed.unstorable {
        Some(_) => Vec::new(),
        None => named(&arguments, &observed.sightings, message.cwd.fd(), all_texts),
    };
    let captured = match &observed.unstorable {
        // Nothing will be stored, so nothing need be copied.
        Some(why) => Err(why.clone()),
        None => capture(&observed.effects, blobs, &message.cwd, umask),
    };
    faults::pass("run.captured");
    let (stdout, stderr) = (std::mem::take(&mut tap.stdout), std::mem::take(&mut tap.stderr));
    Ok(RunReport { observed, reviewed, named, captured, stdout, stderr })
}

/// That there is no output, and whether there is a directory for it, if a failed run left nothing here. Whether it
/// would have taken away an older output, or complained of a missing directory, depends on how far it came, which
/// its own files do not show: such a result is good only where the place is as it was.
fn empty_place(path: &Spelled, cwd: &WorkingDirectory) -> Option<[Sighting; 2]> {
    let look = |path: &[u8], flags| Signature::at(cwd.fd(), path, flags);
    let Err(Errno::NOENT | Errno::NOTDIR) = look(&path.0, AtFlags::SYMLINK_NOFOLLOW) else { return None };
    let slash = path.0.iter().rposition(|&b| b == b'/');
    let directory = slash.map_or(b".".to_vec(), |slash| path.0[..=slash].to_vec());
    let seen = match look(&directory, AtFlags::empty()) {
        Ok(_) => Seen::Kind { follow: true, kind: FileKind::Directory },
        Err(_) => Seen::Absent,
    };
    Some([Sighting { path: path.clone(), seen: Seen::Absent }, Sighting { path: Spelled(directory), seen }])
}

/// Passes events on to the connection, and keeps the output.
struct Tap {
    events: mpsc::Sender<RunEvent>,
    cancelled: OwnedFd,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    overflow: bool,
}

impl Tap {
    /// A tap, what comes out of it, and what cancels the run when it is dropped.
    fn new() -> std::io::Result<(Self, mpsc::Receiver<RunEvent>, OwnedFd)> {
        let (events, taken) = mpsc::channel(EVENTS_MAX);
        let (cancelled, alive) = crate::sys::pipe::pipe_with(crate::sys::pipe::PipeFlags::CLOEXEC)?;
        let tap = Self { events, cancelled, stdout: Vec::new(), stderr: Vec::new(), overflow: false };
        Ok((tap, taken, alive))
    }
}

impl Watcher for Tap {
    fn starting(&mut self, pid: u32) -> std::io::Result<()> {
        faults::pass("run.starting");
        let (told, waiting) = oneshot::channel();
        // A closed channel means that the client has gone.
        let sent = self.events.blocking_send(RunEvent::Starting { pid, told });
        let told = sent.is_ok() && waiting.blocking_recv().is_ok();
        faults::pass("run.started");
        if told { Ok(()) } else { Err(std::io::Error::other("the client has given up")) }
    }

    fn output(&mut self, stream: OutputStream, bytes: &[u8]) {
        for chunk in bytes.chunks(OUTPUT_CHUNK_BYTES_MAX) {
            let _ = self.events.blocking_send(RunEvent::Output(stream, chunk.to_vec()));
        }
        if self.stdout.len() + self.stderr.len() + bytes.len() > KEPT_OUTPUT_BYTES_MAX {
            self.overflow = true;
            return;
        }
        match stream {
            OutputStream::Stdout => self.stdout.extend_from_slice(bytes),
            OutputStream::Stderr => self.stderr.extend_from_slice(bytes),
        }
    }

    fn cancelled(&self) -> BorrowedFd<'_> {
        self.cancelled.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    #[test]
    fn a_tool_waits_for_a_client_that_reads_nothing() {
        const CHUNKS: usize = EVENTS_MAX * 2;
        let (mut tap, mut taken, _alive) = Tap::new().unwrap();
        let written = Arc::new(AtomicUsize::new(0));
        let writer = std::thread::spawn({
            let written = Arc::clone(&written);
            move || {
                for _ in 0..CHUNKS {
                    tap.output(OutputStream::Stdout, &[b'x'; OUTPUT_CHUNK_BYTES_MAX]);
                    written.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        let end = Instant::now() + Duration::from_secs(60);
        while written.load(Ordering::SeqCst) < EVENTS_MAX {
            assert!(Instant::now() < end, "the tool waits too soon");
            std::thread::sleep(Duration::from_millis(1));
        }
        for read in 0..CHUNKS {
            assert!(written.load(Ordering::SeqCst) <= read + EVENTS_MAX, "the tool does not wait");
            assert!(matches!(taken.blocking_recv(), Some(RunEvent::Output(..))));
        }
        writer.join().unwrap();
    }

    #[test]
    fn so_much_output_is_kept_and_more_is_only_passed_on() {
        let (mut tap, mut taken, _alive) = Tap::new().unwrap();
        let half = vec![b'x'; KEPT_OUTPUT_BYTES_MAX / 2];
        tap.output(OutputStream::Stdout, &half);
        tap.output(OutputStream::Stderr, &half);
        assert!(!tap.overflow);
        tap.output(OutputStream::Stderr, b"x");
        assert!(tap.overflow);
        assert_eq!(tap.stdout.len() + tap.stderr.len(), KEPT_OUTPUT_BYTES_MAX);
        let mut passed_on = 0;
        while let Ok(RunEvent::Output(_, bytes)) = taken.try_recv() {
            passed_on += bytes.len();
        }
        assert_eq!(passed_on, KEPT_OUTPUT_BYTES_MAX + 1);
    }

    #[actix::test]
    async fn a_runner_takes_so_many_messages_and_no_more() {
        let temp = tempfile::tempdir().unwrap();
        let blobs = Arc::new(Blobs::new(temp.path()));
        let observer = crate::observe_none::Unobserved { why: "a test".into() };
        let addr = Runner::new(Arc::new(observer), blobs).start();
        let taken = crate::test_support::mailbox_takes(&addr, || Probe).await;
        // One more than it says, by the way these are counted.
        assert!((MAILBOX..=MAILBOX + 1).contains(&taken), "{taken}");
    }

    #[test]
    fn output_goes_in_pieces_of_so_many_bytes() {
        let (mut tap, mut taken, _alive) = Tap::new().unwrap();
        tap.output(OutputStream::Stdout, &[b'x'; OUTPUT_CHUNK_BYTES_MAX + 1]);
        let mut piece = || match taken.try_recv() {
            Ok(RunEvent::Output(_, bytes)) => bytes.len(),
            _ => 0,
        };
        assert_eq!([piece(), piece(), piece()], [OUTPUT_CHUNK_BYTES_MAX, 1, 0]);
    }
}
