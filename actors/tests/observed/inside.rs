//! What is observed from inside: programs get the answers that they would get, and nothing is seen otherwise than from outside.

use std::collections::BTreeSet;
use std::time::Duration;

use super::observing::{Bench, Run, seen_absent, seen_read};
use zccache_actors::observation::Sighting;
use zccache_actors::observer::{Job, Unstorable};
use zccache_actors::plan::{Caution, Policy};
use zccache_proto::message::Exit;

/// Knows all programs, and which of them search.
static SEARCHING: Policy = Policy {
    family: "test",
    knows_program: |_| true,
    reads_links_on_its_way_only: false,
    searches: |name| name.starts_with(b"cc1") || name.starts_with(b"clang"),
    ignored_reads: &["/proc/filesystems", "/proc/self/exe", "/dev/urandom"],
    review: None,
    caution: Caution { harmless: |_| true, ..Caution::NONE },
};

fn inside(job: &mut Job) {
    job.policy = &SEARCHING;
    job.foreign_code = false;
}

/// The same by the kernel's reports alone.
fn outside(job: &mut Job) {
    inside(job);
    // Whoever directs the loader gets no library that he did not ask for.
    job.invocation.env = job.invocation.env.iter().chain([&b"LD_BIND_NOW=1"[..]]).collect();
}

/// The program, built with these options, by this name.
fn searcher(bench: &Bench, name: &str, options: &[&str]) -> String {
    bench.write("searcher.c", include_str!("searcher.c"));
    bench.run_bare("gcc", &[&["-O1", "-pthread", "searcher.c", "-o", name], options].concat());
    bench.path(name)
}

/// What was seen, but for temporary files of random names, and time stamps.
fn facts(run: &Run) -> BTreeSet<String> {
    let untimed = |seen: String| {
        let parts = seen.split("time_ns: ").map(|part| part.trim_start_matches(char::is_numeric));
        parts.collect::<Vec<_>>().join("time")
    };
    let told =
        |s: &Sighting| format!("{} {}", String::from_utf8_lossy(&s.path.0), untimed(format!("{:?}", s.seen)));
    run.observed
        .sightings
        .iter()
        .map(told)
        .filter(|fact| !fact.starts_with("/tmp/cc") && !fact.contains(".o.tmp "))
        .collect()
}

fn assert_same(without: &Run, with: &Run, what: &str) {
    let (outside, inside) = (facts(without), facts(with));
    let missing: Vec<_> = outside.difference(&inside).collect();
    let more: Vec<_> = inside.difference(&outside).collect();
    assert!(missing.is_empty() && more.is_empty(), "{what}: missing {missing:#?}, more {more:#?}");
    assert_eq!(without.effects(), with.effects(), "{what}");
    assert_eq!(without.observed.reread, with.observed.reread, "{what}");
    assert_eq!(without.observed.unstorable, with.observed.unstorable, "{what}");
    assert_eq!(without.observed.exit, with.observed.exit, "{what}");
}

fn furnish(bench: &Bench) {
    bench.write("d/here.h", "int here;\n");
    bench.write("d/child.h", "int child;\n");
    bench.write("d/e/deep.h", "");
    bench.write("d/e/deep.hpp", "");
    bench.symlink("d/here.h", "linked.h");
    bench.symlink("d", "linked_d");
    bench.symlink("nowhere", "dangling");
    bench.symlink("loop", "loop");
    let_time_pass();
}

/// What was written a moment ago is young, and opened in sight of the kernel.
fn let_time_pass() {
    std::thread::sleep(Duration::from_millis(20));
}

#[test]
fn a_program_that_searches_gets_an_interposer_and_no_other_does() {
    let bench = Bench::new();
    let is_interposed = |tool: &str, change: fn(&mut Job)| {
        let run = bench.run_with(tool, &["interposed:"], change);
        assert_eq!((run.observed.exit, &run.stderr()[..]), (Exit::Code(0), ""), "{tool}");
        run.stdout() == "interposed: 1\n"
    };
    let tool = searcher(&bench, "cc1", &[]);
    assert!(is_interposed(&tool, inside));
    assert!(!is_interposed(&tool, outside));
    assert!(!is_interposed(&tool, |job| {
        inside(job);
        job.foreign_code = true;
    }));
    assert!(!is_interposed(&searcher(&bench, "other", &[]), inside));
    assert!(!is_interposed(&searcher(&bench, "cc1-static", &["-static"]), inside));
    // A sanitizer must be the first library that is loaded, and says so.
    assert!(!is_interposed(&searcher(&bench, "cc1-asan", &["-fsanitize=address"]), inside));
    assert!(!is_interposed(&searcher(&bench, "cc1-tsan", &["-fsanitize=thread"]), inside));
}

