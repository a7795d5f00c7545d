//! Whatever a compile leaves behind: on a hit it is all there, byte for byte, as the compiler would have left it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use zccache_integration_tests::sandbox::system_tool;
use zccache_integration_tests::{Expect, Sandbox, Scenario};

/// A C program with enough in it for every side output to have something to tell.
const PROGRAM: &str = "#include \"a.h\"\n\
    static int square(int x) { return x * x; }\n\
    int f(int *p, int n) { int s = 0; for (int i = 0; i < n; i++) s += square(p[i]) + A; return s; }\n";

fn project() -> Scenario {
    let s = Scenario::new();
    s.write("a.c", PROGRAM);
    s.write("a.h", "#define A 1\n");
    s.write("sub/keep", "");
    s
}

/// Removes all that a compile made.
fn clean(work: &Path) {
    for directory in [work.to_path_buf(), work.join("sub")] {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let kept = ["a.c", "a.h", "keep", "sub", "b.c"].iter().any(|k| entry.file_name() == *k);
            if !kept && entry.path().symlink_metadata().unwrap().is_dir() {
                fs::remove_dir_all(entry.path()).unwrap();
            } else if !kept {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }
}

/// A miss; a hit over the outputs; a hit where there are none; after an edit, a miss; taken back, a hit.
#[track_caller]
fn comes_back(s: &mut Scenario, line: &str) {
    let first = s.step(Expect::Miss, line);
    assert!(first.success(), "{line}: {first:?}");
    s.step(Expect::Hit, line);
    s.edit(clean);
    s.step(Expect::Hit, line);
    s.write("a.h", "#define A 2\n");
    s.step(Expect::Miss, line);
    s.write("a.h", "#define A 1\n");
    s.edit(clean);
    s.step(Expect::Hit, line);
}

/// gcc opens this one file for appending: a second compile adds to it, which is what must happen on a hit too.
#[test]
fn a_file_that_the_compiler_appends_to_grows() {
    for line in ["gcc -O2 -fopt-info-optall=opt.txt -c a.c", "gcc -O3 -fopt-info-vec-all=opt.txt -c a.c"] {
        let mut s = project();
        s.step(Expect::Run, line);
        s.step(Expect::Run, line);
        s.edit(clean);
        s.step(Expect::Anything, line);
        s.step(Expect::Anything, line);
    }
}

/// Command lines whose outputs all come back.
fn all_come_back(lines: &[&str]) {
    let mut s = project();
    // gcc writes addresses into it.
    s.unlike("a.c.opt-record.json.gz");
    // The assembler writes the name of its temporary source into it.
    s.unlike("listing.txt");
    for line in lines {
        comes_back(&mut s, line);
        s.edit(clean);
    }
}

#[test]
fn side_outputs_of_gcc_come_back() {
    // Where the assembler tells its source's name, it is given a pipe: a temporary file's name is random.
    all_come_back(&[
        "gcc -g -gsplit-dwarf -c a.c",
        "gcc -g -gsplit-dwarf -c a.c -o sub/x.o",
        "gcc -frandom-seed=1 --coverage -c a.c",
        "gcc -frandom-seed=1 -ftest-coverage -fprofile-arcs -c a.c -o sub/a.o",
        "gcc -fstack-usage -c a.c",
        "gcc -fcallgraph-info=su,da -c a.c",
        "gcc -O2 -fsave-optimization-record -c a.c",
        "gcc -aux-info protos.txt -c a.c",
        "gcc -Wa,-a=listing.txt -pipe -c a.c",
        "gcc -Wa,--MD,as.d -pipe -c a.c",
        "gcc -Wa,-adhln=listing.txt -g -pipe -c a.c",
    ]);
}

#[test]
fn dumps_and_temporaries_of_gcc_come_back() {
    all_come_back(&[
        "gcc -save-temps -c a.c",
        "gcc -save-temps=obj -c a.c -o sub/a.o",
        "gcc -save-temps=cwd -c a.c -o sub/a.o",
        "gcc -fdump-tree-optimized -c a.c",
        "gcc -fdump-tree-gimple=dump.txt -c a.c",
        "gcc -O2 -fdump-rtl-expand -c a.c -o sub/a.o",
        "gcc -dumpbase x -fdump-tree-original -c a.c",
        "gcc -dD -E a.c -o a.i",
        "gcc -fdump-ada-spec -fsyntax-only a.c",
    ]);
}

#[test]
fn side_outputs_of_clang_come_back() {
    all_come_back(&[
        "clang -g -gsplit-dwarf -c a.c",
        "clang -g -gsplit-dwarf -c a.c -o sub/x.o",
        "clang --coverage -c a.c",
        "clang -fstack-usage -c a.c",
        "clang -O2 -fsave-optimization-record -c a.c",
        "clang -O2 -fsave-optimization-record -foptimization-record-file=r.yaml -c a.c",
        "clang -save-temps -c a.c",
        "clang -save-temps=obj -c a.c -o sub/a.o",
        "clang --serialize-diagnostics d.dia -Wall -Wextra -c a.c",
        "clang -MJ db.json -c a.c",
        "clang -emit-llvm -c a.c",
        "clang -emit-llvm -S a.c",
        "clang -S a.c",
        "clang -fsyntax-only a.c",
        "clang -E a.c -o a.i",
    ]);
}

#[test]
fn main_outputs_of_gcc_come_back() {
    all_come_back(&[
        "gcc -c a.c",
        "gcc -c a.c -o sub/a.o",
        "gcc -c -osub/a.o a.c",
        "gcc -S a.c",
        "gcc -S a.c -o sub/a.txt",
        "gcc -E a.c -o a.i",
        "gcc -M a.c -o a.dep",
        "gcc -MM a.c -MF a.dep",
        "gcc -fsyntax-only a.c",
        "gcc -flto -frandom-seed=1 -c a.c",
        "gcc -x c++ -c a.c",
        "gcc -x c -c a.c -x none",
    ]);
}

/// Its measurements differ from run to run; that it is there and that the object is right can be compared.
#[test]
fn a_time_trace_comes_back() {
    for line in ["clang -ftime-trace -c a.c", "clang -ftime-trace -c a.c -o sub/a.o"] {
        let mut s = project();
        s.unlike("a.json");
        s.unlike("sub/a.json");
        comes_back(&mut s, line);
    }
}

#[test]
fn dependency_files_of_every_shape_come_back() {
    for tool in ["gcc", "clang"] {
        let mut s = project();
        for flags in [
            "-MD",
            "-MMD",
            "-MD -MF sub/dep",
            "-MMD -MFsub/dep",
            "-MD -MT target",
            "-MD -MT one -MT two",
            "-MD -MQ $(odd)",
            "-MD -MP",
            "-MD -MG",
            "-MMD -MP -MF dep -MT x -MQ y",
            "-Wp,-MD,dep",
            "-Wp,-MMD,dep",
            "-Wp,-MD,dep -MT t",
        ] {
            let outputs: &[&str] =
                if flags == "-MD" { &["", "-o sub/a.o", "-o sub/a.b.obj"] } else { &["-o sub/a.o"] };
            for (number, output) in outputs.iter().enumerate() {
                // Another number, or it would be the other's under another name.
                let line = format!("{tool} -DN={number} {flags} -c a.c {output}");
                s.step(Expect::Miss, &line);
                s.step(Expect::Hit, &line);
                s.edit(clean);
                s.step(Expect::Hit, &line);
                s.edit(clean);
            }
        }
        for line in ["-Wp,-MD,dep,-MP -c a.c", "-MD -c a.c -o ./sub/../sub//a.o", "-MD -MD -c a.c -o sub/a.o"]
        {
            for _ in 0..3 {
                s.step(Expect::Anything, &format!("{tool} {line}"));
            }
            s.edit(clean);
        }
    }
}

/// One object, two names: the dependency file names this request's target, not the other's.
#[test]
fn a_dependency_file_names_its_own_target() {
    for tool in ["gcc", "clang"] {
        let mut s = project();
        for first in [Expect::Miss, Expect::Hit] {
            for (output, expect) in [("x.o", first), ("sub/x.o", Expect::Hit), ("y.o", Expect::Hit)] {
                s.step(expect, &format!("{tool} -MD -c a.c -o {output}"));
                s.step(expect, &format!("{tool} -MD -MT z -c a.c -o {output}"));
            }
        }
    }
}

#[test]
fn what_is_in_an_outputs_place_is_treated_as_the_compiler_treats_it() {
    type Obstacle = (&'static str, fn(&Path));
    let obstacles: [Obstacle; 9] = [
        ("a link to a file", |p| {
            fs::write(p.with_file_name("other"), "old").unwrap();
            symlink("other", p).unwrap();
        }),
        ("a link to nothing", |p| symlink("nothing", p).unwrap()),
        ("a link to a directory", |p| {
            fs::create_dir(p.with_file_name("dir")).unwrap();
            symlink("dir", p).unwrap();
        }),
        ("a directory", |p| fs::create_dir(p).unwrap()),
        ("a hard link", |p| {
            fs::write(p, "old").unwrap();
            fs::hard_link(p, p.with_file_name("other")).unwrap();
        }),
        ("a read-only file", |p| {
            fs::write(p, "old").unwrap();
            fs::set_permissions(p, PermissionsExt::from_mode(0o444)).unwrap();
        }),
        ("an executable file", |p| {
            fs::write(p, "old").unwrap();
            fs::set_permissions(p, PermissionsExt::from_mode(0o755)).unwrap();
        }),
        ("a set-uid file", |p| {
            fs::write(p, "old").unwrap();
            fs::set_permissions(p, PermissionsExt::from_mode(0o4755)).unwrap();
        }),
        ("an empty file", |p| fs::write(p, "").unwrap()),
    ];
    for tool in ["gcc", "clang"] {
        let mut s = project();
        for (what, obstacle) in obstacles {
            for (mode, name) in [("-c", "a.o"), ("-S", "a.s"), ("-MD -c", "a.d"), ("-E -o a.i", "a.i")] {
                let line = format!("{tool} {mode} a.c");
                println!("{line}: {what} at {name}");
                s.step(Expect::Anything, &line);
                s.edit(clean);
                s.edit(|work| obstacle(&work.join(name)));
                s.step(Expect::Anything, &line);
                s.step(Expect::Anything, &line);
                s.edit(clean);
            }
        }
    }
}

/// A result made over an old file has that file's mode; it is not what a new file would get.
#[test]
fn the_mode_of_an_older_output_is_not_handed_on() {
    for tool in ["gcc", "clang"] {
        for mode in [0o444, 0o600, 0o755] {
            let mut s = project();
            let line = format!("{tool} -fstack-usage -MD -S a.c");
            s.edit(|w| {
                for name in ["a.s", "a.d", "a.su"] {
                    fs::write(w.join(name), "old").unwrap();
                    fs::set_permissions(w.join(name), PermissionsExt::from_mode(mode)).unwrap();
                }
            });
            s.step(Expect::Run, &line);
            s.step(Expect::Anything, &line);
            s.edit(clean);
            s.step(Expect::Anything, &line);
            s.step(Expect::Hit, &line);
        }
    }
}

#[test]
fn a_failing_compile_does_to_older_outputs_what_the_compiler_does() {
    type Older = fn(&Path);
    let older: [Older; 4] = [
        |_| {},
        |p| fs::write(p, "old").unwrap(),
        |p| symlink("nothing", p).unwrap(),
        |p| {
            fs::write(p, "old").unwrap();
            fs::hard_link(p, p.with_file_name("other")).unwrap();
        },
    ];
    for tool in ["gcc", "clang"] {
        let mut s = project();
        s.write("a.h", "#include \"missing.h\"\n");
        for (mode, name) in
            [("-c", "a.o"), ("-S", "a.s"), ("-E -o a.i", "a.i"), ("-MD -c", "a.d"), ("-MD -c", "a.o")]
        {
            let line = format!("{tool} {mode} a.c");
            for _ in 0..2 {
                for older in older {
                    s.edit(clean);
                    s.edit(|work| older(&work.join(name)));
                    s.step(Expect::Anything, &line);
                    s.step(Expect::Anything, &line);
                }
            }
        }
    }
}

#[test]
fn a_missing_output_directory_is_the_compilers_own_error() {
    for tool in ["gcc", "clang"] {
        let mut s = project();
        // Not `-pipe`: gcc's status is then 2 if its assembler gave up before it was written to, else 1.
        let line = format!("{tool} -c a.c -o gone/a.o");
        s.step(Expect::Anything, &line);
        s.edit(|w| fs::create_dir(w.join("gone")).unwrap());
        s.step(Expect::Run, &line);
        s.step(Expect::Hit, &line);
        s.edit(|w| fs::remove_dir_all(w.join("gone")).unwrap());
        s.step(Expect::Anything, &line);
        s.edit(|w| fs::create_dir(w.join("gone")).unwrap());
        s.step(Expect::Anything, &line);
        s.step(Expect::Anything, &format!("{tool} -MD -MF nope/a.d -c a.c -o gone/a.o"));
    }
}

/// A failing compile complains of its source, or of the directory, whichever comes first.
#[test]
fn a_failing_compile_whose_output_directory_goes_fails_otherwise() {
    for tool in ["gcc", "clang"] {
        let mut s = project();
        s.write("a.h", "#include \"missing.h\"\n");
        for mode in ["-S", "-c", "-MD -c", "-E"] {
            let line = format!("{tool} {mode} a.c -o out/a.x");
            s.edit(|w| fs::create_dir(w.join("out")).unwrap());
            s.step(Expect::Anything, &line);
            s.step(Expect::Anything, &line);
            s.edit(|w| fs::remove_dir_all(w.join("out")).unwrap());
            s.step(Expect::Anything, &line);
            s.step(Expect::Anything, &line);
        }
    }
}

#[test]
fn standard_output_and_devices_as_outputs_are_the_compilers_own() {
    for line in [
        "gcc -S a.c -o -",
        "gcc -E a.c",
        "gcc -E a.c -o -",
        "gcc -M a.c",
        "gcc -MD -MF - -c a.c",
        "gcc -c a.c -o /dev/null",
        "gcc -MD -MF /dev/null -c a.c",
        "clang -S a.c -o -",
        "clang -E a.c",
        "clang -c a.c -o /dev/null",
        "gcc -fopt-info -O2 -c a.c",
    ] {
        let mut s = project();
        s.step(Expect::Anything, line);
        s.step(Expect::Anything, line);
        s.write("a.h", "#define A 5\n");
        s.step(Expect::Anything, line);
        assert!(Path::new("/dev/null").symlink_metadata().unwrap().len() == 0);
    }
}

#[test]
fn what_is_done_to_outputs_never_reaches_the_store() {
    let strip = system_tool("strip");
    let mut s = project();
    let line = "gcc -g -c a.c";
    s.step(Expect::Miss, line);
    type Deed<'a> = &'a dyn Fn(&Path);
    let deeds: [Deed<'_>; 6] = [
        &|w| _ = Command::new(&strip).arg("a.o").current_dir(w).status().unwrap(),
        &|w| {
            fs::File::options().write(true).open(w.join("a.o")).unwrap().write_all_at(b"poison", 64).unwrap()
        },
        &|w| fs::File::options().write(true).open(w.join("a.o")).unwrap().set_len(3).unwrap(),
        &|w| fs::write(w.join("a.o"), "").unwrap(),
        &|w| fs::rename(w.join("a.o"), w.join("moved.o")).unwrap(),
        &|w| {
            // Appends, as signing tools do.
            use std::io::Write;
            fs::File::options().append(true).open(w.join("a.o")).unwrap().write_all(b"signature").unwrap();
        },
    ];
    for deed in deeds {
        s.edit(deed);
        s.step(Expect::Hit, line);
        s.edit(|w| _ = fs::remove_file(w.join("moved.o")));
    }
}

/// Not only on the disk's file system: also in memory, where nothing can be shared.
#[test]
fn outputs_on_another_file_system_than_the_store_are_whole() {
    let elsewhere = tempfile::Builder::new().prefix("zct-").tempdir_in("/dev/shm").unwrap();
    let object = elsewhere.path().join("a.o");
    let mut s = project();
    let line = format!("gcc -g -c a.c -o {}", object.display());
    let mut made = Vec::new();
    for expect in [Expect::Miss, Expect::Hit, Expect::Hit] {
        s.step(expect, &line);
        made.push(fs::read(&object).unwrap());
        fs::File::options().write(true).open(&object).unwrap().write_all_at(b"poison", 64).unwrap();
    }
    assert!(made.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn modes_are_what_this_clients_umask_gives_to_every_output() {
    for tool in ["gcc", "clang"] {
        let mut s = project();
        for expect in [Expect::Miss, Expect::Hit] {
            for umask in [0o022, 0o077, 0o002, 0o777] {
                s.umask(umask);
                s.edit(clean);
                let expect = if umask == 0o777 { Expect::Anything } else { expect };
                s.step(expect, &format!("{tool} -g -gsplit-dwarf -MD -c a.c -o sub/a.o"));
            }
        }
    }
}

#[test]
fn warnings_and_notes_are_replayed_byte_for_byte() {
    for line in [
        "gcc -Wall -Wextra -c a.c",
        "gcc -Wall -fdiagnostics-color=always -c a.c",
        "gcc -Wall -fdiagnostics-format=json -c a.c",
        "gcc -H -c a.c",
        "clang -Weverything -c a.c",
        "clang -Weverything -fcolor-diagnostics -c a.c",
        "clang -fdiagnostics-format=msvc -Wall -c a.c",
        "clang -H -c a.c",
    ] {
        let mut s = Scenario::new();
        s.write("a.c", "#include \"a.h\"\nint f(void) { int unused; return \"x\" != 0; }\n");
        s.write("a.h", "#pragma message \"hello\"\nstatic int never(int p) { return 1; }\n");
        let first = s.step(Expect::Miss, line);
        assert!(!first.stderr.is_empty(), "{line}");
        assert_eq!(s.step(Expect::Hit, line), first);
    }
}

/// A hundred thousand bytes of messages do not fit in a pipe.
#[test]
fn messages_larger_than_a_pipe_are_replayed() {
    let mut s = Scenario::new();
    // Some go within one frame, more than 256 KiB in pieces.
    for (count, at_least) in [(2000, 100_000), (8000, 300_000)] {
        let warnings: String = (0..count).map(|n| format!("#warning number {n}\n")).collect();
        s.write("a.c", warnings);
        let first = s.step(Expect::Miss, "gcc -c a.c");
        assert!(first.stderr.len() > at_least);
        assert_eq!(s.step(Expect::Hit, "gcc -c a.c"), first);
    }
}

/// `2>&1`: one file takes both streams, in the order in which they were written.
#[test]
fn merged_streams_keep_their_order() {
    for line in
        ["gcc -c a.c", "gcc -Wall -c a.c -fdump-tree-original=stdout", "clang -Wall -c a.c", "gcc -c bad.c"]
    {
        let mut s = project();
        s.write("bad.c", "int f(void) { return missing; }\n");
        let merged = |wrapped: bool| {
            move |sandbox: &Sandbox| {
                let wrapper = sandbox.wrapper([""; 0]);
                let prefix =
                    if wrapped { wrapper.get_program().display().to_string() } else { String::new() };
                let mut command = sandbox.command("/bin/sh");
                command.args(["-c", &format!("exec {prefix} {line} 2>&1")]);
                command
            }
        };
        s.compare(Expect::Anything, merged(false), merged(true));
        s.compare(Expect::Hit, merged(false), merged(true));
        s.step(Expect::Anything, line);
    }
}

#[test]
fn a_tool_whose_streams_interleave_is_replayed_in_that_order_when_merged() {
    let mut s = project();
    s.script("bin/gcc", "echo one; echo two >&2; echo three; echo four >&2; exec /usr/bin/gcc \"$@\"");
    let tool = s.sandbox.work().join("bin/gcc").display().to_string();
    let merged = |wrapped: bool| {
        let tool = tool.clone();
        move |sandbox: &Sandbox| {
            let wrapper = sandbox.wrapper([""; 0]);
            let prefix = if wrapped { wrapper.get_program().display().to_string() } else { String::new() };
            let mut command = sandbox.command("/bin/sh");
            command.args(["-c", &format!("exec {prefix} {tool} -c a.c 2>&1")]);
            command
        }
    };
    for expect in [Expect::Miss, Expect::Hit] {
        let outcome = s.compare(expect, merged(false), merged(true));
        assert_eq!(outcome.out(), "one\ntwo\nthree\nfour\n");
    }
    s.step(Expect::Anything, &format!("{tool} -c a.c"));
    s.step(Expect::Hit, &format!("{tool} -c a.c"));
}

/// An output that is an input too: the next compile sees what the last one made of it.
#[test]
fn an_output_in_an_inputs_place_is_both() {
    for tool in ["gcc", "clang"] {
        for line in [
            "-E a.c -P -o a.h",
            "-fsyntax-only -MD -MF a.h a.c",
            "-S a.c -o a.c",
            "-c a.c -o ./a.c",
            "-MD -MF a.o -c a.c -o a.o",
            "-MD -MF a.c -c a.c",
            "-c a.c -o link.c",
            "-c link.c -o a.c",
        ] {
            let mut s = project();
            s.write("a.c", "#include \"a.h\"\n#define B 1\n");
            s.edit(|w| symlink("a.c", w.join("link.c")).unwrap());
            for _ in 0..3 {
                s.step(Expect::Anything, &format!("{tool} {line}"));
            }
        }
    }
}

/// A result that is known under another output's name must not be served over an input: gcc refuses to write over its
/// source, and empties a header before it reads it.
#[test]
fn a_result_of_another_name_is_not_put_in_an_inputs_place() {
    for tool in ["gcc", "clang"] {
        for mode in ["-c", "-S", "-E"] {
            let mut s = project();
            let restore = |s: &Scenario| {
                s.write("a.c", "#include \"a.h\"\nint a = A;\n");
                s.write("a.h", "#define A 1\n");
            };
            restore(&s);
            s.step(Expect::Miss, &format!("{tool} {mode} a.c -o other"));
            for output in ["a.c", "./a.c", "sub/../a.c", "a.h", "./a.h", "sub/../a.h"] {
                for _ in 0..2 {
                    s.step(Expect::Anything, &format!("{tool} {mode} a.c -o {output}"));
                    restore(&s);
                }
            }
            // The other way round: what was made in a header's place, elsewhere.
            s.write("a.c", "#include \"a.h\"\nint b = A;\n");
            s.step(Expect::Anything, &format!("{tool} {mode} a.c -o ./a.h"));
            s.write("a.h", "#define A 1\n");
            s.step(Expect::Anything, &format!("{tool} {mode} a.c -o third"));
        }
    }
}

/// The same by a link that appears: the output's directory is the source's by then.
#[test]
fn an_output_directory_that_becomes_the_sources_own_is_no_place_for_results() {
    for tool in ["gcc", "clang"] {
        let mut s = project();
        s.edit(|w| fs::create_dir(w.join("out")).unwrap());
        let line = format!("{tool} -E -P a.c -o out/a.c");
        s.step(Expect::Miss, &line);
        s.step(Expect::Hit, &line);
        s.edit(|w| {
            fs::remove_dir_all(w.join("out")).unwrap();
            symlink(".", w.join("out")).unwrap();
        });
        s.step(Expect::Anything, &line);
    }
}

#[test]
fn an_output_directory_that_is_a_link_leads_where_it_leads_now() {
    for tool in ["gcc", "clang"] {
        let mut s = project();
        s.edit(|w| {
            fs::create_dir(w.join("one")).unwrap();
            fs::create_dir(w.join("two")).unwrap();
        });
        let line = format!("{tool} -g -gsplit-dwarf -MD -c a.c -o out/a.o");
        for target in ["one", "two", "one", "nowhere", "two"] {
            s.edit(|w| {
                let _ = fs::remove_file(w.join("out"));
                symlink(target, w.join("out")).unwrap();
            });
            s.step(Expect::Anything, &line);
            s.step(Expect::Anything, &line);
        }
    }
}

/// What is deleted between two hits is made again, each file on its own.
#[test]
fn each_output_that_is_gone_comes_back_alone() {
    for tool in ["gcc", "clang"] {
        let mut s = project();
        let line = format!("{tool} -g -gsplit-dwarf -MD -fstack-usage -c a.c");
        s.step(Expect::Miss, &line);
        for name in ["a.o", "a.d", "a.dwo", "a.su"] {
            s.remove(name);
            s.step(Expect::Hit, &line);
            s.write(name, "other");
            s.step(Expect::Anything, &line);
        }
    }
}
