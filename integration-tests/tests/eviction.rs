//! What goes when the cache is full, too old, or asked to forget; and what stays.

use std::path::Path;
use std::process::Child;

use zccache_integration_tests::stats::Counters;
use zccache_integration_tests::{Outcome, Sandbox, wait};

/// Bytes of data in each object of [`write_large`]; an object is a little longer.
const DATA_BYTES: usize = 100_000;

/// A limit in bytes that three such objects fit in, and four do not.
const LIMIT: &str = "350000";

/// A source whose object is large, and of its own content.
fn write_large(sandbox: &Sandbox, name: &str) {
    let number: usize = name.bytes().map(usize::from).sum();
    sandbox.write(&format!("{name}.c"), format!("char {name}[{DATA_BYTES}] = {{ {} }};\n", number % 100 + 1));
}

fn limited() -> Sandbox {
    let mut sandbox = Sandbox::new();
    sandbox.set("ZCCACHE_CACHE_LIMIT", LIMIT);
    sandbox.start();
    for name in ["a", "b", "c", "d", "e"] {
        write_large(&sandbox, name);
    }
    sandbox
}

fn compile(sandbox: &Sandbox, name: &str) -> Outcome {
    let outcome = sandbox.compile(&format!("gcc -c {name}.c -o {name}.o")).expect_success();
    // The next look at the store is one after this result was stored.
    sandbox.stats();
    outcome
}

/// Whether compiling `name` again is a hit. If it is not, it is stored, which may evict another: ask for what
/// should be there first.
#[track_caller]
fn is_cached(sandbox: &Sandbox, name: &str) -> bool {
    let before = sandbox.stats().counters;
    compile(sandbox, name);
    let moved = sandbox.stats().counters - before;
    assert_eq!(moved.hits + moved.misses, 1, "{moved:?}");
    moved.hits == 1
}

fn bytes_of_blobs(sandbox: &Sandbox) -> u64 {
    fn sum(directory: &Path) -> u64 {
        let entries = std::fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
        let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => sum(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        };
        entries.map(bytes).sum()
    }
    sum(&sandbox.cache_dir().join("blobs"))
}

#[test]
fn the_result_that_was_used_longest_ago_goes_first() {
    let sandbox = limited();
    for name in ["a", "b", "c"] {
        compile(&sandbox, name);
    }
    assert!(is_cached(&sandbox, "a"));
    compile(&sandbox, "d");
    assert_eq!(["a", "c", "d"].map(|name| is_cached(&sandbox, name)), [true; 3]);
    assert!(!is_cached(&sandbox, "b"));
    // `b` took the place of `a` now, which was asked for before the others.
    assert_eq!(["c", "d", "b"].map(|name| is_cached(&sandbox, name)), [true; 3]);
    let json = sandbox.stats().json;
    assert!(json["store"]["bytes"].as_u64() <= json["store"]["limit_bytes"].as_u64(), "{json}");
    assert_eq!(json["store"]["evicted"], 2, "{json}");
}

#[test]
fn uses_count_across_restarts() {
    let sandbox = limited();
    for name in ["a", "b", "c"] {
        compile(&sandbox, name);
    }
    sandbox.client("stop").expect_success();
    sandbox.start();
    // The first use of this service, from the index; and the next service knows of it.
    assert!(is_cached(&sandbox, "a"));
    sandbox.client("stop").expect_success();
    compile(&sandbox, "d");
    assert_eq!(["a", "c", "d"].map(|name| is_cached(&sandbox, name)), [true; 3]);
    assert!(!is_cached(&sandbox, "b"));
}

#[test]
fn equal_outputs_are_kept_once_and_counted() {
    let sandbox = limited();
    compile(&sandbox, "a");
    let one = sandbox.stats().json["store"].clone();
    assert_eq!(one["deduplicated_bytes"], 0, "{one}");
    for copy in ["x.o", "y.o", "z.o", "w.o"] {
        sandbox.compile(&format!("gcc -c a.c -o {copy}")).expect_success();
    }
    let five = sandbox.stats().json["store"].clone();
    assert_eq!((&five["blobs"], &five["bytes"]), (&one["blobs"], &one["bytes"]), "{five}");
    assert_eq!(five["records"], 5, "{five}");
    assert_eq!(five["deduplicated_bytes"].as_u64(), one["bytes"].as_u64().map(|b| 4 * b), "{five}");
    // The last user of a content takes it along, no other.
    sandbox.client("clear").expect_success();
    assert_eq!(bytes_of_blobs(&sandbox), 0);
}

