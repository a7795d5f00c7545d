//! Ways: what a path leads to, for as long as every directory on the way stands as it stood.
//!
//! Walking a path is looking up its names, one directory after the other. None of these look-ups comes out differently
//! while the time stamps of its directory stand; what a link says is settled by the name that means the link, and what
//! `..` means by the name that led there. So a path whose directories all stand leads where it led. The paths of one record
//! share most of their directories, each of which is looked at once in a check.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use rustc_hash::FxBuildHasher;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::{CHECKS_MIN, KEPT_FROM, mount_of};
use crate::signature::{FileKind, Signature, coarse_now_ns};

/// The most paths whose ways are known or counted, at some 300 bytes each: a few large projects' directories, with all
/// the places where a compiler looks for its parts. No more are added beyond.
const WAYS_MAX: usize = 8192;

/// How often a way may have been found changed before it is given up: walking it costs as much as several checks, and
/// some directories on the way to others (`/tmp`) never stand for long.
const CHANGES_MAX: u32 = 3;

/// The most links on one way: the kernel's own limit (linux/namei.h: `MAXSYMLINKS`).
const LINKS_MAX: usize = 40;

/// Ways by path.
#[derive(Default)]
pub struct Ways {
    known: DashMap<Box<[u8]>, Known, FxBuildHasher>,
    steps: DashMap<(u64, u64), Arc<Step>, FxBuildHasher>,
    numbers: AtomicUsize,
}

/// What is known of one path.
#[derive(Default)]
struct Known {
    way: Option<Arc<Way>>,
    /// How often everything was as it was, since the last change.
    checks: u32,
    changes: u32,
}

/// A directory on a way, kept open.
pub struct Step {
    pub directory: OwnedFd,
    /// As it was, settled, before any name was looked up in it.
    pub signature: Signature,
    number: usize,
}

impl Step {
    pub fn id(&self) -> (u64, u64) {
        (self.signature.dev, self.signature.ino)
    }
}

/// Where a path leads, by all directories in which names were looked up.
pub enum Way {
    /// To a directory.
    To { steps: Vec<Arc<Step>>, end: Arc<Step> },
    /// To a name that is not there.
    Nowhere { steps: Vec<Arc<Step>> },
}

/// What one check has seen of steps, by number.
#[derive(Default)]
pub struct Looks(Vec<Option<bool>>);

impl Looks {
    fn stands(&mut self, step: &Step) -> bool {
        if self.0.len() <= step.number {
            self.0.resize(step.number + 1, None);
        }
        *self.0[step.number].get_or_insert_with(|| {
            Signature::at(&step.directory, c"", AtFlags::EMPTY_PATH) == Ok(step.signature)
        })
    }
}

impl Ways {
    /// The way of `path`, if it is known and nothing on it has changed.
    pub fn stands(&self, path: &[u8], looks: &mut Looks) -> Option<Arc<Way>> {
        let way = Arc::clone(self.known.get(path)?.way.as_ref()?);
        let (Way::To { steps, .. } | Way::Nowhere { steps }) = &*way;
        if steps.iter().all(|step| looks.stands(step)) {
            return Some(way);
        }
        if let Some(mut known) = self.known.get_mut(path) {
            *known = Known { way: None, checks: 0, changes: known.changes + 1 };
        }
        None
    }

    /// Notes that a check has found everything in the directory `path`, which is absolute, as it was; walks there if that
    /// was so often enough and all of it is on this mount. Returns how many descriptors that took.
    pub fn note(&self, path: &[u8], mount: u64) -> usize {
        if !self.known.contains_key(path) && self.known.len() >= WAYS_MAX {
            return 0;
        }
        {
            let mut known = self.known.entry(path.into()).or_default();
            known.checks = known.checks.saturating_add(1);
            // A walk that failed may do better later (what has just been made is not settled), but that is less likely
            // each time: after 3 checks, 6, 12, and so on.
            let is_time =
                known.checks.is_multiple_of(CHECKS_MIN) && (known.checks / CHECKS_MIN).is_power_of_two();
            if known.way.is_some() || known.changes >= CHANGES_MAX || !is_time {
                return 0;
            }
        }
        let before = self.numbers.load(Ordering::Relaxed);
        if let Some(way) = self.walk(path, mount)
            && let Some(mut known) = self.known.get_mut(path)
        {
            known.way = Some(Arc::new(way));
        }
        self.numbers.load(Ordering::Relaxed).saturating_sub(before)
    }

