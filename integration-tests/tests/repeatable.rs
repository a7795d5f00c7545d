//! What makes a run unrepeatable, sign by sign; and what a tool's process inherits beside its words and its environment.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers included")]

use std::io::Write;
use std::process::{Command, Stdio};

use zccache_integration_tests::sandbox::{run, system_tool};
use zccache_integration_tests::{Expect, Sandbox, Scenario};

/// A sandbox with a service and a program of this body, called `asks`.
fn with_program(body: &str) -> Sandbox {
    let s = Sandbox::new();
    s.start();
    compile(&s, body);
    s
}

fn compile(s: &Sandbox, body: &str) {
    const HEADERS: [&str; 15] = [
        "stdio.h",
        "stdlib.h",
        "string.h",
        "time.h",
        "unistd.h",
        "fcntl.h",
        "sched.h",
        "arpa/inet.h",
        "sys/random.h",
        "sys/resource.h",
        "sys/shm.h",
        "sys/socket.h",
        "sys/stat.h",
        "sys/statvfs.h",
        "sys/time.h",
    ];
    let mut text = String::from("#define _GNU_SOURCE\n");
    HEADERS.iter().for_each(|header| text += &format!("#include <{header}>\n"));
    s.write("asks.c", format!("{text}#include <sys/un.h>\nint main(int argc, char **argv) {{ {body} }}\n"));
    run(s.command("gcc").args(["-w", "asks.c", "-o", "asks"])).expect_success();
}

/// Runs the command twice by the wrapper; neither is served or stored, and the reason is counted.
#[track_caller]
fn is_never_stored(s: &Sandbox, words: &[&str], reason: &str) {
    let count = || s.stats().reasons("not_stored").get(reason).copied().unwrap_or_default();
    let (before, reasons_before) = (s.stats().counters, count());
    for _ in 0..2 {
        run(&mut s.wrapper(words));
    }
    let delta = s.stats().counters - before;
    assert_eq!((delta.misses, delta.hits, delta.stored), (2, 0, 0), "{words:?}: {delta:?}");
    assert_eq!(count() - reasons_before, 2, "{words:?}: {:?}", s.stats().json);
}

#[test]
fn each_way_of_asking_for_what_is_never_the_same_is_seen() {
    let s = with_program("return 0;");
    let before = s.stats().counters;
    (0..2).for_each(|_| _ = s.compile("./asks"));
    let delta = s.stats().counters - before;
    assert_eq!((delta.hits, delta.stored), (1, 1), "a program that asks for nothing is served");
    run(s.command("mkfifo").arg("fifo")).expect_success();
    for (body, reason) in [
        // The clock, and what is measured.
        ("return time(0) == 0;", "read_clock"),
        ("struct timespec t; return clock_gettime(CLOCK_MONOTONIC, &t);", "read_clock"),
        ("struct rusage r; return getrusage(RUSAGE_SELF, &r);", "read_clock"),
        ("struct itimerval v; return getitimer(ITIMER_REAL, &v);", "read_clock"),
        ("struct statvfs v; return statvfs(\".\", &v);", "read_clock"),
        ("double l[3]; return getloadavg(l, 3) != 3;", "read_clock"),
        // Random numbers.
        ("char b[8]; return getrandom(b, 8, 0) != 8;", "took_random_numbers"),
        (
            "char b[8]; FILE *f = fopen(\"/dev/urandom\", \"r\"); return fread(b, 8, 1, f) != 1;",
            "took_random_numbers",
        ),
        ("FILE *f = fopen(\"/proc/sys/kernel/random/uuid\", \"r\"); return fgetc(f) < 0;", "read_device"),
        // What has no content of its own.
        ("return open(\"fifo\", O_RDONLY | O_NONBLOCK) < 0;", "read_device"),
        ("return open(\"/proc/uptime\", O_RDONLY) < 0;", "read_device"),
        // What a hit would not restore.
        (
            "struct timespec t[2] = {{1}, {1}}; return futimens(creat(\"old\", 0644), t);",
            "changed_existing_file",
        ),
        // Numbers of processes.
        ("return getpid() == 0;", "asked_process_number"),
        ("return getppid() == 0;", "asked_process_number"),
        ("return gettid() == 0;", "asked_process_number"),
        ("return getpgrp() == 0;", "asked_process_number"),
        ("return getsid(0) < 0;", "asked_process_number"),
        // Others: by the network, a socket, shared memory.
        (
            "struct sockaddr_in a = {AF_INET, htons(9), {htonl(INADDR_LOOPBACK)}}; \
             connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&a, sizeof a); return 0;",
            "used_socket",
        ),
        (
            "struct sockaddr_in a = {AF_INET, htons(9), {htonl(INADDR_LOOPBACK)}}; \
             sendto(socket(AF_INET, SOCK_DGRAM, 0), \"x\", 1, 0, (void *)&a, sizeof a); return 0;",
            "used_socket",
        ),
        (
            "struct sockaddr_un a = {AF_UNIX, \"./socket\"}; unlink(a.sun_path); \
             return bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&a, sizeof a);",
            "used_socket",
        ),
        ("return shmget(IPC_PRIVATE, 1, 0600) < 0;", "used_socket"),
        ("return kill(1, 0) != 0;", "used_socket"),
    ] {
        compile(&s, body);
        is_never_stored(&s, &["./asks"], reason);
    }
}

