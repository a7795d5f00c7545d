//! The reading half of a ledger, whose layout and writing half are `actors/interposer/ledger.rs`.
//!
//! What is in it was written by somebody else's program: nothing is believed of it but that each call is one that may have
//! been made, and whatever does not make sense ends the reading.

#![expect(unsafe_code, reason = "memory shared with another process")]

#[path = "../../interposer/ledger.rs"]
#[allow(dead_code, reason = "each side uses its own half")]
mod layout;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::mm::{MapFlags, ProtFlags};

use layout::{HEAD_BYTES, Head, LEDGER_BYTES, MAGIC, NOTE_BYTES, Note, RING_BYTES, SKIP_BYTES, entry_bytes};
pub use layout::{LEDGER_PATH, PATH_BYTES_MAX};

use crate::signature::Signature;

/// What a program saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// It opened this file to read, when the file system's clock stood there.
    Opened {
        /// What the file was.
        signature: Signature,
        /// In nanoseconds since the epoch.
        at_ns: i64,
    },
    /// It would have opened a file to read, and nothing was there.
    NotThere,
    /// It asked whether this is a link, and it is none.
    NoLink,
    /// It asked whether this is a link, and nothing was there.
    NoLinkThere,
    /// It asked about a file, and nothing was there.
    Nothing,
}

impl Noted {
    /// Whether nothing was there.
    pub fn is_miss(self) -> bool {
        matches!(self, Self::NotThere | Self::NoLinkThere | Self::Nothing)
    }
}

/// What was written makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// See the module.
pub struct Ledger {
    file: OwnedFd,
    start: NonNull<u8>,
    /// How far it was read, in bytes written. The writer is told, and not asked.
    read: u64,
    /// As far as is read at present, likewise.
    until: u64,
}

// SAFETY: the mapping is the ledger's own, and is used through it alone.
unsafe impl Send for Ledger {}

impl Ledger {
    /// An empty ledger, whose writer bears these marks, and notes what is no link if it is told to.
    ///
    /// # Errors
    /// Of the system, for want of memory or descriptors.
    pub fn new(marks: [u64; 2], notes_links: bool) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("zccache-ledger", flags)?;
        rustix::fs::ftruncate(&file, LEDGER_BYTES as u64)?;
        // Cut short, it would end whoever looks at what is not there any more.
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::SEAL)?;
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping of a file that cannot become shorter.
        let start = unsafe {
            rustix::mm::mmap(std::ptr::null_mut(), LEDGER_BYTES, rights, MapFlags::SHARED, &file, 0)?
        };
        let start = NonNull::new(start.cast::<u8>()).ok_or(rustix::io::Errno::NOMEM)?;
        let head = start.cast::<Head>();
        // SAFETY: a page is aligned for the head, and has room for it; nobody else knows of it yet.
        unsafe {
            (*head.as_ptr()).magic = MAGIC;
            (*head.as_ptr()).marks = marks;
            (*head.as_ptr()).notes_links = notes_links.into();
        }
        Ok(Self { file, start, read: 0, until: 0 })
    }

    /// From now on what was noted until now is read. What is noted meanwhile is left for the next time: there may be no
    /// end to it.
    pub fn begin(&mut self) {
        self.until = self.head().written.load(Ordering::Acquire);
    }

    /// The next of these notes, with its path in `path`; none if all were read.
    ///
    /// # Errors
    /// [`Broken`]; there is no use in going on then.
    pub fn next(&mut self, path: &mut Vec<u8>) -> Result<Option<Noted>, Broken> {
        loop {
            let read = self.read;
            let unread = self.until.wrapping_sub(read);
            if unread == 0 {
                return Ok(None);
            }
            let place = read % RING_BYTES as u64;
            let rest = (RING_BYTES as u64 - place).min(unread);
            if unread > RING_BYTES as u64 || !read.is_multiple_of(8) || rest < SKIP_BYTES as u64 {
                return Err(Broken);
            }
            let (place, rest) = (HEAD_BYTES + place as usize, rest as usize);
            let mut note = Note::default();
            self.copy(place, (&raw mut note).cast(), NOTE_BYTES.min(rest));
            let path_bytes = note.path_bytes as usize;
            let bytes = match note.kind {
                layout::SKIPPED if path_bytes <= rest - SKIP_BYTES => SKIP_BYTES + path_bytes,
                layout::OPENED..=layout::NOTHING
                    if path_bytes <= PATH_BYTES_MAX && entry_bytes(path_bytes + 1) <= rest =>
                {
                    path.resize(path_bytes, 0);
                    self.copy(place + NOTE_BYTES, path.as_mut_ptr(), path_bytes);
                    entry_bytes(path_bytes + 1)
                }
                _ => return Err(Broken),
            };
            self.read += bytes as u64;
            self.head().read.store(self.read, Ordering::Release);
            return Ok(Some(match note.kind {
                layout::OPENED => Noted::Opened { signature: signature(&note), at_ns: note.at_ns },
                layout::NOT_THERE => Noted::NotThere,
                layout::NO_LINK => Noted::NoLink,
                layout::NO_LINK_THERE => Noted::NoLinkThere,
                layout::NOTHING => Noted::Nothing,
                _ => continue,
            }));
        }
    }

    fn head(&self) -> &Head {
        // SAFETY: a page is aligned for the head, and has room for it. What is read of it after the start is atomic.
        unsafe { self.start.cast().as_ref() }
    }

    fn copy(&self, from: usize, to: *mut u8, bytes: usize) {
        // SAFETY: the caller keeps within the ledger, and gives room for so many bytes. Should the other side write there
        // meanwhile, the bytes are any, which is what they are taken for.
        unsafe { to.copy_from_nonoverlapping(self.start.as_ptr().add(from), bytes) };
    }
}

