//! A place of a test's own: cache, runtime directory, `HOME`, and an environment with nothing else in it.
//!
//! Dropping it stops the service that ran there, so that no test leaves a process behind.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::{Outcome, Stats, binaries, wait};

/// Where the system's own tools are; a test's `PATH` ends with it.
pub const SYSTEM_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// How long a service may take to go when asked, before it is killed: it has nothing to do then.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// How many lines of a log a failing test shows.
const LOG_LINES: usize = 40;

/// A cache, a runtime directory, a `HOME` and a working directory, all empty at first.
pub struct Sandbox {
    root: TempDir,
    env: Vec<(OsString, OsString)>,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Sandbox {
    /// A new one. No service runs in it yet.
    ///
    /// # Panics
    /// If the programs have not been built, or the directories cannot be made.
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// The same in this directory.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    pub fn below(directory: &Path) -> Self {
        let root = tempfile::Builder::new().prefix("zct-").tempdir_in(directory);
        let root = root.expect("a temporary directory can be made");
        for name in ["home", "tmp", "work"] {
            std::fs::create_dir(root.path().join(name)).expect("a directory can be made");
        }
        let at = |name: &str| root.path().join(name).into_os_string();
        let path = format!("{}:{SYSTEM_PATH}", binaries::directory().display());
        let env = [
            ("HOME", at("home")),
            ("TMPDIR", at("tmp")),
            ("ZCCACHE_DIR", at("cache")),
            ("ZCCACHE_RUNTIME_DIR", at("run")),
            ("ZCCACHE_CONFIG", at("config.toml")),
            ("PATH", path.into()),
            ("LC_ALL", "C".into()),
        ];
        // A file that says nothing: the user's own configuration must not matter here.
        std::fs::write(root.path().join("config.toml"), "").expect("a file can be written");
        let mut env: Vec<(OsString, OsString)> = env.map(|(name, value)| (name.into(), value)).into();
        // The whole suite can be run under either observer.
        env.extend(std::env::var_os("ZCCACHE_TEST_OBSERVER").map(|kind| ("ZCCACHE_OBSERVER".into(), kind)));
        Self { env, root }
    }

    /// A path in the sandbox.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    /// Where commands run.
    pub fn work(&self) -> PathBuf {
        self.path("work")
    }

    /// The cache's directory.
    pub fn cache_dir(&self) -> PathBuf {
        PathBuf::from(self.var("ZCCACHE_DIR"))
    }

    /// The socket's directory.
    pub fn runtime_dir(&self) -> PathBuf {
        PathBuf::from(self.var("ZCCACHE_RUNTIME_DIR"))
    }

    /// All that services here have logged.
    pub fn log(&self) -> String {
        let directory = self.path("home").join(".local/state/zccache");
        let files = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        files.filter_map(|file| std::fs::read_to_string(file.path()).ok()).collect()
    }

    /// The last lines of the service's log, for a test that is about to fail; empty if there is none.
    pub fn end_of_log(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// The value of a variable that commands see; empty if it is not set.
    pub fn var(&self, name: &str) -> OsString {
        self.env.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()).unwrap_or_default()
    }

    /// Sets a variable for the commands to come.
    pub fn set(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) {
        self.unset(name.as_ref());
        self.env.push((name.as_ref().into(), value.as_ref().into()));
    }

    /// Removes a variable for the commands to come.
    pub fn unset(&mut self, name: impl AsRef<OsStr>) {
        self.env.retain(|(n, _)| n != name.as_ref());
    }

