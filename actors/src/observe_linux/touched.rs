//! What the run changed so far: for each path, what was there before and what the run did to it.
//!
//! ```text
//! before \ after   | there                        | gone
//! nothing          | written: an effect           | a temporary: nothing
//! a regular file   | written: an effect           | removed: an effect
//! anything else    | not ours to restore          | not ours to restore
//! ```
//! Whether a file that is there is a new one is told by its inode. What was there before is held open meanwhile, lest
//! its number is given to the next file made.

use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use zccache_proto::message::Exit;

use super::resolve::Place;
use crate::observation::{Seen, Sighting, Spelled};
use crate::observer::{Effect, Left, Origin, Unstorable};
use crate::signature::{FileKind, Signature, coarse_now_ns};

/// The most paths one run may change: far beyond any compile's outputs and temporaries.
pub const TOUCHED_MAX: usize = 10_000;

/// The most files that are held open; of further ones, a new file with the old one's number is taken for the old one.
const HELD_MAX: usize = 64;

/// What was at a path before the run first touched it.
#[derive(Debug, Clone, Copy)]
enum Before {
    Absent,
    File { signature: Signature, settled: bool },
    Other,
}

/// One changed path.
struct Touch {
    path: Vec<u8>,
    before: Before,
    /// The run wrote a regular file here.
    written: bool,
    /// The run made something else here: a directory, a link, a special file.
    other: bool,
    /// The run took away what was here, at least once.
    removed: bool,
    /// The run moved another file here.
    renamed_over: bool,
    /// The run set times or attributes of what it wrote here.
    marked: bool,
    /// What was here before was read, or asked about, and so is an input.
    before_is_input: bool,
    /// The run read what it had written here.
    reread: bool,
    /// Keeps the inode of what was here before from being used again.
    _held: Option<OwnedFd>,
}

/// What the run does to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Writes a regular file, from its start.
    Write,
    /// Moves a file of its own here.
    RenameTo,
    /// Sets times or attributes, which a hit would not restore.
    Mark,
    /// Makes anything else.
    MakeOther,
    /// Takes away.
    Remove,
}

/// See the module.
#[derive(Default)]
pub struct Touched {
    by_normal: HashMap<Vec<u8>, usize>,
    list: Vec<Touch>,
    /// Paths that were written with no regard to what might have been there: that nothing was is an input.
    from_nothing: HashSet<Vec<u8>>,
}

/// The end of it.
pub struct Outcome {
    /// What is to be restored on a hit.
    pub effects: Vec<Effect>,
    /// Which of these the run read after it had begun to write them.
    pub reread: Vec<Spelled>,
    /// Why that is not possible.
    pub unstorable: Option<Unstorable>,
}

impl Touched {
    /// Whether the run changed anything yet.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether [`Touched::knows`] and [`Touched::made`] can say yes to a spelling, told by its last name alone: nearly
    /// all that a tool asks for was never touched, and making a normal form of each costs more than all else here.
    pub fn may_know(&self, path: &[u8]) -> bool {
        match last_name(path) {
            Some(last) => self.list.iter().any(|t| last_name(&t.path).is_none_or(|name| name == last)),
            None => !self.list.is_empty(),
        }
    }

    /// Whether the run changed this path: its state is the run's own.
    pub fn knows(&self, normal: &[u8]) -> bool {
        self.by_normal.contains_key(normal)
    }

    /// Whether what is at this path now was made by the run.
    pub fn made(&self, normal: &[u8]) -> bool {
        self.by_normal.get(normal).is_some_and(|&i| self.list[i].written || self.list[i].other)
    }

    /// Whether this file is one that the run wrote under another spelling.
    pub fn wrote_inode(&self, place: &Place, signature: &Signature) -> bool {
        self.list.iter().filter(|t| t.written).any(|t| {
            place.signature(&t.path, true).is_ok_and(|s| s.dev == signature.dev && s.ino == signature.ino)
        })
    }

    /// Notes that the run reads this file, which may be one that it wrote.
    pub fn note_reading(&mut self, place: &Place, file: &Signature) {
        let is_it = |s: Signature| (s.dev, s.ino) == (file.dev, file.ino);
        for touch in self.list.iter_mut().filter(|t| t.written && !t.reread) {
            touch.reread = place.signature(&touch.path, true).is_ok_and(is_it);
        }
    }

    /// Notes that the run is about to make this file so that it would have added to an older one.
    pub fn begin_with_nothing(&mut self, place: &Place, path: &[u8]) {
        let normal = place.normal(path);
        if !self.by_normal.contains_key(&normal) {
            self.from_nothing.insert(normal);
        }
    }

