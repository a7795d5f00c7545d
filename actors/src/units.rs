//! Units: a command that compiles several sources, served source by source, each under the key that it has alone.
//!
//! What each prints is held back until all are through, since one thing is only known then: whether the driver spoke
//! for itself. What it says once for all sources it would have said for each here. The command then is run as a whole,
//! and its result kept as a whole, so that it is known the next time. So it is if the tool has options from a file, which
//! may be about all sources as those that were typed are not.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::mpsc;
use zccache_proto::ByteStrings;
use zccache_proto::message::{Exit, Finished, OutputStream, Reply};

use crate::compile::{self, News, Order, Outcome};
use crate::connection::Peers;
use crate::hit;
use crate::invocation::Invocation;
use crate::key::RequestKey;
use crate::look_up;
use crate::observation::{Fact, Observation, Seen, Sighting, Spelled};
use crate::observer::Observed;
use crate::plan::{Planned, Policy};
use crate::record::Record;
use crate::sys::OwnedFd;

/// The most bytes of output that are held back: more than a build's warnings, less than would be missed.
const HELD_BYTES_MAX: usize = 1 << 20;

/// Programs that the drivers start: what they say belongs to one unit.
const PARTS: &[&[u8]] = &[b"cc1", b"cc1plus", b"cc1obj", b"cc1objplus"];

/// Serves the units of an order one after another; nothing if it is to be looked up and run as a whole.
pub async fn serve(
    order: &Order,
    descriptors: &[(i32, OwnedFd)],
    outbox: &mpsc::Sender<News>,
    peers: &Arc<Peers>,
) -> Option<Outcome> {
    let orders: Vec<Order> = order.plan.units.iter().map_while(|argv| unit(order, argv, peers)).collect();
    if orders.is_empty() || orders.len() < order.plan.units.len() {
        return None;
    }
    let called = order.invocation.argv.iter().next().unwrap_or_default();
    if let Some(whole) = look_up::stored(order, peers).await {
        if !order.recache
            && let Some(live) = hit::however_long(order, &whole, peers).await
        {
            return Some(Outcome::Hit(live));
        }
        let newest = whole.records().into_iter().next();
        if newest.is_some_and(|(live, _)| !Held::of(&live.record, order.plan.policy).is_of_units(called)) {
            return None;
        }
    }
    let mut all = Held::default();
    let mut through = 0;
    for unit in orders {
        match held_back(unit, descriptors, outbox, peers).await {
            Ok(held) => {
                through += 1;
                if held.is_of_units(called) && all.bytes() + held.bytes() <= HELD_BYTES_MAX {
                    all.add(held);
                    continue;
                }
            }
            Err(reason) => return Some(Outcome::Refused(reason)),
        }
        peers.counters.requests.fetch_add(through, Ordering::Relaxed);
        return None;
    }
    // Each was a request of its own, and this one is counted already.
    peers.counters.requests.fetch_add(through - 1, Ordering::Relaxed);
    for (stream, bytes) in [(OutputStream::Stdout, all.stdout), (OutputStream::Stderr, all.stderr)] {
        for chunk in bytes.chunks(zccache_proto::message::OUTPUT_CHUNK_BYTES_MAX) {
            let reply = Reply::Output { stream, bytes: chunk.to_vec() };
            outbox.send(News { reply, told: None }).await.ok()?;
        }
    }
    let end = Finished { exit: all.exit, stdout: Default::default(), stderr: Default::default() };
    Some(Outcome::Finished { end, has_more_options: false })
}

/// The order of one unit; nothing if it cannot be served like others.
fn unit(order: &Order, argv: &ByteStrings, peers: &Peers) -> Option<Order> {
    let invocation = Invocation { argv: argv.clone(), ..order.invocation.clone() };
    let Planned::Cache(plan) = peers.planner.plan(&invocation) else { return None };
    if plan.policy.caution.heritage || plan.reads_input || plan.argv.is_some() || !plan.units.is_empty() {
        return None;
    }
    let key = RequestKey::of(&invocation, &plan);
    Some(order.of_unit(invocation, *plan, key, peers))
}

