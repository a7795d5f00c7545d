//! The wrapper as it is built, against a stand-in for the service that answers what a test tells it to:
//! whatever that is, the tool's own result comes out, in time, with nothing added.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use zccache_proto::endpoint::Endpoint;
use zccache_proto::frame;
use zccache_proto::handshake::{Hello, MismatchReason, Welcome};
use zccache_proto::message::{Compile, Exit, Finished, OutputStream, Reply, Request, StreamKind};

/// "Within 1 s", and what a loaded machine adds.
const FALLBACK_AT_MOST: Duration = Duration::from_secs(5);

const WRAPPER: &str = env!("CARGO_BIN_EXE_zccache");

struct Fixture {
    temp: tempfile::TempDir,
    endpoint: Endpoint,
}

impl Fixture {
    fn new() -> Self {
        // Where the wrapper was built: hard links to it work there.
        let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let endpoint = Endpoint::in_directory(temp.path().join("run"));
        endpoint.prepare().unwrap();
        std::fs::create_dir(temp.path().join("bin")).unwrap();
        let fixture = Self { temp, endpoint };
        std::fs::hard_link(WRAPPER, fixture.path("bin/zccache")).unwrap();
        fixture.script("tools/cc", "echo out of the tool; echo err of the tool >&2; exit 5");
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn script(&self, name: &str, body: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// The wrapper, without a service of its own accord.
    fn wrapper(&self, args: &[&str]) -> Command {
        self.program(&self.path("bin/zccache"), args)
    }

    fn program(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:/usr/bin:/bin", self.path("tools").display());
        command.args(args).env_clear().env("PATH", path).env("ZCCACHE_NO_SPAWN", "1");
        command.env("ZCCACHE_RUNTIME_DIR", self.endpoint.directory()).stdin(Stdio::null());
        command
    }

    /// Listens, and treats the first client as told.
    fn serve<T: Send + 'static>(
        &self,
        treat: impl FnOnce(UnixStream) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let listener = UnixListener::bind(self.endpoint.socket()).unwrap();
        std::thread::spawn(move || treat(listener.accept().unwrap().0))
    }

    /// Greets the first client, takes its request, and then does as told.
    fn answer<T: Send + 'static>(
        &self,
        then: impl FnOnce(&mut UnixStream, Compile) -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.serve(|mut stream| {
            assert_eq!(receive::<Hello>(&mut stream), Hello::ours());
            let Request::Compile(compile) = receive(&mut stream) else { panic!("a compile") };
            send(&mut stream, &Welcome::Accepted { build: "test".into(), pid: std::process::id() });
            then(&mut stream, *compile)
        })
    }

    fn fallbacks(&self) -> u64 {
        self.endpoint.fallbacks().metadata().map_or(0, |m| m.len())
    }
}

fn send<T: serde::Serialize>(stream: &mut UnixStream, message: &T) {
    stream.write_all(&frame::encode(message).unwrap()).unwrap();
}

fn receive<T: serde::de::DeserializeOwned>(stream: &mut UnixStream) -> T {
    let mut header = [0; frame::HEADER_BYTES];
    stream.read_exact(&mut header).unwrap();
    let mut body = vec![0; u32::from_le_bytes(header) as usize];
    stream.read_exact(&mut body).unwrap();
    frame::decode(&body).unwrap()
}

fn finished(exit: Exit, stdout: &str, stderr: &str) -> Reply {
    let bytes = |text: &str| serde_bytes::ByteBuf::from(text.as_bytes());
    Reply::Finished(Finished { exit, stdout: bytes(stdout), stderr: bytes(stderr) })
}

fn output(stream: OutputStream, text: &str) -> Reply {
    Reply::Output { stream, bytes: text.as_bytes().to_vec() }
}

/// Runs it, and insists on an end within bounds.
fn run(mut command: Command) -> Output {
    let begun = Instant::now();
    let output = command.output().unwrap();
    assert!(begun.elapsed() < FALLBACK_AT_MOST, "{:?}", begun.elapsed());
    output
}

/// The tool's own result, and nothing else.
fn assert_is_the_tools(output: &Output) {
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out of the tool\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "err of the tool\n");
    assert_eq!(output.status.code(), Some(5));
}

