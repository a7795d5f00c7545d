//! Turns each notified system call into what it says of the file system: sightings, changes, or a reason not
//! to store the run.
//!
//! It looks *before* the call goes on, at what the call is about to find. It must never miss something the
//! call will see; seeing more than the call does (one that fails for another reason, say) only makes a record
//! more demanding. For the same reason a notification's validity is checked for changes and executions alone:
//! if a thread is killed in mid-call and its number reused before its memory is read, the string that is read
//! is at worst one more true fact about the file system.

use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use zccache_proto::message::Exit;

use super::filter;
use super::job_server::JobServer;
use super::links::{Links, Stone};
use super::listener::{Listener, Notification, PATH_BYTES_MAX, read_memory, read_string};
use super::memory::Memory;
use super::resolve::{Lost, Open, Place, parent};
use super::sightings::{Question, Sightings};
use super::syscalls::{Base, Meaning, NAMESPACES, OpenFlags, PathArg, meaning_of};
use super::touched::{Deed, Touched};
use super::unseen_links;
use crate::invocation::Invocation;
use crate::name_filter::names_in;
use crate::observation::{Seen, Sighting, Spelled};
use crate::observer::{Effect, Listing, Unstorable};
use crate::plan::Policy;
use crate::program_file::{Format, format_of};
use crate::signature::{FileKind, Signature, coarse_now_ns};

/// How long a young file is waited for until any later change must show in its signature: the longest clock
/// tick (10 ms at 100 Hz) and the step below.
const SETTLE_MAX: Duration = Duration::from_millis(12);

/// How often it is looked at meanwhile.
const SETTLE_STEP: Duration = Duration::from_millis(1);

/// How deep scripts may name scripts as their interpreters (the kernel gives up after 5).
const SCRIPT_DEPTH_MAX: u32 = 6;

/// Where the C libraries keep time zones, whose reading means that the time is asked for.
const TIME_ZONES: &[&[u8]] = &[
    b"/etc/localtime",
    b"/usr/share/zoneinfo",
    b"/usr/lib/zoneinfo",
    b"/usr/share/lib/zoneinfo",
    b"/share/zoneinfo",
    b"/etc/zoneinfo",
];

/// What the witness knows at the end.
pub struct Testimony {
    /// See [`crate::observer::Observed`].
    pub sightings: Vec<Sighting>,
    /// See [`crate::observer::Observed`].
    pub effects: Vec<Effect>,
    /// See [`crate::observer::Observed`].
    pub listings: Vec<Listing>,
    /// See [`crate::observer::Observed`].
    pub programs: Vec<Spelled>,
    /// See [`crate::observer::Observed`].
    pub asked_time: bool,
    /// See [`crate::observer::Observed`].
    pub unstorable: Option<Unstorable>,
}

/// What stands in for watching `readlink`.
struct LinkWalk {
    links: Links,
    memory: Arc<Memory>,
    /// The tool as spelled, its arguments, and its directory.
    invocation: Invocation,
}

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
    unstorable: Option<Unstorable>,
    policy: &'static Policy,
    /// Paths named by `TZ` and `TZDIR`.
    time_zones: Vec<Vec<u8>>,
    /// Device and inode of the client's standard input, if it can be read at all.
    input: Option<(u64, u64)>,
    /// If the filter leaves readings of links out.
    walk: Option<LinkWalk>,
    /// The file system's clock when the run began: files older than this are not the run's own.
    started_ns: i64,
    /// Devices of the kernel's own file systems, whose contents have no signature.
    kernel_devices: [u64; 2],
}