    /// Notes a deed, before it is done. Says false if there are too many.
    pub fn note(&mut self, place: &Place, path: &[u8], deed: Deed) -> bool {
        let normal = place.normal(path);
        let index = match self.by_normal.get(&normal) {
            Some(&index) => index,
            None if self.list.len() >= TOUCHED_MAX => return false,
            None => {
                let before = before(place, path);
                let is_held = matches!(before, Before::File { .. }) && self.list.len() < HELD_MAX;
                self.list.push(Touch {
                    path: path.to_vec(),
                    before,
                    written: false,
                    other: false,
                    removed: false,
                    renamed_over: false,
                    marked: false,
                    before_is_input: false,
                    reread: false,
                    _held: is_held.then(|| hold(place, path)).flatten(),
                });
                self.by_normal.insert(normal, self.list.len() - 1);
                self.list.len() - 1
            }
        };
        let touch = &mut self.list[index];
        match deed {
            Deed::Write => touch.written = true,
            Deed::RenameTo => (touch.written, touch.renamed_over) = (true, true),
            Deed::Mark => touch.marked = true,
            Deed::MakeOther => touch.other = true,
            Deed::Remove => touch.removed = true,
        }
        true
    }

    /// What was at this changed path before is an input of the run.
    pub fn before_is_input(&mut self, place: &Place, path: &[u8]) {
        if let Some(&index) = self.by_normal.get(&place.normal(path)) {
            self.list[index].before_is_input = true;
        }
    }

    /// Makes of the sightings of changed paths what was seen before, where that `is_input`: it does not hold any more.
    pub fn keep_before(
        &self,
        place: &Place,
        sightings: &mut [Sighting],
        is_input: impl Fn(&Sighting) -> bool,
    ) {
        for sighting in sightings.iter_mut().filter(|s| !self.list.is_empty() && is_input(s)) {
            let is_of_state =
                !matches!(sighting.seen, Seen::Read { .. } | Seen::Listed { .. } | Seen::Before { .. });
            if !is_of_state {
                continue;
            }
            let normal = place.normal(&sighting.path.0);
            let is_made_for_good =
                self.by_normal.get(&normal).is_some_and(|&i| !is_temporary(place, &self.list[i]));
            if is_made_for_good {
                let seen = Box::new(std::mem::replace(&mut sighting.seen, Seen::Absent));
                sighting.seen = Seen::Before { seen, digest: None };
            }
        }
    }

    /// Takes out of `sightings` those that the run itself made so: questions about its temporaries, and, if all
    /// went well, about its outputs. (A failing tool may have removed an old output, or not: there it shows.)
    ///
    /// What is to be said of temporary files is said by [`Touched::temporaries`].
    pub fn filter(&self, place: &Place, exit: Exit, sightings: &mut Vec<Sighting>) {
        if self.list.is_empty() {
            return;
        }
        let only_files = self.from_nothing.is_empty() && !self.list.iter().any(|t| t.other);
        sightings.retain(|s| {
            if matches!(s.seen, Seen::Read { .. } | Seen::Listed { .. } | Seen::Before { .. })
                || only_files && !self.may_know(&s.path.0)
            {
                return true;
            }
            let normal = place.normal(&s.path.0);
            if s.seen == Seen::Absent && self.from_nothing.contains(&normal) {
                return !is_temporary_path(place, self.by_normal.get(&normal).map(|&i| &self.list[i]));
            }
            let touch = self.by_normal.get(&normal).map(|&i| &self.list[i]);
            match touch {
                Some(touch) if is_temporary(place, touch) => false,
                Some(_) => !exit.success(),
                None => !self.is_within_made(&normal),
            }
        });
    }

