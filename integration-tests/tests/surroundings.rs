//! Whatever surrounds a build: limits, priority, groups, streams, signals, jobservers, missing places. Each is told
//! twice, bare and wrapped, and nobody can tell which was which.
//!
//! The compiler is mostly a script by the name of `gcc`, which does what compilers seldom do.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use zccache_integration_tests::sandbox::{run, send, system_tool};
use zccache_integration_tests::{MemoryGroup, Outcome, Sandbox, binaries, processes, sources, wait};

/// A sandbox with a running service, `a.c`, and a script in the compiler's place.
fn with_compiler(script: &str) -> Sandbox {
    let mut sandbox = Sandbox::new();
    sandbox.write("a.c", "int f(void) { int unused; return 1; }\n");
    let compiler = sandbox.path("tools/gcc");
    std::fs::create_dir(sandbox.path("tools")).unwrap();
    std::fs::write(&compiler, format!("#!/bin/bash\n{script}\n")).unwrap();
    std::fs::set_permissions(&compiler, PermissionsExt::from_mode(0o755)).unwrap();
    let mut path = sandbox.path("tools").into_os_string();
    path.push(":");
    path.push(sandbox.var("PATH"));
    sandbox.set("PATH", path);
    sandbox.start();
    sandbox
}

/// Runs a line of shell in which `$W` stands before the compiler: nothing, or the wrapper.
fn shell(sandbox: &Sandbox, wrapped: bool, line: &str) -> Command {
    let mut command = sandbox.command("bash");
    let wrapper = binaries::directory().join("zccache");
    command.env("W", if wrapped { wrapper.as_os_str() } else { "".as_ref() });
    command.args(["-c", line]);
    command
}

/// The same line, bare and wrapped (twice: run and perhaps served), is the same.
#[track_caller]
fn same(sandbox: &Sandbox, line: &str) -> Outcome {
    let bare = run(&mut shell(sandbox, false, line));
    for time in ["first", "second"] {
        let wrapped = run(&mut shell(sandbox, true, line));
        assert_eq!(wrapped, bare, "{time} time: {line}");
    }
    bare
}

/// Was asked of the service, and never in vain.
#[track_caller]
fn without_fallbacks(sandbox: &Sandbox) {
    let counters = sandbox.stats().counters;
    assert!(counters.requests > 0, "the service was not asked at all");
    assert_eq!(counters.fallbacks_reported, 0);
}

#[test]
fn limits_priority_mask_groups_and_directory_are_the_clients() {
    let sandbox = with_compiler(
        "ulimit -a; ulimit -Ha; nice; umask; id -u; id -g; id -G; pwd -P; taskset -p $$ | sed 's/.*: //'",
    );
    std::fs::create_dir(sandbox.work().join("below")).unwrap();
    let mut seen = Vec::new();
    for setup in [
        "true",
        "ulimit -n 77; ulimit -Ss 4096",
        "ulimit -c 0; ulimit -v 8000000; ulimit -f 100000",
        "renice -n 7 $$ >/dev/null",
        "umask 027",
        "cd below",
        "taskset -p 1 $$ >/dev/null",
    ] {
        seen.push(same(&sandbox, &format!("{setup}; $W gcc -c a.c")).expect_success().out());
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 7, "some setup changed nothing, so the test shows nothing: {seen:?}");
    without_fallbacks(&sandbox);
}

#[test]
fn a_client_with_other_groups_runs_its_tool_itself() {
    assert!(rustix::process::geteuid().is_root(), "this test sets groups, so it must be run by root");
    let sandbox = with_compiler("id -g; id -G; : > a.o; stat -c %g a.o; rm a.o");
    for groups in ["--regid 7 --clear-groups", "--groups 5,6", "--regid 8 --groups 9"] {
        let line = format!("setpriv {groups} -- $W gcc -c a.c");
        let said = same(&sandbox, &line).expect_success();
        assert_ne!(said, same(&sandbox, "$W gcc -c a.c"));
    }
    assert_eq!(sandbox.stats().reasons("pass_through_reasons")["other_groups"], 6);
}