    fn walk(&self, path: &[u8], mount: u64) -> Option<Way> {
        let now_ns = coarse_now_ns();
        let open = |base: &OwnedFd, name: &[u8]| {
            rustix::fs::openat(base, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        };
        let root = || {
            let root = rustix::fs::openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
            let (signature, at) = mount_of(root.as_fd(), c"", AtFlags::EMPTY_PATH).ok()?;
            (at == mount).then(|| self.step(&root, signature, now_ns))?
        };
        let mut end = root()?;
        let mut steps = vec![Arc::clone(&end)];
        let mut left: Vec<Vec<u8>> = Vec::new();
        put_before(&mut left, path);
        let mut links = 0;
        while let Some(name) = left.pop() {
            let opened = match open(&end.directory, &name) {
                Ok(opened) => opened,
                Err(Errno::NOENT) => return Some(Way::Nowhere { steps }),
                Err(_) => return None,
            };
            let (signature, at) = mount_of(opened.as_fd(), c"", AtFlags::EMPTY_PATH).ok()?;
            if at != mount {
                return None;
            }
            match signature.kind() {
                FileKind::Directory => end = self.step(&opened, signature, now_ns)?,
                FileKind::Symlink if links < LINKS_MAX => {
                    links += 1;
                    let target = rustix::fs::readlinkat(&opened, c"", Vec::new()).ok()?;
                    if target.as_bytes().starts_with(b"/") {
                        end = root()?;
                    }
                    put_before(&mut left, target.as_bytes());
                }
                _ => return None,
            }
            if steps.iter().all(|step| step.number != end.number) {
                steps.push(Arc::clone(&end));
            }
        }
        Some(Way::To { steps, end })
    }

    /// The step for an open directory, if its signature is settled.
    fn step(&self, directory: &OwnedFd, signature: Signature, now_ns: i64) -> Option<Arc<Step>> {
        if !signature.is_settled(now_ns) {
            return None;
        }
        let id = (signature.dev, signature.ino);
        if let Some(known) = self.steps.get(&id).filter(|known| known.signature == signature) {
            return Some(Arc::clone(&known));
        }
        let directory = rustix::io::fcntl_dupfd_cloexec(directory, KEPT_FROM).ok()?;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let step = Arc::new(Step { directory, signature, number });
        self.steps.insert(id, Arc::clone(&step));
        Some(step)
    }
}

/// Puts the names of `path` before what is left; the next one is the last of the list.
fn put_before(left: &mut Vec<Vec<u8>>, path: &[u8]) {
    let names = path.split(|&b| b == b'/').filter(|name| !name.is_empty() && *name != b".");
    left.extend(names.map(<[u8]>::to_vec).rev());
}

#[cfg(test)]
mod tests {
    use super::super::steady_directory;
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;
    use std::time::Duration;

    fn path(text: impl AsRef<Path>) -> Vec<u8> {
        text.as_ref().as_os_str().as_bytes().to_vec()
    }

    fn stands(ways: &Ways, path: &[u8]) -> Option<Arc<Way>> {
        ways.stands(path, &mut Looks::default())
    }

    fn root() -> u64 {
        mount_of(CWD, c"/", AtFlags::empty()).unwrap().1
    }

    /// As many checks as a way is walked after; returns how many descriptors that took.
    fn note(ways: &Ways, path: &[u8]) -> usize {
        (0..CHECKS_MIN).map(|_| ways.note(path, root())).sum()
    }

    /// Ways that know this one. What others do on the way meanwhile is a reason to begin anew.
    fn knowing(path: &[u8]) -> (Ways, Arc<Way>) {
        loop {
            let ways = Ways::default();
            let opened = note(&ways, path);
            if let Some(way) = stands(&ways, path) {
                assert!(opened > 0);
                return (ways, way);
            }
            std::thread::sleep(Duration::from_millis(1)); // the file system's clock has to move
        }
    }

    /// `a/b/c`, and `link` to `a/b`.
    fn tree(root: &Path) {
        std::fs::create_dir_all(root.join("a/b/c")).unwrap();
        std::fs::create_dir_all(root.join("other/b/c")).unwrap();
        symlink("a/b", root.join("link")).unwrap();
    }