#[test]
fn the_request_tells_all_that_the_tool_could() {
    let fixture = Fixture::new();
    let service = fixture.answer(|stream, compile| {
        send(stream, &Reply::PassThrough { reason: "test".into() });
        compile
    });
    let mut command = fixture.wrapper(&["cc", "-c", "a b.c"]);
    command.current_dir(fixture.path("tools")).env("ODD", "a=b").env("ZCCACHE_RECACHE", "1");
    let out = std::fs::File::create(fixture.path("out")).unwrap();
    command.stdout(out.try_clone().unwrap()).stderr(out);
    assert_eq!(command.status().unwrap().code(), Some(5));
    let compile = service.join().unwrap();
    let tool = fixture.path("tools/cc");
    assert_eq!(compile.tool, tool.as_os_str().as_encoded_bytes());
    assert_eq!(compile.argv.iter().collect::<Vec<_>>(), [&b"cc"[..], b"-c", b"a b.c"]);
    assert_eq!(compile.cwd, fixture.path("tools").canonicalize().unwrap().as_os_str().as_encoded_bytes());
    assert_eq!(compile.env.value_of(b"ODD"), Some(&b"a=b"[..]));
    assert!(compile.recache && compile.stdio.merged);
    assert_eq!(compile.stdio.stdin, StreamKind::Null);
    assert_eq!((compile.stdio.stdout, compile.stdio.stderr), (StreamKind::File, StreamKind::File));
    assert_eq!(compile.descriptors, [0]);
    assert_eq!(compile.umask, own_umask());
}

/// Ours, only looked at: to set it, were it for a moment, would be to set it for the tests beside this one.
fn own_umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:")).unwrap();
    u32::from_str_radix(line.trim(), 8).unwrap()
}

#[test]
fn passing_through_runs_the_tool_in_our_place_with_what_we_were_given() {
    let fixture = Fixture::new();
    fixture.script("tools/show", r#"echo "$$|$0|$*|$(umask)"; env | grep -v ^_ | sort"#);
    let service = fixture.answer(|stream, _| send(stream, &Reply::PassThrough { reason: "test".into() }));
    let mut command = fixture.wrapper(&["show", "x", "y z"]);
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    let pid = child.id();
    let through = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    service.join().unwrap();
    let bare = run(fixture.program(&fixture.path("tools/show"), &["x", "y z"])).stdout;
    let bare = String::from_utf8(bare).unwrap();
    assert_eq!(through.split_once('|').unwrap().1, bare.split_once('|').unwrap().1);
    assert_eq!(through.split_once('|').unwrap().0, pid.to_string());
    assert_eq!(fixture.fallbacks(), 0);
}

#[test]
fn a_served_result_is_replayed_with_its_status() {
    for code in [0, 1, 255] {
        let fixture = Fixture::new();
        let service =
            fixture.answer(move |s, _| send(s, &finished(Exit::Code(code), "served\n", "warned\n")));
        let output = run(fixture.wrapper(&["cc"]));
        service.join().unwrap();
        assert_eq!(output.status.code(), Some(code));
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"served\n"[..], &b"warned\n"[..]));
        assert_eq!(fixture.fallbacks(), 0);
    }
}

#[test]
fn a_tool_that_died_by_a_signal_has_us_die_by_it() {
    for signal in [libc::SIGSEGV, libc::SIGKILL, libc::SIGPIPE, libc::SIGTERM] {
        let fixture = Fixture::new();
        let service = fixture.answer(move |s, _| send(s, &finished(Exit::Signal(signal), "", "")));
        let output = run(fixture.wrapper(&["cc"]));
        service.join().unwrap();
        assert_eq!(output.status.signal(), Some(signal));
        assert!(!output.status.core_dumped());
    }
}

