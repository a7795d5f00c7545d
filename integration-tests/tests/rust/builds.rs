//! Whole builds by Cargo.

use std::process::Command;

use zccache_integration_tests::{Expect, Scenario};

use super::project::{self, CRATES};
use super::{Cargo, cargo, cargo_test, counts, hits, misses, scenario, sysroot};

fn workspace() -> Scenario {
    let s = scenario();
    project::write(&s);
    s
}

fn forget_results(s: &Scenario) {
    s.edit(|work| std::fs::remove_dir_all(work.join("target")).unwrap());
}

/// The program's own words, once for each twin.
fn words(s: &mut Scenario) -> String {
    let run = |sandbox: &zccache_integration_tests::Sandbox| sandbox.command("target/debug/app");
    s.compare(Expect::Counts { hits: 0, misses: 0 }, run, run).out()
}

#[test]
fn a_build_into_an_empty_directory_is_served_whole_and_cargo_is_content() {
    let mut s = workspace();
    // The C file as well.
    cargo(&mut s, misses(CRATES + 1), "build -q -j1");
    assert_eq!(words(&mut s), "1 2 one 42 script None\n1.2.3 app/src/main.rs\n");
    forget_results(&s);
    let warm = cargo(&mut s, hits(CRATES + 1), "build -q -j1");
    assert!(warm.err().contains("unused variable"), "warnings are shown again: {}", warm.err());
    words(&mut s);
    // All is fresh: nothing is asked of the compiler again.
    cargo(&mut s, counts(0, 0), "build -q -j1").expect_success();
}

#[test]
fn outputs_are_announced_in_order_whether_made_or_served() {
    let mut s = workspace();
    // Crates that wait for each other: among others, Cargo has no order.
    let message = "build -q -j1 -p middle --message-format=json";
    let cold = cargo(&mut s, misses(2), message).out();
    forget_results(&s);
    assert_eq!(cargo(&mut s, hits(2), message).out(), cold);
}

#[test]
fn every_profile_and_kind_of_build_is_served() {
    let has_clippy = sysroot().join("bin/clippy-driver").exists();
    assert!(has_clippy, "clippy is missing: rustup component add clippy");
    let mut s = workspace();
    let machine = Command::new("rustc").args(["--print", "host-tuple"]).output().unwrap().stdout;
    let machine = format!("build -q -j2 --target {}", String::from_utf8(machine).unwrap().trim());
    for line in ["check -q -j2", "clippy -q -j2", "build -q -j1 --release --all-targets", &machine] {
        let first = cargo(&mut s, Expect::Anything, line);
        assert!(first.success(), "{line}: {first:?}");
        let before = s.sandbox.stats().counters;
        forget_results(&s);
        cargo(&mut s, Expect::Anything, line);
        let delta = s.sandbox.stats().counters - before;
        assert!(delta.hits > CRATES - 2 && delta.misses == 0, "{line}: {delta:?}");
    }
    let tests = cargo_test(&mut s, Expect::Anything, "test -q -j1 -p middle --test outer");
    assert!(tests.success() && tests.out().contains("1 passed"), "{tests:?}");
}

#[test]
fn after_each_edit_the_build_is_what_it_would_be() {
    let mut s = workspace();
    cargo(&mut s, Expect::Anything, "build -q -j2").expect_success();
    let build = |s: &mut Scenario, expect: Expect, said: &str| {
        cargo(s, expect, "build -q -j1").expect_success();
        assert_eq!(words(s).lines().next(), Some(said));
    };
    s.write("middle/src/inner.rs", "pub const FACTOR: u32 = 3;\n");
    build(&mut s, misses(2), "1 3 one 42 script None");
    s.write("base/src/lib.rs", "pub fn size() -> u32 { 5 }\n");
    build(&mut s, misses(3), "5 15 one 42 script None");
    s.write("native/native.c", "int native_number(void) { return 3; }\n");
    build(&mut s, misses(3), "5 15 one 43 script None");
    // Back again: everything was there before, and what is in the way are files with two names.
    project::write(&s);
    build(&mut s, Expect::Anything, "1 2 one 42 script None");
}

#[test]
fn files_that_a_macro_opens_or_lists_without_telling_are_inputs() {
    let mut s = workspace();
    cargo(&mut s, Expect::Anything, "build -q -j2").expect_success();
    let touch = |s: &Scenario| s.write("app/src/main.rs", s.tree().file("app/src/main.rs").unwrap());
    for (file, text, said) in [
        ("app/names/one", "eins\n", "1 2 eins 42 script None"),
        ("app/names/two", "zwei\n", "1 2 eins\nzwei 42 script None"),
    ] {
        s.write(file, text);
        touch(&s); // Cargo cannot know.
        cargo(&mut s, misses(1), "build -q -j1").expect_success();
        assert!(words(&mut s).starts_with(said));
    }
    s.remove("app/names/two");
    s.write("app/names/one", "one\n");
    touch(&s);
    cargo(&mut s, hits(1), "build -q -j1").expect_success();
}

