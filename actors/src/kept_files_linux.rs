//! Kept files: open descriptors of files that records name again and again, so that none need be walked to.
//!
//! A directory whose time stamps stand as they stood has the names it had, and each means the file it meant: making,
//! removing and replacing a name all move them. So a file that was opened by its name is what that name means for as
//! long as its directory's signature stands, and looking at it by a descriptor costs half of what it costs by name.
//!
//! What a directory's time stamps do not tell is seen to otherwise: changes of a file itself (its signature is compared
//! each time), changes within the tick in which they were last moved (only settled signatures are believed), and mounts
//! over a name (the kernel tells of every mount, and everything is let go of then).
//!
//! Directories are kept likewise, so that paths need not be walked either (`ways`).
//!
//! An open descriptor keeps its file system from being unmounted. So files of the root's mount alone are kept, which
//! is never unmounted, and only while they are asked for.

#[path = "kept_files_linux/ways.rs"]
mod ways;

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use dashmap::DashMap;
use rustc_hash::{FxBuildHasher, FxHashMap};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::process::Resource;

use crate::signature::Signature;
pub use ways::Looks;
use ways::{Step, Way, Ways};

/// The lowest number of a kept descriptor. All others of the service lie below, so that a tool's process, which must
/// have none of these, need not close each.
pub const KEPT_FROM: i32 = 4096;

/// The most files that are kept: the headers of a few large projects. Each takes some 256 bytes of the kernel's memory.
/// Beyond, all are let go of. Fewer where the process may have fewer descriptors.
const FILES_MAX: usize = 8192;

/// With fewer than this, a single project's headers would drive each other out: then nothing is kept.
const FILES_MIN: usize = 1024;

/// The most directories whose checks are counted, at some 150 bytes each.
const DIRECTORIES_MAX: usize = 4096;

/// How many checks must have found a directory as it was before its files are kept: opening costs as much as two looks
/// by name, and where objects are made among the sources nothing stays as it was for long.
const CHECKS_MIN: u32 = 3;

/// The kept files, and the means to notice mounts.
pub struct KeptFiles {
    /// None where mounts are not told of: nothing is kept there.
    mounts: Option<Mounts>,
    kept: RwLock<Arc<Kept>>,
    /// The most files and directories that are kept.
    most: usize,
    used: AtomicBool,
}

struct Mounts {
    /// The number of the root's mount.
    root: u64,
    /// `/proc/self/mountinfo`: whoever asks first is told of a change, once. So the lock is held until what a change
    /// makes worthless is gone; asking does not wait.
    changes: Mutex<File>,
}

impl Mounts {
    fn new(root: &CStr) -> Option<Self> {
        let changes = Mutex::new(File::open("/proc/self/mountinfo").ok()?);
        Some(Self { root: mount_of(CWD, root, AtFlags::empty()).ok()?.1, changes })
    }
}

/// What was kept since the last mount.
#[derive(Default)]
pub struct Kept {
    root_mount: u64,
    /// Which mounts there are, by a number that no others had; zero before anybody was told of any.
    mounts: u64,
    directories: DashMap<(u64, u64), Arc<Directory>, FxBuildHasher>,
    /// Open descriptors.
    files: AtomicUsize,
    ways: Ways,
}

/// What a path leads to, by what is kept alone.
pub enum Stood {
    /// Nothing: there is no such directory.
    Missing,
    /// A directory.
    There(Standing),
}

/// A directory as it stands now, and what of it is kept.
pub struct Standing {
    /// Its signature.
    pub signature: Signature,
    /// The number of the mount it is reached by.
    pub mount: u64,
    /// Its kept files.
    pub files: Arc<Files>,
    step: Option<Arc<Step>>,
}

impl Standing {
    /// The directory itself, if it is kept open.
    pub fn base(&self) -> Option<BorrowedFd<'_>> {
        self.step.as_ref().map(|step| step.directory.as_fd())
    }
}

/// A directory as it was, and files of it.
struct Directory {
    signature: Signature,
    checks: AtomicU32,
    files: RwLock<Arc<Files>>,
}

/// Descriptors by name.
pub type Files = FxHashMap<Box<[u8]>, Arc<OwnedFd>>;

