//! A bench to put tools on: a directory of its own, runs in it observed and bare, and questions about them.

#![expect(clippy::unwrap_used, reason = "part of a test: what cannot be is a failure of the test")]

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use zccache_actors::invocation::Invocation;
use zccache_actors::observation::Seen;
use zccache_actors::observe_linux::ObservedObserver;
use zccache_actors::observer::{Job, Left, Observed, Observer, Watcher};
use zccache_actors::plan::{Caution, Policy};
use zccache_proto::ByteStrings;
use zccache_proto::message::{OutputStream, Stdio, StreamKind};

static POLICY: Policy = Policy {
    family: "test",
    knows_program: |_| true,
    reads_links_on_its_way_only: true,
    searches: |name| name.starts_with(b"cc1"),
    ignored_reads: &["/proc/filesystems", "/proc/sys/kernel/ngroups_max", "/proc/meminfo", "/dev/urandom"],
    review: None,
    caution: Caution { harmless: |_| true, ..Caution::NONE },
};

/// One for all tests: it holds no state between runs.
static OBSERVER: LazyLock<ObservedObserver> =
    LazyLock::new(|| ObservedObserver::new().expect("user notification is needed for these tests"));

/// How long anything is waited for before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Bench {
    dir: tempfile::TempDir,
}

pub struct Run {
    pub observed: Observed,
    pub chunks: Vec<(OutputStream, Vec<u8>)>,
    pub elapsed: Duration,
}

type Hook = Box<dyn FnMut(&[u8])>;

struct Collector {
    chunks: Vec<(OutputStream, Vec<u8>)>,
    /// How long it takes to take a chunk.
    pause: Duration,
    cancelled: OwnedFd,
    /// Dropped with the first output, which cancels the run.
    canceller: Option<OwnedFd>,
    /// Told of each output.
    hook: Hook,
}

impl Watcher for Collector {
    fn starting(&mut self, pid: u32) -> std::io::Result<()> {
        assert!(pid > 1);
        Ok(())
    }

    fn output(&mut self, stream: OutputStream, bytes: &[u8]) {
        std::thread::sleep(self.pause);
        self.chunks.push((stream, bytes.to_vec()));
        self.canceller = None;
        (self.hook)(bytes);
    }

    fn cancelled(&self) -> BorrowedFd<'_> {
        self.cancelled.as_fd()
    }
}

impl Collector {
    fn observe(&mut self, job: Job) -> std::io::Result<Run> {
        let start = Instant::now();
        let observed = OBSERVER.run(job, self)?;
        Ok(Run { observed, chunks: std::mem::take(&mut self.chunks), elapsed: start.elapsed() })
    }
}

impl Run {
    fn text(&self, wanted: OutputStream) -> String {
        let chunks = self.chunks.iter().filter(|(stream, _)| *stream == wanted);
        String::from_utf8(chunks.flat_map(|(_, bytes)| bytes.clone()).collect()).unwrap()
    }

    pub fn stdout(&self) -> String {
        self.text(OutputStream::Stdout)
    }

    pub fn stderr(&self) -> String {
        self.text(OutputStream::Stderr)
    }

    pub fn effects(&self) -> Vec<(String, Left)> {
        let name = |path: &[u8]| String::from_utf8(path.to_vec()).unwrap();
        self.observed.effects.iter().map(|e| (name(&e.path.0), e.left)).collect()
    }
}

impl Bench {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> String {
        let top = std::fs::canonicalize(self.dir.path()).unwrap();
        top.join(name).into_os_string().into_string().unwrap()
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = PathBuf::from(self.path(name));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn script(&self, name: &str, text: &str) {
        self.write(name, text);
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    pub fn symlink(&self, target: &str, name: &str) {
        std::os::unix::fs::symlink(target, self.path(name)).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    pub fn clear(&self) {
        for entry in std::fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) }.unwrap();
        }
    }

    pub fn wait_for(&self, name: &str) {
        wait_until(|| std::fs::exists(self.path(name)).unwrap());
    }

    fn job(&self, tool: &str, arguments: &[&str]) -> Job {
        let stdio = Stdio {
            stdin: StreamKind::Null,
            stdout: StreamKind::Pipe,
            stderr: StreamKind::Pipe,
            merged: false,
        };
        let invocation = Invocation {
            tool: find(tool).into_bytes(),
            argv: std::iter::once(&tool).chain(arguments).map(|s| s.as_bytes()).collect(),
            cwd: self.path("").trim_end_matches('/').as_bytes().to_vec(),
            env: environment(),
            umask: 0o022,
            stdio,
        };
        Job {
            invocation,
            descriptors: Vec::new(),
            client_pid: None,
            policy: &POLICY,
            foreign_code: true,
            input_is_known: false,
            declared: Default::default(),
            outputs: Vec::new(),
        }
    }

    pub fn try_run(&self, tool: &str, arguments: &[&str]) -> std::io::Result<Run> {
        let (_keep, cancelled) = rustix::pipe::pipe().unwrap();
        // `pipe` gives (reader, writer): the reader is what becomes readable, when the writer goes.
        observe(self.job(tool, arguments), _keep, Some(cancelled), Duration::ZERO)
    }

