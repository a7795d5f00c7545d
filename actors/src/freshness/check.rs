//! One check of a record: each of its observations looked at, directory by directory.

use std::ffi::{CStr, CString};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::file_table::FileTable;
use crate::kept_files::{Files, Kept};
use crate::name_filter::names_in;
use crate::observation::{Fact, Observation};
use crate::record::Record;
use crate::second_hand::{self, Help};
use crate::signature::{FileKind, Signature};
use crate::sys::fs::{AtFlags, Mode, OFlags};
use crate::sys::io::Errno;
use crate::sys::{AsFd, BorrowedFd};

use super::groups::Group;
use super::{Broken, Memo, WorkingDirectory, listing_digest};

/// From this many observations on, the check is split over two processors: it takes some 100 µs then, several times
/// what it costs to wake another thread.
const SPLIT_OBSERVATIONS_MIN: usize = 120;

/// What is known of a directory itself, whatever it is spelled like.
pub(super) const IS_A_DIRECTORY: Fact = Fact::Kind { follow: true, kind: FileKind::Directory };

/// Of a directory only the identity counts, not what is in it.
fn without_content(directory: Signature) -> Signature {
    Signature { size: 0, mtime_ns: 0, ctime_ns: 0, ..directory }
}

/// One check in progress, by one or two threads.
#[derive(Clone)]
pub(super) struct Check {
    pub record: Arc<Record>,
    pub groups: Arc<[Group]>,
    /// The groups that nobody has taken: we take from the front, a second hand from the back.
    pub left: Arc<Mutex<Range<usize>>>,
    pub memo: Arc<Memo>,
    pub cwd: Arc<WorkingDirectory>,
    pub files: Arc<FileTable>,
    pub kept: Option<Arc<Kept>>,
    pub now_ns: i64,
    /// Another file with the same content will not do.
    pub exact: bool,
}

/// What a check saw, by number.
#[derive(Default)]
pub(super) struct Seen {
    /// Of each observation whose file's identity counts.
    pub observations: Vec<(usize, Option<Signature>)>,
    /// Of each group's directory, where that can stand for its absent names.
    pub directories: Vec<(usize, Option<Signature>)>,
    /// Of each directory whose names were compared, from before that.
    pub listed: Vec<(usize, Signature)>,
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.observations.extend(other.observations);
        self.directories.extend(other.directories);
        self.listed.extend(other.listed);
    }
}

impl Check {
    /// Looks at one observation by itself, before anything is done in advance or by others: where a file was edited, the
    /// whole check ends here.
    pub fn alone(&self, number: usize) -> Result<(), Broken> {
        let Some(Observation { path, .. }) = self.record.observations.get(number) else { return Ok(()) };
        let Ok(name) = CString::new(&path.0[..]) else { return Ok(()) };
        self.present(number, self.cwd.fd(), &name, &mut Seen::default()).map(drop)
    }

    /// Checks everything and does `also`, with a second hand if there is much to do: the client's own processor waits
    /// for us. `lists`: some directory's names are compared, among which no temporary file may be.
    pub fn run<T>(&self, also: impl FnOnce() -> T, lists: bool) -> Result<(Seen, T), Broken> {
        if self.record.observations.len() < SPLIT_OBSERVATIONS_MIN {
            return Ok((self.take_groups(Range::next)?, also()));
        }
        let theirs = self.clone();
        let help = second_hand::offer(move || theirs.take_groups(Range::next_back));
        if lists {
            return Ok((self.share(help)?, also()));
        }
        let also = also();
        Ok((self.share(help)?, also))
    }

    /// Checks everything, together with a second hand if it has begun.
    fn share<F>(&self, help: Help<F, Result<Seen, Broken>>) -> Result<Seen, Broken> {
        let ours = self.take_groups(Range::next);
        let theirs = match help.take() {
            Ok(None) => return ours,
            Ok(Some(theirs)) => theirs?,
            Err(second_hand::Panicked) => return Err(Broken { path: b"a check that failed".to_vec() }),
        };
        let mut seen = ours?;
        seen.add(theirs);
        Ok(seen)
    }

