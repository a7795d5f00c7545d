//! The planner against the compilers themselves: what it believes of a command is what they do with it.
//!
//! The compilers are required; a machine without them fails these tests.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use zccache_actors::invocation::Invocation;
use zccache_actors::plan::{Plan, Planned, Planner};
use zccache_proto::ByteStrings;
use zccache_proto::message::{Stdio, StreamKind};
use zccache_service::c_family::names::Compiler;
use zccache_service::c_family::options::{self, OPTIONS, Role, Traits};
use zccache_service::c_family::response_files;
use zccache_service::planner::ToolPlanner;

/// The tree that commands run in: directories end in a slash.
const TREE: &[(&str, &str)] = &[
    ("a.c", "#include \"h.h\"\nint a(void) { return H; }\n"),
    ("b.i", "int b(void) { return 1; }\n"),
    ("h.h", "#define H 1\n"),
    ("m.s", ".globl m\nm:\n"),
    ("n.S", "#define N n\n.globl N\nN:\n"),
    ("noext", "int noext;\n"),
    ("out.x/", ""),
    ("sub/t.tab.cpp", "int t() { return 2; }\n"),
    ("rsp", "-c a.c -o 'out.x/r s.o' -MD"),
    ("rsp2", "-O1 @rsp"),
    ("value", "from-file.o"),
];

/// Commands for both families; `CC` and `CXX` stand for the tools.
const COMMANDS: &[&str] = &[
    "CC -c a.c",
    "CC a.c -c -o x.o",
    "CC -ox.o -c a.c",
    "CC --output=x.o -c a.c",
    "CC --output x.o --compile a.c",
    "CXX -c sub/t.tab.cpp",
    "CXX -c sub/t.tab.cpp -MD",
    "CC -S a.c",
    "CC -S -c a.c -o x",
    "CC -c -S -MD a.c",
    "CC -c b.i",
    "CC -c m.s",
    "CC -c n.S",
    "CC -c n.S -MD -o out.x/n",
    "CC -x c -c noext",
    "CC -xc -c noext -x none",
    "CC -c a.c -x c++",
    "CC -x c++ -c a.c -x none",
    "CC -c a.c -o first.o -o second.o",
    "CC -fsyntax-only a.c",
    "CC -fsyntax-only h.h",
    "CC -fsyntax-only -c a.c -o x.o",
    "CC -fsyntax-only -MD a.c",
    "CC -MD -c a.c",
    "CC -MMD -c a.c -o out.x/a",
    "CC -MD -c a.c -o .o",
    "CC -MMD -MP -MT t -MQ q -MF d.d -c a.c",
    "CC -MD -MFd1 -MFd2 -c a.c",
    "CC -MD -c a.c -MF from/../d.d",
    "CC -Wp,-MD,w.d -c a.c",
    "CC -E a.c -o x.i",
    "CC -E -MD a.c -o x.i",
    "CC -E -P n.S -o x.lds",
    "CC -c -E a.c -o x.i",
    "CC -M a.c -o x.d",
    "CC -MM a.c -MF x.d",
    "CC -MM -c a.c -o x.d",
    "CC @rsp",
    "CC @rsp2",
    "CC -c a.c -o @value",
    "CC -D @value -c a.c",
    "CC -c a.c -I @value -L l -l m -u s -z now -Xlinker x -T t.ld",
    "CC -v -pipe -c a.c",
    "CC -include h.h -imacros h.h -idirafter d -isystem s -iquote q -D A -U B -A m=n -c a.c",
    "CC -x c -c /dev/null -o x.o",
];

/// Commands that only clang has.
const CLANG_COMMANDS: &[&str] = &[
    "CC -c -emit-llvm a.c",
    "CC -S -emit-llvm a.c",
    "CC -S -emit-llvm a.c -o x",
    "CC -flto -c a.c",
    "CC --target=x86_64-linux-gnu -c a.c",
    "CC -target x86_64-linux-gnu -c a.c -MD",
    "CC -Xclang -fcolor-diagnostics -mllvm -inline-threshold=1 -c a.c",
];

/// Commands that only gcc has.
const GCC_COMMANDS: &[&str] = &[
    "CC -Wp,-MMD,w.d,-MT,t -c a.c -o x.o",
    "CC -flto -c a.c",
    "CC -wrapper env -c a.c",
    "CC --param max-inline-insns-auto=9 -c a.c",
];

#[test]
fn planned_outputs_are_what_gcc_writes() {
    for command in COMMANDS.iter().chain(GCC_COMMANDS) {
        check_outputs(command, "gcc", "g++");
    }
}

#[test]
fn planned_outputs_are_what_clang_writes() {
    for command in COMMANDS.iter().chain(CLANG_COMMANDS) {
        check_outputs(command, "clang", "clang++");
    }
}

