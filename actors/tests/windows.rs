//! What the crate needs of Windows, on Windows (or Wine): files that are known again, results put in place, and a tool
//! that is run and ended with its whole tree.

#![cfg(windows)]
#![allow(unused_crate_dependencies)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use zccache_actors::blobs::Blobs;
use zccache_actors::delivery::stage;
use zccache_actors::digest::Digest;
use zccache_actors::file_table::FileTable;
use zccache_actors::freshness::{WorkingDirectory, listing_digest};
use zccache_actors::invocation::Invocation;
use zccache_actors::lease::Lease;
use zccache_actors::observation::Spelled;
use zccache_actors::observer::{Job, Watcher};
use zccache_actors::plan::{Caution, DeclaredInputs, Policy};
use zccache_actors::record::{Output, OutputFile};
use zccache_actors::signature::{FileKind, Signature, exists};
use zccache_actors::spelling;
use zccache_actors::sys::fs::AtFlags;
use zccache_actors::sys::{AsFd, BorrowedFd, OsStrExt, OwnedFd};
use zccache_actors::tool_run::{self, Ended};
use zccache_proto::message::{Exit, OutputStream, Stdio, StreamKind};

static POLICY: Policy = Policy {
    family: "test",
    knows_program: |_| true,
    reads_links_on_its_way_only: false,
    searches: |_| false,
    ignored_reads: &[],
    review: None,
    caution: Caution::NONE,
};

fn directory(path: &Path) -> WorkingDirectory {
    WorkingDirectory::open(path.as_os_str().as_bytes()).unwrap()
}

#[test]
fn a_file_is_known_by_what_cannot_be_put_back() {
    let temp = tempfile::tempdir().unwrap();
    let (cwd, path) = (directory(temp.path()), temp.path().join("a.h"));
    std::fs::write(&path, "one").unwrap();
    let table = FileTable::default();
    let content = || table.content(cwd.fd(), &b"a.h"[..]).unwrap();
    assert_eq!(content().digest, Digest::of(b"one"));
    while !content().settled {
        std::thread::sleep(Duration::from_millis(1));
    }
    let before = Signature::of(&path).unwrap();
    assert_eq!((before.kind(), before.size), (FileKind::File, 3));
    let written = path.metadata().unwrap().modified().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    std::fs::write(&path, "two").unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(written).unwrap();
    assert_ne!(Signature::of(&path).unwrap(), before, "the same length and time, another content");
    assert_eq!(content().digest, Digest::of(b"two"));
}

#[test]
fn paths_are_seen_from_a_directory_with_either_slash() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::create_dir(temp.path().join("sub")).unwrap();
    std::fs::write(temp.path().join("sub").join("a.h"), "x").unwrap();
    let cwd = directory(temp.path());
    let at = |path: &[u8]| Signature::at(cwd.fd(), path, AtFlags::empty());
    let one = at(b"sub/a.h").unwrap();
    assert_eq!(at(br"sub\a.h").unwrap(), one);
    assert_eq!(at(br".\sub\..\sub/a.h").unwrap(), one);
    assert_eq!(at(temp.path().join("sub").join("a.h").as_os_str().as_bytes()).unwrap(), one);
    assert_eq!(at(b"sub").unwrap().kind(), FileKind::Directory);
    for missing in [&b"sub/b.h"[..], b"none/a.h", b"sub/\xff.h", b"a?b", b"sub/a.h/b"] {
        assert!(at(missing).is_err(), "{missing:?}");
    }
    assert!(exists(&temp.path().join("sub")).unwrap());
    assert!(!exists(&temp.path().join("none").join("a.h")).unwrap());
    assert_eq!(cwd.path().unwrap(), std::path::absolute(temp.path()).unwrap().as_os_str().as_bytes());
}

#[test]
fn a_listing_changes_with_its_names() {
    let temp = tempfile::tempdir().unwrap();
    let cwd = directory(temp.path());
    let listing = || listing_digest(cwd.fd(), &b"."[..]).unwrap();
    let empty = listing();
    std::fs::write(temp.path().join("a"), "").unwrap();
    let one = listing();
    assert_ne!(one, empty);
    std::fs::remove_file(temp.path().join("a")).unwrap();
    assert_eq!(listing(), empty);
}