#[test]
fn output_is_passed_on_as_it_comes_and_heartbeats_keep_us_waiting() {
    let fixture = Fixture::new();
    let service = fixture.answer(|stream, _| {
        send(stream, &Reply::Started { pid: u32::MAX });
        // Longer than the longest silence, in all.
        for n in 0..8 {
            std::thread::sleep(Duration::from_millis(200));
            send(stream, &Reply::Heartbeat);
            send(stream, &output(OutputStream::Stdout, &format!("{n}")));
        }
        send(stream, &output(OutputStream::Stderr, "e"));
        send(stream, &finished(Exit::Code(0), "8", "f"));
    });
    let output = run(fixture.wrapper(&["cc"]));
    service.join().unwrap();
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"012345678"[..], &b"ef"[..]));
    assert_eq!((output.status.code(), fixture.fallbacks()), (Some(0), 0));
}

#[test]
fn whatever_the_service_does_wrong_the_tool_runs() {
    type Treat = fn(UnixStream);
    fn greeted(mut stream: UnixStream) -> UnixStream {
        send(&mut stream, &Welcome::Accepted { build: "test".into(), pid: std::process::id() });
        stream
    }
    fn until_closed(mut stream: UnixStream) {
        let _ = stream.read_to_end(&mut Vec::new());
    }
    let cases: [(&str, Treat); 12] = [
        ("closes at once", drop),
        ("says nothing", until_closed),
        ("says nothing after greeting", |s| until_closed(greeted(s))),
        ("closes after greeting", |s| drop(greeted(s))),
        ("sends garbage", |mut s| {
            s.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
            until_closed(s);
        }),
        ("sends an unknown message", |s| {
            let mut s = greeted(s);
            s.write_all(b"\x03\0\0\0\xa2hi").unwrap();
            until_closed(s);
        }),
        ("sends an over-long frame", |s| {
            let mut s = greeted(s);
            s.write_all(&[0xff; 4]).unwrap();
            until_closed(s);
        }),
        ("closes within a frame", |s| greeted(s).write_all(b"\x09\0\0\0\x81").unwrap()),
        ("answers another question", |s| {
            let mut s = greeted(s);
            send(&mut s, &Reply::Pong { nonce: 1 });
            until_closed(s);
        }),
        ("refuses", |s| {
            let mut s = greeted(s);
            send(&mut s, &Reply::Refused { reason: "test".into() });
            until_closed(s);
        }),
        ("is another process than it says", |mut s| {
            send(&mut s, &Welcome::Accepted { build: "test".into(), pid: 1 });
            until_closed(s);
        }),
        ("is of another version", |mut s| {
            let reason = MismatchReason::ClientNewer;
            send(&mut s, &Welcome::Mismatch { reason, protocol: 0, build: "old".into() });
            until_closed(s);
        }),
    ];
    for (what, treat) in cases {
        let fixture = Fixture::new();
        let service = fixture.serve(treat);
        let output = run(fixture.wrapper(&["cc"]));
        service.join().unwrap();
        println!("{what}");
        assert_is_the_tools(&output);
        assert_eq!(fixture.fallbacks(), 1, "{what}");
    }
}

#[test]
fn without_a_service_the_tool_runs_at_once() {
    let fixture = Fixture::new();
    assert_is_the_tools(&run(fixture.wrapper(&["cc"])));
    assert_eq!(fixture.fallbacks(), 1);
    let mut nowhere = fixture.wrapper(&["cc"]);
    nowhere.env("ZCCACHE_RUNTIME_DIR", fixture.path("nowhere"));
    assert_is_the_tools(&run(nowhere));
}

#[test]
fn a_backlog_that_nobody_takes_from_holds_nothing_up() {
    let fixture = Fixture::new();
    let _deaf = UnixListener::bind(fixture.endpoint.socket()).unwrap();
    assert_is_the_tools(&run(fixture.wrapper(&["cc"])));
}

/// A process group of its own, as the service would have started it.
fn started_tool() -> std::process::Child {
    Command::new("sleep").arg("1000").process_group(0).spawn().unwrap()
}

#[test]
fn a_service_that_dies_after_starting_the_tool_leaves_no_second_writer() {
    let fixture = Fixture::new();
    let mut started = started_tool();
    let pid = started.id();
    let service = fixture.answer(move |stream, _| send(stream, &Reply::Started { pid }));
    // Reaps, as init would.
    let reaper = std::thread::spawn(move || started.wait().unwrap());
    let output = run(fixture.wrapper(&["cc"]));
    service.join().unwrap();
    assert_eq!(reaper.join().unwrap().signal(), Some(libc::SIGKILL));
    assert_is_the_tools(&output);
    assert_eq!(fixture.fallbacks(), 1);
}

