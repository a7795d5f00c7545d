//! Where compilers look for things, by options that say so in roundabout ways: every place counts, and what it is called.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use zccache_integration_tests::scenario::set_mtime;
use zccache_integration_tests::{Expect, Scenario};

/// A time in the past (seconds since the epoch), the same in both twins.
const THEN: u64 = 1_400_000_000;

const TOOLS: [&str; 4] = ["gcc", "g++", "clang", "clang++"];

fn with(files: &[(&str, &str)]) -> Scenario {
    let s = Scenario::new();
    for (path, text) in files {
        s.write_at(path, text, THEN);
    }
    s
}

/// Stored sooner or later and then served: what has been seen of links may have to be watched first.
#[track_caller]
fn settles(s: &mut Scenario, line: &str) {
    for _ in 0..3 {
        s.step(Expect::Anything, line);
    }
    s.step(Expect::Hit, line);
}

/// `change` makes another result; it is noticed, and so is that it was taken back.
#[track_caller]
fn flips(s: &mut Scenario, line: &str, change: impl Fn(&Path), back: impl Fn(&Path)) {
    settles(s, line);
    let before = s.tree();
    s.edit(change);
    s.step(Expect::Run, line);
    assert!(s.tree() != before, "the change shows nowhere: {line}");
    settles(s, line);
    s.edit(back);
    s.step(Expect::Anything, line);
    s.step(Expect::Hit, line);
}

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    set_mtime(path, THEN);
}

const USES_H: &str = "#include <h.h>\nint f(void) { return H; }\n";

/// Directories behind links and `..`, of which a part goes or leads elsewhere.
#[test]
fn a_search_directory_by_way_of_links_and_parents() {
    for tool in TOOLS {
        let mut s = with(&[
            ("a.c", USES_H),
            ("one/sub/keep", ""),
            ("two/sub/keep", ""),
            ("one/inc/h.h", "#define H 1\n"),
            ("two/inc/h.h", "#define H 2\n"),
            ("last/h.h", "#define H 3\n"),
        ]);
        s.edit(|w| symlink("one/sub", w.join("way")).unwrap());
        let retarget = |to: &'static str| {
            move |w: &Path| {
                fs::remove_file(w.join("way")).unwrap();
                symlink(to, w.join("way")).unwrap();
            }
        };
        flips(
            &mut s,
            &format!("{tool} -Iway/../inc -Ilast -c a.c"),
            retarget("two/sub"),
            retarget("one/sub"),
        );
        flips(
            &mut s,
            &format!("{tool} -Ione/sub/../inc -Ilast -c a.c"),
            |w| fs::rename(w.join("one/sub"), w.join("one/gone")).unwrap(),
            |w| fs::rename(w.join("one/gone"), w.join("one/sub")).unwrap(),
        );
        flips(
            &mut s,
            &format!("{tool} -Iearly/../missing -Ilast -c a.c"),
            |w| {
                fs::create_dir(w.join("early")).unwrap();
                put(&w.join("missing/h.h"), "#define H 4\n");
            },
            |w| fs::remove_dir(w.join("early")).unwrap(),
        );
    }
}

/// Two names of one directory are one entry of the search path, as `#include_next` shows; a directory of its own under
/// the second name is another one.
#[test]
fn a_search_directory_that_was_another_name_of_an_earlier_one() {
    for tool in TOOLS {
        let mut s = with(&[
            ("a.c", USES_H),
            ("one/h.h", "#ifndef ONCE\n#define ONCE\n#include_next <h.h>\n#else\n#define H 1\n#endif\n"),
            ("last/h.h", "#define H 3\n"),
        ]);
        s.edit(|w| symlink("one", w.join("two")).unwrap());
        flips(
            &mut s,
            &format!("{tool} -Ione -Itwo -Ilast -c a.c"),
            |w| {
                fs::remove_file(w.join("two")).unwrap();
                put(&w.join("two/h.h"), "#define H 2\n");
            },
            |w| {
                fs::remove_dir_all(w.join("two")).unwrap();
                symlink("one", w.join("two")).unwrap();
            },
        );
    }
}

/// A directory that is given for system headers as well is searched as such alone.
#[test]
fn a_search_directory_that_was_another_name_of_a_system_one() {
    for tool in TOOLS {
        let mut s = with(&[("a.c", USES_H), ("one/h.h", "#define H 1\n"), ("user/h.h", "#define H 2\n")]);
        s.edit(|w| symlink("one", w.join("two")).unwrap());
        flips(
            &mut s,
            &format!("{tool} -Itwo -Iuser -isystem one -c a.c"),
            |w| {
                fs::remove_file(w.join("two")).unwrap();
                put(&w.join("two/h.h"), "#define H 4\n");
            },
            |w| {
                fs::remove_dir_all(w.join("two")).unwrap();
                symlink("one", w.join("two")).unwrap();
            },
        );
    }
}

