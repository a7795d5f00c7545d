//! The observed observer against real tools: what it sees, and that the tool cannot tell.

#![cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]

mod chance;
mod edits;
mod inside;
mod links;
mod observing;

use std::time::Duration;

use observing::{Bench, seen_absent, seen_executed, seen_listed, seen_read};
use zccache_actors::observation::Seen;
use zccache_actors::observer::{Left, Origin, Unstorable};
use zccache_actors::signature::FileKind;
use zccache_proto::message::{Exit, OutputStream, StreamKind};

const KEPT: Left = Left::File(Origin::Kept);
const EDITED: Left = Left::File(Origin::Edited);
const MADE: Left = Left::File(Origin::Made);
const MOVED: Left = Left::File(Origin::Moved);
const REPLACED: Left = Left::File(Origin::Replaced);

#[test]
fn a_compile_shows_its_inputs_probes_programs_and_output() {
    let bench = Bench::new();
    bench.write("near/placeholder", "");
    bench.write("far/h.h", "int f(void);\n");
    bench.write("a.c", "#include \"h.h\"\nint f(void) { return 1; }\n");
    let run = bench.run("gcc", &["-O2", "-Inear", "-Ifar", "-c", "a.c", "-o", "a.o"]);
    let o = &run.observed;
    assert_eq!((o.exit, &o.unstorable, o.asked_time), (Exit::Code(0), &None, false), "{}", run.stderr());
    assert!(seen_read(o, "a.c") && seen_read(o, "far/h.h"));
    assert!(seen_absent(o, "near/h.h") && seen_absent(o, "h.h"));
    assert!(["/gcc", "/cc1", "/as"].iter().all(|end| seen_executed(o, end)), "{:?}", o.programs);
    assert!(o.sightings.iter().any(|s| {
        matches!(s.seen, Seen::Read { executed: true, .. }) && s.path.0.windows(3).any(|w| w == b"/ld")
    }));
    assert_eq!(run.effects(), [("a.o".to_string(), MADE)]);
    assert!(o.sightings.iter().all(|s| !s.path.0.ends_with(b".s")), "temporary files are nothing");
    assert!(!o.sightings.iter().any(|s| s.path.0 == b"a.o"));
    let object = bench.read("a.o");
    bench.run_bare("gcc", &["-O2", "-Inear", "-Ifar", "-c", "a.c", "-o", "a.o"]);
    assert_eq!(bench.read("a.o"), object);
}

#[test]
fn no_path_is_seen_twice_alike() {
    let bench = Bench::new();
    bench.write("a.c", "#include <stdio.h>\nint main(void) { return puts(\"x\"); }\n");
    for tool in ["gcc", "clang"] {
        let run = bench.run(tool, &["-c", "a.c", "-o", "a.o"]);
        let mut seen = std::collections::HashSet::new();
        for s in &run.observed.sightings {
            assert!(seen.insert(format!("{s:?}")), "{tool}: {s:?} twice");
        }
        assert_eq!(run.observed.unstorable, None, "{tool}");
    }
}

#[test]
fn clang_is_seen_as_well() {
    let bench = Bench::new();
    bench.write("near/placeholder", "");
    bench.write("far/h.h", "");
    bench.write("a.c", "#include \"h.h\"\nint x;\n");
    let run = bench.run("clang", &["-O2", "-Inear", "-Ifar", "-c", "a.c", "-o", "a.o"]);
    let o = &run.observed;
    assert_eq!((o.exit, &o.unstorable, o.asked_time), (Exit::Code(0), &None, false), "{}", run.stderr());
    assert!(seen_read(o, "a.c") && seen_read(o, "far/h.h") && seen_absent(o, "near/h.h"));
    assert_eq!(run.effects(), [("a.o".to_string(), MOVED)]);
}

