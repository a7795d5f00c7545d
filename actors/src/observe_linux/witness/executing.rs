//! Calls that execute a program.

use super::super::listener::{Listener, Notification};
use super::super::sightings::Question;
use super::super::syscalls::PathArg;
use super::kernel_links::kernel_link;
use super::{Witness, directory_of};
use crate::program_file::Format;
use crate::signature::FileKind;

/// How deep scripts may name scripts as their interpreters (the kernel gives up after 5).
const SCRIPT_DEPTH_MAX: u32 = 6;

impl Witness {
    pub(super) fn execute_call(
        &mut self,
        listener: &Listener,
        n: &Notification,
        arg: PathArg,
        flags: Option<usize>,
    ) {
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

    pub(super) fn execute(&mut self, tid: u32, path: Vec<u8>, depth: u32) {
        let own = !self.touched.is_empty() && self.touched.made(&self.place.normal(&path));
        if self.programs.contains(&path) || (!own && self.sightings.is_settled(&path, Question::Execute)) {
            return;
        }
        let signature =
            if own { self.place.signature(&path, true).ok() } else { self.read(&path, Question::Execute) };
        let Some(signature) = signature.filter(|s| s.kind() == FileKind::File) else { return };
        if signature.mode & (libc::S_ISUID | libc::S_ISGID) != 0 {
            self.give_up("a set-id program");
        }
        let format = self.memory.format_of(&self.place, &path, &signature);
        if self.is_watched_in_part() && !(matches!(format, Format::Elf(_)) && self.is_known(&path)) {
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
}
