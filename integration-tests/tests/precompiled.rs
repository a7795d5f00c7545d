//! Precompiled headers and modules, made and used: what a compiler keeps of what it has read, with more in it than content.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::fs;

use zccache_integration_tests::scenario::set_mtime;
use zccache_integration_tests::{Expect, Scenario};

/// A time in the past (seconds since the epoch): precompiled headers hold their inputs' times.
const THEN: u64 = 1_400_000_000;

const PRECOMPILED: &str = "#include \"inner.h\"\n#define H 1\n#define WARN _Pragma(\"GCC warning \\\"w\\\"\")\nstatic inline int big(void) { return INNER; }\n";

fn with(files: &[(&str, &str)]) -> Scenario {
    let s = Scenario::new();
    for (path, text) in files {
        s.write_at(path, text, THEN);
    }
    s
}

fn project() -> Scenario {
    with(&[
        ("a.c", "#include \"p.h\"\nint f(void) { return H + big(); }\n"),
        ("b.c", "#include \"p.h\"\nint g(void) { WARN return H - big(); }\n"),
        ("p.h", PRECOMPILED),
        ("inner.h", "#define INNER 1\n"),
    ])
}

/// Everything that a build makes goes, as by `make clean`.
fn clean(s: &Scenario) {
    s.edit(|w| {
        for entry in fs::read_dir(w).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let is_made = path
                .extension()
                .is_some_and(|e| ["o", "gch", "pch", "pcm", "d"].iter().any(|made| e == *made));
            if is_made && path.is_file() {
                fs::remove_file(path).unwrap();
            }
        }
    });
}

/// A header, precompiled by gcc: it holds addresses, so that no two are alike, and no time stamps.
#[test]
fn gccs_precompiled_headers_are_made_and_used() {
    let mut s = project();
    s.unlike("p.h.gch");
    let (make, compile) = ("gcc -O1 p.h", "gcc -O1 -Winvalid-pch -c a.c");
    s.step(Expect::Miss, make);
    // The names of headers are in it, where nobody can read them: what links were followed is watched from then on.
    s.step(Expect::NotStored, compile);
    s.step(Expect::Miss, compile);
    s.step(Expect::Hit, compile);
    // What is served is what was made, so that everything made with it is served as well.
    clean(&s);
    s.step(Expect::Hit, make);
    s.step(Expect::Hit, compile);
    s.step(Expect::Miss, "gcc -O1 -include p.h -c b.c");
    // Not valid for these flags: the header itself is read.
    s.step(Expect::Run, "gcc -O2 -Winvalid-pch -c a.c");
    s.step(Expect::Anything, "gcc -O2 -Winvalid-pch -c a.c");
    // Times tell nothing.
    s.edit(|w| set_mtime(&w.join("inner.h"), THEN + 3));
    s.step(Expect::Hit, make);
    s.step(Expect::Hit, compile);
    // The precompiled header is made of the old header: gcc does not look, and nor must we.
    s.write_at("p.h", PRECOMPILED.replace("H 1", "H 2"), THEN + 9);
    s.step(Expect::Anything, compile);
    s.step(Expect::Miss, make);
    s.step(Expect::Miss, compile);
    s.remove("p.h.gch");
    s.step(Expect::Run, compile);
    s.step(Expect::Hit, compile);
    s.rewrite("inner.h", "#define INNER 2\n");
    s.step(Expect::Miss, make);
    s.step(Expect::Run, compile);
    s.rewrite("inner.h", "#define INNER 1\n");
    s.write_at("p.h", PRECOMPILED, THEN + 12);
    s.step(Expect::Hit, make);
    s.step(Expect::Hit, compile);
}

