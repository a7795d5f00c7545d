//! The observed observer: the kernel tells us every path that a tool's process tree asks for.
//!
//! A seccomp filter in the tool's first process, inherited by all that come of it, has the kernel notify us of
//! each system call that takes a path, and hold it until we answer (seccomp_unotify(2)). We look at the path
//! ourselves, note what the call is about to see, and let it go on unchanged. So nothing the tool reads,
//! misses, lists or writes goes unseen, with no need to know the tool, and no privileges.
//!
//! gcc reads so many symbolic links that watching them costs more than all else. For families whose reading of links
//! is known (`Policy::reads_links_on_its_way_only`) they are walked by us instead: `links` (the walk itself),
//! `unseen_links` with `include_names` (where gcc opens a header by its real path alone), `memory` (what spares
//! work from run to run, and who is not to be trusted so).
//!
//! What most calls are about, the search for headers, is not left to the kernel where that can be helped: a report takes
//! longer than many a search. Compilers get a library that writes it down inside them (`interposer`, `ledger`); what they
//! do beside it is reported as ever.
//!
//! The parts, from the kernel up: `syscalls` (which calls, which arguments), `filter` (the program),
//! `listener` (the ioctls), `resolve` (which path is meant), `witness` (what a call means), `sightings` and
//! `touched` (what was seen and done), `process` (who asks), `chance` with `vdso` (the clock and random numbers, for tools that nobody knows),
//! `silent_zone` (who may tell the time without a sign).

mod chance;
mod filter;
mod include_names;
mod interposer;
mod job_server;
mod ledger;
mod links;
mod listener;
mod memory;
mod process;
mod resolve;
mod sightings;
mod silent_zone;
mod syscalls;
mod time_words;
mod touched;
mod unseen_links;
mod vdso;
mod witness;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::AtFlags;
use zccache_proto::ByteStrings;
use zccache_proto::message::{Exit, OutputStream, Stdio, StreamKind};

use crate::freshness::WorkingDirectory;
use crate::invocation::Invocation;
use crate::observation::Seen;
use crate::observer::{Job, Observed, Observer, Unstorable, Watcher};
use crate::plan::{Caution, Policy};
use crate::program_file::{Format, format_of};
use crate::signature::Signature;
use crate::tool_run::{self, Attendant};
use chance::IsHarmless;
use filter::Scope;
use interposer::Interposer;
use listener::Listener;
use memory::Memory;
use witness::{Testimony, Witness};

/// Observes runs by seccomp user notification.
#[derive(Debug)]
pub struct ObservedObserver {
    memory: Arc<Memory>,
    interposer: Option<Arc<Interposer>>,
}

impl ObservedObserver {
    /// Makes sure, by a trial, that this kernel (or what it runs in) lets us observe.
    ///
    /// # Errors
    /// Why it does not, for people.
    pub fn new() -> Result<Self, String> {
        // The trial executes a program that is not there: the call is notified, its path is read from the
        // child's memory, and it fails. Everything that a real run needs, without one.
        const MISSING: &[u8] = b"/nonexistent/zccache-trial";
        let invocation = Invocation {
            tool: MISSING.to_vec(),
            argv: ByteStrings::from_iter([MISSING]),
            cwd: b"/".to_vec(),
            env: ByteStrings::default(),
            umask: 0o022,
            stdio: Stdio {
                stdin: StreamKind::Null,
                stdout: StreamKind::Null,
                stderr: StreamKind::Null,
                merged: false,
            },
        };
        let job = Job {
            invocation,
            descriptors: Vec::new(),
            client_pid: None,
            policy: &TRIAL,
            foreign_code: true,
            input_is_known: false,
            declared: Default::default(),
            outputs: Vec::new(),
        };
        let mut watching = Watching::new(&job, &Arc::default(), None)
            .map_err(|e| format!("seccomp user notification cannot be tried: {e}"))?;
        let (_keep, never) = rustix::pipe::pipe().map_err(|e| e.to_string())?;
        let ended = tool_run::run(job, &mut Nobody(never), Some(&mut watching));
        let error = match ended {
            Ok(_) => return Err("a program that does not exist was executed".into()),
            Err(error) => error,
        };
        let testimony = watching.witness.testify(Exit::Code(0));
        let seen = testimony.sightings.iter().any(|s| s.path.0 == MISSING && s.seen == Seen::Absent);
        match testimony.unstorable {
            None if seen && error.kind() == io::ErrorKind::NotFound => {
                let interposer = Interposer::new().inspect_err(
                    |error| tracing::info!(%error, "compilers are observed without an interposer"),
                );
                Ok(Self { memory: Arc::default(), interposer: interposer.ok().map(Arc::new) })
            }
            None => Err(format!("seccomp user notification does not work: {error}")),
            Some(reason) => Err(format!("seccomp user notification does not work: {reason}")),
        }
    }
}

/// How a shell's script names the number of the shell, of its parent, or of what it started.
const NAMES_OF_A_SHELLS_NUMBER: &[&str] = &["$$", "{$", "PPID", "$!", "{!", "jobs"];

