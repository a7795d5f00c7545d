//! Turns each notified system call into what it says of the file system: sightings, changes, or a reason not
//! to store the run.
//!
//! It looks *before* the call goes on, at what the call is about to find. It must never miss something the
//! call will see; seeing more than the call does (one that fails for another reason, say) only makes a record
//! more demanding. For the same reason a notification's validity is checked for changes and executions alone:
//! if a thread is killed in mid-call and its number reused before its memory is read, the string that is read
//! is at worst one more true fact about the file system.

mod asking;
mod changing;
mod executing;
mod inside;
mod kernel_links;
mod links;
mod reading;

use std::collections::HashSet;
use std::sync::Arc;

use rustc_hash::FxHashSet;
use rustix::io::Errno;
use zccache_proto::message::Exit;

use super::chance::{Chance, IsHarmless, is_for_libc};
use super::filter;
use super::interposer::Interposing;
use super::job_server::JobServer;
use super::links::Links;
use super::listener::{Listener, Notification, read_memory, read_string};
use super::memory::Memory;
use super::process::{leader_of, program_of};
use super::resolve::{Lost, Place};
use super::sightings::{Question, Sightings};
use super::syscalls::{Base, Meaning, NAMESPACES, PathArg, meaning_of};
use super::touched::Touched;
use crate::invocation::Invocation;
use crate::observation::{Seen, Sighting, Spelled};
use crate::observer::{Effect, Listing, Unstorable};
use crate::plan::Policy;
use crate::signature::{Signature, coarse_now_ns};

/// What the witness knows at the end.
pub struct Testimony {
    /// See [`crate::observer::Observed`].
    pub sightings: Vec<Sighting>,
    /// See [`crate::observer::Observed`].
    pub reread: Vec<Spelled>,
    /// See [`crate::observer::Observed`].
    pub effects: Vec<Effect>,
    /// See [`crate::observer::Observed`].
    pub listings: Vec<Listing>,
    /// See [`crate::observer::Observed`].
    pub programs: Vec<Spelled>,
    /// See [`crate::observer::Observed`].
    pub asked_time: bool,
    /// A shell asked for its own number, which it tells where a script says so.
    pub asked_identity: bool,
    /// See [`crate::observer::Observed`].
    pub unstorable: Option<Unstorable>,
}

/// Shells that ask for their number when they start, and take nothing else from chance.
const SHELLS: &[&[u8]] = &[b"dash", b"sh"];

/// See the module.
pub struct Witness {
    place: Place,
    sightings: Sightings,
    touched: Touched,
    opened_directories: Vec<(u64, u64, Vec<u8>)>,
    /// If the policy wants to know what was in directories that were listed.
    listings: Option<Vec<Listing>>,
    job_server: JobServer,
    programs: Vec<Vec<u8>>,
    asked_time: bool,
    /// A shell asked for its own number.
    asked_identity: bool,
    unstorable: Option<Unstorable>,
    policy: &'static Policy,
    /// Processes that have executed something, and not ended by their own will.
    alive: HashSet<u32>,
    /// Paths named by `TZ` and `TZDIR`.
    time_zones: Vec<Vec<u8>>,
    /// Device and inode of the client's standard input, if it can be read at all.
    input: Option<(u64, u64)>,
    /// The client's process, whose terminal is the tool's.
    client_pid: Option<u32>,
    /// The last file that was opened to read for the first time, if its thread has only asked about files since.
    just_opened: Option<(u32, Vec<u8>)>,
    /// If the filter has the clock and random numbers.
    chance: Option<Chance>,
    /// Programs that note themselves what they look for.
    interposing: Interposing,
    /// The tool as spelled, its arguments, and its directory.
    invocation: Invocation,
    memory: Arc<Memory>,
    /// If the filter leaves readings of links out: what was walked of them.
    walk: Option<Links>,
    /// The file system's clock when the run began: files older than this are not the run's own.
    started_ns: i64,
    /// The last path's buffer.
    spare: Vec<u8>,
    /// Devices of the kernel's own file systems, whose contents have no signature.
    kernel_devices: [u64; 2],
    /// Directories, as spelled, that no link of the kernel's leads to.
    plain_directories: FxHashSet<Vec<u8>>,
}

