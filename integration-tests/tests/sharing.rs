//! Results made in one place and served in another: across output directories, working directories and checkouts.
//! Equal to bare in either place, whatever differs between them.

use std::path::Path;

use zccache_integration_tests::{Expect, Outcome, Scenario};

const TOOLS: [&str; 4] = ["gcc", "g++", "clang", "clang++"];

/// Two checkouts of one project, `one` and `two`, at paths of different lengths.
fn two_checkouts(files: &[(&str, &str)]) -> Scenario {
    let s = Scenario::new();
    for checkout in [ONE, TWO] {
        for (path, text) in files {
            s.write(&format!("{checkout}/{path}"), text);
        }
    }
    s
}

const ONE: &str = "one";
const TWO: &str = "deeper/and-longer/two";

const FILES: &[(&str, &str)] = &[
    ("a.c", "#include \"a.h\"\n#include <stddef.h>\nint f(int n) { int unused; return n + A; }\n"),
    ("inc/a.h", "#define A 1\n"),
    ("first/keep", ""),
    ("out/keep", ""),
    ("elsewhere/keep", ""),
];

/// One step in a directory of the project; `@` in the line stands for the directory's whole path.
#[track_caller]
fn step_in(s: &mut Scenario, directory: &str, expect: Expect, line: &str) -> Outcome {
    let whole = s.sandbox.work().join(directory).display().to_string();
    let words: Vec<String> = line.split_whitespace().map(|word| word.replace('@', &whole)).collect();
    s.step_in(directory, expect, &words)
}

/// The line is a miss in one checkout, and then as told in the other; and each has it from then on.
#[track_caller]
fn in_both(s: &mut Scenario, line: &str, in_two: Expect) {
    step_in(s, ONE, Expect::Miss, line);
    step_in(s, TWO, in_two, line);
    step_in(s, TWO, Expect::Hit, line);
    step_in(s, ONE, Expect::Hit, line);
}

#[test]
fn checkouts_share_what_is_built_with_relative_paths() {
    let mut s = two_checkouts(FILES);
    for tool in TOOLS {
        for flags in [
            "-c a.c",
            "-O2 -c a.c -o out/a.o",
            "-Wall -c a.c -o out/w.o",
            "-MD -MP -c a.c -o out/a.o",
            "-MMD -MT out/a.o -MF out/x.d -c a.c -o out/a.o",
            "-S a.c -o out/a.s",
            "-E a.c -o out/a.i",
            "-M a.c -MF out/a.d",
            "-fsyntax-only a.c",
            "-include missing.h -c a.c -o out/missing.o",
        ] {
            in_both(&mut s, &format!("{tool} -Ifirst -Iinc {flags}"), Expect::Hit);
        }
    }
}

#[test]
fn what_differs_between_checkouts_is_noticed() {
    let mut s = two_checkouts(FILES);
    for tool in TOOLS {
        let line = format!("{tool} -Ifirst -Iinc -c a.c -o out/a.o");
        in_both(&mut s, &line, Expect::Hit);
        s.write(&format!("{TWO}/inc/a.h"), "#define A 2\n");
        step_in(&mut s, TWO, Expect::Miss, &line);
        step_in(&mut s, ONE, Expect::Hit, &line);
        s.write(&format!("{ONE}/inc/a.h"), "#define A 2\n");
        step_in(&mut s, ONE, Expect::Hit, &line);
        s.write(&format!("{ONE}/first/a.h"), "#define A 3\n");
        step_in(&mut s, ONE, Expect::Miss, &line);
        step_in(&mut s, TWO, Expect::Hit, &line);
        s.remove(&format!("{ONE}/first/a.h"));
        for checkout in [ONE, TWO] {
            s.write(&format!("{checkout}/inc/a.h"), "#define A 1\n");
        }
    }
}

