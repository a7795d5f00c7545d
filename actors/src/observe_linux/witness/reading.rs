//! Calls that read: opening, listing, standard input, sockets.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::super::listener::{Listener, Notification, PATH_BYTES_MAX, read_memory};
use super::super::process::program_of;
use super::super::resolve::{Lost, Open};
use super::super::sightings::Question;
use super::super::syscalls::{OpenFlags, PathArg};
use super::kernel_links::is_kernel_link;
use super::{Witness, directory_of, name};
use crate::heritage;
use crate::name_filter::names_in;
use crate::observation::{Seen, Spelled};
use crate::observer::{Listing, Unstorable};
use crate::signature::{FileKind, Signature, coarse_now_ns};

/// How long a young file is waited for until any later change must show in its signature: the longest clock
/// tick (10 ms at 100 Hz) and the step below.
const SETTLE_MAX: Duration = Duration::from_millis(12);

/// How often it is looked at meanwhile.
const SETTLE_STEP: Duration = Duration::from_millis(1);

/// Where the C libraries keep time zones, whose reading means that the time is asked for.
const TIME_ZONES: &[&[u8]] = &[
    b"/etc/localtime",
    b"/usr/share/zoneinfo",
    b"/usr/lib/zoneinfo",
    b"/usr/share/lib/zoneinfo",
    b"/share/zoneinfo",
    b"/etc/zoneinfo",
];

/// Where random numbers come from.
const RANDOM_DEVICES: &[&[u8]] = &[b"/dev/urandom", b"/dev/random"];

/// What a look at a path found.
pub(super) struct Look {
    pub signature: Signature,
    /// The path's last name is a link, or may be one.
    pub linked: bool,
}

impl Witness {
    pub(super) fn open_call(
        &mut self,
        listener: &Listener,
        n: &Notification,
        path: PathArg,
        flags: OpenFlags,
    ) {
        let flags = match flags {
            OpenFlags::Arg(i) => n.arguments[i] as i32,
            OpenFlags::Creat => libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC,
            OpenFlags::How(i) => match self.open_how(n, i) {
                Some(flags) => flags,
                None => return,
            },
        };
        let Some(raw) = self.raw_path(n, path) else { return };
        if self.interposing.hand_over(listener, n, &raw) {
            return;
        }
        let Some(path) = self.located(n.tid, directory_of(n, path), raw) else { return };
        if path == b"/dev/tty" {
            return self.open_terminal(listener, n.id, flags);
        }
        let writes =
            flags & libc::O_ACCMODE != libc::O_RDONLY || flags & (libc::O_TRUNC | libc::O_CREAT) != 0;
        if RANDOM_DEVICES.contains(&&path[..]) && !writes && self.chance.is_some() {
            self.chance_taken(n.tid, Unstorable::TookRandomNumbers);
        }
        if !writes && !self.asked_time && self.is_time_zone(&path) {
            self.asked_time = !self.asks_zone_idly(n.tid);
        }
        if self.job_server.is_at(&path) {
            return;
        }
        let is_link_to_open = flags & libc::O_PATH == 0 && is_kernel_link(&path);
        if is_link_to_open {
            self.open_kernel_link(n.tid, &path, writes, flags);
        } else if flags & libc::O_PATH != 0 {
            self.stat(&path, flags & libc::O_NOFOLLOW == 0);
        } else if !writes {
            let is_new = !self.sightings.is_settled(&path, Question::Read);
            self.open_to_read(&path, flags & libc::O_NOFOLLOW == 0);
            self.just_opened = None;
            if is_new {
                self.just_opened = Some((n.tid, path));
                return;
            }
        } else if listener.is_valid(n.id) {
            self.open_to_write(&path, flags);
        }
        self.spare = path;
    }

    /// The client's own terminal is what the tool means: it is handed over, and whatever comes of it not stored. Where
    /// there is none the call fails (shells try it when they start): that tells nothing.
    fn open_terminal(&mut self, listener: &Listener, id: u64, flags: i32) {
        let terminal = self.client_pid.and_then(heritage::terminal_of);
        if terminal.is_none() && !has_terminal() {
            return;
        }
        self.refuse(Unstorable::ReadUnstable("/dev/tty".into()));
        let closes_on_exec = flags & libc::O_CLOEXEC != 0;
        let flags = OFlags::from_bits_retain(flags as u32) | OFlags::NOCTTY | OFlags::CLOEXEC;
        let opened = terminal.flatten().and_then(|path| rustix::fs::open(path, flags, Mode::empty()).ok());
        if let Some(opened) = opened {
            listener.give(id, opened.as_fd(), closes_on_exec);
        }
    }

    /// lld opens its old output, so that removing it takes no time, and closes it behind: it reads nothing of it.
    pub(super) fn forget_what_was_opened_to_be_removed(&mut self, n: &Notification, path: PathArg) {
        let Some((tid, opened)) = self.just_opened.take() else { return };
        if tid == n.tid
            && self.path(n, path).is_some_and(|path| path == opened)
            && program_of(tid).is_some_and(|name| (self.policy.caution.opens_to_remove)(&name))
        {
            self.sightings.forget_reading(&opened);
        }
    }