/// What was printed, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    exit: Exit,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    has_more_options: bool,
}

impl Default for Held {
    fn default() -> Self {
        Self { exit: Exit::Code(0), stdout: Vec::new(), stderr: Vec::new(), has_more_options: false }
    }
}

impl Held {
    fn of(record: &Record, policy: &Policy) -> Self {
        let result = &record.result;
        let is_content = |o: &&Arc<Observation>| matches!(o.fact, Fact::Content { .. });
        let contents = record.observations.iter().filter(is_content);
        Self {
            exit: result.exit,
            stdout: result.stdout.to_vec(),
            stderr: result.stderr.to_vec(),
            has_more_options: contents.map(|o| &o.path).any(|path| holds_options(path, policy)),
        }
    }

    fn bytes(&self) -> usize {
        self.stdout.len() + self.stderr.len()
    }

    /// Adds what the next unit came to. Drivers go on after one that failed, and fail in the end.
    fn add(&mut self, next: Self) {
        self.exit = if next.exit == Exit::Code(0) { self.exit } else { next.exit };
        self.stdout.extend_from_slice(&next.stdout);
        self.stderr.extend_from_slice(&next.stderr);
    }

    /// Whether all of it is the units' own. Of any end but an ordinary one the driver has more to say, and goes no further.
    fn is_of_units(&self, called: &[u8]) -> bool {
        matches!(self.exit, Exit::Code(0 | 1))
            && !self.has_more_options
            && self.bytes() <= HELD_BYTES_MAX
            && !says_more(&self.stdout, called)
            && !says_more(&self.stderr, called)
    }
}

/// Whether a run had options from a file, or may have had.
pub fn has_more_options(observed: &Observed, policy: &Policy) -> bool {
    let is_read = |s: &&Sighting| matches!(s.seen, Seen::Read { .. });
    let mut read = observed.sightings.iter().filter(is_read).map(|s| &s.path);
    observed.unstorable.is_some() || read.any(|path| holds_options(path, policy))
}

fn holds_options(path: &Spelled, policy: &Policy) -> bool {
    (policy.caution.holds_options)(base_name(&path.0))
}

fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|&b| b == b'/').next().unwrap_or_default()
}

/// Whether a line of `text` may be the driver's: it begins with the name of a compiler, or with what it was `called`.
fn says_more(text: &[u8], called: &[u8]) -> bool {
    let called = base_name(called);
    text.split(|&b| b == b'\n').any(|line| {
        let line = without_colours(line);
        let Some(end) = line.iter().position(|b| matches!(b, b':' | b' ' | b'/')) else { return false };
        let name = &line[..end];
        let is_compilers =
            || [&b"cc"[..], b"++", b"clang"].iter().any(|part| name.windows(part.len()).any(|w| w == *part));
        line[end] == b':' && !PARTS.contains(&name) && (name == called || is_compilers())
    })
}

/// A line without the escape sequences (ECMA-48: `ESC [`, parameters, a letter) that colour it.
fn without_colours(line: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some((&first, tail)) = rest.split_first() {
        rest = match tail.strip_prefix(b"[").filter(|_| first == 0x1b) {
            Some(sequence) => {
                let end =
                    sequence.iter().position(u8::is_ascii_alphabetic).map_or(sequence.len(), |at| at + 1);
                &sequence[end..]
            }
            None => {
                plain.push(first);
                tail
            }
        };
    }
    plain
}