#[test]
fn with_plain_debug_information_each_checkout_has_its_own() {
    let mut s = two_checkouts(FILES);
    for tool in TOOLS {
        for flags in ["-g", "-g -gz", "-g1", "-gdwarf-4", "-g -flto -frandom-seed=1", "-g -S"] {
            in_both(&mut s, &format!("{tool} {flags} -Iinc -c a.c -o out/a.o"), Expect::Miss);
        }
        in_both(&mut s, &format!("{tool} -Iinc -c @/a.c -o out/a.o"), Expect::Miss);
    }
}

#[test]
fn prefix_maps_hide_the_place() {
    let mut s = two_checkouts(FILES);
    for tool in TOOLS {
        for flags in [
            "-g -fdebug-prefix-map=@=. -Iinc -c a.c",
            "-g -ffile-prefix-map=@=/src -Iinc -c a.c -o out/a.o",
            "-g -ffile-prefix-map=@=. -I@/first -I@/inc -c @/a.c -o @/out/a.o",
            "-g -fmacro-prefix-map=@=. -fdebug-prefix-map=@=. -I@/inc -MD -MP -c @/a.c -o @/out/b.o",
            "-g -ffile-prefix-map=@=. -I@/inc -MD -MT out/a.o -MF @/out/x.d -c @/a.c -o out/a.o",
        ] {
            in_both(&mut s, &format!("{tool} {flags}"), Expect::Hit);
        }
    }
}

/// What is left of a path when more than the checkout is taken away tells which checkout it was.
#[test]
fn a_map_of_more_than_the_checkout_hides_nothing() {
    let mut s = two_checkouts(FILES);
    let work = s.sandbox.work().display().to_string();
    for tool in TOOLS {
        for map in [format!("-fdebug-prefix-map={work}=."), format!("-ffile-prefix-map={}=/", &work[..6])] {
            in_both(&mut s, &format!("{tool} -g {map} -Iinc -c a.c"), Expect::Miss);
        }
        // Nor does one of macros hide debug information, and so on.
        in_both(&mut s, &format!("{tool} -g -fmacro-prefix-map=@=. -Iinc -c a.c"), Expect::Miss);
        in_both(&mut s, &format!("{tool} -fdebug-prefix-map=@=. -Iinc -c @/a.c"), Expect::Miss);
    }
}

/// The name of a file can enter a result in ways that no search of bytes finds.
#[test]
fn a_whole_path_that_is_only_counted_or_taken_apart_is_not_shared() {
    let mut s = two_checkouts(&[
        ("a.c", "int n = sizeof __FILE__; char c = __FILE__[sizeof __FILE__ / 2];\n#include \"b.h\"\n"),
        ("inc/b.h", "int m = sizeof(__FILE__) + sizeof(PLACE);\n"),
    ]);
    for tool in TOOLS {
        for line in
            ["-DPLACE=\"\" -Iinc -c @/a.c", "-DPLACE=\"\" -I@/inc -c a.c", "-DPLACE=\"@\" -Iinc -c a.c"]
        {
            in_both(&mut s, &format!("{tool} {line} -o a.o"), Expect::Miss);
        }
        // Relative, it is the same in both.
        in_both(&mut s, &format!("{tool} -DPLACE=\"\" -Iinc -c a.c -o a.o"), Expect::Hit);
    }
}

/// A text that names a file of one checkout means that file from wherever it is read.
#[test]
fn a_whole_path_within_a_text_means_what_it_says() {
    let mut s = two_checkouts(&[("inc/a.h", "#define A 1\n"), ("out/keep", "")]);
    let named = s.sandbox.work().join(ONE).join("inc/a.h").display().to_string();
    let absent = s.sandbox.work().join(ONE).join("absent.h").display().to_string();
    let text = format!(
        "#include \"{named}\"\n#if __has_include(\"{absent}\")\nint present;\n#endif\nint f(void) {{ return A; }}\n"
    );
    for checkout in [ONE, TWO] {
        s.write(&format!("{checkout}/a.c"), &text);
    }
    for tool in TOOLS {
        let line = format!("{tool} -ffile-prefix-map=@=. -c a.c -o out/a.o");
        s.write(&format!("{ONE}/inc/a.h"), "#define A 1\n");
        in_both(&mut s, &line, Expect::Run);
        // The file that `two` reads is that of `one`; its own says something else.
        s.write(&format!("{ONE}/inc/a.h"), "#define A 2\n");
        step_in(&mut s, TWO, Expect::Miss, &line);
        step_in(&mut s, ONE, Expect::Run, &line);
        s.write(&format!("{ONE}/absent.h"), "");
        step_in(&mut s, TWO, Expect::Miss, &line);
        s.remove(&format!("{ONE}/absent.h"));
    }
}

