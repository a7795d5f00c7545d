//! What is served from the cache, what is compiled again, and that nobody can tell either from the bare compiler.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use zccache_integration_tests::sandbox::system_tool;
use zccache_integration_tests::{Expect, Scenario, binaries};

/// A small C program with a header of its own and one of the system's.
fn project() -> Scenario {
    let s = Scenario::new();
    s.write("a.c", "#include <stdio.h>\n#include \"a.h\"\nint f(void) { return printf(\"%d\\n\", A); }\n");
    s.write("a.h", "#define A 1\n");
    s
}

#[test]
fn second_identical_compile_is_a_hit() {
    let mut s = project();
    s.step(Expect::Miss, "gcc -c a.c -o a.o");
    s.step(Expect::Hit, "gcc -c a.c -o a.o");
    s.edit(|work| std::fs::remove_file(work.join("a.o")).unwrap());
    s.step(Expect::Hit, "gcc -c a.c -o a.o");
}

#[test]
fn every_usual_name_of_a_compiler_is_cached() {
    for tool in ["gcc", "cc", "clang"] {
        system_tool(tool);
        let mut s = project();
        s.step(Expect::Miss, &format!("{tool} -c a.c"));
        s.step(Expect::Hit, &format!("{tool} -c a.c"));
    }
    for tool in ["g++", "c++", "clang++"] {
        system_tool(tool);
        let mut s = Scenario::new();
        s.write("a.cc", "#include <string>\nstd::string f() { return \"x\"; }\n");
        s.step(Expect::Miss, &format!("{tool} -O1 -c a.cc"));
        s.step(Expect::Hit, &format!("{tool} -O1 -c a.cc"));
    }
}

#[test]
fn versioned_and_target_prefixed_names_are_cached() {
    let mut s = project();
    for name in ["gcc-99", "x86_64-linux-gnu-gcc", "clang-99"] {
        let real = system_tool(if name.starts_with("clang") { "clang" } else { "gcc" });
        s.edit(|work| {
            std::fs::create_dir_all(work.join("bin")).unwrap();
            symlink(&real, work.join("bin").join(name)).unwrap();
        });
        let tool = s.sandbox.work().join("bin").join(name);
        s.step(Expect::Miss, &format!("{} -c a.c", tool.display()));
        s.step(Expect::Hit, &format!("{} -c a.c", tool.display()));
    }
}

#[test]
fn a_symlink_named_like_the_compiler_is_a_wrapper_that_never_finds_itself() {
    let mut s = project();
    let links = s.sandbox.path("links");
    std::fs::create_dir(&links).unwrap();
    for name in ["gcc", "g++", "cc"] {
        symlink(binaries::directory().join("zccache"), links.join(name)).unwrap();
    }
    let mut path = links.clone().into_os_string();
    path.push(":");
    path.push(s.sandbox.var("PATH"));
    let cached = |line: &'static [&'static str]| {
        let (links, path) = (links.clone(), path.clone());
        move |sandbox: &zccache_integration_tests::Sandbox| {
            let mut command = sandbox.command(links.join(line[0]));
            command.args(&line[1..]).env("PATH", path);
            command
        }
    };
    let bare = |sandbox: &zccache_integration_tests::Sandbox| {
        let mut command = sandbox.command("gcc");
        command.args(["-c", "a.c"]);
        command
    };
    s.compare(Expect::Miss, bare, cached(&["gcc", "-c", "a.c"]));
    s.compare(Expect::Hit, bare, cached(&["gcc", "-c", "a.c"]));
    // The wrapper before a symlink to the wrapper: still one compile, still the real compiler.
    let wrapped = |sandbox: &zccache_integration_tests::Sandbox| {
        let mut command = sandbox.wrapper(["gcc", "-c", "a.c"]);
        command.env("PATH", &path);
        command
    };
    s.compare(Expect::Hit, bare, wrapped);
}

#[test]
fn warnings_and_standard_error_are_replayed() {
    let mut s = Scenario::new();
    s.write("w.c", "int f(void) { int unused; return \"x\"; }\n");
    let first = s.step(Expect::Miss, "gcc -Wall -Wextra -c w.c");
    assert!(first.err().contains("unused"));
    assert_eq!(s.step(Expect::Hit, "gcc -Wall -Wextra -c w.c"), first);
    let first = s.step(Expect::Miss, "clang -Wall -fcolor-diagnostics -c w.c");
    assert_eq!(s.step(Expect::Hit, "clang -Wall -fcolor-diagnostics -c w.c"), first);
}