#[test]
fn a_service_that_hangs_after_starting_the_tool_is_given_up() {
    let fixture = Fixture::new();
    let mut started = started_tool();
    let pid = started.id();
    let service = fixture.answer(move |stream, _| {
        send(stream, &Reply::Started { pid });
        let _ = stream.read_to_end(&mut Vec::new());
    });
    // Nobody reaps the dead tool here, as when the service hangs.
    let output = run(fixture.wrapper(&["cc"]));
    service.join().unwrap();
    assert_eq!(started.wait().unwrap().signal(), Some(libc::SIGKILL));
    assert_is_the_tools(&output);
}

#[test]
fn output_that_was_shown_is_not_shown_again() {
    for (shown_out, shown_err) in [("out of", ""), ("out of the tool\n", "err"), ("", "err of the tool\n")] {
        let fixture = Fixture::new();
        let service = fixture.answer(move |stream, _| {
            send(stream, &Reply::Started { pid: u32::MAX });
            send(stream, &output(OutputStream::Stdout, shown_out));
            send(stream, &output(OutputStream::Stderr, shown_err));
        });
        assert_is_the_tools(&run(fixture.wrapper(&["cc"])));
        service.join().unwrap();
    }
}

#[test]
fn merged_output_keeps_its_order_when_shown_in_part() {
    let fixture = Fixture::new();
    fixture.script(
        "tools/both",
        "echo 1; echo 2 >&2; echo 3; echo 4 >&2; sleep 30 & echo $! >pid; kill -TERM $$",
    );
    let service = fixture.answer(|stream, compile| {
        assert!(compile.stdio.merged);
        send(stream, &output(OutputStream::Stdout, "1\n2\n"));
    });
    let file = std::fs::File::create(fixture.path("out")).unwrap();
    let mut command = fixture.wrapper(&["both"]);
    command.current_dir(fixture.temp.path());
    command.stdout(file.try_clone().unwrap()).stderr(file);
    let begun = Instant::now();
    let status = command.status().unwrap();
    service.join().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGTERM));
    assert_eq!(std::fs::read_to_string(fixture.path("out")).unwrap(), "1\n2\n3\n4\n");
    assert!(begun.elapsed() < FALLBACK_AT_MOST, "a descendant of the tool was waited for");
    let descendant = std::fs::read_to_string(fixture.path("pid")).unwrap().trim().parse().unwrap();
    let descendant = rustix::process::Pid::from_raw(descendant).unwrap();
    rustix::process::kill_process(descendant, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn standard_input_is_put_back_for_the_second_run() {
    let fixture = Fixture::new();
    fixture.script("tools/eat", "cat");
    let path = fixture.path("in");
    std::fs::write(&path, "0123456789").unwrap();
    let mut input = std::fs::File::open(&path).unwrap();
    input.read_exact(&mut [0; 2]).unwrap();
    let mut eaten = input.try_clone().unwrap();
    let service = fixture.answer(move |_, _| {
        eaten.read_to_end(&mut Vec::new()).unwrap();
    });
    let mut command = fixture.wrapper(&["eat"]);
    command.stdin(input);
    assert_eq!(run(command).stdout, b"23456789");
    service.join().unwrap();
}

#[test]
fn a_link_named_like_a_tool_runs_that_tool_under_its_real_path() {
    let fixture = Fixture::new();
    fixture.script("tools/show", r#"echo "$0|$*""#);
    let link = fixture.path("bin/show");
    std::os::unix::fs::symlink("zccache", &link).unwrap();
    let path = format!("{}:{}:/usr/bin:/bin", fixture.path("bin").display(), fixture.path("tools").display());
    let expected = format!("{}|-c x\n", fixture.path("tools/show").display());
    for mut command in [
        fixture.program(&link, &["-c", "x"]),
        fixture.wrapper(&[link.to_str().unwrap(), "-c", "x"]),
        fixture.wrapper(&["zccache", "show", "-c", "x"]),
    ] {
        command.env("PATH", &path);
        assert_eq!(String::from_utf8(run(command).stdout).unwrap(), expected);
    }
    let bin_only = fixture.path("bin");
    let mut command = fixture.program(&link, &[]);
    command.env("PATH", &bin_only);
    let output = run(command);
    assert_eq!(output.status.code(), Some(127));
    assert_eq!(output.stderr, b"zccache: show: command not found\n");
}

#[test]
fn what_cannot_be_run_ends_as_in_a_shell() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path("tools/plain"), "").unwrap();
    let check = |args: &[&str], status, message: &str| {
        let output = run(fixture.wrapper(args));
        assert_eq!(
            (output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()),
            (Some(status), message)
        );
    };
    check(&["no-such-tool"], 127, "zccache: no-such-tool: command not found\n");
    check(&["plain"], 126, "zccache: plain: Permission denied\n");
    check(&["./no-such-tool"], 127, "zccache: ./no-such-tool: No such file or directory\n");
    check(&["/dev/null"], 126, "zccache: /dev/null: Permission denied\n");
}

