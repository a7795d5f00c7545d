//! What goes with compiling: clippy with its configuration, rustdoc with its examples, and links named like the tools.

use std::os::unix::fs::symlink;

use zccache_integration_tests::{Expect, Sandbox, Scenario};

use super::{Cargo, cargo, cargo_test, hits, misses, scenario};

/// A library with an example in its documentation, a function with many parameters, and a `return` that is not needed.
fn library() -> Scenario {
    let s = scenario();
    s.write("Cargo.toml", "[package]\nname = \"library\"\nversion = \"0.1.0\"\nedition = \"2021\"\n");
    s.write(
        "src/lib.rs",
        "//! A library.\n\n/// Adds.\n///\n/// ```\n/// assert_eq!(library::add(1, 2, 3), 6);\n/// ```\n\
         pub fn add(a: u32, b: u32, c: u32) -> u32 {\n    return a + b + c;\n}\n",
    );
    s
}

#[test]
fn lints_and_their_configuration_are_inputs() {
    let mut s = library();
    let forget = |s: &Scenario| s.edit(|work| drop(std::fs::remove_dir_all(work.join("target"))));
    let lint = |s: &mut Scenario, expect: Expect, line: &str| {
        forget(s);
        cargo(s, expect, line)
    };
    let plain = lint(&mut s, misses(1), "clippy -q");
    assert!(plain.success() && plain.err().contains("needless_return"), "{plain:?}");
    lint(&mut s, hits(1), "clippy -q");
    // Lints by the command line are in a variable.
    let denied = lint(&mut s, misses(1), "clippy -q -- -D clippy::needless_return");
    assert!(!denied.success(), "{denied:?}");
    lint(&mut s, hits(1), "clippy -q -- -D clippy::needless_return");
    // A configuration that appears, changes and goes.
    s.write("clippy.toml", "too-many-arguments-threshold = 2\n");
    assert!(lint(&mut s, misses(1), "clippy -q").err().contains("too_many_arguments"));
    lint(&mut s, hits(1), "clippy -q");
    s.rewrite("clippy.toml", "too-many-arguments-threshold = 9\n");
    assert!(!lint(&mut s, misses(1), "clippy -q").err().contains("too_many_arguments"));
    s.write(".clippy.toml", "too-many-arguments-threshold = 1\n");
    assert!(lint(&mut s, misses(1), "clippy -q").err().contains("too_many_arguments"));
    s.remove(".clippy.toml");
    s.remove("clippy.toml");
    assert_eq!(lint(&mut s, hits(1), "clippy -q"), plain);
    // Fixes: clippy is told to suggest, Cargo writes them.
    lint(&mut s, Expect::Anything, "clippy -q --fix --allow-no-vcs").expect_success();
    assert!(!String::from_utf8_lossy(s.tree().file("src/lib.rs").unwrap()).contains("return"));
    lint(&mut s, misses(1), "clippy -q").expect_success();
}

#[test]
fn documentation_is_made_by_rustdoc_itself() {
    let mut s = library();
    s.step(Expect::PassThrough, "rustdoc --crate-name library --edition 2021 src/lib.rs").expect_success();
    assert!(s.tree().file("doc/library/fn.add.html").is_some());
    assert!(!s.step(Expect::PassThrough, "rustdoc --no-such-option src/lib.rs").success());
    s.step(Expect::PassThrough, "rustdoc --output-format json -Zunstable-options src/lib.rs");
    cargo(&mut s, Expect::Anything, "doc -q").expect_success();
    assert!(s.tree().file("target/doc/library/fn.add.html").is_some());
    // Examples: rustdoc compiles and runs them, and says how long that took.
    let run = |s: &mut Scenario, expect| cargo_test(s, expect, "test -q --doc");
    assert!(run(&mut s, misses(1)).expect_success().out().contains("1 passed"));
    s.write("src/lib.rs", "/// ```\n/// assert!(library::is());\n/// ```\npub fn is() -> bool { false }\n");
    let failed = run(&mut s, misses(1));
    assert!(!failed.success() && failed.out().contains("1 failed"), "{failed:?}");
}

#[test]
fn links_named_like_the_tools_are_the_tools() {
    let mut s = library();
    s.write("src/main.rs", "fn main() { println!(\"{}\", library::add(1, 2, 3)); }\n");
    let bin = s.sandbox.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let path = s.sandbox.var("PATH").into_string().unwrap();
    let wrapper = std::env::split_paths(&path).map(|dir| dir.join("zccache")).find(|file| file.exists());
    for name in ["rustc", "rustdoc", "clippy-driver"] {
        symlink(wrapper.as_ref().unwrap(), bin.join(name)).unwrap();
    }
    s.sandbox.set("PATH", format!("{}:{path}", bin.display()));
    let step = |s: &mut Scenario, expect, line: &str| {
        let command = |sandbox: &Sandbox| {
            let mut command = sandbox.command("cargo");
            command.args(line.split(' ')).env("RUSTC", "rustc").env("RUSTDOC", "rustdoc");
            command
        };
        s.switched_off_and_on(expect, command)
    };
    step(&mut s, misses(2), "build -q -j1").expect_success();
    s.edit(|work| std::fs::remove_dir_all(work.join("target")).unwrap());
    step(&mut s, hits(2), "build -q -j1").expect_success();
    step(&mut s, Expect::Anything, "doc -q").expect_success();
    // The same results as by Cargo's own variable.
    s.edit(|work| std::fs::remove_dir_all(work.join("target")).unwrap());
    s.sandbox.set("PATH", &path);
    Cargo { s: &mut s, directory: "", vars: vec![] }.step(Expect::Anything, "build -q -j1").expect_success();
}

#[test]
fn a_wrapper_may_be_for_the_workspace_alone_or_be_named_twice() {
    let mut s = library();
    s.write("src/main.rs", "fn main() { println!(\"{}\", library::add(1, 2, 3)); }\n");
    for (all, workspace) in [(None, Some("zccache")), (Some("zccache"), Some("zccache"))] {
        for expect in [misses(2), hits(2)] {
            s.edit(|work| drop(std::fs::remove_dir_all(work.join("target"))));
            let command = |sandbox: &Sandbox| {
                let mut command = sandbox.command("cargo");
                command.args(["build", "-q", "-j1"]);
                command.envs(all.map(|wrapper| ("RUSTC_WRAPPER", wrapper)));
                command.envs(workspace.map(|wrapper| ("RUSTC_WORKSPACE_WRAPPER", wrapper)));
                command
            };
            s.switched_off_and_on(expect, command).expect_success();
        }
    }
}