#[test]
fn prefixes_system_roots_and_what_comes_last() {
    for tool in TOOLS {
        let mut s = with(&[("a.c", USES_H), ("last/h.h", "#define H 9\n"), ("root/keep", "")]);
        let here = s.sandbox.work().display().to_string();
        let mut lines = vec![
            (format!("-iprefix {here}/p/ -iwithprefixbefore inc -idirafter last"), "p/inc/h.h"),
            ("-iprefix p/ -iwithprefix inc -idirafter last".into(), "p/inc/h.h"),
            ("--sysroot=root -I=/inc -idirafter last".into(), "root/inc/h.h"),
            ("--sysroot root -idirafter last".into(), "root/usr/include/h.h"),
            ("-idirafter early -idirafter last".into(), "early/h.h"),
        ];
        if tool.starts_with('g') {
            // clang takes this for a directory called `=`.
            lines.push(("-isysroot root -idirafter last".into(), "root/usr/include/h.h"));
            lines.push(("--sysroot=root -nostdinc -isystem =/sys -idirafter last".into(), "root/sys/h.h"));
        } else {
            lines.push(("-isysroot root -iwithsysroot /with -idirafter last".into(), "root/with/h.h"));
        }
        for (flags, header) in lines {
            flips(
                &mut s,
                &format!("{tool} {flags} -c a.c"),
                |w| put(&w.join(header), "#define H 5\n"),
                |w| fs::remove_file(w.join(header)).unwrap(),
            );
        }
    }
}

/// `-include`: found in the working directory, or along the search path, or not at all.
#[test]
fn a_forced_header_that_is_missing_appears_here_or_there() {
    for tool in TOOLS {
        let mut s = with(&[("a.c", "int f(void) { return H; }\n"), ("inc/keep", ""), ("quote/keep", "")]);
        let line = format!("{tool} -iquote quote -Iinc -include forced.h -c a.c");
        let missing = s.step(Expect::Run, &line);
        assert!(!missing.success());
        for place in ["inc/forced.h", "quote/forced.h", "forced.h"] {
            s.write_at(place, format!("#define H {}\n", place.len()), THEN);
            let found = s.step(Expect::Run, &line);
            assert!(found.success(), "{found:?}");
            settles(&mut s, &line);
        }
        for place in ["forced.h", "quote/forced.h"] {
            s.remove(place);
            s.step(Expect::Anything, &line);
            s.step(Expect::Hit, &line);
        }
        s.remove("inc/forced.h");
        assert!(!s.step(Expect::Anything, &line).success());
    }
}

/// An argument `@file` without such a file is a file's name; with it, it is what it says.
#[test]
fn a_response_file_that_was_not_there() {
    for tool in TOOLS {
        let mut s = with(&[("a.c", "#ifdef X\nint x;\n#endif\nint a;\n")]);
        let line = format!("{tool} -c a.c @later");
        s.step(Expect::Anything, &line);
        s.step(Expect::Anything, &line);
        s.write_at("later", "-DX", THEN);
        s.step(Expect::Run, &line);
        s.step(Expect::Hit, &line);
        s.rewrite("later", "-DY");
        s.step(Expect::Run, &line);
        s.remove("later");
        s.step(Expect::Anything, &line);
    }
}

/// gcc's driver looks into the directories of `-B` for programs and for specs.
#[test]
fn programs_and_specs_that_appear_in_a_directory_of_b() {
    let mut s = with(&[("a.c", "int a;\n"), ("b/keep", "")]);
    for tool in ["gcc -Bb/", "clang -fno-integrated-as -Bb/"] {
        let line = format!("{tool} -c a.c");
        settles(&mut s, &line);
        s.script("b/as", "echo mine >&2; exec as \"$@\"");
        let mine = s.step(Expect::Run, &line);
        assert!(mine.err().contains("mine"), "{mine:?}");
        settles(&mut s, &line);
        s.rewrite("b/as", "#!/bin/sh\necho mime >&2; exec as \"$@\"\n");
        let mine = s.step(Expect::Run, &line);
        assert!(mine.err().contains("mime"), "{mine:?}");
        s.remove("b/as");
        s.step(Expect::Hit, &line);
    }
    let line = "gcc -Bb/ -c a.c";
    s.step(Expect::Anything, line);
    s.write_at("b/specs", "*cpp:\n-DSPECS=1\n\n", THEN);
    s.step(Expect::Run, line);
    s.step(Expect::Anything, line);
    s.remove("b/specs");
    s.step(Expect::Anything, line);
}

/// A directory that is missing, or is none, is worth a warning.
#[test]
fn warnings_of_missing_search_directories_come_and_go() {
    for tool in TOOLS {
        let mut s = with(&[("a.c", "int a;\n")]);
        let line = format!("{tool} -Wmissing-include-dirs -Imaybe -isystem also -c a.c");
        settles(&mut s, &line);
        s.edit(|w| fs::create_dir(w.join("maybe")).unwrap());
        s.step(Expect::Anything, &line);
        settles(&mut s, &line);
        s.edit(|w| {
            fs::remove_dir(w.join("maybe")).unwrap();
            fs::write(w.join("maybe"), "a file").unwrap();
        });
        s.step(Expect::Anything, &line);
        s.step(Expect::Hit, &line);
    }
}