#[test]
fn a_program_gets_the_answers_that_it_would_get() {
    let bench = Bench::new();
    furnish(&bench);
    let tool = searcher(&bench, "cc1", &[]);
    let long = "x/".repeat(2100);
    let absolute = bench.path("d/here.h");
    let mut words: Vec<String> = vec!["null:".into()];
    for path in [
        "d/here.h",
        "d/absent.h",
        "absent/x.h",
        "d/here.h/x.h",
        "linked.h",
        "linked_d/here.h",
        "linked_d/../d/here.h",
        "dangling",
        "loop",
        "loop/x",
        "d",
        "d/",
        "d/./here.h",
        "d//here.h",
        "d/here.h/",
        "",
        "/",
        "/usr/include/stdio.h",
        "/usr//include/./stdio.h",
        "/usr/include/absent/stdio.h",
        "/usr/include/stdio.h/x",
        "/usr/lib/gcc/../gcc",
        "/dev/null",
        "/proc/self/exe",
        &absolute,
        &format!("{absolute}.absent"),
        &long,
    ] {
        let operations = ["open", "access", "stat", "fstat", "realpath", "content", "nofollow"];
        words.extend(operations.map(|operation| format!("{operation}:{path}")));
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (bare, _) = bench.run_bare(&tool, &words);
    for change in [inside, outside] {
        let told = bench.run_with(&tool, &words, change);
        assert_eq!(told.stderr(), "");
        for (bare, told) in bare.lines().zip(told.stdout().lines()) {
            assert_eq!(bare, told);
        }
        assert_eq!(bare, told.stdout());
    }
}

#[test]
fn nothing_is_seen_otherwise_than_from_outside() {
    let bench = Bench::new();
    furnish(&bench);
    let tool = searcher(&bench, "cc1", &[]);
    let absolute = bench.path("d/here.h");
    let through_link = bench.path("linked_d/e/deep.h");
    let real = bench.path("d/e/deep.h");
    for words in [
        &["open:d/here.h", "open:d/absent.h", "open:absent/x.h", "open:d/here.h/x.h"][..],
        &["open:linked.h", "open:linked_d/here.h", "open:dangling", "open:d"],
        &["access:d/absent.h", "access:d/here.h", "open:d/absent.h", "stat:d/absent.h"],
        &["stat:linked.h", "stat:dangling", "stat:d/here.h/x", "fstat:d/here.h"],
        &[
            "realpath:/usr/include/stdio.h",
            "realpath:/usr/include/absent.h",
            "realpath:/usr/include/sys/absent.h",
        ],
        &["realpath:d/here.h", &format!("realpath:{absolute}"), &format!("realpath:{through_link}")],
        &["realpath:/usr/include/stdio.h/x", "realpath:/usr/include/../include/stdio.h"],
        &["write:out", "open:out", "access:out", "remove:out", "open:out"],
        &["open:out", "write:out", "content:out", "open:./out"],
        &[
            "fork:d/here.h",
            "fork:d/absent.h",
            "away:d",
            "vfork:d/e/deep.h",
            "thread:d/child.h",
            "signal:d/x.h",
        ],
        &["content:old", "write:old"],
        &[&format!("resolve:{real}pp"), &format!("resolve:{real}"), &format!("resolve:{absolute}")],
        &[
            "open:/dev/null",
            "access:/proc/none",
            "stat:/dev/none",
            "open:/proc/self/exe",
            "open:/proc/filesystems",
        ],
        &["race:d/absent", "race:/usr/include/absent"],
        &["chdir:d", "open:here.h", "open:x.h", "away:e", "chdir:e", "open:deep.h"],
        &[
            "many:d/absent",
            "open:d/here.h",
            "many:d/absent",
            "many:/usr/include/a_longer_name_than_most_have",
        ],
    ] {
        let anew = || {
            bench.run_bare("rm", &["-f", "out"]);
            bench.write("old", "old");
            let_time_pass();
        };
        anew();
        let without = bench.run_with(&tool, words, outside);
        anew();
        let with = bench.run_with(&tool, words, inside);
        assert_eq!(without.stdout(), with.stdout(), "{words:?}");
        assert_same(&without, &with, &words.join(" "));
    }
}

#[test]
fn compilers_are_seen_from_inside_as_from_outside() {
    let bench = Bench::new();
    furnish(&bench);
    bench.write("i/own.h", "#pragma once\n#include <string.h>\n#include \"../d/here.h\"\n");
    bench.write(
        "a.c",
        "#include <stdio.h>\n#include <own.h>\n#include \"linked_d/child.h\"\nint main(void) { return 0; }\n",
    );
    bench.write("a.cpp", "#include <map>\n#include <own.h>\n#if __has_include(<none.h>)\n#error\n#endif\n");
    bench.write("bad.c", "#include <stdio.h>\n#include <absent.h>\n");
    for (tool, source) in [
        ("gcc", "a.c"),
        ("g++", "a.cpp"),
        ("gcc", "bad.c"),
        ("clang", "a.c"),
        ("clang++", "a.cpp"),
        ("clang", "bad.c"),
    ] {
        // Twice: an old output makes a difference to some.
        let words = ["-O1", "-Ii", "-isystem", "linked_d", "-MD", "-MF", "deps", "-c", source, "-o", "out.o"];
        let _ = (bench.run_with(tool, &words, outside), bench.run_with(tool, &words, outside));
        let without = bench.run_with(tool, &words, outside);
        let bytes = std::fs::read(bench.path("out.o")).ok();
        let with = bench.run_with(tool, &words, inside);
        assert_same(&without, &with, &format!("{tool} {source}"));
        assert_eq!(without.stderr(), with.stderr());
        assert_eq!(with.observed.unstorable, None, "{tool} {source}");
        assert_eq!(std::fs::read(bench.path("out.o")).ok(), bytes);
    }
}

/// Something that is done to files while a program runs.
type Change = Box<dyn FnMut()>;

#[test]
fn what_changes_behind_a_searching_program_is_told() {
    let bench = Bench::new();
    let tool = searcher(&bench, "cc1", &[]);
    let write = |name: &'static str, text: &'static str| {
        let path = bench.path(name);
        move || std::fs::write(&path, text).unwrap()
    };
    let remove = |name: &'static str| {
        let path = bench.path(name);
        move || std::fs::remove_file(&path).unwrap()
    };
    let relink = |target: &'static str, name: &'static str| {
        let path = bench.path(name);
        move || {
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(target, &path).unwrap();
        }
    };
    let deep = format!("resolve:{}", bench.path("d/e/deep.h"));
    let gone = format!("resolve:{}", bench.path("d/e/gone.h"));
    let d = bench.path("d");
    let swap = move || {
        std::fs::rename(&d, format!("{d}2")).unwrap();
        std::fs::create_dir(&d).unwrap();
        std::fs::write(format!("{d}/here.h"), "int here;\n").unwrap();
    };
    let table: Vec<(&str, Change)> = vec![
        ("open:d/here.h", Box::new(write("d/here.h", "int there;\n"))),
        ("open:d/here.h", Box::new(remove("d/here.h"))),
        ("open:d/here.h", Box::new(swap)),
        ("open:d/absent.h", Box::new(write("d/absent.h", ""))),
        ("access:d/absent.h", Box::new(write("d/absent.h", ""))),
        ("stat:d/absent.h", Box::new(write("d/absent.h", ""))),
        ("open:linked.h", Box::new(relink("d/child.h", "linked.h"))),
        ("open:dangling", Box::new(write("nowhere", ""))),
        (&deep, Box::new(relink("../here.h", "d/e/deep.h"))),
        (&deep, Box::new(remove("d/e/deep.h"))),
        (&gone, Box::new(write("d/e/gone.h", ""))),
    ];
    for (number, (word, change)) in table.into_iter().enumerate() {
        bench.run_bare("sh", &["-c", "rm -rf d d2 linked* dangling loop nowhere"]);
        furnish(&bench);
        // Once it has said something, nothing is reported until its end.
        let run = bench.run_in_steps(&tool, &["hello:", word, "step:"], inside, change);
        let told = matches!(run.observed.unstorable, Some(Unstorable::InputChanged(_)));
        assert!(told, "{number}: {word}: {:?}", run.observed.unstorable);
    }
}

