//! A user's session, told twice: with the bare tool and with the wrapper, and nobody can tell which was which.
//!
//! Paths end up in objects, so both runs must see the same ones. There are two twins of the project directory,
//! and each takes the place `work` in turn, by a rename that leaves inodes and times as they are:
//!
//! ```text
//!   bare/   -> work, run the tool,            back to bare/
//!   cached/ -> work, run the tool by zccache, back to cached/
//! ```
//!
//! After each step the two must agree in all that a command leaves behind, and the service's counters must have
//! moved by exactly what the step says. With `ZCCACHE_TEST_CACHE_OFF=1` the wrapper is disabled: then every step
//! that expects a hit must fail, which `tests/cache_off.rs` shows.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use crate::stats::Counters;
use crate::{Outcome, Sandbox, Tree, sandbox};

/// How the counters must move in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// One request, served.
    Hit,
    /// One request, for which the tool was run, and its result stored.
    Miss,
    /// One request, for which the tool was run; its result may or may not have been stored.
    Run,
    /// One request, for which the tool was run, and its result not stored.
    NotStored,
    /// One request, handed back.
    PassThrough,
    /// So many hits and misses; pass-throughs besides are not looked at.
    Counts {
        /// Served.
        hits: u64,
        /// Run.
        misses: u64,
    },
    /// Whatever is right: only the results matter.
    Anything,
}

impl Expect {
    /// Whether the counters may have moved so. Under the declared observer, what is served otherwise may be run.
    fn admits(self, delta: Counters) -> bool {
        if under_the_declared_observer() && self.admits_less(delta) {
            return true;
        }
        let one = (delta.requests, delta.hits, delta.misses, delta.passed_through);
        match self {
            Self::Hit => one == (1, 1, 0, 0),
            Self::Miss => one == (1, 0, 1, 0) && delta.stored == 1,
            Self::Run => one == (1, 0, 1, 0),
            Self::NotStored => one == (1, 0, 1, 0) && delta.stored == 0,
            Self::PassThrough => one == (1, 0, 0, 1),
            Self::Counts { hits, misses } => (delta.hits, delta.misses) == (hits, misses),
            Self::Anything => true,
        }
    }

    /// As many requests, none more served than expected, and none handed back instead.
    fn admits_less(self, delta: Counters) -> bool {
        let (hits_max, requests) = match self {
            Self::Hit => (1, 1),
            Self::Miss => (0, 1),
            Self::Counts { hits, misses } => (hits, hits + misses),
            _ => return false,
        };
        delta.hits <= hits_max && delta.hits + delta.misses == requests
    }
}

/// A project in a sandbox, and its twin.
pub struct Scenario {
    /// The sandbox it lives in. Changes of its environment count for both twins.
    pub sandbox: Sandbox,
    umask: Option<u32>,
    steps: u32,
    /// Files whose content is a measurement or a stamp: any two runs of the bare tool differ in it.
    unlike: Vec<PathBuf>,
    unlike_where: Option<fn(&Path) -> bool>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self::new()
    }
}

impl Scenario {
    /// An empty project, with a running service.
    ///
    /// # Panics
    /// If the service cannot be started.
    #[track_caller]
    pub fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// The same in this directory, the cache included.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[track_caller]
    pub fn below(directory: &Path) -> Self {
        let mut sandbox = Sandbox::below(directory);
        if std::env::var_os("ZCCACHE_TEST_CACHE_OFF").is_some_and(|v| v == "1") {
            sandbox.set("ZCCACHE_DISABLE", "1");
        }
        if under_the_declared_observer() {
            sandbox.set("ZCCACHE_OBSERVER", "declared");
        }
        for twin in ["bare", "cached"] {
            std::fs::create_dir(sandbox.path(twin)).expect("a directory can be made");
        }
        std::fs::remove_dir(sandbox.work()).expect("the empty directory can be removed");
        let mut scenario = Self { sandbox, umask: None, steps: 0, unlike: Vec::new(), unlike_where: None };
        // What the service says of a record that does not hold, for a step that expected one that does.
        scenario.sandbox.set("ZCCACHE_LOG", "debug");
        scenario.within("cached", |s| s.sandbox.start());
        scenario.sandbox.unset("ZCCACHE_LOG");
        scenario
    }