#[test]
fn a_failing_compile_is_a_result_like_others() {
    let bench = Bench::new();
    bench.write("a.c", "#include \"missing.h\"\n");
    let fresh = bench.run("gcc", &["-c", "a.c", "-o", "a.o"]);
    assert_eq!((fresh.observed.exit, &fresh.observed.unstorable), (Exit::Code(1), &None));
    assert!(seen_absent(&fresh.observed, "missing.h"));
    assert!(fresh.effects().is_empty());
    assert_eq!(fresh.stderr(), bench.run_bare("gcc", &["-c", "a.c", "-o", "a.o"]).1);
    bench.write("b.c", "int f(void) { asm(\"nonsense\"); return 1; }\n");
    bench.write("b.o", "old");
    let over_old = bench.run("gcc", &["-c", "b.c", "-o", "b.o"]);
    assert_eq!(over_old.observed.exit, Exit::Code(1));
    assert_eq!(over_old.effects(), [("b.o".to_string(), Left::Removed)]);
}

#[test]
fn whoever_prints_the_time_reads_the_time_zone() {
    let bench = Bench::new();
    bench.write("plain.c", "int x;\n");
    for (name, text) in [("date", "__DATE__"), ("time", "__TIME__"), ("stamp", "__TIMESTAMP__")] {
        bench.write(&format!("{name}.c"), &format!("const char *s = {text};\n"));
    }
    for tool in ["gcc", "clang"] {
        for zone in [None, Some("TZ="), Some("TZ=UTC0"), Some("TZ=:/etc/localtime"), Some("TZ=Europe/Berlin")]
        {
            for name in ["date", "time", "stamp", "plain"] {
                let source = format!("{name}.c");
                let run = bench.run_with(tool, &["-c", &source, "-o", "t.o"], |job| {
                    zone.iter().for_each(|z| job.invocation.env.push(z.as_bytes()));
                });
                assert_eq!(run.observed.asked_time, name != "plain", "{tool} {name} {zone:?}");
            }
        }
    }
}

#[test]
fn a_script_is_seen_with_its_interpreter() {
    let bench = Bench::new();
    bench.write("in", "text\n");
    bench.script("tool", "#!/bin/sh\ncat in >out\n[ -d sub ] || ls . >list\n");
    let run = bench.run("./tool", &[]);
    let o = &run.observed;
    assert_eq!((o.exit, &o.unstorable), (Exit::Code(0), &None), "{}", run.stderr());
    assert!(seen_executed(o, "./tool") && seen_executed(o, "/bin/sh"));
    let programs: Vec<_> = o.programs.iter().map(|p| String::from_utf8_lossy(&p.0)).collect();
    assert_eq!(programs[..2], ["./tool", "/bin/sh"]);
    assert!(seen_read(o, "in") && seen_absent(o, "sub") && seen_listed(o, "."));
    assert_eq!(run.effects(), [("out".into(), MADE), ("list".into(), MADE)]);
}

#[test]
fn paths_are_resolved_where_a_process_stands() {
    let bench = Bench::new();
    bench.write("sub/in", "text\n");
    bench.write("in", "");
    let run = bench.run("sh", &["-c", "cat in; cd sub && cat in && cat missing; cd .. && cat in"]);
    let o = &run.observed;
    assert_eq!(o.unstorable, None);
    assert!(
        seen_read(o, "in")
            && seen_read(o, &bench.path("sub/in"))
            && seen_absent(o, &bench.path("sub/missing"))
    );
    assert!(!seen_absent(o, "missing"));
}

#[test]
fn changes_that_cannot_be_restored_are_told() {
    let bench = Bench::new();
    for (script, changed) in [
        ("echo more >>old", Some("old")),
        ("mv old new", Some("old")),
        ("ln old new", Some("old")),
        ("chmod 600 old", Some("old")),
        ("mkdir dir", Some("dir")),
        ("ln -s old link", Some("link")),
        ("exec 3<>old", Some("old")),
        ("mkdir dir && touch dir/x && rm dir/x && rmdir dir", None),
        ("echo new >tmp && chmod 600 tmp && mv tmp new && echo more >>new", None),
        ("echo new >old", None),
        ("cp old new", None),
        ("echo x >/dev/null", None),
        ("touch new && touch ./new", None),
        ("touch nowhere/new || true", None),
    ] {
        bench.clear();
        bench.write("old", "old\n");
        let run = bench.run("sh", &["-c", script]);
        let expected = changed.map(|path| Unstorable::ChangedExisting(path.into()));
        assert_eq!(run.observed.unstorable, expected, "{script}");
        assert_eq!(run.observed.exit, Exit::Code(0), "{script}");
    }
    let nowhere = bench.run("sh", &["-c", ">nowhere/new"]);
    assert!(seen_absent(&nowhere.observed, "nowhere") && nowhere.effects().is_empty());
}