impl Witness {
    /// A witness of one run that is about to start. If it `walks_links`, they are not watched but walked.
    ///
    /// # Errors
    /// If the client's working directory cannot be opened.
    pub fn new(
        invocation: &Invocation,
        policy: &'static Policy,
        input: Option<(u64, u64)>,
        memory: Arc<Memory>,
        walks_links: bool,
    ) -> std::io::Result<Self> {
        let variable = |name: &[u8]| invocation.env.value_of(name).filter(|value| !value.is_empty());
        let zone =
            variable(b"TZ").map(|tz| tz.strip_prefix(b":").unwrap_or(tz)).filter(|tz| tz.contains(&b'/'));
        let device = |path: &str| Signature::of(path).map_or(u64::MAX, |s| s.dev);
        Ok(Self {
            place: Place::new(&invocation.cwd)?,
            sightings: Sightings::default(),
            touched: Touched::default(),
            opened_directories: Vec::new(),
            listings: policy.review.map(|_| Vec::new()),
            job_server: JobServer::of(&invocation.env),
            programs: Vec::new(),
            asked_time: false,
            asked_identity: false,
            unstorable: None,
            policy,
            alive: HashSet::new(),
            time_zones: zone.into_iter().chain(variable(b"TZDIR")).map(<[u8]>::to_vec).collect(),
            input,
            client_pid: None,
            just_opened: None,
            chance: None,
            interposing: Interposing::default(),
            invocation: invocation.clone(),
            memory,
            walk: walks_links.then(Links::default),
            started_ns: coarse_now_ns(),
            spare: Vec::new(),
            kernel_devices: [device("/proc"), device("/sys")],
            plain_directories: FxHashSet::default(),
        })
    }

    /// The filter has the clock and random numbers: they matter but for these programs.
    pub fn watch_chance(&mut self, is_harmless: IsHarmless) {
        self.chance = Some(Chance::new(is_harmless));
    }

    /// The run is for this process.
    pub fn know_client(&mut self, pid: Option<u32>) {
        self.client_pid = pid;
    }

