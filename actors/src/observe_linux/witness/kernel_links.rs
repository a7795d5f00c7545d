//! The kernel's links to open files: paths that mean something of the asking process itself.
//!
//! Those that name an open file or the program are resolved for the process that asks. What lies behind another
//! (`/proc/self/cwd/a.h`, or a link to there) would be another file for us than for it, so that is not stored.

use super::super::resolve::{Lost, Open, parent};
use super::{Witness, name};
use crate::observer::Unstorable;

/// A path that means something of the asking process itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KernelLink {
    /// One of its open files.
    Descriptor(i32),
    /// Its program.
    Program,
}

impl Witness {
    pub(super) fn open_kernel_link(&mut self, tid: u32, path: &[u8], writes: bool, flags: i32) {
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
                Some(target) => drop(self.open_to_read(&target, true)),
                None => self.refuse(Unstorable::ReadUnstable(name(path))),
            },
        }
    }

    /// Refuses a path that leads through one of the kernel's links: what is behind it is the asking process's own.
    pub(super) fn refuse_what_is_behind_kernel_links(&mut self, path: &[u8]) {
        let Some(directory) = parent(path) else { return };
        if self.plain_directories.contains(directory) {
            return;
        }
        if !self.is_plain_way(directory) && self.place.leads_through_kernel_link(directory) {
            return self.refuse(Unstorable::ReadUnstable(name(path)));
        }
        self.plain_directories.insert(directory.to_vec());
    }

    pub(super) fn kernel_link_target(&mut self, tid: u32, link: KernelLink) -> Option<Vec<u8>> {
        match link {
            KernelLink::Descriptor(fd) => self.open_path(tid, fd),
            KernelLink::Program => {
                let target = rustix::fs::readlink(format!("/proc/{tid}/exe"), Vec::new());
                target.ok().map(std::ffi::CString::into_bytes)
            }
        }
    }

    /// The path of an open file.
    pub(super) fn open_path(&mut self, tid: u32, fd: i32) -> Option<Vec<u8>> {
        match self.place.descriptor(tid, fd) {
            Ok(Open::At(path)) => Some(path),
            Err(Lost::Fails) => None,
            Ok(Open::Nameless | Open::NoFile) | Err(Lost::Unknown(_)) => {
                self.give_up("a file without a name");
                None
            }
        }
    }
}

pub(super) fn is_kernel_link(path: &[u8]) -> bool {
    // Nearly every path is told by its start.
    (path.starts_with(b"/dev/") || path.starts_with(b"/proc/")) && kernel_link(path).is_some()
}

pub(super) fn kernel_link(path: &[u8]) -> Option<KernelLink> {
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse().ok().map(KernelLink::Descriptor);
    match path {
        b"/dev/stdin" => Some(KernelLink::Descriptor(0)),
        b"/dev/stdout" => Some(KernelLink::Descriptor(1)),
        b"/dev/stderr" => Some(KernelLink::Descriptor(2)),
        b"/proc/self/exe" => Some(KernelLink::Program),
        _ => path.strip_prefix(b"/dev/fd/").or_else(|| path.strip_prefix(b"/proc/self/fd/")).and_then(number),
    }
}