#[test]
fn each_sign_in_a_script_is_seen() {
    let s = Sandbox::new();
    s.start();
    for (script, reason) in [
        ("echo $$", "asked_process_number"),
        ("echo ${PPID}", "asked_process_number"),
        ("true & echo $!", "asked_process_number"),
        ("kill -9 $$", "signalled"),
        ("(exec >&- 2>&-; exec sleep 5) & true", "left_process"),
        ("mkdir made", "changed_existing_file"),
    ] {
        let words = ["sh", "-c", script];
        let before = s.stats();
        run(&mut s.wrapper(words));
        let after = s.stats();
        assert_eq!((after.counters - before.counters).stored, 0, "{script}");
        let count = |stats: &zccache_integration_tests::Stats| {
            stats.reasons("not_stored").get(reason).copied().unwrap_or_default()
        };
        assert_eq!(count(&after) - count(&before), 1, "{script}: {}", after.json);
    }
}

/// Limits, priority, processors and ignored signals: the tool has its user's, and another's result is not served.
#[test]
fn what_a_process_inherits_is_the_users_own() {
    system_tool("taskset");
    let mut s = Scenario::new();
    let program = "#include <signal.h>\n#include <stdio.h>\n\
        int main(void) { puts(signal(SIGHUP, SIG_DFL) == SIG_IGN ? \"deaf\" : \"hears\"); return 0; }\n";
    s.write("hears.c", program);
    s.edit(|w| {
        run(Command::new("gcc").args(["hears.c", "-o", "hears"]).current_dir(w)).expect_success();
    });
    for (first, second, line) in [
        ("ulimit -n 500", "ulimit -n 400", "ulimit -n"),
        ("taskset -p 1 $$ >/dev/null", "taskset -p 3 $$ >/dev/null", "nproc"),
        ("renice 5 $$ >/dev/null", "renice 7 $$ >/dev/null", "nice"),
        ("trap '' HUP", ":", "exec ./hears"),
    ] {
        for (setting, expect) in
            [(first, Expect::Miss), (first, Expect::Hit), (second, Expect::Miss), (first, Expect::Hit)]
        {
            by_shell(&mut s, expect, &format!("{setting}; exec"), &["sh", "-c", line]);
        }
    }
}

