//! Single crates, compiled by `rustc` itself.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use zccache_integration_tests::sandbox::run;
use zccache_integration_tests::{Expect, Sandbox, Scenario};

use super::{scenario, sysroot};

fn twice(s: &mut Scenario, line: &str) {
    assert!(s.step(Expect::Miss, line).success());
    s.step(Expect::Hit, line);
}

#[test]
fn crates_of_every_type_are_served() {
    let mut s = scenario();
    s.write("lib.rs", "pub fn f() -> u32 { 1 }\n#[no_mangle]\npub extern \"C\" fn g() -> u32 { f() }\n");
    s.write("main.rs", "fn main() { println!(\"hello\"); }\n");
    s.write(
        "mac.rs",
        "extern crate proc_macro;\n#[proc_macro]\npub fn m(t: proc_macro::TokenStream) -> proc_macro::TokenStream { t }\n",
    );
    for kind in ["lib", "rlib", "staticlib", "dylib", "cdylib"] {
        twice(&mut s, &format!("rustc --crate-type {kind} -o {kind}.out lib.rs"));
    }
    twice(&mut s, "rustc --edition 2021 --crate-type proc-macro mac.rs");
    twice(&mut s, "rustc --test lib.rs -o tests");
    twice(&mut s, "rustc -O main.rs");
    // Cargo gives outputs a second name; rustc replaces the first.
    s.edit(|work| std::fs::hard_link(work.join("main"), work.join("second")).unwrap());
    s.step(Expect::Hit, "rustc -O main.rs");
    s.write("main.rs", "fn main() { println!(\"goodbye\"); }\n");
    twice(&mut s, "rustc -O main.rs");
    s.write("main.rs", "fn main() { println!(\"hello\"); }\n");
    s.step(Expect::Hit, "rustc -O main.rs");
    s.edit(|work| std::fs::remove_file(work.join("main")).unwrap());
    s.step(Expect::Hit, "rustc -O main.rs");
    assert_eq!(
        s.compare(Expect::Anything, |b| b.command("./main"), |b| b.command("./main")).out(),
        "hello\n"
    );
}

#[test]
fn every_kind_of_output_is_served() {
    let mut s = scenario();
    s.write("a.rs", "pub fn f() -> u32 { let unused = 0; 1 }\n");
    for kind in ["asm", "llvm-ir", "llvm-bc", "mir", "obj", "metadata", "dep-info", "asm,obj,dep-info=x/y.d"]
    {
        s.edit(|work| std::fs::create_dir_all(work.join("x")).unwrap());
        twice(&mut s, &format!("rustc --crate-type lib -Cdebuginfo=1 --emit {kind} a.rs"));
    }
    twice(&mut s, "rustc --crate-type lib --emit=metadata --error-format=json --json=artifacts a.rs");
    twice(&mut s, "rustc --crate-type lib --emit=metadata --error-format=short a.rs");
    twice(&mut s, "rustc --crate-type lib --emit=metadata --color=always a.rs");
}

#[test]
fn a_failing_compile_is_served_until_it_succeeds() {
    let mut s = scenario();
    s.write("a.rs", "pub fn f() -> u32 { \"\" }\n");
    s.edit(|work| std::fs::create_dir(work.join("out")).unwrap());
    let line = "rustc --crate-name a --crate-type lib --emit=dep-info,metadata --out-dir out a.rs";
    assert_eq!(s.step(Expect::Miss, line).status, 1);
    s.step(Expect::Hit, line);
    s.write("a.rs", "pub fn f() -> u32 { 1 }\n");
    s.step(Expect::Miss, line);
    s.write("a.rs", "pub fn f() -> u32 { \"\" }\n");
    s.step(Expect::Anything, line);
    s.step(Expect::Hit, line);
}