#[test]
fn a_result_is_put_in_place_as_a_file_of_its_own() {
    let temp = tempfile::tempdir().unwrap();
    let blobs = Blobs::new(&temp.path().join("store"));
    let cwd = Arc::new(directory(temp.path()));
    for (round, text) in [b"one".repeat(50_000), b"two".repeat(10), Vec::new()].into_iter().enumerate() {
        let pending = blobs.receive_bytes(&text).unwrap();
        blobs.commit(&pending).unwrap();
        let (digest, bytes) = (pending.digest, pending.bytes);
        let file = Some(OutputFile { digest, bytes, mode: 0o777, replaces: false });
        let outputs = [Output { path: Spelled(b"out/a.o".to_vec()), file }];
        std::fs::create_dir_all(temp.path().join("out")).unwrap();
        stage(&outputs, &blobs, &cwd).unwrap().place(&Lease::new(0)).unwrap();
        let placed = temp.path().join("out").join("a.o");
        assert_eq!(std::fs::read(&placed).unwrap(), text, "round {round}");
        // Whoever edits it reaches nothing of ours.
        std::fs::write(&placed, "edited").unwrap();
        assert!(blobs.open(outputs[0].file.as_ref().unwrap()).is_ok());
        assert_eq!(
            std::fs::read_dir(temp.path().join("out")).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }
}

/// Hears a run, and has it killed at a word.
struct Ear {
    heard: Vec<(OutputStream, Vec<u8>)>,
    alive: Option<OwnedFd>,
    cancelled: OwnedFd,
    kill_at: Option<&'static str>,
}

impl Ear {
    fn new(kill_at: Option<&'static str>) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        Self { heard: Vec::new(), alive: Some(writer.into()), cancelled: reader.into(), kill_at }
    }

    fn text(&self, stream: OutputStream) -> String {
        let parts = self.heard.iter().filter(|(of, _)| *of == stream).map(|(_, bytes)| &bytes[..]);
        String::from_utf8(parts.collect::<Vec<_>>().concat()).unwrap()
    }
}

impl Watcher for Ear {
    fn starting(&mut self, pid: u32) -> std::io::Result<()> {
        assert_ne!(pid, 0);
        Ok(())
    }

    fn output(&mut self, stream: OutputStream, bytes: &[u8]) {
        self.heard.push((stream, bytes.to_vec()));
        if self.kill_at.is_some_and(|word| self.text(OutputStream::Stdout).contains(word)) {
            self.alive = None;
        }
    }

    fn cancelled(&self) -> BorrowedFd<'_> {
        self.cancelled.as_fd()
    }
}

/// What a tool that counts says: in pieces of so many bytes, and far more of them than may wait for a listener.
const PIECE_BYTES: usize = 64 * 1024;
const PIECES: usize = 200;

/// Hears nothing for a while, and then slowly, and sees how far the tool has come.
struct Slow {
    ear: Ear,
    said: PathBuf,
    heard_bytes: usize,
    ahead_bytes_max: usize,
}

impl Watcher for Slow {
    fn starting(&mut self, pid: u32) -> std::io::Result<()> {
        self.ear.starting(pid)
    }

    fn output(&mut self, _: OutputStream, bytes: &[u8]) {
        // What waits when the tool ends takes longer than a tool's end is waited for.
        std::thread::sleep(Duration::from_millis(if self.heard_bytes == 0 { 1000 } else { 10 }));
        let said = self.said.metadata().map_or(0, |file| file.len() as usize) * PIECE_BYTES;
        self.ahead_bytes_max = self.ahead_bytes_max.max(said.saturating_sub(self.heard_bytes));
        self.heard_bytes += bytes.len();
    }

    fn cancelled(&self) -> BorrowedFd<'_> {
        self.ear.cancelled()
    }
}

