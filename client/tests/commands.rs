//! `zccache-client` as it is built: what it prints, what it waits for, and the exit statuses that scripts rely on.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use zccache_proto::endpoint::Endpoint;
use zccache_proto::frame;
use zccache_proto::handshake::{Hello, MismatchReason, Welcome};
use zccache_proto::message::{Reply, Request};
use zccache_proto::report::{ServiceReport, StatsReport, StatusReport};

struct Fixture {
    temp: tempfile::TempDir,
    endpoint: Endpoint,
}

impl Fixture {
    fn new() -> Self {
        let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let endpoint = Endpoint::in_directory(temp.path().join("run"));
        endpoint.prepare().unwrap();
        std::fs::hard_link(env!("CARGO_BIN_EXE_zccache-client"), temp.path().join("zccache-client")).unwrap();
        Self { temp, endpoint }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn client(&self, args: &[&str]) -> Command {
        let mut command = Command::new(self.path("zccache-client"));
        command.args(args).env_clear().env("PATH", "/usr/bin:/bin");
        command.env("ZCCACHE_RUNTIME_DIR", self.endpoint.directory());
        command
    }

    fn check(&self, args: &[&str], status: i32, stdout: &str, stderr: &str) {
        let output = self.client(args).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{args:?}: {out}{err}");
        assert!(out.contains(stdout) && out.is_empty() == stdout.is_empty(), "{args:?}: {out:?}");
        assert!(err.contains(stderr) && err.is_empty() == stderr.is_empty(), "{args:?}: {err:?}");
    }

    fn service_program(&self, body: &str) {
        let path = self.path("zccache-service");
        std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }

    /// Answers every client's one request, for as long as the test's process lives.
    fn serve(&self, answer: impl Fn(Request) -> Option<Reply> + Send + 'static) {
        let listener = UnixListener::bind(self.endpoint.socket()).unwrap();
        std::thread::spawn(move || {
            loop {
                let mut stream = listener.accept().unwrap().0;
                let _: Option<Hello> = receive(&mut stream);
                send(&mut stream, &Welcome::Accepted { build: "test".into(), pid: std::process::id() });
                if let Some(reply) = receive(&mut stream).and_then(&answer) {
                    send(&mut stream, &reply);
                } else {
                    // Says nothing, until the client goes.
                    let _ = stream.read(&mut [0]);
                }
            }
        });
    }
}

fn send<T: serde::Serialize>(stream: &mut UnixStream, message: &T) {
    let _ = stream.write_all(&frame::encode(message).unwrap());
}

fn receive<T: serde::de::DeserializeOwned>(stream: &mut UnixStream) -> Option<T> {
    let mut header = [0; frame::HEADER_BYTES];
    stream.read_exact(&mut header).ok()?;
    let mut body = vec![0; u32::from_le_bytes(header) as usize];
    stream.read_exact(&mut body).ok()?;
    frame::decode(&body).ok()
}

fn service() -> ServiceReport {
    ServiceReport { version: "9.9.9".into(), protocol: 1, pid: 77, uptime_s: 61, rss_bytes: 3 << 20 }
}

fn reports(request: Request) -> Option<Reply> {
    Some(match request {
        Request::Stats { zero } => Reply::Stats(Box::new(StatsReport {
            requests: 4,
            hits: if zero { 2 } else { 3 },
            misses: 1,
            service: service(),
            ..StatsReport::default()
        })),
        Request::Status => {
            let state = "serving".into();
            Reply::Status(Box::new(StatusReport { state, service: service(), ..StatusReport::default() }))
        }
        Request::Clear => Reply::Cleared { records: 5, blobs: 6 },
        Request::Gc => Reply::Evicted { records: 7, blobs: 8, bytes: 9 },
        Request::Evict(which) => {
            // All that came, told back.
            let roots = which.roots.iter().map(|root| root.len() as u64).sum();
            Reply::Evicted {
                records: which.older_than_s.unwrap_or(0),
                blobs: which.roots.len() as u64,
                bytes: roots,
            }
        }
        Request::Shutdown => Reply::ShuttingDown { running: 0 },
        _ => return None,
    })
}

#[test]
fn without_a_service_each_command_says_so_and_starts_none() {
    let fixture = Fixture::new();
    fixture.service_program("touch started");
    for args in [&["status"][..], &["stats"], &["stats", "--json"], &["stats", "--zero"], &["clear"]] {
        fixture.check(args, 3, "", "no service is running");
    }
    fixture.check(&["stop"], 0, "not running", "");
    // A socket that nobody listens at any more is the same.
    drop(UnixListener::bind(fixture.endpoint.socket()).unwrap());
    fixture.check(&["status"], 3, "", "no service is running");
    assert!(!fixture.path("started").exists());
}

#[test]
fn a_command_that_is_none_is_a_usage_error() {
    let fixture = Fixture::new();
    for args in [&["strat"][..], &["stats", "--jsn"], &[]] {
        fixture.check(args, 2, "", "Usage: zccache-client");
    }
    fixture.check(&["--version"], 0, concat!("zccache-client ", env!("CARGO_PKG_VERSION")), "");
}

#[test]
fn reports_are_for_people_or_for_scripts() {
    let fixture = Fixture::new();
    fixture.serve(reports);
    fixture.check(&["stats"], 0, "75.0 %", "");
    fixture.check(&["stats", "--zero"], 0, "66.7 %", "");
    fixture.check(&["status"], 0, "1 min 1 s", "");
    fixture.check(&["clear"], 0, "forgot 5 results, deleted 6 files", "");
    fixture.check(&["start"], 0, "already running: process 77", "");
    let stats: serde_json::Value =
        serde_json::from_slice(&fixture.client(&["stats", "--json"]).output().unwrap().stdout).unwrap();
    let promised = [
        ("", "requests hits misses passed_through fallbacks_reported stored not_stored pass_through_reasons"),
        ("", "degraded store service"),
        ("/store", "blobs records bytes limit_bytes"),
        ("/service", "version protocol pid uptime_s rss_bytes"),
    ];
    for (at, names) in promised {
        for name in names.split(' ') {
            assert!(stats.pointer(at).unwrap().get(name).is_some(), "{at}/{name} in {stats}");
        }
    }
    let status: serde_json::Value =
        serde_json::from_slice(&fixture.client(&["status", "--json"]).output().unwrap().stdout).unwrap();
    assert_eq!(status.pointer("/service/pid").unwrap(), 77);
}

#[test]
fn what_the_service_cannot_do_is_told_in_its_words() {
    let fixture = Fixture::new();
    fixture.serve(|_| Some(Reply::Failed { message: "the index is broken; remove it".into() }));
    fixture.check(&["clear"], 1, "", "the index is broken; remove it");
}

#[test]
fn a_service_that_does_not_answer_is_told_from_none() {
    let fixture = Fixture::new();
    fixture.serve(|_| None);
    std::fs::write(fixture.endpoint.pid_file(), "77\n").unwrap();
    fixture.check(&["status"], 1, "", "the service (process 77) does not answer within 5 s");
}

#[test]
fn a_mismatch_names_the_older_side() {
    let fixture = Fixture::new();
    let listener = UnixListener::bind(fixture.endpoint.socket()).unwrap();
    std::thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        let reason = MismatchReason::ClientOlder;
        send(&mut stream, &Welcome::Mismatch { reason, protocol: 2, build: "2.0".into() });
        let _ = stream.read_to_end(&mut Vec::new());
    });
    fixture.check(&["status"], 1, "", "the client is older than the service (service 2.0");
}

