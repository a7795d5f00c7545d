//! What a run takes from chance is seen, however it takes it; and what libc takes for itself is not held against it.

use std::os::unix::fs::FileExt;

use super::observing::{Bench, Run};
use zccache_actors::observe_linux::ObservedObserver;
use zccache_actors::observer::Unstorable;
use zccache_actors::plan::{Caution, Policy};

/// Knows nothing of its tools.
static UNKNOWN: Policy = Policy {
    family: "test",
    knows_program: |_| false,
    reads_links_on_its_way_only: false,
    searches: |_| false,
    ignored_reads: &["/proc/filesystems"],
    caution: Caution::FULL,
    review: None,
};

/// Knows that chance does not show in what `asks` prints.
static KNOWN: Policy =
    Policy { caution: Caution { harmless: |name| name == b"asks", ..Caution::FULL }, ..UNKNOWN };

fn run(bench: &Bench, policy: &'static Policy, tool: &str, arguments: &[&str]) -> Run {
    bench.run_with(tool, arguments, |job| {
        job.policy = policy;
        job.foreign_code = false;
    })
}

fn compile(bench: &Bench, body: &str, options: &[&str]) -> String {
    let head = "#define _GNU_SOURCE\n#include <stdio.h>\n#include <stdlib.h>\n#include <time.h>\n#include <unistd.h>\n\
        #include <sys/random.h>\n#include <sys/resource.h>\n#include <sys/sysinfo.h>\n#include <sys/time.h>\n\
        #include <sys/wait.h>\n";
    bench.write("asks.c", &format!("{head}int main(void) {{ {body} }}\n"));
    bench.run_bare("gcc", &[&["asks.c", "-o", "asks"], options].concat());
    bench.path("asks")
}

#[test]
fn whoever_reads_the_clock_or_measures_is_told() {
    let bench = Bench::new();
    for body in [
        "printf(\"%d\\n\", time(0) > 1000000000);",
        "struct timespec t; printf(\"%d\\n\", clock_gettime(CLOCK_REALTIME, &t) + (t.tv_sec < 1000000000));",
        "struct timespec t; printf(\"%d\\n\", clock_gettime(CLOCK_MONOTONIC, &t));",
        "struct timeval t; printf(\"%d\\n\", gettimeofday(&t, 0) + (t.tv_sec < 1000000000));",
        "struct timespec t; printf(\"%d\\n\", clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t));",
        "if (fork()) wait(0); else return time(0) == 0;",
        "struct rusage r; return getrusage(RUSAGE_SELF, &r);",
        "struct sysinfo s; return sysinfo(&s);",
        "struct rusage r; if (!fork()) return 0; wait4(-1, 0, 0, &r);",
    ] {
        for options in [&["-O1"][..], &["-O1", "-static"]] {
            let tool = compile(&bench, body, options);
            let told = run(&bench, &UNKNOWN, &tool, &[]);
            // Within a static program, libc's own use of random numbers cannot be told from the program's.
            let is_told = matches!(
                told.observed.unstorable,
                Some(Unstorable::ReadClock | Unstorable::TookRandomNumbers)
            );
            assert!(is_told, "{options:?} {body}");
            assert_eq!(told.stdout(), bench.run_bare(&tool, &[]).0, "{body}");
            assert_eq!(run(&bench, &KNOWN, &tool, &[]).observed.unstorable, None, "{body}");
        }
    }
    assert_eq!(run(&bench, &UNKNOWN, "date", &[]).observed.unstorable, Some(Unstorable::ReadClock));
}

#[test]
fn whoever_takes_random_numbers_is_told() {
    let bench = Bench::new();
    for body in [
        "char b[8]; return getrandom(b, 8, GRND_NONBLOCK) != 8;",
        "static char b[8]; return getrandom(b, 8, GRND_NONBLOCK) != 8;",
        "char *b = malloc(16); return getrandom(b, 16, 0) != 16;",
        "char b[8]; return getentropy(b, 8);",
        "char b[4]; FILE *f = fopen(\"/dev/urandom\", \"r\"); return fread(b, 4, 1, f) != 1;",
    ] {
        let tool = compile(&bench, body, &[]);
        let told = run(&bench, &UNKNOWN, &tool, &[]);
        assert_eq!(told.observed.unstorable, Some(Unstorable::TookRandomNumbers), "{body}");
        let known = run(&bench, &KNOWN, &tool, &[]).observed.unstorable;
        assert!(matches!(known, None | Some(Unstorable::ReadUnstable(_))), "{body}: {known:?}");
    }
}

#[test]
fn whoever_takes_nothing_from_chance_is_not_suspected() {
    let bench = Bench::new();
    let tool = compile(&bench, "char *b = malloc(1000); printf(\"%p\\n\" + 2, b); return 0;", &[]);
    assert_eq!(run(&bench, &UNKNOWN, &tool, &[]).observed.unstorable, None);
    bench.write("in", "b\na\n");
    for script in ["cat in; wc in", "sed s/a/b/ in >out; tail -n1 in"] {
        let told = run(&bench, &UNKNOWN, "sh", &["-c", script]);
        assert_eq!(told.observed.unstorable, None, "{script}: {}", told.stderr());
    }
}

#[test]
fn a_process_number_is_told_by_who_asks_for_it_and_by_a_script_that_names_it() {
    let bench = Bench::new();
    let tool = compile(&bench, "printf(\"%d\\n\", getpid() > 1);", &[]);
    let asked = Some(Unstorable::AskedProcessNumber);
    assert_eq!(run(&bench, &UNKNOWN, &tool, &[]).observed.unstorable, asked);
    assert_eq!(run(&bench, &KNOWN, &tool, &[]).observed.unstorable, None);
    assert_eq!(run(&bench, &UNKNOWN, "sh", &["-c", "echo $$"]).observed.unstorable, asked);
    assert_eq!(run(&bench, &UNKNOWN, "sh", &["-c", "echo $HOME"]).observed.unstorable, None);
    bench.script("told", "#!/bin/sh\necho $PPID\n");
    assert_eq!(run(&bench, &UNKNOWN, &bench.path("told"), &[]).observed.unstorable, asked);
}

#[test]
fn a_tool_that_cannot_be_executed_leaves_our_own_clock_alone() {
    // The kernel's clock functions, as this process has them.
    let own_clock = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.ends_with("[vdso]")).unwrap();
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        let [start, end] = [start, end].map(|digits| u64::from_str_radix(digits, 16).unwrap());
        let mut image = vec![0; usize::try_from(end - start).unwrap()];
        std::fs::File::open("/proc/self/mem").unwrap().read_exact_at(&mut image, start).unwrap();
        image
    };
    let before = own_clock();
    ObservedObserver::new().unwrap();
    assert!(own_clock() == before, "until it executes, a tool's process has our memory");
}
