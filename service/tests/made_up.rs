//! What the fuzz targets check, with inputs made up from their corpus: the same ones in every run, by any compiler.
//!
//! libFuzzer finds more, as it sees which branches an input takes (`make fuzz`); this needs nothing but the tests.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../integration-tests/fuzz/targets/checks/arguments.rs"]
mod arguments;
#[path = "../../integration-tests/fuzz/targets/checks/frames.rs"]
mod frames;
#[path = "../../integration-tests/fuzz/targets/checks/records.rs"]
mod records_check;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zccache_actors::digest::Digest;
use zccache_actors::observation::{Fact, Observation, Spelled};
use zccache_actors::record::{NO_FILE, Output, OutputFile, Record, RunResult, Variable};
use zccache_actors::signature::{FileKind, Signature};
use zccache_proto::message::Exit;

/// Inputs per target: some seconds' worth.
const ROUNDS: usize = 40_000;

/// The longest input that is made up; libFuzzer's own limit.
const BYTES_MAX: usize = 4096;

/// Bytes that mean something to a decoder: markers of MessagePack, signs of numbers, ends of words.
const TELLING: &[u8] =
    b"\0\x01\x7f\x80\x81\x90\x9f\xa0\xbf\xc0\xc1\xc4\xc6\xcc\xcf\xd3\xd9\xdb\xdc\xdd\xde\xdf\xe0\xff\n-=@/";

/// Marsaglia's xorshift.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap()
    }

    /// A piece of `bytes`, mostly short.
    fn piece(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = self.below(bytes.len() + 1);
        let most = if self.below(4) == 0 { bytes.len() } else { 8 };
        start..(start + self.below(most + 1)).min(bytes.len())
    }

    /// `input`, changed in one place.
    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(input.len());
        match self.below(8) {
            0 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            1 if !input.is_empty() => input[at] = TELLING[self.below(TELLING.len())],
            2 => _ = input.drain(self.piece(input)),
            3 => input.truncate(at),
            4 => input.insert(at, TELLING[self.below(TELLING.len())]),
            5 => {
                let again = input[self.piece(input)].to_vec();
                input.splice(at..at, again);
            }
            6 => {
                let piece = other[self.piece(other)].to_vec();
                input.splice(self.piece(input), piece);
            }
            _ => {
                // A count or a length.
                let number = [0, 1, 0xffff, u32::MAX, u32::try_from(input.len()).unwrap()][self.below(5)];
                let bytes = if self.below(2) == 0 { number.to_le_bytes() } else { number.to_be_bytes() };
                let end = (at + 4).min(input.len());
                input.splice(at..end, bytes);
            }
        }
        input.truncate(BYTES_MAX);
    }
}

fn corpus_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../integration-tests/fuzz/corpus").join(name)
}

#[track_caller]
fn check_all(name: &str, check: fn(&[u8]) -> bool) {
    let entries = std::fs::read_dir(corpus_of(name)).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let corpus: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    assert!(corpus.len() >= 5, "{name}: only {} inputs in the corpus", corpus.len());
    corpus.iter().for_each(|input| _ = check(input));
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let mut understood = 0;
    for _ in 0..ROUNDS {
        let mut input = corpus[chance.below(corpus.len())].clone();
        for _ in 0..=chance.below(4) {
            let other = chance.below(corpus.len());
            chance.change(&mut input, &corpus[other]);
        }
        understood += usize::from(check(&input));
    }
    // Neither all nonsense, which would end at the first byte, nor all as it was.
    assert!((ROUNDS / 100..ROUNDS).contains(&understood), "{name}: {understood} of {ROUNDS} were understood");
}

/// Records with an observation of each kind and every sort of output, one more in each manifest.
fn records() -> Vec<Record> {
    let (path, digest) = (|name: &str| Spelled(name.into()), Digest::of(b"content"));
    let signature = Signature { dev: 1, ino: 2, size: 3, mtime_ns: 4, ctime_ns: 5, mode: 0o100_644 };
    let facts = [
        Fact::Absent,
        Fact::Content { digest, signature, executed: true, linked: false },
        Fact::Listed { digest },
        Fact::Symlink { target: path("a.h") },
        Fact::Kind { follow: true, kind: FileKind::Directory },
        Fact::Mode { mode: 0o100_755 },
        Fact::Metadata { follow: false, size: 3, mtime_ns: -4, mode: 0o100_644 },
    ];
    let file = OutputFile { digest, bytes: 7, mode: 0o644, replaces: true };
    let record = |number: usize| Record {
        observations: facts[..=number]
            .iter()
            .map(|fact| Observation { path: path("/usr/include/stdio.h"), fact: fact.clone() })
            .map(Arc::new)
            .collect(),
        identities: (0..=number).map(|n| if n == 1 { 0 } else { NO_FILE }).collect(),
        environment: number.is_multiple_of(2).then_some(digest),
        variables: vec![Variable { name: b"OUT_DIR".to_vec(), value: Some(b"/t".to_vec().into()) }],
        origin: None,
        result: RunResult {
            exit: Exit::Code(i32::try_from(number).unwrap()),
            stdout: b"said".to_vec().into(),
            stderr: b"a.c:1:1: warning".to_vec().into(),
            outputs: vec![
                Output { path: path("a.o"), file: Some(file) },
                Output { path: path("../b.d"), file: None },
            ],
        },
    };
    (0..facts.len()).map(record).collect()
}

/// Of another format, every input would end at the first byte, and nothing would have been tried.
#[test]
fn the_corpus_of_records_is_of_todays_format() {
    for (number, record) in records().iter().enumerate() {
        // Not packed: what is made up of packed bytes is garbage.
        let today = rmp_serde::to_vec(record).unwrap();
        let file = corpus_of("records").join(format!("record-{number}"));
        if std::env::var_os("BLESS").is_some() {
            std::fs::create_dir_all(corpus_of("records")).unwrap();
            std::fs::write(&file, &today).unwrap();
        }
        let committed = std::fs::read(&file).unwrap_or_default();
        assert!(committed == today, "{} is of another format: `make bless`", file.display());
        assert!(records_check::check(&today));
    }
}

#[test]
fn frames_made_up_from_the_corpus() {
    check_all("frames", frames::check);
}

#[test]
fn records_made_up_from_the_corpus() {
    check_all("records", records_check::check);
}

#[test]
fn command_lines_made_up_from_the_corpus() {
    check_all("arguments", arguments::check);
}
