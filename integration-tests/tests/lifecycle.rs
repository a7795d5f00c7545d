//! How the service comes, stays and goes, and what it keeps of whoever started it.

use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use zccache_integration_tests::sandbox::{run, send};
use zccache_integration_tests::{Sandbox, binaries, processes, sources, wait};
use zccache_proto::endpoint::Endpoint;

#[test]
fn fifty_wrappers_at_once_start_one_service() {
    let sandbox = Sandbox::new();
    sandbox.write("a.c", sources::SMALL);
    let start = |n: usize| {
        let words = ["gcc".into(), "-c".into(), "a.c".into(), "-o".into(), format!("{n}.o")];
        sandbox.wrapper(words).spawn().unwrap()
    };
    let mut children: Vec<Child> = (0..50).map(start).collect();
    for child in &mut children {
        assert!(wait::for_exit(child, "a wrapper").success());
    }
    let services = processes::services_of(&sandbox);
    assert_eq!(services.len(), 1, "{services:?}");
    assert_eq!(Some(services[0].pid), sandbox.service_pid());
    let expected = std::fs::read(sandbox.work().join("0.o")).unwrap();
    assert!((1..50).all(|n| std::fs::read(sandbox.work().join(format!("{n}.o"))).unwrap() == expected));
}

#[test]
fn a_second_service_exits_at_once_and_says_why() {
    let sandbox = Sandbox::new();
    sandbox.start();
    let first = sandbox.service_pid();
    let second = run(&mut sandbox.command(binaries::directory().join("zccache-service")));
    assert!(!second.success(), "{second:?}");
    assert!(second.err().contains("already") || second.err().contains("another"), "{second:?}");
    assert_eq!(sandbox.service_pid(), first);
    sandbox.client("status").expect_success();
}

#[test]
fn start_returns_when_the_service_answers_and_may_be_repeated() {
    let sandbox = Sandbox::new();
    sandbox.start();
    let pid = sandbox.service_pid();
    assert!(pid.is_some());
    sandbox.client("status").expect_success();
    sandbox.start();
    assert_eq!(sandbox.service_pid(), pid);
}

#[test]
fn stop_returns_when_the_service_is_gone_and_its_files_released() {
    let sandbox = Sandbox::new();
    for _ in 0..3 {
        sandbox.start();
        let pid = sandbox.service_pid().unwrap();
        sandbox.client("stop").expect_success();
        assert!(!wait::is_alive(pid));
        assert!(!Endpoint::in_directory(sandbox.runtime_dir()).socket().exists());
        assert_eq!(sandbox.service_pid(), None);
        // It ended by itself, so nobody will say that it did not.
        assert!(!sandbox.log().contains("did not end by itself"), "{}", sandbox.log());
    }
    std::fs::remove_dir_all(sandbox.cache_dir()).unwrap();
}

#[test]
fn what_was_stored_survives_stop_and_start() {
    let sandbox = Sandbox::new();
    sandbox.write("a.c", sources::SMALL);
    sandbox.compile("gcc -c a.c").expect_success();
    sandbox.client("stop").expect_success();
    sandbox.compile("gcc -c a.c").expect_success();
    assert_eq!(sandbox.stats().counters.hits, 1);
}

#[test]
fn what_was_stored_survives_kill() {
    let sandbox = Sandbox::new();
    sandbox.write("a.c", sources::SMALL);
    sandbox.write("b.c", "int g(void) { return 2; }\n");
    sandbox.start();
    sandbox.compile("gcc -c a.c").expect_success();
    sandbox.compile("gcc -c b.c").expect_success();
    assert_eq!(sandbox.stats().counters.stored, 2);
    let pid = sandbox.signal_service(Signal::KILL);
    wait::until("the killed service is gone", || (!wait::is_alive(pid)).then_some(()));
    sandbox.compile("gcc -c a.c").expect_success();
    sandbox.compile("gcc -c b.c").expect_success();
    assert_ne!(sandbox.service_pid(), Some(pid));
    assert_eq!(sandbox.stats().counters.hits, 2);
}