impl Default for KeptFiles {
    fn default() -> Self {
        Self::on_the_mount_of(c"/")
    }
}

impl KeptFiles {
    /// Keeps files of the mount that `path` is on: the root's, unless that mount goes before these do.
    pub fn on_the_mount_of(path: &CStr) -> Self {
        Self::with_descriptors(rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), path)
    }

    /// The same for a process that may have descriptors below `limit`.
    fn with_descriptors(limit: u64, path: &CStr) -> Self {
        let room = usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(KEPT_FROM as usize);
        let mounts = Mounts::new(path).filter(|_| room >= FILES_MIN);
        let root_mount = mounts.as_ref().map_or(0, |mounts| mounts.root);
        let kept = Arc::new(Kept { root_mount, ..Kept::default() });
        Self { mounts, kept: RwLock::new(kept), most: room.min(FILES_MAX), used: AtomicBool::new(false) }
    }

    /// What is kept, for a check that begins now; nothing if mounts cannot be noticed.
    pub fn kept(&self) -> Option<Arc<Kept>> {
        let mounts = self.mounts.as_ref()?;
        self.used.store(true, Ordering::Relaxed);
        let changes: MutexGuard<'_, File> = mounts.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut asked = [PollFd::new(&*changes, PollFlags::PRI)];
        let told = rustix::event::poll(&mut asked, Some(&Timespec::default()));
        if told != Ok(0) {
            self.let_go(1);
        }
        let kept = Arc::clone(&self.kept.read().unwrap_or_else(PoisonError::into_inner));
        if kept.files.load(Ordering::Relaxed) < self.most && kept.directories.len() < DIRECTORIES_MAX {
            return Some(kept);
        }
        self.let_go(0);
        Some(Arc::clone(&self.kept.read().unwrap_or_else(PoisonError::into_inner)))
    }

    /// To be called now and then: lets go of everything that has not been asked for since the last time.
    pub fn rest(&self) {
        if !self.used.swap(false, Ordering::Relaxed) {
            self.let_go(0);
        }
    }

    /// Checks under way keep what they have, which was right when they began, and add nothing to what is new.
    fn let_go(&self, changes_of_mounts: u64) {
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        let mounts = kept.mounts + changes_of_mounts;
        let empty = Arc::new(Kept { root_mount: kept.root_mount, mounts, ..Kept::default() });
        let old = std::mem::replace(&mut *kept, empty);
        drop(kept);
        drop(old); // closes thousands of files: not while others wait
    }
}

/// Makes room in the process's table of descriptors for all that may be kept. To be called while there is one thread:
/// with more, the kernel lets whoever first needs a larger table wait for every processor to come by (some 15 ms, which
/// was what the third request after a start took longer).
pub fn make_room() {
    let limit = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let last = i32::try_from(limit).unwrap_or(i32::MAX).min(KEPT_FROM + FILES_MAX as i32) - 1;
    if let Ok(root) = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        // Closed at once: a table does not shrink. Without it all goes on, only slower.
        let _ = rustix::io::fcntl_dupfd_cloexec(&root, last);
    }
}

impl Kept {
    /// Which mounts there are, by a number that no others had.
    pub fn mounts(&self) -> u64 {
        self.mounts
    }

    /// The directory that `path` leads to now, known by its way alone.
    pub fn by_way(&self, path: &[u8], looks: &mut Looks) -> Option<Stood> {
        let way = self.ways.stands(path, looks)?;
        let Way::To { end, .. } = &*way else { return Some(Stood::Missing) };
        let known = self.directories.get(&end.id()).filter(|known| known.signature == end.signature);
        let files = known.map(|known| known.files()).unwrap_or_default();
        let (signature, mount) = (end.signature, self.root_mount);
        Some(Stood::There(Standing { signature, mount, files, step: Some(Arc::clone(end)) }))
    }

    /// Notes that a check has found everything in the directory `path`, which is absolute, as it was.
    pub fn note_way(&self, path: &[u8]) {
        let opened = self.ways.note(path, self.root_mount);
        self.files.fetch_add(opened, Ordering::Relaxed);
    }