    pub fn run_with(&self, tool: &str, arguments: &[&str], change: impl FnOnce(&mut Job)) -> Run {
        let mut job = self.job(tool, arguments);
        change(&mut job);
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        observe(job, reader, Some(writer), Duration::ZERO).unwrap()
    }

    pub fn run(&self, tool: &str, arguments: &[&str]) -> Run {
        self.run_with(tool, arguments, |_| {})
    }

    /// Each chunk of output is taken after a pause.
    pub fn run_slowly(&self, tool: &str, arguments: &[&str], pause: Duration) -> Run {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        observe(self.job(tool, arguments), reader, Some(writer), pause).unwrap()
    }

    pub fn run_with_input(&self, tool: &str, arguments: &[&str], input: &[u8]) -> Run {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        std::fs::File::from(writer).write_all(input).unwrap();
        self.run_with(tool, arguments, |job| job.descriptors.push((0, reader)))
    }

    /// Cancelled as soon as it has said something.
    pub fn run_cancelled(&self, tool: &str, arguments: &[&str]) -> Run {
        let (cancelled, writer) = rustix::pipe::pipe().unwrap();
        let canceller = Some(writer);
        let (pause, hook) = (Duration::ZERO, Box::new(|_: &[u8]| ()));
        let mut collector = Collector { chunks: Vec::new(), pause, cancelled, canceller, hook };
        collector.observe(self.job(tool, arguments)).unwrap()
    }

    /// Whenever the tool says `step`, `between` is done, and then a byte comes on its standard input.
    pub fn run_in_steps(
        &self,
        tool: &str,
        arguments: &[&str],
        change: impl FnOnce(&mut Job),
        mut between: impl FnMut() + 'static,
    ) -> Run {
        let mut job = self.job(tool, arguments);
        change(&mut job);
        let (input, steps) = rustix::pipe::pipe().unwrap();
        job.descriptors.push((0, input));
        job.input_is_known = true;
        let (cancelled, _keep) = rustix::pipe::pipe().unwrap();
        let mut steps = std::fs::File::from(steps);
        let hook = Box::new(move |said: &[u8]| {
            if said.ends_with(b"step\n") {
                between();
                steps.write_all(b"x").unwrap();
            }
        });
        let (chunks, pause) = (Vec::new(), Duration::ZERO);
        Collector { chunks, pause, cancelled, canceller: None, hook }.observe(job).unwrap()
    }

    /// The same without us: (standard output, standard error).
    pub fn run_bare(&self, tool: &str, arguments: &[&str]) -> (String, String) {
        let variables: HashMap<String, String> = environment()
            .iter()
            .map(|v| String::from_utf8(v.to_vec()).unwrap())
            .map(|v| v.split_once('=').map(|(k, v)| (k.into(), v.into())).unwrap())
            .collect();
        let mut command = Command::new(find(tool));
        command.args(arguments).current_dir(self.path("")).env_clear().envs(variables);
        let output = command.output().unwrap();
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

fn observe(job: Job, cancelled: OwnedFd, keep: Option<OwnedFd>, pause: Duration) -> std::io::Result<Run> {
    let hook = Box::new(|_: &[u8]| ());
    let run = Collector { chunks: Vec::new(), pause, cancelled, canceller: None, hook }.observe(job);
    drop(keep);
    run
}

/// A small environment, the same everywhere.
fn environment() -> ByteStrings {
    let keep = ["PATH", "HOME", "RUSTUP_HOME", "CARGO_HOME", "RUSTUP_TOOLCHAIN"];
    let kept = keep.iter().filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?)));
    kept.chain(["LC_ALL=C".to_string()]).map(String::into_bytes).collect()
}

fn find(tool: &str) -> String {
    if tool.contains('/') {
        return tool.into();
    }
    let path = std::env::var("PATH").unwrap();
    let found = path.split(':').map(|dir| format!("{dir}/{tool}")).find(|p| std::fs::metadata(p).is_ok());
    found.unwrap_or_else(|| panic!("{tool} is needed for these tests"))
}

pub fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn is_alive(pid: i32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    state.is_ok_and(|s| !s.contains(") Z "))
}

fn any(o: &Observed, path: &str, wanted: impl Fn(&Seen) -> bool) -> bool {
    o.sightings.iter().any(|s| s.path.0 == path.as_bytes() && wanted(&s.seen))
}

pub fn seen_read(o: &Observed, path: &str) -> bool {
    any(o, path, |s| matches!(s, Seen::Read { .. }))
}

pub fn seen_absent(o: &Observed, path: &str) -> bool {
    any(o, path, |s| *s == Seen::Absent)
}

pub fn seen_listed(o: &Observed, path: &str) -> bool {
    any(o, path, |s| matches!(s, Seen::Listed { .. }))
}

/// Whether a program whose path ends so was executed.
pub fn seen_executed(o: &Observed, end: &str) -> bool {
    o.sightings
        .iter()
        .any(|s| s.path.0.ends_with(end.as_bytes()) && matches!(s.seen, Seen::Read { executed: true, .. }))
}
