//! Whatever a compile looks at: when it changes, or comes to be, or goes, the result is another.
//!
//! Nearly every test is of one shape: a miss, a hit, a change that only the compiler could know the meaning of, a
//! miss; the change taken back, a hit. Each step's results are the bare compiler's.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Command;

use zccache_integration_tests::sandbox::system_tool;
use zccache_integration_tests::scenario::set_mtime;
use zccache_integration_tests::{Expect, Sandbox, Scenario};

/// A time in the past (seconds since the epoch), for files whose time must be the same in both twins.
const THEN: u64 = 1_400_000_000;

/// A change to the project, made in each twin.
type Change = fn(&Path);

fn with(files: &[(&str, &str)]) -> Scenario {
    let s = Scenario::new();
    for (path, text) in files {
        s.write(path, text);
    }
    s
}

/// Miss, hit; `change`: miss, hit; `back`: hit.
#[track_caller]
fn flips(s: &mut Scenario, line: &str, change: Change, back: Change) {
    s.step(Expect::Miss, line);
    s.step(Expect::Hit, line);
    s.edit(change);
    s.step(Expect::Miss, line);
    s.step(Expect::Hit, line);
    s.edit(back);
    s.step(Expect::Hit, line);
}

/// As `flips`, where it is the observer's choice whether the result is stored: gcc tells no file's every name, so
/// what a macro names may have been found through a link that nobody saw.
#[track_caller]
fn flips_if_stored(s: &mut Scenario, line: &str, change: Change, back: Change) {
    s.step(Expect::Run, line);
    s.step(Expect::Anything, line);
    s.edit(change);
    s.step(Expect::Run, line);
    s.step(Expect::Anything, line);
    s.edit(back);
    s.step(Expect::Anything, line);
}

