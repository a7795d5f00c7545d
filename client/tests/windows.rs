//! The built programs on Windows (or Wine), against a real service: the wrapper is in nobody's way, and the commands
//! do what they say. The service's program lies beside the others (`check-windows.sh` builds it first).

#![cfg(windows)]
#![allow(unused_crate_dependencies)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// A runtime directory and a cache of a test's own. The service, if one was started, is stopped at the end.
struct Place {
    temp: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        for built in ["zccache-client", "zccache-service"].map(program) {
            assert!(built.is_file(), "build {} first", built.display());
        }
        Self { temp: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("ZCCACHE_RUNTIME_DIR", self.path("run")).env("LOCALAPPDATA", self.path("local"));
        command.env("ZCCACHE_DIR", self.path("cache"));
        for name in ["ZCCACHE_DISABLE", "ZCCACHE_NO_SPAWN", "ZCCACHE_CONFIG"] {
            command.env_remove(name);
        }
        command
    }

    fn client(&self, arguments: &[&str]) -> Output {
        let mut command = self.command(&program("zccache-client"));
        command.args(arguments);
        let mut tries = (0..SPAWNS_MAX).map(|_| command.output());
        tries.find(|output| !is_wines_own(output)).expect("Wine can make a process").unwrap()
    }

    /// The wrapper before `cmd`, once a service runs (a machine under load takes its time to start one).
    fn wrapper(&self) -> Command {
        self.command(&program("zccache"))
    }

    fn stats(&self) -> serde_json::Value {
        let output = self.client(&["stats", "--json"]);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// How often a process is tried to be made that Wine says it cannot make.
const SPAWNS_MAX: usize = 3;

/// Wine 8 seldom, and for no reason to be seen, makes no process and says `ERROR_INTERNAL_ERROR`, which Windows has no
/// occasion for there.
fn is_wines_own(output: &std::io::Result<Output>) -> bool {
    output.as_ref().is_err_and(|e| e.raw_os_error() == Some(1359))
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.client(&["stop"]);
    }
}

/// A program of ours: all are built into one directory.
fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_zccache")).with_file_name(format!("{name}.exe"))
}

fn same(ours: &Output, bare: &Output) {
    assert_eq!(ours.status.code(), bare.status.code());
    assert_eq!(String::from_utf8_lossy(&ours.stdout), String::from_utf8_lossy(&bare.stdout));
    assert_eq!(String::from_utf8_lossy(&ours.stderr), String::from_utf8_lossy(&bare.stderr));
}

#[test]
fn a_service_is_started_asked_and_stopped() {
    let place = Place::new();
    assert_eq!(place.client(&["status"]).status.code(), Some(3));
    for _ in 0..2 {
        let started = place.client(&["start"]);
        assert!(started.status.success(), "{started:?}");
        let status = place.client(&["status", "--json"]);
        assert!(status.status.success(), "{status:?}");
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
        assert_eq!((&status["state"], &status["observer"]), (&"serving".into(), &"declared".into()));
        assert!(String::from_utf8_lossy(&place.client(&["start"]).stdout).contains("already running"));
        assert!(place.client(&["stop"]).status.success());
        assert_eq!(place.client(&["stats"]).status.code(), Some(3));
    }
}

#[test]
fn a_tool_runs_as_it_would_and_is_counted() {
    let place = Place::new();
    assert!(place.client(&["start"]).status.success());
    for line in [&["/c", "exit 7"][..], &["/c", "echo", "a  \"b c\"", "%PATH%"], &["/c", "nonsense"]] {
        let bare = Command::new("cmd").args(line).output().unwrap();
        same(&place.wrapper().arg("cmd").args(line).output().unwrap(), &bare);
    }
    let stats = place.stats();
    assert_eq!((&stats["requests"], &stats["passed_through"]), (&3.into(), &3.into()), "{stats}");
    assert_eq!(stats["pass_through_reasons"]["undeclared"], 3);
    assert_eq!(stats["fallbacks_reported"], 0);
}

