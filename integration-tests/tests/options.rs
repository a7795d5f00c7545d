//! Options that make a compiler read, write or say something that is not the source's object.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::fs;
use std::path::Path;

use zccache_integration_tests::scenario::set_mtime;
use zccache_integration_tests::{Expect, Sandbox, Scenario};

/// A time in the past (seconds since the epoch), the same in both twins.
const THEN: u64 = 1_400_000_000;

const WARNS_C: &str = "#include \"h.h\"\nint f(int n) { int unused; for (int i = 0; i < n; i++) n += i % H ? i : -i; return n; }\n";

fn with(files: &[(&str, &str)]) -> Scenario {
    let s = Scenario::new();
    for (path, text) in files {
        s.write_at(path, text, THEN);
    }
    s
}

fn project() -> Scenario {
    with(&[("a.c", WARNS_C), ("h.h", "#define H 3\n"), ("out/keep", "")])
}

/// Everything in the project's own directory and in `out` that is no source goes.
fn clean(work: &Path) {
    for directory in [work.to_path_buf(), work.join("out")] {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_file() && !["a.c", "h.h", "keep"].contains(&&name[..]) {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

/// A miss; a hit over the outputs; a hit where there are none; another header: a miss; the old one: a hit.
#[track_caller]
fn comes_back(s: &mut Scenario, line: &str) {
    let words: Vec<&str> = line.split(' ').collect();
    comes_back_of(s, &words);
}

#[track_caller]
fn comes_back_of(s: &mut Scenario, words: &[&str]) {
    s.edit(clean);
    s.step_of(Expect::Miss, words);
    s.step_of(Expect::Hit, words);
    s.edit(clean);
    s.step_of(Expect::Hit, words);
    s.rewrite("h.h", "#define H 4\n");
    s.step_of(Expect::Run, words);
    s.rewrite("h.h", "#define H 3\n");
    s.step_of(Expect::Hit, words);
}

#[test]
fn targets_of_rules_may_be_any_text() {
    for tool in ["gcc", "clang"] {
        let mut s = project();
        for target in ["a b", "$(dir)/a.o", "a$b", "c:\\x.o", "#a", "a\tb", "a:b", "%", "\u{e4}"] {
            for flag in ["-MT", "-MQ"] {
                let words = [tool, "-c", "-MD", flag, target, "a.c", "-o", "out/a.o"];
                s.step_of(Expect::Run, &words);
                s.edit(clean);
                s.step_of(Expect::Hit, &words);
            }
        }
        comes_back_of(&mut s, &[tool, "-c", "-MD", "-MT", "one", "-MT", "two", "-MQ", "$x", "-MP", "a.c"]);
        comes_back_of(&mut s, &[tool, "-c", "-MMD", "-MF", "with blank.d", "a.c", "-o", "with blank.o"]);
    }
}

#[test]
fn macros_of_the_command_line_may_hold_anything() {
    for tool in ["gcc", "clang"] {
        let mut s = with(&[("a.c", "const char *s = S;\nint n = N;\n"), ("h.h", ""), ("out/keep", "")]);
        for (string, number) in
            [("\"a b\"", "1"), ("\"\\n\"", "(1,2)"), ("\"x\" \"y\"", "-1"), ("\"$HOME;`x`\"", "0")]
        {
            let (string, number) = (format!("-DS={string}"), format!("-DN={number}"));
            let words = [tool, &string, &number, "-c", "a.c"];
            s.step_of(Expect::Miss, &words);
            s.step_of(Expect::Hit, &words);
        }
    }
}

/// A line that is a macro's value can hold a newline, which ends the directive: clang cuts there, gcc too.
#[test]
fn a_macro_with_a_newline_is_what_the_compiler_makes_of_it() {
    for tool in ["gcc", "clang"] {
        let mut s = with(&[("a.c", "int n = N;\n")]);
        for value in ["1\n+ 2", "1\n#error no"] {
            let words = [tool, &format!("-DN={value}"), "-c", "a.c"];
            s.step_of(Expect::Anything, &words);
            s.step_of(Expect::Anything, &words);
        }
    }
}

#[test]
fn dumps_and_temporaries_beside_the_output() {
    let mut s = project();
    for line in [
        "gcc -w -O2 -c -save-temps=obj a.c -o out/a.o",
        "gcc -w -O1 -c -fdump-tree-original -fdump-rtl-expand a.c -o out/a.o",
        "gcc -w -O1 -c -fdump-tree-optimized=out/named a.c",
        "gcc -w -O1 -c -fdump-passes a.c",
        "gcc -w -O1 -c -dumpdir out/x- a.c",
        "gcc -w -O1 -c -dD -E a.c -o out/a.i",
        "clang -w -O1 -c -save-temps=obj a.c -o out/a.o",
        "clang -w -O1 -c -save-stats a.c -o out/a.o",
        "clang -w -O1 -c -mllvm -print-after-all a.c",
        "clang -w -S -emit-llvm -fno-discard-value-names a.c -o out/a.ll",
    ] {
        comes_back(&mut s, line);
    }
}

/// Every pass tells what it did: hundreds of files.
#[test]
fn every_dump_there_is() {
    let mut s = project();
    // Some passes print addresses or times.
    s.unlike_where(|path| path.to_string_lossy().contains(".c."));
    let line = "gcc -w -O2 -c -fdump-tree-all -fdump-ipa-all -fdump-rtl-all a.c -o out/a.o";
    s.step(Expect::Run, line);
    s.edit(clean);
    s.step(Expect::Anything, line);
    s.step(Expect::Anything, line);
}

#[test]
fn messages_in_other_forms() {
    let mut s = project();
    for line in [
        "gcc -Wall -fdiagnostics-format=json -c a.c",
        "gcc -Wall -fdiagnostics-format=json-file -c a.c",
        "gcc -Wall -fdiagnostics-format=sarif-stderr -c a.c",
        "gcc -Wall -fdiagnostics-format=sarif-file -c a.c -o out/a.o",
        "gcc -Wall -fno-diagnostics-show-caret -fmessage-length=30 -c a.c",
        "gcc -Wall -fdiagnostics-generate-patch -fdiagnostics-parseable-fixits -c a.c",
        "clang -Wall -fdiagnostics-format=msvc -c a.c",
        "clang -Wall -fdiagnostics-format=vi -fdiagnostics-show-category=name -c a.c",
        "clang -Wall -fdiagnostics-print-source-range-info -fansi-escape-codes -fcolor-diagnostics -c a.c",
        "clang -Wall --serialize-diagnostics out/a.dia -c a.c",
    ] {
        for _ in 0..3 {
            s.step(Expect::Anything, line);
        }
        s.edit(clean);
        s.step(Expect::Hit, line);
    }
}

#[test]
fn random_numbers_that_are_given() {
    for tool in ["gcc", "g++"] {
        let mut s = with(&[
            ("a.c", "namespace { int hidden() { return H; } }\nint f() { return hidden(); }\n"),
            ("h.h", "#define H 3\n"),
            ("out/keep", ""),
        ]);
        for seed in ["1", "2", "text"] {
            comes_back(&mut s, &format!("{tool} -x c++ -include h.h -flto -frandom-seed={seed} -c a.c"));
        }
        comes_back(&mut s, &format!("{tool} -x c++ -include h.h -g -frecord-gcc-switches -c a.c"));
    }
}

/// Profiles are looked for by names made of the output's, the directory's and the working directory's.
#[test]
fn profiles_that_appear_where_they_are_looked_for() {
    let mut s = project();
    let here = s.sandbox.work().display().to_string();
    let mangled = format!("{here}/a.gcda").replace('/', "#");
    let lines = [
        ("-fprofile-use", "a.gcda".to_owned()),
        ("-fprofile-use=prof", format!("prof/{mangled}")),
        ("-fprofile-use=prof/a.gcda", "prof/a.gcda".to_owned()),
        ("-fprofile-dir=prof -fprofile-use", format!("prof/{mangled}")),
    ];
    s.edit(|w| fs::create_dir(w.join("prof")).unwrap());
    for (flags, profile) in lines {
        let line = format!("gcc -O2 -Wall -Wmissing-profile {flags} -c a.c");
        for _ in 0..2 {
            s.step(Expect::Anything, &line);
        }
        s.step(Expect::Hit, &line);
        s.write_at(&profile, "no profile", THEN);
        s.step(Expect::Anything, &line);
        s.step(Expect::Anything, &line);
        s.remove(&profile);
        s.step(Expect::Anything, &line);
        s.step(Expect::Hit, &line);
    }
    for line in [
        "gcc -w -O1 -fprofile-generate -fprofile-update=single -frandom-seed=1 -c a.c -o out/a.o",
        "gcc -w -O1 -fprofile-generate=some/where -frandom-seed=1 -c a.c",
        "gcc -w -fprofile-arcs -ftest-coverage -frandom-seed=1 -fprofile-dir=d -c a.c -o out/a.o",
        "gcc -w --coverage -fprofile-abs-path -frandom-seed=1 -c a.c",
        "clang -w -fprofile-generate=some/where -c a.c",
        "clang -w --coverage -c a.c -o out/a.o",
        "clang -w -fprofile-instr-generate=x.profraw -fcoverage-mapping -c a.c",
    ] {
        comes_back(&mut s, line);
    }
}

/// A profile of samples as gcc reads it: words of 32 bits, names, and one function that was seen `count` times.
fn samples(count: u64) -> Vec<u8> {
    let word = |value: u32| value.to_le_bytes().to_vec();
    let counter = |value: u64| value.to_le_bytes().to_vec();
    let mut names = word(2);
    for name in ["f\0", "main\0"] {
        names.extend(word(name.len() as u32));
        names.extend(name.as_bytes());
    }
    // How often it was entered; its name, two places, no calls; each place: offset, no targets, count.
    let mut functions = word(1);
    functions.extend(counter(count));
    functions.extend([0, 2, 0].map(word).concat());
    for offset in [0, 1 << 16] {
        functions.extend([offset, 0].map(word).concat());
        functions.extend(counter(count));
    }
    let mut profile: Vec<u8> = [0x6763_6461, 2, 0].into_iter().flat_map(word).collect();
    for (tag, section) in [(0xaa00_0000, names), (0xac00_0000, functions)] {
        profile.extend(word(tag));
        profile.extend(word(section.len() as u32 / 4));
        profile.extend(section);
    }
    profile
}

/// `-fauto-profile`, which clang knows as well: there, not there, edited in place with its old time, no profile.
#[test]
fn profiles_of_samples_are_inputs() {
    let text = |count: u64| format!("f:{count}:{count}\n 1: {count}\n").into_bytes();
    for (tool, cold, hot) in [("gcc", samples(1), samples(1_000_000)), ("clang -g", text(1), text(1_000_000))]
    {
        let mut s = project();
        let line = format!("{tool} -w -O2 -fauto-profile=p.prof -c a.c");
        let missing = s.step(Expect::Run, &line);
        assert!(!missing.success());
        s.write_at("p.prof", &cold, THEN);
        let first = s.step(Expect::Miss, &line);
        assert!(first.success(), "{first:?}");
        let object = |s: &Scenario| s.tree().file("a.o").unwrap().to_vec();
        let with_cold = object(&s);
        s.step(Expect::Hit, &line);
        s.rewrite("p.prof", &hot);
        s.step(Expect::Miss, &line);
        assert!(object(&s) != with_cold, "the profile shows nowhere");
        s.step(Expect::Hit, &line);
        s.rewrite("p.prof", &cold);
        s.step(Expect::Hit, &line);
        s.rewrite("p.prof", "none");
        s.step(Expect::Anything, &line);
        s.remove("p.prof");
        assert!(!s.step(Expect::Anything, &line).success());
    }
}

#[test]
fn options_of_clangs_inner_compiler() {
    let mut s = project();
    for line in [
        "clang -w -g -Xclang -main-file-name -Xclang other.c -c a.c",
        "clang -w -g -Xclang -fdebug-compilation-dir -Xclang /elsewhere -c a.c",
        "clang -w -c a.c -Xclang -dependency-dot -Xclang out/a.dot",
        "clang -w -c a.c -Xclang -fno-validate-pch -Xclang -disable-llvm-passes -emit-llvm",
        "clang -w -g -ffile-compilation-dir=/elsewhere -c a.c",
        "clang -w -O2 -foptimization-record-file=out/r.yaml -fsave-optimization-record -c a.c",
    ] {
        comes_back(&mut s, line);
    }
    for line in
        ["clang -w -working-directory out -c ../a.c", "clang -w -working-directory=out -c ../a.c -o a.o"]
    {
        s.step(Expect::PassThrough, line);
    }
}

/// gcc compiles twice, and compares.
#[test]
fn a_compile_that_checks_itself() {
    let mut s = project();
    for _ in 0..3 {
        s.step(Expect::Anything, "gcc -w -O2 -fcompare-debug -frandom-seed=1 -c a.c");
    }
    s.rewrite("h.h", "#define H 5\n");
    s.step(Expect::Run, "gcc -w -O2 -fcompare-debug -frandom-seed=1 -c a.c");
}

/// A crash leaves files with random names somewhere, and names them.
#[test]
fn a_compiler_that_crashes_is_not_remembered() {
    let mut s = with(&[("a.c", "#pragma clang __debug crash\n"), ("reports/keep", "")]);
    let quietly = |flags: &'static str, wrapped: bool| {
        move |sandbox: &Sandbox| {
            let mut shell = sandbox.command("sh");
            // Where clang writes what it wrote is in its messages, and so is a random number.
            shell.args([
                "-c",
                "\"$@\" 2>/dev/null; code=$?; rm -rf reports; mkdir reports; exit $code",
                "sh",
            ]);
            if wrapped {
                shell.arg(sandbox.wrapper([""; 0]).get_program());
            }
            shell.arg("clang").args(flags.split(' '));
            shell
        }
    };
    for flags in ["-c a.c -fno-crash-diagnostics", "-c a.c -fcrash-diagnostics-dir=reports"] {
        for _ in 0..2 {
            s.compare(Expect::NotStored, quietly(flags, false), quietly(flags, true));
        }
    }
}

/// Messages in a language that is there or not, of a width, with colours; and where temporaries go.
#[test]
fn variables_with_values_that_make_no_sense() {
    for tool in ["gcc", "clang"] {
        let mut s = project();
        let line = format!("{tool} -Wall -fdiagnostics-color=always -c a.c");
        for (name, values) in [
            ("COLUMNS", &["20", "0", "-1", "x"][..]),
            ("GCC_COLORS", &["", "error=01;31:warning=", "nonsense"]),
            ("LC_MESSAGES", &["de_DE.UTF-8", "xx"]),
            ("LANGUAGE", &["de:fr", ""]),
            ("LC_ALL", &["C.UTF-8", "", "POSIX"]),
            ("TERM", &["dumb", ""]),
            ("SOURCE_DATE_EPOCH", &["1", "x", "-1", "99999999999999999999"]),
        ] {
            let before = s.sandbox.var(name);
            for value in values {
                s.sandbox.set(name, value);
                s.step(Expect::Anything, &line);
                s.step(Expect::Anything, &line);
            }
            s.sandbox.unset(name);
            if !before.is_empty() {
                s.sandbox.set(name, before);
            }
        }
        for value in ["/not/there", "", "out", "a.c"] {
            s.sandbox.set("TMPDIR", value);
            for flags in ["", "-pipe", "-save-temps"] {
                let line = format!("{line} {flags}");
                s.step(Expect::Anything, line.trim());
                s.step(Expect::Anything, line.trim());
            }
        }
    }
}

/// `CCC_OVERRIDE_OPTIONS` can turn a command into any other one.
#[test]
fn options_that_clang_is_told_behind_our_backs() {
    let mut s = project();
    for value in
        ["#+-DX", "#^-S", "# O0", "#x-c +-E", "#+-o +out/other.o", "s/a.c/b.c/", "#+-MD", "+-march=native"]
    {
        s.sandbox.set("CCC_OVERRIDE_OPTIONS", value);
        for _ in 0..2 {
            s.step(Expect::Anything, "clang -w -c a.c");
        }
        s.edit(clean);
        s.step(Expect::Anything, "clang -w -c a.c");
    }
}

/// Configuration files of clang, named and in the user's directory, including others.
#[test]
fn configuration_files_that_include_others() {
    let mut s = project();
    s.write_at("conf/top.cfg", "@below.cfg\n-w\n", THEN);
    s.write_at("conf/below.cfg", "-DX=1\n", THEN);
    let here = s.sandbox.work().display().to_string();
    for line in [
        "clang --config conf/top.cfg -c a.c".to_owned(),
        format!("clang --config {here}/conf/top.cfg -c a.c"),
        "clang --config-user-dir=conf --config top.cfg -c a.c".to_owned(),
    ] {
        for _ in 0..2 {
            s.step(Expect::Anything, &line);
        }
        for text in ["-DX=2\n", "-O2\n", "-DX=1\n"] {
            s.rewrite("conf/below.cfg", text);
            s.step(Expect::Anything, &line);
            s.step(Expect::Anything, &line);
        }
        s.edit(|w| set_mtime(&w.join("conf/below.cfg"), THEN + 1));
        s.step(Expect::Anything, &line);
    }
}

/// A compile under a limit fails of that, and the next one without it must not.
#[test]
fn limits_of_the_caller_are_not_remembered() {
    let limited = |limit: &'static str, line: &'static str, wrapped: bool| {
        move |sandbox: &Sandbox| {
            let mut shell = sandbox.command("bash");
            // What a compiler says when it is out of something names addresses, and the shell names processes.
            shell.args([
                "-c",
                &format!("exec 2>said; {limit}; \"$@\"; code=$?; rm -f said; exit $code"),
                "bash",
            ]);
            if wrapped {
                shell.arg(sandbox.wrapper([""; 0]).get_program());
            }
            shell.args(line.split(' '));
            shell
        }
    };
    for line in ["gcc -w -g -O2 -c a.c", "clang -w -g -O2 -c a.c"] {
        for limit in ["ulimit -f 0", "ulimit -v 40000", "ulimit -n 4"] {
            let mut s = project();
            let limited_first =
                s.compare(Expect::Anything, limited(limit, line, false), limited(limit, line, true));
            s.compare(Expect::Anything, limited(limit, line, false), limited(limit, line, true));
            let free = s.compare(Expect::Anything, limited(":", line, false), limited(":", line, true));
            assert!(free.success(), "{limit}: {limited_first:?}, then {free:?}");
            s.compare(Expect::Hit, limited(":", line, false), limited(":", line, true));
        }
    }
}
