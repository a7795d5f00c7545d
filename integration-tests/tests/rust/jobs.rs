//! The job server is the caller's own, by a named pipe or by descriptors: a compile takes as many jobs as it gets there, and
//! gives them back.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use zccache_integration_tests::{Expect, Sandbox, Scenario};

use super::scenario;

/// How long a thread must have been there to count: one that has just given its job back may still be going.
const SAMPLE_PAUSE: Duration = Duration::from_millis(15);

/// How many times in a row it must have been seen.
const SAMPLES: usize = 3;

/// The parts of a crate that may be compiled at a time.
const PARTS: usize = 6;

/// A job server that the test holds.
struct Jobs {
    path: PathBuf,
    pipe: File,
}

impl Jobs {
    /// One with so many jobs to take.
    fn new(path: PathBuf, jobs: usize) -> Self {
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut pipe = File::options().read(true).write(true).open(&path).unwrap();
        pipe.write_all(&vec![b'+'; jobs]).unwrap();
        Self { path, pipe }
    }

    fn left(&self) -> usize {
        usize::try_from(rustix::io::ioctl_fionread(&self.pipe).unwrap()).unwrap()
    }

    /// Another number of jobs.
    fn set(&mut self, jobs: usize) {
        let mut old = vec![0; self.left()];
        self.pipe.read_exact(&mut old).unwrap();
        self.pipe.write_all(&vec![b'+'; jobs]).unwrap();
    }
}

/// A crate whose parts each take a while.
fn write_slow_crate(s: &Scenario) {
    let module = |m: usize| {
        let bits = [8, 16, 32, 64][m % 4];
        format!(
            "pub mod m{m} {{ pub fn f(v: &mut Vec<(u{bits}, String)>) -> String {{\n\
             v.sort_by_key(|x| (x.1.len(), x.0)); v.dedup(); format!(\"{{v:?}} {m}\") }} }}\n"
        )
    };
    s.write("slow.rs", (0..PARTS).map(module).collect::<String>());
}

/// How many jobs a step took from the server at most, and how many threads generated code at a time.
fn watched<T>(sandbox_work: &Path, jobs: &Jobs, action: impl FnOnce() -> T) -> (T, usize, usize) {
    /// Tells the watcher that the step is over, however it ended.
    struct Done<'a>(&'a AtomicBool);
    impl Drop for Done<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let is_done = AtomicBool::new(false);
    let (before, is_done) = (jobs.left(), &is_done);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(move || {
            let (mut taken, mut threads) = (0, 0);
            let mut seen: Vec<HashSet<PathBuf>> = Vec::new();
            while !is_done.load(Ordering::Relaxed) {
                taken = taken.max(before.saturating_sub(jobs.left()));
                seen.push(generating(sandbox_work));
                if let [.., first, second, third] = &seen[..] {
                    let both: HashSet<_> = first.intersection(second).cloned().collect();
                    threads = threads.max(both.intersection(third).count());
                }
                if seen.len() > SAMPLES {
                    seen.remove(0);
                }
                std::thread::sleep(SAMPLE_PAUSE);
            }
            (taken, threads)
        });
        let done = Done(is_done);
        let result = action();
        drop(done);
        let (taken, threads) = watcher.join().unwrap();
        (result, taken, threads)
    })
}

/// The threads that generate code for a `rustc` at work in this directory.
fn generating(directory: &Path) -> HashSet<PathBuf> {
    let entries =
        |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).map(|e| e.path());
    let is_ours =
        |process: &PathBuf| std::fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == directory);
    let is_generating = |thread: &PathBuf| {
        std::fs::read_to_string(thread.join("comm")).is_ok_and(|name| name.starts_with("opt "))
    };
    let processes = entries(Path::new("/proc")).filter(is_ours);
    processes
        .flat_map(|process| entries(&process.join("task")).collect::<Vec<_>>())
        .filter(is_generating)
        .collect()
}

/// The compile, started by a shell that opens the pipe under a number of its own if it is to be handed down so.
fn step(s: &mut Scenario, jobs: &Jobs, expect: Expect, by_descriptor: bool, line: &str) -> (usize, usize) {
    let path = jobs.path.display();
    let (auth, redirect) = match by_descriptor {
        true => ("7,7".to_string(), format!("7<>{path}")),
        false => (format!("fifo:{path}"), String::new()),
    };
    s.sandbox.set("CARGO_MAKEFLAGS", format!("-j --jobserver-fds={auth} --jobserver-auth={auth}"));
    let shell = |prefix: &str| {
        let script = format!("exec {prefix} {line} {redirect}");
        move |sandbox: &Sandbox| {
            let mut command = sandbox.command("sh");
            command.arg("-c").arg(&script);
            command
        }
    };
    let work = s.sandbox.work();
    let before = jobs.left();
    let ((), taken, threads) = watched(&work, jobs, || {
        s.compare(expect, shell(""), shell("zccache")).expect_success();
    });
    assert_eq!(jobs.left(), before, "all jobs were given back");
    (taken, threads)
}

#[test]
fn a_compile_takes_the_jobs_that_it_gets_and_no_more() {
    let mut s = scenario();
    write_slow_crate(&s);
    let mut jobs = Jobs::new(s.sandbox.path("jobs"), 0);
    for (by_descriptor, extra) in [(false, 0), (false, 1), (true, 1), (false, PARTS)] {
        jobs.set(extra);
        // A line of its own, so that each is compiled.
        let line = format!(
            "rustc -Copt-level=1 -Ccodegen-units={PARTS} -Cmetadata={by_descriptor}{extra} --crate-type lib slow.rs"
        );
        let (taken, threads) = step(&mut s, &jobs, Expect::Miss, by_descriptor, &line);
        assert_eq!(taken.min(1), extra.min(1), "{line}: jobs were asked for where they are");
        match extra {
            PARTS => assert!(threads > 2 && taken > 2, "{line}: {threads} at a time, {taken} taken"),
            _ => assert!(threads <= extra + 1, "{line}: {threads} at a time"),
        }
        // Whoever serves the jobs is no part of the key.
        step(&mut s, &jobs, Expect::Hit, !by_descriptor, &line);
    }
}
