//! Ways of using a compiler: cached where what it does can be observed, else passed through; equal to bare either way.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use zccache_integration_tests::{Expect, Sandbox, Scenario};

/// A time in the past (seconds since the epoch): precompiled headers hold their inputs' times.
const THEN: u64 = 1_400_000_000;

fn with(files: &[(&str, &str)]) -> Scenario {
    let s = Scenario::new();
    for (path, text) in files {
        s.write_at(path, text, THEN);
    }
    s
}

const USES_H: &str = "#include \"h.h\"\nint f(void) { return H; }\n";

/// Each line is another request, with its own result, in whatever order.
fn all_differ(s: &mut Scenario, lines: &[&str]) {
    for expect in [Expect::Miss, Expect::Hit] {
        for line in lines {
            s.step(expect, line);
        }
    }
}

#[test]
fn repeated_and_contradicting_flags_count_in_their_order() {
    let mut s = with(&[
        ("a.c", "#include <h.h>\n#ifdef A\nint a = A;\n#endif\nint f(int n) { return n * 3 + H; }\n"),
        ("one/h.h", "#define H 1\n"),
        ("two/h.h", "#define H 2\n"),
    ]);
    for tool in ["gcc", "clang"] {
        let lines = [
            "-w -Ione -Itwo -DA=1 -UA -c a.c",
            "-w -Ione -Itwo -UA -DA=1 -c a.c",
            "-w -Itwo -Ione -DA=1 -UA -c a.c",
            "-w -Ione -isystem two -c a.c",
            "-w -isystem one -Itwo -c a.c",
            "-w -Ione -DA=1 -DA=2 -c a.c",
            "-w -Ione -DA=2 -DA=1 -c a.c",
            "-w -Ione -O0 -O2 -c a.c",
            "-w -Ione -O2 -O0 -c a.c",
            "-w -Ione -g -g0 -c a.c",
            "-w -Ione -g0 -g -c a.c",
            "-w -Ione -fPIC -fno-PIC -c a.c",
            "-w -Ione -fno-PIC -fPIC -c a.c",
        ];
        let lines: Vec<String> = lines.iter().map(|l| format!("{tool} {l}")).collect();
        all_differ(&mut s, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn the_last_of_several_outputs_counts_and_so_does_the_spelling() {
    let mut s = with(&[("a.c", USES_H), ("h.h", "#define H 1\n"), ("out/keep", "")]);
    for tool in ["gcc", "clang"] {
        for line in
            ["-c a.c -o one.o -o two.o", "-c a.c -oone.o", "-o two.o a.c -c", "-c a.c --output=three.o"]
        {
            for _ in 0..2 {
                s.step(Expect::Anything, &format!("{tool} {line}"));
            }
        }
    }
}

#[test]
fn values_of_prefix_maps_count() {
    let mut s = with(&[("d/a.c", "const char *f = __FILE__;\nint g(void) { return 1; }\n")]);
    let work = s.sandbox.work().display().to_string();
    for tool in ["gcc", "clang"] {
        let lines: Vec<String> = [
            format!("-g -fdebug-prefix-map={work}=one"),
            format!("-g -fdebug-prefix-map={work}=two"),
            format!("-g -ffile-prefix-map={work}=one"),
            "-fmacro-prefix-map=d=one".into(),
            "-fmacro-prefix-map=d=two".into(),
            "-g -ffile-prefix-map=d=one -ffile-prefix-map=d=two".into(),
            "-g -ffile-prefix-map=d=two -ffile-prefix-map=d=one".into(),
        ]
        .iter()
        .map(|flags| format!("{tool} {flags} -c d/a.c"))
        .collect();
        all_differ(&mut s, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn the_language_is_what_the_command_says() {
    let mut s = with(&[
        ("a.c", "#ifdef __cplusplus\nint cplusplus;\n#else\nint c;\n#endif\n"),
        ("b.txt", "int b;\n"),
        ("c.cc", "extern \"C\" int c() { return 1; }\n"),
    ]);
    for tool in ["gcc", "clang"] {
        for (line, expect) in [
            ("-c a.c", Expect::Miss),
            ("-x c++ -c a.c", Expect::Miss),
            ("-x c -c b.txt", Expect::Miss),
            ("-c -xc++ b.txt", Expect::Miss),
            ("-x c++ -c a.c", Expect::Hit),
            ("-x assembler -c a.c", Expect::Anything),
            ("-x none -c a.c", Expect::Anything),
            ("-x nonsense -c a.c", Expect::Anything),
            ("-c b.txt", Expect::Anything),
            ("-c c.cc", Expect::Miss),
        ] {
            s.step(expect, &format!("{tool} -pipe {line}"));
        }
    }
}

/// The source is on standard input: from a file, or from a pipe whose writer is done, it is part of the request.
#[test]
fn a_source_on_standard_input_is_cached_by_what_it_says() {
    let mut s =
        with(&[("h.h", "#define H 1\n"), ("one.c", USES_H), ("two.c", "int two;\n"), ("bad.c", "bad\n")]);
    for tool in ["gcc", "g++", "clang", "clang++"] {
        for (script, expect) in [
            ("$@ < one.c", Expect::Miss),
            ("$@ < two.c", Expect::Miss),
            ("$@ < one.c", Expect::Hit),
            ("cat one.c | $@", Expect::Hit),
            ("cat two.c | $@", Expect::Hit),
            // What becomes of an older output is clang's business; where there is none, the failure is kept.
            ("cat bad.c | $@", Expect::Run),
            ("cat bad.c | $@", Expect::Anything),
            ("cat bad.c | $@", Expect::Hit),
            // What stands before is not read, and what is left after is nothing.
            ("{ read -r line; $@; cat; } < one.c", Expect::Anything),
            ("{ $@; cat; } < one.c", Expect::Hit),
            ("cat one.c | { $@; cat; }", Expect::Hit),
            // Too slow, too long, closed, a socket or device: left to the compiler.
            ("{ cat one.c; sleep 0.4; echo 'int late;'; } | $@", Expect::PassThrough),
            ("{ cat one.c; seq 1 400000 | sed s,^,//,; } | $@", Expect::PassThrough),
            ("$@ <&-", Expect::PassThrough),
            ("$@ < /dev/null", Expect::PassThrough),
        ] {
            let command = |wrapped: bool| {
                move |sandbox: &Sandbox| {
                    let words =
                        [tool, "-x", if tool.ends_with('+') { "c++" } else { "c" }, "-c", "-", "-o", "out.o"];
                    let mut shell = sandbox.command("sh");
                    shell.args(["-c", script, "sh"]);
                    if wrapped {
                        shell.arg(sandbox.wrapper([""; 0]).get_program());
                    }
                    shell.args(words);
                    shell
                }
            };
            s.compare(expect, command(false), command(true));
        }
        s.rewrite("h.h", "#define H 2\n");
        let from_file = |wrapped: bool| {
            move |sandbox: &Sandbox| {
                let mut command = if wrapped { sandbox.wrapper([tool]) } else { sandbox.command(tool) };
                let input = fs::File::open(sandbox.work().join("one.c")).unwrap();
                command.args(["-x", "c", "-c", "-"]).stdin(Stdio::from(input));
                command
            }
        };
        s.compare(Expect::Miss, from_file(false), from_file(true));
        s.compare(Expect::Hit, from_file(false), from_file(true));
    }
}

/// A source that is a file, while something else is on standard input: nobody reads that.
#[test]
fn standard_input_does_not_matter_to_who_does_not_read_it() {
    let mut s = with(&[("a.c", "int a;\n"), ("input", "text")]);
    let with_input = |wrapped: bool| {
        move |sandbox: &Sandbox| {
            let mut command = if wrapped { sandbox.wrapper(["gcc"]) } else { sandbox.command("gcc") };
            let input = fs::File::open(sandbox.work().join("input")).unwrap();
            command.args(["-c", "a.c"]).stdin(Stdio::from(input));
            command
        }
    };
    s.compare(Expect::Miss, with_input(false), with_input(true));
    s.compare(Expect::Hit, with_input(false), with_input(true));
}

#[test]
fn failing_compiles_of_every_kind_fail_the_same_way() {
    let mut s = with(&[
        ("syntax.c", "int f( {\n"),
        ("missing.c", "#include \"missing.h\"\n"),
        ("error.c", "#error no\n"),
        ("werror.c", "int f(void) { int unused; return 0; }\n"),
        ("many.c", &"x y;\n".repeat(50)),
        ("asm.s", "\tnonsense %eax\n"),
        ("deep.c", "#include \"deep.c\"\n"),
        ("empty.c", ""),
    ]);
    for tool in ["gcc", "clang"] {
        for line in [
            "-c syntax.c",
            "-c missing.c",
            "-c error.c",
            "-Wall -Werror -c werror.c",
            "-c many.c",
            "-c asm.s",
            "-c deep.c",
            "-c empty.c",
            "-c nowhere.c",
            "-std=c1066 -c empty.c",
            "-c empty.c -o",
        ] {
            let line = format!("{tool} {line}");
            let first = s.step(Expect::Anything, &line);
            assert_eq!(s.step(Expect::Anything, &line), first, "{line}");
        }
        s.step(Expect::Hit, &format!("{tool} -c syntax.c"));
        s.write("missing.h", "int here;\n");
        s.step(Expect::Miss, &format!("{tool} -c missing.c"));
        s.remove("missing.h");
        s.step(Expect::Anything, &format!("{tool} -c missing.c"));
    }
}

/// A compiler that is killed, or kills itself: the status is the tool's, and nothing is stored.
#[test]
fn a_compiler_that_dies_of_a_signal_is_not_stored() {
    let mut s = with(&[("a.c", "int a;\n")]);
    s.script("bin/gcc", "kill -SEGV $$");
    let line = format!("{} -c a.c", s.sandbox.work().join("bin/gcc").display());
    for _ in 0..2 {
        let outcome = s.step(Expect::NotStored, &line);
        assert_eq!(outcome.status, -11);
    }
}

/// Where the project lies is part of the result only where it shows.
#[test]
fn the_same_project_elsewhere_gets_its_own_paths() {
    for (flags, shows) in [("-g", true), ("-DP=__FILE__", false), ("--coverage", true), ("-MD", false)] {
        let mut s = Scenario::new();
        for directory in ["one", "two"] {
            s.write(&format!("{directory}/a.c"), USES_H);
            s.write(&format!("{directory}/h.h"), "#define H 1\n");
        }
        let within = |directory: &'static str, wrapped: bool| {
            move |sandbox: &Sandbox| -> Command {
                let mut command = if wrapped { sandbox.wrapper(["gcc"]) } else { sandbox.command("gcc") };
                command
                    .args(["-frandom-seed=1", flags, "-c", "a.c"])
                    .current_dir(sandbox.work().join(directory));
                command
            }
        };
        s.compare(Expect::Miss, within("one", false), within("one", true));
        let other = if shows { Expect::Run } else { Expect::Anything };
        s.compare(other, within("two", false), within("two", true));
        s.write("two/h.h", "#define H 2\n");
        s.compare(Expect::Run, within("two", false), within("two", true));
        s.compare(Expect::Hit, within("one", false), within("one", true));
    }
}

#[test]
fn two_checkouts_of_absolute_paths_each_get_their_own() {
    let mut s = Scenario::new();
    for directory in ["one", "two"] {
        s.write(&format!("{directory}/a.c"), "const char *f = __FILE__;\n");
    }
    let line = |s: &Scenario, d: &str| {
        let path: std::path::PathBuf = s.sandbox.work().join(d);
        format!("gcc -g -c {0}/a.c -o {0}/a.o", Path::new(&path).display())
    };
    for expect in [Expect::Miss, Expect::Hit] {
        for directory in ["one", "two"] {
            let line = line(&s, directory);
            s.step(expect, &line);
        }
    }
}