/// This program as a tool: what it is to do is in its environment (see `acting_as_a_tool`).
fn run(act: &str, cwd: &Path, merged: bool, ear: &mut dyn Watcher) -> Ended {
    let tool = std::env::current_exe().unwrap();
    let argv = ["tool", "acting_as_a_tool", "--exact", "--ignored", "--nocapture", "--quiet"];
    let inherited = std::env::vars().map(|(name, value)| format!("{name}={value}"));
    let (stdout, stderr) = (StreamKind::Pipe, StreamKind::Pipe);
    let job = Job {
        invocation: Invocation {
            tool: tool.as_os_str().as_bytes().to_vec(),
            argv: argv.iter().collect(),
            cwd: cwd.as_os_str().as_bytes().to_vec(),
            env: inherited.chain([format!("ACT={act}")]).collect(),
            umask: 0,
            stdio: Stdio { stdin: StreamKind::Null, stdout, stderr, merged },
        },
        descriptors: Vec::new(),
        client_pid: None,
        policy: &POLICY,
        declared: DeclaredInputs::default(),
        outputs: Vec::new(),
        foreign_code: false,
        input_is_known: false,
    };
    tool_run::run(job, ear, None).unwrap()
}

/// No test: what this program does as a tool.
#[test]
#[ignore = "run by the others"]
#[expect(clippy::zombie_processes, reason = "leaving a process behind is what is tested")]
fn acting_as_a_tool() {
    let act = std::env::var("ACT").unwrap_or_default();
    let again = |act: &str| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["acting_as_a_tool", "--exact", "--ignored", "--nocapture", "--quiet"]).env("ACT", act);
        command
    };
    match act.as_str() {
        "speak" => {
            println!("out in {}", std::env::current_dir().unwrap().display());
            eprintln!("err");
            std::process::exit(7);
        }
        "much" => print!("{}", "x".repeat(1_000_000)),
        // A child that would leave a file behind if it lived long enough, and a wait for it.
        "tree" => {
            let mut child = again("late").spawn().unwrap();
            println!("started");
            child.wait().unwrap();
        }
        "late" => {
            std::thread::sleep(Duration::from_secs(3));
            std::fs::write("late", "").unwrap();
        }
        "leave" => {
            let mut command = again("late");
            let null = std::process::Stdio::null;
            command.stdin(null()).stdout(null()).stderr(null()).spawn().unwrap();
        }
        // The same, and it holds our output open.
        "hold" => drop(again("late").spawn().unwrap()),
        // The same, and it never stops talking.
        "chat" => {
            drop(again("talk").spawn().unwrap());
            while !Path::new("talking").exists() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        "talk" => {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(3) {
                let mut out = std::io::stdout().lock();
                out.write_all(b"y").and_then(|()| out.flush()).unwrap();
                std::fs::write("talking", "").unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
            std::fs::write("late", "").unwrap();
        }
        // Counts in a file what it has said so far.
        "count" => {
            let mut said = std::fs::File::options().append(true).create(true).open("said").unwrap();
            for _ in 0..PIECES {
                let mut out = std::io::stdout().lock();
                out.write_all(&[b'x'; PIECE_BYTES]).and_then(|()| out.flush()).unwrap();
                said.write_all(b".").unwrap();
            }
        }
        _ => {}
    }
}

#[test]
fn a_tool_has_its_directory_its_streams_and_its_status() {
    let temp = tempfile::tempdir().unwrap();
    let mut ear = Ear::new(None);
    let ended = run("speak", temp.path(), false, &mut ear);
    assert_eq!(ended, Ended { exit: Exit::Code(7), cancelled: false, left_processes: false });
    let place: PathBuf = std::path::absolute(temp.path()).unwrap();
    let out = ear.text(OutputStream::Stdout);
    assert!(out.contains(&format!("out in {}", place.display())), "{out}");
    assert!(ear.text(OutputStream::Stderr).contains("err"));
    let mut ear = Ear::new(None);
    run("speak", temp.path(), true, &mut ear);
    assert!(ear.text(OutputStream::Stdout).contains("err"), "both are one");
    assert_eq!(ear.text(OutputStream::Stderr), "");
}

#[test]
fn all_that_a_tool_says_comes() {
    let temp = tempfile::tempdir().unwrap();
    let mut ear = Ear::new(None);
    let ended = run("much", temp.path(), false, &mut ear);
    assert_eq!(ended.exit, Exit::Code(0));
    assert_eq!(ear.text(OutputStream::Stdout).matches('x').count(), 1_000_000);
}

#[test]
fn a_cancelled_tool_goes_with_its_whole_tree() {
    let temp = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let ended = run("tree", temp.path(), false, &mut Ear::new(Some("started")));
    assert!(ended.cancelled);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    std::thread::sleep(Duration::from_secs(4));
    assert!(!temp.path().join("late").exists(), "the tool's child lived on");
}

#[test]
fn what_a_tool_leaves_behind_is_told_and_lives_on() {
    let temp = tempfile::tempdir().unwrap();
    let ended = run("leave", temp.path(), false, &mut Ear::new(None));
    assert_eq!(ended, Ended { exit: Exit::Code(0), cancelled: false, left_processes: true });
    wait_for_the_late_one(temp.path());
}

fn wait_for_the_late_one(cwd: &Path) {
    let begun = Instant::now();
    while !cwd.join("late").exists() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it was killed");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_tool_whose_output_is_held_open_is_not_waited_for() {
    for act in ["hold", "chat"] {
        let temp = tempfile::tempdir().unwrap();
        let ended = run(act, temp.path(), false, &mut Ear::new(None));
        assert_eq!(ended.exit, Exit::Code(0));
        // Who holds it goes on for seconds.
        assert!(!temp.path().join("late").exists(), "{act}: it was waited for");
        wait_for_the_late_one(temp.path());
    }
}

#[test]
fn a_tool_waits_for_a_client_that_reads_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let said = temp.path().join("said");
    let mut slow = Slow { ear: Ear::new(None), said, heard_bytes: 0, ahead_bytes_max: 0 };
    run("count", temp.path(), false, &mut slow);
    // Nothing is lost, though the last of it came when the tool had ended. Sixteen pieces may wait, and some more are on their way: in the pipe, and in hands.
    assert!(slow.ahead_bytes_max <= 24 * PIECE_BYTES, "{} bytes", slow.ahead_bytes_max);
    assert!(slow.heard_bytes >= PIECES * PIECE_BYTES);
}