#[test]
fn another_candidate_for_a_crate_in_a_search_directory_is_noticed() {
    let mut s = scenario();
    s.write("low.rs", "pub fn f() -> u32 { 1 }\n");
    s.write("mid.rs", "pub fn g() -> u32 { low::f() }\n");
    s.write("top.rs", "fn main() { println!(\"{}\", mid::g()); }\n");
    s.edit(|work| std::fs::create_dir(work.join("deps")).unwrap());
    s.step(Expect::Miss, "rustc --crate-type rlib --out-dir deps low.rs");
    s.step(
        Expect::Miss,
        "rustc --crate-type rlib --out-dir deps -L dependency=deps --extern low=deps/liblow.rlib mid.rs",
    );
    let top = "rustc -L dependency=deps --extern mid=deps/libmid.rlib top.rs";
    twice(&mut s, top);
    // What has nothing to do with the crates that were read may come and go.
    s.write("deps/libother-12.rlib", "");
    s.write("deps/low.d", "");
    s.step(Expect::Hit, top);
    // What may be `low` as well may not.
    s.write("deps/liblow-1.rlib", "no crate");
    s.step(Expect::Run, top);
    s.remove("deps/liblow-1.rlib");
    s.step(Expect::Hit, top);
    // Without a path, any library may be the one.
    let bare = "rustc -L deps --extern mid top.rs";
    twice(&mut s, bare);
    s.write("deps/libmid-2.rlib", "no crate");
    s.step(Expect::Run, bare);
}

#[test]
fn the_linker_and_what_it_reads_are_inputs() {
    let mut s = scenario();
    s.write("main.rs", "fn main() { println!(\"hello\"); }\n");
    s.script("linker", "exec cc \"$@\"");
    let line = format!("rustc -Clinker={} main.rs", s.sandbox.work().join("linker").display());
    twice(&mut s, &line);
    s.script("linker", "exec cc \"$@\" -s");
    s.step(Expect::Miss, &line);
    // A script may have looked at what was there before.
    s.step(Expect::Anything, &line);
    s.step(Expect::Hit, &line);
    s.write("more", "-Wl,--no-gc-sections\n");
    let line = "rustc -Clink-arg=@more main.rs -o other";
    twice(&mut s, line);
    s.write("more", "-s\n");
    twice(&mut s, line);
}

#[test]
fn a_macro_that_asks_for_the_time_is_not_trusted() {
    let mut s = scenario();
    s.write(
        "mac.rs",
        "extern crate proc_macro;\nuse std::time::SystemTime;\n#[proc_macro]\npub fn m(_: proc_macro::TokenStream) -> proc_macro::TokenStream {\n\
         let known = SystemTime::now() > SystemTime::UNIX_EPOCH; format!(\"{known}\").parse().unwrap() }\n",
    );
    s.write("a.rs", "pub fn f() -> bool { mac::m!() }\n");
    twice(&mut s, "rustc --edition 2021 --crate-type proc-macro mac.rs");
    for _ in 0..2 {
        s.step(Expect::NotStored, "rustc --crate-type lib --edition 2021 --extern mac=libmac.so a.rs");
    }
}

