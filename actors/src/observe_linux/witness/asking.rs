//! Calls that ask about a path, and do not open it.

use super::super::interposer::LIST_PATH;
use super::super::listener::{Listener, Notification};
use super::super::sightings::Question;
use super::super::syscalls::PathArg;
use super::kernel_links::is_kernel_link;
use super::reading::Look;
use super::{Witness, name};
use crate::observation::{Seen, Spelled};
use crate::observer::Unstorable;
use crate::signature::{FileKind, Signature};

impl Witness {
    pub(super) fn stat_call(
        &mut self,
        listener: &Listener,
        n: &Notification,
        path: PathArg,
        question: Question,
    ) {
        let Some(path) = self.path(n, path) else { return };
        if !is_kernel_link(&path) && !path.starts_with(b"/proc/self/") {
            self.ask(&path, question);
        }
        if path == LIST_PATH {
            self.welcome(listener, n);
        }
        self.spare = path;
    }

    /// Asks for the free space where a path is; where nothing is (libraries look for file systems so), for that alone.
    pub(super) fn measure(&mut self, n: &Notification, path: PathArg) {
        let Some(path) = self.path(n, path) else { return };
        self.ask(&path, Question::Stat);
        if self.place.signature(&path, true).is_ok() {
            self.chance_taken(n.tid, Unstorable::ReadClock);
        }
    }

    pub(super) fn stat(&mut self, path: &[u8], follow: bool) {
        self.ask(path, if follow { Question::Stat } else { Question::Lstat });
    }

    /// Notes what `Stat`, `Lstat` or `Readlink` finds out; gives that, if it was not known.
    pub(super) fn ask(&mut self, path: &[u8], question: Question) -> Option<Signature> {
        let follow = question == Question::Stat;
        if self.sightings.is_settled(path, question) || self.policy.ignores(path) {
            return None;
        }
        let Look { signature, linked } = self.look(path, question, follow)?;
        if self.is_own(path, &signature) {
            self.sightings.own(path);
            return None;
        }
        let seen = match signature.kind() {
            FileKind::Symlink => match rustix::fs::readlinkat(self.place.cwd(), path, Vec::new()) {
                Ok(target) => Seen::Symlink { target: Spelled(target.into_bytes()) },
                Err(_) => {
                    self.refuse(Unstorable::InputChanged(name(path)));
                    return None;
                }
            },
            // That a file is no link tells nothing else of it.
            FileKind::File
                if question != Question::Readlink && !self.kernel_devices.contains(&signature.dev) =>
            {
                Seen::Metadata { follow, signature }
            }
            kind => Seen::Kind { follow, kind },
        };
        self.add(path, question, seen, linked);
        Some(signature)
    }
}
