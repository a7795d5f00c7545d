//! Delivery: putting a result's files where the tool would have put them.
//!
//! Contents are copied (reflinked where the file system can), never hard-linked: whoever edits an output in
//! place must not reach the store. A file appears whole, by rename, and only where the tool would have left the
//! same: over nothing, or over an ordinary file of ours with the same mode. A tool that was seen to put a new file in
//! an older one's place (linkers do) does so whatever mode and other names the older one has. Anything else (a
//! symbolic link, a file that others have or run, a device) is not delivered to; the tool runs and does what it does.
//!
//! A thread can lose its processor anywhere, for long enough that the client gives up and runs the tool itself. So
//! nothing that came after the look at a place is ever removed or replaced, however late we are.

use crate::sys::BorrowedFd;
#[cfg_attr(target_os = "linux", path = "delivery/beside_linux.rs")]
#[cfg_attr(target_os = "macos", path = "delivery/beside_macos.rs")]
#[cfg_attr(windows, path = "delivery/beside_windows.rs")]
mod beside;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::fs::{AtFlags, Mode, OFlags, RenameFlags};
use crate::sys::io::Errno;

use beside::Beside;

use crate::attributes;
use crate::blobs::Blobs;
use crate::default_acl;
use crate::faults;
use crate::freshness::{Inputs, WorkingDirectory};
use crate::lease::Lease;
use crate::record::{Output, OutputFile};
use crate::signature::Signature;