#[test]
fn the_limit_holds_while_many_compile_at_once() {
    let sandbox = limited();
    let limit: u64 = LIMIT.parse().unwrap();
    let names: Vec<String> = (0..24).map(|n| format!("many{n}")).collect();
    for (number, name) in names.iter().enumerate() {
        sandbox.write(&format!("{name}.c"), format!("char {name}[{DATA_BYTES}] = {{ {} }};\n", number + 1));
    }
    let start = |name: &String| sandbox.wrapper(["gcc", "-c", &format!("{name}.c")]).spawn().unwrap();
    for batch in names.chunks(4) {
        let mut children: Vec<Child> = batch.iter().map(start).collect();
        for child in &mut children {
            assert!(wait::for_exit(child, "a wrapper").success());
        }
        let store = sandbox.stats().json["store"].clone();
        assert!(store["bytes"].as_u64().unwrap() <= limit, "{store}");
        let on_disk = bytes_of_blobs(&sandbox);
        assert!(on_disk <= limit, "{on_disk} bytes on the disk, {store}");
    }
    assert!(sandbox.stats().json["store"]["evicted"].as_u64().unwrap() >= 20);
    for name in &names {
        let cached = std::fs::read(sandbox.work().join(format!("{name}.o"))).unwrap();
        sandbox.command("gcc").args(["-c", &format!("{name}.c"), "-o", "bare.o"]).status().unwrap();
        assert_eq!(std::fs::read(sandbox.work().join("bare.o")).unwrap(), cached);
    }
}

#[test]
fn a_result_larger_than_the_cache_is_not_stored_and_displaces_nothing() {
    let sandbox = limited();
    compile(&sandbox, "a");
    sandbox.write("huge.c", "char huge[400000] = { 1 };\n");
    for _ in 0..2 {
        assert!(!is_cached(&sandbox, "huge"));
    }
    assert!(is_cached(&sandbox, "a"));
    assert!(sandbox.stats().reasons("degraded").contains_key("store_failed"));
}

#[test]
fn a_project_can_be_forgotten() {
    let sandbox = Sandbox::new();
    sandbox.start();
    for project in ["one", "two"] {
        sandbox.write(&format!("{project}/a.c"), format!("int {project}(void) {{ return 1; }}\n"));
    }
    let in_project = |sandbox: &Sandbox, project: &str| -> Counters {
        let before = sandbox.stats().counters;
        let mut command = sandbox.wrapper(["gcc", "-c", "a.c", "-o", "a.o"]);
        let outcome = command.current_dir(sandbox.work().join(project)).status().unwrap();
        assert!(outcome.success());
        sandbox.stats().counters - before
    };
    in_project(&sandbox, "one");
    in_project(&sandbox, "two");
    // By its name, by a name relative to the caller's directory, and by that of a link to it.
    std::os::unix::fs::symlink(sandbox.work().join("one"), sandbox.path("link")).unwrap();
    let one = sandbox.work().join("one").display().to_string();
    for root in [one.as_str(), "work/one", "work/two/../one/", "link"] {
        in_project(&sandbox, "one");
        let said = sandbox.client(&format!("evict --root {root}"));
        assert!(said.out().starts_with("forgot 1 results, deleted 1 files"), "{root}: {said:?}");
        assert_eq!(in_project(&sandbox, "two").hits, 1);
    }
    // A project that is gone can be named still.
    in_project(&sandbox, "one");
    std::fs::remove_dir_all(sandbox.work().join("one")).unwrap();
    let said = sandbox.client(&format!("evict --root {one}")).expect_success();
    assert!(said.out().starts_with("forgot 1 results"), "{said:?}");
    // Relative to where the command is given: above both.
    let said = sandbox.client("evict --root .").expect_success();
    assert!(said.out().starts_with("forgot 1 results"), "{said:?}");
}

#[test]
fn what_is_old_can_be_forgotten() {
    let sandbox = limited();
    compile(&sandbox, "a");
    let forgot = |line: &str| sandbox.client(line).expect_success().out();
    assert!(forgot("evict --older-than 1h").starts_with("forgot 0 results"));
    assert!(forgot("evict --older-than 1h --root /").starts_with("forgot 0 results"));
    assert!(is_cached(&sandbox, "a"));
    assert!(forgot("evict --older-than 0s").starts_with("forgot 1 results, deleted 1 files"));
    assert!(!is_cached(&sandbox, "a"));
}