fn put(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Writes another content of the same size by the same inode, and puts the old modification time back.
fn rewrite(path: &Path, text: &[u8]) {
    let time = path.metadata().unwrap().modified().unwrap();
    fs::write(path, text).unwrap();
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

const USES_H: &str = "#include \"h.h\"\nint f(void) { return H; }\n";

#[test]
fn a_header_that_appears_earlier_is_seen_wherever_headers_are_searched() {
    for (tool, flags, early) in [
        ("gcc", "-Itwo", "src/h.h"),
        ("gcc", "-iquote one -Itwo", "one/h.h"),
        ("gcc", "-Ione -isystem two", "one/h.h"),
        ("gcc", "-isystem one -idirafter two", "one/h.h"),
        ("gcc", "-Inew -Itwo", "new/h.h"),
        ("gcc", "-I src/../one -Itwo", "one/h.h"),
        ("clang", "-Itwo", "src/h.h"),
        ("clang", "-iquote one -Itwo", "one/h.h"),
        ("clang", "-Inew -Itwo", "new/h.h"),
        ("clang", "-isystem one -idirafter two", "one/h.h"),
    ] {
        let mut s = with(&[("src/a.c", USES_H), ("two/h.h", "#define H 2\n"), ("one/other.h", "")]);
        let line = format!("{tool} {flags} -c src/a.c");
        s.step(Expect::Miss, &line);
        s.step(Expect::Hit, &line);
        s.write(early, "#define H 1\n");
        s.step(Expect::Miss, &line);
        s.edit(|work| {
            fs::remove_file(work.join(early)).unwrap();
            let _ = fs::remove_dir(work.join("new"));
        });
        s.step(Expect::Hit, &line);
    }
}

#[test]
fn a_header_that_appears_in_a_directory_of_cpath_is_seen() {
    for variable in ["CPATH", "C_INCLUDE_PATH"] {
        let mut s = with(&[("a.c", USES_H), ("two/h.h", "#define H 2\n"), ("one/other.h", "")]);
        s.sandbox.set(variable, "missing:one:two");
        let line = "gcc -c a.c";
        flips(
            &mut s,
            line,
            |w| put(&w.join("one/h.h"), "#define H 1\n"),
            |w| fs::remove_file(w.join("one/h.h")).unwrap(),
        );
        s.edit(|w| put(&w.join("missing/h.h"), "#define H 0\n"));
        s.step(Expect::Miss, line);
    }
}

#[test]
fn a_header_beside_the_header_that_includes_it_is_seen() {
    let mut s = with(&[
        ("a.c", "#include <lib/one.h>\nint f(void) { return H; }\n"),
        ("inc/lib/one.h", "#include \"h.h\"\n"),
        ("inc/h.h", "#define H 2\n"),
    ]);
    flips(
        &mut s,
        "gcc -Iinc -c a.c",
        |w| put(&w.join("inc/lib/h.h"), "#define H 1\n"),
        |w| fs::remove_file(w.join("inc/lib/h.h")).unwrap(),
    );
}

#[test]
fn a_directory_in_a_headers_place_is_skipped_as_the_compiler_skips_it() {
    for tool in ["gcc", "clang"] {
        let mut s = with(&[("a.c", USES_H), ("one/h.h", "#define H 1\n"), ("two/h.h", "#define H 2\n")]);
        flips(
            &mut s,
            &format!("{tool} -Ione -Itwo -c a.c"),
            |w| {
                fs::remove_file(w.join("one/h.h")).unwrap();
                fs::create_dir(w.join("one/h.h")).unwrap();
            },
            |w| {
                fs::remove_dir(w.join("one/h.h")).unwrap();
                put(&w.join("one/h.h"), "#define H 1\n");
            },
        );
    }
}

#[test]
fn has_include_flips_in_each_of_its_forms() {
    for question in [
        "__has_include(\"opt.h\")",
        "__has_include(<opt.h>)",
        "__has_include(<deep/er/opt.h>)",
        "__has_include(OPT)",
        "__has_include_next(<opt.h>)",
    ] {
        for tool in ["gcc", "clang"] {
            let header = format!("#if {question}\nint yes;\n#else\nint no;\n#endif\n");
            let mut s = with(&[
                ("a.c", "#define OPT <opt.h>\n#include <first.h>\n"),
                ("one/first.h", &header),
                ("two/other.h", ""),
            ]);
            let is_named = question != "__has_include(OPT)" || tool == "clang";
            let flips = if is_named { flips } else { flips_if_stored };
            flips(
                &mut s,
                &format!("{tool} -Ione -Itwo -c a.c"),
                |w| {
                    put(&w.join("two/opt.h"), "");
                    put(&w.join("two/deep/er/opt.h"), "");
                    put(&w.join("one/opt.h"), "");
                },
                |w| {
                    for name in ["two/opt.h", "two/deep/er/opt.h", "one/opt.h"] {
                        fs::remove_file(w.join(name)).unwrap();
                    }
                    fs::remove_dir_all(w.join("two/deep")).unwrap();
                },
            );
        }
    }
}

/// Blanks that hardly anybody knows of, before a directive and where a line goes on, and the mark of a text in UTF-8.
#[test]
fn a_directive_is_one_behind_blanks_of_any_kind() {
    for before in ["\u{b}", "\u{c}", " \u{c}\t", "\u{feff}", "\u{feff}/* */ ", "#\\ \u{b}\n"] {
        let hash = if before.starts_with('#') { "" } else { "#" };
        let source = format!("{before}{hash}include \"h.h\"\nint a = H;\n");
        for tool in ["gcc", "clang"] {
            let mut s = with(&[("a.c", &source), ("h.h", "#define H 1\n")]);
            let line = format!("{tool} -c a.c");
            s.step(Expect::Miss, &line);
            s.write("h.h", "#define H 2\n");
            s.step(Expect::Run, &line);
        }
    }
}

#[test]
fn include_next_finds_the_next_one() {
    for tool in ["gcc", "clang"] {
        let mut s = with(&[
            ("a.c", "#include <h.h>\nint f(void) { return H; }\n"),
            ("one/h.h", "#include_next <h.h>\n"),
            ("two/other.h", ""),
            ("three/h.h", "#define H 3\n"),
        ]);
        flips(
            &mut s,
            &format!("{tool} -Ione -Itwo -Ithree -c a.c"),
            |w| put(&w.join("two/h.h"), "#define H 2\n"),
            |w| fs::remove_file(w.join("two/h.h")).unwrap(),
        );
    }
}

#[test]
fn computed_includes_are_followed() {
    for tool in ["gcc", "clang"] {
        let mut s = with(&[
            (
                "a.c",
                "#include \"which.h\"\n#define STR(x) #x\n#define X(x) STR(x)\n#include X(WHICH.h)\nint f(void) { return H; }\n",
            ),
            ("which.h", "#define WHICH one\n"),
            ("one.h", "#define H 1\n"),
            ("two.h", "#define H 2\n"),
        ]);
        let line = format!("{tool} -c a.c");
        let flips = if tool == "clang" { flips } else { flips_if_stored };
        flips(
            &mut s,
            &line,
            |w| put(&w.join("which.h"), "#define WHICH two\n"),
            |w| put(&w.join("which.h"), "#define WHICH one\n"),
        );
        s.write("one.h", "#define H 7\n");
        s.step(Expect::Run, &line);
        let line = format!("{tool} -DINC=\"one.h\" -include one.h -c a.c");
        s.step(Expect::Run, &line);
        s.write("one.h", "#define H 8\n");
        s.step(Expect::Run, &line);
    }
}

/// No compiler here may know `#embed`; then the error is what must come back, and go when the compiler learns it.
#[test]
fn embed_is_an_input_or_the_compilers_own_error() {
    for tool in ["gcc", "clang"] {
        let mut s = with(&[("a.c", "const char d[] = {\n#embed \"data.bin\"\n};\n"), ("data.bin", "0123")]);
        let line = format!("{tool} -c a.c");
        let first = s.step(Expect::Miss, &line);
        assert_eq!(s.step(Expect::Hit, &line), first);
        s.write("data.bin", "4567");
        let knows = first.success();
        s.step(if knows { Expect::Miss } else { Expect::Hit }, &line);
    }
}

#[test]
fn what_the_assembler_includes_is_an_input() {
    let blob = "__asm__(\".data\\n.incbin \\\"data.bin\\\"\\n.text\\n\");\n";
    let macro_blob = "#define S(x) #x\n#define IN(f) __asm__(\".data\\n.inc\" \"bin \" S(f) \"\\n.text\\n\")\nIN(\"data.bin\");\n";
    let include = "__asm__(\".include \\\"data.bin\\\"\");\n";
    let (before, after) = ("# 0123456\n.byte 1\n", "# 0123456\n.byte 2\n");
    for (name, text) in [
        ("a.c", blob),
        ("a.c", macro_blob),
        ("a.c", include),
        ("a.s", ".data\n.incbin \"data.bin\"\n"),
        ("a.s", ".include \"data.bin\"\n"),
        ("a.S", "#define T .inc##bin\n.data\n.include \"data.bin\"\n"),
        ("a.S", "#include \"x.h\"\n.macro pull f\n.incbin \"\\f\"\n.endm\n.data\npull data.bin\n"),
    ] {
        for tool in ["gcc", "clang"] {
            let mut s = with(&[(name, text), ("data.bin", before), ("x.h", "#define X 1\n")]);
            // With a pipe, no temporary file's random name gets into the assembler's messages.
            let line = format!("{tool} -pipe -c {name} -o out.o");
            s.step(Expect::Miss, &line);
            s.step(Expect::Hit, &line);
            s.rewrite("data.bin", after);
            s.step(Expect::Miss, &line);
            s.rewrite("data.bin", before);
            s.step(Expect::Hit, &line);
            s.remove("data.bin");
            let failed = s.step(Expect::Run, &line);
            assert!(!failed.success(), "{tool} {name}");
        }
    }
}

#[test]
fn an_incbin_that_appears_earlier_on_the_assemblers_path_is_seen() {
    let mut s = with(&[("a.s", ".data\n.incbin \"data.bin\"\n"), ("two/data.bin", "2"), ("one/x", "")]);
    flips(
        &mut s,
        "gcc -Wa,-Ione -Wa,-Itwo -c a.s",
        |w| put(&w.join("one/data.bin"), "1"),
        |w| fs::remove_file(w.join("one/data.bin")).unwrap(),
    );
}

#[test]
fn links_that_lead_elsewhere_are_seen() {
    let link: fn(&Path, &str, &str) = |w, name, target| {
        let path = w.join(name);
        let _ = fs::remove_file(&path);
        symlink(target, path).unwrap();
    };
    for tool in ["gcc", "clang"] {
        for flags in ["", "-Idir", "-MD", "-g"] {
            let mut s = with(&[("one/h.h", "#define H 1\n"), ("two/h.h", "#define H 2\n")]);
            s.write("a.c", if flags == "-Idir" { "#include <h.h>\nint h = H;\n" } else { USES_H });
            s.edit(|w| {
                link(w, "h.h", "chain.h");
                link(w, "chain.h", "one/h.h");
                link(w, "dir", "one");
            });
            let line = format!("{tool} {flags} -c a.c");
            s.step(Expect::Miss, &line);
            s.step(Expect::Hit, &line);
            s.edit(|w| {
                link(w, "chain.h", "two/h.h");
                link(w, "dir", "two");
            });
            s.step(Expect::Miss, &line);
            s.edit(|w| {
                link(w, "chain.h", "nowhere.h");
                link(w, "dir", "nowhere");
            });
            s.step(Expect::Run, &line);
        }
    }
}

#[test]
fn a_directory_renamed_over_is_another_directory() {
    for tool in ["gcc", "clang"] {
        let mut s = with(&[
            ("a.c", "#include <lib/h.h>\nint h = H;\n"),
            ("inc/lib/h.h", "#define H 1\n"),
            ("new/lib/h.h", "#define H 2\n"),
        ]);
        // Equal in all that `stat` says of the headers themselves, but for what nobody can set.
        s.edit(|w| ["inc", "new"].iter().for_each(|d| set_mtime(&w.join(d).join("lib/h.h"), THEN)));
        let swap: Change = |w| {
            for (from, to) in [("inc", "old"), ("new", "inc"), ("old", "new")] {
                fs::rename(w.join(from), w.join(to)).unwrap();
            }
        };
        flips(&mut s, &format!("{tool} -Iinc -c a.c"), swap, swap);
    }
}

#[test]
fn a_header_edited_by_its_other_name_is_edited() {
    let mut s = with(&[("a.c", USES_H), ("elsewhere/real.h", "#define H 1\n")]);
    s.edit(|w| fs::hard_link(w.join("elsewhere/real.h"), w.join("h.h")).unwrap());
    flips(
        &mut s,
        "gcc -c a.c",
        |w| rewrite(&w.join("elsewhere/real.h"), b"#define H 2\n"),
        |w| rewrite(&w.join("elsewhere/real.h"), b"#define H 1\n"),
    );
}

/// Written by a mapping, as linkers and some generators do. (`dd` and friends cannot; python's `mmap` can.)
#[test]
fn a_header_written_through_a_mapping_is_edited() {
    let python = system_tool("python3");
    let mut s = with(&[("a.c", USES_H), ("h.h", "#define H 1\n")]);
    let map = |s: &Scenario, digit: &str| {
        let script = format!(
            "import mmap\nf = open('h.h', 'r+b')\nm = mmap.mmap(f.fileno(), 0)\nm[10:11] = b'{digit}'\nm.close()\n"
        );
        s.edit(|w| {
            let status = Command::new(&python).args(["-c", &script]).current_dir(w).status().unwrap();
            assert!(status.success());
        });
    };
    for (digit, expect) in [("2", Expect::Miss), ("3", Expect::Miss), ("1", Expect::Hit), ("2", Expect::Hit)]
    {
        s.step(Expect::Anything, "gcc -c a.c");
        map(&s, digit);
        s.step(expect, "gcc -c a.c");
    }
}

#[test]
fn edits_that_keep_size_and_time_are_seen_in_any_input() {
    for (line, path) in [
        ("gcc -c a.c", "a.c"),
        ("gcc -c a.c", "h.h"),
        ("clang -c a.c", "h.h"),
        ("gcc -include i.h -c a.c", "i.h"),
        ("gcc -imacros i.h -c a.c", "i.h"),
        ("gcc @args -c a.c", "args"),
    ] {
        let mut s =
            with(&[("a.c", USES_H), ("h.h", "#define H 1\n"), ("i.h", "#define I 1\n"), ("args", "-DX=1\n")]);
        s.step(Expect::Miss, line);
        s.step(Expect::Hit, line);
        let old = fs::read_to_string(s.sandbox.path("cached").join(path)).unwrap();
        s.rewrite(path, old.replace('1', "2").replace("return H", "return-H"));
        s.step(Expect::Miss, line);
        s.rewrite(path, &old);
        s.step(Expect::Hit, line);
    }
}

#[test]
fn many_versions_of_one_header_all_hit_again() {
    let mut s = with(&[("a.c", USES_H)]);
    for round in [Expect::Miss, Expect::Hit] {
        for version in 0..8 {
            s.write("h.h", format!("#define H {version}\n"));
            s.step(round, "gcc -c a.c");
        }
    }
}

/// The compiler says when it has read the header; it is edited then, while the compiler works on.
#[test]
fn an_edit_during_the_compile_is_never_taken_for_the_old_content() {
    let mut text = "#include \"h.h\"\n#pragma message \"read\"\nint f(void) { return H; }\n".to_owned();
    text.push_str(&zccache_integration_tests::sources::slow());
    let edit_when_read = "2>&1 | { read -r line; echo '#define H 2' > h.h; echo \"$line\"; cat; }";
    for tool in ["gcc", "clang"] {
        let mut s = with(&[("a.c", &text), ("h.h", "#define H 1\n")]);
        let shell = |wrapped: bool| {
            move |sandbox: &Sandbox| {
                let wrapper = sandbox.wrapper([""; 0]);
                let prefix =
                    if wrapped { wrapper.get_program().display().to_string() } else { String::new() };
                let mut command = sandbox.command("/bin/sh");
                command.args(["-c", &format!("{prefix} {tool} -O1 -c a.c {edit_when_read}")]);
                command
            }
        };
        s.compare(Expect::NotStored, shell(false), shell(true));
        let line = format!("{tool} -O1 -c a.c");
        s.step(Expect::Miss, &line);
        s.step(Expect::Hit, &line);
        s.write("h.h", "#define H 1\n");
        s.step(Expect::Miss, &line);
    }
}

#[test]
fn the_time_of_day_is_never_stored() {
    let paste = "#define P(a, b) a##b\n#define Q(a, b) P(a, b)\nconst char *t = Q(__TI, ME__);\n";
    for (flags, text) in [
        ("", "const char *t = __TIME__;\n"),
        ("", "const char *t = __DATE__;\n"),
        ("", paste),
        ("", "#include \"time.inc\"\n"),
        ("-DT=__TIME__", "const char *t = T;\n"),
        ("-include time.inc", "int x;\n"),
    ] {
        for tool in ["gcc", "clang"] {
            let mut s = with(&[("a.c", text), ("time.inc", "const char *t = __TIME__;\n")]);
            s.unlike("a.o");
            let line = format!("{tool} {flags} -c a.c");
            s.step(Expect::NotStored, &line);
            s.step(Expect::NotStored, &line);
        }
    }
}

/// gcc shows the line in the file that is named, which nobody includes.
#[test]
fn the_file_that_a_line_is_said_to_be_of_is_an_input() {
    for tool in ["gcc", "clang"] {
        for marker in ["#line 1", "# 1"] {
            let source = format!("{marker} \"parse.y\"\nint f(void) {{ int unused; return 1; }}\n");
            let mut s = with(&[("a.c", &source), ("parse.y", "the first text\n")]);
            let line = format!("{tool} -Wall -c a.c");
            s.step(Expect::Miss, &line);
            s.step(Expect::Hit, &line);
            s.write("parse.y", "another text\n");
            s.step(Expect::Anything, &line);
            s.remove("parse.y");
            s.step(Expect::Anything, &line);
        }
    }
}

/// Of `:` the C library makes a time zone without looking for a file.
#[test]
fn the_time_of_day_is_never_stored_in_a_zone_without_a_file() {
    let paste = "#define P(a, b) a##b\n#define Q(a, b) P(a, b)\nconst char *t = Q(__TI, ME__);\n";
    for tool in ["gcc", "clang"] {
        for (flags, text) in
            [("", "const char *t = __DATE__;\n"), ("", paste), ("-DT=__TIME__", "const char *t = T;\n")]
        {
            let mut s = with(&[("a.c", text)]);
            s.sandbox.set("TZ", ":");
            s.unlike("a.o");
            let line = format!("{tool} {flags} -c a.c");
            s.step(Expect::NotStored, &line);
            s.step(Expect::NotStored, &line);
        }
        let mut s = with(&[("a.c", "#include <stdio.h>\nint f(void) { return __LINE__; }\n")]);
        s.sandbox.set("TZ", ":");
        s.step(Expect::Miss, &format!("{tool} -c a.c"));
        s.step(Expect::Hit, &format!("{tool} -c a.c"));
        // Its own time is told even where a date is given.
        let mut s = with(&[("a.c", "const char *t = __TIMESTAMP__;\n")]);
        s.sandbox.set("TZ", ":");
        s.sandbox.set("SOURCE_DATE_EPOCH", "1000000000");
        s.step(Expect::Anything, &format!("{tool} -c a.c"));
        s.edit(|w| set_mtime(&w.join("a.c"), 1_000_000));
        s.step(Expect::Anything, &format!("{tool} -c a.c"));
    }
}

#[test]
fn a_given_date_is_an_input_like_any_other() {
    let mut s = with(&[("a.c", "const char *t = __DATE__ __TIME__;\n")]);
    for (date, expect) in [
        ("1000000000", Expect::Miss),
        ("1000000000", Expect::Hit),
        ("1100000000", Expect::Miss),
        ("1000000000", Expect::Hit),
        ("nonsense", Expect::Run),
    ] {
        s.sandbox.set("SOURCE_DATE_EPOCH", date);
        s.step(expect, "gcc -c a.c");
    }
}

#[test]
fn the_time_stamp_of_a_source_is_an_input_where_it_is_told() {
    for tool in ["gcc", "clang"] {
        let mut s = Scenario::new();
        s.sandbox.set("SOURCE_DATE_EPOCH", "1000000000");
        let line = format!("{tool} -c a.c");
        s.write_at("a.c", "const char *t = __TIMESTAMP__;\n", THEN);
        s.step(Expect::Anything, &line);
        s.step(Expect::Anything, &line);
        s.edit(|w| set_mtime(&w.join("a.c"), THEN + 100));
        s.step(Expect::Run, &line);
        s.edit(|w| set_mtime(&w.join("a.c"), THEN));
        s.step(Expect::Anything, &line);
    }
}

#[test]
fn the_name_by_which_a_file_is_called_is_part_of_the_result() {
    let mut s = with(&[
        ("d/a.c", "#include \"h.h\"\nconst char *f = __FILE__;\n"),
        ("d/h.h", "const char *g = __FILE__;\n"),
    ]);
    let full = s.sandbox.work().join("d/a.c").display().to_string();
    let spellings = ["d/a.c", "./d/a.c", "d/../d/a.c", "d//a.c", &full];
    for expect in [Expect::Miss, Expect::Hit] {
        for spelling in spellings {
            for tool in ["gcc", "clang"] {
                s.step(expect, &format!("{tool} -c {spelling} -o a.o"));
            }
        }
    }
}

/// gcc takes two files with this pragma for one if content, size and modification time are equal, wherever they
/// lie: touching one of them is an edit.
#[test]
fn copies_with_pragma_once_are_one_file_or_two_by_their_times() {
    let text = "#pragma once\nstatic int counter = __COUNTER__;\n";
    for tool in ["gcc", "clang"] {
        let mut s = with(&[(
            "a.c",
            "#include \"one/h.h\"\n#include \"two/h.h\"\nint *f(void) { return &counter; }\n",
        )]);
        s.write_at("one/h.h", text, THEN);
        s.write_at("two/h.h", text, THEN);
        let line = format!("{tool} -c a.c");
        s.step(Expect::Miss, &line);
        s.step(Expect::Hit, &line);
        s.edit(|w| set_mtime(&w.join("two/h.h"), THEN + 5));
        s.step(Expect::Anything, &line);
        s.edit(|w| set_mtime(&w.join("one/h.h"), THEN + 5));
        s.step(Expect::Anything, &line);
        s.edit(|w| {
            fs::remove_file(w.join("two/h.h")).unwrap();
            fs::hard_link(w.join("one/h.h"), w.join("two/h.h")).unwrap();
        });
        s.step(Expect::Anything, &line);
        s.edit(|w| {
            fs::remove_file(w.join("two/h.h")).unwrap();
            symlink("../one/h.h", w.join("two/h.h")).unwrap();
        });
        s.step(Expect::Anything, &line);
    }
}

#[test]
fn response_files_are_inputs_however_deep() {
    for tool in ["gcc", "clang"] {
        let mut s = with(&[("a.c", USES_H), ("one/h.h", "#define H 1\n"), ("two/h.h", "#define H 2\n")]);
        s.write("outer.rsp", "@inner.rsp -DX=1\n");
        s.write("inner.rsp", "-Ione \"-DSPACED=a b\"\n");
        flips(
            &mut s,
            &format!("{tool} @outer.rsp -c a.c"),
            |w| put(&w.join("inner.rsp"), "-Itwo\n"),
            |w| put(&w.join("inner.rsp"), "-Ione \"-DSPACED=a b\"\n"),
        );
        s.step(Expect::Anything, &format!("{tool} @missing.rsp -c a.c"));
    }
}

#[test]
fn a_specs_file_is_an_input() {
    let mut s = with(&[("a.c", "int f(void) { return H; }\n"), ("my.specs", "*cc1_options:\n+ -DH=1\n\n")]);
    flips(
        &mut s,
        "gcc -specs=my.specs -c a.c",
        |w| rewrite(&w.join("my.specs"), b"*cc1_options:\n+ -DH=2\n\n"),
        |w| rewrite(&w.join("my.specs"), b"*cc1_options:\n+ -DH=1\n\n"),
    );
}

#[test]
fn a_clang_config_file_is_an_input() {
    let mut s = with(&[("a.c", "int f(void) { return H; }\n"), ("my.cfg", "-DH=1\n")]);
    let path = s.sandbox.work().join("my.cfg").display().to_string();
    flips(
        &mut s,
        &format!("clang --config {path} -c a.c"),
        |w| rewrite(&w.join("my.cfg"), b"-DH=2\n"),
        |w| rewrite(&w.join("my.cfg"), b"-DH=1\n"),
    );
}

#[test]
fn an_ignore_list_is_an_input() {
    let mut s = with(&[("a.c", "int f(int *p) { return *p; }\n"), ("list.txt", "fun:g\n")]);
    flips(
        &mut s,
        "clang -fsanitize=address -fsanitize-ignorelist=list.txt -c a.c",
        |w| rewrite(&w.join("list.txt"), b"fun:f\n"),
        |w| rewrite(&w.join("list.txt"), b"fun:g\n"),
    );
}

/// Profiles of the same program, run with another argument count: `hot` is hot in one, cold in the other.
const PROFILED: &str = "int hot(int n) { int s = 0; for (int i = 0; i < n; i++) s += i % 3 ? i : -i; return s; }\n\
                        int main(int c, char **v) { (void)v; return hot(c > 1 ? 1000000 : 0) == 42; }\n";

/// Runs a shell command in both twins; it must succeed.
fn sh(s: &Scenario, line: &str) {
    let path = s.sandbox.var("PATH");
    s.edit(|w| {
        let status = Command::new("/bin/sh").args(["-ec", line]).current_dir(w).env("PATH", &path).status();
        assert!(status.unwrap().success(), "{line}");
    });
}

#[test]
fn a_gcc_profile_is_an_input() {
    let mut s = with(&[("p.c", PROFILED)]);
    // Made once, not in each twin: a profile begins with a random number.
    let made = s.sandbox.path("home");
    fs::write(made.join("p.c"), PROFILED).unwrap();
    let make = "gcc -O2 -fprofile-generate -c p.c; gcc -fprofile-generate p.o -o p; ./p; mv p.gcda cold; ./p x || true; mv p.gcda hot";
    let status = s.sandbox.command("/bin/sh").args(["-ec", make]).current_dir(&made).status().unwrap();
    assert!(status.success());
    for name in ["cold", "hot"] {
        s.write(name, fs::read(made.join(name)).unwrap());
    }
    s.edit(|w| _ = fs::copy(w.join("cold"), w.join("p.gcda")).unwrap());
    let line = "gcc -O2 -fprofile-use -c p.c";
    flips(
        &mut s,
        line,
        |w| _ = fs::copy(w.join("hot"), w.join("p.gcda")).unwrap(),
        |w| _ = fs::copy(w.join("cold"), w.join("p.gcda")).unwrap(),
    );
    s.remove("p.gcda");
    s.step(Expect::Miss, line);
}

#[test]
fn a_clang_profile_is_an_input() {
    let profdata = system_tool("llvm-profdata").display().to_string();
    let mut s = with(&[("p.c", PROFILED)]);
    // The counters are written by hand: the runtime that would write them may not be installed.
    let text = |count: u32| format!(":ir\nhot\n# hash\n1\n# counters\n1\n{count}\n");
    s.write("cold.txt", text(1));
    s.write("hot.txt", text(1_000_000));
    sh(
        &s,
        &format!("{profdata} merge cold.txt -o cold; {profdata} merge hot.txt -o hot; cp cold p.profdata"),
    );
    flips(
        &mut s,
        "clang -O2 -fprofile-instr-use=p.profdata -c p.c",
        |w| _ = fs::copy(w.join("hot"), w.join("p.profdata")).unwrap(),
        |w| _ = fs::copy(w.join("cold"), w.join("p.profdata")).unwrap(),
    );
}

#[test]
fn preprocessed_and_llvm_sources_are_cached_like_any_other() {
    for (tool, name, one, two) in [
        ("gcc", "a.i", "int one;\n", "int two;\n"),
        ("g++", "a.ii", "int one;\n", "int two;\n"),
        ("clang", "a.i", "int one;\n", "int two;\n"),
        ("clang", "a.ll", "@one = global i32 1\n", "@two = global i32 1\n"),
        ("gcc", "a.s", ".globl one\none:\n", ".globl two\ntwo:\n"),
    ] {
        let mut s = with(&[(name, one)]);
        let line = format!("{tool} -c {name} -o out.o");
        s.step(Expect::Miss, &line);
        s.step(Expect::Hit, &line);
        s.rewrite(name, two);
        s.step(Expect::Miss, &line);
    }
}

#[test]
fn a_source_that_is_a_link_is_what_it_leads_to() {
    for tool in ["gcc", "clang"] {
        let mut s = with(&[
            ("one/a.c", USES_H),
            ("two/a.c", "#include \"h.h\"\nint g(void) { return H; }\n"),
            ("one/h.h", "#define H 1\n"),
            ("h.h", "#define H 3\n"),
        ]);
        let link: fn(&Path, &str) = |w, target| {
            let _ = fs::remove_file(w.join("a.c"));
            symlink(target, w.join("a.c")).unwrap();
        };
        s.edit(|w| link(w, "one/a.c"));
        let line = format!("{tool} -g -MD -c a.c");
        s.step(Expect::Miss, &line);
        s.step(Expect::Hit, &line);
        s.edit(|w| link(w, "two/a.c"));
        s.step(Expect::Miss, &line);
        s.edit(|w| link(w, "one/a.c"));
        s.step(Expect::Hit, &line);
    }
}

/// Half a file, then the other half, with the compiler between: what a generator that is slow would do.
#[test]
fn a_header_that_grows_is_edited() {
    let mut s = with(&[("a.c", USES_H), ("h.h", "#define H 1\n")]);
    s.step(Expect::Miss, "gcc -c a.c");
    s.edit(|w| {
        let file = fs::File::options().write(true).open(w.join("h.h")).unwrap();
        file.write_all_at(b"int more;\n", "#define H 1\n".len() as u64).unwrap();
    });
    s.step(Expect::Miss, "gcc -c a.c");
}
