//! Calls that change something: opening to write, removing, moving, linking, changing modes.

use rustix::io::Errno;

use super::super::listener::{Listener, Notification};
use super::super::resolve::{Lost, Open, parent};
use super::super::sightings::Question;
use super::super::syscalls::PathArg;
use super::super::touched::Deed;
use super::kernel_links::{KernelLink, kernel_link};
use super::reading::is_sink;
use super::{Witness, directory_of, name};
use crate::file_table::FileTable;
use crate::observation::Seen;
use crate::observer::Unstorable;
use crate::signature::{FileKind, Signature};

/// The largest file whose old content is digested before it is changed, in bytes: the tool waits meanwhile, a tenth of
/// a second for this much.
const OLD_CONTENT_BYTES_MAX: u64 = 256 << 20;

impl Witness {
    pub(super) fn change_call(
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

    pub(super) fn open_to_write(&mut self, path: &[u8], flags: i32) {
        let is_own_lock = self.policy.caution.is_own_lock;
        if is_sink(path) || flags & libc::O_TMPFILE == libc::O_TMPFILE || is_own_lock(path) {
            return;
        }
        match self.place.signature(path, true) {
            Err(Errno::NOENT | Errno::NOTDIR) if flags & libc::O_CREAT == 0 => self.stat(path, true),
            Err(Errno::NOENT | Errno::NOTDIR) => {
                if flags & libc::O_TRUNC == 0 || flags & libc::O_EXCL != 0 {
                    // What had been there would still be, before or within what the run writes, or would be in its way.
                    self.touched.begin_with_nothing(&self.place, path);
                    self.add(path, Question::Read, Seen::Absent, true);
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
            Ok(_) if flags & libc::O_ACCMODE == libc::O_RDONLY => drop(self.open_to_read(path, true)),
            Ok(_) if self.policy.caution.edits => {
                self.read(path, Question::Read);
                self.touch(path, Deed::Write);
            }
            Ok(_) => self.refuse(Unstorable::ChangedExisting(name(path))),
        }
    }

    /// Notes the making of something where nothing is, unless its directory is missing.
    pub(super) fn make(&mut self, path: &[u8], deed: Deed) {
        if let Some(parent) = parent(path)
            && matches!(self.place.signature(parent, true), Err(Errno::NOENT | Errno::NOTDIR))
        {
            return self.stat(parent, true);
        }
        self.touch(path, deed);
    }

    pub(super) fn touch(&mut self, path: &[u8], deed: Deed) {
        let before = self.place.signature(path, false).ok();
        let is_input =
            before.is_some_and(|file| self.sightings.has_read(&file) && self.keep_content(path, &file));
        self.note_deed(path, deed);
        if is_input {
            self.touched.before_is_input(&self.place, path);
        }
    }

    /// Keeps the content of a file that was read and is about to be changed. Says whether that could be done.
    fn keep_content(&mut self, path: &[u8], file: &Signature) -> bool {
        let kept = if file.size > OLD_CONTENT_BYTES_MAX {
            None
        } else {
            FileTable::default().content(self.place.cwd(), path).ok().filter(|now| now.signature == *file)
        };
        let is_kept = kept.is_some_and(|now| self.sightings.keep_content(file, now.digest));
        if !is_kept {
            self.refuse(Unstorable::InputChanged(name(path)));
        }
        is_kept
    }

    fn note_deed(&mut self, path: &[u8], deed: Deed) {
        if !self.touched.note(&self.place, path, deed) {
            self.refuse(Unstorable::TooMany("changed paths"));
        }
    }

    pub(super) fn remove(&mut self, path: &[u8]) {
        match self.place.signature(path, false) {
            Ok(there) => {
                // That there was something to remove is an answer as well.
                if self.policy.caution.old_outputs && !self.touched.knows(&self.place.normal(path)) {
                    let seen = Seen::Kind { follow: false, kind: there.kind() };
                    self.add(path, Question::Lstat, seen, false);
                }
                self.touch(path, Deed::Remove);
            }
            Err(_) => self.stat(path, false),
        }
    }

    pub(super) fn make_other(&mut self, path: &[u8]) {
        match self.place.signature(path, false) {
            Ok(_) => self.stat(path, false),
            Err(_) => self.make(path, Deed::MakeOther),
        }
    }

    pub(super) fn change(&mut self, path: &[u8]) {
        match self.place.signature(path, true) {
            Ok(s) if self.is_own(path, &s) || self.touched.made(&self.place.normal(path)) => {}
            Ok(_) if is_sink(path) => {}
            Ok(_) => self.refuse(Unstorable::ChangedExisting(name(path))),
            Err(_) => self.stat(path, true),
        }
    }

    /// Notes a change that cannot be restored with an output: of its times or attributes.
    pub(super) fn mark(&mut self, path: &[u8]) {
        match self.place.signature(path, true) {
            Ok(_) if self.touched.made(&self.place.normal(path)) => self.note_deed(path, Deed::Mark),
            Ok(_) if !is_sink(path) => self.refuse(Unstorable::ChangedExisting(name(path))),
            _ => self.change(path),
        }
    }

    pub(super) fn change_open(&mut self, tid: u32, fd: i32, deed: fn(&mut Self, &[u8])) {
        match self.place.descriptor(tid, fd) {
            Ok(Open::At(path)) => deed(self, &path),
            // A file without a name is not one that anybody else can see.
            Ok(Open::Nameless | Open::NoFile) | Err(Lost::Fails) => {}
            Err(Lost::Unknown(why)) => self.give_up(why),
        }
    }

    pub(super) fn rename_call(
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

    pub(super) fn link_call(
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
