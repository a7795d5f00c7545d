//! One check of a record: each of its observations looked at, directory by directory.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::file_table::FileTable;
use crate::kept_files::{Kept, Standing, Stood};
use crate::name_filter::names_in;
use crate::observation::{Fact, Observation};
use crate::record::Record;
use crate::second_hand::{self, Help};
use crate::signature::{FileKind, Signature};
use crate::sys::fs::{AtFlags, Mode, OFlags};
use crate::sys::io::Errno;
use crate::sys::{AsFd, BorrowedFd};

use super::groups::Group;
use super::memo::{Directory, Memo, is_sure};
use super::seen::Seen;
use super::{Broken, WorkingDirectory, listing_digest};

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

impl Check {
    /// Looks at one observation by itself, before anything is done in advance or by others: where a file was edited, the
    /// whole check ends here.
    pub fn alone(&self, number: u32) -> Result<(), Broken> {
        let Some(observation) = self.record.observations.get(number as usize) else { return Ok(()) };
        self.present(number, self.cwd.fd(), &observation.path.0, &mut Seen::default()).map(drop)
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
        let group = &self.groups[number];
        let directory = group.directory(&self.record.observations);
        // Such a path means the same from everywhere.
        let is_absolute = directory.starts_with(b"/");
        let by_way = |kept: &Arc<Kept>| kept.by_way(directory, &mut seen.looks);
        let stood = self.kept.as_ref().filter(|_| is_absolute).and_then(by_way);
        if stood.is_some() {
            return self.standing(number, stood, seen);
        }
        let by_path = |kept: &Arc<Kept>| kept.of(self.cwd.fd(), directory).map(Stood::There);
        self.standing(number, self.kept.as_ref().filter(|_| group.kept).and_then(by_path), seen)?;
        if let Some(kept) = self.kept.as_ref().filter(|_| is_absolute) {
            kept.note_way(directory);
        }
        Ok(())
    }

    /// Checks a group, of whose directory this is known: what is kept by descriptors, the rest by name.
    fn standing(&self, number: usize, stood: Option<Stood>, seen: &mut Seen) -> Result<(), Broken> {
        let (group, known) = (&self.groups[number], self.memo.directories[number]);
        let standing = match stood {
            Some(Stood::Missing) => return self.missing(group),
            Some(Stood::There(standing)) => standing,
            None => {
                let left = group.present().iter().chain(group.named());
                return self.by_name(number, None, left.copied(), seen);
            }
        };
        let mut left = self.by_descriptors(group, &standing, seen);
        let now = Directory { signature: standing.signature, mount: Some(standing.mount) };
        let mounts = self.kept.as_ref().map(|kept| kept.mounts());
        let is_as_it_was = known.is_some_and(|known| known.signature == now.signature);
        let names_stand = known == Some(now) && self.memo.mounts == mounts;
        if !names_stand {
            left.extend(group.named());
        }
        let by_others =
            || group.plain && self.files.absent.has_none_of(&now.signature, self.absent_names(group));
        if left.is_empty() && (group.absent().is_empty() || is_as_it_was || by_others()) {
            seen.directories.push((number, group.has_names().then_some(now)));
            return Ok(());
        }
        if names_stand && standing.base().is_none() {
            // It is opened below, and may be another one by then.
            left.extend(group.named());
        }
        self.by_name(number, Some(&standing), left.into_iter(), seen)
    }

    /// Checks a group whose directory is not there.
    fn missing(&self, group: &Group) -> Result<(), Broken> {
        if group.present().is_empty() && group.named().is_empty() {
            return Ok(());
        }
        Err(self.broken_directory(group))
    }

    fn broken_directory(&self, group: &Group) -> Broken {
        Broken { path: group.directory(&self.record.observations).to_vec() }
    }

    fn observation(&self, number: u32) -> &Observation {
        &self.record.observations[number as usize]
    }

