//! One run of a tool from start to end, where nothing can be observed: with the standard library and a way to end a
//! whole tree of processes, which is the platform's (`tree_windows.rs`: a job; `tree_unix.rs`: a process group).
//!
//! The twin of `tool_run.rs`, for systems other than Linux. Threads read the tool's output; the caller's passes it on,
//! and looks for the tool's end and for a client that has gone.

#[cfg(unix)]
#[path = "tree_unix.rs"]
mod tree;
#[cfg(windows)]
#[path = "tree_windows.rs"]
mod tree;

use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use zccache_proto::message::{Exit, OUTPUT_CHUNK_BYTES_MAX, OutputStream};

use crate::invocation::Invocation;
use crate::observer::{Job, Watcher, wants_terminal};
use crate::spelling;
use crate::sys::{OsStrExt, OwnedFd};
use tree::Tree;

/// How often the tool's end and the client's are looked for while there is no output.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long after the tool's exit, and after the last of its output, more is waited for, should a process that it left
/// behind hold it open.
const GRACE: Duration = Duration::from_millis(50);

/// Pieces of output that may wait for a slow client: then the tool waits too.
const PIECES_MAX: usize = 16;

/// Pieces of output that come after the tool's exit and may be its own: those that waited, and of each stream one in a
/// thread's hands and what the pipe holds. Further ones are of a process that it left behind.
const LATE_PIECES_MAX: usize = PIECES_MAX + 4;

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

/// Where a tool's output comes from.
type Outputs = Vec<(OutputStream, PipeReader)>;

/// A piece of output; nothing in it: that is all of this stream.
type Piece = (OutputStream, Vec<u8>);

/// Runs `job` to its end. Nobody can attend to its system calls here.
///
/// # Errors
/// If the tool could not be started; it did nothing then.
pub fn run(job: Job, watcher: &mut dyn Watcher, _: Option<Infallible>) -> io::Result<Ended> {
    let (child, tree, outputs) = start(&job.invocation, job.descriptors)?;
    let open = outputs.len();
    let (tell, told) = sync_channel(PIECES_MAX);
    let mut run = Run { child, tree, told, open, cancelled: false };
    // It runs already here; if it must not, dropping the run ends it.
    watcher.starting(run.child.id())?;
    for (stream, pipe) in outputs {
        let tell = tell.clone();
        std::thread::Builder::new().name("output".into()).spawn(move || pass_on(stream, pipe, &tell))?;
    }
    drop(tell);
    let status = run.attend(watcher)?;
    let left_processes = run.tree.release();
    Ok(Ended { exit: tree::exit_of(status), cancelled: run.cancelled, left_processes })
}

/// A run in progress. Dropped early, it takes the whole tree with it.
struct Run {
    child: Child,
    tree: Tree,
    told: Receiver<Piece>,
    /// Streams whose end has not come.
    open: usize,
    cancelled: bool,
}

impl Run {
    fn attend(&mut self, watcher: &mut dyn Watcher) -> io::Result<ExitStatus> {
        let mut ended: Option<ExitStatus> = None;
        // Since when nothing has come, the exit included; and how much came after that.
        let (mut quiet_since, mut late_pieces) = (Instant::now(), 0);
        loop {
            match self.told.recv_timeout(LOOK_EVERY) {
                Ok((_, bytes)) if bytes.is_empty() => self.open -= 1,
                Ok((stream, bytes)) => {
                    watcher.output(stream, &bytes);
                    quiet_since = Instant::now();
                    late_pieces += usize::from(ended.is_some());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(LOOK_EVERY),
            }
            if !self.cancelled && tree::hung_up(watcher.cancelled()) {
                self.cancelled = true;
                self.tree.kill();
            }
            if ended.is_none() {
                ended = self.child.try_wait()?;
                quiet_since = Instant::now();
            }
            if let Some(status) = ended
                && (self.open == 0 || quiet_since.elapsed() > GRACE || late_pieces > LATE_PIECES_MAX)
            {
                return Ok(status);
            }
        }
    }
}

/// Starts the tool, with its whole tree to be.
fn start(invocation: &Invocation, descriptors: Vec<(i32, OwnedFd)>) -> io::Result<(Child, Tree, Outputs)> {
    let kinds = &invocation.stdio;
    if wants_terminal(kinds.stdout) || wants_terminal(kinds.stderr) {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "a terminal cannot be given to a tool here"));
    }
    let mut input = Stdio::null();
    for (number, descriptor) in descriptors {
        match number {
            0 => input = File::from(descriptor).into(),
            _ => {
                return Err(io::Error::new(
                    io::ErrorKind::Unsupported,
                    "only standard input can be passed on",
                ));
            }
        }
    }
    let mut command = command(invocation);
    command.stdin(input);
    let (ours, theirs) = io::pipe()?;
    let mut outputs = vec![(OutputStream::Stdout, ours)];
    if kinds.merged {
        command.stderr(theirs.try_clone()?);
    } else {
        let (ours, theirs) = io::pipe()?;
        outputs.push((OutputStream::Stderr, ours));
        command.stderr(theirs);
    }
    command.stdout(theirs);
    tree::prepare(&mut command, invocation.umask);
    let mut child = command.spawn()?;
    // The command holds the other ends of the pipes.
    drop(command);
    match Tree::around(&child) {
        Ok(tree) => Ok((child, tree, outputs)),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(error)
        }
    }
}

fn command(invocation: &Invocation) -> Command {
    let mut argv = invocation.argv.iter();
    let name = argv.next().unwrap_or_default();
    let mut command = Command::new(spelling::called(invocation.tool_path().to_path_buf(), name));
    tree::set_name(&mut command, OsStr::from_bytes(name));
    command.args(argv.map(OsStr::from_bytes)).current_dir(invocation.cwd_path()).env_clear();
    for entry in invocation.env.iter() {
        // Windows keeps directories of drives in variables whose names begin with `=`.
        let Some(at) = entry.iter().skip(1).position(|&byte| byte == b'=') else { continue };
        command.env(OsStr::from_bytes(&entry[..=at]), OsStr::from_bytes(&entry[at + 2..]));
    }
    command
}

fn pass_on(stream: OutputStream, mut pipe: PipeReader, tell: &SyncSender<Piece>) {
    let mut buffer = vec![0; OUTPUT_CHUNK_BYTES_MAX];
    loop {
        match pipe.read(&mut buffer) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            // Its end. Whoever does not listen any more is not told.
            Ok(0) | Err(_) => return drop(tell.send((stream, Vec::new()))),
            // Nobody listens: it is read all the same, or what was left behind would block on it.
            Ok(count) => drop(tell.send((stream, buffer[..count].to_vec()))),
        }
    }
}
