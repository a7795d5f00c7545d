//! Has the interposer (`actors/interposer/lib.rs`) loaded into programs of a run, so that what they look for is read from
//! their ledgers instead of being reported by the kernel, call by call.
//!
//! Nothing of it shows: not in the environment, not in a file. The GNU C library's loader asks whether there is a list of
//! libraries to be loaded into every program (ld.so(8), `/etc/ld.so.preload`). Where there is none, the observer, who is asked
//! first, has a list for those programs that are worth it, and hands over what it names.
//!
//! ```text
//! loader:     access(LIST) ─► open(LIST) ─► open(LIBRARY)
//! interposer:                               └─► open(LEDGER), once
//! ```
//! All that is handed over is there before the first of these is answered: a loader that does not find what is on its
//! list says so, where a bare tool would say nothing.

#![expect(unsafe_code, reason = "a mapping, made to see whether that is allowed")]

use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use super::ledger::{self, Broken, Ledger, Noted};
use super::listener::{Listener, Notification};

/// The library; empty where none is to be had (`actors/build.rs`).
static LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/interposer.so"));

/// The loader's list of libraries for every program.
pub const LIST_PATH: &[u8] = b"/etc/ld.so.preload";

/// What the list names. Nothing can be there: nobody makes files in `/proc`.
const LIBRARY_PATH: &[u8] = b"/proc/zccache-interposer.so";

/// What the interposer asks for.
const LEDGER_PATH: &[u8] = ledger::LEDGER_PATH.to_bytes();

/// The most programs of a run that have a ledger, each of 132 KiB: a compile has one, or one for each source that is named.
const LEDGERS_MAX: usize = 64;

/// What a call of the interposer's bears to go unreported. Of this process's own making, so that no program has it by chance.
pub fn marks() -> [u64; 2] {
    static MARKS: OnceLock<[u64; 2]> = OnceLock::new();
    *MARKS.get_or_init(|| [(); 2].map(|()| RandomState::new().hash_one(0)))
}

/// The library and the list, ready to be handed over.
#[derive(Debug)]
pub struct Interposer {
    list: OwnedFd,
    library: OwnedFd,
}

impl Interposer {
    /// Makes it ready.
    ///
    /// # Errors
    /// Why it cannot be had here, for people.
    pub fn new() -> io::Result<Self> {
        if LIBRARY.is_empty() {
            return Err(io::Error::other("there is none for this system"));
        }
        let list = sealed("zccache-preload", &[LIBRARY_PATH, b"\n"].concat())?;
        let library = sealed("zccache-interposer", LIBRARY)?;
        may_be_executed(&library)?;
        Ok(Self { list, library })
    }
}

/// A file in memory that nobody can change.
fn sealed(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Where that is asked for (`vm.memfd_noexec`), it must be said that it is not to be run as a program (kernel 6.3).
    let file = rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| rustix::fs::memfd_create(name, flags))?;
    let mut file = std::fs::File::from(file);
    file.write_all(content)?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// Makes sure that the system lets code in this file be run: a loader that was refused would say so.
fn may_be_executed(file: &OwnedFd) -> io::Result<()> {
    let rights = ProtFlags::READ | ProtFlags::EXEC;
    // SAFETY: a new mapping, which nobody uses before it is taken away again.
    unsafe {
        let start =
            rustix::mm::mmap(std::ptr::null_mut(), LIBRARY.len(), rights, MapFlags::PRIVATE, file, 0)?;
        rustix::mm::munmap(start, LIBRARY.len())?;
    }
    Ok(())
}

/// The same file, to be read from its start.
fn opened_anew(file: &OwnedFd) -> io::Result<OwnedFd> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::open(link, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A program whose loader was told that there is a list.
struct Newcomer {
    tid: u32,
    list: OwnedFd,
    library: OwnedFd,
    ledger: Ledger,
}

/// The interposers of one run.
#[derive(Default)]
pub struct Interposing {
    /// None if there are to be none.
    interposer: Option<Arc<Interposer>>,
    notes_links: bool,
    newcomers: Vec<Newcomer>,
    /// By process.
    ledgers: Vec<(u32, Ledger)>,
}

impl Interposing {
    /// In this run programs may be given this interposer. If it `notes_links`, it notes also what is none.
    pub fn with(interposer: Arc<Interposer>, notes_links: bool) -> Self {
        Self { interposer: Some(interposer), notes_links, ..Self::default() }
    }

    /// Whether another program may be given one.
    pub fn has_room(&self) -> bool {
        self.interposer.is_some() && self.ledgers.len() + self.newcomers.len() < LEDGERS_MAX
    }

    /// The program of this thread, whose loader asks for a list, is to have one. Says whether it was told so.
    pub fn welcome(&mut self, listener: &Listener, n: &Notification) -> bool {
        let Some(interposer) = self.interposer.as_deref().filter(|_| self.has_room()) else { return false };
        let newcomer = || -> io::Result<Newcomer> {
            let (list, library) = (opened_anew(&interposer.list)?, opened_anew(&interposer.library)?);
            Ok(Newcomer { tid: n.tid, list, library, ledger: Ledger::new(marks(), self.notes_links)? })
        };
        let Ok(newcomer) = newcomer() else { return false };
        self.newcomers.retain(|n| n.tid != newcomer.tid);
        self.newcomers.push(newcomer);
        listener.succeed(n.id)
    }

    /// Hands over what a newcomer opens here. Says whether this was such a call.
    pub fn hand_over(&mut self, listener: &Listener, n: &Notification, path: &[u8]) -> bool {
        let Some(i) = self.newcomers.iter().position(|newcomer| newcomer.tid == n.tid) else { return false };
        let give = |fd: BorrowedFd<'_>| listener.give(n.id, fd, true);
        match path {
            LIST_PATH => give(self.newcomers[i].list.as_fd()),
            LIBRARY_PATH => give(self.newcomers[i].library.as_fd()),
            LEDGER_PATH => {
                let Newcomer { tid, ledger, .. } = self.newcomers.swap_remove(i);
                let given = give(ledger.as_fd());
                if given {
                    self.ledgers.retain(|(process, _)| *process != tid);
                    self.ledgers.push((tid, ledger));
                }
                given
            }
            _ => false,
        }
    }

    /// From now on what programs noted until now is taken.
    pub fn begin(&mut self) {
        self.ledgers.iter_mut().for_each(|(_, ledger)| ledger.begin());
    }

    /// The next that a program noted of this, with its process, and the path in `path`; none if all was taken.
    ///
    /// # Errors
    /// If what it noted makes no sense.
    pub fn next(&mut self, path: &mut Vec<u8>) -> Result<Option<(u32, Noted)>, Broken> {
        for (process, ledger) in &mut self.ledgers {
            if let Some(noted) = ledger.next(path)? {
                return Ok(Some((*process, noted)));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_programs_of_a_run_have_a_ledger() {
        let mut interposing = Interposing::with(Arc::new(Interposer::new().unwrap()), true);
        for process in 0..LEDGERS_MAX as u32 {
            assert!(interposing.has_room());
            interposing.ledgers.push((process, Ledger::new(marks(), true).unwrap()));
        }
        assert!(!interposing.has_room());
        assert!(!Interposing::default().has_room());
    }

    #[test]
    fn what_is_handed_over_cannot_be_changed() {
        let interposer = Interposer::new().unwrap();
        for file in [&interposer.list, &interposer.library] {
            assert!(rustix::io::write(file, b"x").is_err());
            assert!(rustix::fs::ftruncate(file, 0).is_err());
        }
    }
}
