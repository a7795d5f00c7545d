//! One check of a record: each of its observations looked at, directory by directory.

use std::ffi::{CStr, CString};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::file_table::FileTable;
use crate::kept_files::{Kept, Looks, Standing, Stood};
use crate::name_filter::names_in;
use crate::observation::{Fact, Observation};
use crate::record::Record;
use crate::second_hand::{self, Help};
use crate::signature::{FileKind, Signature};
use crate::sys::fs::{AtFlags, Mode, OFlags};
use crate::sys::io::Errno;
use crate::sys::{AsFd, BorrowedFd};

use super::groups::Group;
use super::{Broken, Directory, Memo, WorkingDirectory, listing_digest};

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
    /// Of each group's directory, where that can stand for its names.
    pub directories: Vec<(usize, Option<Directory>)>,
    /// Of each directory whose names were compared, from before that.
    pub listed: Vec<(usize, Signature)>,
    /// Of directories that are kept open.
    looks: Looks,
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
        let group = &self.groups[number];
        let by_way = |kept: &Arc<Kept>| kept.by_way(&group.directory, &mut seen.looks);
        let stood = self.kept.as_ref().filter(|_| group.is_absolute()).and_then(by_way);
        if stood.is_some() {
            return self.standing(number, stood, seen);
        }
        let by_path = |kept: &Arc<Kept>| kept.of(self.cwd.fd(), &group.directory).map(Stood::There);
        self.standing(number, self.kept.as_ref().filter(|_| group.kept).and_then(by_path), seen)?;
        if let Some(kept) = self.kept.as_ref().filter(|_| group.is_absolute()) {
            kept.note_way(&group.directory);
        }
        Ok(())
    }

    /// Checks a group, of whose directory this is known: what is kept by descriptors, the rest by name.
    fn standing(&self, number: usize, stood: Option<Stood>, seen: &mut Seen) -> Result<(), Broken> {
        let (group, known) = (&self.groups[number], self.memo.directories[number]);
        let standing = match stood {
            Some(Stood::Missing) => return self.missing(group),
            Some(Stood::There(standing)) => standing,
            None => return self.by_name(number, None, group.present.iter().chain(&group.named), seen),
        };
        let mut left = self.by_descriptors(group, &standing, seen);
        let now = Directory { signature: standing.signature, mount: Some(standing.mount) };
        let mounts = self.kept.as_ref().map(|kept| kept.mounts());
        let is_as_it_was = known.is_some_and(|known| known.signature == now.signature);
        let names_stand = known == Some(now) && self.memo.mounts == mounts;
        if !names_stand {
            left.extend(&group.named);
        }
        let by_others = || group.plain && self.files.absent.has_none_of(&now.signature, &group.absent);
        if left.is_empty() && (group.absent.is_empty() || is_as_it_was || by_others()) {
            seen.directories.push((number, group.has_names().then_some(now)));
            return Ok(());
        }
        if names_stand && standing.base().is_none() {
            // It is opened below, and may be another one by then.
            left.extend(&group.named);
        }
        self.by_name(number, Some(&standing), left.into_iter(), seen)
    }

    /// Checks a group whose directory is not there.
    fn missing(&self, group: &Group) -> Result<(), Broken> {
        if group.present.is_empty() && group.named.is_empty() {
            return Ok(());
        }
        Err(Broken { path: group.directory.as_bytes().to_vec() })
    }

    /// Looks at what is `left` of a group by name, and at its absent names.
    fn by_name<'a>(
        &self,
        number: usize,
        standing: Option<&Standing>,
        left: impl Iterator<Item = &'a (usize, CString)>,
        seen: &mut Seen,
    ) -> Result<(), Broken> {
        let (group, known, cwd) = (&self.groups[number], self.memo.directories[number], self.cwd.fd());
        let kept_open = standing.and_then(Standing::base);
        let opened = if group.opened && kept_open.is_none() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            match crate::sys::fs::openat(cwd, &*group.directory, flags, Mode::empty()) {
                Ok(fd) => Some(fd),
                Err(Errno::NOENT | Errno::NOTDIR) => return self.missing(group),
                Err(_) => return Err(Broken { path: group.directory.as_bytes().to_vec() }),
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
            (_, None) if group.absent.is_empty() => Ok(None),
            (_, None) => Signature::at(cwd, &*group.directory, AtFlags::empty())
                .map(|signature| Some(Directory { signature, mount: None })),
        };
        let mut files = Vec::new();
        for (observation, name) in left {
            let now = match base {
                Some(base) => self.present(*observation, base, name, seen)?,
                None => self.present(*observation, cwd, &group.path(name), seen)?,
            };
            seen.observations.push((*observation, now));
            if let Some(now) = now.filter(|_| self.record.observations[*observation].is_file_itself()) {
                files.push((&**name, now));
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
    fn by_descriptors<'a>(
        &self,
        group: &'a Group,
        standing: &Standing,
        seen: &mut Seen,
    ) -> Vec<&'a (usize, CString)> {
        let is_as_it_was = |number: usize, name: &CString| {
            let observation = &self.record.observations[number];
            if **name == *c"." && observation.fact == IS_A_DIRECTORY {
                return Some(without_content(standing.signature));
            }
            let known = self.memo.observations[number].filter(|_| observation.is_file_itself())?;
            let now = Signature::at(standing.files.get(name)?, c"", AtFlags::EMPTY_PATH).ok()?;
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
                || (base.is_some() && self.files.absent.has_none_of(&now.signature, &group.absent))
        };
        if now.as_ref().is_some_and(has_none) {
            return Ok(settled);
        }
        for name in &group.absent {
            let whole = group.path(name);
            // Not following: a link whose target is missing may be seen by `lstat`.
            let looked = match base {
                Some(base) => Signature::at(base, &**name, AtFlags::SYMLINK_NOFOLLOW),
                None => Signature::at(self.cwd.fd(), &*whole, AtFlags::SYMLINK_NOFOLLOW),
            };
            if !matches!(looked, Err(Errno::NOENT | Errno::NOTDIR)) {
                return Err(Broken { path: whole.into_bytes() });
            }
        }
        if let (Some(directory), Some(_)) = (settled, base) {
            self.files.absent.remember(directory.signature, &group.absent);
        }
        Ok(settled)
    }
}