#[test]
fn a_client_with_more_groups_than_are_compared_counts_as_another() {
    assert!(rustix::process::geteuid().is_root(), "this test sets groups, so it must be run by root");
    for (most, passed_through) in [(64, 0), (65, 1)] {
        let sandbox = Sandbox::new();
        sandbox.write("a.c", sources::SMALL);
        let groups: Vec<String> = (1..=most).map(|group: u32| group.to_string()).collect();
        let with_groups = |program: &str, words: &[&str]| {
            let mut command = sandbox.command("setpriv");
            command.args(["--groups", &groups.join(","), "--"]).arg(binaries::directory().join(program));
            run(command.args(words)).expect_success()
        };
        with_groups("zccache-client", &["start"]);
        with_groups("zccache", &["gcc", "-c", "a.c"]);
        let counters = sandbox.stats().counters;
        assert_eq!(
            (counters.passed_through, counters.misses),
            (passed_through, 1 - passed_through),
            "{most}"
        );
    }
}

#[test]
fn a_tool_that_dies_by_a_signal_has_the_wrapper_die_by_it() {
    let sandbox = with_compiler("echo before; kill -$SIGNAL $$; sleep 1");
    for signal in ["SEGV", "KILL", "TERM", "ABRT", "PIPE", "XCPU"] {
        for wrapped in [false, true] {
            let words = if wrapped { vec!["zccache", "gcc"] } else { vec!["gcc"] };
            let mut command = sandbox.command(words[0]);
            let ended = run(command.args(&words[1..]).args(["-c", "a.c"]).env("SIGNAL", signal));
            let number = ["KILL", "SEGV", "TERM", "ABRT", "PIPE", "XCPU"].iter().position(|s| *s == signal);
            let number = [9, 11, 15, 6, 13, 24][number.unwrap()];
            assert_eq!((ended.status, ended.out().as_str()), (-number, "before\n"), "{signal}, {wrapped}");
        }
    }
    without_fallbacks(&sandbox);
}

#[test]
fn a_compiler_killed_for_want_of_memory_is_the_builds_own_trouble() {
    let sandbox = Sandbox::new();
    sandbox.start();
    sandbox.write("slow.c", sources::slow());
    let mut child = sandbox.wrapper(["gcc", "-O3", "-c", "slow.c"]).stderr(Stdio::piped()).spawn().unwrap();
    let compiler = wait::until("a compiler is at work", || {
        processes::working_in(&sandbox.work()).into_iter().find(|p| p.name == "cc1").map(|p| p.pid)
    });
    // As the kernel does it.
    send(compiler, Signal::KILL);
    let status = wait::for_exit(&mut child, "the wrapper");
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(!status.success() && said.contains("Killed signal terminated program cc1"), "{status}: {said}");
    // It is not remembered.
    sandbox.compile("gcc -O3 -c slow.c").expect_success();
    without_fallbacks(&sandbox);
}

/// A group of processes with so much memory, or none, with a word: then the test before shows what can be shown there,
/// with a kill that looks the same to everybody but the kernel.
fn memory_group(bytes: u64) -> Option<MemoryGroup> {
    let group = MemoryGroup::new(bytes);
    if group.is_none() {
        println!("there are no control groups for memory here, or there is no leave to make one");
    }
    group
}