#[test]
fn kill_at_any_moment_loses_nothing_but_hits() {
    let sandbox = Sandbox::new();
    for round in 0..8 {
        sandbox.start();
        let mut children: Vec<Child> = (0..4)
            .map(|n| {
                let name = format!("r{round}_{n}.c");
                sandbox.write(&name, format!("int f{round}_{n}(void) {{ return {n}; }}\n"));
                sandbox.wrapper(["gcc", "-c", &name]).spawn().unwrap()
            })
            .collect();
        // Each round ends at another point of the compiles: when the first, second, … of them has ended.
        wait::until("some have ended", || {
            let ended = children.iter_mut().filter_map(|c| c.try_wait().unwrap()).count();
            (ended >= round % 4).then_some(())
        });
        if let Some(pid) = sandbox.service_pid() {
            send(pid, Signal::KILL);
        }
        for (n, child) in children.iter_mut().enumerate() {
            assert!(wait::for_exit(child, "a wrapper").success());
            let name = format!("r{round}_{n}");
            let cached = std::fs::read(sandbox.work().join(format!("{name}.o"))).unwrap();
            run(sandbox.command("gcc").args(["-c", &format!("{name}.c"), "-o", "bare.o"])).expect_success();
            assert_eq!(std::fs::read(sandbox.work().join("bare.o")).unwrap(), cached);
        }
    }
    // All of it once more, from what was stored or anew: still the same objects.
    sandbox.start();
    for (round, n) in (0..8).flat_map(|r| (0..4).map(move |n| (r, n))) {
        let name = format!("r{round}_{n}");
        let before = std::fs::read(sandbox.work().join(format!("{name}.o"))).unwrap();
        sandbox.compile(&format!("gcc -c {name}.c")).expect_success();
        assert_eq!(std::fs::read(sandbox.work().join(format!("{name}.o"))).unwrap(), before);
    }
}

/// As when what is old in `/tmp` is cleared away. The next service finds the index free, and nothing of it is removed.
#[test]
fn a_service_whose_socket_was_taken_away_makes_room_for_the_next() {
    let sandbox = Sandbox::new();
    sandbox.write("a.c", sources::SMALL);
    sandbox.start();
    let first = sandbox.service_pid().expect("a service is running");
    std::fs::remove_dir_all(sandbox.runtime_dir()).unwrap();
    sandbox.compile("gcc -c a.c").expect_success();
    let second = sandbox.service_pid().expect("the wrapper has started another service");
    assert_ne!(first, second);
    wait::until("the first service is gone", || (!wait::is_alive(first)).then_some(()));
    assert_eq!(sandbox.service_pid(), Some(second));
    assert_eq!(processes::services_of(&sandbox).len(), 1);
    sandbox.stats();
}

#[test]
fn a_pipe_from_make_ends_when_make_ends() {
    let sandbox = Sandbox::new();
    sandbox.write("a.c", sources::SMALL);
    sandbox.write("Makefile", "a.o: a.c\n\tzccache gcc -c a.c\n");
    // `run` fails if anybody still holds the pipe when the shell has ended.
    let outcome = run(sandbox.command("sh").args(["-c", "make 2>&1 | cat"])).expect_success();
    assert!(outcome.out().contains("zccache gcc -c a.c"));
    assert!(sandbox.service_pid().is_some(), "the wrapper should have started a service");
}

#[test]
fn the_service_holds_none_of_the_wrappers_descriptors() {
    let sandbox = Sandbox::new();
    sandbox.write("a.c", sources::SMALL);
    let marker = sandbox.path("held-open");
    let file = std::fs::File::create(&marker).unwrap();
    // A descriptor that is inherited on purpose, as a jobserver's or a lock's would be.
    let script = format!("exec 9<>\"$0\"; exec \"$@\" # {}", file.as_raw_fd());
    let mut command = sandbox.command("sh");
    command.args(["-c", &script]).arg(&marker).arg(binaries::directory().join("zccache"));
    run(command.args(["gcc", "-c", "a.c"])).expect_success();
    let pid = sandbox.service_pid().unwrap();
    let descriptors = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(processes::entry(pid).join("fd")).unwrap();
        entries.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok()).collect()
    };
    assert!(!descriptors().contains(&marker));
    let ours = [
        sandbox.cache_dir(),
        sandbox.runtime_dir(),
        sandbox.path("home"),
        "/dev/null".into(),
        "/proc".into(),
    ];
    let is_its_own = |target: &PathBuf| {
        // Sockets, wake-up pipes and event queues have names like `pipe:[123]`, files in memory like `/memfd:NAME`.
        let is_in_memory = target.to_string_lossy().starts_with("/memfd:zccache-");
        !target.is_absolute() || is_in_memory || ours.iter().any(|d| target.starts_with(d))
    };
    // Files that it digests are open for a moment.
    wait::until("the service holds nothing but its own", || {
        descriptors().iter().all(is_its_own).then_some(())
    });
}

