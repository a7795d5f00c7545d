//! Default access control lists: a directory with one hands its own permissions on to the files that are made in it, and
//! their maker's umask does not count there (acl(5)).
//!
//! The mode of a result that was made in such a directory is good nowhere else, nor is any other result's mode good there.

use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Bytes of the names of attributes: room for those that do not matter; a file with more has others as well.
const ATTRIBUTES_BYTES_MAX: usize = 64;

/// Whether the directory that `path` lies in, as seen from `cwd`, has a default list.
///
/// # Errors
/// If it cannot be looked at.
pub fn rules_place(cwd: BorrowedFd<'_>, path: &[u8]) -> Result<bool, Errno> {
    let directory = path.iter().rposition(|&b| b == b'/').map_or(&b"."[..], |slash| &path[..=slash]);
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(cwd, directory, flags, Mode::empty())?;
    match rustix::fs::fgetxattr_query(&directory, c"system.posix_acl_default") {
        Ok(_) => Ok(true),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Whether the file at `path` has attributes that are lost if another one takes its place, while they would stay if it
/// were written to: an access control list, or what somebody has put there. A label of SELinux is given to every file.
pub fn has_attributes(cwd: BorrowedFd<'_>, path: &[u8]) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::openat(cwd, path, flags, Mode::empty()) else { return true };
    let mut names = [0; ATTRIBUTES_BYTES_MAX];
    match rustix::fs::flistxattr(&file, &mut names[..]) {
        Ok(length) => {
            let mut names = names[..length].split(|&b| b == 0).filter(|name| !name.is_empty());
            names.any(|name| name != b"security.selinux")
        }
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => false,
        Err(_) => true,
    }
}
