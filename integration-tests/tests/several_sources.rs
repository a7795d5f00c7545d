//! Several sources in one command: kept and served each on its own where that cannot be told from a run of the driver for
//! all, and otherwise as one.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use zccache_integration_tests::scenario::set_mtime;
use zccache_integration_tests::{Expect, Scenario};

/// A time in the past (seconds since the epoch), the same in both twins.
const THEN: u64 = 1_400_000_000;

const TOOLS: [&str; 2] = ["gcc", "clang"];

fn project() -> Scenario {
    let s = Scenario::new();
    for (path, text) in [
        ("a.c", "#include \"h.h\"\nint a(int n) { return n * H; }\n"),
        ("b.c", "#include \"h.h\"\n#include \"b.h\"\nint b(int n) { return n + H + B; }\n"),
        ("h.h", "#define H 1\n"),
        ("b.h", "#define B 2\n"),
        ("warns.c", "int w(void) { int unused; }\n"),
        ("bad.c", "int bad(void) { return x; }\n"),
        ("x/same.c", "int same_x;\n"),
        ("y/same.c", "int same_y = 2;\n"),
        ("c.cc", "struct S { int i; }; int c(S s) { return s.i; }\n"),
        ("d.s", "\t.globl d\nd:\t.long 4\n"),
        ("e.S", "#include \"h.h\"\n\t.globl e\ne:\t.long H\n\t.section .note.GNU-stack,\"\",@progbits\n"),
        ("f.i", "int f;\n"),
    ] {
        s.write_at(path, text, THEN);
    }
    s
}