/// Whether there is a terminal, a pipe, a file or nothing to read is asked of the descriptor, and nothing is read.
#[test]
fn what_standard_input_is_counts_where_nobody_reads_it() {
    let mut s = Scenario::new();
    let program = "#include <stdio.h>\n#include <sys/stat.h>\n\
        int main(void) { struct stat s; puts(fstat(0, &s) ? \"none\" : S_ISFIFO(s.st_mode) ? \"pipe\" : \"other\"); return 0; }\n";
    s.write("asks.c", program);
    s.edit(|w| {
        run(Command::new("gcc").args(["asks.c", "-o", "asks"]).current_dir(w)).expect_success();
    });
    for (prelude, expect) in [
        ("exec </dev/null; exec", Expect::Miss),
        ("exec </dev/null; exec", Expect::Hit),
        (": |", Expect::Miss),
        (": |", Expect::Hit),
        ("exec <&-; exec", Expect::Miss),
        ("exec </dev/null; exec", Expect::Hit),
    ] {
        by_shell(&mut s, expect, prelude, &["./asks"]);
    }
}

/// One step of a command that a shell executes after these words.
fn by_shell(s: &mut Scenario, expect: Expect, prelude: &str, words: &[&str]) {
    let shell = |mut command: Command, sandbox: &Sandbox| {
        let (program, rest) =
            (command.get_program().to_owned(), command.args(words).get_args().map(ToOwned::to_owned));
        let rest: Vec<_> = rest.collect();
        let mut shell = sandbox.command("sh");
        shell.arg("-c").arg(format!("{prelude} \"$0\" \"$@\"")).arg(program).args(rest);
        shell
    };
    s.compare(
        expect,
        |sandbox| shell(sandbox.command("env"), sandbox),
        |sandbox| shell(sandbox.wrapper(Vec::<&str>::new()), sandbox),
    );
}

#[test]
fn further_descriptors_are_the_tools_own() {
    let mut s = Scenario::new();
    s.write("in", "one\n");
    for (prelude, line) in [
        ("exec 3<in; exec", "cat <&3"),
        ("exec 4>out; exec", "echo x >&4"),
        ("echo piped | exec 3<&0; exec 3<in; exec", "cat <&3"),
    ] {
        (0..2).for_each(|_| by_shell(&mut s, Expect::PassThrough, prelude, &["sh", "-c", line]));
    }
    // One that nobody names is a test runner's, say.
    by_shell(&mut s, Expect::Miss, "exec 5</dev/null; exec", &["sh", "-c", "echo y"]);
    by_shell(&mut s, Expect::Hit, "exec 5</dev/null; exec", &["sh", "-c", "echo y"]);
}

/// A tool that asks at the terminal, whatever its streams are, is answered there.
#[test]
fn who_opens_the_terminal_gets_the_users_own() {
    asks_at_the_terminal("observed", (2, 0));
}

/// Nothing is known there of what it opens, so it is not run by the service at all, which has no terminal.
#[test]
fn who_opens_the_terminal_gets_the_users_own_under_the_declared_observer_too() {
    asks_at_the_terminal("declared", (0, 2));
}