#[test]
fn a_machine_without_memory_kills_the_compiler_as_it_would_the_bare_one() {
    let Some(group) = memory_group(160 << 20) else { return };
    let sandbox = Sandbox::new();
    // Ten million numbers: more than the group may have.
    let mut text = String::from("#define A0 1,\n");
    for level in 1..8 {
        text += &format!("#define A{level} {}\n", format!("A{} ", level - 1).repeat(10));
    }
    sandbox.write("large.c", text + "int large[] = { A7 };\n");
    sandbox.write("a.c", sources::SMALL);
    // Outside of the group, to which the programs' own pages would be counted otherwise.
    sandbox.compile("gcc -c a.c").expect_success();
    sandbox.client("stop").expect_success();
    let words = ["-c", "large.c"];
    let bare = run(group.command(&sandbox, "gcc").args(words));
    assert!(!bare.success() && bare.err().contains("Killed signal terminated program cc1"), "{bare:?}");
    assert_eq!(group.kills(), 1);
    run(group.command(&sandbox, binaries::directory().join("zccache-client")).arg("start")).expect_success();
    let pid = sandbox.service_pid().unwrap();
    for time in 1..3 {
        let wrapped = run(&mut sandbox.wrapper(["gcc", "-c", "large.c"]));
        assert_eq!(wrapped, bare);
        assert!(!sandbox.work().join("large.o").exists());
        assert_eq!(group.kills(), 1 + time, "the kernel has killed somebody else, or nobody");
    }
    // It was not the service, and nothing of it is remembered.
    assert_eq!(sandbox.service_pid(), Some(pid));
    let stats = sandbox.stats();
    assert_eq!((stats.counters.misses, stats.counters.stored), (2, 0), "{}", stats.json);
    assert_eq!(stats.reasons("not_stored").values().sum::<u64>(), 2, "{}", stats.json);
    sandbox.compile("gcc -c a.c").expect_success();
    without_fallbacks(&sandbox);
}

#[test]
fn a_machine_without_memory_kills_the_service_and_the_build_goes_on() {
    let Some(group) = memory_group(1 << 30) else { return };
    let sandbox = Sandbox::new();
    sandbox.write("slow.c", sources::slow());
    let words = ["gcc", "-O1", "-c", "slow.c"];
    let bare = run(sandbox.command(words[0]).args(&words[1..]));
    let object = sandbox.work().join("slow.o");
    let expected = std::fs::read(&object).unwrap();
    std::fs::remove_file(&object).unwrap();
    run(group.command(&sandbox, binaries::directory().join("zccache-client")).arg("start")).expect_success();
    let mut wrapper = sandbox.wrapper(words).spawn().unwrap();
    wait::until("a compiler is at work", || {
        processes::working_in(&sandbox.work()).iter().any(|p| p.name == "cc1").then_some(())
    });
    let pid = sandbox.service_pid().unwrap();
    group.shrink_until_killed(pid);
    assert!(wait::for_exit(&mut wrapper, "the wrapper").success());
    assert!(std::fs::read(&object).unwrap() == expected, "the object differs from the bare one");
    wait::until("no compiler is left", || processes::working_in(&sandbox.work()).is_empty().then_some(()));
    // The next one serves, and says what became of the last.
    assert_eq!(run(&mut sandbox.wrapper(words)), bare);
    assert_eq!(run(&mut sandbox.wrapper(words)), bare);
    assert!(std::fs::read(&object).unwrap() == expected, "the object differs from the bare one");
    assert!(sandbox.stats().counters.hits >= 1);
    let said =
        format!("the last service here did not end by itself: it was killed, or had given up before={pid}");
    assert!(sandbox.log().contains(&said), "{}", sandbox.log());
}

#[test]
fn children_left_in_the_background_live_on_and_hold_nobody_up() {
    let sandbox = with_compiler("sleep 1000 & echo $!; exec 1>&- 2>&-; sleep 1000 & exit 3");
    for wrapped in [false, true] {
        let mut command = shell(&sandbox, wrapped, "$W gcc -c a.c > said 2> /dev/null; echo $?");
        let outcome = run(&mut command).expect_success();
        assert_eq!(outcome.out(), "3\n");
        let left: i32 = std::fs::read_to_string(sandbox.work().join("said")).unwrap().trim().parse().unwrap();
        assert!(wait::is_alive(left), "wrapped: {wrapped}");
        for process in processes::working_in(&sandbox.work()) {
            send(process.pid, Signal::KILL);
        }
    }
    without_fallbacks(&sandbox);
}