#[test]
fn what_a_program_noted_before_it_was_killed_is_seen() {
    let bench = Bench::new();
    furnish(&bench);
    searcher(&bench, "cc1", &[]);
    let script = "./cc1 open:d/here.h open:d/absent.h die: || exit 0";
    let run = bench.run_with("sh", &["-c", script], inside);
    assert!(seen_read(&run.observed, "d/here.h") && seen_absent(&run.observed, "d/absent.h"));
}

#[test]
fn a_directory_that_a_program_opens_may_change() {
    let bench = Bench::new();
    furnish(&bench);
    let tool = searcher(&bench, "cc1", &[]);
    let path = bench.path("d/new.h");
    let change = move || std::fs::write(&path, "").unwrap();
    let run = bench.run_in_steps(&tool, &["hello:", "open:d", "step:"], inside, change);
    assert_eq!(run.observed.unstorable, None);
}

#[test]
fn what_comes_and_goes_behind_a_searching_program_is_told() {
    let bench = Bench::new();
    furnish(&bench);
    let tool = searcher(&bench, "cc1", &[]);
    let path = bench.path("d/absent.h");
    let come_and_go = move || match std::fs::exists(&path).unwrap() {
        true => std::fs::remove_file(&path).unwrap(),
        false => {
            std::fs::write(&path, "").unwrap();
            let_time_pass();
        }
    };
    let words = ["open:d/absent.h", "step:", "open:d/absent.h", "step:", "open:d/absent.h"];
    let run = bench.run_in_steps(&tool, &words, inside, come_and_go);
    assert!(
        matches!(run.observed.unstorable, Some(Unstorable::InputChanged(_))),
        "{:?}",
        run.observed.unstorable
    );
}