#[test]
fn what_is_left_is_an_effect_and_what_is_not_is_none() {
    let bench = Bench::new();
    for (script, effects) in [
        ("echo >a && mv a b", vec![("b", MOVED)]),
        ("echo >a && rm a", vec![]),
        ("rm old", vec![("old", Left::Removed)]),
        ("rm old && echo >old", vec![("old", REPLACED)]),
        ("echo >a && mv a old", vec![("old", REPLACED)]),
        ("echo >a && ln -f a old && rm a", vec![("old", REPLACED)]),
        ("echo >old && mv old b", vec![("old", Left::Removed), ("b", KEPT)]),
        ("cat old >/dev/null && echo >old", vec![("old", EDITED)]),
        ("echo >a && cat ./a $PWD/a", vec![("a", MADE)]),
    ] {
        bench.clear();
        bench.write("old", "old\n");
        let run = bench.run("sh", &["-c", script]);
        let expected: Vec<_> = effects.into_iter().map(|(path, left)| (path.to_string(), left)).collect();
        assert_eq!(run.effects(), expected, "{script}");
        assert_eq!(run.observed.unstorable, None, "{script}");
        assert!(!seen_read(&run.observed, "a") && !seen_read(&run.observed, "./a"), "{script}");
        assert!(!seen_read(&run.observed, &bench.path("a")), "{script}");
    }
}

#[test]
fn links_and_kinds_are_seen() {
    let bench = Bench::new();
    bench.write("file", "");
    bench.symlink("file", "link");
    let run =
        bench.run("sh", &["-c", "readlink link; readlink file; [ -d . ]; [ -f file ]; stat -c %s link"]);
    let has = |path: &str, wanted: fn(&Seen) -> bool| {
        run.observed.sightings.iter().any(|s| s.path.0 == path.as_bytes() && wanted(&s.seen))
    };
    assert!(has("link", |s| matches!(s, Seen::Symlink { target } if target.0 == b"file")));
    assert!(has("file", |s| matches!(s, Seen::Metadata { .. })));
    assert!(has(".", |s| matches!(s, Seen::Kind { kind: FileKind::Directory, .. })));
}

#[test]
fn what_has_no_stable_content_is_told() {
    let bench = Bench::new();
    for (script, unstable) in [
        ("cat /proc/uptime", "/proc/uptime"),
        ("head -c 1 /dev/random", "/dev/random"),
        ("ls /proc/self/fd", "/proc/self/fd"),
    ] {
        let run = bench.run("sh", &["-c", &format!("{script} >/dev/null")]);
        assert_eq!(run.observed.unstorable, Some(Unstorable::ReadUnstable(unstable.into())), "{script}");
    }
}

#[test]
fn processes_left_behind_go_on_undisturbed() {
    let bench = Bench::new();
    bench.write("in", "text\n");
    for redirect in ["", ">/dev/null 2>&1"] {
        let script =
            format!("(sleep 0.3; cat in in in >late; echo late; mv late later) {redirect} &\necho early");
        let run = bench.run("sh", &["-c", &script]);
        assert_eq!(run.observed.unstorable, Some(Unstorable::LeftProcess), "{redirect}");
        assert_eq!(run.stdout(), "early\n");
        bench.wait_for("later");
        assert_eq!(bench.read("later"), b"text\ntext\ntext\n");
        bench.remove("later");
    }
}

#[test]
fn cancelling_kills_the_whole_group() {
    let bench = Bench::new();
    let run = bench.run_cancelled("sh", &["-c", "sleep 60 & sleep 60 & echo $!; wait"]);
    assert_eq!(run.observed.unstorable, Some(Unstorable::Cancelled));
    assert!(run.elapsed < Duration::from_secs(20));
    let pid: i32 = run.stdout().trim().parse().unwrap();
    observing::wait_until(|| !observing::is_alive(pid));
}