#[test]
fn paths_are_taken_apart_at_slashes() {
    assert_eq!(&spelling::plain(br"C:\a\..\b/c.h")[..], b"C:/a/../b/c.h");
    assert_eq!(&spelling::plain(br"\\?\C:\a")[..], b"C:/a");
    assert_eq!(spelling::split_root(b"C:/a/b"), Some((&b"C:/"[..], &b"a/b"[..])));
    for relative in [&b"a/b"[..], b"C:a", b"/a", b"//server/share/a", b""] {
        assert_eq!(spelling::split_root(relative), None);
    }
    assert_eq!(spelling::list(br"C:\a;D:\b c"), [&b"C:/a"[..], b"D:/b c"]);
}

#[test]
fn names_that_may_mean_others_are_odd() {
    for odd in [
        "a.h:x",
        "C:a.h",
        "/a.h",
        "//s/d/a.h",
        "a?.h",
        "aux.h",
        "x/NUL",
        "com1.c",
        "a.h.",
        "d /a.h",
        "\u{e4}.h",
    ] {
        assert!(spelling::oddness(odd.as_bytes()).is_some(), "{odd}");
    }
    for plain in ["a.h", "C:/x y/a.h", "../a.h", "./a.h", "auxiliary.h", "com10.h", "c++/v1/x", ""] {
        assert_eq!(spelling::oddness(plain.as_bytes()), None, "{plain}");
    }
}

#[test]
fn programs_are_called_as_they_were_typed() {
    let path = || PathBuf::from(r"C:\bin\gcc.exe");
    for (name, expected) in [
        ("gcc", r"C:\bin\gcc"),
        (r"d\GCC", r"C:\bin\GCC"),
        ("gcc.exe", r"C:\bin\gcc.exe"),
        ("cc", r"C:\bin\gcc.exe"),
    ] {
        assert_eq!(spelling::called(path(), name.as_bytes()), PathBuf::from(expected), "{name}");
    }
    assert_eq!(&spelling::program(b"GCC.EXE")[..], b"gcc");
}