/// A directory of precompiled headers, of which the valid one is taken.
#[test]
fn gcc_takes_one_of_a_directory_of_precompiled_headers() {
    let mut s = project();
    s.edit(|w| fs::create_dir(w.join("p.h.gch")).unwrap());
    s.unlike("p.h.gch/one");
    s.unlike("p.h.gch/two");
    s.step(Expect::Run, "gcc -O1 -c a.c");
    for (make, compile) in
        [("gcc -O1 p.h -o p.h.gch/one", "gcc -O1 -c a.c"), ("gcc -O2 p.h -o p.h.gch/two", "gcc -O2 -c a.c")]
    {
        s.step(Expect::Miss, make);
        s.step(Expect::Run, compile);
        s.step(Expect::Anything, compile);
        s.step(Expect::Hit, make);
        s.step(Expect::Anything, compile);
    }
    s.edit(|w| fs::remove_file(w.join("p.h.gch/one")).unwrap());
    s.step(Expect::Run, "gcc -O1 -c a.c");
}

#[test]
fn precompiled_headers_of_every_command_that_makes_them() {
    let files = [("d/a.h", "#define A 1\nint a;\n"), ("b.hpp", "struct B {};\n"), ("c.in", "int c;\n")];
    for (tool, lines) in [
        (
            "gcc",
            &["d/a.h", "-c d/a.h", "-x c-header c.in -o c.gch", "-MD d/a.h", "-MD -MF r.d d/a.h -o out.gch"]
                [..],
        ),
        ("g++", &["b.hpp", "-x c++-header -g b.hpp -o p.gch", "d/a.h b.hpp"][..]),
        (
            "clang",
            &[
                "d/a.h",
                "-c d/a.h",
                "-x c-header c.in -o c.pch",
                "-MD d/a.h",
                "-g -x c-header d/a.h -o out.pch",
                "-Xclang -emit-pch -c -x c c.in -o inner.pch",
            ][..],
        ),
        ("clang++", &["b.hpp", "-x c++-header -g b.hpp -o p.pch", "d/a.h b.hpp"][..]),
    ] {
        let mut s = with(&files);
        if tool.starts_with('g') {
            s.unlike_where(|path| path.extension().is_some_and(|e| e == "gch"));
        }
        for line in lines {
            let line = format!("{tool} {line}");
            s.step(Expect::Miss, &line);
            s.step(Expect::Hit, &line);
            s.edit(|w| {
                for made in ["d/a.h.gch", "b.hpp.gch", "c.gch", "c.pch", "p.gch", "p.pch", "a.d"] {
                    let _ = fs::remove_file(w.join(made));
                }
            });
            s.step(Expect::Hit, &line);
        }
    }
}

#[test]
fn a_header_that_does_not_compile_leaves_what_the_compiler_leaves() {
    for (tool, output) in [("gcc", "p.h.gch"), ("clang", "p.pch")] {
        let mut s = project();
        s.unlike("p.h.gch");
        let line = format!("{tool} -x c-header p.h -o {output}");
        s.step(Expect::Miss, &line);
        s.write_at("inner.h", "#error no\n", THEN + 1);
        for _ in 0..2 {
            let failed = s.step(Expect::Anything, &line);
            assert!(!failed.success());
            s.step(Expect::Anything, &format!("{tool} -c a.c"));
        }
        s.write_at("inner.h", "#define INNER 1\n", THEN);
        s.step(Expect::Hit, &line);
    }
}

/// clang writes the times of all headers into a precompiled one, and refuses it where they are others.
#[test]
fn clangs_precompiled_headers_are_made_and_used() {
    let mut s = project();
    let (make, compile) = ("clang -x c-header p.h -o p.pch", "clang -include-pch p.pch -c a.c");
    s.step(Expect::Miss, make);
    s.step(Expect::Miss, compile);
    s.step(Expect::Hit, compile);
    clean(&s);
    s.step(Expect::Hit, make);
    // The time of the precompiled header itself tells nothing.
    s.step(Expect::Hit, compile);
    // Touched: clang refuses a precompiled header whose inputs have other times.
    s.edit(|w| set_mtime(&w.join("inner.h"), THEN + 7));
    let refused = s.step(Expect::Run, compile);
    assert!(!refused.success());
    s.step(Expect::Miss, make);
    s.step(Expect::Run, compile);
    s.step(Expect::Hit, compile);
    // As it was: the first one fits again, and the one that lies there does not.
    s.edit(|w| set_mtime(&w.join("inner.h"), THEN));
    let refused = s.step(Expect::Run, compile);
    assert!(!refused.success());
    s.step(Expect::Hit, make);
    s.step(Expect::Hit, compile);
    s.write_at("inner.h", "#define INNER 2\n", THEN + 8);
    s.step(Expect::Miss, make);
    s.step(Expect::Run, compile);
    s.step(Expect::Hit, compile);
}