#[test]
fn stop_returns_when_the_lock_is_free() {
    let fixture = Fixture::new();
    let lock = File::create(fixture.endpoint.service_lock()).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    fixture.serve(reports);
    let takes = Duration::from_millis(300);
    let begun = Instant::now();
    let holder = std::thread::spawn(move || {
        std::thread::sleep(takes);
        drop(lock);
    });
    fixture.check(&["stop"], 0, "stopped", "");
    assert!(begun.elapsed() >= takes);
    holder.join().unwrap();
}

#[test]
fn stop_tells_what_it_waits_for() {
    let fixture = Fixture::new();
    let lock = File::create(fixture.endpoint.service_lock()).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    fixture.serve(|_| Some(Reply::ShuttingDown { running: 3 }));
    let mut stop = fixture.client(&["stop"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    BufReader::new(stop.stderr.take().unwrap()).read_line(&mut told).unwrap();
    assert_eq!(told, "waiting for the service to finish (3 running)…\n");
    drop(lock);
    assert!(stop.wait().unwrap().success());
}

#[test]
fn stop_returns_when_the_process_is_gone_and_not_with_its_lock() {
    // Somebody who takes a while to leave after the lock was let go of, and somebody who does not leave at all. Neither
    // is reaped by anybody, which makes no difference.
    for (seconds, at_least, at_most) in [("0.5", 300, 1900), ("60", 2000, 10_000)] {
        let fixture = Fixture::new();
        let lock = File::create(fixture.endpoint.service_lock()).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        let mut leaving = std::process::Command::new("sleep").arg(seconds).spawn().unwrap();
        std::fs::write(fixture.endpoint.pid_file(), format!("{}\n", leaving.id())).unwrap();
        fixture.serve(reports);
        drop(lock);
        let begun = std::time::Instant::now();
        fixture.check(&["stop"], 0, "stopped", "");
        let took = begun.elapsed().as_millis();
        assert!((at_least..at_most).contains(&took), "{seconds} s: stopped after {took} ms");
        leaving.kill().unwrap();
        leaving.wait().unwrap();
    }
}

#[test]
fn stop_asks_a_service_that_has_just_come_as_soon_as_it_listens() {
    for has_pid_file in [true, false] {
        let fixture = Fixture::new();
        let lock = File::create(fixture.endpoint.service_lock()).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        if has_pid_file {
            std::fs::write(fixture.endpoint.pid_file(), "1000000000\n").unwrap();
        }
        std::thread::scope(|scope| {
            let stopped = scope.spawn(|| fixture.check(&["stop"], 0, "stopped", ""));
            std::thread::sleep(std::time::Duration::from_millis(300));
            // Written before it listens, as a service does.
            std::fs::write(fixture.endpoint.pid_file(), "1000000000\n").unwrap();
            let lock = std::sync::Mutex::new(Some(lock));
            fixture.serve(move |request| {
                if matches!(request, Request::Shutdown) {
                    lock.lock().unwrap().take();
                }
                reports(request)
            });
            stopped.join().unwrap();
        });
    }
}

#[test]
fn start_tells_why_it_failed() {
    let fixture = Fixture::new();
    fixture.check(&["start"], 1, "", "zccache-service is neither beside");
    fixture.service_program("echo unknown key cahce >&2; exit 1");
    fixture.check(&["start"], 1, "", "it said:\nunknown key cahce");
    let others = Endpoint::in_directory(fixture.endpoint.directory());
    std::fs::set_permissions(others.directory(), PermissionsExt::from_mode(0o777)).unwrap();
    fixture.check(&["start"], 1, "", "can be written by others");
}

#[test]
fn a_service_that_does_not_come_to_answer_is_not_waited_for_longer_than_ten_seconds() {
    let fixture = Fixture::new();
    fixture.service_program("exit 0");
    let begun = std::time::Instant::now();
    fixture.check(&["start"], 1, "", "the service does not answer within 10 s");
    assert!((10..15).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

#[test]
fn start_returns_when_the_service_answers() {
    let fixture = Fixture::new();
    fixture.service_program(r#"test "$*" = --daemon && touch "$(dirname "$0")/started""#);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !fixture.path("started").exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
            fixture.serve(reports);
        });
        fixture.check(&["start"], 0, "started: process 77", "");
    });
}

#[test]
fn the_configuration_is_shown_by_the_service() {
    let fixture = Fixture::new();
    fixture.service_program(r#"echo "asked: $*"; exit 4"#);
    fixture.check(&["config", "--json"], 4, "asked: config --json", "");
    fixture.check(&["config"], 4, "asked: config\n", "");
}

#[test]
fn a_service_that_goes_without_an_answer_has_stopped() {
    let fixture = Fixture::new();
    for (args, status, out, err) in
        [(["stop"], 0, "stopped", ""), (["clear"], 1, "", "went away without an answer")]
    {
        let listener = UnixListener::bind(fixture.endpoint.socket()).unwrap();
        let service = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let _: Option<Hello> = receive(&mut stream);
            send(&mut stream, &Welcome::Accepted { build: "test".into(), pid: std::process::id() });
            let _: Option<Request> = receive(&mut stream);
        });
        fixture.check(&args, status, out, err);
        service.join().unwrap();
        std::fs::remove_file(fixture.endpoint.socket()).unwrap();
    }
}