#[test]
fn a_failing_compile_fails_the_same_way_each_time() {
    let mut s = Scenario::new();
    s.write("bad.c", "int f(void) { return missing; }\n");
    for _ in 0..2 {
        let outcome = s.step(Expect::Anything, "gcc -c bad.c");
        assert_eq!(outcome.status, 1);
        assert!(outcome.err().contains("missing"));
    }
    s.write("bad.c", "int f(void) { return 1; }\n");
    s.step(Expect::Miss, "gcc -c bad.c");
    s.step(Expect::Anything, "gcc -c no-such-file.c");
}

#[test]
fn a_failing_compile_leaves_an_older_object_as_the_compiler_does() {
    let mut s = project();
    s.step(Expect::Miss, "gcc -c a.c");
    s.write("a.h", "#define A (\n");
    s.step(Expect::Anything, "gcc -c a.c");
    s.step(Expect::Anything, "gcc -c a.c");
}

#[test]
fn dependency_files_are_the_compilers_own() {
    for flags in [
        "-MD",
        "-MMD",
        "-MD -MF d/x.d",
        "-MMD -MP -MT target",
        "-MD -MQ $(x)",
        "-Wp,-MD,x.d",
        "-MD -MT a -MT b",
    ] {
        for tool in ["gcc", "clang"] {
            let mut s = project();
            s.edit(|work| std::fs::create_dir(work.join("d")).unwrap());
            let line = format!("{tool} {flags} -c a.c -o d/a.o");
            s.step(Expect::Miss, &line);
            s.edit(|work| remove_outputs(&work.join("d")));
            s.step(Expect::Hit, &line);
        }
    }
}

#[test]
fn different_flags_miss() {
    let mut s = project();
    let lines = [
        "-c a.c",
        "-O2 -c a.c",
        "-g -c a.c",
        "-DA=2 -c a.c",
        "-UA -DA=2 -c a.c",
        "-DA=2 -UA -c a.c",
        "-fPIC -c a.c",
    ];
    for line in lines {
        s.step(Expect::Miss, &format!("gcc -w {line}"));
    }
    for line in lines {
        s.step(Expect::Hit, &format!("gcc -w {line}"));
    }
}

#[test]
fn an_edited_header_misses_and_the_old_one_hits_again() {
    let mut s = project();
    s.step(Expect::Miss, "gcc -c a.c");
    s.write("a.h", "#define A 2\n");
    s.step(Expect::Miss, "gcc -c a.c");
    s.write("a.h", "#define A 1\n");
    s.step(Expect::Hit, "gcc -c a.c");
    s.write("a.h", "#define A 2\n");
    s.step(Expect::Hit, "gcc -c a.c");
}

#[test]
fn a_comment_in_the_source_is_a_miss_only_once() {
    let mut s = project();
    s.step(Expect::Miss, "gcc -c a.c");
    s.edit(|work| {
        let path = work.join("a.c");
        let old = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{old}/* more */\n")).unwrap();
    });
    s.step(Expect::Miss, "gcc -c a.c");
    s.step(Expect::Hit, "gcc -c a.c");
}

#[test]
fn a_header_that_appears_earlier_on_the_search_path_is_seen() {
    for (flags, early) in [
        ("-Ione -Itwo", "one/h.h"),
        ("-iquote one -Itwo", "one/h.h"),
        ("-isystem one -isystem two", "one/h.h"),
        ("-Itwo", "h.h"),
        ("-Inew/deep -Itwo", "new/deep/h.h"),
    ] {
        let mut s = Scenario::new();
        s.write("a.c", "#include \"h.h\"\nint f(void) { return H; }\n");
        s.write("two/h.h", "#define H 2\n");
        s.write("one/other.h", "");
        let line = format!("gcc {flags} -c a.c");
        s.step(Expect::Miss, &line);
        s.step(Expect::Hit, &line);
        s.write(early, "#define H 1\n");
        s.step(Expect::Miss, &line);
        // With the directories that came with it: an empty one on the search path is something a tool can see.
        s.edit(|work| {
            std::fs::remove_file(work.join(early)).unwrap();
            let made = std::path::Path::new(early).ancestors().skip(1).filter(|d| d.starts_with("new"));
            made.for_each(|d| std::fs::remove_dir(work.join(d)).unwrap());
        });
        s.step(Expect::Hit, &line);
    }
}

#[test]
fn has_include_that_flips_is_seen() {
    let mut s = Scenario::new();
    s.write(
        "a.c",
        "#if __has_include(\"opt.h\")\nint f(void) { return 1; }\n#else\nint g(void) { return 0; }\n#endif\n",
    );
    for tool in ["gcc", "clang"] {
        let line = format!("{tool} -c a.c");
        s.step(Expect::Miss, &line);
        s.write("opt.h", "");
        s.step(Expect::Miss, &line);
        s.edit(|work| std::fs::remove_file(work.join("opt.h")).unwrap());
        s.step(Expect::Hit, &line);
    }
}

