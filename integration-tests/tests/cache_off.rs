//! That the scenarios can fail: with the cache off, each assertion of a hit must go red.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use zccache_integration_tests::{Expect, Sandbox, Scenario};

#[test]
fn a_hit_assertion_fails_with_the_cache_off() {
    let mut s = Scenario::with_the_cache_off();
    s.write("a.c", "int f(void) { return 1; }\n");
    for expect in [Expect::Hit, Expect::Miss, Expect::PassThrough] {
        let step = catch_unwind(AssertUnwindSafe(|| s.step(expect, "gcc -c a.c")));
        let message = step.expect_err("an assertion about the cache holds although there is none");
        let message = message.downcast_ref::<String>().expect("an assertion has a message");
        assert!(message.contains("the counters moved by"), "it failed for another reason: {message}");
    }
}

#[test]
fn a_difference_in_any_result_fails_a_step() {
    let commands =
        [("touch a", "touch b"), ("echo a", "echo b"), ("true", "false"), ("echo a", "sh -c 'echo a >&2'")];
    for (bare, cached) in commands {
        let mut s = Scenario::with_the_cache_off();
        let shell = |line: &'static str| {
            move |sandbox: &Sandbox| {
                let mut command = sandbox.command("sh");
                command.args(["-c", line]);
                command
            }
        };
        let step = catch_unwind(AssertUnwindSafe(|| s.compare(Expect::Anything, shell(bare), shell(cached))));
        assert!(step.is_err(), "`{bare}` and `{cached}` passed for the same");
    }
}

/// Runs the whole of `hits` with the cache off. Whatever asserts a hit there must fail.
#[test]
fn every_scenario_that_asserts_a_hit_fails_with_the_cache_off() {
    let this = std::env::current_exe().unwrap();
    let mut tests: Vec<_> = std::fs::read_dir(this.parent().unwrap())
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension().is_none()
                && path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("hits-"))
        })
        .collect();
    // Older builds may lie beside it: the youngest is the one built with this test.
    tests.sort_by_key(|path| path.metadata().and_then(|m| m.modified()).ok());
    let hits = tests.pop().expect("the scenarios of hits.rs are built beside this test");
    let source = include_str!("hits.rs");
    let output = Command::new(hits).env("ZCCACHE_TEST_CACHE_OFF", "1").output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let mut asserting = 0;
    for function in source.split("#[test]\nfn ").skip(1) {
        let name = function.split('(').next().unwrap_or_default();
        let body = function.split("\n}\n").next().unwrap_or_default();
        if body.contains("Expect::Hit") || body.contains("hits: 1") {
            asserting += 1;
            assert!(
                printed.contains(&format!("test {name} ... FAILED")),
                "{name} passes without a cache\n{printed}"
            );
        }
    }
    assert!(asserting > 10, "only {asserting} scenarios assert a hit");
}