#[test]
fn what_lies_outside_of_the_directory_is_each_requesters_own() {
    let s = Scenario::new();
    for (place, number) in [("here/p", 1), ("there/p", 2), ("here/far/q/p", 3)] {
        s.write(
            &format!("{place}/a.c"),
            "#include \"../shared/s.h\"\n#include \"l.h\"\nint f(void) { return S + L; }\n",
        );
        s.write(&format!("{place}/../shared/s.h"), format!("#define S {number}\n"));
        s.write(&format!("{place}/../shared/l.h"), format!("#define L {number}\n"));
    }
    s.edit(|work| {
        for place in ["here/p", "there/p", "here/far/q/p"] {
            std::os::unix::fs::symlink("../shared", work.join(place).join("inc")).unwrap();
        }
    });
    let mut s = s;
    for tool in TOOLS {
        for flags in ["-I../shared", "-Iinc", "-isystem ../shared", "-isystem inc"] {
            let line = format!("{tool} {flags} -c a.c -o a.o");
            for place in ["here/p", "there/p", "here/far/q/p"] {
                step_in(&mut s, place, Expect::Miss, &line);
            }
            s.write("there/shared/l.h", "#define L 1\n");
            s.write("there/shared/s.h", "#define S 1\n");
            step_in(&mut s, "there/p", Expect::Run, &line);
            s.write("there/shared/l.h", "#define L 2\n");
            s.write("there/shared/s.h", "#define S 2\n");
            step_in(&mut s, "there/p", Expect::Hit, &line);
        }
    }
}

/// With a repository around them, build directories may look at what is beside them.
#[test]
fn checkouts_of_a_repository_share_from_their_build_directories() {
    let mut s = two_checkouts(FILES);
    for checkout in [ONE, TWO] {
        s.write(&format!("{checkout}/.git"), "gitdir: elsewhere\n");
        s.write(&format!("{checkout}/build/x/keep"), "");
    }
    let build = [format!("{ONE}/build/x"), format!("{TWO}/build/x")];
    let work = s.sandbox.work();
    for tool in TOOLS {
        for flags in ["-c ../../a.c", "-MD -O1 -c ../../a.c -o a2.o"] {
            let line = format!("{tool} -I../../first -I../../inc {flags}");
            step_in(&mut s, &build[0], Expect::Miss, &line);
            step_in(&mut s, &build[1], Expect::Hit, &line);
            // Elsewhere within the checkout, `..` is another directory.
            step_in(&mut s, &format!("{ONE}/build"), Expect::Run, &line);
        }
        let lines = [ONE, TWO].map(|checkout| {
            let root = work.join(checkout).display().to_string();
            format!("{tool} -g -ffile-prefix-map={root}=. -I{root}/inc -MD -c {root}/a.c -o a.o")
        });
        step_in(&mut s, &build[0], Expect::Miss, &lines[0]);
        step_in(&mut s, &build[1], Expect::Hit, &lines[1]);
        s.write(&format!("{TWO}/inc/a.h"), "#define A 7\n");
        step_in(&mut s, &build[1], Expect::Miss, &lines[1]);
        step_in(&mut s, &build[0], Expect::Hit, &lines[0]);
        s.write(&format!("{TWO}/inc/a.h"), "#define A 1\n");
    }
}