/// What stands where gcc looks for a precompiled header: nothing of use, one that goes and comes back, one somewhere else.
#[test]
fn what_is_in_a_precompiled_headers_place_is_taken_or_not() {
    let mut s = project();
    s.unlike_where(|path| path.to_string_lossy().contains("gch"));
    let compile = "gcc -O1 -Winvalid-pch -c a.c";
    let changes: [&dyn Fn(&std::path::Path); 9] = [
        &|w| fs::write(w.join("p.h.gch"), "garbage").unwrap(),
        &|w| fs::write(w.join("p.h.gch"), "").unwrap(),
        &|w| {
            fs::remove_file(w.join("p.h.gch")).unwrap();
            fs::create_dir(w.join("p.h.gch")).unwrap();
        },
        &|w| fs::write(w.join("p.h.gch/x"), "garbage").unwrap(),
        &|w| {
            fs::remove_dir_all(w.join("p.h.gch")).unwrap();
            std::os::unix::fs::symlink("out.gch", w.join("p.h.gch")).unwrap();
        },
        &|w| fs::rename(w.join("made"), w.join("out.gch")).unwrap(),
        &|w| fs::rename(w.join("out.gch"), w.join("away.gch")).unwrap(),
        &|w| fs::rename(w.join("away.gch"), w.join("out.gch")).unwrap(),
        &|w| fs::remove_file(w.join("p.h.gch")).unwrap(),
    ];
    s.unlike("made");
    s.step(Expect::Miss, "gcc -O1 p.h -o made");
    for change in changes {
        s.edit(change);
        for _ in 0..2 {
            s.step(Expect::Anything, compile);
        }
    }
    s.step(Expect::Hit, compile);
}

/// `-include p.h` takes `p.h.pch` or `p.h.gch` unasked.
#[test]
fn clang_takes_a_precompiled_header_for_the_one_it_is_to_include() {
    for made in ["p.h.pch", "p.h.gch"] {
        let mut s = project();
        let (make, compile) = (format!("clang -x c-header p.h -o {made}"), "clang -include p.h -c a.c");
        s.step(Expect::Miss, compile);
        s.step(Expect::Miss, &make);
        s.step(Expect::Run, compile);
        s.step(Expect::Hit, compile);
        s.remove(made);
        s.step(Expect::Hit, compile);
        s.step(Expect::Hit, &make);
        s.step(Expect::Hit, compile);
        s.write_at("inner.h", "#define INNER 3\n", THEN + 9);
        s.step(Expect::Run, compile);
        s.step(Expect::Miss, &make);
        s.step(Expect::Run, compile);
        s.rewrite("p.h", PRECOMPILED.replace("H 1", "H 2"));
        s.step(Expect::Run, compile);
    }
}

/// A precompiled header that is made of another one holds that one's size and time.
#[test]
fn a_precompiled_header_upon_another() {
    let mut s = project();
    s.write_at("q.h", "int on_top = H;\n", THEN);
    let below = "clang -x c-header p.h -o p.pch";
    let above = "clang -x c-header -include-pch p.pch q.h -o q.pch";
    let compile = "clang -include-pch q.pch -c a.c";
    s.unlike("q.pch");
    s.step(Expect::Miss, below);
    // Whole seconds are what is held: without this, one made again within the same second would be like the first.
    s.edit(|w| set_mtime(&w.join("p.pch"), THEN + 20));
    s.step(Expect::Miss, above);
    s.step(Expect::Miss, compile);
    s.step(Expect::Hit, compile);
    // Made again, the lower one has another time, whoever made it.
    s.step(Expect::Hit, below);
    s.step(Expect::Anything, compile);
    s.step(Expect::Run, above);
    s.step(Expect::Anything, compile);
    s.edit(|w| {
        set_mtime(&w.join("p.pch"), THEN + 40);
    });
    s.step(Expect::Anything, compile);
    s.step(Expect::Run, above);
    s.step(Expect::Anything, compile);
    s.edit(|w| set_mtime(&w.join("inner.h"), THEN + 4));
    s.step(Expect::Anything, above);
    s.step(Expect::Anything, compile);
}