#[test]
fn our_own_options_are_few() {
    let fixture = Fixture::new();
    let version = run(fixture.wrapper(&["--version"]));
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        concat!("zccache ", env!("CARGO_PKG_VERSION"), "\n")
    );
    for (args, status) in [(&["--help"][..], 0), (&[], 2)] {
        let output = run(fixture.wrapper(args));
        assert_eq!(output.status.code(), Some(status));
        assert!(output.stdout.starts_with(b"Usage: zccache TOOL"));
    }
}

#[test]
fn disabled_it_only_runs_the_tool() {
    let fixture = Fixture::new();
    let listener = UnixListener::bind(fixture.endpoint.socket()).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut command = fixture.wrapper(&["cc"]);
    command.env("ZCCACHE_DISABLE", "1");
    assert_is_the_tools(&run(command));
    assert!(listener.accept().is_err(), "nobody was to connect");
    assert_eq!(fixture.fallbacks(), 0);
}

/// Fifty wrappers at once, and a service that takes its time to come up.
#[test]
fn one_of_many_wrappers_starts_the_service() {
    const WRAPPERS: usize = 50;
    let fixture = Fixture::new();
    let log = fixture.path("started");
    let body = format!("ls -l /proc/$$/fd >{0}.fds; echo \"$*\" >>{0}", log.display());
    fixture.script("bin/zccache-service", &body);
    let children: Vec<_> = (0..WRAPPERS)
        .map(|_| {
            let mut command = fixture.wrapper(&["cc"]);
            command.env_remove("ZCCACHE_NO_SPAWN").stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    let begun = Instant::now();
    while !log.exists() && begun.elapsed() < FALLBACK_AT_MOST {
        std::thread::sleep(Duration::from_millis(1));
    }
    let listener = UnixListener::bind(fixture.endpoint.socket()).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    listener.set_nonblocking(true).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let Ok((mut stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                stream
                    .write_all(
                        &frame::encode(&Welcome::Accepted { build: "t".into(), pid: std::process::id() })
                            .unwrap(),
                    )
                    .unwrap();
                let _ = stream.write_all(&frame::encode(&finished(Exit::Code(7), "", "")).unwrap());
                // Closing with the request unread would take the answer away again.
                let _ = stream.read(&mut [0; 65536]);
            }
        });
        for child in children {
            let output = child.wait_with_output().unwrap();
            // Served, or (on a machine that took over a second) run.
            assert!(matches!(output.status.code(), Some(7 | 5)), "{output:?}");
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "--daemon\n", "started once");
    let held = std::fs::read_to_string(fixture.path("started.fds")).unwrap();
    assert_eq!(held.matches("/dev/null").count(), 3, "{held}");
    assert!(!held.contains("pipe:") && !held.contains("socket:") && !held.contains(".lock"), "{held}");
}

#[test]
fn a_service_that_cannot_start_is_not_tried_again_at_once() {
    let fixture = Fixture::new();
    let log = fixture.path("started");
    fixture.script("bin/zccache-service", &format!("echo x >>{}; exit 1", log.display()));
    let begun = Instant::now();
    for _ in 0..5 {
        let mut command = fixture.wrapper(&["cc"]);
        command.env_remove("ZCCACHE_NO_SPAWN");
        assert_is_the_tools(&run(command));
    }
    if begun.elapsed() < Duration::from_secs(4) {
        assert_eq!(log.metadata().unwrap().size(), 2, "tried once");
    }
    assert_eq!(fixture.fallbacks(), 5);
}

#[test]
fn without_the_services_program_nothing_is_waited_for() {
    let fixture = Fixture::new();
    let mut command = fixture.wrapper(&["cc"]);
    command.env_remove("ZCCACHE_NO_SPAWN");
    assert_is_the_tools(&run(command));
}

#[test]
fn a_closed_stream_is_the_tools_own_business() {
    let fixture = Fixture::new();
    fixture.script("tools/show", "ls -l /proc/$$/fd >show.txt");
    let path = fixture.path("bin/zccache");
    let mut shell = fixture.program(Path::new("/bin/sh"), &["-c", &format!("{} show >&-", path.display())]);
    shell.current_dir(fixture.temp.path());
    run(shell);
    let listing = std::fs::read_to_string(fixture.path("show.txt")).unwrap();
    assert!(!listing.contains("socket:"), "{listing}");
}

#[test]
fn it_is_static_and_small() {
    let bytes = std::fs::read(WRAPPER).unwrap();
    assert_eq!(&bytes[..5], b"\x7fELF\x02");
    let number =
        |at: usize, size: usize| bytes[at..at + size].iter().rev().fold(0, |n, b| n << 8 | usize::from(*b));
    let (table, entry, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
    /// The program header that names a dynamic linker.
    const PT_INTERP: usize = 3;
    assert!((0..count).all(|n| number(table + n * entry, 4) != PT_INTERP), "statically linked");
    if !cfg!(debug_assertions) {
        assert!(bytes.len() <= 2 * 1024 * 1024, "{} bytes", bytes.len());
    }
}

/// A service that comes up, makes itself a daemon and dies: nothing to be seen but that nobody answers.
#[test]
fn a_service_that_dies_after_its_start_is_waited_for_once() {
    let fixture = Fixture::new();
    let log = fixture.path("started");
    fixture.script("bin/zccache-service", &format!("echo x >>{}", log.display()));
    let mut times = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let mut command = fixture.wrapper(&["cc"]);
        command.env_remove("ZCCACHE_NO_SPAWN");
        assert_is_the_tools(&run(command));
        times.push(begun.elapsed());
    }
    assert_eq!(log.metadata().unwrap().size(), 2, "tried once");
    assert!(times[2] < times[0] / 2, "{times:?}");
}

#[test]
fn a_service_that_is_leaving_is_waited_for_and_then_another_is_taken() {
    let fixture = Fixture::new();
    let listener = UnixListener::bind(fixture.endpoint.socket()).unwrap();
    fixture.script("bin/zccache-service", "exit 4");
    let service = std::thread::spawn(move || {
        for round in 0..4 {
            let mut stream = listener.accept().unwrap().0;
            if round < 3 {
                let reason = MismatchReason::ShuttingDown;
                let _ = stream.write_all(
                    &frame::encode(&Welcome::Mismatch { reason, protocol: 1, build: "t".into() }).unwrap(),
                );
                continue;
            }
            let _: Hello = receive(&mut stream);
            let _: Request = receive(&mut stream);
            send(&mut stream, &Welcome::Accepted { build: "t".into(), pid: std::process::id() });
            send(&mut stream, &finished(Exit::Code(9), "", ""));
        }
    });
    let mut command = fixture.wrapper(&["cc"]);
    command.env_remove("ZCCACHE_NO_SPAWN");
    assert_eq!(run(command).status.code(), Some(9));
    service.join().unwrap();
}

#[test]
fn being_stopped_for_a_while_is_not_taken_for_the_services_silence() {
    let fixture = Fixture::new();
    let (tell, told) = std::sync::mpsc::channel();
    let service = fixture.answer(move |stream, _| {
        tell.send(()).unwrap();
        for _ in 0..15 {
            std::thread::sleep(Duration::from_millis(100));
            send(stream, &Reply::Heartbeat);
        }
        send(stream, &finished(Exit::Code(0), "served", ""));
    });
    let child = fixture.wrapper(&["cc"]).stdout(Stdio::piped()).spawn().unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    told.recv().unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    std::thread::sleep(Duration::from_millis(1300));
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    let output = child.wait_with_output().unwrap();
    service.join().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"served"[..]));
    assert_eq!(fixture.fallbacks(), 0);
}