/// clang's overlays tell it of files that lie elsewhere.
#[test]
fn files_of_an_overlay_are_where_it_says() {
    let mut s = with(&[("a.c", USES_H), ("real/one.h", "#define H 1\n"), ("real/two.h", "#define H 2\n")]);
    let here = s.sandbox.work().display().to_string();
    let overlay = |to: &str| {
        format!(
            "{{ \"version\": 0, \"roots\": [ {{ \"type\": \"directory\", \"name\": \"{here}/virtual\", \"contents\": \
             [ {{ \"type\": \"file\", \"name\": \"h.h\", \"external-contents\": \"{here}/real/{to}.h\" }} ] }} ] }}\n"
        )
    };
    s.write_at("overlay.yaml", overlay("one"), THEN);
    let line = format!("clang -ivfsoverlay overlay.yaml -I{here}/virtual -c a.c");
    s.step(Expect::Miss, &line);
    s.step(Expect::Hit, &line);
    s.rewrite("overlay.yaml", overlay("two"));
    s.step(Expect::Run, &line);
    s.rewrite("real/two.h", "#define H 4\n");
    s.step(Expect::Run, &line);
    s.write_at("virtual/h.h", "#define H 3\n", THEN);
    s.step(Expect::Anything, &line);
    s.step(Expect::Anything, &line);
}

/// `#pragma GCC dependency` warns if a file is newer than the one that says so: of both, only the times count.
#[test]
fn a_file_that_another_is_to_be_newer_than() {
    for tool in TOOLS {
        for flags in ["", "-Iinc"] {
            let mut s = with(&[
                ("a.c", "#pragma GCC dependency \"parse.y\" rebuild\nint a;\n"),
                ("parse.y", "grammar\n"),
                ("inc/keep", ""),
            ]);
            let line = format!("{tool} {flags} -c a.c");
            s.step(Expect::Anything, &line);
            s.step(Expect::Anything, &line);
            for times in [(0, 10), (20, 10), (20, 30), (20, 20), (0, 0)] {
                s.edit(|w| set_mtime(&w.join("a.c"), THEN + times.0));
                s.edit(|w| set_mtime(&w.join("parse.y"), THEN + times.1));
                s.step(Expect::Anything, &line);
                s.step(Expect::Anything, &line);
            }
        }
    }
}

/// `#import` takes files once, by content and time like `#pragma once`.
#[test]
fn copies_that_are_imported_are_one_file_or_two_by_their_times() {
    let header = "static inline int h(void) { return 1; }\n";
    for tool in TOOLS {
        let mut s = with(&[
            ("a.c", "#import \"one/h.h\"\n#import \"two/h.h\"\n"),
            ("one/h.h", header),
            ("two/h.h", header),
        ]);
        let line = format!("{tool} -Wno-deprecated -c a.c");
        for time in [0, 5, 0, 5] {
            s.edit(|w| set_mtime(&w.join("two/h.h"), THEN + time));
            s.step(Expect::Anything, &line);
            s.step(Expect::Anything, &line);
        }
    }
}

/// What is on standard input, in `/proc` or a device is no file that can be looked at again.
#[test]
fn headers_that_are_no_files() {
    for tool in TOOLS {
        let mut s = with(&[
            ("a.c", "#include \"/dev/stdin\"\nint a = A;\n"),
            ("p.c", "//\n#if 0\n#include \"/proc/version\"\n#endif\nint a;\n"),
            ("v.c", "const char *v =\n#include \"/proc/sys/kernel/ostype\"\n;\n"),
            ("w.c", "#include \"/proc/self/cwd/w.h\"\nint w = W;\n"),
            ("x.c", "#include <w.h>\nint x = W;\n"),
        ]);
        for value in ["1", "2", "1"] {
            let command = |wrapped: bool| {
                move |sandbox: &zccache_integration_tests::Sandbox| {
                    let mut shell = sandbox.command("sh");
                    shell.args(["-c", &format!("echo '#define A {value}' | $@"), "sh"]);
                    if wrapped {
                        shell.arg(sandbox.wrapper([""; 0]).get_program());
                    }
                    shell.args([tool, "-c", "a.c"]);
                    shell
                }
            };
            s.compare(Expect::Anything, command(false), command(true));
        }
        let line = format!("{tool} -c p.c");
        settles(&mut s, &line);
        let line = format!("{tool} -c v.c");
        s.step(Expect::NotStored, &line);
        s.step(Expect::NotStored, &line);
        // The working directory by the kernel's name for it, which is another one for everybody.
        s.edit(|work| std::os::unix::fs::symlink("/proc/self/cwd", work.join("here")).unwrap());
        for line in [format!("{tool} -c w.c"), format!("{tool} -Ihere -c x.c")] {
            for value in ["1", "2", "1"] {
                s.write("w.h", format!("#define W {value}\n"));
                s.step(Expect::NotStored, &line);
            }
        }
    }
}
