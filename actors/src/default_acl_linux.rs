//! Default access control lists: a directory with one hands its own permissions on to the files that are made in it, and
//! their maker's umask does not count there (acl(5)).
//!
//! The mode of a result that was made in such a directory is good nowhere else, nor is any other result's mode good there.

use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

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
