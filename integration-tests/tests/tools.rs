//! Any tool: what is seen to be repeatable comes from the cache, and whatever is not never does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use zccache_integration_tests::sandbox::{run, system_tool};
use zccache_integration_tests::scenario::set_mtime;
use zccache_integration_tests::{Expect, Sandbox, Scenario};

const PROGRAM: &str = "#include <stdio.h>\n#include \"a.h\"\nint f(int x)\n{\n  if (x) return   x/0;\n  return A; }\n\
    int main(void) { printf(\"hi\\n\"); return f(0); }\n";

fn project(tools: &[&str]) -> Scenario {
    tools.iter().for_each(|tool| _ = system_tool(tool));
    let s = Scenario::new();
    s.write("a.c", PROGRAM);
    s.write("a.h", "#define A 0\n");
    s
}

/// A miss, then a hit; after an edit of `input` a miss; with the edit taken back a hit.
#[track_caller]
fn comes_back(s: &mut Scenario, line: &str, input: &str, edited: &str) {
    let old = s.tree().file(input).unwrap().to_vec();
    s.step(Expect::Miss, line);
    s.step(Expect::Hit, line);
    s.write(input, edited);
    s.step(Expect::Miss, line);
    s.write(input, old);
    s.step(Expect::Hit, line);
}

#[test]
fn checkers_come_back_with_what_they_said() {
    let mut s = project(&["clang-tidy", "cppcheck", "include-what-you-use", "clang-format"]);
    comes_back(&mut s, "clang-tidy a.c -- -w", "a.h", "#define A 1\n");
    comes_back(&mut s, "cppcheck --enable=all a.c", "a.c", "int main(void) { return 0; }\n");
    comes_back(&mut s, "include-what-you-use -c a.c", "a.h", "#define A 2\n");
    comes_back(&mut s, "clang-format a.c", "a.c", "int   x;\n");
}

#[test]
fn a_checkers_configuration_counts_where_it_is_and_where_it_is_not() {
    let mut s = project(&["clang-tidy", "clang-format"]);
    s.write("sub/deep/b.c", "int g(int *p) { if (p) { return 1; } else { return 0; } }\n");
    let tidy = "clang-tidy sub/deep/b.c --";
    let format = "clang-format sub/deep/b.c";
    for line in [tidy, format] {
        s.step(Expect::Miss, line);
        s.step(Expect::Hit, line);
    }
    s.write("sub/.clang-tidy", "Checks: '-*,readability-else-after-return'\n");
    s.write("sub/.clang-format", "BasedOnStyle: GNU\n");
    for line in [tidy, format] {
        s.step(Expect::Miss, line);
        s.step(Expect::Hit, line);
    }
    // rustfmt's, which it looks for in each directory above as well.
    let rustfmt = rustfmt();
    s.write("sub/deep/m.rs", "fn main() {\n    if true {}\n}\n");
    let check = format!("{} --check sub/deep/m.rs", rustfmt.display());
    s.step(Expect::Miss, &check);
    s.step(Expect::Hit, &check);
    s.write("sub/rustfmt.toml", "hard_tabs = true\n");
    assert!(!s.step(Expect::Miss, &check).success());
    s.remove("sub/rustfmt.toml");
    s.step(Expect::Hit, &check);
    s.write("sub/.clang-tidy", "Checks: '-*,misc-*'\n");
    s.write("sub/deep/.clang-format", "BasedOnStyle: Mozilla\n");
    for line in [tidy, format] {
        s.step(Expect::Miss, line);
    }
    s.remove("sub/.clang-tidy");
    s.remove("sub/.clang-format");
    s.remove("sub/deep/.clang-format");
    for line in [tidy, format] {
        s.step(Expect::Hit, line);
    }
}

