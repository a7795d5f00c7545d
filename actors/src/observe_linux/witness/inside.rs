//! What programs note themselves, through the interposer.
//!
//! It is taken into account later than it happened: before the next call that is reported, or at the program's end. So what
//! was there then is compared with what is there now, and where that differs, the run is not stored. (What the run itself
//! does to files is reported before it is done, so it comes after all that was noted before.)

use super::super::interposer::{Interposer, LIST_PATH};
use super::super::ledger::Noted;
use super::super::listener::{Listener, Notification};
use super::super::process::program_of;
use super::super::sightings::Question;
use super::kernel_links::is_kernel_link;
use super::*;
use crate::signature::FileKind;

/// The calls by which a loader asks whether there is a list: any other wants to be told more.
#[cfg(target_arch = "x86_64")]
const ASKING: &[libc::c_long] = &[libc::SYS_access, libc::SYS_faccessat, libc::SYS_faccessat2];
/// See above.
#[cfg(not(target_arch = "x86_64"))]
const ASKING: &[libc::c_long] = &[libc::SYS_faccessat, libc::SYS_faccessat2];

impl Witness {
    /// Programs of this run are given this interposer.
    pub fn interpose(&mut self, interposer: &Arc<Interposer>) {
        self.interposing = Interposing::with(Arc::clone(interposer), self.walk.is_none());
    }

    /// A loader asks for the list of libraries for every program: if there is none, and its program is one that is worth it,
    /// it is told of ours.
    pub(super) fn welcome(&mut self, listener: &Listener, n: &Notification) {
        let is_asking = ASKING.contains(&libc::c_long::from(n.number));
        if !is_asking
            || !self.interposing.has_room()
            || self.place.signature(LIST_PATH, false) != Err(Errno::NOENT)
        {
            return;
        }
        let is_worth_it = program_of(n.tid).is_some_and(|name| (self.policy.searches)(&name))
            && self.memory.is_host(&format!("/proc/{}/exe", n.tid));
        if is_worth_it {
            self.interposing.welcome(listener, n);
        }
    }

    /// Whether this call ends a process whose notes can still be understood when it is gone.
    pub fn is_end(&self, n: &Notification) -> bool {
        meaning_of(n.number) == Some(Meaning::Exit) && !self.place.moved
    }

    /// Takes into account what programs noted until now.
    pub fn catch_up(&mut self) {
        let mut path = std::mem::take(&mut self.spare);
        self.interposing.begin();
        loop {
            match self.interposing.next(&mut path) {
                Ok(Some((process, noted))) => path = self.take(process, path, noted),
                Ok(None) => break,
                Err(_) => {
                    self.give_up("a program wrote over its notes");
                    self.interposing = Interposing::default();
                    break;
                }
            }
        }
        self.spare = path;
    }

    /// Takes a note into account. Gives the path back, for its memory.
    fn take(&mut self, process: u32, path: Vec<u8>, noted: Noted) -> Vec<u8> {
        self.just_opened = None;
        let Some(path) = self.located(process, libc::AT_FDCWD, path) else {
            self.give_up("a program's directory was not seen");
            return Vec::new();
        };
        if !self.asked_time && self.is_time_zone(&path) {
            self.asked_time = !self.asks_zone_idly(process);
        }
        if self.job_server.is_at(&path) || self.policy.ignores(&path) {
            return path;
        }
        let question = match noted {
            Noted::Opened { .. } | Noted::NotThere => Question::Read,
            Noted::NoLink | Noted::NoLinkThere => Question::Readlink,
            Noted::Nothing => Question::Stat,
        };
        if is_kernel_link(&path) {
            self.refuse(Unstorable::ReadUnstable(name(&path)));
        } else if !self.sightings.is_settled(&path, question) {
            self.compare(&path, question, noted);
        } else if self.sightings.is_absent(&path) != noted.is_miss()
            && !self.sightings.is_own(&path)
            && !self.touched.knows(&self.place.normal(&path))
        {
            // It came or went meanwhile, by somebody else's doing.
            self.refuse(Unstorable::InputChanged(name(&path)));
        }
        path
    }

    /// Looks at what a note is about, and whether it is still so.
    fn compare(&mut self, path: &[u8], question: Question, noted: Noted) {
        let found = match question {
            Question::Read => self.open_to_read(path, true),
            _ => self.ask(path, question),
        };
        let is_still_so = match (noted, found) {
            _ if self.sightings.is_own(path) => true,
            (Noted::Opened { signature, at_ns }, Some(now)) => match signature.kind() {
                // Nothing more is seen of it; listing it is reported.
                FileKind::Directory => now.kind() == FileKind::Directory,
                // One that may have changed since without a sign was to be opened in sight.
                _ => now == signature && signature.is_settled(at_ns),
            },
            (Noted::NoLink, Some(now)) => now.kind() != FileKind::Symlink,
            (_, Some(_)) => false,
            (_, None) => noted.is_miss() && self.sightings.is_absent(path),
        };
        if !is_still_so {
            self.refuse(Unstorable::InputChanged(name(path)));
        }
    }
}