#[test]
fn a_slow_reader_of_much_output_loses_nothing() {
    const CHUNKS: usize = 64;
    let fixture = Fixture::new();
    let chunk = "0123456789abcdef".repeat(4096);
    let service = fixture.answer(move |stream, _| {
        for _ in 0..CHUNKS {
            send(stream, &output(OutputStream::Stdout, &chunk));
        }
        send(stream, &finished(Exit::Code(0), "end", ""));
    });
    let mut child = fixture.wrapper(&["cc"]).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let mut all = String::new();
    child.stdout.take().unwrap().read_to_string(&mut all).unwrap();
    service.join().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!((all.len(), all.ends_with("end")), (CHUNKS * 65536 + 3, true));
    assert_eq!(fixture.fallbacks(), 0);
}

#[test]
fn a_job_servers_descriptors_travel_if_they_are_open() {
    let fixture = Fixture::new();
    let service = fixture.answer(|stream, compile| {
        send(stream, &finished(Exit::Code(0), "", ""));
        compile.descriptors
    });
    let wrapper = fixture.path("bin/zccache");
    let line = format!("exec 7</dev/null 8</dev/null 5<&-; {} cc", wrapper.display());
    let mut shell = fixture.program(Path::new("/bin/sh"), &["-c", &line]);
    shell.env("MAKEFLAGS", " -j2 --jobserver-auth=7,8").env("CARGO_MAKEFLAGS", "-j --jobserver-fds=5,6");
    assert!(run(shell).status.success());
    assert_eq!(service.join().unwrap(), [0, 7, 8]);
}