#[test]
fn mistakes_in_evict_are_usage_errors_and_need_no_service() {
    let sandbox = Sandbox::new();
    for (line, word) in [
        ("evict", "--older-than"),
        ("evict --older-than", "AGE"),
        ("evict --older-than soon", "soon"),
        ("evict --older-than -1d", "-1"),
        ("evict --root", "DIR"),
        ("gc now", "now"),
    ] {
        let outcome = sandbox.client(line);
        assert_eq!(outcome.status, 2, "{line}: {outcome:?}");
        assert!(outcome.err().contains(word) && outcome.out().is_empty(), "{line}: {outcome:?}");
    }
    for line in ["evict --older-than 1d", "evict --root .", "gc", "clear"] {
        let outcome = sandbox.client(line);
        assert_eq!(outcome.status, 3, "{line}: {outcome:?}");
        assert!(outcome.err().contains("no service is running"), "{line}: {outcome:?}");
    }
    assert_eq!(sandbox.service_pid(), None);
}

#[test]
fn gc_puts_the_store_right_and_keeps_what_is_good() {
    let sandbox = limited();
    for name in ["a", "b"] {
        compile(&sandbox, name);
    }
    let nothing = sandbox.client("gc").expect_success().out();
    assert!(nothing.starts_with("forgot 0 results, deleted 0 files"), "{nothing}");
    let blobs = sandbox.cache_dir().join("blobs");
    let a = std::fs::read(sandbox.work().join("a.o")).unwrap();
    for directory in std::fs::read_dir(&blobs).unwrap().filter_map(Result::ok) {
        for blob in std::fs::read_dir(directory.path()).unwrap().filter_map(Result::ok) {
            if std::fs::read(blob.path()).unwrap() == a {
                std::fs::remove_file(blob.path()).unwrap();
            }
        }
    }
    std::fs::create_dir_all(blobs.join("ab")).unwrap();
    std::fs::write(blobs.join("ab/stranger"), "nobody's").unwrap();
    let said = sandbox.client("gc").expect_success().out();
    assert!(said.starts_with("forgot 1 results, deleted 1 files"), "{said}");
    assert_eq!(sandbox.stats().json["store"]["records"], 1);
    assert!(is_cached(&sandbox, "b"));
    assert!(!is_cached(&sandbox, "a"));
}

#[test]
fn an_age_limit_is_kept() {
    let mut sandbox = limited();
    compile(&sandbox, "a");
    sandbox.client("stop").expect_success();
    sandbox.set("ZCCACHE_CACHE_MAX_AGE", "0s");
    sandbox.start();
    let said = sandbox.client("gc").expect_success().out();
    assert!(said.starts_with("forgot 1 results"), "{said}");
    sandbox.set("ZCCACHE_CACHE_MAX_AGE", "old");
    sandbox.client("stop").expect_success();
    let refused = sandbox.client("start");
    assert!(!refused.success() && refused.err().contains("`old` is no age"), "{refused:?}");
}

#[test]
fn counters_of_all_times_survive_services_and_zero_ends_them() {
    let sandbox = Sandbox::new();
    sandbox.write("a.c", "int a;\n");
    compile(&sandbox, "a");
    sandbox.client("stop").expect_success();
    sandbox.start();
    assert!(is_cached(&sandbox, "a"));
    let stats = sandbox.stats();
    assert_eq!((stats.counters.hits, stats.counters.misses), (1, 0));
    let all = &stats.json["all_time"];
    assert_eq!((&all["hits"], &all["misses"], &all["requests"]), (&1.into(), &1.into(), &2.into()), "{all}");
    assert!(all["since_s"].as_u64().is_some_and(|s| s > 1_500_000_000), "{all}");
    assert!(sandbox.client("stats").out().contains("of all times"));
    sandbox.client("stats --zero").expect_success();
    sandbox.client("stop").expect_success();
    sandbox.start();
    assert_eq!(sandbox.stats().json["all_time"]["requests"], 0);
    // What is stored is no counter.
    assert_eq!(sandbox.stats().json["store"]["records"], 1);
}
