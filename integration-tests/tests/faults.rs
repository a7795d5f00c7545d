//! Something fails at every step of a store and of a delivery, and in every actor: builds go on with the right
//! outputs, nothing is left behind, and the cache is whole afterwards.
//!
//! The points are those of `actors/src/faults.rs`. Every test states that its fault struck.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use zccache_integration_tests::sandbox::{run, send};
use zccache_integration_tests::{Outcome, Sandbox, Tree, fault_points, processes, sources, wait};

/// A source with a warning, so that output is compared as well, and a command with two outputs.
const SOURCE: &str = "int f(void) { int unused; return 1; }\n";
const WORDS: [&str; 5] = ["gcc", "-Wall", "-MD", "-c", "a.c"];

/// Steps of putting a result into the store, in their order.
const STORE_POINTS: [&str; 22] = [
    "accept",
    "acceptor",
    "connection",
    "coordinator",
    "store",
    "index.read",
    "runner",
    "run.begin",
    "run.starting",
    "run.started",
    "run.let_go",
    "run.ended",
    "receive.create",
    "receive.write",
    "run.captured",
    "run.reported",
    "hasher",
    "finish",
    "settle",
    "insert.begin",
    "commit",
    "insert.committed",
];

/// The rest of them: behind the reply, or beside it. The client need not notice.
const STORE_POINTS_BEHIND: [&str; 9] = [
    "root",
    "change.begin",
    "index.write",
    "change.applied",
    "insert.done",
    "index.flush",
    "insert.flushed",
    "journal",
    "journal.write",
];

/// Steps of serving a result.
const DELIVERY_POINTS: [&str; 8] = [
    "connection",
    "deliver.begin",
    "deliver.write",
    "deliver.staged",
    "deliver.unlinked",
    "deliver.placing",
    "deliver.placed",
    "replay",
];

/// Those that are passed only where an older output is in the way.
const REPLACEMENT_POINTS: [&str; 2] = ["deliver.removing", "deliver.unlinked"];

/// Steps of an eviction.
const EVICTION_POINTS: [&str; 5] = ["change.begin", "index.write", "change.applied", "remove", "index.flush"];

/// Steps of a start.
const START_POINTS: [&str; 2] = ["head_start.read", "index.open"];

/// Steps of an orderly end.
const END_POINTS: [&str; 3] = ["head_start.write", "head_start.written", "head_start.named"];

/// What a service says of one before it that was killed, or gave up.
const SAID_OF_THE_DEAD: &str = "the last service here did not end by itself";

/// How many of the cases of a test are tried at a time: they mostly wait for services to come and go.
const AT_A_TIME: usize = 4;

/// Tries each case in a sandbox that it has for itself meanwhile.
fn each<C: Send>(cases: impl IntoIterator<Item = C>, attempt: impl Fn(&Faulty, C) + Sync) {
    let cases = Mutex::new(cases.into_iter().collect::<std::collections::VecDeque<C>>());
    let next = || cases.lock().unwrap().pop_front();
    std::thread::scope(|scope| {
        for _ in 0..AT_A_TIME {
            scope.spawn(|| {
                let faulty = Faulty::new();
                while let Some(case) = next() {
                    attempt(&faulty, case);
                }
            });
        }
    });
}

/// A sandbox whose service can be told to fail.
struct Faulty {
    sandbox: Sandbox,
    expected: (Outcome, Tree),
}

impl Faulty {
    fn new() -> Self {
        let mut sandbox = Sandbox::new();
        sandbox.set("ZCCACHE_FAULTS", sandbox.path("faults"));
        sandbox.write("a.c", SOURCE);
        let outcome = run(sandbox.command(WORDS[0]).args(&WORDS[1..]));
        let expected = (outcome, Tree::read(&sandbox.work()));
        let faulty = Self { sandbox, expected };
        faulty.remove_outputs();
        faulty
    }

    fn remove_outputs(&self) {
        for output in ["a.o", "a.d"] {
            let _ = std::fs::remove_file(self.sandbox.work().join(output));
        }
    }

    /// Arms one fault.
    fn arm(&self, point: &str, action: &str) {
        self.arm_all(&[(point, action)]);
    }

    /// Arms several at once.
    fn arm_all(&self, faults: &[(&str, &str)]) {
        faults.iter().for_each(|(point, _)| _ = std::fs::remove_file(self.mark(point)));
        let lines: Vec<String> = faults.iter().map(|(point, action)| format!("{point} {action}\n")).collect();
        // By a rename: the service may be reading just now.
        std::fs::write(self.sandbox.path("faults.new"), lines.concat()).unwrap();
        std::fs::rename(self.sandbox.path("faults.new"), self.sandbox.path("faults")).unwrap();
    }

    fn disarm(&self) {
        let _ = std::fs::remove_file(self.sandbox.path("faults"));
    }

    fn mark(&self, point: &str) -> PathBuf {
        self.sandbox.path(&format!("faults.{point}"))
    }

    #[track_caller]
    fn has_struck(&self, point: &str) {
        wait::until(&format!("the fault at {point} has struck"), || self.mark(point).exists().then_some(()));
    }