impl Witness {
    /// A witness of one run that is about to start. With a `memory`, links are not watched but walked.
    ///
    /// # Errors
    /// If the client's working directory cannot be opened.
    pub fn new(
        invocation: &Invocation,
        policy: &'static Policy,
        input: Option<(u64, u64)>,
        memory: Option<Arc<Memory>>,
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
            unstorable: None,
            policy,
            time_zones: zone.into_iter().chain(variable(b"TZDIR")).map(<[u8]>::to_vec).collect(),
            input,
            walk: memory.map(|memory| LinkWalk {
                links: Links::default(),
                memory,
                invocation: invocation.clone(),
            }),
            started_ns: coarse_now_ns(),
            kernel_devices: [device("/proc"), device("/sys")],
        })
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
        let a = &n.arguments;
        match meaning {
            Meaning::Open(path, flags) => self.open_call(listener, n, path, flags),
            Meaning::Stat(path, flags) => {
                let nofollow = flags.is_some_and(|i| a[i] as i32 & libc::AT_SYMLINK_NOFOLLOW != 0);
                self.stat_call(n, path, !nofollow);
            }
            Meaning::Lstat(path) => self.stat_call(n, path, false),
            Meaning::Readlink(path) => self.readlink_call(n, path),
            Meaning::Execute(path, flags) => self.execute_call(listener, n, path, flags),
            Meaning::List => self.list(n.tid, a[0] as i32),
            Meaning::Remove(path) => self.change_call(listener, n, path, Self::remove),
            Meaning::MakeOther(path) => self.change_call(listener, n, path, Self::make_other),
            Meaning::Change(path) => self.change_call(listener, n, path, Self::change),
            Meaning::ChangeAt(path) if a[path.path] == 0 => self.change_open(n.tid, directory_of(n, path)),
            Meaning::ChangeAt(path) => self.change_call(listener, n, path, Self::change),
            Meaning::ChangeOpen => self.change_open(n.tid, a[0] as i32),
            Meaning::Rename(from, to, flags) => {
                let exchange = flags.is_some_and(|i| a[i] as u32 & libc::RENAME_EXCHANGE != 0);
                self.rename_call(listener, n, from, to, exchange);
            }
            Meaning::Link(from, to, flags) => self.link_call(listener, n, from, to, flags),
            Meaning::Chdir(path) => {
                if let Some(path) = path {
                    self.stat_call(n, path, true);
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
            Meaning::Unshare => {
                if a[0] as u32 & NAMESPACES != 0 {
                    self.give_up("namespaces");
                }
            }
            Meaning::Escape(how) => self.give_up(how),
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
        let outcome = self.touched.outcome(&self.place);
        if let Some(reason) = outcome.unstorable {
            self.refuse(reason);
        }
        self.look_at_words();
        self.walk_unseen();
        let mut sightings = self.sightings.into_list(|path| self.place.normal(path));
        self.touched.filter(&self.place, exit, &mut sightings);
        Testimony {
            sightings,
            effects: outcome.effects,
            listings: self.listings.unwrap_or_default(),
            programs: self.programs.into_iter().map(Spelled).collect(),
            asked_time: self.asked_time,
            unstorable: self.unstorable,
        }
    }

    // ---- arguments ------------------------------------------------------------------------------------

    /// The spelling of a path argument; none if the call will fail, or we had to give up.
    fn path(&mut self, n: &Notification, arg: PathArg) -> Option<Vec<u8>> {
        let raw = self.raw_path(n, arg)?;
        self.located(n.tid, directory_of(n, arg), raw)
    }

    fn raw_path(&mut self, n: &Notification, arg: PathArg) -> Option<Vec<u8>> {
        let mut raw = Vec::with_capacity(256);
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
            Ok(path) => Some(path),
            Err(Lost::Fails) => None,
            Err(Lost::Unknown(why)) => {
                self.give_up(why);
                None
            }
        }
    }

    // ---- reading --------------------------------------------------------------------------------------

    fn open_call(&mut self, listener: &Listener, n: &Notification, path: PathArg, flags: OpenFlags) {
        let flags = match flags {
            OpenFlags::Arg(i) => n.arguments[i] as i32,
            OpenFlags::Creat => libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC,
            OpenFlags::How(i) => match self.open_how(n, i) {
                Some(flags) => flags,
                None => return,
            },
        };
        let Some(path) = self.path(n, path) else { return };
        if path == b"/dev/tty" && !has_terminal() {
            // Fails for every process of ours (shells try it when they start), so it tells nothing.
            return;
        }
        let writes =
            flags & libc::O_ACCMODE != libc::O_RDONLY || flags & (libc::O_TRUNC | libc::O_CREAT) != 0;
        if self.job_server.is_at(&path) {
            return;
        }
        let is_link_to_open = flags & libc::O_PATH == 0 && is_kernel_link(&path);
        if is_link_to_open {
            self.open_kernel_link(n.tid, &path, writes, flags);
        } else if flags & libc::O_PATH != 0 {
            self.stat(&path, flags & libc::O_NOFOLLOW == 0);
        } else if !writes {
            self.open_to_read(&path, flags & libc::O_NOFOLLOW == 0);
        } else if listener.is_valid(n.id) {
            self.open_to_write(&path, flags);
        }
    }

    /// The flags of `openat2`, if we can stand for what it does.
    fn open_how(&mut self, n: &Notification, argument: usize) -> Option<i32> {
        let mut how = [0_u8; 24];
        if read_memory(n.tid, n.arguments[argument], &mut how) != Ok(how.len()) {
            self.give_up("openat2");
            return None;
        }
        let word = |i: usize| u64::from_le_bytes(std::array::from_fn(|k| how[8 * i + k]));
        if word(2) & !(libc::RESOLVE_CACHED | libc::RESOLVE_NO_MAGICLINKS) != 0 {
            self.give_up("openat2 with its own rules");
            return None;
        }
        Some(word(0) as i32)
    }

    fn open_to_read(&mut self, path: &[u8], follow: bool) {
        if self.sightings.is_settled(path, Question::Read) {
            return;
        }
        if self.policy.ignores(path) || is_sink(path) {
            return self.sightings.ignore(path, Question::Read);
        }
        self.asked_time |= TIME_ZONES.iter().any(|zone| is_at_or_below(path, zone))
            || self.time_zones.iter().any(|zone| is_at_or_below(path, zone));
        if !follow && self.place.signature(path, false).is_ok_and(|s| s.kind() == FileKind::Symlink) {
            return self.stat(path, false);
        }
        self.read(path, Question::Read);
    }

    /// Records the reading or executing of a path; gives the signature of a regular file.
    fn read(&mut self, path: &[u8], question: Question) -> Option<Signature> {
        let signature = self.look(path, question, true)?;
        if self.kernel_devices.contains(&signature.dev) {
            self.refuse(Unstorable::ReadUnstable(name(path)));
            return None;
        }
        match signature.kind() {
            FileKind::File if self.is_own(path, &signature) => {
                self.sightings.own(path);
                Some(signature)
            }
            FileKind::File => {
                let executed = question == Question::Execute;
                if executed && signature.mode & 0o111 == 0 {
                    self.add(path, question, Seen::Metadata { follow: true, signature });
                    return None;
                }
                if brings_code(path) {
                    self.distrust();
                }
                let signature = self.settled(path, signature);
                self.add(path, question, Seen::Read { signature, executed });
                Some(signature)
            }
            FileKind::Directory => {
                self.opened_directories.push((signature.dev, signature.ino, path.to_vec()));
                self.add(path, question, Seen::Kind { follow: true, kind: FileKind::Directory });
                None
            }
            FileKind::Symlink | FileKind::Other => {
                self.refuse(Unstorable::ReadUnstable(name(path)));
                self.sightings.ignore(path, question);
                None
            }
        }
    }

    /// What is at a path, unless that is known, the run's own doing, or nothing (which is recorded).
    fn look(&mut self, path: &[u8], question: Question, follow: bool) -> Option<Signature> {
        if !self.touched.is_empty() && self.touched.knows(&self.place.normal(path)) {
            self.sightings.own(path);
            return None;
        }
        match self.place.signature(path, follow) {
            Ok(signature) => Some(signature),
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.add(path, question, Seen::Absent);
                None
            }
            // Fails for its length, whatever is there.
            Err(Errno::NAMETOOLONG) => None,
            Err(_) => {
                self.refuse(Unstorable::ReadUnstable(name(path)));
                None
            }
        }
    }

    /// Whether this file was written by the run, under whatever name.
    fn is_own(&self, path: &[u8], signature: &Signature) -> bool {
        if self.touched.is_empty() {
            return false;
        }
        self.touched.made(&self.place.normal(path))
            || (signature.ctime_ns >= self.started_ns && self.touched.wrote_inode(&self.place, signature))
    }

    /// Waits for a young file until any later change must show in its signature.
    fn settled(&mut self, path: &[u8], mut signature: Signature) -> Signature {
        let mut waited = Duration::ZERO;
        let max_ns = SETTLE_MAX.as_nanos() as i64;
        loop {
            let now_ns = coarse_now_ns();
            if signature.is_settled(now_ns) {
                return signature;
            }
            if waited >= SETTLE_MAX || !signature.is_settled(now_ns.saturating_add(max_ns)) {
                self.refuse(Unstorable::InputTooNew(name(path)));
                return signature;
            }
            std::thread::sleep(SETTLE_STEP);
            waited += SETTLE_STEP;
            match self.place.signature(path, true) {
                Ok(now) => signature = now,
                Err(_) => self.refuse(Unstorable::InputChanged(name(path))),
            }
        }
    }

    fn add(&mut self, path: &[u8], question: Question, seen: Seen) {
        if !self.sightings.add(path, question, seen) {
            self.refuse(Unstorable::TooMany("sightings"));
        }
        if self.walk.is_some() {
            self.walk_to(path);
        }
    }

    // ---- links ----------------------------------------------------------------------------------------

    /// Notes the links on the way to `path`, where the tool's own reading of them is not seen.
    fn walk_to(&mut self, path: &[u8]) {
        let Some(walk) = &mut self.walk else { return };
        if path.starts_with(b"/proc/") {
            // What links there say is each process's own; nothing there is stored anyway.
            return;
        }
        let mut stones = Vec::new();
        walk.links.walk(&self.place, path, &mut |stone| stones.push(stone));
        self.lay(stones);
    }

    /// Notes what every word of the command line names, if anything: gcc compares its inputs and its output by
    /// their real paths, whether it gets to write the output or not.
    fn look_at_words(&mut self) {
        let Some(walk) = &self.walk else { return };
        let words: Vec<Vec<u8>> =
            walk.invocation.argv.iter().skip(1).map(output_in).map(<[u8]>::to_vec).collect();
        for word in words.iter().filter(|word| !word.is_empty() && word[0] != b'-') {
            self.stat(word, false);
        }
    }

    /// Notes the links that the tool may have read for headers that it then opened elsewhere.
    fn walk_unseen(&mut self) {
        let (Some(walk), None) = (&mut self.walk, &self.unstorable) else { return };
        let mut stones = Vec::new();
        let told = unseen_links::walk_all(
            self.sightings.seen(),
            walk.invocation.argv.iter().skip(1),
            &self.place,
            &walk.memory,
            &mut walk.links,
            &mut |stone| stones.push(stone),
        );
        if let Err(unseen_links::Unclear(path)) = told {
            walk.memory.distrust(&walk.invocation.tool, Some(&walk.invocation.cwd));
            self.give_up(&format!(
                "links may have been read unseen for headers that {} leaves open",
                name(&path)
            ));
        }
        self.lay(stones);
    }

    fn lay(&mut self, stones: Vec<Stone>) {
        for stone in stones {
            let is_link = matches!(stone.seen, Seen::Symlink { .. });
            if is_link && stone.ctime_ns >= self.started_ns {
                self.refuse(Unstorable::InputChanged(name(&stone.path)));
            }
            if !self.sightings.is_settled(&stone.path, Question::Lstat)
                && !self.sightings.add(&stone.path, Question::Lstat, stone.seen)
            {
                self.refuse(Unstorable::TooMany("sightings"));
            }
        }
    }

    /// Someone took part whose reading of links nobody knows: this run is lost, the next one is watched in full.
    fn distrust(&mut self) {
        if let Some(walk) = &self.walk {
            walk.memory.distrust(&walk.invocation.tool, None);
            self.give_up("links may have been read unseen by an unknown program");
        }
    }

    /// Whether the program at `path` is one whose reading of links is known.
    fn is_known(&mut self, path: &[u8]) -> bool {
        let Some(walk) = &mut self.walk else { return true };
        let real = walk.links.walk(&self.place, path, &mut |_| {}).path;
        let base = real.rsplit(|&b| b == b'/').next().unwrap_or_default();
        (self.policy.knows_program)(base)
    }

    fn stat_call(&mut self, n: &Notification, path: PathArg, follow: bool) {
        if let Some(path) = self.path(n, path)
            && !is_kernel_link(&path)
            && !path.starts_with(b"/proc/self/")
        {
            self.stat(&path, follow);
        }
    }

    fn readlink_call(&mut self, n: &Notification, path: PathArg) {
        if let Some(path) = self.path(n, path)
            && !is_kernel_link(&path)
            && !path.starts_with(b"/proc/self/")
        {
            self.readlink(&path);
        }
    }

    /// Of what is no link, its reading tells only that.
    fn readlink(&mut self, path: &[u8]) {
        if self.sightings.is_settled(path, Question::Lstat)
            || self.sightings.is_settled(path, Question::Readlink)
        {
            return;
        }
        let is_file = |s: Signature| s.kind() == FileKind::File;
        if !self.place.signature(path, false).is_ok_and(is_file) {
            return self.stat(path, false);
        }
        let Some(signature) = self.look(path, Question::Readlink, false) else { return };
        if self.is_own(path, &signature) {
            return self.sightings.own(path);
        }
        self.add(path, Question::Readlink, Seen::Kind { follow: false, kind: signature.kind() });
    }

    fn stat(&mut self, path: &[u8], follow: bool) {
        let question = if follow { Question::Stat } else { Question::Lstat };
        if self.sightings.is_settled(path, question) || self.policy.ignores(path) {
            return;
        }
        let Some(signature) = self.look(path, question, follow) else { return };
        if self.is_own(path, &signature) {
            return self.sightings.own(path);
        }
        let seen = match signature.kind() {
            FileKind::Symlink => match rustix::fs::readlinkat(self.place.cwd(), path, Vec::new()) {
                Ok(target) => Seen::Symlink { target: Spelled(target.into_bytes()) },
                Err(_) => return self.refuse(Unstorable::InputChanged(name(path))),
            },
            FileKind::File if !self.kernel_devices.contains(&signature.dev) => {
                Seen::Metadata { follow, signature }
            }
            kind => Seen::Kind { follow, kind },
        };
        self.add(path, question, seen);
    }

    fn list(&mut self, tid: u32, fd: i32) {
        let link = format!("/proc/{tid}/fd/{fd}");
        let Ok(signature) = Signature::at(rustix::fs::CWD, link, AtFlags::empty()) else { return };
        let mut paths: Vec<Vec<u8>> = self
            .opened_directories
            .iter()
            .filter(|(dev, ino, _)| (*dev, *ino) == (signature.dev, signature.ino))
            .map(|(_, _, path)| path.clone())
            .collect();
        if paths.is_empty() {
            match self.place.descriptor(tid, fd) {
                Ok(Open::At(path)) => paths.push(path),
                Ok(Open::Nameless | Open::NoFile) | Err(Lost::Fails) => return,
                Err(Lost::Unknown(why)) => return self.give_up(why),
            }
        }
        for path in paths {
            if self.sightings.is_settled(&path, Question::List) {
                continue;
            }
            if self.kernel_devices.contains(&signature.dev) {
                self.refuse(Unstorable::ReadUnstable(name(&path)));
            }
            let signature = self.settled(&path, signature);
            if let Some(listings) = &mut self.listings
                && let Ok(names) = names_in(self.place.cwd(), &path)
            {
                listings.push(Listing { path: Spelled(path.clone()), names });
            }
            self.add(&path, Question::List, Seen::Listed { signature });
        }
    }

    // ---- executing ------------------------------------------------------------------------------------

    fn execute_call(&mut self, listener: &Listener, n: &Notification, arg: PathArg, flags: Option<usize>) {
        let flags = flags.map_or(0, |i| n.arguments[i] as i32);
        let Some(raw) = self.raw_path(n, arg) else { return };
        let by_descriptor = raw.is_empty() && flags & libc::AT_EMPTY_PATH != 0;
        let path = if by_descriptor {
            self.open_path(n.tid, directory_of(n, arg))
        } else {
            self.located(n.tid, directory_of(n, arg), raw).and_then(|path| match kernel_link(&path) {
                Some(link) => self.kernel_link_target(n.tid, link),
                None => Some(path),
            })
        };
        if let Some(path) = path
            && listener.is_valid(n.id)
        {
            self.execute(n.tid, path, SCRIPT_DEPTH_MAX);
        }
    }

    fn execute(&mut self, tid: u32, path: Vec<u8>, depth: u32) {
        let own = !self.touched.is_empty() && self.touched.made(&self.place.normal(&path));
        if self.programs.contains(&path) || (!own && self.sightings.is_settled(&path, Question::Execute)) {
            return;
        }
        let signature =
            if own { self.place.signature(&path, true).ok() } else { self.read(&path, Question::Execute) };
        let Some(signature) = signature else { return };
        if signature.mode & (libc::S_ISUID | libc::S_ISGID) != 0 {
            self.give_up("a set-id program");
        }
        let format = format_of(self.place.cwd(), &path);
        if self.walk.is_some() && !(matches!(format, Format::Elf(_)) && self.is_known(&path)) {
            self.distrust();
        }
        self.programs.push(path);
        match format {
            Format::Elf(None) => {}
            Format::Elf(Some(loader)) => {
                if let Some(loader) = self.located(tid, libc::AT_FDCWD, loader)
                    && !self.sightings.is_settled(&loader, Question::Execute)
                {
                    self.read(&loader, Question::Execute);
                }
            }
            Format::Script(interpreter) if depth > 0 => {
                if let Some(interpreter) = self.located(tid, libc::AT_FDCWD, interpreter) {
                    self.execute(tid, interpreter, depth - 1);
                }
            }
            Format::Script(_) => {}
            Format::Unknown => self.give_up("a program of unknown format"),
        }
    }

    // ---- the kernel's links to open files -------------------------------------------------------------

    fn open_kernel_link(&mut self, tid: u32, path: &[u8], writes: bool, flags: i32) {
        let Some(link) = kernel_link(path) else { return };
        if self.policy.ignores(path) {
            return;
        }
        match link {
            KernelLink::Descriptor(1 | 2) if writes => {}
            KernelLink::Descriptor(0) if !writes => {
                self.input_used(tid);
                if self.input.is_none() {
                    return;
                }
                // A file named so by the tree itself: a pipe between two of its processes, say.
                self.refuse(Unstorable::ReadUnstable(name(path)));
            }
            _ => match self.kernel_link_target(tid, link) {
                Some(target) if writes => self.open_to_write(&target, flags),
                Some(target) => self.open_to_read(&target, true),
                None => self.refuse(Unstorable::ReadUnstable(name(path))),
            },
        }
    }

    fn kernel_link_target(&mut self, tid: u32, link: KernelLink) -> Option<Vec<u8>> {
        match link {
            KernelLink::Descriptor(fd) => self.open_path(tid, fd),
            KernelLink::Program => {
                let target = rustix::fs::readlink(format!("/proc/{tid}/exe"), Vec::new());
                target.ok().map(std::ffi::CString::into_bytes)
            }
        }
    }

    /// The path of an open file.
    fn open_path(&mut self, tid: u32, fd: i32) -> Option<Vec<u8>> {
        match self.place.descriptor(tid, fd) {
            Ok(Open::At(path)) => Some(path),
            Err(Lost::Fails) => None,
            Ok(Open::Nameless | Open::NoFile) | Err(Lost::Unknown(_)) => {
                self.give_up("a file without a name");
                None
            }
        }
    }

    /// Descriptor 0 is read or copied: that matters if it is the client's own standard input.
    fn input_used(&mut self, tid: u32) {
        let Some((dev, ino)) = self.input else { return };
        if matches!(self.unstorable, Some(Unstorable::ReadStdin)) {
            return;
        }
        match Signature::at(rustix::fs::CWD, format!("/proc/{tid}/fd/0"), AtFlags::empty()) {
            Ok(s) if (s.dev, s.ino) == (dev, ino) => self.refuse(Unstorable::ReadStdin),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(_) => self.give_up("a hidden descriptor"),
        }
    }

    fn connect(&mut self, n: &Notification) {
        let bytes = usize::try_from(n.arguments[2]).unwrap_or(0).min(PATH_BYTES_MAX);
        let mut address = vec![0_u8; bytes];
        let got = read_memory(n.tid, n.arguments[1], &mut address).unwrap_or(0);
        let unix = (libc::AF_UNIX as u16).to_le_bytes();
        let path =
            address[..got].strip_prefix(&unix).and_then(|p| p.split(|&b| b == 0).next()).unwrap_or_default();
        match self.located(n.tid, libc::AT_FDCWD, path.to_vec()) {
            Some(path) if matches!(self.place.signature(&path, true), Err(Errno::NOENT | Errno::NOTDIR)) => {
                self.stat(&path, true);
            }
            _ => self.refuse(Unstorable::UsedSocket),
        }
    }

    // ---- changing -------------------------------------------------------------------------------------

    fn change_call(
        &mut self,
        listener: &Listener,
        n: &Notification,
        arg: PathArg,
        deed: fn(&mut Self, &[u8]),
    ) {
        if let Some(path) = self.path(n, arg)
            && listener.is_valid(n.id)
        {
            deed(self, &path);
        }
    }

    fn open_to_write(&mut self, path: &[u8], flags: i32) {
        if is_sink(path) || flags & libc::O_TMPFILE == libc::O_TMPFILE {
            return;
        }
        match self.place.signature(path, true) {
            Err(Errno::NOENT | Errno::NOTDIR) if flags & libc::O_CREAT == 0 => self.stat(path, true),
            Err(Errno::NOENT | Errno::NOTDIR) => {
                if flags & (libc::O_TRUNC | libc::O_EXCL) == 0 {
                    // What had been there would still be, before or within what the run writes.
                    self.touched.begin_with_nothing(&self.place, path);
                    self.add(path, Question::Read, Seen::Absent);
                }
                self.make(path, Deed::Write);
            }
            Err(_) => self.refuse(Unstorable::ReadUnstable(name(path))),
            Ok(_) if flags & (libc::O_CREAT | libc::O_EXCL) == libc::O_CREAT | libc::O_EXCL => {
                self.stat(path, false)
            }
            Ok(s) if s.kind() == FileKind::Directory => self.stat(path, true),
            Ok(s) if s.kind() != FileKind::File => self.refuse(Unstorable::ChangedExisting(name(path))),
            Ok(s) if self.is_own(path, &s) => {}
            Ok(_) if flags & libc::O_TRUNC != 0 => self.touch(path, Deed::Write),
            Ok(_) if flags & libc::O_ACCMODE == libc::O_RDONLY => self.open_to_read(path, true),
            Ok(_) => self.refuse(Unstorable::ChangedExisting(name(path))),
        }
    }

    /// Notes the making of something where nothing is, unless its directory is missing.
    fn make(&mut self, path: &[u8], deed: Deed) {
        if let Some(parent) = parent(path)
            && matches!(self.place.signature(parent, true), Err(Errno::NOENT | Errno::NOTDIR))
        {
            return self.stat(parent, true);
        }
        self.touch(path, deed);
    }

    fn touch(&mut self, path: &[u8], deed: Deed) {
        if !self.touched.note(&self.place, path, deed) {
            self.refuse(Unstorable::TooMany("changed paths"));
        }
    }

    fn remove(&mut self, path: &[u8]) {
        match self.place.signature(path, false) {
            Ok(_) => self.touch(path, Deed::Remove),
            Err(_) => self.stat(path, false),
        }
    }

    fn make_other(&mut self, path: &[u8]) {
        match self.place.signature(path, false) {
            Ok(_) => self.stat(path, false),
            Err(_) => self.make(path, Deed::MakeOther),
        }
    }

    fn change(&mut self, path: &[u8]) {
        match self.place.signature(path, true) {
            Ok(s) if self.is_own(path, &s) || self.touched.made(&self.place.normal(path)) => {}
            Ok(_) if is_sink(path) => {}
            Ok(_) => self.refuse(Unstorable::ChangedExisting(name(path))),
            Err(_) => self.stat(path, true),
        }
    }

    fn change_open(&mut self, tid: u32, fd: i32) {
        match self.place.descriptor(tid, fd) {
            Ok(Open::At(path)) => self.change(&path),
            // A file without a name is not one that anybody else can see.
            Ok(Open::Nameless | Open::NoFile) | Err(Lost::Fails) => {}
            Err(Lost::Unknown(why)) => self.give_up(why),
        }
    }

    fn rename_call(
        &mut self,
        listener: &Listener,
        n: &Notification,
        from: PathArg,
        to: PathArg,
        exchange: bool,
    ) {
        let (Some(from), Some(to)) = (self.path(n, from), self.path(n, to)) else { return };
        if !listener.is_valid(n.id) {
            return;
        }
        match self.place.signature(&from, false) {
            Err(_) => self.stat(&from, false),
            Ok(s) if !exchange && s.kind() == FileKind::File && self.is_own(&from, &s) => {
                self.touch(&from, Deed::Remove);
                self.make(&to, Deed::RenameTo);
            }
            Ok(_) => self.refuse(Unstorable::ChangedExisting(name(&from))),
        }
    }

    fn link_call(
        &mut self,
        listener: &Listener,
        n: &Notification,
        from: PathArg,
        to: PathArg,
        flags: Option<usize>,
    ) {
        let flags = flags.map_or(0, |i| n.arguments[i] as i32);
        let (Some(raw), Some(to)) = (self.raw_path(n, from), self.path(n, to)) else { return };
        if !listener.is_valid(n.id) {
            return;
        }
        let directory = directory_of(n, from);
        let link = if raw.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
            Some(KernelLink::Descriptor(directory))
        } else {
            kernel_link(&raw)
        };
        if let Some(KernelLink::Descriptor(fd)) = link {
            return match self.place.descriptor(n.tid, fd) {
                // A file made without a name (`O_TMPFILE`) gets one.
                Ok(Open::Nameless) => self.make(&to, Deed::Write),
                _ => self.refuse(Unstorable::ChangedExisting(name(&to))),
            };
        }
        let Some(from) = self.located(n.tid, directory, raw) else { return };
        match self.place.signature(&from, false) {
            Err(_) => self.stat(&from, false),
            Ok(_) if self.place.signature(&to, false).is_ok() => self.stat(&to, false),
            Ok(s) if s.kind() == FileKind::File && self.is_own(&from, &s) => self.make(&to, Deed::Write),
            Ok(_) => self.refuse(Unstorable::ChangedExisting(name(&from))),
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

/// The output in a word like `-oNAME`, or the word.
fn output_in(word: &[u8]) -> &[u8] {
    [&b"--output="[..], b"-o"].iter().find_map(|option| word.strip_prefix(*option)).unwrap_or(word)
}

/// Files that bring code of anybody's into the family's programs: what the loader loads into every program, and
/// gcc's own configuration.
fn brings_code(path: &[u8]) -> bool {
    path == b"/etc/ld.so.preload" || path.ends_with(b"/specs")
}

/// A path for people.
fn name(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// Whether `path` is `top` or in it.
fn is_at_or_below(path: &[u8], top: &[u8]) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Whether this session, which the tool is in as well, has a controlling terminal.
fn has_terminal() -> bool {
    let flags = OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open("/dev/tty", flags, Mode::empty()).is_ok()
}

/// Devices that give nothing but what everybody knows, and keep nothing.
fn is_sink(path: &[u8]) -> bool {
    matches!(path, b"/dev/null" | b"/dev/zero" | b"/dev/full")
}

/// A path that means something of the asking process itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KernelLink {
    /// One of its open files.
    Descriptor(i32),
    /// Its program.
    Program,
}

fn is_kernel_link(path: &[u8]) -> bool {
    // Nearly every path is told by its start.
    (path.starts_with(b"/dev/") || path.starts_with(b"/proc/")) && kernel_link(path).is_some()
}

fn kernel_link(path: &[u8]) -> Option<KernelLink> {
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse().ok().map(KernelLink::Descriptor);
    match path {
        b"/dev/stdin" => Some(KernelLink::Descriptor(0)),
        b"/dev/stdout" => Some(KernelLink::Descriptor(1)),
        b"/dev/stderr" => Some(KernelLink::Descriptor(2)),
        b"/proc/self/exe" => Some(KernelLink::Program),
        _ => path.strip_prefix(b"/dev/fd/").or_else(|| path.strip_prefix(b"/proc/self/fd/")).and_then(number),
    }
}
