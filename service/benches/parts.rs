//! What a hit goes through, each part alone: so that a hit that has become slower shows where.
//!
//! `make bench` runs it; `cargo bench -p zccache-service --bench parts -- PART` one part.

#![allow(unused_crate_dependencies)]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up has nothing to tell")]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use divan::{Bencher, black_box};
use tempfile::TempDir;
use zccache_actors::blobs::Blobs;
use zccache_actors::delivery;
use zccache_actors::digest::Digest;
use zccache_actors::file_table::FileTable;
use zccache_actors::freshness::{LiveRecord, WorkingDirectory};
use zccache_actors::invocation::Invocation;
use zccache_actors::key::RequestKey;
use zccache_actors::lease::Lease;
use zccache_actors::observation::{Fact, Observation, Spelled};
use zccache_actors::plan::{Plan, Planned, Planner};
use zccache_actors::record::{Output, OutputFile, Record, RunResult};
use zccache_proto::frame::{HEADER_BYTES, decode, encode};
use zccache_proto::message::{Compile, Exit, Request, Stdio, StreamKind};
use zccache_proto::root::Root;
use zccache_service::planner::ToolPlanner;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Headers of a small C file and of a C++ file that includes five of the standard library's.
const HEADERS: [usize; 2] = [30, 240];

/// Bytes of the objects of these.
const OBJECT_BYTES: [usize; 2] = [4_000, 315_000];

/// Longer than the tick of any file system's clock: what has been written before is settled then.
const TICK: Duration = Duration::from_millis(20);

fn main() {
    divan::main();
}

/// A request as builds make it: some options, and an environment of common size.
fn compile() -> Compile {
    let words = "gcc -O2 -g -Wall -Wextra -std=gnu11 -DNDEBUG -DVERSION=3 -Isrc -Iinclude -I/usr/include/lua5.4 \
                 -fPIC -pthread -MD -MF build/a.d -c src/a.c -o build/a.o";
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_string();
    let others = (0..40).map(|n| format!("SOME_VARIABLE_{n}=and a value of the usual length, number {n}"));
    Compile {
        tool: b"/usr/bin/gcc".to_vec(),
        argv: words.split_whitespace().collect(),
        cwd: b"/".to_vec(),
        env: [path].into_iter().chain(others).collect(),
        umask: 0o022,
        stdio: Stdio {
            stdin: StreamKind::Null,
            stdout: StreamKind::Pipe,
            stderr: StreamKind::Pipe,
            merged: false,
        },
        descriptors: Vec::new(),
        recache: false,
        patient_until_ns: 0,
        root: Root::ours(),
    }
}

fn plan(planner: &ToolPlanner, invocation: &Invocation) -> Box<Plan> {
    match planner.plan(invocation) {
        Planned::Cache(plan) => plan,
        Planned::PassThrough(why) => panic!("{}", why.reason),
    }
}

#[divan::bench]
fn frame_encode(bencher: Bencher) {
    let request = Request::Compile(Box::new(compile()));
    bencher.bench_local(|| encode(black_box(&request)).unwrap());
}

#[divan::bench]
fn frame_decode(bencher: Bencher) {
    let frame = encode(&Request::Compile(Box::new(compile()))).unwrap();
    bencher.bench_local(|| decode::<Request>(black_box(&frame[HEADER_BYTES..])).unwrap());
}

#[divan::bench]
fn planner(bencher: Bencher) {
    let (planner, invocation) = (ToolPlanner::new(false), Invocation::from(compile()));
    bencher.bench_local(|| plan(&planner, black_box(&invocation)));
}

#[divan::bench]
fn key(bencher: Bencher) {
    let invocation = Invocation::from(compile());
    let plan = plan(&ToolPlanner::new(false), &invocation);
    bencher.bench_local(|| RequestKey::of(black_box(&invocation), &plan));
}

fn directory(temp: &TempDir) -> Arc<WorkingDirectory> {
    Arc::new(WorkingDirectory::open(temp.path().as_os_str().as_bytes()).unwrap())
}

fn content(root: &Path, name: &str, files: &FileTable) -> Observation {
    let path = root.join(name);
    let found = files.content(rustix::fs::CWD, path.as_os_str().as_bytes()).unwrap();
    let fact =
        Fact::Content { digest: found.digest, signature: found.signature, executed: false, linked: false };
    Observation { path: Spelled(name.into()), fact }
}

/// Each header is there, and was looked for in one directory before.
#[divan::bench(args = HEADERS)]
fn record_check(bencher: Bencher, headers: usize) {
    let temp = tempfile::tempdir().unwrap();
    for directory in ["first", "second"] {
        fs::create_dir(temp.path().join(directory)).unwrap();
    }
    for n in 0..headers {
        fs::write(temp.path().join(format!("second/{n}.h")), format!("#define H{n} {n}\n")).unwrap();
    }
    std::thread::sleep(TICK);
    let (files, cwd) = (Arc::new(FileTable::default()), directory(&temp));
    let mut observations = Vec::new();
    for n in 0..headers {
        observations
            .push(Arc::new(Observation { path: Spelled(format!("first/{n}.h").into()), fact: Fact::Absent }));
        observations.push(Arc::new(content(temp.path(), &format!("second/{n}.h"), &files)));
    }
    let result = RunResult {
        exit: Exit::Code(0),
        stdout: Default::default(),
        stderr: Default::default(),
        outputs: Vec::new(),
    };
    let record = Record {
        observations,
        identities: Vec::new(),
        environment: None,
        variables: Vec::new(),
        origin: None,
        result,
    };
    let live = LiveRecord::establish(record, &cwd, &files).unwrap();
    bencher.bench_local(|| live.check(&cwd, &files).unwrap());
}

#[divan::bench(args = OBJECT_BYTES)]
fn deliver(bencher: Bencher, bytes: usize) {
    let temp = tempfile::tempdir().unwrap();
    let blobs = Blobs::new(&temp.path().join("store"));
    let pending = blobs.receive_bytes(&vec![7; bytes]).unwrap();
    blobs.commit(&pending).unwrap();
    let file = OutputFile { digest: pending.digest, bytes: pending.bytes, mode: 0o644, replaces: false };
    let outputs = [Output { path: Spelled(b"a.o".to_vec()), file: Some(file) }];
    let cwd = directory(&temp);
    bencher.bench_local(|| {
        delivery::stage(&outputs, &blobs, &cwd).unwrap().place(&Lease::new(0)).unwrap();
        // As a build that begins anew would.
        fs::remove_file(temp.path().join("a.o")).unwrap();
    });
}

#[divan::bench(args = OBJECT_BYTES)]
fn digest(bencher: Bencher, bytes: usize) {
    let content = vec![7; bytes];
    bencher.bench_local(|| Digest::of(black_box(&content)));
}