    /// The same with the wrapper disabled, whatever the environment says.
    #[track_caller]
    pub fn with_the_cache_off() -> Self {
        let mut scenario = Self::new();
        scenario.sandbox.set("ZCCACHE_DISABLE", "1");
        scenario
    }

    /// Runs the steps to come under this umask.
    pub fn umask(&mut self, mask: u32) {
        self.umask = Some(mask);
    }

    /// From now on, of this file only existence and mode are compared: its content is a measurement or a random
    /// number, so that any two runs of the bare tool differ in it.
    pub fn unlike(&mut self, path: impl Into<PathBuf>) {
        self.unlike.push(path.into());
    }

    /// The same for every file whose path within the project is of this kind.
    pub fn unlike_where(&mut self, is_unlike: fn(&Path) -> bool) {
        self.unlike_where = Some(is_unlike);
    }

    /// Writes a file of the project, and gives it this modification time (seconds since the epoch).
    pub fn write_at(&self, relative: &str, content: impl AsRef<[u8]>, mtime: u64) {
        self.edit(|work| {
            self.sandbox.write(relative, content.as_ref());
            set_mtime(&work.join(relative), mtime);
        });
    }

    /// Overwrites a file of the project in place, and puts its old modification time back.
    pub fn rewrite(&self, relative: &str, content: impl AsRef<[u8]>) {
        self.edit(|work| {
            let path = work.join(relative);
            let time = path.metadata().and_then(|m| m.modified()).expect("a file has a time");
            std::fs::write(&path, content.as_ref()).expect("a file can be written");
            let file = std::fs::File::options().write(true).open(&path).expect("a file can be opened");
            file.set_modified(time).expect("a time can be set");
        });
    }

    /// Removes a file of the project.
    pub fn remove(&self, relative: &str) {
        self.edit(|work| {
            std::fs::remove_file(work.join(relative)).unwrap_or_else(|e| panic!("no {relative}: {e}"));
        });
    }

    /// Writes a file of the project.
    pub fn write(&self, relative: &str, content: impl AsRef<[u8]>) {
        self.edit(|_| _ = self.sandbox.write(relative, content.as_ref()));
    }

    /// Writes an executable shell script of the project.
    pub fn script(&self, relative: &str, body: &str) {
        use std::os::unix::fs::PermissionsExt;
        self.edit(|work| {
            self.sandbox.write(relative, format!("#!/bin/sh\n{body}\n"));
            std::fs::set_permissions(work.join(relative), PermissionsExt::from_mode(0o755))
                .expect("a mode can be set");
        });
    }

    /// Changes the project in any way; called once for each twin, with its directory.
    pub fn edit(&self, change: impl Fn(&Path)) {
        for twin in ["bare", "cached"] {
            self.within(twin, |s| change(&s.sandbox.work()));
        }
    }

    /// One step: a command line that is split at blanks.
    ///
    /// # Panics
    /// If the twins differ in anything, or the counters did not move as expected.
    #[track_caller]
    pub fn step(&mut self, expect: Expect, line: &str) -> Outcome {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        self.step_of(expect, &words)
    }

    /// One step whose words may be any bytes.
    ///
    /// # Panics
    /// As [`step`](Self::step).
    #[track_caller]
    pub fn step_of<S: AsRef<OsStr>>(&mut self, expect: Expect, words: &[S]) -> Outcome {
        self.step_in("", expect, words)
    }

    /// One step in a directory of the project.
    ///
    /// # Panics
    /// As [`step`](Self::step).
    #[track_caller]
    pub fn step_in<S: AsRef<OsStr>>(&mut self, directory: &str, expect: Expect, words: &[S]) -> Outcome {
        let (tool, rest) = words.split_first().expect("a command has a first word");
        self.compare(
            expect,
            |sandbox| {
                let mut command = sandbox.command(tool);
                command.args(rest).current_dir(sandbox.work().join(directory));
                command
            },
            |sandbox| {
                let mut command = sandbox.wrapper(words);
                command.current_dir(sandbox.work().join(directory));
                command
            },
        )
    }