#[test]
fn sixty_four_mebibytes_of_messages_arrive_whole() {
    let sandbox = with_compiler("yes eeeeeee | head -c 67108864 >&2; echo done");
    let bare = run(&mut shell(&sandbox, false, "$W gcc -c a.c"));
    let wrapped = run(&mut shell(&sandbox, true, "$W gcc -c a.c"));
    assert_eq!(bare.stderr.len(), 64 << 20);
    assert!(wrapped == bare, "{} bytes of 64 MiB", wrapped.stderr.len());
    // A reader that takes its time.
    let line = "$W gcc -c a.c 2> >(while read -r -N 4194304 part; do sleep 0.05; printf %s \"$part\"; done | wc -c >&1; \
                sleep 0.2)";
    let slow = run(&mut shell(&sandbox, true, &format!("{line}; wait")));
    assert!(slow.success() && slow.out().contains("done"), "{slow:?}");
    assert_eq!(sandbox.stats().counters.stored, 0);
}

#[test]
fn messages_that_nobody_wants_end_the_tool_as_they_would() {
    let sandbox = with_compiler(
        "for i in {1..20000}; do echo a line of some length for message $i >&2 || exit 7; done",
    );
    // The reader goes after the first line. What the shell sees of both sides of the pipe is compared.
    same(&sandbox, "{ $W gcc -c a.c 2>&1 1>/dev/null; } | head -n 1; echo ${PIPESTATUS[1]}");
    same(&sandbox, "$W gcc -c a.c 2>&-; echo $?");
    same(&sandbox, "$W gcc -c a.c 2>/dev/full; echo $?");
}

#[test]
fn standard_input_is_left_for_others() {
    let sandbox = Sandbox::new();
    sandbox.write("a.c", sources::SMALL);
    sandbox.start();
    let line = "printf '1\\n2\\n3\\n' | while read -r n; do $W gcc -c a.c -o $n.o || exit 1; echo $n; done";
    assert_eq!(same(&sandbox, line).out(), "1\n2\n3\n");
    let line = "printf '1\\n2\\n' > list; while read -r n; do $W gcc -c a.c -o $n.o; echo $n; done < list";
    assert_eq!(same(&sandbox, line).out(), "1\n2\n");
    // At a terminal: what is typed ahead is for whoever reads next.
    system_tool("script");
    let typed = |wrapped| {
        let inner = "stty -echo; $W gcc -c a.c; read -r x; echo got $x";
        let mut command = shell(&sandbox, wrapped, &format!("script -qec '{inner}' /dev/null"));
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"typed ahead\n").unwrap();
        let status = wait::for_exit(&mut child, "script");
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(status.success() && said.contains("got typed ahead"), "{said}");
    };
    typed(false);
    typed(true);
    without_fallbacks(&sandbox);
}

#[test]
fn a_jobserver_that_is_exhausted_or_gone_holds_nobody_up() {
    let sandbox = Sandbox::new();
    sandbox.write("a.c", sources::SMALL);
    sandbox.start();
    for line in [
        // Descriptors that are not open, not a jobserver's, or whose other side has gone.
        "MAKEFLAGS='-j4 --jobserver-auth=97,98' $W gcc -c a.c -flto=jobserver",
        "MAKEFLAGS='-j4 --jobserver-auth=0,1' $W gcc -c a.c",
        "exec 8< <(true) 9> >(true); MAKEFLAGS='-j4 --jobserver-auth=8,9' $W gcc -c a.c",
        "MAKEFLAGS='-j4 --jobserver-auth=fifo:/nonexistent' $W gcc -c a.c",
        // Without a token left.
        "mkfifo -m 600 fifo 2>/dev/null; exec 9<>fifo; MAKEFLAGS='-j4 --jobserver-auth=fifo:fifo' $W gcc -c a.c",
        "MAKEFLAGS='--jobserver-auth=-5,99999999999' $W gcc -c a.c",
    ] {
        same(&sandbox, line).expect_success();
    }
    without_fallbacks(&sandbox);
}