    /// Waits until the service has stopped itself, and lets it go on. Its mark is there before it stops.
    #[track_caller]
    fn go_on(&self, pid: i32) {
        wait::until("the service has stopped", || processes::is_stopped(pid).then_some(()));
        send(pid, Signal::CONT);
    }

    /// The next service has said of this one that it did not end by itself.
    #[track_caller]
    fn death_was_noted(&self, pid: i32, what: &str) {
        let log = self.sandbox.log();
        let noted = |line: &str| line.contains(SAID_OF_THE_DEAD) && line.contains(&format!("before={pid}"));
        assert!(log.lines().any(noted), "{what}: nothing is said of the end of {pid}:\n{log}");
    }

    /// Compiles, and compares everything with what the bare tool did.
    #[track_caller]
    fn compiles_as_bare(&self, what: &str) -> Duration {
        self.remove_outputs();
        self.replaces_as_bare(what)
    }

    /// The same where older outputs may be in the way.
    #[track_caller]
    fn replaces_as_bare(&self, what: &str) -> Duration {
        let from = Instant::now();
        let outcome = run(&mut self.sandbox.wrapper(WORDS));
        let took = from.elapsed();
        assert_eq!(outcome, self.expected.0, "{what}");
        // A content that was just being copied into the store may still be there for a moment.
        assert_eq!(self.expected.1.differences(&Tree::read(&self.sandbox.work())), "", "{what}");
        took
    }

    /// The cache serves, and all it says of itself is true.
    #[track_caller]
    fn is_whole(&self, what: &str) {
        self.disarm();
        // An actor that is gone is noticed within a second, and made anew.
        let after = wait::until(&format!("{what}: results are served again"), || {
            self.compiles_as_bare(what);
            self.sandbox.client("stats").success().then_some(())?;
            let before = self.sandbox.stats();
            self.compiles_as_bare(what);
            let after = self.sandbox.stats();
            (after.counters.hits - before.counters.hits == 1).then_some(after)
        });
        let found = self.sandbox.client("gc").expect_success().out();
        assert!(found.starts_with("forgot 0 results"), "{what}: {found}");
        let store = &self.sandbox.stats().json["store"];
        assert_eq!(store, &after.json["store"], "{what}: gc counted otherwise");
        self.compiles_as_bare(what);
    }
}

#[test]
fn every_fault_point_has_its_kill() {
    let killed: BTreeSet<&str> = STORE_POINTS
        .into_iter()
        .chain(STORE_POINTS_BEHIND)
        .chain(DELIVERY_POINTS)
        .chain(REPLACEMENT_POINTS)
        .chain(EVICTION_POINTS)
        .chain(START_POINTS)
        .chain(END_POINTS)
        .collect();
    let points = fault_points();
    assert_eq!(points.iter().map(String::as_str).collect::<BTreeSet<_>>(), killed);
}

#[test]
fn killed_at_every_step_of_a_store() {
    each(STORE_POINTS.into_iter().chain(STORE_POINTS_BEHIND), |faulty, point| {
        // A first start, so that what is killed is a service at work, with nothing stored.
        faulty.sandbox.start();
        faulty.sandbox.client("clear").expect_success();
        let pid = faulty.sandbox.service_pid().unwrap();
        faulty.arm(point, "kill");
        faulty.compiles_as_bare(point);
        faulty.has_struck(point);
        wait::until("the service is gone", || (!wait::is_alive(pid)).then_some(()));
        faulty.disarm();
        faulty.sandbox.start();
        faulty.death_was_noted(pid, point);
        faulty.is_whole(point);
    });
}

#[test]
fn killed_at_every_step_of_a_delivery() {
    let points = DELIVERY_POINTS.map(|point| (point, false)).into_iter();
    each(points.chain(REPLACEMENT_POINTS.map(|point| (point, true))), |faulty, (point, is_replaced)| {
        faulty.is_whole(point);
        let pid = faulty.sandbox.service_pid().unwrap();
        faulty.arm(point, "kill");
        if is_replaced {
            // What the last compile left is there.
            faulty.replaces_as_bare(point);
        } else {
            faulty.compiles_as_bare(point);
        }
        faulty.has_struck(point);
        faulty.disarm();
        faulty.sandbox.start();
        faulty.death_was_noted(pid, point);
        faulty.is_whole(point);
    });
}

#[test]
fn killed_at_every_step_of_an_eviction() {
    each(EVICTION_POINTS, |faulty, point| {
        faulty.is_whole(point);
        // A service that has no uses to write down: what strikes is the eviction itself.
        faulty.sandbox.client("stop").expect_success();
        faulty.sandbox.start();
        let pid = faulty.sandbox.service_pid().unwrap();
        faulty.arm(point, "kill");
        faulty.sandbox.client("evict --older-than 0s");
        faulty.has_struck(point);
        faulty.disarm();
        faulty.sandbox.start();
        faulty.death_was_noted(pid, point);
        // Until the index knows of it, nothing is taken away; what it knows may not be on the disk yet, and the contents gone.
        if ["change.begin", "index.write"].contains(&point) {
            let found = faulty.sandbox.client("gc").expect_success().out();
            assert!(found.starts_with("forgot 0 results, deleted 0 files"), "{point}: {found}");
        }
        faulty.is_whole(point);
    });
}