    /// The directory that `path` means now, as seen from `cwd`.
    pub fn of(&self, cwd: BorrowedFd<'_>, path: &[u8]) -> Option<Standing> {
        let (signature, mount) = mount_of(cwd, path, AtFlags::empty()).ok()?;
        let known = self.directories.get(&(signature.dev, signature.ino));
        // By another mount, something else may be mounted over its names.
        let known = known.filter(|known| known.signature == signature && mount == self.root_mount);
        let files = known.map(|known| known.files()).unwrap_or_default();
        Some(Standing { signature, mount, files, step: None })
    }

    /// The signature of an open directory, and the number of the mount it is reached by.
    pub fn look(&self, directory: BorrowedFd<'_>) -> rustix::io::Result<(Signature, u64)> {
        mount_of(directory, c"", AtFlags::EMPTY_PATH)
    }

    /// Notes that a check has found files as they were: by `names` in the directory `base`, with these signatures.
    /// The directory's own is settled, and was taken from `base` before the names were looked for.
    pub fn note<'a>(
        &self,
        directory: Signature,
        base: BorrowedFd<'_>,
        names: impl Iterator<Item = (&'a [u8], Signature)>,
    ) {
        let new = || {
            Arc::new(Directory { signature: directory, checks: AtomicU32::new(0), files: RwLock::default() })
        };
        let known = {
            let mut entry = self.directories.entry((directory.dev, directory.ino)).or_insert_with(new);
            if entry.signature != directory {
                *entry = new();
            }
            Arc::clone(&entry)
        };
        if known.checks.fetch_add(1, Ordering::Relaxed) + 1 < CHECKS_MIN || !self.is_on_root(base) {
            return;
        }
        let before = known.files();
        let open = |(name, signature): (&[u8], Signature)| {
            let file = if before.contains_key(name) { None } else { self.open(base, name, &signature) };
            file.map(|file| (name.into(), Arc::new(file)))
        };
        let more: Vec<_> = names.filter_map(open).collect();
        if more.is_empty() {
            return;
        }
        self.files.fetch_add(more.len(), Ordering::Relaxed);
        let mut files = known.files.write().unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut files).extend(more);
    }

    fn is_on_root(&self, directory: BorrowedFd<'_>) -> bool {
        mount_of(directory, c"", AtFlags::EMPTY_PATH).is_ok_and(|(_, mount)| mount == self.root_mount)
    }

    /// Opens the file of this name, if it is the one of this signature, and on the root's mount.
    fn open(&self, base: BorrowedFd<'_>, name: &[u8], signature: &Signature) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(base, name, flags, Mode::empty()).ok()?;
        let (now, mount) = mount_of(opened.as_fd(), c"", AtFlags::EMPTY_PATH).ok()?;
        if (now.dev, now.ino) != (signature.dev, signature.ino) || mount != self.root_mount {
            return None;
        }
        rustix::io::fcntl_dupfd_cloexec(&opened, KEPT_FROM).ok()
    }
}