#[test]
fn a_tool_that_waits_for_a_token_is_waited_for() {
    // Without a word for longer than a client waits for a sign of life.
    let sandbox = with_compiler("read -r -n 1 -u 8 token; echo got $token; : > a.o");
    let line = "mkfifo -m 600 fifo; exec 8<>fifo; rm fifo; (sleep 2.5; printf t >&8) & \
                MAKEFLAGS='-j4 --jobserver-auth=8,8' $W gcc -c a.c; wait";
    assert_eq!(same(&sandbox, line).expect_success().out(), "got t\n");
    without_fallbacks(&sandbox);
}

#[test]
fn control_c_on_make_leaves_no_compiler_and_no_half_written_object() {
    let sandbox = Sandbox::new();
    sandbox.start();
    let mut makefile = String::from("all: ");
    for n in 0..6 {
        sandbox.write(&format!("s{n}.c"), format!("{}int n{n};\n", sources::slow()));
        makefile += &format!("s{n}.o ");
    }
    makefile += "\n%.o: %.c\n\tzccache gcc -O3 -c $< -o $@\n";
    sandbox.write("Makefile", makefile);
    let mut make = sandbox.command("make");
    make.args(["-j4"]).process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
    let mut make = make.spawn().unwrap();
    wait::until("compilers are at work", || {
        let working = processes::working_in(&sandbox.work());
        (working.iter().filter(|p| p.name == "cc1").count() >= 2).then_some(())
    });
    // What a terminal does: the signal goes to the whole foreground group.
    let group = rustix::process::Pid::from_raw(i32::try_from(make.id()).unwrap()).unwrap();
    rustix::process::kill_process_group(group, Signal::INT).unwrap();
    assert!(!wait::for_exit(&mut make, "make").success());
    wait::until("no compiler is left", || processes::working_in(&sandbox.work()).is_empty().then_some(()));
    for n in 0..6 {
        let object = sandbox.work().join(format!("s{n}.o"));
        let Ok(left) = std::fs::read(&object) else { continue };
        run(sandbox.command("gcc").args(["-O3", "-c", &format!("s{n}.c"), "-o", "bare.o"])).expect_success();
        assert!(std::fs::read(sandbox.work().join("bare.o")).unwrap() == left, "s{n}.o is half-written");
    }
    // The service takes it lightly.
    sandbox.write("a.c", sources::SMALL);
    sandbox.compile("gcc -c a.c").expect_success();
    assert_eq!(sandbox.client("status --json").out().matches("\"running\": 0").count(), 1);
}