#[test]
fn pragma_once_in_a_precompiled_header_and_beside_it() {
    for tool in ["gcc", "clang"] {
        let mut s = project();
        s.write_at("p.h", format!("#pragma once\n{PRECOMPILED}"), THEN);
        s.unlike("p.h.gch");
        let make = format!("{tool} -x c-header p.h -o p.h.gch");
        s.step(Expect::Miss, &make);
        let line = format!("{tool} -include p.h -c a.c");
        s.step(Expect::Anything, &line);
        s.step(Expect::Anything, &line);
        s.edit(|w| fs::copy(w.join("p.h"), w.join("q.h")).map(|_| ()).unwrap());
        s.write("a.c", "#include \"p.h\"\n#include \"q.h\"\nint f(void) { return H; }\n");
        s.edit(|w| set_mtime(&w.join("q.h"), THEN));
        s.step(Expect::Anything, &line);
        s.edit(|w| set_mtime(&w.join("q.h"), THEN + 3));
        s.step(Expect::Anything, &line);
        s.step(Expect::Hit, &make);
        s.step(Expect::Anything, &line);
        s.edit(|w| set_mtime(&w.join("p.h"), THEN + 3));
        s.step(Expect::Anything, &make);
        s.step(Expect::Anything, &line);
    }
}

/// Explicit modules: each is made by a command, of files that it names.
#[test]
fn clangs_modules_are_made_and_used() {
    let mut s = with(&[
        ("part.h", "#define ANSWER 42\n"),
        (
            "m.cppm",
            "module;\n#include \"part.h\"\nexport module m;\nexport int answer() { return ANSWER; }\n",
        ),
        ("use.cc", "import m;\nint f() { return answer(); }\n"),
    ]);
    let make = "clang++ -std=c++20 --precompile m.cppm -o m.pcm";
    let object = "clang++ -std=c++20 -c m.pcm -o m.o";
    let by_file = "clang++ -std=c++20 -fmodule-file=m.pcm -c use.cc";
    let by_path = "clang++ -std=c++20 -fprebuilt-module-path=. -c use.cc";
    let missing = s.step(Expect::Anything, by_path);
    assert!(!missing.success());
    for line in [make, object, by_file, by_path] {
        s.step(Expect::Miss, line);
        s.step(Expect::Hit, line);
    }
    clean(&s);
    s.step(Expect::Hit, make);
    for line in [object, by_file, by_path] {
        s.step(Expect::Anything, line);
        s.step(Expect::Hit, line);
    }
    for (path, text) in
        [("part.h", "#define ANSWER 43\n"), ("use.cc", "import m;\nint g() { return answer(); }\n")]
    {
        s.rewrite(path, text);
        for line in [by_file, make, object, by_file, by_path] {
            s.step(Expect::Anything, line);
        }
        for line in [object, by_file, by_path] {
            s.step(Expect::Hit, line);
        }
    }
    s.edit(|w| set_mtime(&w.join("m.cppm"), THEN + 5));
    for line in [by_file, make, object, by_file, by_path] {
        s.step(Expect::Anything, line);
    }
    // Another module of that name, where it is looked for first.
    s.edit(|w| fs::create_dir(w.join("first")).unwrap());
    let first = "clang++ -std=c++20 -fprebuilt-module-path=first -fprebuilt-module-path=. -c use.cc";
    s.step(Expect::Miss, first);
    s.step(Expect::Hit, first);
    s.step(Expect::Miss, "clang++ -std=c++20 -DX --precompile m.cppm -o first/m.pcm");
    s.step(Expect::Run, first);
    s.edit(|w| fs::remove_file(w.join("first/m.pcm")).unwrap());
    s.step(Expect::Hit, first);
}

