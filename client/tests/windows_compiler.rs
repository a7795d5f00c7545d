//! Compiles on Windows (or Wine) by a real compiler, from miss to hit: whatever the wrapper leaves and says is compared
//! with what the compiler does alone. `ZCCACHE_TEST_CLANG` names the compiler's directory (`check-windows.sh compiler`).

#![cfg(windows)]
#![allow(unused_crate_dependencies)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

/// How long files must lie before they are trusted, with something to spare.
const SETTLED: Duration = Duration::from_millis(60);

/// How often a compile is repeated that Wine made no process for (see `windows.rs`).
const TRIES_MAX: usize = 3;

/// A project, a compiler, a service.
struct Place {
    temp: tempfile::TempDir,
    bin: PathBuf,
}

/// How often what happened.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Counted {
    hits: u64,
    misses: u64,
    passed_through: u64,
}

const HIT: Counted = Counted { hits: 1, misses: 0, passed_through: 0 };
const MISS: Counted = Counted { hits: 0, misses: 1, passed_through: 0 };
const PASS: Counted = Counted { hits: 0, misses: 0, passed_through: 1 };

impl Place {
    fn new() -> Self {
        let clang = std::env::var_os("ZCCACHE_TEST_CLANG").expect("ZCCACHE_TEST_CLANG names a compiler");
        let place = Self { temp: tempfile::tempdir().unwrap(), bin: Path::new(&clang).join("bin") };
        for directory in ["src/one", "src/two", "src/sub dir", "cache"] {
            fs::create_dir_all(place.temp.path().join(directory)).unwrap();
        }
        let started = place.client(&["start"]);
        assert!(started.status.success(), "{started:?}");
        place
    }

    fn source(&self, name: &str) -> PathBuf {
        self.temp.path().join("src").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.source(name), text).unwrap();
        std::thread::sleep(SETTLED);
    }

    fn environment(&self, command: &mut Command) {
        command.env("ZCCACHE_RUNTIME_DIR", self.temp.path().join("run"));
        command.env("LOCALAPPDATA", self.temp.path().join("local"));
        command.env("ZCCACHE_DIR", self.temp.path().join("cache")).env("ZCCACHE_NO_SPAWN", "1");
        let path = std::env::var_os("PATH").unwrap();
        let path =
            std::env::join_paths([self.bin.clone()].into_iter().chain(std::env::split_paths(&path))).unwrap();
        // The last is of the machine that Wine runs on.
        command
            .env("PATH", path)
            .env_remove("ZCCACHE_DISABLE")
            .env_remove("LD_LIBRARY_PATH")
            .env_remove("ZCCACHE_CONFIG");
    }

    fn client(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program("zccache-client"));
        self.environment(&mut command);
        command.args(arguments).output().unwrap()
    }

    fn counted(&self) -> Counted {
        let output = self.client(&["stats", "--json"]);
        let stats: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let count = |name: &str| stats[name].as_u64().unwrap_or_else(|| panic!("no {name} in {stats}"));
        Counted { hits: count("hits"), misses: count("misses"), passed_through: count("passed_through") }
    }

    fn run(&self, program: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        self.environment(&mut command);
        command.args(arguments).current_dir(self.source(""));
        let mut tries = (0..TRIES_MAX).map(|_| command.output());
        tries.find_map(Result::ok).expect("Wine can make a process")
    }

    /// Compiles bare and through the wrapper, in this order, and compares what is left and said. Returns what was counted.
    #[track_caller]
    fn compile(&self, arguments: &[&str], outputs: &[&str]) -> Counted {
        let take = || {
            outputs
                .iter()
                .map(|name| {
                    let content = fs::read(self.source(name)).ok();
                    _ = fs::remove_file(self.source(name));
                    content
                })
                .collect::<Vec<_>>()
        };
        let bare = self.run(&self.bin.join("clang"), arguments);
        let left_bare = take();
        let before = self.counted();
        let mut all = vec!["clang"];
        all.extend(arguments);
        let ours = self.run(&program("zccache"), &all);
        let after = self.counted();
        assert_eq!(ours.status.code(), bare.status.code());
        assert_eq!(String::from_utf8_lossy(&ours.stdout), String::from_utf8_lossy(&bare.stdout));
        assert_eq!(String::from_utf8_lossy(&ours.stderr), String::from_utf8_lossy(&bare.stderr));
        let left = take();
        assert!(left == left_bare, "other outputs: {:?}", sizes(&left, &left_bare));
        Counted {
            hits: after.hits - before.hits,
            misses: after.misses - before.misses,
            passed_through: after.passed_through - before.passed_through,
        }
    }
}