#[test]
fn a_young_file_that_a_searching_program_opens_is_waited_for() {
    let bench = Bench::new();
    furnish(&bench);
    let tool = searcher(&bench, "cc1", &[]);
    let path = bench.path("young.h");
    let make = move || std::fs::write(&path, "int young;\n").unwrap();
    let run = bench.run_in_steps(&tool, &["step:", "open:young.h", "content:young.h"], inside, make);
    assert_eq!(run.observed.unstorable, None);
    assert!(seen_read(&run.observed, "young.h"));
}

#[test]
fn what_has_no_stable_content_is_told_from_inside_as_well() {
    let bench = Bench::new();
    furnish(&bench);
    bench.run_bare("mkfifo", &["fifo"]);
    let tool = searcher(&bench, "cc1", &[]);
    // Somebody has it open, so nobody blocks.
    let fifo = std::fs::File::options().read(true).write(true).open(bench.path("fifo")).unwrap();
    bench.symlink("/dev/zero", "zero");
    bench.symlink("/proc/self/status", "status");
    for word in ["open:fifo", "open:zero", "open:status", "open://proc/self/status", "open:/proc/self/status"]
    {
        let run = bench.run_with(&tool, &[word], inside);
        let told = matches!(run.observed.unstorable, Some(Unstorable::ReadUnstable(_)));
        assert!(told, "{word}: {:?}", run.observed.unstorable);
    }
    drop(fifo);
}

#[test]
fn no_mark_is_left_behind_for_other_calls() {
    if cfg!(not(target_arch = "x86_64")) {
        return;
    }
    let bench = Bench::new();
    furnish(&bench);
    let tool = searcher(&bench, "cc1", &[]);
    // The call is made right behind one that bore marks.
    let run = bench.run_with(&tool, &["raw:d/here.h", "raw:d/nothing.h"], inside);
    assert_eq!(run.stdout(), "raw there\nraw nothing\n");
    assert!(seen_read(&run.observed, "d/here.h") && seen_absent(&run.observed, "d/nothing.h"));
}
