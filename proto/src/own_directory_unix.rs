//! Directories that are ours alone: the runtime directory and the cache.
//!
//! Whoever can write there can answer in the service's place, or hand out objects of their own making. So such a
//! directory is made with mode 0700, narrowed to that if it is ours and wider, and refused if somebody else could
//! have put something into it.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::kernel;

/// What we make and keep such a directory as.
const OWNER_ONLY: u32 = 0o700;
/// Somebody else could write.
const OTHERS_WRITE: Mode = Mode::WGRP.union(Mode::WOTH);
/// Anybody could write.
const WORLD_WRITES: u32 = 0o002;
/// Only the owner of a name may remove or rename it.
const STICKY: u32 = 0o1000;

/// Makes `directory`, with those above it, if it is missing, and sees to it that it is ours alone. It may be a
/// symbolic link to such a directory.
///
/// # Errors
/// If it cannot be made, is no directory, belongs to somebody else, others may write to it and it is not empty, or
/// anybody could put another in its place.
pub fn prepare(directory: &Path) -> io::Result<()> {
    make(directory)?;
    let opened = open(directory, OFlags::empty())?;
    let mode = mode_of(&opened)?;
    if mode.intersects(OTHERS_WRITE) && std::fs::read_dir(directory)?.next().is_some() {
        let how = format!(
            "could be written by others, who may have; clear it and `chmod 700` it (mode {:o})",
            mode.bits()
        );
        return Err(refusal(directory, &how));
    }
    narrow(directory, &opened)?;
    check_parents(directory)
}

/// The same, but a symbolic link is refused, and so is a directory that others may write, were it empty.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_strictly(directory: &Path) -> io::Result<()> {
    make(directory)?;
    let opened = open_strictly(directory)?;
    narrow(directory, &opened)?;
    check_parents(directory)
}

/// The directory, opened (`O_PATH`), if it is there, no symbolic link, ours, and nobody else may write to it.
///
/// # Errors
/// If it is not.
pub fn open_strictly(directory: &Path) -> io::Result<OwnedFd> {
    let opened = open(directory, OFlags::NOFOLLOW)?;
    if mode_of(&opened)?.intersects(OTHERS_WRITE) {
        return Err(refusal(directory, "can be written by others"));
    }
    Ok(opened)
}

fn make(directory: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().recursive(true).mode(OWNER_ONLY).create(directory) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(io::Error::new(e.kind(), format!("{}: {e}", directory.display())))
        }
        _ => Ok(()),
    }
}

/// Opens a directory of ours.
fn open(directory: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | kernel::LOOK_AT_DIRECTORY;
    let opened = rustix::fs::open(directory, flags, Mode::empty()).map_err(|e| {
        let e = io::Error::from(e);
        io::Error::new(e.kind(), format!("{}: {e}", directory.display()))
    })?;
    if rustix::fs::fstat(&opened)?.st_uid != rustix::process::geteuid().as_raw() {
        return Err(refusal(directory, "belongs to another user"));
    }
    Ok(opened)
}

/// Takes from others what they may do with a directory of ours. One on a read-only disk stays as it is.
fn narrow(directory: &Path, opened: &OwnedFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(opened)?;
    if mode_of(opened)? == Mode::RWXU {
        return Ok(());
    }
    let reopened = File::open(directory);
    let same = |file: &File| {
        rustix::fs::fstat(file).is_ok_and(|s| (s.st_dev, s.st_ino) == (stat.st_dev, stat.st_ino))
    };
    let narrowed = match reopened {
        Ok(file) if same(&file) => file.set_permissions(PermissionsExt::from_mode(OWNER_ONLY)),
        // Not even we may read it.
        _ => std::fs::set_permissions(directory, PermissionsExt::from_mode(OWNER_ONLY)),
    };
    match narrowed {
        Err(e) if e.kind() != io::ErrorKind::ReadOnlyFilesystem => Err(e),
        _ => Ok(()),
    }
}