    /// Writes a file below the working directory, with the directories it lies in.
    ///
    /// # Panics
    /// If that fails.
    pub fn write(&self, relative: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.work().join(relative);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("a directory can be made");
        }
        std::fs::write(&path, content).unwrap_or_else(|e| panic!("cannot write {}: {e}", path.display()));
        path
    }

    /// A command in the working directory, with the sandbox's environment and no other.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.env.iter().cloned()).current_dir(self.work()).stdin(Stdio::null());
        command
    }

    /// `zccache WORDS…`, not yet started.
    pub fn wrapper<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.command(binaries::directory().join("zccache"));
        command.args(words);
        command
    }

    /// Runs `zccache` with a command line that is split at blanks.
    pub fn compile(&self, line: &str) -> Outcome {
        run(&mut self.wrapper(line.split_whitespace()))
    }

    /// `zccache-client WORDS…`, split at blanks, run to its end, outside the working directory.
    pub fn client(&self, line: &str) -> Outcome {
        let mut command = self.command(binaries::directory().join("zccache-client"));
        run(command.args(line.split_whitespace()).current_dir(self.root.path()))
    }

    /// Starts the service in the background, by hand: in a process group of its own, its output thrown away.
    ///
    /// # Panics
    /// If it does not come to answer.
    pub fn spawn_service(&self) -> Child {
        let child = self
            .command(binaries::directory().join("zccache-service"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("the service can be started");
        wait::until("the service answers", || self.client("status").success().then_some(()));
        child
    }

    /// Starts the service by `zccache-client start`.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub fn start(&self) {
        self.client("start").expect_success();
    }

    /// The counters now.
    ///
    /// # Panics
    /// If the service does not tell them.
    #[track_caller]
    pub fn stats(&self) -> Stats {
        Stats::parse(&self.client("stats --json").expect_success().stdout)
    }

    /// The id in the pid file, if a process of that id is alive.
    pub fn service_pid(&self) -> Option<i32> {
        let entries = std::fs::read_dir(self.runtime_dir()).ok()?;
        let mut names = entries.filter_map(Result::ok).map(|e| e.path());
        let file = names.find(|p| p.extension().is_some_and(|e| e == "pid"))?;
        let pid = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
        wait::is_alive(pid).then_some(pid)
    }

    /// Sends a signal to the service, which must be running.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn signal_service(&self, signal: Signal) -> i32 {
        let pid = self.service_pid().expect("a service is running");
        send(pid, signal);
        pid
    }

    /// Stops the service, if there is one: asked first, then killed.
    pub fn stop(&self) {
        let Some(pid) = self.service_pid() else { return };
        // A service that a test has stopped with SIGSTOP can answer nothing.
        send(pid, Signal::CONT);
        self.client("stop");
        let end = Instant::now() + STOP_PATIENCE;
        while wait::is_alive(pid) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        if wait::is_alive(pid) {
            send(pid, Signal::KILL);
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Sends `signal` to a process, if it is still there.
pub fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// Runs a command to its end and keeps what it printed.
///
/// # Panics
/// If it cannot be started, does not end, or leaves somebody behind who holds its output open.
#[track_caller]
pub fn run(command: &mut Command) -> Outcome {
    let name = command.get_program().display().to_string();
    let spawned = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.unwrap_or_else(|e| panic!("cannot run {name}: {e}"));
    let streams = [child.stdout.take().map(collect), child.stderr.take().map(collect)];
    let status = wait::for_exit(&mut child, &name);
    let [stdout, stderr] = streams.map(|stream| {
        let bytes = stream.map(|s| s.recv_timeout(wait::PATIENCE));
        bytes
            .and_then(Result::ok)
            .unwrap_or_else(|| panic!("{name} has ended, but its output is still held open"))
    });
    Outcome::from(Output { status, stdout, stderr })
}

/// Reads a stream to its end on a thread of its own.
fn collect(mut stream: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came before an error is still worth comparing.
        let _ = stream.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

/// Whether `program` is a command of this system, in [`SYSTEM_PATH`].
///
/// # Panics
/// If it is not: a test whose tool is missing fails, it is never skipped.
#[track_caller]
pub fn system_tool(program: &str) -> PathBuf {
    let found = SYSTEM_PATH.split(':').map(|d| Path::new(d).join(program)).find(|p| p.is_file());
    found.unwrap_or_else(|| panic!("this test needs {program}: run `make tools`"))
}