    /// Checks groups that `take` takes, until none is left. What is broken ends it for both sides.
    fn take_groups(&self, take: fn(&mut Range<usize>) -> Option<usize>) -> Result<Seen, Broken> {
        let mut seen = Seen::default();
        let locked = || self.left.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let taken = take(&mut locked());
            let Some(number) = taken else { return Ok(seen) };
            if let Err(broken) = self.group(number, &mut seen) {
                *locked() = 0..0;
                return Err(broken);
            }
        }
    }

    fn group(&self, number: usize, seen: &mut Seen) -> Result<(), Broken> {
        let (group, known, cwd) = (&self.groups[number], self.memo.directories[number], self.cwd.fd());
        let kept = self.kept.as_ref().filter(|_| group.kept);
        let left = match kept.and_then(|kept| kept.of(cwd, &group.directory)) {
            Some((directory, files)) => {
                let left = self.by_descriptors(group, directory, &files, seen);
                let lacks = |d| Some(d) == known || self.files.absent.has_none_of(&d, &group.absent);
                if left.is_empty() && (group.absent.is_empty() || lacks(directory)) {
                    seen.directories.push((number, (!group.absent.is_empty()).then_some(directory)));
                    return Ok(());
                }
                left
            }
            None => group.present.iter().collect(),
        };
        let opened = if group.opened {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match crate::sys::fs::openat(cwd, &*group.directory, flags, Mode::empty()) {
                Ok(fd) => Some(fd),
                Err(Errno::NOENT | Errno::NOTDIR) if group.present.is_empty() => {
                    return Ok(());
                }
                Err(_) => return Err(Broken { path: group.directory.as_bytes().to_vec() }),
            }
        } else {
            None
        };
        let base = opened.as_ref().map_or(cwd, AsFd::as_fd);
        // Before its names are looked for.
        let directory = match &opened {
            Some(fd) => Signature::at(fd, c"", AtFlags::EMPTY_PATH).map(Some),
            None if group.absent.is_empty() => Ok(None),
            None => Signature::at(cwd, &*group.directory, AtFlags::empty()).map(Some),
        };
        let from = seen.observations.len();
        for (observation, name) in &left {
            let now = self.present(*observation, base, name, seen)?;
            seen.observations.push((*observation, now));
        }
        if let (Some(kept), Ok(Some(directory))) = (kept, directory)
            && directory.is_settled(self.now_ns)
        {
            let looked_at = left.iter().zip(&seen.observations[from..]);
            let files =
                looked_at.filter(|((number, _), _)| self.record.observations[*number].is_file_itself());
            kept.note(directory, base, files.filter_map(|((_, name), (_, now))| Some((&**name, (*now)?))));
        }
        if !group.absent.is_empty() {
            seen.directories.push((number, self.absent(group, base, known, directory)?));
        }
        Ok(())
    }

    /// Looks at those of a group's files that are kept, and gives what is left to be looked at by name: what is not kept
    /// or not as it was.
    fn by_descriptors<'a>(
        &self,
        group: &'a Group,
        directory: Signature,
        files: &Files,
        seen: &mut Seen,
    ) -> Vec<&'a (usize, CString)> {
        let is_as_it_was = |number: usize, name: &CString| {
            let observation = &self.record.observations[number];
            if **name == *c"." && observation.fact == IS_A_DIRECTORY {
                return Some(without_content(directory));
            }
            let known = self.memo.observations[number].filter(|_| observation.is_file_itself())?;
            let now = Signature::at(files.get(name)?, c"", AtFlags::EMPTY_PATH).ok()?;
            (now == known).then_some(now)
        };
        let mut left = Vec::new();
        for present in &group.present {
            match is_as_it_was(present.0, &present.1) {
                Some(now) => seen.observations.push((present.0, Some(now))),
                None => left.push(present),
            }
        }
        left
    }

    /// Checks something that is to be there; returns its signature if its identity counts.
    fn present(
        &self,
        number: usize,
        base: BorrowedFd<'_>,
        name: &CStr,
        seen: &mut Seen,
    ) -> Result<Option<Signature>, Broken> {
        let Observation { path, fact } = &self.record.observations[number];
        let broken = || Broken { path: path.0.clone() };
        let stat = |follow: bool| {
            let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
            Signature::at(base, name, flags).map_err(|_| broken())
        };
        let holds = |yes: bool| if yes { Ok(None) } else { Err(broken()) };
        match fact {
            Fact::Absent => Ok(None),
            Fact::Content { digest, executed, linked, .. } => {
                let now = stat(*linked)?;
                if self.memo.observations[number] == Some(now) {
                    return Ok(Some(now));
                }
                if self.exact || now.kind() != FileKind::File {
                    return Err(broken());
                }
                let content = self.files.content(base, name).map_err(|_| broken())?;
                let runnable = !executed || content.signature.mode & 0o111 != 0;
                if content.digest == *digest && runnable {
                    Ok(Some(content.signature))
                } else {
                    Err(broken())
                }
            }
            Fact::Kind { follow, kind } => {
                let now = stat(*follow)?;
                if now.kind() != *kind {
                    return Err(broken());
                }
                Ok((*follow && *kind == FileKind::Directory).then(|| without_content(now)))
            }
            Fact::Mode { mode } => holds(stat(true)?.mode == *mode),
            Fact::Metadata { follow, size, mtime_ns, mode } => {
                let now = stat(*follow)?;
                holds((now.size, now.mtime_ns, now.mode) == (*size, *mtime_ns, *mode))
            }
            Fact::Symlink { target } => {
                let now = crate::sys::fs::readlinkat(base, name, Vec::new()).map_err(|_| broken())?;
                holds(now.as_bytes() == target.0)
            }
            Fact::Listed { .. } | Fact::Names { .. } => {
                // Taken before the names are: what changes them shows in it.
                let now = stat(true)?;
                if self.memo.listed.get(&number) != Some(&now) && !self.has_names(fact, base, name) {
                    return Err(broken());
                }
                seen.listed.push((number, now));
                Ok(None)
            }
        }
    }

    /// Whether a directory's names are those of a fact about them.
    fn has_names(&self, fact: &Fact, base: BorrowedFd<'_>, name: &CStr) -> bool {
        match fact {
            Fact::Listed { digest } => listing_digest(base, name).is_ok_and(|now| now == *digest),
            Fact::Names { filter, digest } => {
                names_in(base, name).is_ok_and(|now| filter.digest(&now) == *digest)
            }
            _ => false,
        }
    }

    /// Checks that the absent names of `group` are; returns the directory's signature if that can stand for them
    /// next time.
    fn absent(
        &self,
        group: &Group,
        base: BorrowedFd<'_>,
        known: Option<Signature>,
        directory: Result<Option<Signature>, Errno>,
    ) -> Result<Option<Signature>, Broken> {
        match directory {
            Ok(None) | Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Ok(now) if now == known => return Ok(now),
            // Names in the directory itself, that is: what follows a link's name with a slash is elsewhere.
            Ok(Some(now)) if group.opened && self.files.absent.has_none_of(&now, &group.absent) => {
                return Ok(now.is_settled(self.now_ns).then_some(now));
            }
            _ => {}
        }
        for name in &group.absent {
            // Not following: a link whose target is missing may be seen by `lstat`.
            match Signature::at(base, &**name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                _ if group.opened => {
                    return Err(Broken { path: [group.directory.as_bytes(), name.as_bytes()].concat() });
                }
                _ => return Err(Broken { path: name.as_bytes().to_vec() }),
            }
        }
        let settled = directory.ok().flatten().filter(|d| d.is_settled(self.now_ns) && group.plain);
        if let (Some(directory), true) = (settled, group.opened) {
            self.files.absent.remember(directory, &group.absent);
        }
        Ok(settled)
    }
}