#[test]
fn killed_at_every_step_of_a_start_and_of_an_end() {
    let points = START_POINTS.map(|point| (point, true)).into_iter();
    each(points.chain(END_POINTS.map(|point| (point, false))), |faulty, (point, is_start)| {
        faulty.is_whole(point);
        let pid = faulty.sandbox.service_pid().unwrap();
        if is_start {
            faulty.sandbox.client("stop").expect_success();
        }
        faulty.arm(point, "kill");
        match is_start {
            true => _ = faulty.compiles_as_bare(point),
            false => _ = faulty.sandbox.client("stop"),
        }
        faulty.has_struck(point);
        wait::until("the service is gone", || (!wait::is_alive(pid)).then_some(()));
        faulty.disarm();
        faulty.sandbox.start();
        assert!(faulty.sandbox.log().contains(SAID_OF_THE_DEAD), "{point}");
        faulty.is_whole(point);
    });
}

#[test]
fn an_end_without_room_for_a_head_start_is_one_all_the_same() {
    let faulty = Faulty::new();
    faulty.is_whole("before");
    faulty.arm("head_start.write", "full always");
    faulty.sandbox.client("stop").expect_success();
    faulty.has_struck("head_start.write");
    faulty.disarm();
    let left = files_below(&faulty.sandbox.cache_dir());
    assert!(!left.iter().any(|path| path.to_string_lossy().contains("head-start")), "{left:?}");
    faulty.sandbox.start();
    faulty.is_whole("after");
    assert!(!faulty.sandbox.log().contains(SAID_OF_THE_DEAD));
}

#[test]
fn nobody_waits_for_an_index_that_is_being_opened() {
    const OPENS_FOR: Duration = Duration::from_millis(3500);
    let faulty = Faulty::new();
    faulty.is_whole("before");
    let sandbox = &faulty.sandbox;
    sandbox.client("stop").expect_success();
    faulty.arm("index.open", &format!("sleep:{}", OPENS_FOR.as_millis()));
    let from = Instant::now();
    sandbox.start();
    let started_after = from.elapsed();
    sandbox.client("status").expect_success();
    // What was used last is served at once.
    let served_after = faulty.compiles_as_bare("served early");
    // What was not is run; so is an equal request, which waits neither for the index nor for the first one's place in it.
    std::fs::write(sandbox.path("new.c"), "int new_one(void) { return 1; }\n").unwrap();
    let mut runs = [Duration::ZERO; 2];
    for took in &mut runs {
        let from = Instant::now();
        sandbox.compile("gcc -c ../new.c -o ../new.o").expect_success();
        *took = from.elapsed();
    }
    assert!(from.elapsed() < OPENS_FOR, "the machine is too slow for this test");
    let long = OPENS_FOR / 2;
    assert!(started_after < long && served_after < long, "{started_after:?}, {served_after:?}");
    assert!(runs.iter().all(|took| *took < long), "{runs:?}");
    // `stats` is the whole truth, whatever it takes.
    let stats = wait::until("the index is open", || {
        let stats = sandbox.stats();
        (stats.counters.stored >= 2).then_some(stats)
    });
    assert!(from.elapsed() >= OPENS_FOR);
    let counters = stats.counters;
    assert_eq!((counters.hits, counters.misses, counters.fallbacks_reported), (1, 2, 0), "{}", stats.json);
    // The second may have followed the first, and not have looked.
    assert!((1..=2).contains(&stats.reasons("degraded")["index_opening"]), "{}", stats.json);
    assert_eq!(stats.json["store"]["records"], 2);
    // Both are known from now on.
    sandbox.compile("gcc -c ../new.c -o ../new.o").expect_success();
    faulty.compiles_as_bare("served");
    assert_eq!(sandbox.stats().counters.hits, 3);
    faulty.is_whole("after");
}

#[test]
fn stats_do_not_wait_for_a_large_index_but_say_so() {
    let faulty = Faulty::new();
    faulty.is_whole("before");
    let sandbox = &faulty.sandbox;
    sandbox.client("stop").expect_success();
    faulty.arm("index.open", "sleep:4000");
    sandbox.start();
    let told = sandbox.client("stats");
    assert!(!told.success() && told.err().contains("ask again in a moment"), "{}", told.err());
    wait::until("the index is open", || sandbox.client("stats").success().then_some(()));
    faulty.is_whole("after");
}

#[test]
fn a_store_that_hangs_with_what_nobody_asked_for_is_found_out() {
    let faulty = Faulty::new();
    faulty.is_whole("before");
    faulty.arm("index.flush", "sleep:8000");
    // Some seconds behind this hit, its use is written down.
    faulty.compiles_as_bare("a hit");
    faulty.has_struck("index.flush");
    let from = Instant::now();
    let said = "actor=\"store\"";
    wait::until("it is found out", || faulty.sandbox.log().contains(said).then_some(()));
    assert!(from.elapsed() <= STUCK_IS_FOUND_WITHIN, "{:?}", from.elapsed());
    faulty.is_whole("after");
}

