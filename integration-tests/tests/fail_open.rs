//! Whatever is wrong with the cache, the build goes on as if there were none, and nothing is added to its output.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use zccache_integration_tests::sandbox::{run, send};
use zccache_integration_tests::{Outcome, Sandbox, Tree, binaries, processes, sources, wait};
use zccache_proto::endpoint::Endpoint;

/// What "within 1 s" may take on a machine that does much else besides. The promise itself is a benchmark.
const OPEN_PATIENCE: Duration = Duration::from_secs(15);

/// A source with a warning in it, so that output is compared too.
const SOURCE: &str = "int f(void) { int unused; return 1; }\n";
const LINE: &str = "gcc -Wall -c a.c";

/// Compiles `a.c` bare, then by the wrapper in the sandbox as it stands, and compares everything.
#[track_caller]
fn compiles_as_bare(sandbox: &Sandbox) -> Duration {
    sandbox.write("a.c", SOURCE);
    let object = sandbox.work().join("a.o");
    let _ = std::fs::remove_file(&object);
    let expected = run(sandbox.command("gcc").args(&LINE.split(' ').collect::<Vec<_>>()[1..]));
    let expected_object = std::fs::read(&object).unwrap();
    std::fs::remove_file(&object).unwrap();
    let from = Instant::now();
    let actual = sandbox.compile(LINE);
    let took = from.elapsed();
    assert_eq!(actual, expected);
    assert!(actual.err().contains("unused"), "{actual:?}");
    assert_eq!(std::fs::read(&object).unwrap(), expected_object);
    assert!(took < OPEN_PATIENCE, "the wrapper took {took:?}");
    took
}

#[test]
fn without_a_service_and_without_leave_to_start_one() {
    let mut sandbox = Sandbox::new();
    sandbox.set("ZCCACHE_NO_SPAWN", "1");
    compiles_as_bare(&sandbox);
    assert_eq!(processes::services_of(&sandbox), []);
}

#[test]
fn disabled_it_only_execs_the_tool() {
    let mut sandbox = Sandbox::new();
    sandbox.set("ZCCACHE_DISABLE", "1");
    compiles_as_bare(&sandbox);
    assert_eq!(processes::services_of(&sandbox), []);
    assert!(!sandbox.cache_dir().exists());
    sandbox.unset("ZCCACHE_DISABLE");
    sandbox.start();
    sandbox.set("ZCCACHE_DISABLE", "1");
    compiles_as_bare(&sandbox);
    assert_eq!(sandbox.stats().counters.requests, 0);
}

#[test]
fn the_service_program_is_not_there() {
    let sandbox = Sandbox::new();
    let alone = sandbox.path("alone");
    std::fs::create_dir(&alone).unwrap();
    std::fs::copy(binaries::directory().join("zccache"), alone.join("zccache")).unwrap();
    sandbox.write("a.c", SOURCE);
    let mut command = sandbox.command(alone.join("zccache"));
    command.env("PATH", "/usr/bin:/bin").args(LINE.split(' '));
    let outcome = run(&mut command);
    assert!(outcome.success() && outcome.out().is_empty(), "{outcome:?}");
    assert!(sandbox.work().join("a.o").exists());
}

#[test]
fn the_service_program_fails_at_once() {
    let sandbox = Sandbox::new();
    let broken = sandbox.path("broken");
    std::fs::create_dir(&broken).unwrap();
    std::fs::copy(binaries::directory().join("zccache"), broken.join("zccache")).unwrap();
    std::fs::copy("/bin/false", broken.join("zccache-service")).unwrap();
    sandbox.write("a.c", SOURCE);
    let from = Instant::now();
    let mut command = sandbox.command(broken.join("zccache"));
    let outcome = run(command.env("PATH", "/usr/bin:/bin").args(LINE.split(' ')));
    assert!(outcome.success() && outcome.out().is_empty(), "{outcome:?}");
    assert!(from.elapsed() < OPEN_PATIENCE);
}

#[test]
fn a_tool_that_does_not_exist_is_said_to_be_missing() {
    let sandbox = Sandbox::new();
    let outcome = sandbox.compile("no-such-compiler -c a.c");
    assert_eq!(outcome.status, 127, "{outcome:?}");
    assert!(outcome.err().contains("no-such-compiler"), "{outcome:?}");
}