/// gcc writes the time into its modules, unless a date is given.
#[test]
fn gccs_modules_are_made_and_used() {
    let module =
        "module;\n#include \"part.h\"\nexport module m;\nexport inline int answer() { return ANSWER; }\n";
    for date in [None, Some("1000000000")] {
        let mut s = with(&[
            ("part.h", "#define ANSWER 42\n"),
            ("m.cc", module),
            ("use.cc", "import m;\nint f() { return answer(); }\n"),
            ("h.hh", "inline int h() { return 1; }\n"),
            ("imports.cc", "import \"./h.hh\";\nint g() { return h(); }\n"),
        ]);
        if let Some(date) = date {
            s.sandbox.set("SOURCE_DATE_EPOCH", date);
        } else {
            s.unlike_where(|path| path.extension().is_some_and(|e| e == "gcm"));
        }
        let (make, compile) =
            ("g++ -std=c++20 -fmodules-ts -c m.cc", "g++ -std=c++20 -fmodules-ts -c use.cc");
        let missing = s.step(Expect::Anything, compile);
        assert!(!missing.success());
        // The first one makes a directory.
        s.step(Expect::NotStored, make);
        let made = if date.is_some() { Expect::Miss } else { Expect::NotStored };
        s.step(made, make);
        s.step(Expect::Miss, compile);
        s.step(Expect::Hit, compile);
        s.step(if date.is_some() { Expect::Hit } else { Expect::NotStored }, make);
        s.step(if date.is_some() { Expect::Hit } else { Expect::Anything }, compile);
        s.rewrite("part.h", "#define ANSWER 43\n");
        s.step(Expect::Run, make);
        s.step(Expect::Run, compile);
        s.step(Expect::Hit, compile);
        s.edit(|w| fs::remove_file(w.join("gcm.cache/m.gcm")).unwrap());
        let missing = s.step(Expect::Run, compile);
        assert!(!missing.success());
        // A header as a module.
        s.step(Expect::Anything, "g++ -std=c++20 -fmodules-ts -x c++-header h.hh");
        s.step(Expect::Anything, "g++ -std=c++20 -fmodules-ts -c imports.cc");
        s.step(Expect::Anything, "g++ -std=c++20 -fmodules-ts -c imports.cc");
        s.rewrite("h.hh", "inline int h() { return 2; }\n");
        s.step(Expect::Anything, "g++ -std=c++20 -fmodules-ts -c imports.cc");
        s.step(Expect::Anything, "g++ -std=c++20 -fmodules-ts -x c++-header h.hh");
        s.step(Expect::Anything, "g++ -std=c++20 -fmodules-ts -c imports.cc");
        s.sandbox.set("CXX_MODULE_MAPPER", "map.txt");
        s.write_at("map.txt", "$root gcm.cache\nm m.gcm\n", THEN);
        s.step(Expect::PassThrough, make);
    }
}

/// Implicit modules live in a cache of clang's own, which it locks, prunes by the clock, and shares between builds.
#[test]
fn clangs_implicit_modules_are_its_own() {
    let mut s = with(&[
        ("module.modulemap", "module H { header \"h.h\" export * }\n"),
        ("h.h", "#define H 1\nstatic inline int h(void) { return H; }\n"),
        ("a.c", "#include \"h.h\"\nint f(void) { return h(); }\n"),
    ]);
    let outside = s.sandbox.path("home").join("modules");
    let line = format!("clang -fmodules -fmodules-cache-path={} -c a.c", outside.display());
    s.step(Expect::PassThrough, &line);
    s.write_at("h.h", "#define H 2\nstatic inline int h(void) { return H; }\n", THEN + 5);
    s.step(Expect::PassThrough, &line);
}