fn sizes<'a>(ours: &'a [Option<Vec<u8>>], bare: &'a [Option<Vec<u8>>]) -> Vec<[Option<usize>; 2]> {
    let size = |content: &Option<Vec<u8>>| content.as_ref().map(Vec::len);
    ours.iter().zip(bare).map(|(ours, bare)| [size(ours), size(bare)]).collect()
}

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let told = self.client(&["stats", "--json"]);
            _ = writeln!(std::io::stderr(), "{}", String::from_utf8_lossy(&told.stdout));
            // Why what was run was not stored.
            let journal = fs::read_to_string(self.temp.path().join("cache").join("journal.jsonl"));
            _ = writeln!(std::io::stderr(), "{}", journal.unwrap_or_default());
        }
        _ = self.client(&["stop"]);
    }
}

/// A program of ours: all are built into one directory.
fn program(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_zccache")).with_file_name(format!("{name}.exe"))
}

#[test]
fn a_second_compile_is_a_hit_until_anything_that_it_read_is_another() {
    let place = Place::new();
    place.write("two/h.h", "#define VALUE 1\n");
    place.write("a.c", "#include \"h.h\"\nint f(void) { return VALUE; }\n");
    let plain = ["-c", "a.c", "-Ione", "-Itwo", "-o", "a.o"];
    let compile = || place.compile(&plain, &["a.o"]);
    assert_eq!(compile(), MISS);
    assert_eq!(compile(), HIT);
    // A header changes; the old one comes back.
    place.write("two/h.h", "#define VALUE 2\n");
    assert_eq!([compile(), compile()], [MISS, HIT]);
    place.write("two/h.h", "#define VALUE 1\n");
    assert_eq!(compile(), HIT);
    // One appears that is found first, and goes again.
    place.write("one/h.h", "#define VALUE 3\n");
    assert_eq!([compile(), compile()], [MISS, HIT]);
    fs::remove_file(place.source("one/h.h")).unwrap();
    assert_eq!(compile(), HIT);
    // A flag; the source.
    let optimised = || place.compile(&["-O2", "-c", "a.c", "-Ione", "-Itwo", "-o", "a.o"], &["a.o"]);
    assert_eq!([optimised(), optimised()], [MISS, HIT]);
    place.write("a.c", "#include \"h.h\"\nint g(void) { return VALUE; }\n");
    assert_eq!([compile(), compile()], [MISS, HIT]);
}

#[test]
fn sources_with_the_systems_headers_are_served() {
    let place = Place::new();
    place.write("own.h", "#define NAME \"own\"\n");
    let headers = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n";
    place.write("a.c", &format!("{headers}#include \"own.h\"\nint f(void) {{ return puts(NAME); }}\n"));
    let compile = || place.compile(&["-O1", "-c", "a.c", "-o", "a.o"], &["a.o"]);
    assert_eq!([compile(), compile()], [MISS, HIT]);
    place.write("own.h", "#define NAME \"another\"\n");
    assert_eq!([compile(), compile()], [MISS, HIT]);
}

#[test]
fn assembler_that_reads_a_file_is_never_served_however_it_is_spelled() {
    let place = Place::new();
    place.write("data", "one");
    let paste =
        "#include <stdio.h>\n#define P(a, b) a##b\n#define D \".\"\n#define S(x) #x\n#define T(x) S(x)\n";
    for text in [
        "__asm__(D \"inc\" \"bin \\\"data\\\"\");",
        "__asm__(T(.P(inc,bin)) \" \\\"data\\\"\");",
        "#define A(x) __asm__(S(x))\n#define B(x) A(x)\nB(.P(inc,bin) \"data\");",
    ] {
        place.write("a.c", &format!("{paste}{text}\nint f(void) {{ return puts(\"x\"); }}\n"));
        let compile = || place.compile(&["-c", "a.c"], &["a.o"]);
        assert_eq!([compile(), compile()], [MISS, MISS], "{text}");
    }
}

#[test]
fn the_compiler_is_an_input_and_so_is_what_it_may_load_or_be_told() {
    let mut place = Place::new();
    // A copy that may be changed, its larger half linked.
    let copy = place.temp.path().join("clang");
    fs::create_dir_all(copy.join("bin")).unwrap();
    fs::create_dir_all(copy.join("lib").join("clang").join("22").join("include")).unwrap();
    fs::copy(place.bin.join("clang.exe"), copy.join("bin").join("clang.exe")).unwrap();
    let large = copy.join("bin").join("clang-22.exe");
    fs::copy(place.bin.join("clang-22.exe"), &large).unwrap();
    place.bin = copy.join("bin");
    place.write("a.c", "int f(void) { return 1; }\n");
    let compile = || place.compile(&["-c", "a.c"], &["a.o"]);
    assert_eq!([compile(), compile()], [MISS, HIT]);
    // Another compiler, by a byte that nobody reads.
    fs::OpenOptions::new().append(true).open(&large).unwrap().write_all(b"x").unwrap();
    std::thread::sleep(SETTLED);
    assert_eq!([compile(), compile()], [MISS, HIT]);
    // A library beside it, of a name that its loader looks for; it is none, and may not be loaded for that.
    let library = copy.join("bin").join("version.dll");
    fs::copy(PathBuf::from(std::env::var_os("SystemRoot").unwrap()).join(r"system32\version.dll"), &library)
        .unwrap();
    std::thread::sleep(SETTLED);
    assert_eq!([compile(), compile()], [MISS, HIT]);
    fs::remove_file(&library).unwrap();
    // A configuration that is taken unasked: no result that was stored before is served, and none is stored.
    fs::write(copy.join("bin").join("clang.cfg"), "-DX=1\n").unwrap();
    std::thread::sleep(SETTLED);
    assert_eq!([compile(), compile()], [MISS, MISS]);
}