/// Why a result was not delivered. Some of its files may be in place; the tool then runs and writes them all.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// What is at an output's path is not for us to replace.
    #[error("{0} is no ordinary file or directory")]
    Unusual(String),
    /// A content is missing or damaged.
    #[error("a stored content is missing or damaged: {0}")]
    Blob(#[source] io::Error),
    /// The client may have given up by now.
    #[error("it took too long")]
    Late,
    /// Writing failed.
    #[error("{path}: {source}")]
    Write {
        /// Where.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A file written in the directory of its place, but not there yet; gone when dropped.
#[derive(Debug)]
struct Staged {
    cwd: Arc<WorkingDirectory>,
    beside: Beside,
    path: Vec<u8>,
    /// What was at its place when that was looked at.
    old: Option<Old>,
    placed: bool,
}

/// A file that was at an output's place: enough to know it again, renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Old {
    dev: u64,
    ino: u64,
    bytes: u64,
    mtime_ns: i64,
}

impl Old {
    fn at(cwd: BorrowedFd<'_>, path: &[u8]) -> Result<Self, Errno> {
        let s = Signature::at(cwd, path, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Self { dev: s.dev, ino: s.ino, bytes: s.size, mtime_ns: s.mtime_ns })
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed {
            self.beside.discard(self.cwd.fd());
        }
    }
}

/// All files of a result, beside their places. Dropped, they are gone.
#[derive(Debug)]
pub struct Delivery {
    cwd: Arc<WorkingDirectory>,
    staged: Vec<Staged>,
    /// Files that the tool took away.
    removed: Vec<(Vec<u8>, Old)>,
}

/// Writes the files of `outputs` beside their places, as seen from `cwd`.
///
/// # Errors
/// Why it could not be done; nothing was changed then.
pub fn stage(
    outputs: &[Output],
    blobs: &Blobs,
    cwd: &Arc<WorkingDirectory>,
) -> Result<Delivery, DeliveryError> {
    faults::pass("deliver.begin");
    let mut staged = Vec::with_capacity(outputs.len());
    let (mut removed, mut checked) = (Vec::new(), None);
    for output in outputs {
        let path = &output.path.0[..];
        let old = check_place(cwd.fd(), path, output.file.as_ref())?;
        match (&output.file, old) {
            (Some(file), old) => {
                // Nearly always the same for all.
                if checked != Some(directory_of(path)) {
                    check_directory(cwd.fd(), path)?;
                    checked = Some(directory_of(path));
                }
                staged.push(stage_file(path, old, file, blobs, cwd)?);
            }
            (None, Some(old)) => removed.push((path.to_vec(), old)),
            (None, None) => {}
        }
    }
    Ok(Delivery { cwd: Arc::clone(cwd), staged, removed })
}

impl Delivery {
    /// The same, unless one of the files that would go is an input of this result: the tool would refuse to write over its
    /// source, or find a header already gone.
    ///
    /// # Errors
    /// That it is so; nothing was changed then.
    pub fn sparing(self, inputs: &Inputs) -> Result<Self, DeliveryError> {
        let staged = self.staged.iter().filter_map(|file| Some((&file.path[..], file.old?)));
        let removed = self.removed.iter().map(|(path, old)| (&path[..], *old));
        let is_input = |(path, old): &(&[u8], Old)| inputs.include((old.dev, old.ino), path);
        match staged.chain(removed).find(is_input) {
            Some((path, _)) => Err(DeliveryError::Unusual(String::from_utf8_lossy(path).into_owned())),
            None => Ok(self),
        }
    }

    /// Puts the files in place, and removes what the tool removed.
    ///
    /// # Errors
    /// Why it could not be done. All files are staged before the first is placed, so failures are nearly always
    /// found with nothing changed; the tool then runs and writes them all.
    pub fn place(self, lease: &Lease) -> Result<(), DeliveryError> {
        faults::pass("deliver.staged");
        for mut file in self.staged {
            place(&mut file, lease)?;
            faults::pass("deliver.placed");
        }
        for (path, old) in &self.removed {
            remove(*old, self.cwd.fd(), path, lease)?;
        }
        Ok(())
    }
}

/// Checks that what is at `path` now would have made no difference to the tool, and tells what that is.
fn check_place(
    cwd: BorrowedFd<'_>,
    path: &[u8],
    file: Option<&OutputFile>,
) -> Result<Option<Old>, DeliveryError> {
    let unusual = || DeliveryError::Unusual(String::from_utf8_lossy(path).into_owned());
    let old = match Old::at(cwd, path) {
        Err(Errno::NOENT) => return Ok(None),
        Err(e) => return Err(write_error(path, e)),
        Ok(old) => old,
    };
    let stat =
        crate::sys::fs::statat(cwd, path, AtFlags::SYMLINK_NOFOLLOW).map_err(|e| write_error(path, e))?;
    let is_ours = stat.st_mode & crate::sys::S_IFMT == crate::sys::S_IFREG
        && stat.st_uid == crate::sys::process::geteuid().as_raw();
    // The GNU tools write into an empty file, which somebody may have made for them, and replace any other.
    let is_replaced = file.is_some_and(|f| f.replaces) && stat.st_size > 0;
    let is_same_when_written = || {
        let mode = stat.st_mode & 0o7777;
        stat.st_nlink == 1
            && !attributes::are_lost(cwd, path)
            && file.is_none_or(|f| mode == f.mode && can_be_written(cwd, path, mode))
    };
    if is_ours && (is_replaced || is_same_when_written()) { Ok(Some(old)) } else { Err(unusual()) }
}

/// Checks that a file made beside `path` has the mode that its maker gives it.
fn check_directory(cwd: BorrowedFd<'_>, path: &[u8]) -> Result<(), DeliveryError> {
    match default_acl::rules_place(cwd, path) {
        Ok(false) => Ok(()),
        Ok(true) => Err(DeliveryError::Unusual(String::from_utf8_lossy(directory_of(path)).into_owned())),
        Err(e) => Err(write_error(path, e)),
    }
}

/// Whether the tool could have opened this file for writing: not one that its owner may not write, nor a program that
/// is being executed.
fn can_be_written(cwd: BorrowedFd<'_>, path: &[u8], mode: u32) -> bool {
    let may_be_executed = mode & 0o111 != 0;
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    mode & crate::sys::S_IWUSR != 0
        && !(may_be_executed && crate::sys::fs::openat(cwd, path, flags, Mode::empty()).is_err())
}

fn stage_file(
    path: &[u8],
    old: Option<Old>,
    file: &OutputFile,
    blobs: &Blobs,
    cwd: &Arc<WorkingDirectory>,
) -> Result<Staged, DeliveryError> {
    let blob = blobs.open(file).map_err(DeliveryError::Blob)?;
    let failed =
        |e: io::Error| DeliveryError::Write { path: String::from_utf8_lossy(path).into_owned(), source: e };
    let beside = Beside::create(path, cwd.fd()).map_err(|e| write_error(path, e))?;
    // From here on dropped, it goes.
    let mut staged = Staged { cwd: Arc::clone(cwd), beside, path: path.to_vec(), old, placed: false };
    faults::check("deliver.write").map_err(failed)?;
    staged.beside.fill(&blob, file.bytes, cwd.fd()).map_err(failed)?;
    // Explicitly: our own umask is not the client's, whose effect is already in the recorded mode.
    staged.beside.finish(Mode::from_raw_mode(file.mode)).map_err(|e| failed(e.into()))?;
    Ok(staged)
}

fn place(staged: &mut Staged, lease: &Lease) -> Result<(), DeliveryError> {
    let (cwd, to) = (staged.cwd.fd(), &staged.path[..]);
    // As compilers and assemblers do it. Renaming over a file would make ext4 write the new one out at once
    // (`auto_da_alloc`), which costs more than all the rest.
    if let Some(old) = staged.old {
        remove(old, cwd, to, lease)?;
    }
    faults::pass("deliver.unlinked");
    if !lease.holds() {
        return Err(DeliveryError::Late);
    }
    faults::pass("deliver.placing");
    match staged.beside.place(cwd, to) {
        // Somebody else's, who came after we had looked: most likely the client's own.
        Err(Errno::EXIST) => Err(DeliveryError::Late),
        Err(e) => Err(write_error(to, e)),
        Ok(()) => {
            staged.placed = true;
            Ok(())
        }
    }
}

/// Removes the file `old` at `path`; any other file that is there by now stays. It gets another name first, since only
/// what is out of others' reach can be looked at and removed without anything happening in between.
fn remove(old: Old, cwd: BorrowedFd<'_>, path: &[u8], lease: &Lease) -> Result<(), DeliveryError> {
    let aside = temporary_beside(path);
    if !lease.holds() {
        return Err(DeliveryError::Late);
    }
    faults::pass("deliver.removing");
    match crate::sys::fs::renameat_with(cwd, path, cwd, &aside[..], RenameFlags::empty()) {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(write_error(path, e)),
    }
    let remove_it = || crate::sys::fs::unlinkat(cwd, &aside[..], AtFlags::empty());
    if Old::at(cwd, &aside) == Ok(old) {
        return remove_it().map_err(|e| write_error(path, e));
    }
    // If there is yet another by now, that one is newer than what was taken.
    if beside::move_to_free_name(cwd, &aside, path) == Err(Errno::EXIST) {
        let _ = remove_it();
    }
    Err(DeliveryError::Late)
}

/// The directory of `path`, with its slash; the current one if it names none.
fn directory_of(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => &path[..=slash],
        None => b".",
    }
}

