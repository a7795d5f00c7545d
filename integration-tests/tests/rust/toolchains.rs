//! Which compiler a `rustc` on `PATH` is: rustup's stand-in, or a script, chooses by options, variables, files and settings, and
//! the result is always that of the one it would choose now.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use zccache_integration_tests::{Expect, Outcome, Sandbox, Scenario};

use super::{Cargo, hits, misses, scenario, sysroot};

/// A program that says by which toolchain it was compiled.
const WHICH: &str = "fn main() { println!(\"{}\", if cfg!(second) { \"second\" } else if cfg!(third) { \"third\" } else { \"first\" }); }\n";

/// rustup's own program, wherever its stand-ins lead.
fn rustup() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join("rustup")).find(|file| file.exists());
    found.expect("this test needs rustup").canonicalize().unwrap()
}

/// A toolchain whose compiler is the one that runs these tests, told its own name.
fn make_toolchain(place: &Path, name: &str) {
    std::fs::create_dir_all(place.join("bin")).unwrap();
    let compiler = sysroot().join("bin/rustc");
    let source = place.join("rustc.c");
    let text = format!(
        "#include <stdlib.h>\n#include <unistd.h>\nint main(int n, char **v) {{ char **w = calloc(n + 3, sizeof *w); int i;\n\
         for (i = 1; i < n; i++) w[i] = v[i];\nw[0] = \"{}\"; w[n] = \"--cfg\"; w[n + 1] = \"{name}\";\nexecv(w[0], w); return 127; }}\n",
        compiler.display()
    );
    std::fs::write(&source, text).unwrap();
    // Beside, then moved there: the old one may be running.
    let made = Command::new("cc").arg(&source).arg("-o").arg(place.join("made")).status().unwrap();
    assert!(made.success());
    std::fs::rename(place.join("made"), place.join("bin/rustc")).unwrap();
    for other in ["lib", "bin/cargo"] {
        let _ = symlink(sysroot().join(other), place.join(other));
    }
}

/// A sandbox with rustup and two toolchains, `first` by default.
fn with_rustup() -> Scenario {
    let mut s = scenario();
    let (home, program) = (s.sandbox.path("home"), rustup());
    std::fs::create_dir_all(home.join(".cargo/bin")).unwrap();
    for name in ["rustup", "rustc", "cargo", "rustdoc", "clippy-driver", "cargo-clippy"] {
        symlink(&program, home.join(".cargo/bin").join(name)).unwrap();
    }
    let toolchains = home.join(".rustup/toolchains");
    std::fs::create_dir_all(&toolchains).unwrap();
    std::fs::write(home.join(".rustup/settings.toml"), "version = \"12\"\ndefault_toolchain = \"first\"\n")
        .unwrap();
    symlink(sysroot(), toolchains.join("first")).unwrap();
    make_toolchain(&toolchains.join("second"), "second");
    let path = s.sandbox.var("PATH").into_string().unwrap();
    let (_, path) = path.split_once(':').unwrap();
    s.sandbox.set("PATH", format!("{}:{path}", home.join(".cargo/bin").display()));
    s.write("p/deep/main.rs", WHICH);
    s
}

/// Compiles the program in `p/deep`, which must be by the toolchain `which`.
#[track_caller]
fn compile(s: &mut Scenario, expect: Expect, line: &str, which: &str) -> Outcome {
    let words: Vec<&str> = line.split(' ').collect();
    let said = s.step_in("p/deep", expect, &words).expect_success();
    let run = |sandbox: &Sandbox| sandbox.command(sandbox.work().join("p/deep/main"));
    let program = s.compare(Expect::Anything, run, run).out();
    assert_eq!(program.trim(), which, "{line}");
    said
}

/// A file that chooses a toolchain.
fn choose(s: &Scenario, file: &str, toolchain: &str) {
    s.write(file, format!("[toolchain]\nchannel = \"{toolchain}\"\n"));
}

#[test]
fn rustups_choice_is_followed_from_file_to_file() {
    let mut s = with_rustup();
    let line = "rustc main.rs";
    compile(&mut s, Expect::Miss, line, "first");
    compile(&mut s, Expect::Hit, line, "first");
    // A file that appears, nearer and nearer, and goes again.
    choose(&s, "rust-toolchain.toml", "second");
    compile(&mut s, Expect::Miss, line, "second");
    compile(&mut s, Expect::Hit, line, "second");
    choose(&s, "p/rust-toolchain.toml", "first");
    compile(&mut s, Expect::Miss, line, "first");
    s.write("p/deep/rust-toolchain", "second\n");
    compile(&mut s, Expect::Miss, line, "second");
    s.remove("p/deep/rust-toolchain");
    compile(&mut s, Expect::Hit, line, "first");
    s.remove("p/rust-toolchain.toml");
    compile(&mut s, Expect::Hit, line, "second");
    choose(&s, "rust-toolchain.toml", "first");
    compile(&mut s, Expect::Miss, line, "first");
    s.remove("rust-toolchain.toml");
    compile(&mut s, Expect::Hit, line, "first");
}