#[test]
fn what_a_compiler_says_is_replayed_and_failures_are_its_own() {
    let place = Place::new();
    place.write("warns.c", "int f(void) { int unused; return 1; }\n");
    let warns = || place.compile(&["-Wall", "-c", "warns.c"], &["warns.o"]);
    assert_eq!([warns(), warns()], [MISS, HIT]);
    place.write("fails.c", "int f(void) { return x; }\n");
    let fails = || place.compile(&["-c", "fails.c"], &["fails.o"]);
    assert_eq!([fails(), fails()], [MISS, MISS]);
    let missing = place.compile(&["-c", "missing.c"], &["missing.o"]);
    assert_ne!(missing, HIT);
    assert_eq!(place.compile(&["--version"], &[]), PASS);
}

#[test]
fn paths_of_all_spellings_lead_to_the_same_files_and_rules_for_make_are_the_compilers_own() {
    let place = Place::new();
    place.write("sub dir/h.h", "#define VALUE 1\n");
    place.write("sub dir/b.c", "#include \"h.h\"\nint f(void) { return VALUE; }\n");
    let absolute = place.source(r"sub dir\b.c");
    let absolute = absolute.to_str().unwrap();
    let slashes = absolute.replace('\\', "/");
    for source in [r"sub dir\b.c", "sub dir/b.c", absolute, &slashes] {
        let arguments = ["-MD", "-MF", r"one\b.d", "-c", source, "-o", r"one\b.o"];
        let compile = || place.compile(&arguments, &[r"one\b.o", r"one\b.d"]);
        assert_eq!([compile(), compile()], [MISS, HIT], "{source}");
    }
    let with = |value: u32| place.write("sub dir/h.h", &format!("#define VALUE {value}\n"));
    with(2);
    let compile = || place.compile(&["-c", r".\sub dir\..\SUB DIR\b.c", "-o", "b.o"], &["b.o"]);
    assert_eq!([compile(), compile()], [MISS, HIT]);
    with(3);
    assert_eq!([compile(), compile()], [MISS, HIT]);
}

#[test]
fn response_files_are_read_as_the_compiler_reads_them() {
    let place = Place::new();
    place.write("sub dir/h.h", "#define VALUE 1\n");
    place.write("a.c", "#include \"h.h\"\nint f(void) { return VALUE + OTHER; }\n");
    let compile = || place.compile(&["@all.rsp"], &["one/a.o"]);
    for text in [
        "-c a.c \"-Isub dir\" -DOTHER=1 -o one/a.o",
        "-c\r\na.c\r\n-Isub\\ dir\r\n-DOTHER=2\r\n-o\r\none\\\\a.o\r\n",
    ] {
        place.write("all.rsp", text);
        assert_eq!([compile(), compile()], [MISS, HIT], "{text:?}");
        place.write("all.rsp", &text.replace("OTHER=", "OTHER=3"));
        assert_eq!([compile(), compile()], [MISS, HIT]);
        place.write("all.rsp", text);
        assert_eq!(compile(), HIT);
    }
    // Versions of compilers differ in what this means.
    place.write("all.rsp", "-c a.c '-Isub\\dir' \"-Isub dir\" -DOTHER=1 -o one/a.o");
    assert_eq!(compile(), PASS);
}

#[test]
fn what_the_programs_of_windows_take_apart_for_themselves_is_left_to_them() {
    let place = Place::new();
    place.write("a.c", "int f(void) { return 1; }\n");
    assert_eq!(place.compile(&["-c", "?.c", "-o", "a.o"], &["a.o"]), PASS);
    assert_eq!(place.compile(&["-c", "a.c", "-o", "nul.o"], &[]), PASS);
}

#[test]
fn an_older_object_is_replaced_and_the_store_is_out_of_reach() {
    let place = Place::new();
    place.write("a.c", "int f(void) { return 1; }\n");
    assert_eq!(place.compile(&["-c", "a.c"], &["a.o"]), MISS);
    assert_eq!(place.compile(&["-c", "a.c"], &[]), HIT);
    let object = fs::read(place.source("a.o")).unwrap();
    fs::write(place.source("a.o"), "edited in place").unwrap();
    let ours = place.run(&program("zccache"), &["clang", "-c", "a.c"]);
    assert!(ours.status.success(), "{ours:?}");
    assert_eq!(fs::read(place.source("a.o")).unwrap(), object);
}