#[test]
fn variables_that_the_source_or_a_macro_asks_for_are_inputs() {
    let mut s = workspace();
    cargo(&mut s, Expect::Anything, "build -q -j2").expect_success();
    let with = |s: &mut Scenario, name: &'static str, value: &str, expect: Expect| {
        s.write("app/src/main.rs", s.tree().file("app/src/main.rs").unwrap());
        let vars = vec![(name, value.into())];
        Cargo { s, directory: "", vars }.step(expect, "build -q -j1").expect_success();
        words(s)
    };
    assert!(with(&mut s, "FLAVOUR", "sweet", misses(1)).contains("Some(\"sweet\")"));
    assert!(with(&mut s, "WHO", "ever", misses(1)).contains("oneever"));
    assert!(with(&mut s, "FLAVOUR", "sweet", hits(1)).contains("Some(\"sweet\")"));
    // A library without macros hangs on what it asked for alone.
    s.write(
        "base/src/lib.rs",
        "pub fn size() -> u32 { option_env!(\"SIZE\").map_or(1, |s| s.len() as u32) }\n",
    );
    let build = |s: &mut Scenario, vars: Vec<(&'static str, std::ffi::OsString)>, expect| {
        forget_results(s);
        Cargo { s, directory: "", vars }.step(expect, "build -q -j1 -p base").expect_success();
    };
    build(&mut s, vec![("SIZE", "12".into())], misses(1));
    build(&mut s, vec![("SIZE", "12".into()), ("OTHER", "x".into())], hits(1));
    build(&mut s, vec![("SIZE", "123".into())], misses(1));
    build(&mut s, vec![], misses(1));
    build(&mut s, vec![("SIZE", "123".into())], hits(1));
}

#[test]
fn failing_checks_are_served_with_their_errors() {
    let mut s = workspace();
    s.write("middle/src/inner.rs", "pub const FACTOR: u32 = \"two\";\n");
    let first = cargo(&mut s, Expect::Anything, "check -q -j1 -p middle");
    assert!(!first.success() && first.err().contains("E0308"), "{first:?}");
    forget_results(&s);
    cargo(&mut s, hits(2), "check -q -j1 -p middle");
    s.write("middle/src/inner.rs", "pub const FACTOR: u32 = 2;\n");
    cargo(&mut s, misses(1), "check -q -j1 -p middle").expect_success();
}

#[test]
fn incremental_compiles_pass_through_or_are_run_as_others() {
    let mut s = workspace();
    // What rustc keeps for itself is its own.
    let build = |s: &mut Scenario, vars: Vec<(&'static str, std::ffi::OsString)>| {
        let vars: Vec<_> = vars.into_iter().chain([("CARGO_INCREMENTAL", "1".into())]).collect();
        let before = s.sandbox.stats().counters;
        let mut command = s.sandbox.command("cargo");
        command.args(["build", "-q", "-p", "middle"]).current_dir(s.sandbox.path("cached"));
        command.env("RUSTC_WRAPPER", "zccache").envs(vars);
        zccache_integration_tests::sandbox::run(&mut command).expect_success();
        s.sandbox.stats().counters - before
    };
    let delta = build(&mut s, vec![]);
    assert_eq!((delta.hits, delta.misses), (0, 0));
    for expect in [(0, 2), (2, 0)] {
        forget_cached(&s);
        let delta = build(&mut s, vec![("ZCCACHE_RUST_INCREMENTAL", "strip".into())]);
        assert_eq!((delta.hits, delta.misses), expect);
    }
}

fn forget_cached(s: &Scenario) {
    std::fs::remove_dir_all(s.sandbox.path("cached/target")).unwrap();
}

#[test]
fn the_job_server_is_the_callers_own() {
    let mut s = workspace();
    s.write("Makefile", "all:\n\t+cargo build -q\n");
    let make = |sandbox: &zccache_integration_tests::Sandbox| {
        let mut command: Command = sandbox.command("make");
        command.args(["-s", "-j2"]).env("RUSTC_WRAPPER", "zccache");
        command
    };
    s.switched_off_and_on(misses(CRATES + 1), make).expect_success();
    forget_results(&s);
    s.switched_off_and_on(hits(CRATES + 1), make).expect_success();
}