impl Directory {
    fn files(&self) -> Arc<Files> {
        Arc::clone(&self.files.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The signature of something, and the number of the mount it is reached by.
fn mount_of(
    dir: impl AsFd,
    path: impl rustix::path::Arg,
    flags: AtFlags,
) -> rustix::io::Result<(Signature, u64)> {
    let s = rustix::fs::statx(dir, path, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
    if StatxFlags::from_bits_retain(s.stx_mask).contains(StatxFlags::MNT_ID) {
        return Ok((Signature::from(s), s.stx_mnt_id));
    }
    Err(rustix::io::Errno::NOSYS)
}

/// As many descriptors as the process may have, which is what the service takes as well.
#[cfg(test)]
pub fn raise_the_limit_of_descriptors() {
    let limit = rustix::process::getrlimit(Resource::Nofile).maximum;
    let all = rustix::process::Rlimit { current: limit, maximum: limit };
    rustix::process::setrlimit(Resource::Nofile, all).unwrap();
}

/// A directory on the root's mount, in a place where others seldom make or remove anything.
#[cfg(test)]
pub fn steady_directory() -> tempfile::TempDir {
    raise_the_limit_of_descriptors();
    let mount = |place: &std::path::Path| mount_of(CWD, place, AtFlags::empty()).map(|(_, mount)| mount).ok();
    let beside_us = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let places = [beside_us, "/var/tmp".into(), std::env::temp_dir(), "/".into()];
    let on_root = places.iter().filter(|place| mount(place) == mount("/".as_ref()));
    let made = on_root.into_iter().find_map(|place| tempfile::tempdir_in(place).ok());
    made.expect("a directory can be made on the root's mount")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::coarse_now_ns;
    use std::ffi::CString;

    #[test]
    fn more_files_than_are_kept_are_all_let_go_of() {
        raise_the_limit_of_descriptors();
        let temp = tempfile::tempdir().unwrap();
        let place = CString::new(temp.path().to_str().unwrap()).unwrap();
        let files = KeptFiles::on_the_mount_of(&place);
        let names: Vec<String> = (0..files.most).map(|n| format!("{n}.h")).collect();
        let file = temp.path().join("0.h");
        std::fs::write(&file, "").unwrap();
        for name in &names[1..] {
            std::fs::hard_link(&file, temp.path().join(name)).unwrap();
        }
        let known = Signature::of(&place).unwrap();
        while !known.is_settled(coarse_now_ns()) {
            std::thread::sleep(std::time::Duration::from_millis(1)); // the file system's clock has to move
        }
        let kept_of = |names: &[String]| {
            let base = rustix::fs::open(&place, OFlags::PATH, Mode::empty()).unwrap();
            for _ in 0..CHECKS_MIN {
                let kept = files.kept().unwrap();
                let seen = names.iter().map(|name| (name.as_bytes(), Signature::of(&file).unwrap()));
                kept.note(known, base.as_fd(), seen);
            }
            files.kept().unwrap().of(CWD, place.to_bytes()).map_or(0, |d| d.files.len())
        };
        assert_eq!(kept_of(&names[1..]), files.most - 1);
        assert_eq!(kept_of(&names), 0);
    }

    #[test]
    fn there_is_room_for_all_before_any_is_kept() {
        raise_the_limit_of_descriptors();
        make_room();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
        assert!(size.trim().parse::<usize>().unwrap() >= KEPT_FROM as usize + FILES_MAX, "{size}");
    }

    #[test]
    fn where_descriptors_are_few_nothing_is_kept() {
        let few = KEPT_FROM as u64 + FILES_MIN as u64 - 1;
        assert!(KeptFiles::with_descriptors(few, c"/").kept().is_none());
        let enough = KeptFiles::with_descriptors(few + 1, c"/");
        assert!(enough.kept().is_some());
        assert_eq!(enough.most, FILES_MIN);
        assert_eq!(KeptFiles::with_descriptors(u64::MAX, c"/").most, FILES_MAX);
    }

    #[test]
    fn so_many_checks_come_first_and_so_many_directories_are_counted() {
        raise_the_limit_of_descriptors();
        let temp = tempfile::tempdir().unwrap();
        let place = CString::new(temp.path().to_str().unwrap()).unwrap();
        std::fs::write(temp.path().join("a.h"), "").unwrap();
        let known = Signature::of(&place).unwrap();
        let file = Signature::of(temp.path().join("a.h")).unwrap();
        let base = rustix::fs::open(&place, OFlags::PATH, Mode::empty()).unwrap();
        let files = KeptFiles::on_the_mount_of(&place);
        let kept = files.kept().unwrap();
        for check in 1..=CHECKS_MIN {
            kept.note(known, base.as_fd(), [(&b"a.h"[..], file)].into_iter());
            assert_eq!(kept.files.load(Ordering::Relaxed), usize::from(check == CHECKS_MIN));
        }
        let directories = || files.kept().unwrap().directories.len();
        for number in 1..DIRECTORIES_MAX as u64 - 1 {
            kept.note(Signature { dev: u64::MAX, ino: number, ..known }, base.as_fd(), [].into_iter());
        }
        assert_eq!(directories(), DIRECTORIES_MAX - 1);
        kept.note(Signature { dev: u64::MAX, ino: u64::MAX, ..known }, base.as_fd(), [].into_iter());
        assert_eq!(directories(), 0);
    }
}