/// `#pragma GCC dependency` compares the times of files, for checkers as for compilers.
#[test]
fn checkers_compare_the_times_of_files_where_a_source_says_so() {
    let mut s = project(&["clang-tidy"]);
    s.write_at("d.c", "#pragma GCC dependency \"parse.y\" rebuild\nint d;\n", 1_400_000_000);
    s.write_at("parse.y", "grammar\n", 1_400_000_000);
    let line = "clang-tidy d.c --";
    s.step(Expect::Anything, line);
    s.step(Expect::Anything, line);
    for time in [1_400_000_009, 1_400_000_000, 1_300_000_000] {
        s.edit(|w| set_mtime(&w.join("d.c"), time));
        s.step(Expect::Anything, line);
        s.edit(|w| set_mtime(&w.join("parse.y"), 1_350_000_000));
        s.step(Expect::Anything, line);
        s.edit(|w| set_mtime(&w.join("parse.y"), 1_400_000_000));
    }
}

#[test]
fn a_checkers_time_is_told_only_where_it_is_asked_for() {
    let mut s = project(&["cppcheck", "clang-tidy"]);
    s.write("a.c", "const char *when = __DATE__;\n");
    s.step(Expect::NotStored, "cppcheck a.c");
    s.step(Expect::NotStored, "cppcheck -DX=__TIME__ a.h a.c");
    s.unlike("unlike");
    s.compare(
        Expect::NotStored,
        |sandbox| {
            let mut command = sandbox.command("sh");
            command.args(["-c", "clang-tidy --enable-check-profile a.c -- >/dev/null 2>&1"]);
            command
        },
        |sandbox| {
            let mut command = sandbox.wrapper(["clang-tidy", "--enable-check-profile", "a.c", "--"]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut shell = sandbox.command("sh");
            shell
                .arg("-c")
                .arg("\"$0\" \"$@\" >/dev/null 2>&1")
                .arg(command.get_program())
                .args(command.get_args());
            shell
        },
    );
}

#[test]
fn generators_come_back() {
    let mut s = project(&["flex", "bison", "protoc", "moc"]);
    s.write("l.l", "%%\nx { return 1; }\n%%\n");
    s.write("g.y", "%token X\n%%\ns: X;\n%%\n");
    s.write("m.proto", "syntax = \"proto3\"; import \"n.proto\"; message M { N a = 1; }\n");
    s.write("n.proto", "syntax = \"proto3\"; message N { int32 a = 1; }\n");
    comes_back(&mut s, "flex -o l.c l.l", "l.l", "%%\ny { return 2; }\n%%\n");
    comes_back(&mut s, "bison -d g.y -o g.c", "g.y", "%token X Y\n%%\ns: X Y;\n%%\n");
    comes_back(&mut s, "bison -v g.y -o h.c", "g.y", "%token X Y\n%%\ns: Y;\n%%\n");
    let edited = "syntax = \"proto3\"; message N { int64 b = 1; }\n";
    comes_back(&mut s, "protoc --cpp_out=. m.proto n.proto", "n.proto", edited);
    // Another definition of what is imported, found earlier.
    let searched = "protoc -Ifirst -I. --cpp_out=. ./m.proto";
    s.write("first/placeholder", "");
    s.step(Expect::Miss, searched);
    s.step(Expect::Hit, searched);
    s.write("first/n.proto", edited);
    s.step(Expect::Miss, searched);
    s.write("q.h", "#include \"a.h\"\nclass Q : public QObject { Q_OBJECT\nsignals: void s(int);\n};\n");
    comes_back(&mut s, "moc q.h -o moc_q.cpp", "a.h", "#define A 5\n");
    s.remove("moc_q.cpp");
    s.step(Expect::Hit, "moc q.h -o moc_q.cpp");
}

#[test]
fn objects_are_copied_and_stripped_with_the_mode_of_the_input() {
    let mut s = project(&["objcopy", "strip", "llvm-objcopy", "gcc"]);
    s.step(Expect::Miss, "gcc -g -c a.c");
    for tool in ["objcopy", "llvm-objcopy"] {
        let line = format!("{tool} --add-section .note=a.h a.o {tool}.o");
        comes_back(&mut s, &line, "a.h", "#define A 4\n");
        s.edit(|w| std::fs::set_permissions(w.join("a.o"), PermissionsExt::from_mode(0o755)).unwrap());
        s.step(Expect::Run, &line);
        s.edit(|w| std::fs::set_permissions(w.join("a.o"), PermissionsExt::from_mode(0o644)).unwrap());
        s.step(Expect::Anything, &line);
    }
    s.step(Expect::Miss, "strip -g a.o -o b.o");
    s.edit(|w| std::fs::remove_file(w.join("b.o")).unwrap());
    s.step(Expect::Hit, "strip -g a.o -o b.o");
}

/// Archives that are copied with what is edited have the times of their members only where that is asked for.
#[test]
fn archives_are_stripped_with_no_times_unless_they_are_asked_for() {
    let mut s = project(&["objcopy", "strip", "llvm-strip", "ar", "gcc"]);
    s.step(Expect::Miss, "gcc -g -c a.c");
    s.step(Expect::Miss, "ar rcs lib.a a.o");
    for tool in ["strip", "llvm-strip", "objcopy"] {
        let output = if tool == "objcopy" { "" } else { "-o " };
        let line = format!("{tool} -g lib.a {output}{tool}.a");
        s.step(Expect::Miss, &line);
        s.remove(&format!("{tool}.a"));
        s.step(Expect::Hit, &line);
        s.unlike("timed.a");
        s.step(Expect::NotStored, &format!("{tool} -U -g lib.a {output}timed.a"));
    }
}

/// A file that is edited in place: the same edit of the same content is served, an edit of the result is another.
#[test]
fn files_edited_in_place_are_inputs_and_outputs() {
    let rustfmt = rustfmt();
    let mut s = project(&["strip", "clang-format", "sed", "gcc"]);
    let object = built_object(&s);
    let rust = &b"fn main( ){println!(\"x\");}"[..];
    for (line, file, old) in [
        ("strip -g object", "object", &object[..]),
        ("clang-format -i a.c", "a.c", PROGRAM.as_bytes()),
        (&format!("{} m.rs", rustfmt.display()), "m.rs", rust),
    ] {
        s.write(file, old);
        s.step(Expect::Miss, line);
        let after = s.tree().file(file).unwrap().to_vec();
        assert_ne!(after, old, "{line} does nothing");
        s.write(file, old);
        s.step(Expect::Hit, line);
        assert_eq!(s.tree().file(file).unwrap(), after);
        // On its own result it does nothing, or not the same.
        s.step(Expect::Run, line);
        s.write(file, old);
        s.step(Expect::Hit, line);
        s.write(file, [old, b"\n"].concat());
        s.step(Expect::Run, line);
    }
}

/// rustfmt itself, not rustup's stand-in.
fn rustfmt() -> PathBuf {
    let rustfmt = PathBuf::from(std::env::var_os("CARGO").unwrap()).with_file_name("rustfmt");
    assert!(rustfmt.is_file(), "this test needs rustfmt beside cargo");
    rustfmt
}

/// The object of the project's program, as the bare compiler makes it.
fn built_object(s: &Scenario) -> Vec<u8> {
    let at = s.sandbox.path("object.c");
    std::fs::write(&at, "int x; int main(void) { return x; }\n").unwrap();
    let mut command = std::process::Command::new("gcc");
    command.args(["-g", "-c", "object.c", "-o", "object.o"]).current_dir(at.parent().unwrap());
    run(&mut command).expect_success();
    std::fs::read(s.sandbox.path("object.o")).unwrap()
}

#[test]
fn scripts_come_back_with_everything_that_they_asked() {
    let mut s = project(&["sh", "sed"]);
    s.script(
        "gen.sh",
        "[ -e switch ] && tr a-z A-Z <a.h >gen.h || sed s/A/B/ a.h >gen.h; echo \"$MODE made\"",
    );
    s.step(Expect::Miss, "./gen.sh");
    s.step(Expect::Hit, "./gen.sh");
    s.write("switch", "");
    s.step(Expect::Miss, "./gen.sh");
    s.remove("switch");
    s.step(Expect::Hit, "./gen.sh");
    s.sandbox.set("MODE", "fast");
    s.step(Expect::Miss, "./gen.sh");
    s.script("gen.sh", "tr a-z 0-9 <a.h >gen.h");
    s.step(Expect::Miss, "./gen.sh");
}

/// What makes a run unrepeatable, and the reason under which it is counted.
#[test]
fn what_cannot_be_repeated_is_never_stored() {
    let s = Sandbox::new();
    s.start();
    s.write(
        "clock.c",
        "#include <stdio.h>\n#include <time.h>\nint main(void) { printf(\"%ld\\n\", (long)time(0)); }\n",
    );
    run(s.command("gcc").args(["clock.c", "-o", "clock"])).expect_success();
    for (script, reason) in [
        ("date +%s%N", "read_clock"),
        ("./clock", "read_clock"),
        ("uptime", "read_"),
        ("head -c 4 /dev/urandom | od", "took_random_numbers"),
        ("mktemp -u", "took_random_numbers"),
        ("cat", "read_stdin"),
        ("cat /proc/self/stat", "read_device"),
        ("mkfifo f; (echo x >f &); cat f; rm f", "read_device"),
        ("python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 9))' 2>/dev/null; :", ""),
        ("touch -d 2001-01-01 old; :", "changed_existing_file"),
        ("kill -9 $$", "signalled"),
    ] {
        let before = s.stats();
        for _ in 0..2 {
            let mut command = s.wrapper(["sh", "-c", script]);
            let (reader, writer) = std::io::pipe().unwrap();
            drop(writer);
            command.stdin(reader);
            run(&mut command);
        }
        let after = s.stats();
        let delta = after.counters - before.counters;
        assert_eq!((delta.requests, delta.hits, delta.stored), (2, 0, 0), "{script}: {delta:?}");
        let reasons = s.client("stats --json").out();
        assert!(reasons.contains(reason), "{script}: {reasons}");
    }
}

/// What is on standard input is an input like any other where it can be known beforehand.
#[test]
fn standard_input_counts_where_it_can_be_looked_at() {
    let mut s = project(&["sh", "tr", "clang-format"]);
    for (text, expect) in [("one\n", Expect::Miss), ("one\n", Expect::Hit), ("two\n", Expect::Miss)] {
        let input = s.sandbox.path("input");
        std::fs::write(&input, text).unwrap();
        let open = || std::fs::File::open(&input).unwrap();
        for words in [&["tr", "a-z", "A-Z"][..], &["clang-format"]] {
            s.compare(
                expect,
                |sandbox| {
                    let mut command = sandbox.command(words[0]);
                    command.args(&words[1..]).stdin(open());
                    command
                },
                |sandbox| {
                    let mut command = sandbox.wrapper(words);
                    command.stdin(open());
                    command
                },
            );
        }
    }
}

#[test]
fn tools_about_the_world_pass_through() {
    let mut s = project(&["ls", "make", "cp", "clang"]);
    for line in ["python3 -c pass", "ls", "make -v", "cp a.c b.c"] {
        s.step(Expect::PassThrough, line);
    }
}

/// Command lines in the manner of Microsoft's compiler, by clang under that name or told so: its own business, and its
/// objects hold the time. Response files in UTF-16, too, whoever is given one.
#[test]
fn command_lines_in_microsofts_manner_pass_through() {
    let mut s = project(&["clang"]);
    s.edit(|w| std::os::unix::fs::symlink(system_tool("clang"), w.join("clang-cl")).unwrap());
    let units = |text: &str| text.encode_utf16().collect::<Vec<u16>>();
    let bytes = |mark: [u8; 2], to: fn(u16) -> [u8; 2], text: &str| {
        mark.into_iter().chain(units(text).into_iter().flat_map(to)).collect::<Vec<u8>>()
    };
    let words = "/c /nologo /Z7 /Foa.obj a.c\r\n";
    s.write("little.rsp", bytes([0xff, 0xfe], u16::to_le_bytes, words));
    s.write("big.rsp", bytes([0xfe, 0xff], u16::to_be_bytes, words));
    s.write("plain.rsp", words);
    s.write("unix.rsp", bytes([0xff, 0xfe], u16::to_le_bytes, "-c a.c -o a.o\n"));
    s.unlike("a.obj");
    for header in ["#define A 0\n", "#define A 7\n"] {
        s.write("a.h", header);
        for line in [
            "./clang-cl /c /Foa.obj a.c",
            "./clang-cl /nologo /showIncludes /c a.c",
            "./clang-cl /Z7 /c /Foa.obj a.c",
            "./clang-cl @little.rsp",
            "./clang-cl @big.rsp",
            "./clang-cl @plain.rsp",
            "./clang-cl /c nowhere.c",
            "clang --driver-mode=cl /c a.c",
            "clang @unix.rsp",
            "gcc @unix.rsp",
            "clang --target=x86_64-pc-windows-msvc -c a.c -o a.obj",
            "clang -target x86_64-pc-windows-msvc19.20 -c a.c -o a.obj",
        ] {
            s.edit(|w| ["a.obj", "a.o"].iter().for_each(|output| _ = std::fs::remove_file(w.join(output))));
            s.step(Expect::PassThrough, line);
        }
    }
}

#[test]
fn archives_are_made_and_added_to() {
    let mut s = project(&["ar", "llvm-ar", "gcc-ar", "ranlib", "gcc"]);
    s.write("b.c", "int b;\n");
    s.step(Expect::Miss, "gcc -c a.c");
    s.step(Expect::Miss, "gcc -c b.c");
    for ar in ["ar", "llvm-ar", "gcc-ar"] {
        let both = format!("{ar} rcs lib{ar}.a a.o b.o");
        s.step(Expect::Miss, &both);
        s.edit(|w| std::fs::remove_file(w.join(format!("lib{ar}.a"))).unwrap());
        s.step(Expect::Hit, &both);
        // The archive that is there is an input: b.o stays in it.
        s.step(Expect::Run, &format!("{ar} rcs lib{ar}.a a.o"));
        s.step(Expect::Anything, &format!("{ar} t lib{ar}.a"));
        s.edit(|w| std::fs::remove_file(w.join(format!("lib{ar}.a"))).unwrap());
        s.step(Expect::Run, &format!("{ar} rcs lib{ar}.a a.o"));
        s.step(Expect::Anything, &format!("{ar} t lib{ar}.a"));
        s.step(Expect::Run, &format!("{ar} q lib{ar}.a a.o"));
        s.step(Expect::Run, &format!("{ar} q lib{ar}.a a.o"));
        s.step(Expect::Anything, &format!("{ar} t lib{ar}.a"));
        s.step(Expect::Run, &format!("{ar} d lib{ar}.a a.o"));
    }
    for ranlib in ["ranlib", "gcc-ranlib", "llvm-ranlib", "ranlib -D"] {
        let line = format!("{ranlib} libs.a");
        s.step(Expect::Anything, "ar qcS libs.a a.o b.o");
        s.step(Expect::Miss, &line);
        s.remove("libs.a");
        s.step(Expect::Anything, "ar qcS libs.a a.o b.o");
        s.step(Expect::Hit, &line);
        s.remove("libs.a");
    }
    s.step(Expect::Miss, "ar crDs libd.a a.o b.o");
    s.remove("libd.a");
    s.step(Expect::Hit, "ar crDs libd.a a.o b.o");
    // Members are told by their names, and so is their order.
    s.step(Expect::Miss, "ar crDs libe.a b.o a.o");
    s.edit(|w| _ = std::fs::copy(w.join("b.o"), w.join("c.o")).unwrap());
    s.step(Expect::Miss, "ar crDs libf.a a.o c.o");
    s.step(Expect::Run, "ar rcT thin.a a.o b.o");
    s.step(Expect::PassThrough, "ar rcsU times.a nothing.o");
    s.step(Expect::PassThrough, "ar ruD libar.a a.o");
    s.unlike("times.a");
    s.write("more", "-U a.o\n");
    s.step(Expect::PassThrough, "ar rcs times.a @more");
    s.write("members", "a.o b.o\n");
    s.step(Expect::Miss, "ar rcs listed.a @members");
    for line in
        ["ar rcsU times.a a.o", "ranlib -U times.a", "llvm-ar rcsU times.a b.o", "gcc-ar rcsU times.a b.o"]
    {
        s.step(Expect::PassThrough, line);
    }
}

#[test]
fn what_a_user_declares_adds_to_what_is_seen() {
    let s = Sandbox::new();
    s.start();
    for directory in ["one", "two"] {
        s.write(&format!("{directory}/in"), "content\n");
        s.write(&format!("{directory}/hidden"), "1\n");
        // Of a tool that nobody knows, times of inputs may show.
        for name in ["in", "hidden"] {
            set_mtime(&s.work().join(directory).join(name), 1_000_000_000);
        }
    }
    let exec = |directory: &str, options: &str, mode: &str| {
        let before = s.stats().counters;
        let mut command = s.command(zccache_integration_tests::binaries::directory().join("zccache-client"));
        command.arg("exec").args(options.split_whitespace()).args(["--", "sed", "-n", "w out", "in"]);
        command.current_dir(s.work().join(directory)).env("MODE", mode);
        let outcome = run(&mut command).expect_success();
        assert_eq!(std::fs::read(s.work().join(directory).join("out")).unwrap(), b"content\n");
        assert_eq!(outcome.out(), "");
        (s.stats().counters - before).hits
    };
    let options = "--input hidden --input-env MODE --output out --no-cwd";
    assert_eq!(exec("one", options, "a"), 0);
    assert_eq!(exec("one", options, "a"), 1);
    assert_eq!(exec("two", options, "a"), 1, "the working directory was declared away");
    assert_eq!(exec("one", options, "b"), 0, "a declared variable");
    s.write("one/hidden", "2\n");
    assert_eq!(exec("one", options, "a"), 0, "a declared input");
    assert_eq!(exec("two", options, "a"), 1);
    assert_eq!(exec("two", "--output out", "a"), 0, "another declaration");
}

/// Each declaration by itself, of runs whose hidden side nobody could see.
#[test]
fn each_declaration_has_its_effect() {
    let mut s = Sandbox::new();
    s.start();
    s.set("V", "1");
    for file in ["in", "declared/one", "elsewhere/in"] {
        s.write(file, "content\n");
        set_mtime(&s.work().join(file), 1_000_000_000);
    }
    let exec = |s: &Sandbox, directory: &str, options: &str, words: &[&str]| {
        let before = s.stats().counters;
        let mut command = s.command(zccache_integration_tests::binaries::directory().join("zccache-client"));
        command.arg("exec").args(options.split_whitespace()).arg("--").args(words);
        let outcome = run(command.current_dir(s.work().join(directory)));
        let delta = s.stats().counters - before;
        assert_eq!(delta.requests, 1, "{options}: {delta:?}");
        (delta.hits, delta.stored, outcome)
    };
    let copy = ["sed", "w out", "in"];
    // An input that is not there yet, a directory with its names, and a file.
    for (input, change) in
        [("absent", "absent"), ("declared", "declared/two"), ("declared/one", "declared/one")]
    {
        let options = format!("--input {input}");
        assert_eq!(exec(&s, "", &options, &copy).0, 0);
        assert_eq!(exec(&s, "", &options, &copy).0, 1, "{input}");
        s.write(change, "changed\n");
        assert_eq!(exec(&s, "", &options, &copy).0, 0, "{input}");
    }
    // A variable, set otherwise and not at all.
    assert_eq!(exec(&s, "", "--input-env V", &copy).0, 0);
    assert_eq!(exec(&s, "", "--input-env V", &copy).0, 1);
    s.set("V", "2");
    assert_eq!(exec(&s, "", "--input-env V", &copy).0, 0);
    s.unset("V");
    assert_eq!(exec(&s, "", "--input-env V", &copy).0, 0);
    // An output: comes back, and a success without it is no result.
    assert_eq!(exec(&s, "", "--output out", &copy).0, 0);
    std::fs::remove_file(s.work().join("out")).unwrap();
    assert_eq!(exec(&s, "", "--output out", &copy).0, 1);
    assert_eq!(std::fs::read(s.work().join("out")).unwrap(), b"content\n");
    let (hits, stored, outcome) = exec(&s, "", "--output never", &["cat", "in"]);
    assert_eq!((hits, stored, outcome.out().as_str()), (0, 0, "content\n"), "it did not come to be");
    // The working directory: another one is another request, unless it is declared away; and what names it is not stored.
    let relative = ["cat", "in"];
    assert_eq!(exec(&s, "", "--output in", &relative).0, 0);
    assert_eq!(exec(&s, "elsewhere", "--output in", &relative).0, 0);
    assert_eq!(exec(&s, "", "--no-cwd", &relative).0, 0);
    assert_eq!(exec(&s, "elsewhere", "--no-cwd", &relative).0, 1);
    let whole = s.work().join("in");
    let (hits, stored, _) = exec(&s, "", "--no-cwd", &["cat", whole.to_str().unwrap()]);
    assert_eq!((hits, stored), (0, 0), "it names the directory");
    // The tool's own status and output; an unknown option is ours to refuse.
    assert_eq!(exec(&s, "", "--input in", &["sh", "-c", "echo no >&2; exit 7"]).2.status, 7);
    s.client("exec --unknown -- true").success().then(|| panic!("an unknown option was taken"));
}

/// NVIDIA's compiler, as `make tools` installs it. It names a symbol after its process: any two objects differ.
#[test]
fn nvcc_comes_back() {
    let place = zccache_integration_tests::binaries::directory().parent().unwrap().join("nvcc");
    let versions = std::fs::read_dir(place.join("lib")).into_iter().flatten().flatten();
    let releases = versions.flat_map(|python| {
        std::fs::read_dir(python.path().join("site-packages/nvidia")).into_iter().flatten().flatten()
    });
    let nvcc = releases.map(|release| release.path().join("bin/nvcc")).find(|nvcc| nvcc.is_file());
    let nvcc =
        nvcc.unwrap_or_else(|| panic!("this test needs nvcc in {}: run `make tools`", place.display()));
    let mut s = Scenario::new();
    s.write("k.cu", "#include \"k.h\"\n__global__ void k(int *a) { a[threadIdx.x] = A; }\n");
    s.write("k.h", "#define A 1\n");
    s.unlike("k.o");
    let line = format!("{} -c k.cu -o k.o", nvcc.display());
    s.step(Expect::Miss, &line);
    let first = s.tree().file("k.o").unwrap().to_vec();
    s.edit(|w| std::fs::remove_file(w.join("k.o")).unwrap());
    s.step(Expect::Hit, &line);
    assert_eq!(s.tree().file("k.o").unwrap(), first);
    s.write("k.h", "#define A 2\n");
    s.step(Expect::Miss, &line);
}

/// A script's interpreter may be a script. The kernel gives up after five of them, and we follow no further than that.
#[test]
fn scripts_are_followed_as_deep_as_the_kernel_follows_them() {
    const LAST: usize = 9;
    let mut s = project(&["sh"]);
    let write = |s: &Scenario, number: usize, more: &str| {
        s.edit(|w| {
            let next = if number == LAST { "/bin/sh".to_string() } else { format!("./s{}", number + 1) };
            let path = w.join(format!("s{number}"));
            std::fs::write(&path, format!("#!{next}\n{more}\n")).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            set_mtime(&path, 1_700_000_000);
        });
    };
    (1..=LAST).for_each(|number| write(&s, number, ""));
    // The shell says that there are too many, or finds that the script did what it says: nothing.
    let run = |first: usize| ["sh".to_string(), "-c".into(), format!("./s{first}; echo $? >status")];
    for (first, looked_at, not_looked_at) in [(LAST - 4, LAST, None), (1, 5, Some(LAST - 1))] {
        s.step_of(Expect::Miss, &run(first));
        s.step_of(Expect::Hit, &run(first));
        if let Some(number) = not_looked_at {
            write(&s, number, "# nobody comes so far");
            s.step_of(Expect::Hit, &run(first));
        }
        write(&s, looked_at, "# another one");
        s.step_of(Expect::Miss, &run(first));
        s.step_of(Expect::Hit, &run(first));
    }
}