    /// One step of a command that is the same for both twins, but that the wrapper is switched off for the bare one.
    ///
    /// # Panics
    /// As [`step`](Self::step).
    #[track_caller]
    pub fn switched_off_and_on(&mut self, expect: Expect, command: impl Fn(&Sandbox) -> Command) -> Outcome {
        let bare = |sandbox: &Sandbox| {
            let mut command = command(sandbox);
            command.env("ZCCACHE_DISABLE", "1");
            command
        };
        self.compare(expect, bare, &command)
    }

    /// One step of any command, built by `bare` and by `cached` for their twin. The environment's `PATH` is all
    /// that tells a child process of the bare one from the cached one's.
    ///
    /// # Panics
    /// As [`step`](Self::step).
    #[track_caller]
    pub fn compare(
        &mut self,
        expect: Expect,
        bare: impl FnOnce(&Sandbox) -> Command,
        cached: impl FnOnce(&Sandbox) -> Command,
    ) -> Outcome {
        self.steps += 1;
        let (expected, mut expected_tree) = self.within("bare", |s| s.observe(bare(&s.sandbox)));
        let ((actual, mut actual_tree), delta, line) = self.within("cached", |s| {
            let before = s.sandbox.stats().counters;
            let command = cached(&s.sandbox);
            let line = format!("{command:?}");
            let observed = s.observe(command);
            (observed, s.sandbox.stats().counters - before, line)
        });
        // Without the environment, which comes first.
        let line = line.rsplit_once("/zccache\" ").map_or(line.as_str(), |(_, words)| words);
        let step = self.steps;
        for tree in [&mut expected_tree, &mut actual_tree] {
            self.unlike.iter().for_each(|path| tree.forget_content(path));
            self.unlike_where.into_iter().for_each(|is_unlike| tree.forget_contents(is_unlike));
        }
        let differences = expected_tree.differences(&actual_tree);
        assert_eq!(differences, "", "step {step}: {line}\nthe files differ\n{differences}{actual:?}");
        assert!(
            expected == actual,
            "step {step}: {line}\nbare and cached differ\nbare: {expected:?}\ncached: {actual:?}"
        );
        assert!(
            expect.admits(delta) || under_the_declared_observer(),
            "step {step}: {line}\nexpected {expect:?}, but the counters moved by {delta:?}\n{}\n{}",
            self.within("cached", |s| s.sandbox.client("stats --json").out()),
            self.sandbox.end_of_log()
        );
        actual
    }

    /// The files of the project as the cached twin has them.
    pub fn tree(&self) -> Tree {
        Tree::read(&self.sandbox.path("cached"))
    }

    fn observe(&self, mut command: Command) -> (Outcome, Tree) {
        if let Some(mask) = self.umask {
            command = under_umask(&command, mask);
        }
        let outcome = sandbox::run(&mut command);
        (outcome, Tree::read(&self.sandbox.work()))
    }

    /// Puts a twin into the project's place while `action` runs.
    fn within<T>(&self, twin: &str, action: impl FnOnce(&Self) -> T) -> T {
        let (home, work) = (self.sandbox.path(twin), self.sandbox.work());
        std::fs::rename(&home, &work).expect("a twin can take its place");
        let result = action(self);
        std::fs::rename(&work, &home).expect("a twin can leave its place");
        result
    }
}

/// Whether the scenarios are to run with what the tools declare, instead of what they are seen to do. Fewer
/// requests are served then, so only results are compared.
pub fn under_the_declared_observer() -> bool {
    std::env::var_os("ZCCACHE_TEST_OBSERVER").is_some_and(|v| v == "declared")
}

/// Sets a file's modification time, in seconds since the epoch.
///
/// # Panics
/// If that fails.
pub fn set_mtime(path: &Path, seconds: u64) {
    let time = UNIX_EPOCH + Duration::from_secs(seconds);
    // For reading: the owner may set the times of a file that he may not write.
    let set = std::fs::File::open(path).and_then(|file| file.set_modified(time));
    set.unwrap_or_else(|e| panic!("cannot set the time of {}: {e}", path.display()));
}

/// The same command, started by a shell that sets the umask first: setting our own would reach other tests.
fn under_umask(command: &Command, mask: u32) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(format!("umask {mask:o}; exec \"$0\" \"$@\"")).arg(command.get_program());
    shell.args(command.get_args()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(directory) = command.get_current_dir() {
        shell.current_dir(directory);
    }
    shell.stdin(std::process::Stdio::null());
    shell
}