    /// The flags of `openat2`, if we can stand for what it does.
    pub(super) fn open_how(&mut self, n: &Notification, argument: usize) -> Option<i32> {
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

    pub(super) fn is_time_zone(&self, path: &[u8]) -> bool {
        TIME_ZONES.iter().any(|zone| is_at_or_below(path, zone))
            || self.time_zones.iter().any(|zone| is_at_or_below(path, zone))
    }

    pub(super) fn asks_zone_idly(&self, tid: u32) -> bool {
        program_of(tid).is_some_and(|name| (self.policy.caution.asks_zone_idly)(&name))
    }

    /// Notes what opening a path to read finds; gives that, if it was not known.
    pub(super) fn open_to_read(&mut self, path: &[u8], follow: bool) -> Option<Signature> {
        if self.touched.may_know(path)
            && let Ok(signature) = self.place.signature(path, true)
        {
            self.touched.note_reading(&self.place, &signature);
        }
        if self.sightings.is_settled(path, Question::Read) {
            return None;
        }
        if self.policy.ignores(path) || is_sink(path) {
            self.sightings.ignore(path, Question::Read);
            return None;
        }
        if !follow && self.place.signature(path, false).is_ok_and(|s| s.kind() == FileKind::Symlink) {
            return self.ask(path, Question::Lstat);
        }
        self.read(path, Question::Read)
    }

    /// Records the reading or executing of a path; gives the signature of a file or a directory.
    pub(super) fn read(&mut self, path: &[u8], question: Question) -> Option<Signature> {
        let Look { signature, linked } = self.look(path, question, true)?;
        if self.kernel_devices.contains(&signature.dev) {
            self.refuse(Unstorable::ReadUnstable(name(path)));
            return None;
        }
        match signature.kind() {
            FileKind::File if self.is_own(path, &signature) => {
                self.touched.note_reading(&self.place, &signature);
                self.sightings.own(path);
                Some(signature)
            }
            FileKind::File => {
                let executed = question == Question::Execute;
                if executed && signature.mode & 0o111 == 0 {
                    self.add(path, question, Seen::Metadata { follow: true, signature }, linked);
                    return None;
                }
                if brings_code(path) {
                    self.distrust();
                }
                let signature = self.settled(path, signature);
                self.add(path, question, Seen::Read { signature, executed, linked }, linked);
                Some(signature)
            }
            FileKind::Directory => {
                self.opened_directories.push((signature.dev, signature.ino, path.to_vec()));
                self.add(path, question, Seen::Kind { follow: true, kind: FileKind::Directory }, linked);
                Some(signature)
            }
            FileKind::Symlink | FileKind::Other => {
                self.refuse(Unstorable::ReadUnstable(name(path)));
                self.sightings.ignore(path, question);
                None
            }
        }
    }

    /// What is at a path, unless that is known, the run's own doing, or nothing (which is recorded).
    pub(super) fn look(&mut self, path: &[u8], question: Question, follow: bool) -> Option<Look> {
        if self.touched.may_know(path) && self.touched.knows(&self.place.normal(path)) {
            self.sightings.own(path);
            return None;
        }
        // The name first: it tells whether it is a link as well, and nearly none is.
        let mut found = self.place.signature(path, false);
        let linked = path.ends_with(b"/") || found.is_ok_and(|s| s.kind() == FileKind::Symlink);
        if linked && follow {
            found = self.place.signature(path, true);
            if self.place.leads_through_kernel_link(path) {
                self.refuse(Unstorable::ReadUnstable(name(path)));
            }
        }
        match found {
            Ok(signature) => Some(Look { signature, linked }),
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.add(path, question, Seen::Absent, linked);
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
    pub(super) fn is_own(&self, path: &[u8], signature: &Signature) -> bool {
        if self.touched.is_empty() {
            return false;
        }
        (self.touched.may_know(path) && self.touched.made(&self.place.normal(path)))
            || (signature.ctime_ns >= self.started_ns && self.touched.wrote_inode(&self.place, signature))
    }

    /// Waits for a young file until any later change must show in its signature.
    pub(super) fn settled(&mut self, path: &[u8], mut signature: Signature) -> Signature {
        let (mut waited, max_ns) = (Duration::ZERO, SETTLE_MAX.as_nanos() as i64);
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

    /// Notes an answer. `linked`: the path's last name is a link, or may be one.
    pub(super) fn add(&mut self, path: &[u8], question: Question, seen: Seen, linked: bool) {
        // Where the name itself holds no link, only its directory's path can.
        let may_end = linked || matches!(seen, Seen::Kind { kind: FileKind::Directory, .. });
        if !self.sightings.add(path, question, seen) {
            self.refuse(Unstorable::TooMany("sightings"));
        }
        if self.walk.is_some() {
            self.walk_to(path, may_end);
        }
    }

    pub(super) fn list(&mut self, tid: u32, fd: i32) {
        if program_of(tid).is_some_and(|name| (self.policy.caution.lists_idly)(&name)) {
            return;
        }
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
            self.add(&path, Question::List, Seen::Listed { signature }, true);
        }
    }

    /// Descriptor 0 is read or copied: that matters if it is the client's own standard input.
    pub(super) fn input_used(&mut self, tid: u32) {
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

    pub(super) fn connect(&mut self, n: &Notification) {
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
}

/// Files that bring code of anybody's into the family's programs: what the loader loads into every program, and
/// gcc's own configuration.
fn brings_code(path: &[u8]) -> bool {
    path == b"/etc/ld.so.preload" || path.ends_with(b"/specs")
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
pub(super) fn is_sink(path: &[u8]) -> bool {
    matches!(path, b"/dev/null" | b"/dev/zero" | b"/dev/full")
}