/// Starts a compile that takes seconds, and comes back when the compiler is at work.
fn slow_compile_under_way(sandbox: &Sandbox) -> (Child, Vec<u8>) {
    sandbox.write("slow.c", sources::slow());
    let words = ["-O3", "-c", "slow.c"];
    run(sandbox.command("gcc").args(words)).expect_success();
    let object = sandbox.work().join("slow.o");
    let expected = std::fs::read(&object).unwrap();
    std::fs::remove_file(object).unwrap();
    let mut command = sandbox.wrapper(["gcc", "-O3", "-c", "slow.c"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn().unwrap();
    compiler_at_work(&sandbox.work());
    (child, expected)
}

/// Waits until a compiler works in `directory`.
fn compiler_at_work(directory: &Path) -> i32 {
    wait::until("a compiler is at work", || {
        processes::working_in(directory).into_iter().find(|p| p.name == "cc1").map(|p| p.pid)
    })
}

#[track_caller]
fn ends_well(sandbox: &Sandbox, mut child: Child, expected: &[u8]) {
    let status = wait::for_exit(&mut child, "the wrapper");
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut printed).unwrap();
    assert!(status.success(), "{status}: {printed}");
    assert_eq!(printed, "");
    assert!(
        std::fs::read(sandbox.work().join("slow.o")).unwrap() == expected,
        "the object differs from the bare one"
    );
    wait::until("no compiler is left", || processes::working_in(&sandbox.work()).is_empty().then_some(()));
}

#[test]
fn the_service_is_killed_in_the_middle_of_a_compile() {
    let sandbox = Sandbox::new();
    sandbox.start();
    sandbox.compile("gcc -c missing.c");
    let (child, expected) = slow_compile_under_way(&sandbox);
    let pid = sandbox.signal_service(Signal::KILL);
    ends_well(&sandbox, child, &expected);
    assert!(!wait::is_alive(pid));
    // The next service serves, and has heard of the fallback.
    sandbox.start();
    compiles_as_bare(&sandbox);
    assert!(sandbox.stats().counters.fallbacks_reported >= 1);
}

#[test]
fn the_service_is_stopped_in_the_middle_of_a_compile() {
    let sandbox = Sandbox::new();
    sandbox.start();
    let (child, expected) = slow_compile_under_way(&sandbox);
    sandbox.signal_service(Signal::STOP);
    ends_well(&sandbox, child, &expected);
    sandbox.signal_service(Signal::CONT);
    wait::until("the service answers again", || sandbox.client("status").success().then_some(()));
    compiles_as_bare(&sandbox);
}

#[test]
fn the_service_is_stopped_before_a_compile() {
    let sandbox = Sandbox::new();
    sandbox.start();
    compiles_as_bare(&sandbox);
    sandbox.signal_service(Signal::STOP);
    compiles_as_bare(&sandbox);
    sandbox.signal_service(Signal::CONT);
    wait::until("the service answers again", || sandbox.client("status").success().then_some(()));
    assert!(sandbox.stats().counters.fallbacks_reported >= 1);
}

#[test]
fn a_killed_wrapper_takes_its_compiler_with_it_and_nobody_else() {
    let sandbox = Sandbox::new();
    sandbox.start();
    let (mut child, _) = slow_compile_under_way(&sandbox);
    child.kill().unwrap();
    child.wait().unwrap();
    wait::until("no compiler is left", || processes::working_in(&sandbox.work()).is_empty().then_some(()));
    compiles_as_bare(&sandbox);
}

#[test]
fn an_interrupted_build_ends_as_the_bare_one_would() {
    let sandbox = Sandbox::new();
    sandbox.start();
    let (mut child, _) = slow_compile_under_way(&sandbox);
    let group = i32::try_from(child.id()).unwrap();
    // What a terminal does for Ctrl-C: the signal goes to the wrapper's whole process group.
    send(group, Signal::INT);
    let status = wait::for_exit(&mut child, "the interrupted wrapper");
    assert!(!status.success());
    wait::until("no compiler is left", || processes::working_in(&sandbox.work()).is_empty().then_some(()));
    compiles_as_bare(&sandbox);
}

/// Listens where the service would, and does `answer` to everyone who comes.
fn false_service(sandbox: &Sandbox, answer: fn(&mut std::os::unix::net::UnixStream)) {
    let endpoint = Endpoint::in_directory(sandbox.runtime_dir());
    endpoint.prepare().unwrap();
    let listener = UnixListener::bind(endpoint.socket()).unwrap();
    std::thread::spawn(move || {
        // Streams are kept, so that a client is not helped by a close.
        let mut kept = Vec::new();
        for mut stream in listener.incoming().filter_map(Result::ok) {
            answer(&mut stream);
            kept.push(stream);
        }
    });
}

#[test]
fn the_endpoint_talks_garbage_or_says_nothing() {
    let answers: [fn(&mut std::os::unix::net::UnixStream); 5] = [
        |_| {},
        |s| _ = s.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        |s| _ = s.write_all(&[0xff; 64]),
        |s| _ = s.write_all(&[4, 0, 0, 0, 0x81]),
        |s| _ = s.shutdown(std::net::Shutdown::Both),
    ];
    for (answer, no_spawn) in answers.into_iter().flat_map(|a| [(a, true), (a, false)]) {
        let mut sandbox = Sandbox::new();
        false_service(&sandbox, answer);
        if no_spawn {
            sandbox.set("ZCCACHE_NO_SPAWN", "1");
        }
        compiles_as_bare(&sandbox);
    }
}

#[test]
fn the_runtime_directory_is_unusable() {
    for (value, make) in [("/proc/zccache", false), ("file", true), ("relative/path", false), ("", false)] {
        let mut sandbox = Sandbox::new();
        let path = if make { sandbox.path(value) } else { value.into() };
        if make {
            std::fs::write(&path, "not a directory").unwrap();
        }
        sandbox.set("ZCCACHE_RUNTIME_DIR", &path);
        // Where an unusable value counts as unset, the next choice must still be this sandbox's.
        sandbox.set("XDG_RUNTIME_DIR", sandbox.path("xdg"));
        compiles_as_bare(&sandbox);
        sandbox.set("ZCCACHE_RUNTIME_DIR", sandbox.path("xdg/zccache"));
    }
}

#[test]
fn the_cache_directory_is_unusable() {
    for (value, make) in [("/proc/zccache", false), ("file", true), ("/dev/full", false)] {
        let mut sandbox = Sandbox::new();
        let path = if make { sandbox.path(value) } else { value.into() };
        if make {
            std::fs::write(&path, "not a directory").unwrap();
        }
        sandbox.set("ZCCACHE_DIR", &path);
        compiles_as_bare(&sandbox);
        compiles_as_bare(&sandbox);
        if sandbox.service_pid().is_some() {
            assert_status_says_why(&sandbox);
        }
    }
}

/// `status` of a service whose cache does not work names what is wrong.
#[track_caller]
fn assert_status_says_why(sandbox: &Sandbox) {
    let status = sandbox.client("status");
    let text = status.out() + &status.err();
    assert!(text.contains("degraded") || text.contains("uncached"), "{status:?}");
}

/// Makes the cache directory a file system of its own, for the service alone, and starts the service there.
fn service_on_a_mount(sandbox: &Sandbox, options: &str) -> Child {
    std::fs::create_dir_all(sandbox.cache_dir()).unwrap();
    let script = "mount -t tmpfs -o \"$0\" zccache \"$ZCCACHE_DIR\" && exec zccache-service";
    let mut command: Command = sandbox.command("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script, options]);
    let child =
        command.stdout(Stdio::null()).process_group(0).spawn().expect("this test needs unshare (util-linux)");
    wait::until("the service answers (this test needs leave to make a mount namespace)", || {
        sandbox.client("status").success().then_some(())
    });
    child
}

/// The wrapper in the world of a service on a mount: from any other it would be passed through.
fn beside(service: &Child, sandbox: &Sandbox, words: &[&str]) -> Command {
    let mut command = sandbox.command("nsenter");
    let pid = service.id().to_string();
    command.args(["--user", "--preserve-credentials", "--mount", "--target", &pid]);
    // Its directory, too: one opened in this world is out of reach in that one.
    command.args(["sh", "-c", "cd \"$0\" && exec \"$@\""]).arg(sandbox.work());
    command.arg(binaries::directory().join("zccache")).args(words);
    command
}

#[test]
fn a_client_in_another_world_is_passed_through() {
    let sandbox = Sandbox::new();
    let mut service = service_on_a_mount(&sandbox, "size=1m");
    sandbox.write("a.c", sources::SMALL);
    sandbox.compile("gcc -c a.c").expect_success();
    assert_eq!(sandbox.stats().counters.passed_through, 1);
    sandbox.stop();
    wait::for_exit(&mut service, "the service");
}

#[test]
fn the_cache_directory_is_full() {
    let sandbox = Sandbox::new();
    // Room for the index to be made, perhaps, but for no object.
    let mut service = service_on_a_mount(&sandbox, "size=64k");
    sandbox.write("slow.c", sources::slow());
    for _ in 0..2 {
        let outcome: Outcome = run(&mut beside(&service, &sandbox, &["gcc", "-g", "-c", "slow.c"]));
        assert!(outcome.success() && outcome.err().is_empty(), "{outcome:?}");
    }
    let cached = std::fs::read(sandbox.work().join("slow.o")).unwrap();
    run(sandbox.command("gcc").args(["-g", "-c", "slow.c"])).expect_success();
    assert!(std::fs::read(sandbox.work().join("slow.o")).unwrap() == cached);
    assert_status_says_why(&sandbox);
    sandbox.stop();
    wait::for_exit(&mut service, "the service");
}

#[test]
fn the_cache_directory_is_read_only() {
    let sandbox = Sandbox::new();
    let mut service = service_on_a_mount(&sandbox, "ro");
    compiles_as_bare(&sandbox);
    compiles_as_bare(&sandbox);
    assert_status_says_why(&sandbox);
    sandbox.stop();
    wait::for_exit(&mut service, "the service");
}

/// Calls `change` with each file of the cache.
fn each_file(directory: &Path, change: &dyn Fn(&Path)) {
    for entry in std::fs::read_dir(directory).unwrap().filter_map(Result::ok) {
        if entry.file_type().unwrap().is_dir() {
            each_file(&entry.path(), change);
        } else {
            change(&entry.path());
        }
    }
}

/// Something that happens to a file of the cache.
type Damage = fn(&Path);

#[test]
fn the_cache_holds_garbage() {
    let damages: [(&str, Damage); 4] = [
        ("overwritten", |p| _ = std::fs::write(p, [0xa5; 4096])),
        ("emptied", |p| _ = std::fs::write(p, "")),
        ("cut short", |p| {
            let bytes = p.metadata().unwrap().len();
            _ = std::fs::File::options().write(true).open(p).unwrap().set_len(bytes / 2);
        }),
        ("one byte changed", |p| {
            let mut bytes = std::fs::read(p).unwrap();
            let middle = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 0x10;
            }
            _ = std::fs::write(p, bytes);
        }),
    ];
    for (name, damage) in damages {
        let sandbox = Sandbox::new();
        sandbox.start();
        compiles_as_bare(&sandbox);
        sandbox.client("stop").expect_success();
        each_file(&sandbox.cache_dir(), &damage);
        sandbox.start();
        eprintln!("the cache was {name}");
        compiles_as_bare(&sandbox);
        // And under a running service, whose next look finds it so.
        compiles_as_bare(&sandbox);
        each_file(&sandbox.cache_dir(), &damage);
        compiles_as_bare(&sandbox);
        compiles_as_bare(&sandbox);
    }
}

#[test]
fn the_cache_directory_vanishes_under_a_running_service() {
    let sandbox = Sandbox::new();
    sandbox.start();
    compiles_as_bare(&sandbox);
    // The service may be adding a file behind its reply; then the directory is not empty, and goes the next time.
    wait::until("the cache directory is gone", || {
        let _ = std::fs::remove_dir_all(sandbox.cache_dir());
        (!sandbox.cache_dir().exists()).then_some(())
    });
    compiles_as_bare(&sandbox);
    compiles_as_bare(&sandbox);
    assert!(!Tree::read(&sandbox.work()).differences(&Tree::default()).is_empty());
}