/// Serves one unit, and keeps what it prints. The client is told of its processes like of any others.
async fn held_back(
    unit: Order,
    descriptors: &[(i32, OwnedFd)],
    outbox: &mpsc::Sender<News>,
    peers: &Arc<Peers>,
) -> Result<Held, String> {
    let policy = unit.plan.policy;
    let own = |(number, fd): &(i32, OwnedFd)| Ok((*number, fd.try_clone()?));
    let descriptors: std::io::Result<Vec<_>> = descriptors.iter().map(own).collect();
    let descriptors = descriptors.map_err(|e| format!("descriptors cannot be shared: {e}"))?;
    let (own_outbox, mut outgoing) = mpsc::channel(compile::OUTBOX);
    let mut work = Box::pin(compile::work(unit, descriptors, own_outbox, peers));
    let mut printed = Held::default();
    let mut keep = |stream, bytes: Vec<u8>| {
        let kept = match stream {
            OutputStream::Stdout => &mut printed.stdout,
            OutputStream::Stderr => &mut printed.stderr,
        };
        // One byte too many says so as well as all of them.
        let room = (HELD_BYTES_MAX + 1).saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    };
    let outcome = loop {
        tokio::select! {
            biased;
            Some(news) = outgoing.recv() => match news.reply {
                Reply::Output { stream, bytes } => keep(stream, bytes),
                reply => {
                    let _ = outbox.send(News { reply, told: news.told }).await; // Else the client is gone.
                }
            },
            outcome = &mut work => break outcome,
        }
    };
    drop(work);
    while let Ok(news) = outgoing.try_recv() {
        if let Reply::Output { stream, bytes } = news.reply {
            keep(stream, bytes);
        }
    }
    match outcome {
        Outcome::Hit(live) => Ok(Held::of(&live.record, policy)),
        Outcome::Finished { end, has_more_options } => {
            Ok(Held { exit: end.exit, has_more_options, ..printed })
        }
        Outcome::Refused(reason) => Err(reason),
        Outcome::PassedThrough(reason) => Err(reason.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_much_is_held_back() {
        let held = |bytes: usize| Held { stderr: vec![b'x'; bytes], ..Held::default() };
        assert!(held(HELD_BYTES_MAX).is_of_units(b"gcc"));
        assert!(!held(HELD_BYTES_MAX + 1).is_of_units(b"gcc"));
    }

    #[test]
    fn the_end_of_all_is_the_ordinary_failure_of_any() {
        let ended = |exit| Held { exit, ..Held::default() };
        for (exits, whole) in
            [(&[0, 0][..], Some(0)), (&[1, 0], Some(1)), (&[0, 1], Some(1)), (&[0, 4], None), (&[4, 0], None)]
        {
            let mut all = Held::default();
            exits.iter().for_each(|&code| all.add(ended(Exit::Code(code))));
            assert_eq!(all.is_of_units(b"gcc").then_some(all.exit), whole.map(Exit::Code));
        }
        assert!(!ended(Exit::Signal(11)).is_of_units(b"gcc"));
    }

    #[test]
    fn a_drivers_own_words_are_told_from_its_parts() {
        for line in [
            "gcc: warning: x",
            "x86_64-linux-gnu-g++-12: error: x",
            "clang: warning: argument unused during compilation: '-lx'",
            "clang-14: error: x",
            "\x1b[01m\x1b[Kgcc:\x1b[m\x1b[K \x1b[01;35m\x1b[Kwarning: x",
            "a.c:1:1: error: x\ncc: fatal error: x",
            "c++: x",
            "mine: warning: x",
        ] {
            assert!(says_more(line.as_bytes(), b"/usr/bin/mine"), "{line}");
        }
        for line in [
            "",
            "a.c:1:2: warning: gcc: x",
            "a.c: In function 'f':",
            "In file included from gcc:1:",
            "cc1: warning: x",
            "cc1plus: all warnings being treated as errors",
            "a.s: Assembler messages:",
            "src/gcc: x",
            "1 warning generated.",
            "compilation terminated.",
            "\x1b[",
        ] {
            assert!(!says_more(line.as_bytes(), b"mine"), "{line}");
        }
    }
}