#[test]
fn output_to_nobody_ends_as_the_tool_would() {
    let fixture = Fixture::new();
    let (reader, writer) = std::io::pipe().unwrap();
    let service = fixture.answer(|stream, _| {
        // Not before: where nobody reads from the start, the tool is left alone.
        drop(reader);
        send(stream, &finished(Exit::Code(0), "served", ""));
    });
    let mut command = fixture.wrapper(&["cc"]);
    command.stdout(writer);
    let status = command.status().unwrap();
    service.join().unwrap();
    assert_eq!(status.signal(), Some(libc::SIGPIPE));
}

/// A service that does not make itself a daemon, and answers all the same.
#[test]
fn the_process_that_was_started_is_not_waited_for_once_the_service_answers() {
    let fixture = Fixture::new();
    let started = fixture.path("started");
    fixture.script(
        "bin/zccache-service",
        &format!("echo $$ >{0}.new; mv {0}.new {0}; exec sleep 1000", started.display()),
    );
    let mut command = fixture.wrapper(&["cc"]);
    command.env_remove("ZCCACHE_NO_SPAWN").stdout(Stdio::piped()).stderr(Stdio::piped());
    let wrapper = command.spawn().unwrap();
    let begun = Instant::now();
    while !started.exists() && begun.elapsed() < FALLBACK_AT_MOST {
        std::thread::sleep(Duration::from_millis(1));
    }
    let service = fixture.answer(|stream, _| send(stream, &finished(Exit::Code(9), "", "")));
    let output = wrapper.wait_with_output().unwrap();
    let took = begun.elapsed();
    let pid = std::fs::read_to_string(&started).unwrap().trim().parse().unwrap();
    // Not before the wrapper has gone: until then there was something to be waited for.
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(pid).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    assert!(took < FALLBACK_AT_MOST, "{took:?}");
    assert_eq!(output.status.code(), Some(9));
    service.join().unwrap();
}
