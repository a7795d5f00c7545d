//! Code and options of somebody's own that come into a compile without the command line's saying so. They may read any
//! environment variable, so every variable counts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use zccache_integration_tests::{Expect, Scenario};

/// Says what the variable is whenever it is loaded.
const LIBRARY: &str = "\
    #include <stdio.h>\n#include <stdlib.h>\n\
    __attribute__((constructor)) static void say(void) {\n\
    const char *value = getenv(\"OWN\");\n\
    fprintf(stderr, \"own: %s\\n\", value ? value : \"none\");\n}\n";

/// A project with one source, and `p.so` in it.
fn with_library() -> Scenario {
    let s = Scenario::new();
    s.write("a.c", "int a;\n");
    s.edit(|w| build(w, LIBRARY, &["-shared", "-fPIC"], "p.so"));
    s
}

fn build(work: &Path, text: &str, options: &[&str], to: &str) {
    fs::write(work.join("own.c"), text).unwrap();
    let mut compiler = Command::new("gcc");
    let status = compiler.args(options).args(["own.c", "-o", to]).current_dir(work).status();
    assert!(status.unwrap().success());
    fs::remove_file(work.join("own.c")).unwrap();
}

/// Each value of the variable has its own result, and its own only. Of its first run some are lost, since it is watched
/// in part.
fn each_value_counts(s: &mut Scenario, line: &str) {
    s.step(Expect::Run, line);
    for value in ["1", "2"] {
        s.sandbox.set("OWN", value);
        s.step(Expect::Miss, line);
        s.step(Expect::Hit, line);
    }
    s.sandbox.set("OWN", "1");
    s.step(Expect::Hit, line);
    s.sandbox.unset("OWN");
    s.step(Expect::Anything, line);
}

#[test]
fn what_is_loaded_by_a_variable_may_read_any_other() {
    for tool in ["gcc", "clang"] {
        let mut s = with_library();
        s.sandbox.set("LD_PRELOAD", s.sandbox.work().join("p.so"));
        each_value_counts(&mut s, &format!("{tool} -c a.c"));
    }
    let mut s = with_library();
    let mut edits = OsString::from("# +-fplugin=");
    edits.push(s.sandbox.work().join("p.so"));
    s.sandbox.set("CCC_OVERRIDE_OPTIONS", edits);
    each_value_counts(&mut s, "clang -c a.c");
}

#[test]
fn what_a_configuration_file_loads_may_read_any_variable() {
    let mut s = with_library();
    let plugin = format!("-fplugin={}\n", s.sandbox.work().join("p.so").display());
    s.write("own", &plugin);
    each_value_counts(&mut s, "clang --config ./own -c a.c");
    // One that is looked for unasked, by the compiler's name.
    s.write("bin/own-clang.cfg", &plugin);
    let clang = fs::canonicalize("/usr/bin/clang").unwrap();
    s.edit(|w| std::os::unix::fs::symlink(&clang, w.join("bin/own-clang")).unwrap());
    each_value_counts(&mut s, "bin/own-clang -no-canonical-prefixes -c a.c");
}

#[test]
fn specs_that_nobody_named_may_ask_for_any_variable() {
    let mut s = Scenario::new();
    s.write("a.c", "int a = OWN;\n");
    s.write("b/specs", "*cpp:\n+ -DOWN=%:getenv(OWN 7)\n");
    each_value_counts(&mut s, "gcc -Bb/ -c a.c");
    s.sandbox.set("LIBRARY_PATH", s.sandbox.work().join("b"));
    each_value_counts(&mut s, "gcc -c a.c");
}

/// A program that is called like one of the family's, and becomes that.
#[test]
fn a_program_that_starts_another_of_its_kind_may_read_any_variable() {
    let cc1 = Command::new("gcc").arg("-print-prog-name=cc1").output().unwrap().stdout;
    let cc1 = String::from_utf8(cc1).unwrap().trim().to_owned();
    let forks = "int s; if (!vfork()) { execv(REAL, argv); _exit(1); } wait(&s); return s ? 1 : 0;";
    for (name, real, start, line) in [
        ("gcc", "/usr/bin/gcc", "return execv(REAL, argv);", "own/gcc -B/usr/bin -c a.c"),
        ("clang", "/usr/bin/clang", forks, "own/clang -c a.c"),
        ("as", "/usr/bin/as", forks, "gcc -Bown -c a.c"),
        ("cc1", &cc1[..], "return execv(REAL, argv);", "gcc -Bown -c a.c"),
    ] {
        let mut s = Scenario::new();
        s.write("a.c", "int a;\n");
        s.edit(|w| {
            let text = format!(
                "{LIBRARY}#include <unistd.h>\n#include <sys/wait.h>\n\
                 int main(int argc, char **argv) {{ {} }}\n",
                start.replace("REAL", &format!("\"{real}\""))
            );
            fs::create_dir(w.join("own")).unwrap();
            build(w, &text, &["-w"], &format!("own/{name}"));
        });
        each_value_counts(&mut s, line);
    }
}

/// A script that stands in for the compiler and looks at more of a source than what it says.
#[test]
fn a_script_may_compare_the_times_of_files_that_are_read_as_well() {
    let mut s = Scenario::new();
    s.write_at("a.c", "int a = NEWER;\n", 1_000_000);
    s.write_at("stamp", "", 2_000_000);
    s.script("own/gcc", "newer=0; [ a.c -nt stamp ] && newer=1\nexec /usr/bin/gcc -DNEWER=$newer \"$@\"");
    let line = "own/gcc -c a.c";
    s.step(Expect::Miss, line);
    s.step(Expect::Hit, line);
    s.write_at("a.c", "int a = NEWER;\n", 3_000_000);
    s.step(Expect::Miss, line);
    s.write_at("stamp", "", 4_000_000);
    s.step(Expect::Miss, line);
    s.write_at("a.c", "int a = NEWER;\n", 5_000_000);
    s.step(Expect::Miss, line);
    s.step(Expect::Hit, line);
}