#[test]
fn stopped_and_continued_at_steps_of_both() {
    let points = [
        (false, "run.begin"),
        (false, "run.ended"),
        (false, "finish"),
        (false, "insert.begin"),
        (false, "change.applied"),
        (true, "connection"),
        (true, "deliver.staged"),
        (true, "deliver.unlinked"),
        (true, "replay"),
    ];
    each(points, |faulty, (stored, point)| {
        faulty.is_whole(point);
        if !stored {
            faulty.sandbox.client("clear").expect_success();
        }
        let (pid, before) = (faulty.sandbox.service_pid().unwrap(), faulty.sandbox.stats().counters);
        faulty.arm(point, "stop");
        faulty.compiles_as_bare(point);
        faulty.has_struck(point);
        faulty.disarm();
        faulty.go_on(pid);
        faulty.is_whole(point);
        assert_eq!(faulty.sandbox.service_pid(), Some(pid), "{point}");
        // Behind the reply nobody noticed anything.
        let noticed = u64::from(!["insert.begin", "change.applied"].contains(&point));
        let fallbacks = faulty.sandbox.stats().counters.fallbacks_reported - before.fallbacks_reported;
        assert_eq!(fallbacks, noticed, "{point}");
    });
}

#[test]
fn a_service_that_wakes_up_late_touches_nothing() {
    let points = [
        (true, "connection"),
        (true, "deliver.begin"),
        (true, "deliver.staged"),
        // Between a look at the clock and what is done on its word.
        (true, "deliver.placing"),
        (true, "deliver.placed"),
        (false, "connection"),
        (false, "runner"),
        (false, "run.begin"),
        (false, "run.starting"),
    ];
    each(points, |faulty, (stored, point)| {
        let work = faulty.sandbox.work();
        faulty.is_whole(point);
        if !stored {
            faulty.sandbox.client("clear").expect_success();
        }
        let pid = faulty.sandbox.service_pid().unwrap();
        faulty.arm(point, "stop");
        // The wrapper gives it up and runs the tool; the build goes on, to other sources and other objects.
        faulty.compiles_as_bare(point);
        faulty.has_struck(point);
        faulty.disarm();
        for output in ["a.o", "a.d"] {
            std::fs::write(work.join(output), "what came after").unwrap();
        }
        faulty.go_on(pid);
        wait::until("the service answers", || faulty.sandbox.client("status").success().then_some(()));
        let idle = || faulty.sandbox.client("status --json").out().contains("\"running\": 0");
        wait::until("the service has done with it", || idle().then_some(()));
        wait::until("no tool is left", || processes::working_in(&work).is_empty().then_some(()));
        for output in ["a.o", "a.d"] {
            assert_eq!(std::fs::read(work.join(output)).unwrap(), b"what came after", "{point}: {output}");
        }
    });
}

#[test]
fn a_tool_whose_client_was_not_told_of_it_never_runs() {
    let mut faulty = Faulty::new();
    // With nobody who would answer the tool's system calls, it runs as soon as it may.
    faulty.sandbox.stop();
    faulty.sandbox.set("ZCCACHE_OBSERVER", "declared");
    let sandbox = &faulty.sandbox;
    // It says at once that it runs, and cannot be asked to go any more.
    sandbox.write("gcc.c", AT_ONCE);
    run(sandbox.command("gcc").args(["-static", "-O1", "gcc.c", "-o", "at-once-gcc"])).expect_success();
    let runs = || std::fs::read_to_string(sandbox.work().join("runs")).unwrap_or_default().len();
    let compile = || run(&mut sandbox.wrapper(["./at-once-gcc", "-c", "a.c"])).expect_success();
    sandbox.start();
    // Time for it to do so between its release and the look whether it is wanted still.
    let window = ("run.let_go", "sleep:1000");
    faulty.arm_all(&[window]);
    compile();
    faulty.has_struck("run.let_go");
    assert_eq!(runs(), 1, "the service should have run it");
    for point in ["run.begin", "run.starting"] {
        let _ = std::fs::remove_file(sandbox.work().join("runs"));
        let pid = sandbox.service_pid().unwrap();
        faulty.arm_all(&[(point, "stop"), window]);
        compile();
        faulty.has_struck(point);
        assert_eq!(runs(), 1, "{point}: it ran although nobody had been told, or did not run");
        faulty.go_on(pid);
        wait::until("the service answers", || sandbox.client("status").success().then_some(()));
        let idle = || sandbox.client("status --json").out().contains("\"running\": 0");
        wait::until("the service has done with it", || idle().then_some(()));
        wait::until("no tool is left", || processes::working_in(&sandbox.work()).is_empty().then_some(()));
        assert_eq!(runs(), 1, "{point}: it ran although its client had given up");
        assert!(!faulty.mark("run.let_go").exists(), "{point}: it was let go");
    }
}

