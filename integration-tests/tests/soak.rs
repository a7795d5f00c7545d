//! Eight builds at once for a while, with edits, kills, stops and evictions; then nothing is wrong and nothing leaks.
//!
//! For `SOAK_SECONDS` (a minute without it). Each compile is compared with the bare tool's, so a wrong result ends the
//! test at once. Where chance decides, it hangs on `SOAK_SEED`, but what meets what also hangs on the machine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

#[path = "generated/chance.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod chance;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chance::Chance;
use rustix::process::Signal;
use zccache_integration_tests::sandbox::{run, send};
use zccache_integration_tests::{Sandbox, Stats, processes, wait};

/// Builds at a time.
const BUILDERS: u64 = 8;

/// What the cache may hold: some dozens of objects, so that there are evictions all the time.
const LIMIT_BYTES: u64 = 200_000;

/// The part of the time in which the service is left alone, behind the rest: what it leaks shows only in one that lives.
const CALM_PART: u32 = 3;

/// Descriptors and threads of a service that has nothing to do, at most: several times what it starts with.
const IDLE_DESCRIPTORS_MAX: usize = 120;
const IDLE_THREADS_MAX: usize = 60;

/// Resident bytes of such a service, at most: the index's own cache, and as many results as the limit allows.
const IDLE_BYTES_MAX: u64 = 200 << 20;

/// Names in the runtime directory, at most: socket, two locks, process id, reports.
const RUNTIME_NAMES: [&str; 5] =
    ["zccache-1.sock", "service-1.lock", "service-1.pid", "start-1.lock", "fallbacks-1"];

#[test]
fn a_minute_of_builds_edits_kills_and_evictions() {
    let number = |name| std::env::var(name).ok().and_then(|v: String| v.parse::<u64>().ok());
    let seconds = number("SOAK_SECONDS").unwrap_or(60);
    let seed =
        number("SOAK_SEED").unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs()));
    println!("{seconds} s with seed {seed}");
    let mut sandbox = Sandbox::new();
    sandbox.set("ZCCACHE_CACHE_LIMIT", LIMIT_BYTES.to_string());
    sandbox.start();
    let (begun, all, compiles) = (Instant::now(), Duration::from_secs(seconds), AtomicU64::new(0));
    let (end, calm) = (begun + all, begun + all - all / CALM_PART);
    std::thread::scope(|scope| {
        for builder in 0..BUILDERS {
            let (sandbox, compiles) = (&sandbox, &compiles);
            scope.spawn(move || build(sandbox, builder, Chance::new(seed ^ builder), end, compiles));
        }
        let sandbox = &sandbox;
        scope.spawn(move || disturb(sandbox, Chance::new(!seed), calm, end));
    });
    let compiles = compiles.into_inner();
    let is_well = || sandbox.client("stats").success().then_some(());
    wait::until("a service is well", || {
        sandbox.compile("gcc -c last.c");
        is_well()
    });
    let stats = sandbox.stats();
    println!("{compiles} compiles; the last service: {}", stats.json);
    assert!(compiles > seconds, "only {compiles} compiles in {seconds} s");
    assert!(stats.json["all_time"]["hits"].as_u64().unwrap() > 0, "nothing was served");
    nothing_is_left(&sandbox);
}

/// A source, a header and a flag, each in a few versions that come again and again.
fn build(sandbox: &Sandbox, builder: u64, mut chance: Chance, end: Instant, compiles: &AtomicU64) {
    let directory = format!("builder{builder}");
    let [source, header] = ["a.c", "a.h"].map(|name| format!("{directory}/{name}"));
    sandbox.write(&header, "#define VALUE 0\n");
    sandbox.write(&source, "#include \"a.h\"\nint value = VALUE;\n");
    let work = sandbox.work().join(&directory);
    while Instant::now() < end {
        match chance.below(6) {
            0 | 1 => _ = sandbox.write(&header, format!("#define VALUE {}\n", chance.below(4))),
            2 => {
                let bytes = [10, 4000, 30_000][chance.below(3)];
                let text =
                    format!("#include \"a.h\"\nint value = VALUE;\nchar data{builder}[{bytes}] = {{ 1 }};\n");
                sandbox.write(&source, text);
            }
            3 => _ = sandbox.write(&source, "#include \"a.h\"\nint broken = ;\n"),
            _ => {}
        }
        let level = ["-O0", "-O2"][chance.below(2)];
        let words = [level, "-MD", "-c", "a.c", "-o", "a.o"];
        let outputs = || ["a.o", "a.d"].map(|name| std::fs::read(work.join(name)).ok());
        let remove = || ["a.o", "a.d"].map(|name| std::fs::remove_file(work.join(name)).ok());
        remove();
        let bare = run(sandbox.command("gcc").args(words).current_dir(&work));
        let expected = outputs();
        remove();
        let wrapped = run(sandbox.wrapper(["gcc"]).args(words).current_dir(&work));
        assert_eq!(wrapped, bare, "builder {builder}");
        assert!(outputs() == expected, "builder {builder}: the outputs differ");
        compiles.fetch_add(1, Ordering::Relaxed);
    }
}