/// What a macro or a stand-in for the linker starts may tell the time as well.
#[test]
fn programs_that_take_part_and_tell_the_time_are_not_trusted() {
    let mut s = scenario();
    let told = "let told = std::process::Command::new(\"bash\").args([\"-c\", \"echo -n $EPOCHSECONDS\"]).output().unwrap(); \
         assert!(!told.stdout.is_empty()); ";
    s.write(
        "mac.rs",
        format!(
            "extern crate proc_macro;\n#[proc_macro]\npub fn m(_: proc_macro::TokenStream) -> proc_macro::TokenStream {{\n\
             {told}\"1\".parse().unwrap() }}\n"
        ),
    );
    s.write("a.rs", "pub fn f() -> u32 { mac::m!() }\n");
    twice(&mut s, "rustc --edition 2021 --crate-type proc-macro mac.rs");
    for _ in 0..2 {
        s.step(Expect::NotStored, "rustc --crate-type lib --edition 2021 --extern mac=libmac.so a.rs");
    }
    s.write("main.rs", "fn main() {}\n");
    s.edit(|work| {
        let script = "#!/bin/bash\nexec cc \"$@\" -Wl,--defsym,at_$EPOCHSECONDS=1\n";
        std::fs::write(work.join("linker"), script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(work.join("linker"), mode).unwrap();
    });
    s.unlike("main");
    let line = format!("rustc -Clinker={} main.rs", s.sandbox.work().join("linker").display());
    for _ in 0..2 {
        s.step(Expect::NotStored, &line);
    }
}

/// Nobody asks the compiler for its version, for the names of its outputs or for what it depends on.
#[test]
fn the_compiler_is_asked_nothing_but_to_compile() {
    let mut s = scenario();
    let asked = s.sandbox.path("asked");
    let program = format!(
        "#include <stdio.h>\n#include <string.h>\n#include <unistd.h>\nint main(int n, char **v) {{\n\
         for (int i = 1; i < n; i++) if (!strcmp(v[i], \"a.rs\")) {{ fputs(\"asked\\n\", stderr); execv(\"{}\", v); }}\n\
         FILE *f = fopen(\"{}\", \"a\"); fputs(n > 1 ? v[1] : \"nothing\", f); fclose(f); return 9; }}\n",
        sysroot().join("bin/rustc").display(),
        asked.display()
    );
    let source = s.sandbox.path("rustc.c");
    std::fs::write(&source, program).unwrap();
    s.edit(|work| {
        std::fs::create_dir(work.join("bin")).unwrap();
        let mut gcc = std::process::Command::new("gcc");
        run(gcc.arg(&source).arg("-o").arg(work.join("bin/rustc"))).expect_success();
    });
    let path = s.sandbox.var("PATH").into_string().unwrap();
    s.sandbox.set("PATH", format!("{}:{path}", s.sandbox.work().join("bin").display()));
    s.write("a.rs", "pub fn f() -> u32 { 1 }\n");
    let line = "rustc --crate-name a --crate-type lib --emit=dep-info,metadata,link a.rs";
    twice(&mut s, line);
    s.write("a.rs", "pub fn f() -> u32 { 2 }\n");
    let made = s.step(Expect::Miss, line);
    assert_eq!(made.err(), "asked\n");
    assert!(!asked.exists(), "{:?}", std::fs::read_to_string(&asked));
}

/// Cargo starts what depends on a crate as soon as its metadata is there.
#[test]
fn metadata_is_announced_while_the_crate_is_still_being_made() {
    let mut sandbox = Sandbox::new();
    let path = sandbox.var("PATH").into_string().unwrap();
    sandbox.set("PATH", format!("{}:{path}", sysroot().join("bin").display()));
    sandbox.start();
    sandbox.write("a.rs", "#[no_mangle] pub extern \"C\" fn f() -> u32 { 1 }\n");
    // Waits for us, for a while.
    let wait = "n=0; until [ -e go ]; do n=$((n + 1)); [ $n -lt 300 ] || exit 9; sleep 0.1; done";
    let linker = sandbox.write("linker", format!("#!/bin/sh\n{wait}\nexec cc \"$@\"\n"));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&linker, mode).unwrap();
    let line = "rustc --crate-type cdylib --emit=metadata,link --error-format=json --json=artifacts -Clinker=./linker a.rs";
    let mut child = sandbox.wrapper(line.split(' ')).stderr(Stdio::piped()).spawn().unwrap();
    let mut announced = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(announced.next().unwrap().contains("\"emit\":\"metadata\""));
    assert!(!sandbox.work().join("liba.so").exists());
    sandbox.write("go", "");
    assert!(announced.next().unwrap().contains("\"emit\":\"link\""));
    assert!(zccache_integration_tests::wait::for_exit(&mut child, line).success());
}

#[test]
fn questions_and_odd_commands_pass_through() {
    let mut s = scenario();
    s.write("a.rs", "pub fn f() {}\n");
    for line in [
        "rustc -vV",
        "rustc --print cfg",
        "rustc",
        "rustc --crate-type lib a.rs b.rs",
        "rustc --frobnicate a.rs",
    ] {
        s.step(Expect::PassThrough, line);
    }
    s.step(Expect::PassThrough, "rustdoc --version");
    s.write("args", "--crate-type\nlib\na.rs\n");
    twice(&mut s, "rustc @args");
    s.write("args", "--crate-type\nlib\n-O\na.rs\n");
    s.step(Expect::Miss, "rustc @args");
}

#[test]
fn the_search_for_a_target_and_for_modules_is_observed() {
    let mut s = scenario();
    s.write("a.rs", "mod m;\npub fn f() -> &'static str { m::NAME }\n");
    s.write("m.rs", "pub const NAME: &str = include_str!(\"name.txt\");\n");
    s.write("name.txt", "one");
    let line = "rustc --crate-type lib a.rs";
    twice(&mut s, line);
    s.rewrite("name.txt", "two");
    s.step(Expect::Miss, line);
    s.rewrite("name.txt", "one");
    s.step(Expect::Hit, line);
    // Two files for one module are an error.
    s.edit(|work| std::fs::create_dir(work.join("m")).unwrap());
    s.write("m/mod.rs", "");
    assert!(!s.step(Expect::Miss, line).success());
}
