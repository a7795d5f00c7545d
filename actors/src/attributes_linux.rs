//! Extended attributes of an output's older file, access control lists among them: a tool that writes into the file keeps
//! them, and one that takes its place does not have them.

use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Bytes of the names of attributes: room for those that do not matter; a file with more has others as well.
const ATTRIBUTES_BYTES_MAX: usize = 64;

/// Whether the file at `path` has attributes that are lost if another one takes its place, while they would stay if it
/// were written to: an access control list, or what somebody has put there. A label of SELinux is given to every file.
pub fn are_lost(cwd: BorrowedFd<'_>, path: &[u8]) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::XattrFlags;
    use std::os::fd::AsFd;

    #[test]
    fn a_file_with_more_names_than_there_is_room_for_has_some_to_lose() {
        let temp = tempfile::tempdir().unwrap();
        let directory = std::fs::File::open(temp.path()).unwrap();
        let file = std::fs::File::create(temp.path().join("a.o")).unwrap();
        assert!(!are_lost(directory.as_fd(), b"a.o"));
        let name = format!("user.{}", "x".repeat(ATTRIBUTES_BYTES_MAX));
        rustix::fs::fsetxattr(&file, &*name, b"", XattrFlags::empty()).unwrap();
        assert!(are_lost(directory.as_fd(), b"a.o"));
        assert!(are_lost(directory.as_fd(), b"missing"));
    }
}
