//! The request: what the wrapper was called with, and all that the tool could tell about its surroundings.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use zccache_proto::ByteStrings;
use zccache_proto::message::{Compile, Stdio, StreamKind};
use zccache_proto::root::Root;

use crate::jobserver;
use crate::kernel;
use crate::process::Process;
use crate::tool_search::FileId;

/// A request and the descriptors that travel with it.
pub struct CompileRequest {
    /// The message.
    pub compile: Compile,
    /// Where standard input's file stood, to put it back if the tool must be run a second time.
    pub stdin_offset: Option<u64>,
}

impl CompileRequest {
    /// Collects the request for running `tool` with `argv` here. `None` if our surroundings are so odd that the
    /// tool should see them itself: no working directory, nowhere to write to, or two places in one file.
    pub fn collect(process: &Process, tool: &CStr, argv: &[&CStr]) -> Option<Self> {
        let cwd = rustix::process::getcwd(Vec::new()).ok()?.into_bytes();
        let [stdin, stdout, stderr] = [0, 1, 2].map(stat_of);
        // Our own socket would take the number of a closed stream, and be written to.
        let merged = same_file(stdout.as_ref()?, stderr.as_ref()?);
        if merged && kind_of(1, &stdout) == StreamKind::File && overwrite_each_other()? {
            return None;
        }
        // The kernel calls a directory outside our root `(unreachable)/…`.
        if !cwd.starts_with(b"/") {
            return None;
        }
        let stdio = Stdio {
            stdin: kind_of(0, &stdin),
            stdout: kind_of(1, &stdout),
            stderr: kind_of(2, &stderr),
            merged,
        };
        if takes_nothing(1, stdio.stdout) || takes_nothing(2, stdio.stderr) {
            return None;
        }
        let stdin_offset = match stdio.stdin {
            StreamKind::File => rustix::fs::tell(rustix::stdio::stdin()).ok(),
            _ => None,
        };
        let compile = Compile {
            tool: tool.to_bytes().to_vec(),
            argv: argv.iter().map(|a| a.to_bytes()).collect(),
            cwd,
            env: environment(process),
            umask: umask(),
            stdio,
            descriptors: descriptors(process, stdin.is_some()),
            recache: process.switch("ZCCACHE_RECACHE"),
            patient_until_ns: 0,
            root: Root::ours(),
        };
        Some(Self { compile, stdin_offset })
    }

    /// The descriptors to send, in the order of the message's list.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'static>> {
        self.compile.descriptors.iter().map(|&number| crate::process::inherited(number)).collect()
    }
}

fn environment(process: &Process) -> ByteStrings {
    process.env().map(CStr::to_bytes).collect()
}

/// The mask can only be read by setting it. There is one thread, so nobody sees the moment between.
fn umask() -> u32 {
    let mask = rustix::process::umask(Mode::empty());
    rustix::process::umask(mask);
    kernel::mode_bits(mask)
}

fn stat_of(number: i32) -> Option<Stat> {
    rustix::fs::fstat(crate::process::inherited(number)).ok()
}

fn same_file(a: &Stat, b: &Stat) -> bool {
    FileId::of(a) == FileId::of(b) && a.st_rdev == b.st_rdev
}

/// Whether standard output and error, which are one regular file, have a place in it each (`>f 2>f`, unlike `>f 2>&1`).
/// What is written to one then goes over what was written to the other; whoever has them as one stream cannot tell how.
fn overwrite_each_other() -> Option<bool> {
    let [stdout, stderr] = [1, 2].map(crate::process::inherited);
    let flags = || Some([rustix::fs::fcntl_getfl(stdout).ok()?, rustix::fs::fcntl_getfl(stderr).ok()?]);
    let [of_stdout, of_stderr] = flags()?;
    if of_stdout.contains(OFlags::APPEND) && of_stderr.contains(OFlags::APPEND) {
        return Some(false);
    }
    // Flags go with the place. This one means nothing for files.
    rustix::fs::fcntl_setfl(stdout, of_stdout ^ OFlags::NONBLOCK).ok()?;
    let changed = flags();
    rustix::fs::fcntl_setfl(stdout, of_stdout).ok()?;
    let [now_of_stdout, now_of_stderr] = changed?;
    Some(of_stdout != of_stderr || now_of_stdout != now_of_stderr)
}

/// Whether what is written to a stream meets an error: nobody reads it, it was opened to be read, it is a device that may
/// be full. What a tool does then is its own affair.
fn takes_nothing(number: i32, kind: StreamKind) -> bool {
    let stream = crate::process::inherited(number);
    let is_for_reading =
        || rustix::fs::fcntl_getfl(stream).is_ok_and(|flags| flags & OFlags::ACCMODE == OFlags::RDONLY);
    match kind {
        StreamKind::Other => true,
        StreamKind::Pipe => {
            let mut looked = [PollFd::new(&stream, PollFlags::empty())];
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let _ = poll(&mut looked, Some(&at_once));
            // A pipe's reader is gone, or a socket's other end.
            looked[0].revents().intersects(PollFlags::ERR | PollFlags::HUP) || is_for_reading()
        }
        _ => is_for_reading(),
    }
}

fn kind_of(number: i32, stat: &Option<Stat>) -> StreamKind {
    let Some(stat) = stat else { return StreamKind::Closed };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => StreamKind::File,
        FileType::Fifo | FileType::Socket => StreamKind::Pipe,
        FileType::CharacterDevice if stat.st_rdev == rustix::fs::makedev(1, 3) => StreamKind::Null,
        FileType::CharacterDevice => match rustix::termios::tcgetwinsize(crate::process::inherited(number)) {
            Ok(size) => StreamKind::Terminal { rows: size.ws_row, columns: size.ws_col },
            Err(_) => StreamKind::Other,
        },
        _ => StreamKind::Other,
    }
}

fn descriptors(process: &Process, stdin_open: bool) -> Vec<i32> {
    let mut numbers = if stdin_open { vec![0] } else { vec![] };
    for name in ["MAKEFLAGS", "CARGO_MAKEFLAGS"] {
        let announced = process.var(name).and_then(jobserver::descriptors);
        for number in announced.into_iter().flatten() {
            if !numbers.contains(&number) && is_open(number) {
                numbers.push(number);
            }
        }
    }
    numbers
}

fn is_open(number: i32) -> bool {
    rustix::io::fcntl_getfd(crate::process::inherited(number).as_fd()).is_ok()
}