/// A tool by the name of a compiler that writes the moment it is asked to compile: not when it is asked what it is.
const AT_ONCE: &str = "
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
int main(int count, char **words) {
    if (count < 2 || strcmp(words[1], \"-c\") != 0) return 1;
    int runs = open(\"runs\", O_WRONLY | O_CREAT | O_APPEND, 0644);
    return write(runs, \"x\", 1) == 1 ? 0 : 1;
}
";

#[test]
fn an_older_output_is_taken_away_or_what_came_in_its_place_stays() {
    let faulty = Faulty::new();
    let work = faulty.sandbox.work();
    for point in ["deliver.removing", "deliver.placing"] {
        faulty.is_whole(point);
        let pid = faulty.sandbox.service_pid().unwrap();
        faulty.arm(point, "stop");
        // Not removed before: what is there is the older build's.
        let outcome = run(&mut faulty.sandbox.wrapper(WORDS));
        assert_eq!(outcome, faulty.expected.0, "{point}");
        faulty.has_struck(point);
        faulty.disarm();
        assert_eq!(faulty.expected.1.differences(&Tree::read(&work)), "", "{point}");
        for output in ["a.o", "a.d"] {
            std::fs::write(work.join(output), "what came after").unwrap();
        }
        faulty.go_on(pid);
        wait::until("the service answers", || faulty.sandbox.client("status").success().then_some(()));
        let idle = || faulty.sandbox.client("status --json").out().contains("\"running\": 0");
        wait::until("the service has done with it", || idle().then_some(()));
        for output in ["a.o", "a.d"] {
            assert_eq!(std::fs::read(work.join(output)).unwrap(), b"what came after", "{point}: {output}");
        }
        let left = std::fs::read_dir(&work).unwrap().count();
        assert_eq!(left, 3, "{point}: something was left behind");
    }
}

#[test]
fn no_space_is_left_at_any_write_and_no_file_can_be_opened() {
    let writes = [
        ("receive.create", "full always"),
        ("receive.create", "files always"),
        ("receive.write", "full always"),
        ("commit", "full always"),
        ("commit", "files always"),
        ("index.read", "files always"),
        ("index.write", "full always"),
        ("index.flush", "full always"),
        ("journal.write", "full always"),
    ];
    each(writes, |faulty, (point, action)| {
        faulty.is_whole(point);
        faulty.sandbox.client("clear").expect_success();
        let pid = faulty.sandbox.service_pid();
        faulty.arm(point, action);
        for _ in 0..2 {
            faulty.compiles_as_bare(point);
        }
        faulty.has_struck(point);
        if point == "journal.write" {
            let log = faulty.sandbox.log();
            let said = log.lines().filter(|line| line.contains("the journal could not be written")).count();
            assert_eq!(said, 1, "{log}");
        } else {
            let stats = faulty.sandbox.stats();
            let told = stats.reasons("not_stored").values().sum::<u64>();
            assert!(told >= 1, "{point}: {}", stats.json);
        }
        assert_eq!(faulty.sandbox.service_pid(), pid, "{point}");
        faulty.disarm();
        // An index that failed is left alone for some seconds.
        wait::until("results are stored again", || {
            faulty.compiles_as_bare(point);
            (faulty.sandbox.stats().json["store"]["records"] == 1).then_some(())
        });
        faulty.is_whole(point);
    });
    let (faulty, point) = (Faulty::new(), "deliver.write");
    faulty.is_whole(point);
    faulty.arm(point, "full always");
    faulty.compiles_as_bare(point);
    faulty.has_struck(point);
    faulty.is_whole(point);
}

#[test]
fn no_file_can_be_opened_in_the_whole_system_and_clients_are_let_in_afterwards() {
    let faulty = Faulty::new();
    faulty.is_whole("before");
    let (pid, before) = (faulty.sandbox.service_pid(), faulty.sandbox.stats().counters);
    faulty.arm("accept", "files always");
    // The acceptor waits for somebody already, who is let in.
    faulty.sandbox.client("status").expect_success();
    for _ in 0..2 {
        let took = faulty.compiles_as_bare("with nobody let in");
        assert!(took < Duration::from_secs(3), "the wrapper took {took:?}");
    }
    faulty.has_struck("accept");
    faulty.is_whole("after that");
    let after = faulty.sandbox.stats().counters;
    assert_eq!(after.fallbacks_reported - before.fallbacks_reported, 2);
    assert_eq!(faulty.sandbox.service_pid(), pid);
    let said = "clients cannot be let in for now";
    assert_eq!(faulty.sandbox.log().matches(said).count(), 1, "{}", faulty.sandbox.log());
}

#[test]
fn every_actor_panics_while_others_are_at_work() {
    let points =
        ["connection", "coordinator", "store", "runner", "hasher", "journal", "acceptor", "root", "settle"];
    each(points, |faulty, point| {
        faulty.is_whole(point);
        faulty.sandbox.client("clear").expect_success();
        faulty.arm(point, "panic");
        under_load(faulty, point);
        faulty.has_struck(point);
        let said = format!("a fault at {point}, on purpose");
        wait::until("the log says so", || faulty.sandbox.log().contains(&said).then_some(()));
        faulty.is_whole(point);
    });
}

/// Within which somebody who is stuck is found out.
const STUCK_IS_FOUND_WITHIN: Duration = Duration::from_secs(5);

#[test]
fn every_actor_that_hangs_is_found_within_five_seconds_while_others_are_at_work() {
    // Longer than any actor may be silent: whoever could be replaced was, whoever could not took the process along.
    let hangs = "sleep:8000";
    // Coordinator and runner share a thread: either may be the one who is missed.
    const DESK: &str = "r has not answered for 4 s";
    let points = [
        ("connection", hangs, "actor=\"worker\""),
        ("settle", hangs, "actor=\"worker\""),
        ("coordinator", hangs, DESK),
        ("store", hangs, "actor=\"store\""),
        ("insert.begin", hangs, "actor=\"store\""),
        ("runner", hangs, DESK),
        // A pool: it is stuck when all of its threads are.
        ("hasher", "sleep:8000 always", "actor=\"hasher\""),
        ("journal", hangs, "actor=\"journal\""),
        ("acceptor", hangs, "the acceptor has not answered"),
        ("root", hangs, "root does not answer"),
    ];
    // Each with a service of its own, and all at once: they mostly wait.
    std::thread::scope(|scope| {
        for (point, action, said) in points {
            scope.spawn(move || {
                let faulty = &Faulty::new();
                faulty.is_whole(point);
                faulty.sandbox.client("clear").expect_success();
                faulty.arm(point, action);
                let found_after = std::thread::scope(|scope| {
                    let found = scope.spawn(|| {
                        faulty.has_struck(point);
                        let from = Instant::now();
                        let what = format!("{point}: somebody says {said}");
                        wait::until(&what, || faulty.sandbox.log().contains(said).then_some(()));
                        from.elapsed()
                    });
                    under_load(faulty, point);
                    found.join().unwrap()
                });
                println!("{point}: found after {found_after:?}");
                assert!(found_after <= STUCK_IS_FOUND_WITHIN, "{point}: only after {found_after:?}");
                faulty.is_whole(point);
            });
        }
    });
}

/// A dozen different compiles, four at a time, each compared with the bare tool's.
#[track_caller]
fn under_load(faulty: &Faulty, what: &str) {
    let sandbox = &faulty.sandbox;
    let names: Vec<String> = (0..12).map(|n| format!("load{n}")).collect();
    for (number, name) in names.iter().enumerate() {
        sandbox.write(&format!("{name}.c"), format!("int {name}(void) {{ return {number}; }}\n"));
    }
    let start = |name: &String| sandbox.wrapper(["gcc", "-c", &format!("{name}.c")]).spawn().unwrap();
    for batch in names.chunks(4) {
        let mut children: Vec<Child> = batch.iter().map(start).collect();
        for child in &mut children {
            assert!(wait::for_exit(child, "a wrapper").success(), "{what}");
        }
    }
    for name in &names {
        let object = sandbox.work().join(format!("{name}.o"));
        let cached = std::fs::read(&object).unwrap();
        run(sandbox.command("gcc").args(["-c", &format!("{name}.c")])).expect_success();
        assert_eq!(std::fs::read(&object).unwrap(), cached, "{what}: {name}");
        std::fs::remove_file(object).unwrap();
        std::fs::remove_file(sandbox.work().join(format!("{name}.c"))).unwrap();
    }
}

#[test]
fn a_hung_store_is_found_out_and_passed_over() {
    let faulty = Faulty::new();
    faulty.is_whole("before");
    faulty.sandbox.client("stop").expect_success();
    // So that the store is asked.
    std::fs::remove_file(faulty.sandbox.cache_dir().join("head-start")).unwrap();
    faulty.sandbox.start();
    faulty.sandbox.stats();
    faulty.arm("store", "sleep:15000");
    // The one who asked it waits until it counts as stuck, and no longer than that.
    faulty.compiles_as_bare("the first");
    faulty.has_struck("store");
    let status = faulty.sandbox.client("status");
    assert!(status.out().contains("the store does not answer"), "{status:?}");
    for _ in 0..3 {
        let took = faulty.compiles_as_bare("passing it over");
        assert!(took < Duration::from_secs(3), "somebody waited for a stuck store: {took:?}");
    }
    assert!(faulty.sandbox.stats_reasons().contains("store"), "{}", faulty.sandbox.stats_reasons());
    wait::until("the store answers again", || {
        (!faulty.sandbox.client("status").out().contains("does not answer")).then_some(())
    });
    faulty.is_whole("after");
}

/// What `stats` would say is degraded: told by `status` while there is no store to report.
trait Reasons {
    fn stats_reasons(&self) -> String;
}

impl Reasons for Sandbox {
    fn stats_reasons(&self) -> String {
        let said = self.client("stats --json");
        said.out() + &said.err()
    }
}

#[test]
fn the_index_is_deleted_under_a_running_service() {
    let deleted =
        [("index", false), ("index/db", false), ("blobs", false), ("", false), ("", true), ("index", true)];
    each(deleted, |faulty, (path, recreated)| {
        faulty.is_whole(path);
        let path = faulty.sandbox.cache_dir().join(path);
        wait::until("it is deleted", || {
            let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
            (!path.exists()).then_some(())
        });
        if recreated {
            // As a script that empties it would; the service may have been faster.
            let _ = std::fs::create_dir(&path);
        }
        for _ in 0..3 {
            faulty.compiles_as_bare("with a part of the cache deleted");
        }
        faulty.sandbox.client("stop").expect_success();
        faulty.sandbox.start();
        faulty.is_whole("after that");
    });
}

/// Every regular file below a directory.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files_below(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

#[test]
fn every_file_of_the_cache_is_damaged_one_by_one() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("emptied", Vec::clear),
        ("cut short", |bytes| bytes.truncate(bytes.len() / 2)),
        ("zeroed", |bytes| bytes.fill(0)),
        ("a bit flipped", |bytes| {
            let middle = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 4;
            }
        }),
    ];
    let faulty = Faulty::new();
    faulty.is_whole("before");
    faulty.sandbox.client("stop").expect_success();
    let files = files_below(&faulty.sandbox.cache_dir());
    assert!(files.len() >= 4, "{files:?}");
    for (name, damage) in damages {
        for path in &files {
            // The file may be gone by now: a damaged index is set aside.
            let Ok(mut bytes) = std::fs::read(path) else { continue };
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
            damage(&mut bytes);
            std::fs::write(path, bytes).unwrap();
            let what = format!("{} was {name}", path.display());
            faulty.sandbox.start();
            for _ in 0..2 {
                faulty.compiles_as_bare(&what);
            }
            faulty.is_whole(&what);
            faulty.sandbox.client("stop").expect_success();
        }
    }
}

#[test]
fn a_wrapper_killed_at_any_moment_leaves_nothing_behind() {
    let faulty = Faulty::new();
    let sandbox = &faulty.sandbox;
    sandbox.start();
    sandbox.write("slow.c", sources::slow());
    run(sandbox.command("gcc").args(["-c", "slow.c"])).expect_success();
    let object = sandbox.work().join("slow.o");
    let expected = std::fs::read(&object).unwrap();
    // The service sleeps at a step of the request, and the wrapper is killed meanwhile.
    for (stored, point) in [
        (false, "connection"),
        (false, "runner"),
        (false, "run.started"),
        (false, "run.let_go"),
        (false, "run.ended"),
        (false, "hasher"),
        (false, "finish"),
        (false, "insert.begin"),
        (true, "connection"),
        (true, "deliver.begin"),
        (true, "deliver.staged"),
        (true, "deliver.placed"),
        (true, "replay"),
    ] {
        if stored {
            wait::until("it is stored", || {
                sandbox.compile("gcc -c slow.c").expect_success();
                (sandbox.stats().json["store"]["records"] == 1).then_some(())
            });
        } else {
            sandbox.client("clear").expect_success();
        }
        let _ = std::fs::remove_file(&object);
        faulty.arm(point, "sleep:300");
        let mut child = sandbox.wrapper(["gcc", "-c", "slow.c"]).spawn().unwrap();
        faulty.has_struck(point);
        child.kill().unwrap();
        child.wait().unwrap();
        faulty.disarm();
        wait::until("no compiler is left", || {
            processes::working_in(&sandbox.work()).is_empty().then_some(())
        });
        let idle = || sandbox.client("status --json").out().contains("\"running\": 0");
        wait::until("the service has done with it", || idle().then_some(()));
        if stored && let Ok(delivered) = std::fs::read(&object) {
            assert!(delivered == expected, "{point}: the object is not whole");
        }
        let leftover =
            files_below(&sandbox.work()).into_iter().find(|p| p.extension().is_some_and(|e| e == "tmp"));
        assert_eq!(leftover, None, "{point}");
    }
    let _ = std::fs::remove_file(sandbox.work().join("slow.c"));
    let _ = std::fs::remove_file(sandbox.work().join("slow.o"));
    faulty.is_whole("after that");
    wait::until("nothing is on its way into the store", || {
        files_below(&sandbox.cache_dir().join("blobs/tmp")).is_empty().then_some(())
    });
}

/// Bytes of an object whose delivery takes a thread of its own: more than the 32 MiB of `actors/src/hit.rs`.
const LARGE_BYTES: usize = 33 << 20;

#[test]
fn a_large_result_is_delivered_while_its_client_hears_that_somebody_is_at_work() {
    let faulty = Faulty::new();
    let sandbox = &faulty.sandbox;
    sandbox.start();
    sandbox.write("large.c", format!("char large[{LARGE_BYTES}] = {{ 1 }};\n"));
    sandbox.write("small.c", sources::SMALL);
    for (name, is_served) in [("large", true), ("small", false)] {
        let line = format!("gcc -c {name}.c");
        sandbox.compile(&line).expect_success();
        let before = sandbox.stats();
        assert_eq!(before.counters.stored, if is_served { 1 } else { 2 }, "{}", before.json);
        let object = sandbox.work().join(format!("{name}.o"));
        let expected = std::fs::read(&object).unwrap();
        // Longer than a client waits for a sign of life: a small one is expected to be there at once.
        faulty.arm("deliver.begin", "sleep:2500");
        sandbox.compile(&line).expect_success();
        faulty.has_struck("deliver.begin");
        faulty.disarm();
        assert!(std::fs::read(&object).unwrap() == expected, "{name}");
        let after = wait::until("the service answers", || {
            sandbox.client("status").success().then(|| sandbox.stats())
        });
        let (hits, fallbacks) = (
            after.counters.hits - before.counters.hits,
            after.counters.fallbacks_reported - before.counters.fallbacks_reported,
        );
        assert_eq!((hits, fallbacks), if is_served { (1, 0) } else { (0, 1) }, "{name}: {}", after.json);
    }
}

#[test]
fn what_is_only_in_memory_is_written_down_before_long() {
    let faulty = Faulty::new();
    faulty.is_whole("before");
    let hits = || faulty.sandbox.stats().json["all_time"]["hits"].as_u64().unwrap();
    // Behind the flush of whatever was stored: the next one is that of a service that minds its memory.
    wait::until("a write of its own", || {
        faulty.arm("index.flush", "sleep:0");
        faulty.compiles_as_bare("a hit");
        faulty.mark("index.flush").exists().then_some(()).or_else(|| {
            wait::until("the service writes it down", || faulty.mark("index.flush").exists().then_some(()));
            Some(())
        })
    });
    let counted = hits();
    let pid = faulty.sandbox.signal_service(Signal::KILL);
    wait::until("the killed service is gone", || (!wait::is_alive(pid)).then_some(()));
    faulty.disarm();
    faulty.sandbox.start();
    assert!(hits() >= counted, "{} of {counted} hits were kept", hits());
}

#[test]
fn the_clock_is_set_back_and_forward() {
    let mut faulty = Faulty::new();
    faulty.sandbox.stop();
    faulty.sandbox.set("ZCCACHE_CACHE_MAX_AGE", "30d");
    let sandbox = &faulty.sandbox;
    faulty.is_whole("before");
    // Ten years, a day, and less than it takes to notice.
    for seconds in ["315360000", "-315360000", "86400", "-86400", "1", "-1"] {
        for restarted in [false, true] {
            let what = format!("{seconds} s, restarted: {restarted}");
            faulty.arm("clock", seconds);
            if restarted {
                sandbox.client("stop").expect_success();
                sandbox.start();
            }
            for value in [1, 2, 1] {
                sandbox.write("edited.c", format!("int value = {value};\n"));
                run(sandbox.command("gcc").args(["-c", "edited.c", "-o", "edited.o"])).expect_success();
                let expected = std::fs::read(sandbox.work().join("edited.o")).unwrap();
                for _ in 0..2 {
                    sandbox.compile("gcc -c edited.c -o edited.o").expect_success();
                    assert!(std::fs::read(sandbox.work().join("edited.o")).unwrap() == expected, "{what}");
                }
            }
            for name in ["edited.c", "edited.o"] {
                std::fs::remove_file(sandbox.work().join(name)).unwrap();
            }
            faulty.compiles_as_bare(&what);
            faulty.is_whole(&what);
        }
    }
    // A start that failed in the future keeps nobody from starting a service now.
    sandbox.client("stop").expect_success();
    let lock = zccache_proto::endpoint::Endpoint::in_directory(sandbox.runtime_dir()).start_lock();
    std::fs::write(&lock, "failed\n").unwrap();
    let ahead = std::time::SystemTime::now() + Duration::from_secs(24 * 3600);
    std::fs::File::options().write(true).open(&lock).unwrap().set_modified(ahead).unwrap();
    faulty.compiles_as_bare("a failure in the future");
    assert!(sandbox.service_pid().is_some(), "no service was started");
}

#[test]
fn a_disk_that_hangs_holds_nobody_up_for_longer_than_it_takes_to_notice() {
    let points = [
        (false, "receive.create"),
        (false, "receive.write"),
        (false, "commit"),
        (false, "index.read"),
        (false, "index.write"),
        (false, "index.flush"),
        (false, "journal.write"),
        (true, "deliver.begin"),
        (true, "deliver.write"),
        (true, "deliver.staged"),
    ];
    // Each with a service of its own, and all at once: they mostly wait.
    std::thread::scope(|scope| {
        for (stored, point) in points {
            scope.spawn(move || {
                let faulty = Faulty::new();
                faulty.is_whole(point);
                if !stored {
                    faulty.sandbox.client("clear").expect_success();
                }
                faulty.arm(point, "sleep:14000");
                // Whoever meets it first, and whoever comes after it.
                for who in ["first", "second"] {
                    let took = faulty.compiles_as_bare(point);
                    assert!(took < Duration::from_secs(8), "{point}: the {who} waited for {took:?}");
                }
                faulty.has_struck(point);
                if point.starts_with("receive") {
                    let said = faulty.sandbox.client("status").out();
                    assert!(said.contains("the disk does not answer"), "{point}: {said}");
                    let stats = faulty.sandbox.stats();
                    assert_eq!(stats.reasons("degraded")["capture_slow"], 1, "{point}: {}", stats.json);
                }
                wait::until("the disk has answered", || {
                    let said = faulty.sandbox.client("status --json").out();
                    (said.contains("\"running\": 0") && !said.contains("does not answer")).then_some(())
                });
                faulty.is_whole(point);
            });
        }
    });
}
