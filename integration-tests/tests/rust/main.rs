//! Rust, by `rustc` alone and by Cargo: whatever is served is what the bare compiler makes, and a whole build is served.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

mod build_scripts;
mod builds;
mod checkouts;
mod crates;
mod jobs;
mod lints_and_docs;
mod project;
mod sharing;
mod targets;
mod toolchains;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use zccache_integration_tests::{Expect, Outcome, Sandbox, Scenario};

/// The toolchain that runs these tests, by its own directory: a sandbox has no rustup.
fn sysroot() -> PathBuf {
    let told = Command::new("rustc").args(["--print", "sysroot"]).output().expect("there is a rustc");
    PathBuf::from(String::from_utf8(told.stdout).unwrap().trim_end())
}

/// An empty project in which `cargo` and `rustc` are on `PATH`.
fn scenario() -> Scenario {
    let mut s = Scenario::new();
    let mut path = sysroot().join("bin").into_os_string();
    path.push(":");
    path.push(s.sandbox.var("PATH"));
    s.sandbox.set("PATH", path);
    s.sandbox.set("CARGO_INCREMENTAL", "0");
    s.sandbox.set("CARGO_NET_OFFLINE", "true");
    s.unlike_where(is_cargos_own);
    s
}

/// Files of Cargo's own that differ from run to run, since it keeps what it writes there in tables without an order, or
/// notes when it asked the compiler for its version, or when what it makes documentation of was edited.
fn is_cargos_own(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let above =
        path.parent().and_then(|dir| dir.file_name()).and_then(|name| name.to_str()).unwrap_or_default();
    let is_in_fingerprint = path.components().any(|part| part.as_os_str() == ".fingerprint");
    name == ".rustc_info.json"
        || (is_in_fingerprint && ["dep-", "doc-"].iter().any(|kind| name.starts_with(kind)))
        || (name.ends_with(".d") && matches!(above, "debug" | "release"))
}

/// What a step with Cargo compares beside what it prints.
struct Cargo<'a> {
    s: &'a mut Scenario,
    /// Where in the project it runs.
    directory: &'static str,
    /// Variables for this step.
    vars: Vec<(&'static str, OsString)>,
}

impl Cargo<'_> {
    /// Runs `cargo` with these words. Both twins have the same wrapper; the bare one's is disabled.
    #[track_caller]
    fn step(&mut self, expect: Expect, line: &str) -> Outcome {
        let (directory, vars) = (self.directory, self.vars.clone());
        let command = |sandbox: &Sandbox| {
            let mut command = sandbox.command("cargo");
            command.args(line.split_whitespace()).current_dir(sandbox.work().join(directory));
            command.env("RUSTC_WRAPPER", "zccache").envs(vars.clone());
            command
        };
        self.s.switched_off_and_on(expect, command)
    }
}

/// A step of Cargo's in the project's own directory.
#[track_caller]
fn cargo(s: &mut Scenario, expect: Expect, line: &str) -> Outcome {
    Cargo { s, directory: "", vars: Vec::new() }.step(expect, line)
}

/// The same for a line that runs tests, which tell how long they took and in which thread they failed.
#[track_caller]
fn cargo_test(s: &mut Scenario, expect: Expect, line: &str) -> Outcome {
    const SCRIPT: &str = "cargo $0 >said 2>&1; code=$?; sed 's/in [0-9.]*s//; s/ ([0-9]*) panicked/ panicked/' said; rm said; exit $code";
    let wrapped = |sandbox: &Sandbox| {
        let mut command = sandbox.command("sh");
        command.args(["-c", SCRIPT, line]).env("RUSTC_WRAPPER", "zccache");
        command
    };
    s.switched_off_and_on(expect, wrapped)
}

fn hits(hits: u64) -> Expect {
    Expect::Counts { hits, misses: 0 }
}

fn misses(misses: u64) -> Expect {
    Expect::Counts { hits: 0, misses }
}

fn counts(hits: u64, misses: u64) -> Expect {
    Expect::Counts { hits, misses }
}