    fn absent_names<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = &'a [u8]> {
        group.absent().iter().map(|&number| group.name(self.observation(number)))
    }

    /// What the file of an observation is to be if it has not changed, where its identity counts.
    fn expected(&self, number: u32) -> Option<Signature> {
        self.memo.expected(&self.record, number)
    }

    /// Notes what was seen of an observation that holds.
    fn note(&self, number: u32, now: Option<Signature>, seen: &mut Seen) {
        let is_sure = now.is_none_or(|now| is_sure(&now, self.now_ns));
        if !is_sure || now != self.expected(number) {
            seen.changed.push((number, now));
        }
    }

    /// Looks at what is `left` of a group by name, and at its absent names.
    fn by_name(
        &self,
        number: usize,
        standing: Option<&Standing>,
        left: impl Iterator<Item = u32>,
        seen: &mut Seen,
    ) -> Result<(), Broken> {
        let (group, known, cwd) = (&self.groups[number], self.memo.directories[number], self.cwd.fd());
        let path = group.directory(&self.record.observations);
        let kept_open = standing.and_then(Standing::base);
        let opened = if group.opened && kept_open.is_none() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match crate::sys::fs::openat(cwd, path, flags, Mode::empty()) {
                Ok(fd) => Some(fd),
                Err(Errno::NOENT | Errno::NOTDIR) => return self.missing(group),
                Err(_) => return Err(self.broken_directory(group)),
            }
        } else {
            None
        };
        let base = kept_open.or(opened.as_ref().map(AsFd::as_fd));
        // Before its names are looked for.
        let directory = match (standing, base) {
            (Some(standing), Some(_)) if kept_open.is_some() => {
                Ok(Some(Directory { signature: standing.signature, mount: Some(standing.mount) }))
            }
            (_, Some(base)) => self.look(base).map(Some),
            (_, None) if group.absent().is_empty() => Ok(None),
            (_, None) => Signature::at(cwd, path, AtFlags::empty())
                .map(|signature| Some(Directory { signature, mount: None })),
        };
        let mut files = Vec::new();
        for number in left {
            let observation = self.observation(number);
            let name = group.name(observation);
            let now = match base {
                Some(base) => self.present(number, base, name, seen)?,
                None => self.present(number, cwd, &observation.path.0, seen)?,
            };
            self.note(number, now, seen);
            if let Some(now) = now.filter(|_| observation.is_file_itself()) {
                files.push((name, now));
            }
        }
        let settled = directory.ok().flatten().filter(|d| d.signature.is_settled(self.now_ns));
        if let (Some(kept), Some(directory), Some(base)) = (&self.kept, settled, base)
            && (group.kept || kept_open.is_some())
            && !files.is_empty()
        {
            kept.note(directory.signature, base, files.into_iter());
        }
        if group.has_names() {
            let stands = self.absent(group, base, known, directory)?;
            seen.directories.push((number, stands));
        }
        Ok(())
    }

    /// An open directory as it is now.
    fn look(&self, directory: BorrowedFd<'_>) -> Result<Directory, Errno> {
        match &self.kept {
            Some(kept) => {
                kept.look(directory).map(|(signature, mount)| Directory { signature, mount: Some(mount) })
            }
            None => Signature::at(directory, c"", AtFlags::EMPTY_PATH)
                .map(|signature| Directory { signature, mount: None }),
        }
    }

    /// Looks at those of a group's files that are kept, and gives what is left to be looked at by name: what is not kept
    /// or not as it was.
    fn by_descriptors(&self, group: &Group, standing: &Standing, seen: &mut Seen) -> Vec<u32> {
        let is_as_it_was = |number: u32| {
            let observation = self.observation(number);
            let name = group.name(observation);
            if name == b"." && observation.fact == IS_A_DIRECTORY {
                return Some(without_content(standing.signature));
            }
            let known = self.expected(number).filter(|_| observation.is_file_itself())?;
            let now = Signature::at(standing.files.get(name)?, c"", AtFlags::EMPTY_PATH).ok()?;
            (now == known).then_some(now)
        };
        let mut left = Vec::new();
        for &number in group.present() {
            match is_as_it_was(number) {
                Some(now) => self.note(number, Some(now), seen),
                None => left.push(number),
            }
        }
        left
    }

    /// Checks something that is to be there; returns its signature if its identity counts.
    fn present(
        &self,
        number: u32,
        base: BorrowedFd<'_>,
        name: &[u8],
        seen: &mut Seen,
    ) -> Result<Option<Signature>, Broken> {
        let Observation { path, fact } = self.observation(number);
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
                if self.expected(number) == Some(now) {
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
    fn has_names(&self, fact: &Fact, base: BorrowedFd<'_>, name: &[u8]) -> bool {
        match fact {
            Fact::Listed { digest } => listing_digest(base, name).is_ok_and(|now| now == *digest),
            Fact::Names { filter, digest } => {
                names_in(base, name).is_ok_and(|now| filter.digest(&now) == *digest)
            }
            _ => false,
        }
    }

    /// Checks that the absent names of `group` are; returns its directory if that can stand for its names next time,
    /// all others having been looked at.
    fn absent(
        &self,
        group: &Group,
        base: Option<BorrowedFd<'_>>,
        known: Option<Directory>,
        directory: Result<Option<Directory>, Errno>,
    ) -> Result<Option<Directory>, Broken> {
        let now = match directory {
            Ok(None) | Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Ok(now) => now,
            Err(_) => None,
        };
        let settled = now.filter(|now| now.signature.is_settled(self.now_ns) && group.plain);
        // Names in the directory itself, that is: what follows a link's name with a slash is elsewhere.
        let has_none = |now: &Directory| {
            known.is_some_and(|known| known.signature == now.signature)
                || (base.is_some() && self.files.absent.has_none_of(&now.signature, self.absent_names(group)))
        };
        if now.as_ref().is_some_and(has_none) {
            return Ok(settled);
        }
        for &number in group.absent() {
            let observation = self.observation(number);
            // Not following: a link whose target is missing may be seen by `lstat`.
            let looked = match base {
                Some(base) => Signature::at(base, group.name(observation), AtFlags::SYMLINK_NOFOLLOW),
                None => Signature::at(self.cwd.fd(), &observation.path.0, AtFlags::SYMLINK_NOFOLLOW),
            };
            if !matches!(looked, Err(Errno::NOENT | Errno::NOTDIR)) {
                return Err(Broken { path: observation.path.0.clone() });
            }
        }
        if let (Some(directory), Some(_)) = (settled, base) {
            self.files.absent.remember(directory.signature, self.absent_names(group));
        }
        Ok(settled)
    }
}