    #[test]
    fn a_way_stands_until_anything_on_it_changes() {
        type Change = fn(&Path);
        let changes: [Change; 6] = [
            |root| std::fs::rename(root.join("a"), root.join("gone")).unwrap(),
            |root| std::fs::rename(root.join("a/b/c"), root.join("c")).unwrap(),
            |root| {
                symlink("other/b", root.join("new")).unwrap();
                std::fs::rename(root.join("new"), root.join("link")).unwrap();
            },
            |root| std::fs::set_permissions(root.join("a"), PermissionsExt::from_mode(0o700)).unwrap(),
            |root| std::fs::write(root.join("a/b/c/new.h"), "").unwrap(),
            |root| {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, root.join("a"), CWD, root.join("other"), exchange).unwrap();
            },
        ];
        for (number, change) in changes.iter().enumerate() {
            let temp = steady_directory();
            tree(temp.path());
            // By a link, upwards from where it leads, and down again: `c` of `a/b`, and not of the directory itself.
            let spelled = path(temp.path().join("link/../b/./c//"));
            let (ways, way) = knowing(&spelled);
            let c = Signature::of(temp.path().join("a/b/c")).unwrap();
            assert!(matches!(&*way, Way::To { end, .. } if end.signature == c), "{number}");
            change(temp.path());
            assert!(stands(&ways, &spelled).is_none(), "{number}");
        }
    }

    #[test]
    fn what_is_missing_is_missing_until_it_is_made() {
        let temp = steady_directory();
        tree(temp.path());
        symlink("nowhere", temp.path().join("dangling")).unwrap();
        for (missing, made) in [
            ("link/none", "a/b/none"),
            ("one/x/y/", "one/x/y"),
            ("link/../../two", "two"),
            ("dangling/x", "nowhere/x"),
        ] {
            let spelled = path(temp.path().join(missing));
            let (ways, way) = knowing(&spelled);
            assert!(matches!(&*way, Way::Nowhere { .. }), "{missing}");
            std::fs::create_dir_all(temp.path().join(made)).unwrap();
            assert!(stands(&ways, &spelled).is_none(), "{missing}");
        }
    }

    #[test]
    fn nothing_is_known_of_files_of_other_mounts_and_of_too_many_links() {
        let temp = steady_directory();
        std::fs::write(temp.path().join("file"), "").unwrap();
        symlink("l0", temp.path().join("l0")).unwrap();
        std::fs::create_dir(temp.path().join("d")).unwrap();
        for number in 1..=LINKS_MAX + 1 {
            let target = if number == 1 { "d".to_owned() } else { format!("l{}", number - 1) };
            symlink(target, temp.path().join(format!("l{number}"))).unwrap();
        }
        knowing(&path(temp.path().join(format!("l{LINKS_MAX}"))));
        let too_many = format!("l{}", LINKS_MAX + 1);
        for of in ["file/x", "l0", &too_many] {
            let ways = Ways::default();
            let spelled = path(temp.path().join(of));
            note(&ways, &spelled);
            assert!(stands(&ways, &spelled).is_none(), "{of}");
        }
        let ways = Ways::default();
        note(&ways, b"/proc/self/");
        assert!(stands(&ways, b"/proc/self/").is_none());
    }

    #[test]
    fn a_way_that_changes_again_and_again_is_given_up_and_so_many_are_known() {
        let temp = steady_directory();
        let spelled = path(temp.path());
        let (ways, _) = knowing(&spelled);
        let mut known_again = 0;
        for change in 0..10 * CHANGES_MAX {
            std::fs::write(temp.path().join(change.to_string()), "").unwrap();
            while !Signature::of(temp.path()).unwrap().is_settled(coarse_now_ns()) {
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(stands(&ways, &spelled).is_none());
            note(&ways, &spelled);
            known_again += u32::from(stands(&ways, &spelled).is_some());
        }
        assert!(known_again < CHANGES_MAX, "{known_again}");
        for number in 1..WAYS_MAX {
            ways.note(format!("/{number}/").as_bytes(), root());
        }
        assert_eq!(ways.known.len(), WAYS_MAX);
        ways.note(b"/one/more/", root());
        assert_eq!(ways.known.len(), WAYS_MAX);
    }
}