impl AsFd for Ledger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, used by nobody any more.
        let _ = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), LEDGER_BYTES) };
    }
}

fn signature(note: &Note) -> Signature {
    let (major, minor) = (libc::major(note.dev), libc::minor(note.dev));
    Signature {
        dev: u64::from(major) << 32 | u64::from(minor),
        ino: note.ino,
        size: note.size.unsigned_abs(),
        mtime_ns: note.mtime_ns,
        ctime_ns: note.ctime_ns,
        mode: note.mode as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::layout::{NOT_THERE, OPENED, Writer};
    use super::*;

    fn writer(ledger: &Ledger) -> Writer {
        // SAFETY: the ledger outlives its writer in each test.
        unsafe { Writer::new(ledger.start.as_ptr()) }
    }

    /// The next note there is.
    fn next(ledger: &mut Ledger, path: &mut Vec<u8>) -> Result<Option<Noted>, Broken> {
        ledger.begin();
        ledger.next(path)
    }

    fn note(kind: u32) -> Note {
        Note { kind, ..Note::default() }
    }

    #[test]
    fn what_is_written_is_read_in_order_however_often_the_ring_goes_round() {
        let mut ledger = Ledger::new([1, 2], true).unwrap();
        let writer = writer(&ledger);
        let mut path = Vec::new();
        for round in 0..10_000_usize {
            let written = vec![b'a' + (round % 26) as u8; round * 7 % (PATH_BYTES_MAX + 1)];
            for kind in [NOT_THERE, OPENED] {
                let ino = round as u64;
                writer.begin(&written).unwrap().end(Note { kind, ino, ..Note::default() });
            }
            assert_eq!(next(&mut ledger, &mut path), Ok(Some(Noted::NotThere)));
            assert_eq!(path, written);
            let opened = next(&mut ledger, &mut path).unwrap();
            assert!(matches!(opened, Some(Noted::Opened { signature, .. }) if signature.ino == round as u64));
            assert_eq!(path, written);
            assert_eq!(next(&mut ledger, &mut path), Ok(None));
        }
    }

    #[test]
    fn so_many_bytes_are_written_ahead_and_no_more() {
        let mut ledger = Ledger::new([1, 2], true).unwrap();
        let writer = writer(&ledger);
        let mut path = Vec::new();
        let longest = vec![b'x'; PATH_BYTES_MAX];
        let fill =
            || (0..).take_while(|_| writer.begin(&longest).map(|e| e.end(note(NOT_THERE))).is_some()).count();
        assert_eq!(fill(), RING_BYTES / entry_bytes(PATH_BYTES_MAX + 1));
        for _ in 0..100 {
            assert_eq!(fill(), 0);
            assert!(next(&mut ledger, &mut path).unwrap().is_some());
            assert_eq!((fill(), path.len()), (1, PATH_BYTES_MAX));
        }
        assert!(writer.begin(&vec![b'x'; PATH_BYTES_MAX + 1]).is_none());
    }

    #[test]
    fn an_entry_that_is_not_ended_is_not_told() {
        let mut ledger = Ledger::new([1, 2], true).unwrap();
        let writer = writer(&ledger);
        assert!(writer.begin(b"begun").is_some());
        let mut path = Vec::new();
        assert_eq!(next(&mut ledger, &mut path), Ok(None));
        writer.begin(b"ended").unwrap().end(note(NOT_THERE));
        assert_eq!((next(&mut ledger, &mut path), &path[..]), (Ok(Some(Noted::NotThere)), &b"ended"[..]));
    }

    #[test]
    fn nothing_is_read_twice_though_the_writer_says_so() {
        let mut ledger = Ledger::new([1, 2], true).unwrap();
        let writer = writer(&ledger);
        let mut path = Vec::new();
        writer.begin(b"name").unwrap().end(note(NOT_THERE));
        assert_eq!(next(&mut ledger, &mut path), Ok(Some(Noted::NotThere)));
        ledger.head().read.store(0, Ordering::Relaxed);
        assert_eq!(next(&mut ledger, &mut path), Ok(None));
    }

    #[test]
    fn what_is_noted_meanwhile_is_left_for_the_next_time() {
        let mut ledger = Ledger::new([1, 2], true).unwrap();
        let writer = writer(&ledger);
        let mut path = Vec::new();
        let write = || writer.begin(b"name").unwrap().end(note(NOT_THERE));
        (0..3).for_each(|_| write());
        for _ in 0..10 {
            ledger.begin();
            for _ in 0..3 {
                assert_eq!(ledger.next(&mut path), Ok(Some(Noted::NotThere)));
                write();
            }
            assert_eq!(ledger.next(&mut path), Ok(None));
        }
    }

    #[test]
    fn what_makes_no_sense_is_told_and_nothing_beyond_is_looked_at() {
        let mut seed = 1_u64;
        let mut random = || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed >> 33
        };
        for round in 0..2000 {
            let mut ledger = Ledger::new([1, 2], true).unwrap();
            let head = ledger.start.cast::<Head>().as_ptr();
            for place in (0..RING_BYTES).step_by(8) {
                // Mostly small numbers, so that some are kinds and lengths.
                let word = if round % 2 == 0 { (random() % 5) | ((random() % 200) << 32) } else { random() };
                // SAFETY: within the mapping.
                unsafe { ledger.start.as_ptr().add(HEAD_BYTES + place).cast::<u64>().write(word) };
            }
            // SAFETY: as above.
            unsafe {
                (*head).written.store(random() % 300_000, Ordering::Relaxed);
            }
            ledger.read = random() % 100_000;
            let mut path = Vec::new();
            while let Ok(Some(_)) = next(&mut ledger, &mut path) {
                assert!(path.len() <= PATH_BYTES_MAX);
            }
        }
    }
}