fn asks_at_the_terminal(observer: &str, (misses, passed_through): (u64, u64)) {
    system_tool("script");
    let mut s = with_program(
        "FILE *t = fopen(\"/dev/tty\", \"r+\"); char b[9]; \
         puts(t && fgets(b, 9, t) ? b : \"nobody\"); return 0;",
    );
    s.stop();
    s.set("ZCCACHE_OBSERVER", observer);
    s.start();
    let before = s.stats();
    let at_terminal = |line: &str| {
        let mut command = s.command("script");
        command.args(["-qec", &format!("{line} </dev/null >said"), "/dev/null"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut answer = child.stdin.take().unwrap();
        answer.write_all(b"yes\n").unwrap();
        zccache_integration_tests::wait::for_exit(&mut child, line);
        drop(answer);
        std::fs::read_to_string(s.work().join("said")).unwrap()
    };
    assert_eq!(at_terminal("./asks"), "yes\n\n");
    for _ in 0..2 {
        assert_eq!(at_terminal("zccache ./asks"), "yes\n\n");
    }
    let delta = s.stats().counters - before.counters;
    assert_eq!((delta.misses, delta.passed_through, delta.stored), (misses, passed_through, 0), "{delta:?}");
}

/// A terminal on standard input is never looked at beforehand, and a tool that reads it is not stored.
#[test]
fn who_reads_the_terminal_on_standard_input_is_not_stored() {
    let s = Sandbox::new();
    s.start();
    let before = s.stats().counters;
    for answer in ["one\n", "two\n"] {
        let mut command = s.command("script");
        command.args(["-qec", "zccache head -n1 >said", "/dev/null"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(answer.as_bytes()).unwrap();
        zccache_integration_tests::wait::for_exit(&mut child, "head");
        drop(input);
        assert_eq!(std::fs::read_to_string(s.work().join("said")).unwrap(), answer);
    }
    let delta = s.stats().counters - before;
    assert_eq!((delta.hits, delta.stored), (0, 0), "{delta:?}");
}

/// Up to 16 MiB of a file on standard input are part of the request; one byte more, and the tool is left alone with it.
#[test]
fn a_file_on_standard_input_counts_up_to_its_limit() {
    const LIMIT_BYTES: usize = 16 << 20;
    let mut s = Scenario::new();
    for (length, last, expect) in [
        (LIMIT_BYTES, b'a', Expect::Miss),
        (LIMIT_BYTES, b'a', Expect::Hit),
        (LIMIT_BYTES, b'b', Expect::Miss),
        (LIMIT_BYTES + 1, b'a', Expect::PassThrough),
    ] {
        let mut text = vec![b'x'; length];
        text[length - 1] = last;
        let input = s.sandbox.path("input");
        std::fs::write(&input, text).unwrap();
        let open = || std::fs::File::open(&input).unwrap();
        let with_input = |mut command: Command| {
            command.stdin(open());
            command
        };
        s.compare(
            expect,
            |sandbox| with_input(sandbox.command("md5sum")),
            |sandbox| with_input(sandbox.wrapper(["md5sum"])),
        );
    }
}

/// A pipe on standard input is part of the request where the command says that it is read; else whoever reads it is not
/// stored.
#[test]
fn a_pipe_on_standard_input_counts_where_the_command_names_it() {
    let mut s = Scenario::new();
    let piped = |mut command: Command, text: &str| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(text.as_bytes()).unwrap();
        command.stdin(reader);
        command
    };
    for (words, text, expect) in [
        (&["md5sum", "-"][..], "one", Expect::Miss),
        (&["md5sum", "-"], "one", Expect::Hit),
        (&["md5sum", "-"], "two", Expect::Miss),
        (&["md5sum"], "one", Expect::NotStored),
        (&["md5sum"], "one", Expect::NotStored),
    ] {
        s.compare(
            expect,
            |sandbox| {
                let mut command = sandbox.command(words[0]);
                command.args(&words[1..]);
                piped(command, text)
            },
            |sandbox| piped(sandbox.wrapper(words), text),
        );
    }
}

/// What a run makes and takes away again by a name of its own is an input: had it been there, it would be gone.
#[test]
fn what_a_run_takes_away_again_must_not_have_been_there() {
    let mut s = Scenario::new();
    s.write("bad.s", "no instruction\n");
    s.unlike("new");
    for line in ["as -o out bad.s", "gcc -c bad.s -o out", "clang -c bad.s -o out"] {
        s.step(Expect::Miss, line);
        s.step(Expect::Hit, line);
        s.write("out", "an older one");
        s.step(Expect::Run, line);
    }
    let script = ["sh", "-c", "echo x >out; cat out; rm out"];
    s.step_of(Expect::Miss, &script);
    s.step_of(Expect::Hit, &script);
    s.write("out", "an older one");
    s.step_of(Expect::Run, &script);
    s.step_of(Expect::Anything, &script);
}

/// What lies behind the kernel's links to a process's own directory and files is another thing for the service.
#[test]
fn what_lies_behind_the_kernels_own_links_is_not_stored() {
    let mut s = Scenario::new();
    s.edit(|w| std::os::unix::fs::symlink("/proc/self/cwd", w.join("here")).unwrap());
    let root = format!("cat /proc/self/root{}/in", s.sandbox.work().display());
    for line in [
        "cat /proc/self/cwd/in",
        "cat //proc/./self/cwd/in",
        "cat /proc/thread-self/cwd/in",
        "cat here/in",
        "exec 5<.; cat /proc/self/fd/5/in",
        "exec 5<.; cat /dev/fd/5/in",
        "[ -s /proc/self/cwd/in ] && echo full || echo empty",
        "echo made >here/out; cat out; rm out",
        &root,
    ] {
        for text in ["one\n", "", "one\n"] {
            s.write("in", text);
            s.step_of(Expect::NotStored, &["sh", "-c", line]);
        }
    }
}

/// Of the variables that are left out of a tool's environment, those that a script names count all the same.
#[test]
fn variables_of_the_session_count_where_a_script_names_them() {
    let mut s = Scenario::new();
    s.script("by-name", "case $MAKEFLAGS in *s*) ;; *) echo loud ;; esac; . ./more");
    s.write("more", "echo $ZCCACHE_OF_THE_USER\n");
    s.script("silent", "echo nothing");
    for (words, name) in [
        (&["./by-name"][..], "MAKEFLAGS"),
        (&["./by-name"], "ZCCACHE_OF_THE_USER"),
        (&["sh", "-c", "echo ${SHLVL}"], "SHLVL"),
    ] {
        for (value, expect) in
            [("k", Expect::Miss), ("k", Expect::Hit), ("s", Expect::Miss), ("k", Expect::Hit)]
        {
            s.sandbox.set(name, value);
            s.step_of(expect, words);
        }
        s.sandbox.unset(name);
        s.step_of(Expect::Anything, words);
    }
    for (value, expect) in [("k", Expect::Miss), ("s", Expect::Hit)] {
        s.sandbox.set("MAKEFLAGS", value);
        s.step(expect, "./silent");
    }
}

/// Tools refuse to read what they write to: that it is one file only they themselves can tell.
#[test]
fn a_tool_whose_output_goes_where_its_input_is_is_left_alone() {
    let mut s = Scenario::new();
    s.write("a.txt", "one\n");
    for line in ["grep o a.txt out >out", "cat a.txt out >>out", "grep o a.txt ./out 2>out"] {
        let shell = |wrapper: &str| {
            let line = format!("{wrapper}{line}");
            move |sandbox: &Sandbox| {
                let mut command = sandbox.command("sh");
                command.args(["-c", &line]);
                command
            }
        };
        s.compare(Expect::PassThrough, shell(""), shell("zccache "));
    }
}

/// Whether a name is free, or has something to be removed, is told by the very call that takes it, or removes it.
#[test]
fn what_is_in_the_way_or_to_be_removed_is_an_input() {
    let mut s = Scenario::new();
    let program = |body: &str| {
        format!("#include <fcntl.h>\n#include <stdio.h>\n#include <unistd.h>\nint main(void) {{ {body} }}\n")
    };
    s.write(
        "takes.c",
        program(
            "puts(open(\"it\", O_CREAT | O_EXCL | O_WRONLY, 0644) < 0 ? \"taken\" : \"free\"); return 0;",
        ),
    );
    s.write("drops.c", program("puts(unlink(\"it\") ? \"nothing\" : \"removed\"); return 0;"));
    s.edit(|w| {
        for name in ["takes", "drops"] {
            let mut gcc = Command::new("gcc");
            run(gcc.args([&format!("{name}.c"), "-o", name]).current_dir(w)).expect_success();
        }
    });
    for expect in [Expect::Miss, Expect::Hit] {
        s.step(expect, "./takes");
        // Of a file that is there, its time shows as well.
        s.step(Expect::Run, "./takes");
        s.step(expect, "./drops");
        s.step(expect, "./drops");
    }
    s.edit(|w| std::fs::create_dir(w.join("it")).unwrap());
    s.step(Expect::Run, "./takes");
    s.step(Expect::Run, "./drops");
}