#[test]
fn output_directories_share() {
    let mut s = two_checkouts(FILES);
    let link =
        |work: &Path| std::os::unix::fs::symlink("a.o", work.join(ONE).join("elsewhere/linked.o")).unwrap();
    s.edit(link);
    for tool in TOOLS {
        for (number, flags) in [
            "-g -c a.c -o #/a.o",
            "-c a.c -o #/other.o",
            "-MD -c a.c -o #/a.o",
            "-MMD -MP -MF #/rules -c a.c -o #/a.o",
            "-MD -MT #/a.o -MQ #/twice.o -c a.c -o #/b.o",
            "-g -c a.c -o @/#/a.o",
            "-c a.c -o ./#//a.o",
        ]
        .into_iter()
        .enumerate()
        {
            let line = format!("{tool} -DN={number} -Iinc {flags}");
            step_in(&mut s, ONE, Expect::Miss, &line.replace('#', "out"));
            let expect = if flags.contains("twice") { Expect::Miss } else { Expect::Hit };
            step_in(&mut s, ONE, expect, &line.replace('#', "elsewhere"));
        }
        for flags in [
            "-g -gsplit-dwarf -c a.c -o #/a.o",
            "-fstack-usage -c a.c -o #/a.o",
            "-c a.c -o #/a.o -save-temps=obj",
            "-c a.c -Wp,-MD,#/wp.d -o x.o",
            "-c a.c -o #/missing/a.o",
            "-c a.c -o #/linked.o",
        ] {
            let line = format!("{tool} -Iinc {flags}");
            step_in(&mut s, ONE, Expect::Anything, &line.replace('#', "out"));
            step_in(&mut s, ONE, Expect::Anything, &line.replace('#', "elsewhere"));
        }
    }
}

/// Names of outputs in results: recorded commands, targets of rules that are called after the source, are given, or would
/// be written otherwise than they were given. One output after the other, so that each can be served what another made.
#[test]
fn results_that_name_their_outputs_are_each_requests_own() {
    let mut s = Scenario::new();
    s.write("a.c", "#include \"h.h\"\nint f(int n) { return n * H; }\n");
    s.write("h.h", "#define H 1\n");
    s.write("out/keep", "");
    for line in [
        "clang -g -grecord-command-line -c a.c -o @",
        "gcc -g -grecord-gcc-switches -c a.c -o @",
        "gcc -M a.c -o @",
        "clang -M a.c -o @",
        "gcc -MD -E a.c -o @",
        "clang -MD -E a.c -o @",
        "gcc -MD -S a.c -o @",
        "gcc -MD -fsyntax-only a.c -MF @",
        "gcc -MD -MT a.o -c a.c -MF rules.d -o @",
        "gcc -MD -MT ./a.o -c a.c -MF rules.d -o @",
        "clang -MD -MT ./a.o -c a.c -MF rules.d -o @",
        "gcc -Wp,-MMD,rules.d,-MT,a.o -c a.c -o @",
        "gcc -MD -MP -MT @ -MT @.d -c a.c -MF @.d -o @",
        "clang -MD -MP -MT @ -MT @.d -c a.c -MF @.d -o @",
    ] {
        for output in
            ["a.o", "out/b.o", "out/a_name_that_is_much_longer_than_the_others_are.o", "./c.o", "a.d"]
        {
            s.step(Expect::Anything, &line.replace('@', output));
            s.step(Expect::Hit, &line.replace('@', output));
        }
    }
}

/// A directory has another name: what compilers make of `PWD` is not shared with those who have only one.
#[test]
fn another_name_of_the_directory_is_not_taken_for_the_first() {
    let mut s = two_checkouts(FILES);
    s.edit(|work| std::os::unix::fs::symlink(ONE, work.join("alias")).unwrap());
    let alias = s.sandbox.work().join("alias");
    for tool in TOOLS {
        let line = format!("{tool} -g -Iinc -ffile-prefix-map=@=. -c a.c -o out/a.o");
        step_in(&mut s, ONE, Expect::Miss, &line);
        s.sandbox.set("PWD", &alias);
        step_in(&mut s, ONE, Expect::Miss, &line);
        s.sandbox.unset("PWD");
        step_in(&mut s, "alias", Expect::Run, &line);
        step_in(&mut s, TWO, Expect::Hit, &line);
    }
}