#[test]
fn the_command_line_comes_as_it_was_typed() {
    use std::os::windows::process::CommandExt;
    let place = Place::new();
    let typed = r#"/c echo  a "b  c"   \"d\\ e"#;
    let bare = Command::new("cmd").raw_arg(typed).output().unwrap();
    let mut wrapper = place.wrapper();
    wrapper.env("ZCCACHE_DISABLE", "1").arg("cmd").raw_arg(typed);
    same(&wrapper.output().unwrap(), &bare);
}

#[test]
fn without_a_service_the_tool_runs_and_that_is_noted() {
    let place = Place::new();
    fs::create_dir_all(place.path("run")).unwrap();
    let output = place.wrapper().env("ZCCACHE_NO_SPAWN", "1").args(["cmd", "/c", "exit 5"]).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b""[..], &b""[..]));
    assert_eq!(fs::read(place.path("run").join("fallbacks-1")).unwrap(), b".");
    // What is no service's does not matter either.
    fs::write(place.path("file"), "").unwrap();
    let mut wrapper = place.wrapper();
    wrapper.env("ZCCACHE_RUNTIME_DIR", place.path("file")).args(["cmd", "/c", "exit 6"]);
    assert_eq!(wrapper.output().unwrap().status.code(), Some(6));
}

#[test]
fn eight_wrappers_at_once_start_one_service() {
    let place = Place::new();
    let children: Vec<_> =
        (0..8).map(|n| place.wrapper().args(["cmd", "/c", &format!("exit {n}")]).spawn().unwrap()).collect();
    for (n, mut child) in children.into_iter().enumerate() {
        assert_eq!(child.wait().unwrap().code(), Some(i32::try_from(n).unwrap()));
    }
    // One of them has started it, unless the machine was too slow for that within a second.
    assert!(place.client(&["start"]).status.success());
    let stats = place.stats();
    let (asked, fell) = (&stats["requests"], &stats["fallbacks_reported"]);
    // Whoever asked, and got its answer late, is counted twice.
    assert!(asked.as_u64().unwrap() + fell.as_u64().unwrap() >= 8, "{stats}");
}

#[test]
fn nobody_who_waits_for_the_build_s_output_waits_for_the_service() {
    let place = Place::new();
    // `output` reads until everybody has closed the pipe: a service that had inherited it would hold it for ever.
    let output = place.wrapper().args(["cmd", "/c", "echo done"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "done");
}

/// No test: what this program does as a tool that takes its time.
#[test]
#[ignore = "run by another"]
fn acting_as_a_slow_tool() {
    let Some(file) = std::env::var_os("SLOW_TOOL_FILE") else { return };
    println!("started");
    std::thread::sleep(Duration::from_secs(3));
    fs::write(file, "").unwrap();
}

#[test]
fn a_tool_does_not_outlive_a_wrapper_that_is_killed() {
    use std::io::{BufRead, BufReader};
    let place = Place::new();
    let mut wrapper = place.wrapper();
    wrapper.env("ZCCACHE_DISABLE", "1").env("SLOW_TOOL_FILE", place.path("late")).stdout(Stdio::piped());
    wrapper.arg(std::env::current_exe().unwrap());
    let mut child =
        wrapper.args(["acting_as_a_slow_tool", "--exact", "--ignored", "--nocapture"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("started")));
    child.kill().unwrap();
    child.wait().unwrap();
    std::thread::sleep(Duration::from_secs(4));
    assert!(!place.path("late").exists(), "the tool lived on");
}

#[test]
fn a_copy_named_like_a_tool_finds_the_tool_behind_it() {
    let place = Place::new();
    let directory = place.path("bin");
    fs::create_dir(&directory).unwrap();
    fs::copy(program("zccache"), directory.join("cmd.exe")).unwrap();
    let path = std::env::join_paths(
        [directory.clone()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    let mut command = place.command(&directory.join("cmd.exe"));
    command.env("PATH", path.unwrap()).env("ZCCACHE_NO_SPAWN", "1").args(["/c", "exit 4"]);
    assert_eq!(command.output().unwrap().status.code(), Some(4));
    let missing = place.wrapper().arg("no-such-tool").output().unwrap();
    assert_eq!(missing.status.code(), Some(127));
    assert_eq!(missing.stderr, b"zccache: no-such-tool: command not found\n");
}
