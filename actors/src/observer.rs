//! The observer interface: one run of a tool, and everything it touched.
//!
//! `observe_linux.rs` sees what the kernel is asked (seccomp user notification); `observe_declared.rs` believes
//! what the compiler declares. Both return the same [`Observed`], so nobody behind this file knows which ran.
//! An observer must never change what the tool does or returns.

use crate::sys::OwnedFd;

use zccache_proto::message::{Exit, OutputStream, StreamKind};

use crate::invocation::Invocation;
use crate::observation::{Sighting, Spelled};
use crate::plan::{DeclaredInputs, Policy};

/// One run to be made and observed.
pub struct Job {
    /// What to run.
    pub invocation: Invocation,
    /// Descriptors to hand through: (number in the tool, descriptor). Standard input is number 0; where it
    /// is missing the tool gets `/dev/null`.
    pub descriptors: Vec<(i32, OwnedFd)>,
    /// Process whose resource limits and priority the tool is to have.
    pub client_pid: Option<u32>,
    /// What is known of this family of tools.
    pub policy: &'static Policy,
    /// What the command line says about inputs; for the declared observer.
    pub declared: DeclaredInputs,
    /// Outputs that the command line names or implies, the main one first; for the declared observer.
    pub outputs: Vec<Spelled>,
    /// Other code than the family's may take part; see [`crate::plan::Plan::foreign_code`].
    pub foreign_code: bool,
    /// What there is to read on standard input is part of the request: reading it is nothing to note.
    pub input_is_known: bool,
}

/// What happens during a run, told as it happens. Called on the observer's own thread.
pub trait Watcher {
    /// The tool is about to run as this process, leader of a process group of its own. It does when this returns.
    ///
    /// # Errors
    /// Why it must not: the process then ends without having done anything.
    fn starting(&mut self, pid: u32) -> std::io::Result<()>;
    /// The tool wrote this. May block for as long as the reader is slow. With `stdio.merged`, all output
    /// comes as `Stdout`.
    fn output(&mut self, stream: OutputStream, bytes: &[u8]);
    /// A descriptor that becomes readable (or hangs up) when the run is to be killed.
    fn cancelled(&self) -> crate::sys::BorrowedFd<'_>;
}

/// Everything known of one run after it ended.
#[derive(Debug)]
pub struct Observed {
    /// How the tool ended.
    pub exit: Exit,
    /// What it asked the file system, each path at most once per kind of question.
    pub sightings: Vec<Sighting>,
    /// What it left behind.
    pub effects: Vec<Effect>,
    /// Files among these that it read again after it had begun to write them: a header in an output's place.
    pub reread: Vec<Spelled>,
    /// The names in the directories that it listed, as they were then, if the policy has a review that asks for them.
    pub listings: Vec<Listing>,
    /// Programs it ran, as spelled (the tool itself among them), each once.
    pub programs: Vec<Spelled>,
    /// It read the time zone, as is done to print the time (`__DATE__`, `__TIME__`, `__TIMESTAMP__`). Not to be
    /// stored then, unless `SOURCE_DATE_EPOCH` fixes what is printed.
    pub asked_time: bool,
    /// Why this run must not be stored, if it must not: the first reason found.
    pub unstorable: Option<Unstorable>,
}

/// What was in a directory when it was listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The directory, as spelled.
    pub path: Spelled,
    /// The names in it, in no order.
    pub names: Vec<Vec<u8>>,
}

/// Something the run changed in the file system and left so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// The path as spelled.
    pub path: Spelled,
    /// What is there now.
    pub left: Left,
}

/// What a run left at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// A regular file that the run wrote.
    File(Origin),
    /// Nothing, where there was a file before the run.
    Removed,
}

/// How a file that a run left came to be there. Modes belong to files, not to names: one that is written over keeps
/// its own, one that is made has what the tool asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The file may be one that was there before the run, written over.
    Kept,
    /// A new file, where there was none.
    Made,
    /// A new file, where there was none, made under another name and moved here.
    Moved,
    /// What was there before is an input of the run, its mode included.
    Edited,
    /// A new file, in the place of an older one that the run removed or renamed this one over.
    Replaced,
}

/// Why a run's result must not be stored. The text goes to the log; the variant is counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unstorable {
    /// No observer could be installed, or some process escaped it.
    #[error("not observable: {0}")]
    NotObservable(String),
    /// The run changed something it did not make: appended to a file, moved or linked one, made a directory.
    #[error("changed {0}")]
    ChangedExisting(String),
    /// The run read its standard input.
    #[error("read standard input")]
    ReadStdin,
    /// The run read the time zone, as done to print the time (`__DATE__`, `__TIME__`, `__TIMESTAMP__`).
    #[error("asked for the time")]
    AskedTime,
    /// The run read the clock, or what else is never the same twice: the time it took, the machine's load.
    #[error("read the clock")]
    ReadClock,
    /// The run took random numbers.
    #[error("took random numbers")]
    TookRandomNumbers,
    /// The run asked for the number of a process.
    #[error("asked for a process's number")]
    AskedProcessNumber,
    /// The run talked to another process or host.
    #[error("used a socket")]
    UsedSocket,
    /// The run read something that has no stable content: a device, `/proc`, a FIFO.
    #[error("read {0}")]
    ReadUnstable(String),
    /// A process was left behind: it holds the run's output open, or may still read and write files.
    #[error("left a process behind")]
    LeftProcess,
    /// An input was too new for its signature to be trusted.
    #[error("{0} was too new")]
    InputTooNew(String),
    /// An input changed during the run.
    #[error("{0} changed during the run")]
    InputChanged(String),
    /// The tool was killed by a signal: chance, not a result.
    #[error("killed by a signal")]
    Signalled,
    /// The tool failed for what may be a want of memory or space: the next run may not.
    #[error("a failure that may pass")]
    PassingFailure,
    /// More output than is kept.
    #[error("more than {0} bytes of output")]
    OutputTooLarge(usize),
    /// The run was cancelled.
    #[error("cancelled")]
    Cancelled,
    /// Any limit of ours: observations, effects.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// An output could not be captured.
    #[error("could not capture {0}")]
    NotCaptured(String),
}

/// Runs a job and tells what it did. Blocks for as long as the tool runs.
pub trait Observer: Send + Sync {
    /// Runs the job to its end.
    ///
    /// # Errors
    /// If the tool could not be started at all, and therefore did nothing; the caller lets the client run it.
    fn run(&self, job: Job, watcher: &mut dyn Watcher) -> std::io::Result<Observed>;
}

/// Whether a stream of this kind is to be a terminal for the tool as well.
pub fn wants_terminal(kind: StreamKind) -> bool {
    matches!(kind, StreamKind::Terminal { .. })
}