/// Removes what a compile may have made.
fn clean(work: &Path) {
    for entry in fs::read_dir(work).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let is_source = ["a.c", "b.c", "warns.c", "bad.c", "c.cc", "d.s", "e.S", "f.i"].contains(&&name[..]);
        if entry.file_type().unwrap().is_file() && !is_source && !name.ends_with(".h") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

/// A miss; a hit over its outputs; a hit where there are none; an edit: a miss; taken back: a hit.
#[track_caller]
fn comes_back(s: &mut Scenario, line: &str) {
    s.edit(clean);
    s.step(Expect::Miss, line);
    s.step(Expect::Hit, line);
    s.edit(clean);
    s.step(Expect::Hit, line);
    let old = fs::read_to_string(s.sandbox.path("cached/b.h")).unwrap();
    s.rewrite("b.h", old.replace('2', "3"));
    s.step(Expect::Run, line);
    s.rewrite("b.h", old);
    s.step(Expect::Hit, line);
}

/// All that is printed and made comes back, source by source; an edit has those compiled that it is of.
#[test]
fn every_source_has_an_entry_of_its_own() {
    for tool in TOOLS {
        let mut s = project();
        for (flags, sources) in [
            ("-c", "a.c b.c"),
            ("-c -MMD -g", "a.c b.c"),
            ("-c -Wall", "a.c warns.c b.c"),
            ("-c -Wall -fdiagnostics-color=always", "warns.c b.c"),
            ("-S -MD -Werror -Wall", "b.c bad.c warns.c a.c"),
        ] {
            let line = format!("{tool} {flags} {sources}");
            let count = sources.split(' ').count() as u64;
            s.edit(clean);
            s.step(Expect::Counts { hits: 0, misses: count }, &line);
            s.step(Expect::Counts { hits: count, misses: 0 }, &line);
            s.edit(clean);
            s.step(Expect::Counts { hits: count, misses: 0 }, &line);
            s.rewrite("b.h", "#define B 3\n");
            s.step(Expect::Counts { hits: count - 1, misses: 1 }, &line);
            s.rewrite("b.h", "#define B 2\n");
            s.step(Expect::Counts { hits: count, misses: 0 }, &line);
            // As they are in another order, and in commands of their own.
            let turned: Vec<&str> = sources.split(' ').rev().collect();
            let turned = format!("{tool} {flags} {}", turned.join(" "));
            s.step(Expect::Counts { hits: count, misses: 0 }, &turned);
            s.step(Expect::Hit, &format!("{tool} {flags} b.c"));
            s.step(Expect::Counts { hits: count, misses: 0 }, &line);
        }
    }
}

/// One source among them that fails, after an edit: the others are served, and the end is the compiler's.
#[test]
fn a_source_that_is_broken_and_mended_among_others() {
    for tool in TOOLS {
        let mut s = project();
        let line = format!("{tool} -c a.c bad.c b.c");
        let failed = s.step(Expect::Counts { hits: 0, misses: 3 }, &line);
        assert!(!failed.success());
        s.write("bad.o", "old");
        s.step(Expect::Counts { hits: 2, misses: 1 }, &line);
        s.write_at("bad.c", "int good;\n", THEN + 1);
        let mended = s.step(Expect::Counts { hits: 2, misses: 1 }, &line);
        assert!(mended.success());
        s.write_at("bad.c", "#include \"nowhere.h\"\n", THEN + 2);
        s.step(Expect::Counts { hits: 2, misses: 1 }, &line);
        s.write_at("a.c", "int a(int) { #error no\n", THEN + 2);
        s.step(Expect::Anything, &line);
        s.step(Expect::Anything, &line);
    }
}

/// What the driver itself says comes once, however many sources there are, and what it refuses it does not begin.
#[test]
fn what_the_driver_says_it_says_once() {
    let mut s = project();
    for line in [
        "clang -c -Wl,-s -lm a.c b.c",
        "clang -c -fsyntax-only -nostdlib -lfoo b.c a.c",
        "gcc -c -Wl,-s -lm a.c b.c",
        "clang -c -std=c++11 a.c b.c",
        "gcc -c -std=c++11 a.c b.c",
        "clang -c -std=nothing a.c b.c",
        "gcc -c -std=nothing a.c b.c",
        "clang -c -fno-such-option a.c b.c",
        "gcc -c -fno-such-option a.c b.c",
        "clang -c -O9 b.c a.c",
        "clang -c -march=nothing b.c a.c",
        "gcc -c -march=nothing b.c a.c",
        "clang -c -std=c++11 c.cc a.c",
        "clang -c a.c nowhere.c b.c",
        "gcc -c a.c nowhere.c b.c",
        "gcc -c -x c++ a.c -x none b.c",
        "gcc -c a.c b.c -x c++",
        "clang -c a.c b.c -x c++",
        "gcc -c -fdiagnostics-format=json -Wall warns.c bad.c",
        "clang -c -g -grecord-command-line a.c b.c",
        "gcc -c -g -grecord-gcc-switches a.c b.c",
        "gcc -c -frecord-gcc-switches a.c b.c",
        "clang -c -frecord-command-line a.c b.c",
        "gcc -c -Wall -pass-exit-codes bad.c warns.c",
        "gcc -pipe -c b.c a.c",
        "gcc -c -flto -frandom-seed=1 a.c b.c",
        "clang -c -flto a.c b.c",
        "clang -S -emit-llvm a.c b.c",
        "g++ -c -w a.c b.c",
        "clang++ -c a.c b.c",
    ] {
        s.edit(clean);
        s.step(Expect::Anything, line);
        s.edit(clean);
        s.step(Expect::Anything, line);
        s.rewrite("b.h", "#define B 3\n");
        s.step(Expect::Anything, line);
        s.rewrite("b.h", "#define B 2\n");
    }
}

/// Options that clang finds in a file beside itself are about all sources as well: here, the whole command in the object.
#[test]
fn options_of_a_file_that_nobody_named_are_about_all_sources() {
    let mut s = project();
    s.edit(|w| {
        let clang = fs::canonicalize("/usr/bin/clang").unwrap();
        fs::create_dir(w.join("bin")).unwrap();
        fs::copy(clang, w.join("bin/x86_64-linux-gnu-clang")).unwrap();
    });
    let line = "bin/x86_64-linux-gnu-clang -c a.c b.c";
    s.step(Expect::Counts { hits: 0, misses: 2 }, line);
    s.step(Expect::Counts { hits: 2, misses: 0 }, line);
    s.write_at("bin/x86_64-linux-gnu-clang.cfg", "-g -grecord-command-line\n", THEN);
    for _ in 0..3 {
        s.step(Expect::Anything, line);
    }
    s.step(Expect::Hit, line);
    s.rewrite("b.h", "#define B 3\n");
    s.step(Expect::Run, line);
    s.step(Expect::Hit, line);
    s.step(Expect::Anything, "bin/x86_64-linux-gnu-clang -c b.c a.c");
    s.remove("bin/x86_64-linux-gnu-clang.cfg");
    s.step(Expect::Anything, line);
}

/// What is made for all at once, or is called by one name: one run, one entry.
#[test]
fn what_is_made_for_all_comes_back_together() {
    for tool in TOOLS {
        let mut s = project();
        for flags in [
            // One file for the rules of both: the last one has it.
            "-c -MD -MF rules.d a.c b.c",
            "-c -g -gsplit-dwarf a.c b.c",
            "-c --coverage -frandom-seed=1 a.c b.c",
            "-c -save-temps a.c b.c",
        ] {
            comes_back(&mut s, &format!("{tool} {flags}"));
        }
    }
}

#[test]
fn units_of_several_languages_are_compiled_each_as_its_own() {
    for tool in ["gcc", "g++", "clang"] {
        let mut s = project();
        for flags in [
            "-w -c b.c c.cc d.s e.S f.i",
            "-w -c c.cc -x c++ b.c a.c",
            "-w -c -x c b.c -x assembler d.s -x none a.c",
        ] {
            comes_back(&mut s, &format!("{tool} {flags}"));
        }
    }
}

/// Drivers go on after a unit that fails, and say so in the end.
#[test]
fn one_that_fails_among_them_fails_as_it_does_for_the_compiler() {
    for tool in TOOLS {
        let mut s = project();
        for line in
            ["-c bad.c b.c", "-c b.c bad.c a.c", "-S -MD b.c bad.c", "-fsyntax-only b.c bad.c warns.c"]
        {
            s.edit(clean);
            let first = s.step(Expect::Anything, &format!("{tool} {line}"));
            assert!(!first.success());
            s.step(Expect::Anything, &format!("{tool} {line}"));
            s.step(Expect::Anything, &format!("{tool} {line}"));
            s.edit(clean);
            s.step(Expect::Anything, &format!("{tool} {line}"));
            // An older object of the one that fails.
            s.write("bad.o", "old");
            s.step(Expect::Anything, &format!("{tool} {line}"));
            s.step(Expect::Anything, &format!("{tool} {line}"));
        }
        s.edit(clean);
        s.step(Expect::Anything, &format!("{tool} -c a.c nowhere.c b.c"));
        s.step(Expect::Anything, &format!("{tool} -c a.c nowhere.c b.c"));
        s.write("nowhere.c", "int found;\n");
        s.step(Expect::Anything, &format!("{tool} -c a.c nowhere.c b.c"));
        s.write_at("bad.c", "int good;\n", THEN + 1);
        let healed = s.step(Expect::Anything, &format!("{tool} -c bad.c b.c"));
        assert!(healed.success());
    }
}

/// Both are called `same.o`, and the last one stays.
#[test]
fn sources_of_one_name_overwrite_each_other_as_they_do_for_the_compiler() {
    for tool in TOOLS {
        let mut s = project();
        for flags in ["-MMD", "-save-temps"] {
            for order in ["x/same.c y/same.c", "y/same.c x/same.c", "x/same.c x/same.c"] {
                s.edit(clean);
                s.step(Expect::Anything, &format!("{tool} -c {flags} {order}"));
                let hits = if flags == "-MMD" { 2 } else { 1 };
                s.step(Expect::Counts { hits, misses: 0 }, &format!("{tool} -c {flags} {order}"));
                s.edit(clean);
                s.step(Expect::Counts { hits, misses: 0 }, &format!("{tool} -c {flags} {order}"));
            }
        }
    }
}

#[test]
fn one_output_for_several_units_is_the_compilers_own_error() {
    for tool in TOOLS {
        let mut s = project();
        for line in ["-c a.c b.c -o both.o", "-S a.c b.c -o both.s", "-E a.c b.c -o both.i"] {
            let first = s.step(Expect::Run, &format!("{tool} {line}"));
            assert!(!first.success());
            s.write("both.o", "old");
            s.step(Expect::Anything, &format!("{tool} {line}"));
            s.remove("both.o");
            s.step(Expect::Anything, &format!("{tool} {line}"));
        }
    }
}

#[test]
fn several_units_are_compiled_and_linked_in_one_command() {
    for tool in TOOLS {
        let mut s = project();
        s.write_at("main.c", "int a(int); int b(int);\nint main(void) { return a(1) + b(2); }\n", THEN);
        for line in ["main.c a.c b.c -o prog", "-shared -fPIC a.c b.c e.S -o lib.so", "-r a.c b.c -o both.o"]
        {
            let line = format!("{tool} {line}");
            s.step(Expect::Miss, &line);
            s.step(Expect::Hit, &line);
            s.rewrite("b.h", "#define B 7\n");
            s.step(Expect::Run, &line);
            s.rewrite("b.h", "#define B 2\n");
            s.step(Expect::Hit, &line);
        }
        let failing = format!("{tool} main.c a.c bad.c -o prog");
        s.step(Expect::Anything, &failing);
        s.step(Expect::Anything, &failing);
    }
}

/// What one unit leaves is what the next one finds.
#[test]
fn a_unit_that_reads_what_another_wrote() {
    let mut s = project();
    s.write_at("reads.S", "\t.incbin \"a.o\"\n", THEN);
    s.write_at("asks.c", "#if __has_include(\"a.o\")\nint there;\n#else\nint gone;\n#endif\n", THEN);
    for line in
        ["-c a.c reads.S", "-c reads.S a.c", "-c asks.c a.c", "-c a.c asks.c", "-c a.c b.c -MD -MF h.h"]
    {
        for tool in TOOLS {
            let line = format!("{tool} {line}");
            for _ in 0..3 {
                s.step(Expect::Anything, &line);
            }
            s.edit(clean);
            for _ in 0..2 {
                s.step(Expect::Anything, &line);
            }
            s.write_at("h.h", "#define H 1\n", THEN);
            s.write_at("a.c", "#include \"h.h\"\nint a(int n) { return n - H; }\n", THEN + 4);
            s.step(Expect::Anything, &line);
            s.write_at("a.c", "#include \"h.h\"\nint a(int n) { return n * H; }\n", THEN);
            s.write_at("h.h", "#define H 1\n", THEN);
            s.step(Expect::Anything, &line);
            s.edit(clean);
        }
    }
}

/// The names of the sources may come from a file.
#[test]
fn several_sources_of_a_response_file() {
    for tool in TOOLS {
        let mut s = project();
        s.write_at("all.rsp", "a.c\nb.c\n", THEN);
        let line = format!("{tool} -c @all.rsp");
        s.step(Expect::Counts { hits: 0, misses: 2 }, &line);
        s.step(Expect::Counts { hits: 2, misses: 0 }, &line);
        s.rewrite("all.rsp", "b.c\na.c\n");
        s.step(Expect::Counts { hits: 2, misses: 0 }, &line);
        s.rewrite("all.rsp", "a.c\nf.i\n");
        s.edit(clean_all_but_rsp);
        // Of two languages.
        s.step(Expect::Run, &line);
        s.step(Expect::Hit, &line);
        s.edit(|w| set_mtime(&w.join("all.rsp"), THEN + 5));
        s.step(Expect::Hit, &line);
        // A name in it that would be another such file.
        s.write_at("@x.c", "int x;\n", THEN);
        s.rewrite("all.rsp", "b.c\n./@x.c\n");
        s.step(Expect::Counts { hits: 1, misses: 1 }, &line);
        s.rewrite("all.rsp", "b.c\n@x.c\n");
        s.step(Expect::Anything, &line);
        s.step(Expect::Anything, &line);
    }
}

fn clean_all_but_rsp(work: &Path) {
    let kept = fs::read(work.join("all.rsp")).unwrap();
    clean(work);
    fs::write(work.join("all.rsp"), kept).unwrap();
    set_mtime(&work.join("all.rsp"), THEN);
}
