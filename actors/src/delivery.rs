//! Delivery: putting a result's files where the tool would have put them.
//!
//! Contents are copied (reflinked where the file system can), never hard-linked: whoever edits an output in
//! place must not reach the store. A file appears whole, by rename, and only where the tool would have left the
//! same: over nothing, or over an ordinary file of ours with the same mode. A tool that was seen to put a new file in
//! an older one's place (linkers do) does so whatever mode and other names the older one has. Anything else (a
//! symbolic link, a file that others have or run, a device) is not delivered to; the tool runs and does what it does.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::blobs::Blobs;
use crate::default_acl;
use crate::faults;
use crate::freshness::WorkingDirectory;
use crate::lease::Lease;
use crate::record::{Output, OutputFile};

/// Why a result was not delivered. Nothing was changed then, save where `Halfway` says so.
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
    written: Written,
    path: Vec<u8>,
    placed: bool,
}

/// How a staged file can be reached.
#[derive(Debug)]
enum Written {
    /// It has no name: nothing is left of it if this process is killed.
    Nameless(File),
    /// Where the file system has no nameless files: by a temporary name.
    Named(Vec<u8>),
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let (Written::Named(temporary), false) = (&self.written, self.placed) {
            let _ = rustix::fs::unlinkat(self.cwd.fd(), &temporary[..], AtFlags::empty());
        }
    }
}

/// All files of a result, beside their places. Dropped, they are gone.
#[derive(Debug)]
pub struct Delivery {
    cwd: Arc<WorkingDirectory>,
    staged: Vec<Staged>,
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
    let mut checked = None;
    for output in outputs {
        let path = &output.path.0[..];
        check_place(cwd.fd(), path, output.file.as_ref())?;
        if let Some(file) = &output.file {
            // Nearly always the same for all.
            if checked != Some(directory_of(path)) {
                check_directory(cwd.fd(), path)?;
                checked = Some(directory_of(path));
            }
            staged.push(stage_file(path, file, blobs, cwd)?);
        }
    }
    Ok(Delivery { cwd: Arc::clone(cwd), staged })
}

impl Delivery {
    /// Puts the files in place, and removes what `outputs`, the same as before, say was removed.
    ///
    /// # Errors
    /// Why it could not be done. All files are staged before the first is placed, so failures are nearly always
    /// found with nothing changed; the tool then runs and writes them all.
    pub fn place(self, outputs: &[Output], lease: &Lease) -> Result<(), DeliveryError> {
        faults::pass("deliver.staged");
        for mut file in self.staged {
            place(&mut file, lease)?;
            faults::pass("deliver.placed");
        }
        for output in outputs.iter().filter(|o| o.file.is_none()) {
            if !lease.holds() {
                return Err(DeliveryError::Late);
            }
            match rustix::fs::unlinkat(self.cwd.fd(), &output.path.0[..], AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(write_error(&output.path.0, e)),
            }
        }
        Ok(())
    }
}

/// Checks that what is at `path` now would have made no difference to the tool.
fn check_place(cwd: BorrowedFd<'_>, path: &[u8], file: Option<&OutputFile>) -> Result<(), DeliveryError> {
    let unusual = || DeliveryError::Unusual(String::from_utf8_lossy(path).into_owned());
    let stat = match rustix::fs::statat(cwd, path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(()),
        Err(e) => return Err(write_error(path, e)),
        Ok(stat) => stat,
    };
    let is_ours =
        stat.st_mode & libc::S_IFMT == libc::S_IFREG && stat.st_uid == rustix::process::geteuid().as_raw();
    // The GNU tools write into an empty file, which somebody may have made for them, and replace any other.
    let is_replaced = file.is_some_and(|f| f.replaces) && stat.st_size > 0;
    let is_same_when_written = || {
        let mode = stat.st_mode & 0o7777;
        stat.st_nlink == 1 && file.is_none_or(|f| mode == f.mode && can_be_written(cwd, path, mode))
    };
    if is_ours && (is_replaced || is_same_when_written()) { Ok(()) } else { Err(unusual()) }
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
    mode & libc::S_IWUSR != 0
        && !(may_be_executed && rustix::fs::openat(cwd, path, flags, Mode::empty()).is_err())
}