#[test]
fn five_hundred_wrappers_at_once_from_cold() {
    let sandbox = Sandbox::new();
    sandbox.write("a.c", sources::SMALL);
    // All of them are started before the first can have ended: they wait for a file to be written to.
    let start = |n: usize| sandbox.wrapper(["gcc", "-c", "a.c", "-o", &format!("{n}.o")]).spawn().unwrap();
    let mut children: Vec<Child> = (0..500).map(start).collect();
    for child in &mut children {
        let status = loop {
            // Sixty seconds are for one; these take turns on a few processors.
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        assert!(status.success());
    }
    // One that found itself starved for seconds has gone by now, and the next wrapper starts another.
    assert!(processes::services_of(&sandbox).len() <= 1);
    sandbox.compile("gcc -c a.c -o 0.o").expect_success();
    wait::until("there is one service", || (processes::services_of(&sandbox).len() == 1).then_some(()));
    let expected = std::fs::read(sandbox.work().join("0.o")).unwrap();
    assert!((1..500).all(|n| std::fs::read(sandbox.work().join(format!("{n}.o"))).unwrap() == expected));
}

#[test]
fn a_service_without_descriptors_to_spare_lets_builds_go_on() {
    let sandbox = Sandbox::new();
    let starve = "ulimit -n 128; exec zccache-service";
    let mut service: Child =
        sandbox.command("bash").args(["-c", starve]).stdout(Stdio::null()).process_group(0).spawn().unwrap();
    wait::until("the service answers", || sandbox.client("status").success().then_some(()));
    for n in 0..60 {
        sandbox.write(&format!("m{n}.c"), format!("int f{n}(void) {{ return {n}; }}\n"));
    }
    for _ in 0..2 {
        let start = |n: usize| sandbox.wrapper(["gcc", "-c", &format!("m{n}.c")]).spawn().unwrap();
        let mut children: Vec<Child> = (0..60).map(start).collect();
        for child in &mut children {
            assert!(wait::for_exit(child, "a wrapper").success());
        }
        for n in 0..60 {
            let object = sandbox.work().join(format!("m{n}.o"));
            let cached = std::fs::read(&object).unwrap();
            run(sandbox.command("gcc").args(["-c", &format!("m{n}.c")])).expect_success();
            assert_eq!(std::fs::read(&object).unwrap(), cached);
            std::fs::remove_file(object).unwrap();
        }
    }
    // It is well again as soon as the rush is over.
    wait::until("the service serves", || {
        let before = sandbox.stats().counters.hits;
        sandbox.compile("gcc -c m0.c").expect_success();
        (sandbox.stats().counters.hits > before).then_some(())
    });
    assert!(wait::is_alive(i32::try_from(service.id()).unwrap()));
    sandbox.stop();
    wait::for_exit(&mut service, "the service");
}

#[test]
fn a_client_without_descriptors_to_spare_compiles() {
    let sandbox = Sandbox::new();
    sandbox.write("a.c", sources::SMALL);
    sandbox.start();
    for most in [3, 4, 5, 6, 8, 12] {
        same(&sandbox, &format!("ulimit -n {most}; $W gcc -c a.c -o {most}.o; echo $?"));
    }
}

#[test]
fn places_that_are_unset_or_unusable() {
    let unusable = ["missing", "/proc/nowhere", "relative", "", "/dev/null"];
    for name in ["HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"] {
        let mut sandbox = Sandbox::new();
        sandbox.write("a.c", "int f(void) { int unused; return 1; }\n");
        if name == "TMPDIR" {
            // Where the compiler's own temporary files go: it says itself what is wrong.
            sandbox.unset("TMPDIR");
        }
        for value in unusable {
            // Where nothing is, but something could be made.
            let missing = sandbox.path("missing");
            if value == "missing" {
                sandbox.set(name, &missing);
            } else {
                sandbox.set(name, value);
            }
            same(&sandbox, "$W gcc -Wall -c a.c; echo $?");
            sandbox.stop();
            if name == "HOME" {
                assert!(!missing.exists(), "a home was made");
            }
        }
        sandbox.unset(name);
        same(&sandbox, "$W gcc -Wall -c a.c; echo $?");
    }
}

#[test]
fn with_no_place_of_its_own_at_all() {
    let mut sandbox = Sandbox::new();
    sandbox.write("a.c", sources::SMALL);
    let names = ["HOME", "TMPDIR", "ZCCACHE_DIR", "ZCCACHE_CONFIG"];
    let kept = names.map(|name| sandbox.var(name));
    names.into_iter().for_each(|name| sandbox.unset(name));
    for _ in 0..2 {
        same(&sandbox, "$W gcc -c a.c; echo $?");
    }
    sandbox.stop();
    for (name, value) in names.into_iter().zip(kept) {
        sandbox.set(name, value);
    }
}

#[test]
fn a_working_directory_that_was_deleted() {
    let sandbox = Sandbox::new();
    sandbox.write("a.c", sources::SMALL);
    sandbox.start();
    let line = "mkdir gone; cd gone; rmdir ../gone; $W gcc -c ../a.c; echo $?; $W gcc -c \"$OLDPWD\"/a.c -o \"$OLDPWD\"/b.o; echo $?";
    same(&sandbox, line);
    same(
        &sandbox,
        "rm -f b.o; mkdir -p gone; cd gone; rmdir ../gone; mkdir ../gone; $W gcc -c ../a.c; echo $?; rmdir ../gone",
    );
}

#[test]
fn a_machine_without_proc() {
    let sandbox = Sandbox::new();
    sandbox.write("a.c", "int f(void) { int unused; return 1; }\n");
    assert!(
        rustix::process::geteuid().is_root(),
        "this test unmounts /proc for itself, so it must be run by root"
    );
    let without = |wrapped: bool, line: &str| {
        let line = format!("umount -l /proc && {line}");
        let mut command = sandbox.command("unshare");
        let wrapper = binaries::directory().join("zccache");
        command.env("W", if wrapped { wrapper.as_os_str() } else { "".as_ref() });
        run(command.args(["--mount", "--pid", "--fork", "bash", "-c", &line]))
    };
    // With no service, with one that is started there, and asked twice.
    let line = "$W gcc -Wall -c a.c; echo $?; $W gcc -Wall -c a.c; echo $?; test -e /proc/self && echo proc";
    let bare = without(false, line);
    assert!(bare.out().starts_with("0\n0\n") && !bare.out().contains("proc"), "{bare:?}");
    assert_eq!(without(true, line), bare);
    // With a service that lives where there is one.
    sandbox.stop();
    sandbox.start();
    assert_eq!(without(true, line), bare);
}

#[test]
fn a_client_behind_another_root_is_passed_through() {
    let sandbox = Sandbox::new();
    sandbox.write("a.c", sources::SMALL);
    sandbox.start();
    // A root of its own, with the same files in it.
    let script = "mkdir -p root && for d in /*/; do d=${d%/}; mkdir -p root$d && mount --rbind $d root$d; done; PATH=$PATH:/usr/sbin:/sbin exec chroot root bash -c \"cd '$PWD' && exec \\\"\\$@\\\"\" - \"$@\"";
    let inside = |wrapped: bool| {
        let mut command = sandbox.command("unshare");
        command.args(["--map-root-user", "--mount", "bash", "-c", script, "-"]);
        if wrapped {
            command.arg(binaries::directory().join("zccache"));
        }
        run(command.args(["gcc", "-c", "a.c"]))
    };
    let bare = inside(false);
    assert!(bare.success(), "this test needs leave to make a root directory: {bare:?}");
    assert_eq!(inside(true), bare);
    let stats = sandbox.stats();
    assert_eq!(stats.counters.hits + stats.counters.misses, 0, "{}", stats.json);
}

#[test]
fn a_client_in_a_container_is_passed_through() {
    let sandbox = Sandbox::new();
    sandbox.write("a.c", "int f(void) { int unused; return 1; }\n");
    sandbox.start();
    let pid = sandbox.service_pid();
    // With processes of its own, and the runtime directory in common.
    let inside = |wrapped: bool| {
        let mut command = sandbox.command("unshare");
        command.args(["--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"]);
        if wrapped {
            command.arg(binaries::directory().join("zccache"));
        }
        run(command.args(["gcc", "-Wall", "-c", "a.c"]))
    };
    let bare = inside(false);
    assert!(bare.success(), "this test needs leave to make a process namespace: {bare:?}");
    for _ in 0..2 {
        assert_eq!(inside(true), bare);
    }
    let counters = sandbox.stats().counters;
    assert_eq!((counters.hits, counters.misses), (0, 0), "{counters:?}");
    assert_eq!(sandbox.service_pid(), pid);
    wait::until("nobody is left", || processes::working_in(&sandbox.work()).is_empty().then_some(()));
}

#[test]
fn what_belongs_to_another_version_is_left_alone() {
    let sandbox = Sandbox::new();
    sandbox.write("a.c", sources::SMALL);
    std::fs::create_dir(sandbox.runtime_dir()).unwrap();
    std::fs::set_permissions(sandbox.runtime_dir(), PermissionsExt::from_mode(0o700)).unwrap();
    // An older and a newer service at work beside ours.
    let listeners: Vec<_> = ["zccache-0.sock", "zccache-999.sock"]
        .iter()
        .map(|name| std::os::unix::net::UnixListener::bind(sandbox.runtime_dir().join(name)).unwrap())
        .collect();
    let strangers = ["service-0.lock", "service-999.lock", "service-999.pid", "start-0.lock", "fallbacks-0"];
    for name in strangers {
        std::fs::write(sandbox.runtime_dir().join(name), "another's").unwrap();
    }
    same(&sandbox, "$W gcc -c a.c").expect_success();
    without_fallbacks(&sandbox);
    sandbox.client("stop").expect_success();
    for listener in listeners {
        listener.set_nonblocking(true).unwrap();
        let nobody = listener.accept().is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
        assert!(nobody, "another version's service was bothered");
    }
    let text = |name: &&str| std::fs::read_to_string(sandbox.runtime_dir().join(Path::new(name))).unwrap();
    assert!(strangers.iter().all(|name| text(name) == "another's"));
}

#[test]
fn services_and_clients_of_an_older_and_a_newer_version_get_along() {
    let mut sandbox = Sandbox::new();
    sandbox.write("a.c", sources::SMALL);
    let speaking =
        |sandbox: &mut Sandbox, version: u32| sandbox.set("ZCCACHE_TEST_PROTOCOL", version.to_string());
    let ours = zccache_proto::message::PROTOCOL_VERSION;
    let older_and_newer = [ours, ours + 1];
    let mut pids = Vec::new();
    // Two services at once, in the same directories. The cache is one's; the other says why it has none.
    for version in older_and_newer {
        speaking(&mut sandbox, version);
        same(&sandbox, "$W gcc -c a.c").expect_success();
        without_fallbacks(&sandbox);
        let stats = sandbox.stats();
        assert_eq!(stats.json["service"]["protocol"], version);
        pids.push(i32::try_from(stats.json["service"]["pid"].as_u64().unwrap()).unwrap());
        let status = sandbox.client("status");
        assert_eq!(status.out().contains("nothing is cached"), version != ours, "{status:?}");
    }
    assert_ne!(pids[0], pids[1]);
    assert!(pids.iter().all(|&pid| wait::is_alive(pid)));
    // A client that meets the other's service runs its tool itself, and people are told which side is older.
    let socket = |version: u32| sandbox.runtime_dir().join(format!("zccache-{version}.sock"));
    for (client, service, word) in
        [(ours + 2, ours, "the client is newer"), (ours, ours + 1, "the client is older")]
    {
        let met = socket(client);
        let kept = sandbox.path("kept.sock");
        let was_there = std::fs::rename(&met, &kept).is_ok();
        std::os::unix::fs::symlink(socket(service), &met).unwrap();
        let mut command = shell(&sandbox, true, "$W gcc -c a.c && echo compiled");
        command.env("ZCCACHE_TEST_PROTOCOL", client.to_string()).env("ZCCACHE_NO_SPAWN", "1");
        assert_eq!(run(&mut command), run(&mut shell(&sandbox, false, "$W gcc -c a.c && echo compiled")));
        let mut status = sandbox.command(binaries::directory().join("zccache-client"));
        let told = run(status.arg("status").env("ZCCACHE_TEST_PROTOCOL", client.to_string()));
        assert!(!told.success() && told.err().contains(word), "{told:?}");
        std::fs::remove_file(&met).unwrap();
        if was_there {
            std::fs::rename(&kept, &met).unwrap();
        }
    }
    assert!(pids.iter().all(|&pid| wait::is_alive(pid)), "a service has gone for a stranger's sake");
    // When the first has gone, the other takes the cache over as it is.
    speaking(&mut sandbox, ours);
    sandbox.client("stop").expect_success();
    speaking(&mut sandbox, ours + 1);
    wait::until("what the older one stored is served", || {
        sandbox.compile("gcc -c a.c").expect_success();
        (sandbox.stats().counters.hits > 0).then_some(())
    });
    sandbox.client("stop").expect_success();
}
