//! Fills a cache directory with made-up results, to see what an index of many costs those who open it.
//!
//! `fill_cache DIRECTORY RESULTS OBSERVATIONS`: so many results of so many observations each, all with the same output,
//! stored by the code that stores any other. Prints how long it took; no service may run there.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use zccache_actors::blobs::Blobs;
use zccache_actors::digest::Digest;
use zccache_actors::freshness::LiveRecord;
use zccache_actors::key::RequestKey;
use zccache_actors::observation::{Fact, Observation, Spelled};
use zccache_actors::record::{NO_FILE, Output, OutputFile, Record, RunResult};
use zccache_actors::signature::Signature;
use zccache_actors::storage::{Limits, Storage, StorageError};
use zccache_proto::message::Exit;

/// Results between two flushes: the service flushes behind each, which would be all that this measures.
const FLUSHED_AT_A_TIME: usize = 1000;

fn main() -> Result<(), StorageError> {
    let words: Vec<String> = std::env::args().collect();
    let number = |at: usize| words.get(at).and_then(|word| word.parse::<usize>().ok());
    let (Some(directory), Some(results), Some(observations)) = (words.get(1), number(2), number(3)) else {
        eprintln!("usage: fill_cache DIRECTORY RESULTS OBSERVATIONS");
        std::process::exit(2);
    };
    let from = Instant::now();
    fill(Path::new(directory), results, observations)?;
    println!("{results} results stored within {:.1} s", from.elapsed().as_secs_f64());
    Ok(())
}

fn fill(directory: &Path, results: usize, observations: usize) -> Result<(), StorageError> {
    let blobs = Arc::new(Blobs::new(directory));
    let limits = Limits { bytes: u64::MAX, age: None };
    let mut storage = Storage::new(directory, limits, Arc::clone(&blobs), Arc::default());
    storage.open()?;
    let object = directory.join("object");
    std::fs::write(&object, [0; 1500])?;
    let content = blobs.receive(&mut File::open(&object)?)?;
    std::fs::remove_file(&object)?;
    let file = OutputFile { digest: content.digest, bytes: content.bytes, mode: 0o644, replaces: true };
    let mut contents = vec![content];
    for number in 0..results {
        let key = RequestKey(Digest::of(&number.to_le_bytes()));
        let record = LiveRecord::new(record(number, observations, file));
        storage.insert(key, record, b"/home/somebody/project", &contents)?;
        contents.clear();
        if number % FLUSHED_AT_A_TIME == 0 {
            storage.flush()?;
        }
    }
    storage.close(None)
}

/// A record as that of a small file in C.
fn record(number: usize, observations: usize, file: OutputFile) -> Record {
    let source = format!("source{number}.c");
    let headers = (1..observations).map(|n| format!("/usr/include/x86_64-linux-gnu/bits/header{n}.h"));
    let observation = |path: String| {
        let digest = Digest::of(path.as_bytes());
        let ctime_ns = 1_700_000_000_000_000_000;
        let signature = Signature {
            dev: 8 << 32,
            ino: 12_345_678,
            size: 2000,
            mtime_ns: ctime_ns,
            ctime_ns,
            mode: 0o100_644,
        };
        let fact = Fact::Content { digest, signature, executed: false, linked: false };
        Arc::new(Observation { path: Spelled(path.into_bytes()), fact })
    };
    let observations: Vec<_> = std::iter::once(source).chain(headers).map(observation).collect();
    let identities = vec![NO_FILE; observations.len()];
    let outputs = vec![Output { path: Spelled(format!("source{number}.o").into_bytes()), file: Some(file) }];
    let (stdout, stderr) = Default::default();
    let result = RunResult { exit: Exit::Code(0), stdout, stderr, outputs };
    Record { observations, identities, environment: None, variables: Vec::new(), origin: None, result }
}