#[test]
fn rustups_choice_by_option_variable_and_settings_is_followed() {
    let mut s = with_rustup();
    compile(&mut s, Expect::Miss, "rustc main.rs", "first");
    compile(&mut s, Expect::Miss, "rustc +second main.rs", "second");
    compile(&mut s, Expect::Hit, "rustc +second main.rs", "second");
    compile(&mut s, Expect::Hit, "rustc main.rs", "first");
    s.sandbox.set("RUSTUP_TOOLCHAIN", "second");
    compile(&mut s, Expect::Miss, "rustc main.rs", "second");
    compile(&mut s, Expect::Hit, "rustc main.rs", "second");
    s.sandbox.unset("RUSTUP_TOOLCHAIN");
    compile(&mut s, Expect::Hit, "rustc main.rs", "first");
    let rustup = |s: &Scenario, line: &str| {
        let mut command = s.sandbox.command("rustup");
        command.args(line.split(' ')).current_dir(s.sandbox.path("home"));
        zccache_integration_tests::sandbox::run(&mut command).expect_success();
    };
    rustup(&s, "default second");
    compile(&mut s, Expect::Miss, "rustc main.rs", "second");
    let directory = s.sandbox.work().join("p");
    rustup(&s, &format!("override set first --path {}", directory.display()));
    compile(&mut s, Expect::Miss, "rustc main.rs", "first");
    rustup(&s, &format!("override unset --path {}", directory.display()));
    rustup(&s, "default first");
    compile(&mut s, Expect::Anything, "rustc main.rs", "first");
}

#[test]
fn a_toolchain_that_is_replaced_under_its_name_is_another() {
    let mut s = with_rustup();
    let toolchains = s.sandbox.path("home/.rustup/toolchains");
    let line = "rustc +second main.rs";
    compile(&mut s, Expect::Miss, line, "second");
    // An update in place, then another directory by the same name.
    make_toolchain(&toolchains.join("second"), "third");
    compile(&mut s, Expect::Miss, line, "third");
    std::fs::rename(toolchains.join("second"), s.sandbox.path("kept")).unwrap();
    symlink(sysroot(), toolchains.join("second")).unwrap();
    compile(&mut s, Expect::Miss, line, "first");
    std::fs::remove_file(toolchains.join("second")).unwrap();
    std::fs::rename(s.sandbox.path("kept"), toolchains.join("second")).unwrap();
    compile(&mut s, Expect::Hit, line, "third");
    // One that is gone is an error, as without us.
    std::fs::rename(toolchains.join("second"), s.sandbox.path("kept")).unwrap();
    let words: Vec<&str> = line.split(' ').collect();
    assert!(!s.step_in("p/deep", Expect::Anything, &words).success());
}

#[test]
fn cargo_by_rustup_builds_with_the_toolchain_of_its_directory() {
    let mut s = with_rustup();
    s.write("p/Cargo.toml", "[package]\nname = \"which\"\nversion = \"0.1.0\"\nedition = \"2021\"\n");
    s.write("p/src/main.rs", WHICH);
    let build = |s: &mut Scenario, expect: Expect, line: &str, which: &str| {
        Cargo { s, directory: "p", vars: vec![] }.step(expect, line).expect_success();
        let run = |sandbox: &Sandbox| sandbox.command(sandbox.work().join("p/target/debug/which"));
        assert_eq!(s.compare(Expect::Anything, run, run).out().trim(), which, "{line}");
    };
    let forget = |s: &Scenario| s.edit(|work| std::fs::remove_dir_all(work.join("p/target")).unwrap());
    build(&mut s, misses(1), "build -q", "first");
    choose(&s, "p/rust-toolchain.toml", "second");
    // Cargo goes by what the compiler says of itself, which is the same here.
    forget(&s);
    build(&mut s, misses(1), "build -q", "second");
    forget(&s);
    build(&mut s, hits(1), "build -q", "second");
    forget(&s);
    // rustup tells how it came to its choice as well.
    build(&mut s, Expect::Anything, "+first build -q", "first");
    s.remove("p/rust-toolchain.toml");
    forget(&s);
    build(&mut s, hits(1), "build -q", "first");
    Cargo { s: &mut s, directory: "p", vars: vec![] }.step(misses(1), "clippy -q").expect_success();
    forget(&s);
    Cargo { s: &mut s, directory: "p", vars: vec![] }.step(hits(1), "clippy -q").expect_success();
}

#[test]
fn a_script_that_stands_in_for_rustc_is_followed() {
    let mut s = with_rustup();
    let toolchains = s.sandbox.path("home/.rustup/toolchains");
    let script = format!(
        "dir=$PWD which=${{CHOSEN:-first}}\n\
         while [ -n \"$dir\" ]; do\n  if [ -f \"$dir/toolchain\" ]; then read -r which <\"$dir/toolchain\"; break; fi\n  dir=${{dir%/*}}\ndone\n\
         exec {}/$which/bin/rustc \"$@\"",
        toolchains.display()
    );
    s.script("bin/rustc", &script);
    let path = s.sandbox.var("PATH").into_string().unwrap();
    s.sandbox.set("PATH", format!("{}:{path}", s.sandbox.work().join("bin").display()));
    let line = "rustc main.rs";
    compile(&mut s, Expect::Miss, line, "first");
    s.write("toolchain", "second\n");
    compile(&mut s, Expect::Miss, line, "second");
    s.write("p/toolchain", "first\n");
    compile(&mut s, Expect::Miss, line, "first");
    s.remove("p/toolchain");
    compile(&mut s, Expect::Hit, line, "second");
    s.remove("toolchain");
    s.sandbox.set("CHOSEN", "second");
    compile(&mut s, Expect::Miss, line, "second");
    s.sandbox.unset("CHOSEN");
    compile(&mut s, Expect::Hit, line, "first");
    // A shell asks for its number, and here may tell it.
    s.script("bin/rustc", &format!("{script} # $$"));
    compile(&mut s, Expect::NotStored, line, "first");
}