/// Refuses a directory that anybody could rename: one above it, as named or as it really is, is open to all.
fn check_parents(directory: &Path) -> io::Result<()> {
    let real = std::fs::canonicalize(directory)?;
    let above = directory.ancestors().skip(1).chain(real.ancestors().skip(1));
    for parent in above.filter(|parent| parent.as_os_str() != OsStr::new("")) {
        let mode = std::fs::metadata(parent)?.permissions().mode();
        if mode & WORLD_WRITES != 0 && mode & STICKY == 0 {
            let how = format!("lies in {}, where anybody could put another in its place", parent.display());
            return Err(refusal(directory, &how));
        }
    }
    Ok(())
}

/// An open directory's permissions.
fn mode_of(opened: &OwnedFd) -> io::Result<Mode> {
    Ok(Mode::from_raw_mode(rustix::fs::fstat(opened)?.st_mode))
}

fn refusal(directory: &Path, how: &str) -> io::Error {
    let name = directory.display();
    io::Error::new(
        io::ErrorKind::PermissionDenied,
        format!("{name} {how}; zccache needs directories of its own (ZCCACHE_RUNTIME_DIR, ZCCACHE_DIR)"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn chmod(path: &Path, mode: u32) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        path.metadata().unwrap().permissions().mode() & 0o7777
    }

    /// A directory within one that may be opened to all.
    fn fixture() -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let directory = temp.path().join("parent/directory");
        std::fs::create_dir_all(&directory).unwrap();
        (temp, directory)
    }

    #[test]
    fn a_directory_of_ours_is_narrowed_to_us() {
        for mode_before in [0o755, 0o750, 0o500, 0o700] {
            let (_temp, directory) = fixture();
            chmod(&directory, mode_before);
            prepare_strictly(&directory).unwrap();
            assert_eq!(mode(&directory), 0o700);
        }
        let (_temp, directory) = fixture();
        std::fs::remove_dir(&directory).unwrap();
        prepare(&directory.join("made/below")).unwrap();
        assert_eq!(mode(&directory.join("made")), 0o700);
    }

    #[test]
    fn what_others_may_have_written_is_refused() {
        let (_temp, directory) = fixture();
        chmod(&directory, 0o777);
        assert!(prepare_strictly(&directory).unwrap_err().to_string().contains("written by others"));
        prepare(&directory).unwrap(); // empty: narrowed
        assert_eq!(mode(&directory), 0o700);
        std::fs::write(directory.join("planted"), "").unwrap();
        chmod(&directory, 0o777);
        assert!(prepare(&directory).unwrap_err().to_string().contains("written by others"));
    }

    #[test]
    fn a_place_where_anybody_could_put_another_is_refused() {
        let (_temp, directory) = fixture();
        let parent = directory.parent().unwrap();
        chmod(parent, 0o777);
        assert!(prepare(&directory).unwrap_err().to_string().contains("anybody"));
        assert!(prepare_strictly(&directory).unwrap_err().to_string().contains("anybody"));
        chmod(parent, 0o1777);
        prepare(&directory).unwrap();
        prepare_strictly(&directory).unwrap();
    }

    #[test]
    fn a_link_is_followed_for_the_cache_and_refused_for_the_socket() {
        let (temp, directory) = fixture();
        let link = temp.path().join("link");
        std::os::unix::fs::symlink(&directory, &link).unwrap();
        prepare(&link).unwrap();
        assert!(prepare_strictly(&link).is_err());
        // Through a link, too, the real place counts.
        chmod(directory.parent().unwrap(), 0o777);
        assert!(prepare(&link).is_err());
    }

    #[test]
    fn what_is_no_directory_or_belongs_to_another_is_refused() {
        let (temp, directory) = fixture();
        let file = temp.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(prepare(&file).is_err());
        assert!(prepare(&file.join("below")).is_err());
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&directory, Some(65_534), None).unwrap();
        }
        let foreign = if rustix::process::geteuid().is_root() { directory } else { "/".into() };
        assert!(prepare(&foreign).unwrap_err().to_string().contains("another user"));
        assert!(prepare_strictly(&foreign).unwrap_err().to_string().contains("another user"));
    }
}