fn stage_file(
    path: &[u8],
    file: &OutputFile,
    blobs: &Blobs,
    cwd: &Arc<WorkingDirectory>,
) -> Result<Staged, DeliveryError> {
    let blob = blobs.open(file).map_err(DeliveryError::Blob)?;
    let failed =
        |e: io::Error| DeliveryError::Write { path: String::from_utf8_lossy(path).into_owned(), source: e };
    let (target, name) = create_beside(path, cwd.fd()).map_err(|e| write_error(path, e))?;
    let stage = |written| Staged { cwd: Arc::clone(cwd), written, path: path.to_vec(), placed: false };
    // From here on dropped, a named file goes.
    let named = name.map(|name| stage(Written::Named(name)));
    faults::check("deliver.write").map_err(failed)?;
    copy(&blob, &target, file.bytes).map_err(failed)?;
    // Explicitly: our own umask is not the client's, whose effect is already in the recorded mode.
    rustix::fs::fchmod(&target, Mode::from_raw_mode(file.mode)).map_err(|e| failed(e.into()))?;
    Ok(named.unwrap_or_else(|| stage(Written::Nameless(target))))
}

/// A new file in the directory of `path`: nameless where that can be, else with the name returned.
fn create_beside(path: &[u8], cwd: BorrowedFd<'_>) -> Result<(File, Option<Vec<u8>>), Errno> {
    let mode = Mode::RUSR | Mode::WUSR;
    let nameless = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
    match rustix::fs::openat(cwd, directory_of(path), nameless, mode) {
        Ok(opened) => return Ok((File::from(opened), None)),
        // What kernels and file systems say that do not know of such files.
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS | Errno::NOENT) => {}
        Err(e) => return Err(e),
    }
    let temporary = temporary_beside(path);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(cwd, &temporary[..], flags, mode)?;
    Ok((File::from(opened), Some(temporary)))
}

/// The directory of `path`, with its slash; the current one if it names none.
fn directory_of(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => &path[..=slash],
        None => b".",
    }
}

fn place(staged: &mut Staged, lease: &Lease) -> Result<(), DeliveryError> {
    let (cwd, to) = (staged.cwd.fd(), &staged.path[..]);
    if !lease.holds() {
        return Err(DeliveryError::Late);
    }
    // As compilers and assemblers do it. Renaming over a file would make ext4 write the new one out at once
    // (`auto_da_alloc`), which costs more than all the rest.
    match rustix::fs::unlinkat(cwd, to, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(write_error(to, e)),
    }
    faults::pass("deliver.unlinked");
    if !lease.holds() {
        return Err(DeliveryError::Late);
    }
    let placed = match &staged.written {
        Written::Nameless(file) => give_name(file, cwd, to),
        Written::Named(from) => rustix::fs::renameat_with(cwd, &from[..], cwd, to, RenameFlags::empty()),
    };
    placed.map_err(|e| write_error(to, e))?;
    staged.placed = true;
    Ok(())
}

/// Gives a nameless file its first name.
fn give_name(file: &File, cwd: BorrowedFd<'_>, path: &[u8]) -> Result<(), Errno> {
    match rustix::fs::linkat(file, c"", cwd, path, AtFlags::EMPTY_PATH) {
        // Before Linux 6.10 only a privileged process may; any may say it so, if it has a `/proc`.
        Err(Errno::NOENT | Errno::PERM | Errno::INVAL) => {
            let name = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::linkat(rustix::fs::CWD, name, cwd, path, AtFlags::SYMLINK_FOLLOW)
        }
        other => other,
    }
}

/// Copies `bytes` bytes: by sharing extents where the file system can, else within the kernel, else by hand.
fn copy(from: &File, to: &File, bytes: u64) -> io::Result<()> {
    if bytes >= REFLINK_BYTES_MIN && rustix::fs::ioctl_ficlone(to.as_fd(), from.as_fd()).is_ok() {
        return Ok(());
    }
    let mut left = bytes;
    while left > 0 {
        match rustix::fs::copy_file_range(from, None, to, None, usize::try_from(left).unwrap_or(usize::MAX)) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => left -= n as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) if left == bytes => {
                let copied = io::copy(&mut &*from, &mut &*to)?;
                return if copied == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Below this, copying costs less than the metadata of a shared extent.
const REFLINK_BYTES_MIN: u64 = 16 * 1024;

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
            stage(outputs, &self.blobs, &cwd)?.place(outputs, &Lease::new(0))
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
            let late = stage(outputs, &f.blobs, &cwd).and_then(|delivery| delivery.place(outputs, &lease));
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
