//! Builds by make: ones that rely on dependency files, and ones whose cache is taken apart meanwhile.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use zccache_integration_tests::sandbox::{run, send};
use zccache_integration_tests::scenario::set_mtime;
use zccache_integration_tests::{Expect, Outcome, Sandbox, Scenario, Tree, processes, wait};

/// Sources of the project: more than are compiled at a time, so that some are always under way.
const SOURCES: u64 = 9;

const HEADERS: usize = 4;

/// Everything is made of everything else: a header of others, one by a rule, which objects need only once.
const MAKEFILE: &str = "\
obj := $(patsubst %.c,obj/%.o,$(wildcard *.c))
all: $(obj)
obj/%.o: %.c | gen/gen.h
\t@echo CC $<; mkdir -p obj; $(W) gcc -O1 -g -Wall -Iinclude -Igen -MD -MP -c -o $@ $<
gen/gen.h: version
\t@echo GEN; mkdir -p gen; sed 's/.*/enum { VERSION = & };/' $< > $@
-include $(wildcard obj/*.d)
";

fn project() -> Vec<(String, String)> {
    let mut files = vec![("Makefile".into(), MAKEFILE.into()), ("version".into(), "1\n".into())];
    for n in 0..HEADERS {
        let other = if n > 0 && n % 2 == 0 { format!("#include \"h{}.h\"\n", n - 1) } else { String::new() };
        let text = format!("#pragma once\n{other}static inline int h{n}(int x) {{ return x * {n}; }}\n");
        files.push((format!("include/h{n}.h"), text));
    }
    for n in 0..SOURCES {
        let (one, two) = (n as usize % HEADERS, (n as usize / 2 + 1) % HEADERS);
        let generated = if n % 3 == 0 { "#include \"gen.h\"\n" } else { "" };
        let text = format!(
            "{generated}#include \"h{one}.h\"\n#include \"h{two}.h\"\nint f{n}(int x) {{ int unused; return h{one}(x) + h{two}(x); }}\n"
        );
        files.push((format!("f{n}.c"), text));
    }
    files
}

fn clean(work: &Path) {
    let _ = fs::remove_dir_all(work.join("obj"));
    let _ = fs::remove_dir_all(work.join("gen"));
}

/// Builds from nothing; what was printed is told line by line, in no order.
fn build(sandbox: &Sandbox, wrapper: &str) -> (i32, Vec<String>, Tree) {
    clean(&sandbox.work());
    let Outcome { status, stdout, stderr } = run(sandbox.command("make").args(["-j4", wrapper]));
    let said = [stdout, stderr].concat();
    let mut lines: Vec<String> = String::from_utf8_lossy(&said).lines().map(str::to_owned).collect();
    lines.sort();
    (status, lines, Tree::read(&sandbox.work()))
}

/// Builds while `disturb` is done again and again, and after that.
fn is_built_all_the_same(disturb: impl Fn(&Sandbox, u32) + Sync) -> Sandbox {
    const ROUNDS: usize = 2;
    const PAUSE: Duration = Duration::from_millis(100);
    let sandbox = Sandbox::new();
    for (path, text) in project() {
        sandbox.write(&path, text);
    }
    let expected = build(&sandbox, "W=");
    assert_eq!(expected.0, 0, "{:?}", expected.1);
    let is_right = |what: &str| {
        let (status, lines, tree) = build(&sandbox, "W=zccache");
        assert_eq!((status, &lines), (expected.0, &expected.1), "{what}");
        assert_eq!(expected.2.differences(&tree), "", "{what}");
        let again = run(sandbox.command("make").args(["-q", "W=zccache"]));
        assert!(again.success(), "{what}: there is something to do again: {again:?}");
    };
    sandbox.start();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for count in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
                disturb(&sandbox, count);
                std::thread::sleep(PAUSE);
            }
        });
        // Ended even if a build is not right.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..ROUNDS).for_each(|_| is_right("disturbed"));
        }));
        is_over.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    sandbox.start();
    is_right("left alone");
    is_right("left alone again");
    sandbox
}

/// The last of all builds was served.
#[track_caller]
fn is_served(sandbox: &Sandbox) {
    assert!(sandbox.stats().counters.hits >= SOURCES, "{:?}", sandbox.stats().counters);
}

#[test]
fn while_the_cache_is_cleared() {
    is_served(&is_built_all_the_same(|sandbox, _| _ = sandbox.client("clear")));
}

#[test]
fn while_the_service_is_killed() {
    let sandbox = is_built_all_the_same(|sandbox, _| {
        if let Some(pid) = sandbox.service_pid() {
            send(pid, Signal::KILL);
        }
    });
    is_served(&sandbox);
    // Nobody is left of the others.
    wait::until("one service is left", || (processes::services_of(&sandbox).len() == 1).then_some(()));
}

#[test]
fn while_the_service_is_stopped_and_continued() {
    const STOPPED: Duration = Duration::from_millis(50);
    let sandbox = is_built_all_the_same(|sandbox, _| {
        if let Some(pid) = sandbox.service_pid() {
            send(pid, Signal::STOP);
            std::thread::sleep(STOPPED);
            send(pid, Signal::CONT);
        }
    });
    is_served(&sandbox);
}

/// What is served after that is another matter: an index that is taken away while it is written may hold its thread up.
#[test]
fn while_the_cache_directory_is_removed() {
    is_built_all_the_same(|sandbox, _| _ = fs::remove_dir_all(sandbox.cache_dir()));
}

/// Contents are cut in half, all but the index's.
#[test]
fn while_what_is_stored_is_damaged() {
    fn cut(directory: &Path) {
        for entry in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                cut(&path);
            } else if let Ok(file) = fs::File::options().write(true).open(&path) {
                let _ = file.metadata().and_then(|m| file.set_len(m.len() / 2));
            }
        }
    }
    is_served(&is_built_all_the_same(|sandbox, _| cut(&sandbox.cache_dir().join("blobs"))));
}

/// Makes everything that was made older than anything that is edited from now on, by seconds that make can tell.
fn age(s: &Scenario, edited: Option<&str>) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let (then, later) = (now - 200, now - 100);
    s.edit(|work| {
        for made in ["obj", "gen"] {
            for entry in fs::read_dir(work.join(made)).unwrap() {
                set_mtime(&entry.unwrap().path(), then);
            }
        }
        if let Some(path) = edited {
            set_mtime(&work.join(path), later);
        }
    });
}

/// make is told by dependency files what is to be made again: the same files, served or made, for every header.
#[test]
fn what_is_made_again_is_what_it_would_be() {
    let mut s = Scenario::new();
    for (path, text) in project() {
        s.write_at(&path, text, 1_400_000_000);
    }
    let make = |s: &mut Scenario, expect: Expect| {
        let command = |sandbox: &Sandbox, wrapper: &str| {
            let mut make = sandbox.command("make");
            make.arg(wrapper);
            make
        };
        s.compare(expect, |sandbox| command(sandbox, "W="), |sandbox| command(sandbox, "W=zccache")).out()
    };
    make(&mut s, Expect::Counts { hits: 0, misses: SOURCES });
    s.edit(clean);
    make(&mut s, Expect::Counts { hits: SOURCES, misses: 0 });
    assert!(!make(&mut s, Expect::Anything).contains("CC"));
    let headers = (0..HEADERS).map(|n| format!("include/h{n}.h"));
    for edited in headers.chain(["version".into(), "f3.c".into()]) {
        age(&s, Some(&edited));
        assert!(make(&mut s, Expect::Anything).contains("CC"), "{edited}");
        assert!(!make(&mut s, Expect::Anything).contains("CC"), "{edited}");
    }
}