#[test]
fn a_cancelled_tool_that_does_not_go_is_killed() {
    let script = "trap '' TERM; echo $$; while :; do sleep 60; done";
    let run = Bench::new().run_cancelled("sh", &["-c", script]);
    assert_eq!(
        (&run.observed.unstorable, run.observed.exit),
        (&Some(Unstorable::Cancelled), Exit::Signal(9))
    );
}

#[test]
fn a_signalled_tool_is_told_by_its_signal() {
    let run = Bench::new().run("sh", &["-c", "kill -TERM $$"]);
    assert_eq!(run.observed.exit, Exit::Signal(15));
    assert_eq!(run.observed.unstorable, Some(Unstorable::Signalled));
}

#[test]
fn a_terminal_stays_one() {
    let bench = Bench::new();
    let terminal = StreamKind::Terminal { rows: 24, columns: 91 };
    let script = "[ -t 1 ] && echo out; [ -t 2 ] && echo err >&2; stty size <&2";
    let run = bench.run_with("sh", &["-c", script], |job| {
        job.invocation.stdio.stdout = terminal;
        job.invocation.stdio.stderr = terminal;
    });
    assert_eq!((run.stdout(), run.stderr()), ("out\n24 91\n".into(), "err\n".into()));
    let piped = bench.run("sh", &["-c", script]);
    assert_eq!(piped.stdout(), "");
    bench.write("a.c", "int x = y;\n");
    let coloured = bench.run_with("gcc", &["-c", "a.c"], |job| {
        job.invocation.stdio.stderr = terminal;
        job.invocation.env.push(b"TERM=xterm");
    });
    assert!(coloured.stderr().contains("\u{1b}["), "{}", coloured.stderr());
}

#[test]
fn merged_output_keeps_its_order() {
    let bench = Bench::new();
    let script = "for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done";
    for kind in [StreamKind::Pipe, StreamKind::Terminal { rows: 0, columns: 0 }] {
        let run = bench.run_with("sh", &["-c", script], |job| {
            job.invocation.stdio.stdout = kind;
            job.invocation.stdio.stderr = kind;
            job.invocation.stdio.merged = true;
        });
        let expected: String = (1..=9).map(|i| format!("out {i}\nerr {i}\n")).collect();
        assert_eq!((run.stdout(), run.stderr()), (expected, String::new()));
        assert!(run.chunks.iter().all(|(stream, _)| *stream == OutputStream::Stdout));
    }
}

#[test]
fn standard_input_is_told_from_a_pipe_of_the_tools_own() {
    let bench = Bench::new();
    bench.write("a.c", "int x;\n");
    let piped = bench.run_with_input("gcc", &["-pipe", "-c", "a.c", "-o", "a.o"], b"int y;\n");
    assert_eq!((piped.observed.exit, piped.observed.unstorable), (Exit::Code(0), None));
    for arguments in [["-xc", "-c", "-", "-o", "b.o"], ["-xc", "-c", "/dev/stdin", "-o", "b.o"]] {
        let read = bench.run_with_input("gcc", &arguments, b"int y;\n");
        assert_eq!(
            (read.observed.exit, read.observed.unstorable),
            (Exit::Code(0), Some(Unstorable::ReadStdin))
        );
    }
}

#[test]
fn a_young_file_is_waited_for() {
    let bench = Bench::new();
    for i in 0..10 {
        bench.write("young", &format!("{i}\n"));
        let run = bench.run("cat", &["young"]);
        assert_eq!(run.observed.unstorable, None);
        let s = run.observed.sightings.iter().find(|s| s.path.0 == b"young").unwrap();
        let Seen::Read { signature, .. } = s.seen else { panic!("{s:?}") };
        bench.write("young", &format!("{}\n", (i + 1) % 10));
        assert_ne!(zccache_actors::signature::Signature::of(bench.path("young")).unwrap(), signature);
    }
}