    /// Takes note of a call that waits.
    pub fn note(&mut self, listener: &Listener, n: &Notification) {
        if n.architecture != filter::NATIVE || n.number as u32 >= filter::FOREIGN_FROM {
            return self.give_up("a foreign system-call interface");
        }
        if n.tid == 0 {
            return self.give_up("a process in another world");
        }
        let Some(meaning) = meaning_of(n.number) else { return };
        self.meet(n.tid, meaning);
        if !matches!(meaning, Meaning::Stat(..) | Meaning::Lstat(_) | Meaning::Remove(_)) {
            self.just_opened = None;
        }
        let a = &n.arguments;
        match meaning {
            Meaning::Open(path, flags) => self.open_call(listener, n, path, flags),
            Meaning::Stat(path, flags) => {
                let nofollow = flags.is_some_and(|i| a[i] as i32 & libc::AT_SYMLINK_NOFOLLOW != 0);
                self.stat_call(listener, n, path, if nofollow { Question::Lstat } else { Question::Stat });
            }
            Meaning::Lstat(path) => self.stat_call(listener, n, path, Question::Lstat),
            Meaning::Readlink(path) => self.stat_call(listener, n, path, Question::Readlink),
            Meaning::Execute(path, flags) => {
                self.alive.insert(n.tid);
                self.execute_call(listener, n, path, flags);
            }
            Meaning::Exit => self.exit(n.tid),
            Meaning::List => self.list(n.tid, a[0] as i32),
            Meaning::Remove(path) => {
                self.forget_what_was_opened_to_be_removed(n, path);
                self.change_call(listener, n, path, Self::remove);
            }
            Meaning::MakeOther(path) => self.change_call(listener, n, path, Self::make_other),
            Meaning::Change(path) => self.change_call(listener, n, path, Self::change),
            Meaning::ChangeOpen => self.change_open(n.tid, a[0] as i32, Self::change),
            Meaning::SetTimes(path, times) => {
                let deed = if a[times] == 0 { Self::change } else { Self::mark };
                match a[path.path] {
                    0 => self.change_open(n.tid, directory_of(n, path), deed),
                    _ => self.change_call(listener, n, path, deed),
                }
            }
            Meaning::Mark(path) => self.change_call(listener, n, path, Self::mark),
            Meaning::MarkOpen => self.change_open(n.tid, a[0] as i32, Self::mark),
            Meaning::Rename(from, to, flags) => {
                let exchange = flags.is_some_and(|i| a[i] as u32 & libc::RENAME_EXCHANGE != 0);
                self.rename_call(listener, n, from, to, exchange);
            }
            Meaning::Link(from, to, flags) => self.link_call(listener, n, from, to, flags),
            Meaning::Chdir(path) => {
                if let Some(path) = path {
                    self.stat_call(listener, n, path, Question::Stat);
                }
                self.place.moved = true;
            }
            Meaning::ReadInput(_) | Meaning::CopyInput => self.input_used(n.tid),
            Meaning::FcntlInput => {
                if matches!(a[1] as i32, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) {
                    self.input_used(n.tid);
                }
            }
            Meaning::MapInput => {
                if a[3] as i32 & libc::MAP_ANONYMOUS == 0 {
                    self.input_used(n.tid);
                }
            }
            Meaning::Connect => self.connect(n),
            Meaning::SendMessage => {
                let mut address = [0_u8; 8];
                if read_memory(n.tid, a[1], &mut address) != Ok(8) || address != [0; 8] {
                    self.refuse(Unstorable::UsedSocket);
                }
            }
            Meaning::Talk => self.refuse(Unstorable::UsedSocket),
            Meaning::Signal if leader_of(n.tid) == u32::try_from(a[0]).ok() => {}
            Meaning::Signal => self.chance_taken(n.tid, Unstorable::UsedSocket),
            Meaning::Unshare => {
                if a[0] as u32 & NAMESPACES != 0 {
                    self.give_up("namespaces");
                }
            }
            Meaning::Escape(how) => self.give_up(how),
            Meaning::Start => {}
            Meaning::Measure(path) => self.measure(n, path),
            Meaning::Identity => self.identity_asked(n.tid),
            Meaning::Clock => self.chance_taken(n.tid, Unstorable::ReadClock),
            Meaning::Random if is_for_libc(n.tid, a[0]) => {}
            Meaning::Random => self.chance_taken(n.tid, Unstorable::TookRandomNumbers),
        }
    }

    /// A thread asks for something: its process's clock is made visible, if that matters.
    fn meet(&mut self, tid: u32, meaning: Meaning) {
        let Some(chance) = &mut self.chance else { return };
        match meaning {
            Meaning::Execute(..) => chance.forget(),
            // Takes nothing any more. And a tool that could not be executed ends in our own memory, where the clock
            // is to stay as fast as it is.
            Meaning::Exit => {}
            _ => {
                if let Err(why) = chance.meet(tid) {
                    self.give_up(why);
                }
            }
        }
    }

    /// A thread takes something from chance, which makes the run what it is, unless its program is known.
    fn chance_taken(&mut self, tid: u32, reason: Unstorable) {
        if self.unstorable.is_none() && self.chance.as_ref().is_some_and(|chance| chance.matters(tid)) {
            self.refuse(reason);
        }
    }

    /// Shells ask for their number when they start, and tell it where a script says so: that is looked for in the end.
    fn identity_asked(&mut self, tid: u32) {
        let matters = self.chance.as_ref().is_some_and(|chance| chance.matters(tid));
        if !matters || self.asked_identity || self.unstorable.is_some() {
            return;
        }
        if program_of(tid).is_some_and(|name| SHELLS.contains(&&name[..])) {
            self.asked_identity = true;
        } else {
            self.chance_taken(tid, Unstorable::AskedProcessNumber);
        }
    }