/// The trial's policy: nothing is known.
static TRIAL: Policy = Policy {
    family: "trial",
    knows_program: |_| false,
    reads_links_on_its_way_only: false,
    searches: |_| false,
    ignored_reads: &[],
    review: None,
    caution: Caution::NONE,
};

/// The trial's watcher.
struct Nobody(OwnedFd);

impl Watcher for Nobody {
    fn starting(&mut self, _pid: u32) -> io::Result<()> {
        Ok(())
    }

    fn output(&mut self, _stream: OutputStream, _bytes: &[u8]) {}
    fn cancelled(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Observer for ObservedObserver {
    fn run(&self, job: Job, watcher: &mut dyn Watcher) -> io::Result<Observed> {
        let mut watching = Watching::new(&job, &self.memory, self.interposer.as_ref())?;
        let (policy, invocation) = (job.policy, job.invocation.clone());
        let directory = WorkingDirectory::open(&job.invocation.cwd)?;
        let ended = tool_run::run(job, watcher, Some(&mut watching))?;
        if let Some(broken) = watching.broken.take() {
            watching.witness.refuse(Unstorable::NotObservable(broken.to_string()));
        }
        let testimony = watching.witness.testify(ended.exit);
        let unstorable = match ended.exit {
            _ if ended.cancelled => Some(Unstorable::Cancelled),
            Exit::Signal(_) => Some(Unstorable::Signalled),
            Exit::Code(_) => None,
        };
        let may_be_told =
            |words| time_words::may_be_told(words, &invocation.argv, &testimony.sightings, directory.fd());
        let Testimony { programs, sightings, .. } = &testimony;
        let asked_time = testimony.asked_time && may_be_told(policy.caution.time_words)
            || silent_zone::time_may_be_told(&invocation, programs, sightings, directory.fd());
        let told_identity = (testimony.asked_identity && may_be_told(NAMES_OF_A_SHELLS_NUMBER))
            .then_some(Unstorable::AskedProcessNumber);
        let left = ended.left_processes.then_some(Unstorable::LeftProcess);
        Ok(Observed {
            exit: ended.exit,
            effects: testimony.effects,
            reread: testimony.reread,
            listings: testimony.listings,
            programs: testimony.programs,
            asked_time,
            sightings: testimony.sightings,
            unstorable: unstorable.or(testimony.unstorable).or(told_identity).or(left),
        })
    }
}

/// The attendant of one observed run.
struct Watching {
    filter: &'static [libc::sock_filter],
    listener: Option<Listener>,
    /// Stands in for the listener until there is one: never readable.
    idle: OwnedFd,
    _idle_writer: OwnedFd,
    witness: Witness,
    broken: Option<io::Error>,
}

impl Watching {
    fn new(job: &Job, memory: &Arc<Memory>, interposer: Option<&Arc<Interposer>>) -> io::Result<Self> {
        let input = job.descriptors.iter().find(|(number, _)| *number == 0 && !job.input_is_known);
        let input = input.and_then(|(_, fd)| identity(fd));
        let program = real_program(job);
        let walks_links = walks_links(job, program.as_deref(), memory);
        let chance_unless = chance_unless(job, program.as_deref(), memory);
        let mut witness = Witness::new(&job.invocation, job.policy, input, Arc::clone(memory), walks_links)?;
        witness.know_client(job.client_pid);
        match (chance_unless, interposer) {
            (Some(is_harmless), _) => witness.watch_chance(is_harmless),
            (None, Some(interposer)) if !directs_the_loader(&job.invocation) => witness.interpose(interposer),
            (None, _) => {}
        }
        let (idle, idle_writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let filter = filter::program(Scope {
            input_matters: input.is_some(),
            links: !walks_links,
            chance: chance_unless.is_some(),
        });
        Ok(Self { filter, listener: None, idle, _idle_writer: idle_writer, witness, broken: None })
    }
}

/// The programs whose use of the clock and of random numbers does not matter, if there may be others in this run: the
/// tool's family is not known so well, the tool is somebody's script under the name of one of the family, or it was seen
/// to run others.
fn chance_unless(job: &Job, program: Option<&[u8]>, memory: &Memory) -> Option<IsHarmless> {
    let caution = &job.policy.caution;
    let is_known = || program.is_some_and(|name| (job.policy.knows_program)(name));
    let runs_others = || memory.distrusts_everywhere(&job.invocation.tool);
    (caution.chance || job.foreign_code || !is_known() || runs_others()).then_some(caution.harmless)
}

/// Whether the environment has the loader do or say more than usual, so that it could show what we have it load.
fn directs_the_loader(invocation: &Invocation) -> bool {
    invocation.env.iter().any(|entry| entry.starts_with(b"LD_") && !entry.starts_with(b"LD_LIBRARY_PATH="))
}

/// Whether links can be walked by us instead of being watched: the tool is a program, known by its own name, that
/// reads them on its way only, and the command line holds nothing that makes its headers' names unclear.
fn walks_links(job: &Job, program: Option<&[u8]>, memory: &Memory) -> bool {
    const UNCLEAR: &[&[u8]] = &[b"charset", b"__has_", b"_Pragma"];
    let Invocation { tool, argv, cwd, .. } = &job.invocation;
    let is_clear = |argument: &[u8]| {
        !argument.starts_with(b"@")
            && !UNCLEAR.iter().any(|part| argument.windows(part.len()).any(|w| w == *part))
    };
    job.policy.reads_links_on_its_way_only
        && !job.foreign_code
        && !memory.distrusts(tool, cwd)
        && argv.iter().skip(1).all(is_clear)
        && program.is_some_and(|name| is_known_c(job, name))
        && has_clear_source(job)
}

/// The most bytes of a source file that are looked through before a run, to choose its filter.
const SOURCE_BYTES_MAX: u64 = 4 << 20;

/// Whether the source is C, and names what it includes. The headers of C++ leave names open (`__has_include` of a
/// macro), as a source may that includes a macro: such a run would be lost, and is watched in full at once.
fn has_clear_source(job: &Job) -> bool {
    let Some(source) = &job.declared.source else { return false };
    if !source.0.ends_with(b".c") {
        return false;
    }
    names_what_it_includes(&job.invocation.cwd_path().join(OsStr::from_bytes(&source.0)))
}

fn names_what_it_includes(path: &Path) -> bool {
    let short = std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= SOURCE_BYTES_MAX);
    let is_clear = |text: Vec<u8>| {
        let names = include_names::IncludeNames::of(&text);
        !names.unclear && names.computed.is_empty()
    };
    short && std::fs::read(path).is_ok_and(is_clear)
}

fn is_known_c(job: &Job, program: &[u8]) -> bool {
    (job.policy.knows_program)(program) && !program.windows(2).any(|w| w == b"++")
}

/// The base name of what the tool's path leads to, if that is a program of the machine's own format.
fn real_program(job: &Job) -> Option<Vec<u8>> {
    let invocation = &job.invocation;
    let tool = invocation.cwd_path().join(OsStr::from_bytes(&invocation.tool));
    let real = std::fs::canonicalize(tool).ok()?;
    let is_elf = matches!(format_of(rustix::fs::CWD, real.as_os_str().as_bytes()), Format::Elf(_));
    is_elf.then(|| real.file_name().map(|name| name.as_bytes().to_vec())).flatten()
}

/// Device and inode of an open file; none for `/dev/null`, whose reading tells nothing.
fn identity(fd: &OwnedFd) -> Option<(u64, u64)> {
    let of = |s: Signature| (s.dev, s.ino);
    let open = Signature::at(fd, "", AtFlags::EMPTY_PATH).ok().map(of)?;
    let null = Signature::of("/dev/null").ok().map(of);
    (Some(open) != null).then_some(open)
}

impl Attendant for Watching {
    fn filter(&self) -> &[libc::sock_filter] {
        self.filter
    }

    fn attach(&mut self, listener: OwnedFd) -> io::Result<()> {
        self.listener = Some(Listener::new(listener)?);
        Ok(())
    }

    fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_ref().map_or(self.idle.as_fd(), AsFd::as_fd)
    }

    fn serve(&mut self) {
        let Some(listener) = &mut self.listener else { return };
        match listener.receive() {
            Ok(Some(notification)) => {
                // What a program noted came before its next call. Its end need not wait for that.
                let is_end = self.witness.is_end(&notification);
                if !is_end {
                    self.witness.catch_up();
                }
                self.witness.note(listener, &notification);
                listener.resume(notification.id);
                if is_end {
                    self.witness.catch_up();
                }
            }
            Ok(None) => {}
            Err(error) => drop(self.broken.get_or_insert(error)),
        }
    }

    fn hand_over(&mut self, outputs: Vec<OwnedFd>) {
        tool_run::discard_forever(outputs);
        if let Some(listener) = self.listener.take() {
            // Without a thread the listener closes, and what was left behind fails: nothing better can be done.
            let _ = std::thread::Builder::new()
                .name("tool-leftover".into())
                .spawn(move || wave_through(listener));
        }
    }
}

/// Lets every call go on, unseen, until no process has the filter any more.
fn wave_through(mut listener: Listener) {
    loop {
        let mut polled = [PollFd::new(&listener, PollFlags::IN)];
        match poll(&mut polled, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
        let ready = polled[0].revents();
        if ready.contains(PollFlags::IN) {
            match listener.receive() {
                Ok(Some(notification)) => listener.resume(notification.id),
                Ok(None) => {}
                Err(_) => return,
            }
        } else if ready.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_longer_than_is_looked_through_is_watched_in_full() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.c");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(SOURCE_BYTES_MAX).unwrap();
        assert!(names_what_it_includes(&path));
        file.set_len(SOURCE_BYTES_MAX + 1).unwrap();
        assert!(!names_what_it_includes(&path));
    }
}
