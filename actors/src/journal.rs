//! The journal: what became of each run, a JSON line each, for people who ask why.
//!
//! - Owns: `journal.jsonl` below the cache directory, and the file in which wrappers report fallbacks.
//! - Runs on: an arbiter of its own.
//! - Receives: `Note` from settling, `TakeFallbacks` from connections.
//! - Sends: replies only.
//! - Mailbox: 4096; further lines are lost.
//! - On failure: rebuilt; lines are lost.
//! - Never blocks a compile, and never writes the value of an environment variable.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use actix::prelude::*;

use crate::faults;
use crate::invocation::Invocation;
use crate::key::RequestKey;
use crate::manifest::now_ms;
use crate::supervision::Probe;

/// When the journal is this long, it becomes `journal.old.jsonl` (replacing that) and a new one begins: two files of
/// this size hold some ten thousand runs.
const JOURNAL_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The most bytes of one command line that are written down.
const COMMAND_BYTES_MAX: usize = 4096;

/// See the header.
const MAILBOX: usize = 4096;

/// A run was settled. Nobody waits for it; may be lost.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Note {
    /// The request.
    pub key: RequestKey,
    /// What was typed.
    pub invocation: Invocation,
    /// What became of it: `stored`, or why not.
    pub outcome: &'static str,
    /// More for people.
    pub detail: String,
}

impl Note {
    /// Hands a line to the journal, or loses it: nobody waits, and neither may a hung disk fill the memory.
    pub fn hand_to(self, journal: &Addr<Journal>) {
        let _ = journal.try_send(self);
    }
}

/// A connection wants the number of fallbacks reported since the last time.
#[derive(Message)]
#[rtype(result = "u64")]
pub struct TakeFallbacks;

/// The actor.
pub struct Journal {
    path: PathBuf,
    fallbacks: PathBuf,
    file: Option<File>,
    /// The last line could not be written.
    is_failing: bool,
}

impl Journal {
    /// A journal in `cache_dir`, with the fallbacks that wrappers report in `fallbacks`.
    pub fn new(cache_dir: &std::path::Path, fallbacks: PathBuf) -> Self {
        Self { path: cache_dir.join("journal.jsonl"), fallbacks, file: None, is_failing: false }
    }

    fn write(&mut self, line: &str) -> std::io::Result<()> {
        if self.file.as_ref().is_some_and(|f| f.metadata().is_ok_and(|m| m.len() > JOURNAL_BYTES_MAX)) {
            self.file = None;
            std::fs::rename(&self.path, self.path.with_extension("old.jsonl"))?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                use crate::sys::OpenOptionsExt;
                let opened = File::options().append(true).create(true).mode(0o600).open(&self.path)?;
                self.file.insert(opened)
            }
        };
        faults::check("journal.write")?;
        writeln!(file, "{line}")
    }
}

/// The words of a command, as much of it as is written down.
fn command_line<'a>(words: impl Iterator<Item = &'a [u8]>) -> String {
    let mut line = words.collect::<Vec<_>>().join(&b' ');
    line.truncate(COMMAND_BYTES_MAX);
    String::from_utf8_lossy(&line).into_owned()
}

impl Actor for Journal {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<Note> for Journal {
    type Result = ();

    fn handle(&mut self, message: Note, _: &mut Self::Context) {
        faults::pass("journal");
        let line = serde_json::json!({
            "at_ms": now_ms(),
            "key": message.key.0.to_hex(),
            "cwd": String::from_utf8_lossy(&message.invocation.cwd),
            "command": command_line(message.invocation.argv.iter()),
            "outcome": message.outcome,
            "detail": message.detail,
        });
        match self.write(&line.to_string()) {
            Ok(()) => self.is_failing = false,
            Err(e) => {
                // Once, and not for every line of a full disk.
                if !std::mem::replace(&mut self.is_failing, true) {
                    tracing::warn!(%e, path = %self.path.display(), "the journal could not be written");
                }
                self.file = None;
            }
        }
    }
}

impl Handler<TakeFallbacks> for Journal {
    type Result = MessageResult<TakeFallbacks>;

    fn handle(&mut self, _: TakeFallbacks, _: &mut Self::Context) -> Self::Result {
        // Renamed first, so that a report that comes in meanwhile begins a new file and is not lost.
        let taken = self.fallbacks.with_extension("taken");
        let renamed = std::fs::rename(&self.fallbacks, &taken);
        let count = renamed.and_then(|()| std::fs::metadata(&taken)).map_or(0, |m| m.len());
        let _ = std::fs::remove_file(&taken);
        MessageResult(count)
    }
}

impl Handler<Probe> for Journal {
    type Result = ();

    fn handle(&mut self, _: Probe, _: &mut Self::Context) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_journal_becomes_the_old_one_and_long_commands_are_cut() {
        let temp = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(temp.path(), temp.path().join("fallbacks"));
        let bytes = |name: &str| temp.path().join(name).metadata().map_or(0, |m| m.len());
        let line = "x".repeat(1 << 20);
        for _ in 0..40 {
            journal.write(&line).unwrap();
            assert!(bytes("journal.jsonl") <= JOURNAL_BYTES_MAX + line.len() as u64 + 1);
        }
        assert!(bytes("journal.old.jsonl") > JOURNAL_BYTES_MAX);
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 2, "older ones are gone");
        let words = [&b"gcc"[..], &[b'x'; COMMAND_BYTES_MAX]];
        assert_eq!(command_line(words.into_iter()).len(), COMMAND_BYTES_MAX);
    }

    #[actix::test]
    async fn a_journal_takes_so_many_messages_and_no_more() {
        let temp = tempfile::tempdir().unwrap();
        let addr = Journal::new(temp.path(), temp.path().join("fallbacks")).start();
        let taken = crate::test_support::mailbox_takes(&addr, || Probe).await;
        // One more than it says, by the way these are counted.
        assert!((MAILBOX..=MAILBOX + 1).contains(&taken), "{taken}");
    }

    #[actix::test]
    async fn what_a_full_journal_does_not_take_is_lost() {
        let temp = tempfile::tempdir().unwrap();
        let addr = Journal::new(temp.path(), temp.path().join("fallbacks")).start();
        let note = || Note {
            key: RequestKey(crate::digest::Digest::of(b"key")),
            invocation: crate::test_support::invocation(&["gcc"]),
            outcome: "stored",
            detail: String::new(),
        };
        addr.send(note()).await.unwrap();
        // It lives on this thread, which does not come to it before the end of this.
        (0..MAILBOX + 100).for_each(|_| note().hand_to(&addr));
        addr.send(Probe).await.unwrap();
        let lines = std::fs::read_to_string(temp.path().join("journal.jsonl")).unwrap().lines().count();
        // With the first, and one more than it says, by the way these are counted.
        assert!((1 + MAILBOX..=2 + MAILBOX).contains(&lines), "{lines}");
    }
}
