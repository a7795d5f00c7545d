//! The table of environment variables against what the compilers ask for: a library loaded into them notes every
//! name they look up.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use zccache_proto::ByteStrings;
use zccache_service::c_family::environment;
use zccache_service::c_family::names::Compiler;

/// How both compilers are told to compile for this processor: clang for Arm takes it so alone.
const NATIVE: &str = if cfg!(target_arch = "aarch64") { "-mcpu=native" } else { "-march=native" };

/// Stands before libc's functions of the same names. `LOG` is the path of the list of names.
const SPY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
static void note(const char *name) {
    char line[256];
    size_t length = strlen(name);
    if (length > sizeof line - 1) length = sizeof line - 1;
    memcpy(line, name, length);
    line[length] = '\n';
    int file = open(LOG, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || write(file, line, length + 1) < 0) _exit(99);
    close(file);
}
static char *ask(const char *function, const char *name) {
    note(name);
    return ((char *(*)(const char *))dlsym(RTLD_NEXT, function))(name);
}
char *getenv(const char *name) { return ask("getenv", name); }
char *secure_getenv(const char *name) { return ask("secure_getenv", name); }
"#;

/// LLVM's headers keep code from being dropped by a branch on this variable, which no program sets.
const LLVM_LINK_TRICK: &str = "bar";

#[test]
fn every_variable_that_gcc_asks_for_is_in_the_table() {
    check(Compiler::Gcc, "gcc", "g++");
}

#[test]
fn every_variable_that_clang_asks_for_is_in_the_table() {
    check(Compiler::Clang, "clang", "clang++");
}

fn check(compiler: Compiler, cc: &str, cxx: &str) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("good.c"), "const char *date = __DATE__;\n").unwrap();
    std::fs::write(dir.join("bad.c"), "int x = y;\n").unwrap();
    std::fs::write(dir.join("good.cpp"), "#include <string>\nstd::string s;\n").unwrap();
    std::fs::write(dir.join("good.S"), "#define N n\nN:\n").unwrap();
    let log = dir.join("names");
    build_spy(dir, &log);
    for (tool, arguments) in [
        (cc, &["-c", "good.c"][..]),
        (cc, &["-c", "bad.c"]),
        (cc, &["-c", "-v", "good.S"]),
        (cc, &["-S", "-O2", NATIVE, "good.c"]),
        (cc, &["-E", "good.c", "-o", "good.i"]),
        (cxx, &["-c", "-g", "-gsplit-dwarf", "-MD", "good.cpp"]),
        (cxx, &["-c", "-save-temps", "-flto", "--coverage", "-fdiagnostics-color=auto", "good.cpp"]),
    ] {
        let status = Command::new(tool)
            .args(arguments)
            .current_dir(dir)
            .env("LD_PRELOAD", dir.join("spy.so"))
            .output()
            .unwrap_or_else(|e| panic!("{tool} is needed by this test: {e}"))
            .status;
        assert_eq!(status.success(), !arguments.contains(&"bad.c"), "{tool} {arguments:?}");
    }
    let names = std::fs::read_to_string(&log).unwrap();
    let names: BTreeSet<&str> = names.lines().filter(|name| *name != LLVM_LINK_TRICK).collect();
    assert!(names.contains("PATH") && names.contains("CPATH"), "the spy was not loaded: {names:?}");
    let unknown: Vec<_> = names.iter().filter(|name| !is_accounted_for(name, compiler)).collect();
    assert!(unknown.is_empty(), "{cc} asks for {unknown:?}");
}

/// Enters the key, forbids caching, or is known not to matter.
fn is_accounted_for(name: &str, compiler: Compiler) -> bool {
    let set: ByteStrings = [format!("{name}=1")].iter().collect();
    environment::enters_key(name.as_bytes(), compiler)
        || environment::is_ignorable(name.as_bytes())
        || environment::refusal(&set, compiler).is_some()
}

fn build_spy(dir: &Path, log: &Path) {
    std::fs::write(dir.join("spy.c"), SPY).unwrap();
    let define = format!("-DLOG=\"{}\"", log.display());
    let built = Command::new("gcc")
        .args(["-w", "-shared", "-fPIC", &define, "spy.c", "-o", "spy.so", "-ldl"])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}