#[test]
fn the_service_has_a_session_of_its_own_and_stands_at_the_root() {
    let sandbox = Sandbox::new();
    sandbox.write("a.c", sources::SMALL);
    sandbox.compile("gcc -c a.c").expect_success();
    let pid = sandbox.service_pid().unwrap();
    let ours = processes::session_of(i32::try_from(std::process::id()).unwrap());
    assert_ne!(processes::session_of(pid), ours);
    assert_eq!(std::fs::read_link(processes::entry(pid).join("cwd")).unwrap(), PathBuf::from("/"));
}

#[test]
fn a_long_runtime_directory_works_although_socket_addresses_are_short() {
    let mut sandbox = Sandbox::new();
    let long = sandbox.path(&format!("{}/{}", "x".repeat(200), "y".repeat(200)));
    sandbox.set("ZCCACHE_RUNTIME_DIR", &long);
    sandbox.write("a.c", sources::SMALL);
    sandbox.compile("gcc -c a.c").expect_success();
    sandbox.compile("gcc -c a.c").expect_success();
    let counters = sandbox.stats().counters;
    assert_eq!((counters.misses, counters.hits, counters.fallbacks_reported), (1, 1, 0));
}

#[test]
fn directories_and_socket_are_the_owners_alone() {
    let sandbox = Sandbox::new();
    sandbox.start();
    let mode = |path: PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(sandbox.runtime_dir()), 0o700);
    assert_eq!(mode(Endpoint::in_directory(sandbox.runtime_dir()).socket()), 0o600);
    assert_eq!(mode(sandbox.cache_dir()) & 0o022, 0);
}

#[test]
fn termination_and_interrupt_let_what_runs_finish() {
    for signal in [Signal::TERM, Signal::INT] {
        let sandbox = Sandbox::new();
        sandbox.start();
        sandbox.write("slow.c", sources::slow());
        let mut compile = sandbox.wrapper(["gcc", "-O3", "-c", "slow.c"]).spawn().unwrap();
        wait::until("the compiler is at work", || {
            processes::working_in(&sandbox.work()).iter().any(|p| p.name == "cc1").then_some(())
        });
        let pid = sandbox.signal_service(signal);
        assert!(wait::for_exit(&mut compile, "the running compile").success());
        wait::until("the service has gone", || (!wait::is_alive(pid)).then_some(()));
        // It was finished and stored, not thrown away: the next service serves it.
        sandbox.start();
        sandbox.compile("gcc -O3 -c slow.c").expect_success();
        assert_eq!(sandbox.stats().counters.hits, 1, "after {signal:?}");
    }
}

#[test]
fn a_service_that_was_started_by_hand_is_used() {
    let sandbox = Sandbox::new();
    let mut child = sandbox.spawn_service();
    sandbox.write("a.c", sources::SMALL);
    sandbox.compile("gcc -c a.c").expect_success();
    assert_eq!(sandbox.stats().counters.misses, 1);
    assert_eq!(processes::services_of(&sandbox).len(), 1);
    sandbox.client("stop").expect_success();
    assert!(wait::for_exit(&mut child, "the service").success());
}

/// Whether an ELF program (64 bits, little-endian) has a `PT_INTERP` header: the dynamic loader's path.
fn asks_for_a_loader(image: &[u8]) -> bool {
    let number = |at: usize, bytes: usize| {
        image[at..at + bytes].iter().rev().fold(0_usize, |value, byte| value << 8 | usize::from(*byte))
    };
    let (headers, header_bytes, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|n| number(headers + n * header_bytes, 4) == 3)
}

#[test]
fn the_shipped_wrapper_is_static_and_small() {
    let path = binaries::release_wrapper();
    let bytes = std::fs::metadata(&path).unwrap().len();
    assert!(bytes <= 2 * 1024 * 1024, "the wrapper has {bytes} bytes");
    assert!(!asks_for_a_loader(&std::fs::read(&path).unwrap()), "the wrapper is not static");
    assert!(asks_for_a_loader(&std::fs::read("/bin/true").unwrap()), "the check above cannot fail");
    // It works where there is nothing but itself and the tool.
    let mut command = Command::new(path);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("ZCCACHE_DISABLE", "1").stdin(Stdio::null());
    assert!(run(command.arg("true").process_group(0)).success());
}