/// A name nobody else uses, in the directory of `path`.
fn temporary_beside(path: &[u8]) -> Vec<u8> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let directory = path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut name = path[..directory].to_vec();
    name.extend_from_slice(format!(".zccache-{}-{number}.tmp", std::process::id()).as_bytes());
    name
}

fn write_error(path: &[u8], e: Errno) -> DeliveryError {
    DeliveryError::Write { path: String::from_utf8_lossy(path).into_owned(), source: e.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::Spelled;
    use std::fs::File;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;

    struct Fixture {
        temp: tempfile::TempDir,
        blobs: Blobs,
        output: Output,
    }

    impl Fixture {
        fn new(content: &[u8]) -> Self {
            let temp = tempfile::tempdir().unwrap();
            let blobs = Blobs::new(&temp.path().join("store"));
            let source = temp.path().join("source");
            std::fs::write(&source, content).unwrap();
            let pending = blobs.receive(&mut File::open(&source).unwrap()).unwrap();
            blobs.commit(&pending).unwrap();
            let file =
                OutputFile { digest: pending.digest, bytes: pending.bytes, mode: 0o640, replaces: false };
            Self { blobs, output: Output { path: Spelled(b"a.o".to_vec()), file: Some(file) }, temp }
        }

        fn deliver(&self) -> Result<(), DeliveryError> {
            let cwd = Arc::new(WorkingDirectory::open(self.temp.path().as_os_str().as_bytes()).unwrap());
            let outputs = std::slice::from_ref(&self.output);
            stage(outputs, &self.blobs, &cwd)?.place(&Lease::new(0))
        }

        fn path(&self) -> std::path::PathBuf {
            self.temp.path().join("a.o")
        }

        fn leftovers(&self) -> usize {
            let temporary = |e: &std::fs::DirEntry| e.file_name().as_bytes().starts_with(b".zccache");
            std::fs::read_dir(self.temp.path()).unwrap().flatten().filter(temporary).count()
        }
    }

    #[test]
    fn the_file_is_whole_has_its_mode_and_replaces_an_ordinary_one() {
        for size in [0, 1, 100_000] {
            let f = Fixture::new(&vec![7; size]);
            f.deliver().unwrap();
            let inode = f.path().metadata().unwrap().ino();
            f.deliver().unwrap();
            assert_eq!(std::fs::read(f.path()).unwrap(), vec![7; size]);
            assert_eq!(f.path().metadata().unwrap().permissions().mode() & 0o7777, 0o640);
            assert_ne!(f.path().metadata().unwrap().ino(), inode);
            assert_eq!(f.leftovers(), 0);
        }
    }

    #[test]
    fn editing_a_delivered_file_never_reaches_the_store() {
        let f = Fixture::new(b"object");
        f.deliver().unwrap();
        std::fs::write(f.path(), "edited").unwrap();
        f.deliver().unwrap();
        assert_eq!(std::fs::read(f.path()).unwrap(), b"object");
    }

    #[test]
    fn what_is_no_ordinary_file_is_left_alone() {
        type Obstacle = fn(&Path);
        let obstacles: [Obstacle; 5] = [
            |p| std::os::unix::fs::symlink("elsewhere", p).unwrap(),
            |p| std::fs::create_dir(p).unwrap(),
            |p| {
                std::fs::write(p, "x").unwrap();
                std::fs::hard_link(p, p.with_extension("link")).unwrap();
            },
            |p| {
                std::fs::write(p, "x").unwrap();
                std::fs::set_permissions(p, PermissionsExt::from_mode(0o440)).unwrap();
            },
            |p| rustix::fs::mknodat(rustix::fs::CWD, p, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap(),
        ];
        for obstacle in obstacles {
            let f = Fixture::new(b"object");
            obstacle(&f.path());
            let before = f.path().symlink_metadata().unwrap().ino();
            assert!(matches!(f.deliver(), Err(DeliveryError::Unusual(_))));
            assert_eq!(f.path().symlink_metadata().unwrap().ino(), before);
            assert_eq!(f.leftovers(), 0);
        }
    }

    #[test]
    fn what_the_tool_replaces_is_replaced_whatever_its_mode_and_names() {
        let mut f = Fixture::new(b"object");
        f.output.file.as_mut().unwrap().replaces = true;
        let other = f.temp.path().join("other");
        let prepare = |content: &str, mode: u32| {
            std::fs::remove_file(f.path()).ok();
            std::fs::remove_file(&other).ok();
            std::fs::write(f.path(), content).unwrap();
            std::fs::set_permissions(f.path(), PermissionsExt::from_mode(mode)).unwrap();
            std::fs::hard_link(f.path(), &other).unwrap();
        };
        prepare("old", 0o400);
        f.deliver().unwrap();
        assert_eq!(std::fs::read(f.path()).unwrap(), b"object");
        assert_eq!(f.path().metadata().unwrap().mode() & 0o7777, 0o640);
        assert_eq!(std::fs::read(&other).unwrap(), b"old");
        prepare("", 0o600);
        assert!(matches!(f.deliver(), Err(DeliveryError::Unusual(_))));
    }

    #[test]
    fn a_client_that_may_have_given_up_is_not_delivered_to() {
        let f = Fixture::new(b"object");
        std::fs::write(f.path(), "its own").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(f.output.file.unwrap().mode);
        std::fs::set_permissions(f.path(), mode).unwrap();
        let cwd = Arc::new(WorkingDirectory::open(f.temp.path().as_os_str().as_bytes()).unwrap());
        let lease = Lease::new(0);
        lease.end();
        let removed = Output { path: Spelled(b"a.o".to_vec()), file: None };
        for output in [&f.output, &removed] {
            let outputs = std::slice::from_ref(output);
            let late = stage(outputs, &f.blobs, &cwd).and_then(|delivery| delivery.place(&lease));
            assert!(matches!(late, Err(DeliveryError::Late)), "{late:?}");
            assert_eq!(std::fs::read(f.path()).unwrap(), b"its own");
        }
        assert_eq!(std::fs::read_dir(f.temp.path()).unwrap().count(), 3, "something was left behind");
    }

    #[test]
    fn a_missing_directory_or_content_is_an_error_and_leaves_nothing() {
        let mut f = Fixture::new(b"object");
        f.output.path = Spelled(b"missing/a.o".to_vec());
        assert!(matches!(f.deliver(), Err(DeliveryError::Write { .. })));
        let f = Fixture::new(b"object");
        f.blobs.clear().unwrap();
        assert!(matches!(f.deliver(), Err(DeliveryError::Blob(_))));
        assert!(!f.path().exists());
        assert_eq!(f.leftovers(), 0);
    }

    #[test]
    fn what_was_staged_and_not_placed_is_gone() {
        let f = Fixture::new(b"object");
        let cwd = Arc::new(WorkingDirectory::open(f.temp.path().as_os_str().as_bytes()).unwrap());
        let staged = stage(std::slice::from_ref(&f.output), &f.blobs, &cwd).unwrap();
        drop(staged);
        assert_eq!(f.leftovers(), 0);
        assert!(!f.path().exists());
    }

    #[test]
    fn a_removed_output_is_removed_again() {
        let mut f = Fixture::new(b"object");
        f.output.file = None;
        f.deliver().unwrap();
        std::fs::write(f.path(), "old").unwrap();
        f.deliver().unwrap();
        assert!(!f.path().exists());
    }
}