#[test]
fn an_edit_that_keeps_size_and_mtime_is_seen() {
    let mut s = project();
    s.step(Expect::Miss, "gcc -c a.c");
    s.edit(|work| {
        let header = work.join("a.h");
        let time = header.metadata().unwrap().modified().unwrap();
        std::fs::write(&header, "#define A 9\n").unwrap();
        std::fs::File::options().write(true).open(&header).unwrap().set_modified(time).unwrap();
    });
    s.step(Expect::Miss, "gcc -c a.c");
}

#[test]
fn many_edits_within_a_timestamp_tick_are_all_seen() {
    let mut s = project();
    for value in 0..10 {
        s.write("a.h", format!("#define A {value}\n"));
        s.step(Expect::Miss, "gcc -c a.c");
    }
}

#[test]
fn a_replaced_compiler_is_another_compiler() {
    let mut s = project();
    s.script("bin/gcc", "exec /usr/bin/gcc -DONE \"$@\"");
    let line = format!("{} -c a.c", s.sandbox.work().join("bin/gcc").display());
    s.write("a.c", "#ifdef ONE\nint one;\n#else\nint two;\n#endif\n");
    s.step(Expect::Anything, &line);
    s.step(Expect::Anything, &line);
    s.script("bin/gcc", "exec /usr/bin/gcc -DTWO \"$@\"");
    s.step(Expect::Anything, &line);
}

#[test]
fn a_compiler_edited_in_place_with_its_old_time_is_another_compiler() {
    let mut s = project();
    s.write("a.c", "#ifdef ONE\nint one;\n#else\nint two;\n#endif\n");
    s.script("bin/gcc", "exec /usr/bin/gcc -DONE \"$@\"");
    let line = format!("{} -c a.c", s.sandbox.work().join("bin/gcc").display());
    s.step(Expect::Anything, &line);
    s.edit(|work| {
        let tool = work.join("bin/gcc");
        let time = tool.metadata().unwrap().modified().unwrap();
        std::fs::write(&tool, "#!/bin/sh\nexec /usr/bin/gcc -DTWO \"$@\"\n").unwrap();
        std::fs::File::options().write(true).open(&tool).unwrap().set_modified(time).unwrap();
    });
    s.step(Expect::Anything, &line);
}

#[test]
fn arguments_and_paths_may_be_any_bytes() {
    let mut s = Scenario::new();
    let name = |suffix: &[u8]| OsStr::from_bytes(&[b"w\xff\xfe ", suffix].concat()).to_os_string();
    let (source, header, object) = (name(b".c"), name(b".h"), name(b".o"));
    s.edit(|work| {
        let text = [b"#include \"".as_slice(), header.as_bytes(), b"\"\nconst char *f(void) { return V; }\n"]
            .concat();
        std::fs::write(work.join(&source), text).unwrap();
        std::fs::write(work.join(&header), "").unwrap();
    });
    let define = OsString::from(OsStr::from_bytes(b"-DV=\"\xc3\x28\""));
    let words = [OsStr::new("gcc"), &define, OsStr::new("-c"), &source, OsStr::new("-o"), &object];
    s.step_of(Expect::Miss, &words);
    s.step_of(Expect::Hit, &words);
    s.edit(|work| std::fs::write(work.join(&header), "int more;\n").unwrap());
    s.step_of(Expect::Miss, &words);
}

#[test]
fn paths_with_blanks_and_quotes_are_ordinary_paths() {
    let mut s = Scenario::new();
    s.write("my \"dir\"/a b.c", "#include \"a b.h\"\nint f(void) { return B; }\n");
    s.write("my \"dir\"/a b.h", "#define B 3\n");
    let words = ["gcc", "-MD", "-c", "my \"dir\"/a b.c", "-o", "my \"dir\"/out put.o"];
    s.step_of(Expect::Miss, &words);
    s.step_of(Expect::Hit, &words);
}

#[test]
fn outputs_have_the_mode_this_clients_umask_gives() {
    let mut s = project();
    s.umask(0o022);
    s.step(Expect::Miss, "gcc -MD -c a.c");
    s.edit(remove_outputs);
    // The mask is part of the request: what a tool makes of it cannot be told from the mode it left.
    for umask in [0o077, 0o000] {
        s.umask(umask);
        s.step(Expect::Miss, "gcc -MD -c a.c");
        s.edit(remove_outputs);
        s.step(Expect::Hit, "gcc -MD -c a.c");
        s.edit(remove_outputs);
    }
}

#[test]
fn recache_does_not_serve_but_stores() {
    let mut s = project();
    s.step(Expect::Miss, "gcc -c a.c");
    s.sandbox.set("ZCCACHE_RECACHE", "1");
    s.step(Expect::Run, "gcc -c a.c");
    s.sandbox.unset("ZCCACHE_RECACHE");
    s.step(Expect::Hit, "gcc -c a.c");
}