    /// What the run made where nothing was, and took away again. Had there been something, that would be gone now, or
    /// would have stopped the run.
    pub fn temporaries<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = &'a [u8]> {
        self.list.iter().filter(|touch| is_temporary(place, touch)).map(|touch| &touch.path[..])
    }

    /// Whether some directory above was made by the run.
    fn is_within_made(&self, normal: &[u8]) -> bool {
        let mut path = normal;
        while let Some(slash) = path.iter().rposition(|&b| b == b'/') {
            path = &path[..slash];
            if self.by_normal.get(path).is_some_and(|&i| self.list[i].other) {
                return true;
            }
        }
        false
    }

    /// What the run left, once it has ended.
    pub fn outcome(&self, place: &Place) -> Outcome {
        let mut outcome = Outcome { effects: Vec::new(), reread: Vec::new(), unstorable: None };
        for touch in &self.list {
            match self.left(place, touch) {
                Ok(Some(left)) => {
                    if touch.reread {
                        outcome.reread.push(Spelled(touch.path.clone()));
                    }
                    outcome.effects.push(Effect { path: Spelled(touch.path.clone()), left });
                }
                Ok(None) => {}
                Err(reason) => drop(outcome.unstorable.get_or_insert(reason)),
            }
        }
        outcome
    }

    fn left(&self, place: &Place, touch: &Touch) -> Result<Option<Left>, Unstorable> {
        let name = || String::from_utf8_lossy(&touch.path).into_owned();
        let now = place.signature(&touch.path, false);
        match (now, touch.before) {
            (Err(_), Before::Absent) if touch.removed => Ok(None),
            // It was to be made and was not: for want of space, permission or the like, which nothing else tells.
            (Err(_), Before::Absent) => Err(Unstorable::NotCaptured(name())),
            (Err(_), Before::File { .. }) => Ok(Some(Left::Removed)),
            (Err(_), Before::Other) => Err(Unstorable::ChangedExisting(name())),
            (Ok(_), _) if touch.other || !touch.written || touch.marked => {
                Err(Unstorable::ChangedExisting(name()))
            }
            // Opened for writing and yet untouched: refused.
            (Ok(now), Before::File { signature, settled: true }) if now == signature => {
                Err(Unstorable::ChangedExisting(name()))
            }
            (Ok(_), _) => match place.signature(&touch.path, true) {
                Ok(s) if s.kind() == FileKind::File => Ok(Some(Left::File(self.origin(touch, &s)))),
                _ => Err(Unstorable::ChangedExisting(name())),
            },
        }
    }

    /// How the file `now` came to be at `touch`. It may have been elsewhere before the run, and been moved here.
    fn origin(&self, touch: &Touch, now: &Signature) -> Origin {
        let is_now = |t: &Touch| matches!(t.before, Before::File { signature: s, .. } if (s.dev, s.ino) == (now.dev, now.ino));
        match touch.before {
            Before::File { .. } if touch.before_is_input => Origin::Edited,
            _ if self.list.iter().any(is_now) => Origin::Kept,
            Before::Absent if touch.renamed_over => Origin::Moved,
            Before::Absent => Origin::Made,
            Before::File { .. } if touch.removed || touch.renamed_over => Origin::Replaced,
            Before::File { .. } | Before::Other => Origin::Kept,
        }
    }
}

fn hold(place: &Place, path: &[u8]) -> Option<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(place.cwd(), path, flags, Mode::empty()).ok()
}

/// The last component of a spelling, and of its normal form. None where that is the working directory's own.
fn last_name(path: &[u8]) -> Option<&[u8]> {
    path.rsplit(|&b| b == b'/').find(|part| !part.is_empty() && *part != b".")
}

fn before(place: &Place, path: &[u8]) -> Before {
    // The clock first: what changes after the look then counts as too new.
    let now_ns = coarse_now_ns();
    match place.signature(path, false) {
        Ok(s) if s.kind() == FileKind::File => Before::File { signature: s, settled: s.is_settled(now_ns) },
        Err(Errno::NOENT | Errno::NOTDIR) => Before::Absent,
        _ => Before::Other,
    }
}

fn is_temporary_path(place: &Place, touch: Option<&Touch>) -> bool {
    touch.is_some_and(|touch| is_temporary(place, touch))
}

fn is_temporary(place: &Place, touch: &Touch) -> bool {
    matches!(touch.before, Before::Absent) && place.signature(&touch.path, false).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_changed_files_are_kept_track_of_and_one_more_is_told() {
        let temp = tempfile::tempdir().unwrap();
        use std::os::unix::ffi::OsStrExt;
        let place = Place::new(temp.path().as_os_str().as_bytes()).unwrap();
        let mut touched = Touched::default();
        let mut note = |number: usize| touched.note(&place, format!("{number}").as_bytes(), Deed::Write);
        assert!((0..TOUCHED_MAX).all(&mut note));
        assert!(!note(TOUCHED_MAX));
        // One that is known is still noted.
        assert!(note(0));
    }

    #[test]
    fn so_many_changed_files_are_held_open() {
        let temp = tempfile::tempdir().unwrap();
        let place = Place::new(temp.path().as_os_str().as_encoded_bytes()).unwrap();
        let mut touched = Touched::default();
        for number in 0..HELD_MAX + 5 {
            std::fs::write(temp.path().join(number.to_string()), "").unwrap();
            assert!(touched.note(&place, number.to_string().as_bytes(), Deed::Write));
        }
        let held = |touch: &&Touch| touch._held.is_some();
        assert_eq!(touched.list.iter().take_while(held).count(), HELD_MAX);
        assert_eq!(touched.list.iter().filter(held).count(), HELD_MAX);
    }
}