#[test]
fn a_tool_that_cannot_run_is_an_error() {
    let bench = Bench::new();
    bench.script("garbage", "\u{1}\u{2}");
    bench.write("unexecutable", "#!/bin/sh\n");
    for (tool, kind) in [
        ("./missing", Some(std::io::ErrorKind::NotFound)),
        ("./unexecutable", Some(std::io::ErrorKind::PermissionDenied)),
        ("./garbage", None),
    ] {
        let error = bench.try_run(tool, &[]).err().unwrap();
        assert!(kind.is_none_or(|kind| error.kind() == kind), "{tool}: {error}");
    }
}

#[test]
fn much_output_arrives_whole() {
    let script = "yes 0123456789abcde | head -c 67108864 >&2";
    let run = Bench::new().run("sh", &["-c", script]);
    assert_eq!(run.chunks.iter().map(|(_, bytes)| bytes.len()).sum::<usize>(), 64 << 20);
    assert_eq!(run.observed.unstorable, None);
}

#[test]
fn the_process_is_its_clients() {
    let bench = Bench::new();
    let run = bench.run_with("sh", &["-c", "umask; echo $0 $A; pwd; ulimit -n; ls /proc/self/fd | wc -l; ps -o pgid= -p $$ | tr -d ' '; echo $$; grep SigIgn /proc/self/status"], |job| {
        job.invocation.umask = 0o027;
        job.invocation.argv = ["odd name", "-c"].iter().map(|s| s.as_bytes()).chain(job.invocation.argv.iter().skip(2)).collect();
        job.invocation.env.push(b"A=1 2");
        job.client_pid = Some(std::process::id());
    });
    let out = run.stdout();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..3], ["0027", "odd name 1 2", bench.path("").trim_end_matches('/')], "{out}");
    // 0, 1, 2 and the directory that ls lists.
    assert_eq!(lines[4], "4", "{out}");
    assert_eq!(lines[5], lines[6], "leads its group: {out}");
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    assert!(status.contains(lines[7]), "ignores the signals that its client does: {}", lines[7]);
}

#[test]
fn the_tools_threads_are_seen() {
    let bench = Bench::new();
    bench.write("lib.rs", "mod inner;\npub use inner::f;\n");
    bench.write("inner.rs", "pub fn f() -> u32 { 1 }\n");
    let run = bench.run("rustc", &["--crate-type=lib", "--emit=metadata,link,dep-info", "lib.rs"]);
    assert_eq!(run.observed.exit, Exit::Code(0), "{}", run.stderr());
    assert!(seen_read(&run.observed, "lib.rs") && seen_read(&run.observed, "inner.rs"));
    let mut left: Vec<_> = run.effects().into_iter().map(|(path, _)| path).collect();
    left.sort();
    assert_eq!(
        left,
        ["liblib.rlib", "liblib.rmeta", "lib.d"]
            .map(String::from)
            .into_iter()
            .collect::<std::collections::BTreeSet<_>>()
            .into_iter()
            .collect::<Vec<_>>()
    );
}

#[test]
fn sockets_are_told_unless_nobody_listens() {
    let bench = Bench::new();
    let perl = |call: &str| {
        let program = format!("use Socket; socket(S, AF_UNIX, SOCK_STREAM, 0); {call};");
        bench.run("perl", &["-e", &program]).observed
    };
    let refused = perl("connect(S, sockaddr_un('missing'))");
    assert!(seen_absent(&refused, "missing"));
    assert_eq!(refused.unstorable, None);
    assert_eq!(perl("bind(S, sockaddr_un('here'))").unstorable, Some(Unstorable::UsedSocket));
    assert_eq!(perl("connect(S, sockaddr_un('here'))").unstorable, Some(Unstorable::UsedSocket));
}

/// What a tool has written by its end is passed on, however slow who takes it, and is no process left behind.
#[test]
fn the_last_words_of_a_tool_are_not_lost() {
    let bench = Bench::new();
    let script = "head -c 300000 /dev/zero | tr '\\0' x; echo out; head -c 300000 /dev/zero | tr '\\0' y >&2; echo last >&2";
    for pause in [0, 3, 20].map(Duration::from_millis) {
        let run = bench.run_slowly("sh", &["-c", script], pause);
        assert_eq!((run.stdout().len(), run.stderr().len()), (300_004, 300_005), "{pause:?}");
        assert_eq!(run.observed.unstorable, None, "{pause:?}");
    }
}