#[test]
fn variables_that_the_compiler_reads_are_part_of_the_request() {
    let mut s = Scenario::new();
    s.write("a.c", "#include <h.h>\nint f(void) { return H; }\n");
    s.write("one/h.h", "#define H 1\n");
    s.write("two/h.h", "#define H 2\n");
    for variable in ["CPATH", "C_INCLUDE_PATH"] {
        for value in ["one", "two"] {
            s.sandbox.set(variable, value);
            s.step(Expect::Miss, "gcc -c a.c");
            s.step(Expect::Hit, "gcc -c a.c");
        }
        s.sandbox.unset(variable);
    }
    s.sandbox.set("CPATH", "two");
    s.sandbox.set("SOME_OTHER_VARIABLE", "1");
    s.step(Expect::Hit, "gcc -c a.c");
}

#[test]
fn time_macros_are_never_served_stale() {
    for text in ["__TIME__", "__DATE__", "__TIMESTAMP__"] {
        let mut s = Scenario::new();
        s.write("a.c", format!("const char *f(void) {{ return {text}; }}\n"));
        // With the date given, the compiler's answer is one value, and both twins can be compared.
        s.sandbox.set("SOURCE_DATE_EPOCH", "1000000000");
        s.edit(|work| {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
            let file = std::fs::File::options().write(true).open(work.join("a.c")).unwrap();
            file.set_modified(time).unwrap();
        });
        s.step(Expect::Anything, "gcc -c a.c");
        s.sandbox.set("SOURCE_DATE_EPOCH", "1100000000");
        s.edit(|work| {
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_100_000_000);
            let file = std::fs::File::options().write(true).open(work.join("a.c")).unwrap();
            file.set_modified(time).unwrap();
        });
        s.step(Expect::Anything, "gcc -c a.c");
    }
}

#[test]
fn another_working_directory_gets_its_own_debug_paths() {
    let mut s = Scenario::new();
    for directory in ["one", "two"] {
        s.write(&format!("{directory}/a.c"), "int f(void) { return 1; }\n");
    }
    let within = |directory: &'static str, wrapped: bool| {
        move |sandbox: &zccache_integration_tests::Sandbox| -> Command {
            let words = ["gcc", "-g", "-c", "a.c"];
            let mut command = if wrapped { sandbox.wrapper(words) } else { sandbox.command(words[0]) };
            if !wrapped {
                command.args(&words[1..]);
            }
            command.current_dir(sandbox.work().join(directory));
            command
        }
    };
    s.compare(Expect::Miss, within("one", false), within("one", true));
    s.compare(Expect::Miss, within("two", false), within("two", true));
    s.compare(Expect::Hit, within("one", false), within("one", true));
}

#[test]
fn an_object_edited_in_place_never_reaches_the_store() {
    let mut s = project();
    s.step(Expect::Miss, "gcc -g -c a.c");
    for _ in 0..2 {
        s.edit(|work| {
            let object = work.join("a.o");
            let bytes = std::fs::metadata(&object).unwrap().len();
            let file = std::fs::File::options().write(true).open(&object).unwrap();
            // The same size, other content, by the same inode: what `strip` or `objcopy` may do.
            std::os::unix::fs::FileExt::write_all_at(&file, b"poison", bytes / 2).unwrap();
        });
        s.step(Expect::Hit, "gcc -g -c a.c");
    }
}

#[test]
fn outputs_that_are_links_are_written_as_the_compiler_writes_them() {
    let mut s = project();
    s.edit(|work| symlink("elsewhere.o", work.join("a.o")).unwrap());
    s.step(Expect::Anything, "gcc -c a.c");
    s.step(Expect::Anything, "gcc -c a.c");
    s.edit(|work| {
        remove_outputs(work);
        std::fs::write(work.join("x.o"), "old").unwrap();
        std::fs::hard_link(work.join("x.o"), work.join("a.o")).unwrap();
    });
    s.step(Expect::Anything, "gcc -c a.c");
    s.step(Expect::Anything, "gcc -c a.c -o /dev/null");
    s.step(Expect::Anything, "gcc -c a.c -o no/such/directory/a.o");
}

#[test]
fn what_is_not_understood_is_passed_through() {
    let mut s = project();
    s.write("main.c", "int main(void) { return 0; }\n");
    for line in [
        "gcc --version",
        "gcc",
        "gcc -Wl,@none main.c -o main",
        "gcc -E a.c",
        "gcc -c a.c -no-such-flag-at-all",
        "ls",
    ] {
        s.step(Expect::Counts { hits: 0, misses: 0 }, line);
    }
}

/// Removes objects and dependency files, so that they have to be made anew.
fn remove_outputs(directory: &Path) {
    for entry in std::fs::read_dir(directory).unwrap().filter_map(Result::ok) {
        if entry.path().extension().is_some_and(|e| e == "o" || e == "d") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
}