fn check_outputs(command: &str, cc: &str, cxx: &str) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in TREE {
        match name.strip_suffix('/') {
            Some(name) => std::fs::create_dir_all(dir.path().join(name)).unwrap(),
            None => {
                std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
                std::fs::write(dir.path().join(name), text).unwrap();
            }
        }
    }
    std::fs::create_dir(dir.path().join("from")).unwrap();
    let before = files(dir.path());
    let argv: Vec<&str> = command
        .split(' ')
        .map(|word| match word {
            "CC" => cc,
            "CXX" => cxx,
            _ => word,
        })
        .collect();
    let plan = plan(&argv, dir.path());
    let told = run(argv[0], &[&["-###"], &argv[1..]].concat(), dir.path());
    let output = run(argv[0], &argv[1..], dir.path());
    assert!(output.status.success(), "{argv:?}: {}", text(&output));

    let planned: BTreeSet<String> =
        plan.outputs.iter().map(|path| normal(std::str::from_utf8(&path.0).unwrap())).collect();
    let written: BTreeSet<String> = files(dir.path()).difference(&before).cloned().collect();
    assert_eq!(planned, written, "{argv:?}");

    let source = plan.declared.source.expect("a C compile has a source").0;
    let source = String::from_utf8(source).unwrap();
    let is_told = text(&told).lines().any(|line| {
        // The inner commands: gcc's name a program of its own, clang's quote every word.
        let words: Vec<&str> = line.split_whitespace().map(|word| word.trim_matches('"')).collect();
        words.len() > 3 && words[1..].contains(&source.as_str())
    });
    assert!(is_told, "{argv:?}: {source} is not what is compiled\n{}", text(&told));
}

#[test]
fn options_that_take_the_next_argument_do_so_in_gcc() {
    check_options("gcc", Compiler::Gcc);
}

#[test]
fn options_that_take_the_next_argument_do_so_in_clang() {
    check_options("clang", Compiler::Clang);
}

/// Every option that takes the next argument, and no other, is one that the compiler calls incomplete at the end.
fn check_options(tool: &str, compiler: Compiler) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.c"), "").unwrap();
    let mut wrong = Vec::new();
    for option in OPTIONS.iter().filter(|o| is_for(o.traits, compiler)) {
        let found = options::find(option.name.as_bytes(), compiler);
        let takes_next = found.is_some_and(|found| found.option.name == option.name && found.takes_next);
        let alone = found.is_some_and(|found| found.option.shape == options::Shape::ALONE);
        // The many harmless `-f…` are left out to save half a minute: none of them takes the next argument.
        let is_one_of_many = option.name.starts_with("-f") && option.role == Role::Plain;
        if !takes_next && (!alone || is_one_of_many) || option.role == Role::Query {
            continue;
        }
        let told = text(&run(tool, &["-###", "-c", "a.c", option.name], dir.path()));
        let is_unknown = told.contains("unrecognized command-line option")
            || told.contains("unknown argument")
            || told.contains("unsupported option");
        let wants_more = told.contains("missing") || told.contains("argument to ");
        if !is_unknown && wants_more != takes_next {
            wrong.push(format!("{tool} {}", option.name));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Texts whose quoting might be read differently.
const QUOTED: &[&str] = &[
    "plain",
    "'a b'",
    "\"a b\"",
    "a\\ b",
    "a\\\\b",
    "\"a\\\"b\"",
    "'a\"b'",
    "\"a'b\"",
    "a'b c'd\"e f\"g",
    "\\a\\b",
    "\"a\nb\"",
    "a\r\n",
    "\t a \t",
    "\"a\\\\b\"",
    "#a",
    "a#b",
    "$HOME",
    "\u{e9}",
];

#[test]
fn response_files_are_split_as_the_compilers_split_them() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a.c"), "").unwrap();
    for text in QUOTED {
        // The target is printed as it came, so the output shows how the compiler split the file.
        std::fs::write(dir.path().join("rsp"), format!("-M -MT {text} -MT end")).unwrap();
        let expanded = response_files::expand([&b"@rsp"[..]].into_iter(), dir.path()).unwrap();
        let expanded: Vec<&str> =
            expanded.arguments.iter().map(|word| std::str::from_utf8(word).unwrap()).collect();
        for tool in ["gcc", "clang"] {
            let ours = run(tool, &[&expanded[..], &["a.c"]].concat(), dir.path());
            let theirs = run(tool, &["@rsp", "a.c"], dir.path());
            assert!(theirs.status.success(), "{tool} {text:?}: {}", self::text(&theirs));
            assert_eq!(ours.stdout, theirs.stdout, "{tool} {text:?} {expanded:?}");
        }
    }
}

fn is_for(traits: Traits, compiler: Compiler) -> bool {
    !traits.has(match compiler {
        Compiler::Gcc => Traits::CLANG,
        Compiler::Clang => Traits::GCC,
    })
}

fn plan(argv: &[&str], cwd: &Path) -> Plan {
    let invocation = Invocation {
        tool: format!("/usr/bin/{}", argv[0]).into(),
        argv: argv.iter().collect::<ByteStrings>(),
        cwd: cwd.to_str().unwrap().into(),
        env: ByteStrings::default(),
        umask: 0o022,
        stdio: Stdio {
            stdin: StreamKind::Null,
            stdout: StreamKind::Pipe,
            stderr: StreamKind::Pipe,
            merged: false,
        },
    };
    match ToolPlanner::default().plan(&invocation) {
        Planned::Cache(plan) => *plan,
        Planned::PassThrough(reason) => panic!("{argv:?} passes through: {reason:?}"),
    }
}

fn run(tool: &str, arguments: &[&str], cwd: &Path) -> Output {
    Command::new(tool)
        .args(arguments)
        .current_dir(cwd)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("LC_ALL", "C")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{tool} is needed by this test: {e}"))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every file below `root`, relative to it.
fn files(root: &Path) -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                files.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    files
}

/// A path without the one detour that the commands have.
fn normal(path: &str) -> String {
    path.replace("from/../", "")
}