/// What happens to a service in its life, and then some.
fn disturb(sandbox: &Sandbox, mut chance: Chance, calm: Instant, end: Instant) {
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(300 + 100 * chance.below(15) as u64));
        let is_calm = Instant::now() > calm;
        match chance.below(9) {
            0 | 1 | 6 if is_calm => limit_holds(sandbox),
            0 => sandbox.service_pid().into_iter().for_each(|pid| send(pid, Signal::KILL)),
            1 => {
                let Some(pid) = sandbox.service_pid() else { continue };
                send(pid, Signal::STOP);
                std::thread::sleep(Duration::from_millis(1500));
                send(pid, Signal::CONT);
            }
            2 => kill_some_wrapper(sandbox),
            3 => _ = sandbox.client("evict --older-than 1s"),
            4 => _ = sandbox.client("evict --root work/builder1"),
            5 => _ = sandbox.client("gc"),
            6 => _ = sandbox.client("stop"),
            _ => limit_holds(sandbox),
        }
    }
}

/// At any moment at which a service tells.
fn limit_holds(sandbox: &Sandbox) {
    let told = sandbox.client("stats --json");
    if told.success() {
        let store = Stats::parse(&told.stdout).json["store"].clone();
        assert!(store["bytes"].as_u64().unwrap() <= LIMIT_BYTES, "{store}");
    }
}

/// One that nobody compares: a build that was interrupted.
fn kill_some_wrapper(sandbox: &Sandbox) {
    sandbox.write("killed.c", zccache_integration_tests::sources::slow());
    let mut child = sandbox.wrapper(["gcc", "-O2", "-c", "killed.c"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let _ = child.kill();
    let _ = child.wait();
}

/// No temporary file of ours, no process, no descriptor or thread too many, and no more bytes than allowed.
#[track_caller]
fn nothing_is_left(sandbox: &Sandbox) {
    wait::until("no tool is left", || processes::working_in(&sandbox.work()).is_empty().then_some(()));
    wait::until("nothing is on its way into the store", || {
        files_below(&sandbox.cache_dir().join("blobs/tmp")).is_empty().then_some(())
    });
    let left: Vec<String> =
        files_below(&sandbox.work()).into_iter().filter(|p| p.contains(".zccache-")).collect();
    assert_eq!(left, Vec::<String>::new());
    // Compilers that were killed together with their service leave theirs, as the bare ones do.
    let store = sandbox.stats().json["store"].clone();
    assert!(store["bytes"].as_u64().unwrap() <= LIMIT_BYTES, "{store}");
    sandbox.client("gc").expect_success();
    assert_eq!(sandbox.stats().json["store"]["bytes"], store["bytes"], "gc counted otherwise");
    let services = processes::services_of(sandbox);
    assert_eq!(services.len(), 1, "{services:?}");
    let entry = processes::entry(services[0].pid);
    let count = |what: &str| std::fs::read_dir(entry.join(what)).unwrap().count();
    wait::until("descriptors and threads have been given back", || {
        (count("fd") <= IDLE_DESCRIPTORS_MAX && count("task") <= IDLE_THREADS_MAX).then_some(())
    });
    let bytes = sandbox.stats().json["service"]["rss_bytes"].as_u64().unwrap();
    assert!(bytes <= IDLE_BYTES_MAX, "{bytes} bytes resident");
    assert_eq!(processes::children_of(services[0].pid), Vec::<String>::new(), "children of the service");
    let names = std::fs::read_dir(sandbox.runtime_dir()).unwrap().map(|entry| entry.unwrap().file_name());
    let strange: Vec<_> = names.filter(|name| !RUNTIME_NAMES.iter().any(|known| name == *known)).collect();
    assert!(strange.is_empty(), "{strange:?} in the runtime directory");
}

fn files_below(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        match entry.file_type().is_ok_and(|t| t.is_dir()) {
            true => found.extend(files_below(&entry.path())),
            false => found.push(entry.path().display().to_string()),
        }
    }
    found
}
