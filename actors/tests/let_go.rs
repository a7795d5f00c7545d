//! A tool's process without an observer, which nobody but the word to go holds back: what it may do before it, and
//! that it is the tool after it. These run under a sanitizer as well (`make sanitize`), which observers do not.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use zccache_actors::invocation::Invocation;
use zccache_actors::observe_none::Unobserved;
use zccache_actors::observer::{Job, Observer, Watcher};
use zccache_actors::plan::{Caution, Policy};
use zccache_proto::message::{Exit, OutputStream, Stdio, StreamKind};

static POLICY: Policy = Policy {
    family: "test",
    knows_program: |_| true,
    reads_links_on_its_way_only: true,
    searches: |name| name.starts_with(b"cc1"),
    ignored_reads: &[],
    review: None,
    caution: Caution::NONE,
};

fn job(directory: &Path, script: &str, descriptors: Vec<(i32, OwnedFd)>) -> Job {
    let stdio = Stdio {
        stdin: if descriptors.is_empty() { StreamKind::Null } else { StreamKind::Pipe },
        stdout: StreamKind::Pipe,
        stderr: StreamKind::Pipe,
        merged: false,
    };
    let invocation = Invocation {
        tool: b"/bin/sh".to_vec(),
        argv: [&b"sh"[..], b"-c", script.as_bytes()].into_iter().collect(),
        cwd: directory.as_os_str().as_encoded_bytes().to_vec(),
        env: [&b"NAME=value"[..]].into_iter().collect(),
        umask: 0o027,
        stdio,
    };
    Job {
        invocation,
        descriptors,
        client_pid: Some(std::process::id()),
        policy: &POLICY,
        foreign_code: true,
        input_is_known: false,
        declared: Default::default(),
        outputs: Vec::new(),
    }
}

/// Lets the tool go or not, and keeps what it says.
struct Keeper<F> {
    starting: F,
    never: OwnedFd,
    said: Vec<u8>,
}

impl<F: FnMut(u32) -> std::io::Result<()>> Watcher for Keeper<F> {
    fn starting(&mut self, pid: u32) -> std::io::Result<()> {
        (self.starting)(pid)
    }

    fn output(&mut self, _: OutputStream, bytes: &[u8]) {
        self.said.extend_from_slice(bytes);
    }

    fn cancelled(&self) -> BorrowedFd<'_> {
        self.never.as_fd()
    }
}

fn run(job: Job, starting: impl FnMut(u32) -> std::io::Result<()>) -> (std::io::Result<Exit>, String) {
    let (never, _writer) = rustix::pipe::pipe().unwrap();
    let mut keeper = Keeper { starting, never, said: Vec::new() };
    let observed = Unobserved { why: "a test".into() }.run(job, &mut keeper);
    (observed.map(|observed| observed.exit), String::from_utf8(keeper.said).unwrap())
}

/// Until the process sleeps, which it does when it waits, or is another program.
fn settles(pid: u32) -> std::path::PathBuf {
    let ours = std::fs::read_link("/proc/self/exe").unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        if program != ours || stat.contains(") S ") {
            return program;
        }
        assert!(Instant::now() < end, "the child neither waits nor runs: {stat}");
        std::thread::yield_now();
    }
}

#[test]
fn a_tool_that_is_not_let_go_has_done_nothing() {
    let temp = tempfile::tempdir().unwrap();
    for _ in 0..20 {
        let mut child = 0;
        let (ended, said) = run(job(temp.path(), "echo said; : >made", Vec::new()), |pid| {
            child = pid;
            assert_eq!(settles(pid), std::fs::read_link("/proc/self/exe").unwrap(), "the tool runs");
            Err(std::io::Error::other("nobody wants it"))
        });
        assert_eq!(ended.unwrap_err().to_string(), "nobody wants it");
        assert_eq!((said.as_str(), temp.path().join("made").exists()), ("", false));
        assert!(!Path::new(&format!("/proc/{child}")).exists(), "it is there still");
    }
}

#[test]
fn a_tool_that_is_let_go_has_its_directory_its_streams_and_its_status() {
    let temp = tempfile::tempdir().unwrap();
    let script = "read -r line; echo $line $NAME; umask; read -r more <&7; echo $more; : >made; exit 3";
    for _ in 0..20 {
        let pipes = [(0, "typed\n"), (7, "more\n")].map(|(number, text)| {
            let (reader, writer) = rustix::pipe::pipe().unwrap();
            std::fs::File::from(writer).write_all(text.as_bytes()).unwrap();
            (number, reader)
        });
        let (ended, said) = run(job(temp.path(), script, pipes.into()), |_| Ok(()));
        assert_eq!((ended.unwrap(), said.as_str()), (Exit::Code(3), "typed value\n0027\nmore\n"));
        std::fs::remove_file(temp.path().join("made")).unwrap();
    }
}

#[test]
fn a_tool_that_cannot_be_executed_is_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let mut missing = job(temp.path(), "", Vec::new());
    missing.invocation.tool = b"/nonexistent/tool".to_vec();
    let (ended, _) = run(missing, |_| Ok(()));
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::NotFound);
    let gone = job(&temp.path().join("gone"), "", Vec::new());
    assert!(run(gone, |_| Ok(())).0.is_err());
}