    /// The first reason counts.
    pub fn refuse(&mut self, reason: Unstorable) {
        self.unstorable.get_or_insert(reason);
    }

    fn give_up(&mut self, why: &str) {
        if self.unstorable.is_none() {
            self.unstorable = Some(Unstorable::NotObservable(why.into()));
        }
    }

    /// The end of the run: what it all came to.
    pub fn testify(mut self, exit: Exit) -> Testimony {
        self.catch_up();
        let outcome = self.touched.outcome(&self.place);
        if let Some(reason) = outcome.unstorable {
            self.refuse(reason);
        }
        if !exit.success() && !self.alive.is_empty() {
            // Somebody killed a part of it, perhaps for want of memory: the failure says nothing of the inputs.
            self.refuse(Unstorable::Signalled);
        }
        self.look_at_words();
        self.walk_unseen();
        let not_read = self.sightings.take_not_read();
        let has_strangers = self.has_strangers();
        let mut sightings = self.sightings.into_list(has_strangers, |path| self.place.normal(path));
        self.touched.keep_before(&self.place, &mut sightings, |s| {
            self.policy.caution.old_outputs || not_read.contains(&s.path.0)
        });
        self.touched.filter(&self.place, exit, &mut sightings);
        // A failing tool takes its output away; what one that nobody knows calls its temporary files is anybody's guess.
        if self.policy.caution.old_outputs || !exit.success() {
            let absent = |path: &[u8]| Sighting { path: Spelled(path.to_vec()), seen: Seen::Absent };
            sightings.extend(self.touched.temporaries(&self.place).map(absent));
        }
        Testimony {
            sightings,
            effects: outcome.effects,
            reread: outcome.reread,
            listings: self.listings.unwrap_or_default(),
            programs: self.programs.into_iter().map(Spelled).collect(),
            asked_time: self.asked_time,
            asked_identity: self.asked_identity,
            unstorable: self.unstorable,
        }
    }

    fn exit(&mut self, tid: u32) {
        if !self.alive.remove(&tid)
            && let Some(leader) = leader_of(tid)
        {
            self.alive.remove(&leader);
        }
    }

    /// The spelling of a path argument; none if the call will fail, or we had to give up.
    fn path(&mut self, n: &Notification, arg: PathArg) -> Option<Vec<u8>> {
        let raw = self.raw_path(n, arg)?;
        self.located(n.tid, directory_of(n, arg), raw)
    }

    fn raw_path(&mut self, n: &Notification, arg: PathArg) -> Option<Vec<u8>> {
        let mut raw = std::mem::take(&mut self.spare);
        match read_string(n.tid, n.arguments[arg.path], &mut raw) {
            Ok(()) => Some(raw),
            // Bad addresses and over-long paths fail whatever is there; a thread that is gone asks nothing.
            Err(Errno::FAULT | Errno::NAMETOOLONG | Errno::SRCH) => None,
            Err(_) => {
                self.give_up("a process's memory cannot be read");
                None
            }
        }
    }

    fn located(&mut self, tid: u32, directory: i32, raw: Vec<u8>) -> Option<Vec<u8>> {
        match self.place.locate(tid, directory, raw) {
            Ok(path) => {
                self.refuse_what_is_behind_kernel_links(&path);
                Some(path)
            }
            Err(Lost::Fails) => None,
            Err(Lost::Unknown(why)) => {
                self.give_up(why);
                None
            }
        }
    }
}

/// The descriptor (or `AT_FDCWD`) that a path argument is relative to.
fn directory_of(n: &Notification, arg: PathArg) -> i32 {
    match arg.base {
        Base::Cwd => libc::AT_FDCWD,
        Base::Arg(i) => n.arguments[i] as i32,
    }
}

/// A path for people.
fn name(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
