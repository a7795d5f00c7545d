//! Where a path of an observed process leads: from (thread, descriptor, string) to the spelling that goes into
//! an observation.
//!
//! A relative path stays as spelled while it starts from the client's working directory. From anywhere else
//! it is made absolute. Either way it can be looked up from the descriptor of the client's directory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::signature::Signature;

/// Why a path could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lost {
    /// The system call will fail whatever the file system holds.
    Fails,
    /// We cannot tell what it means.
    Unknown(&'static str),
}

/// What an open descriptor of a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Open {
    /// A file with this absolute path.
    At(Vec<u8>),
    /// A file without a name (removed, or never had one).
    Nameless,
    /// A pipe, socket or the like.
    NoFile,
}

/// The client's working directory, and what is known of the processes' own.
pub struct Place {
    cwd: OwnedFd,
    spelled: Vec<u8>,
    canonical: Vec<u8>,
    /// Some process may have left the client's directory.
    pub moved: bool,
}

impl Place {
    /// The place of a run that starts in `cwd`.
    ///
    /// # Errors
    /// If the directory cannot be opened.
    pub fn new(cwd: &[u8]) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(cwd, flags, Mode::empty())?;
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        let canonical = rustix::fs::readlink(link, Vec::new())?.into_bytes();
        Ok(Self { cwd: fd, spelled: cwd.to_vec(), canonical, moved: false })
    }

    /// The descriptor that relative spellings start from.
    pub fn cwd(&self) -> BorrowedFd<'_> {
        self.cwd.as_fd()
    }

    /// The working directory's own path, which has no links.
    pub fn canonical(&self) -> &[u8] {
        &self.canonical
    }

    /// `path`, made absolute.
    pub fn absolute(&self, path: &[u8]) -> Vec<u8> {
        match path.first() {
            Some(b'/') => path.to_vec(),
            None => self.canonical.clone(),
            Some(_) => [self.canonical.as_slice(), path].join(&b'/'),
        }
    }

    /// The signature of what a spelling leads to now.
    ///
    /// # Errors
    /// Those of `statx`.
    pub fn signature(&self, path: &[u8], follow: bool) -> Result<Signature, Errno> {
        let flags = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
        Signature::at(&self.cwd, path, flags)
    }

    /// Whether one of the kernel's links to what a process has open is on the way to `path`, or at its end. One by a
    /// number that we have not open leads nowhere for us, and is told by its name.
    pub fn leads_through_kernel_link(&self, path: &[u8]) -> bool {
        let normal = self.normal(path);
        if normal.starts_with(b"/dev/fd/")
            || (normal.starts_with(b"/proc/") && normal.windows(4).any(|w| w == b"/fd/"))
        {
            return true;
        }
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let opened = rustix::fs::openat2(&self.cwd, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS);
        matches!(opened, Err(Errno::LOOP))
    }

    /// The spelling of `path` as thread `tid` uses it, from the directory open as `directory` (or `AT_FDCWD`).
    ///
    /// # Errors
    /// [`Lost`], where it cannot be told.
    pub fn locate(&self, tid: u32, directory: i32, path: Vec<u8>) -> Result<Vec<u8>, Lost> {
        if path.is_empty() {
            return Err(Lost::Fails);
        }
        if path[0] == b'/' || (directory == libc::AT_FDCWD && !self.moved) {
            return Ok(path);
        }
        let start = if directory == libc::AT_FDCWD {
            link(&format!("/proc/{tid}/cwd"))
        } else {
            link(&format!("/proc/{tid}/fd/{directory}"))
        };
        match start {
            Ok(Open::At(start)) if start == self.canonical => Ok(path),
            Ok(Open::At(mut start)) => {
                if start.last() != Some(&b'/') {
                    start.push(b'/');
                }
                start.extend_from_slice(&path);
                Ok(start)
            }
            Ok(Open::Nameless) => Err(Lost::Unknown("a removed directory")),
            Ok(Open::NoFile) | Err(Errno::NOENT) => Err(Lost::Fails),
            Err(_) => Err(Lost::Unknown("a hidden directory")),
        }
    }

    /// What descriptor `fd` of thread `tid` is.
    ///
    /// # Errors
    /// As [`Place::locate`].
    pub fn descriptor(&self, tid: u32, fd: i32) -> Result<Open, Lost> {
        match link(&format!("/proc/{tid}/fd/{fd}")) {
            Ok(open) => Ok(open),
            Err(Errno::NOENT) => Err(Lost::Fails),
            Err(_) => Err(Lost::Unknown("a hidden descriptor")),
        }
    }

    /// One spelling for all spellings that differ in form alone: absolute, without `.` and doubled slashes.
    /// `..` and links are left alone, since what they mean depends on the file system.
    pub fn normal(&self, path: &[u8]) -> Vec<u8> {
        let rest = match path.strip_prefix(self.spelled.as_slice()) {
            Some(rest) if rest.is_empty() || rest[0] == b'/' => Some(rest),
            _ if path.first() == Some(&b'/') => None,
            _ => Some(path),
        };
        let mut normal = Vec::with_capacity(self.canonical.len() + path.len() + 1);
        let (start, rest) = match rest {
            Some(rest) => (self.canonical.as_slice(), rest),
            None => (b"".as_slice(), path),
        };
        normal.extend_from_slice(start.strip_suffix(b"/").unwrap_or(start));
        for part in rest.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".") {
            normal.push(b'/');
            normal.extend_from_slice(part);
        }
        normal
    }
}

/// The directory part of a spelling: what must exist for the name to be made. None for a bare name.
pub fn parent(path: &[u8]) -> Option<&[u8]> {
    let trimmed = path.len() - path.iter().rev().take_while(|&&b| b == b'/').count();
    let slash = path[..trimmed].iter().rposition(|&b| b == b'/')?;
    Some(if slash == 0 { b"/" } else { &path[..slash] })
}

/// Reads one of the kernel's links to an open file.
fn link(path: &str) -> Result<Open, Errno> {
    let target = rustix::fs::readlink(path, Vec::with_capacity(256))?.into_bytes();
    Ok(match target.first() {
        Some(b'/') if target.ends_with(b" (deleted)") => Open::Nameless,
        Some(b'/') => Open::At(target),
        _ => Open::NoFile,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_file_have_one_normal_form() {
        let dir = tempfile::tempdir().unwrap();
        let real = std::fs::canonicalize(dir.path()).unwrap();
        let alias = real.join("alias");
        std::fs::create_dir(real.join("d")).unwrap();
        std::os::unix::fs::symlink(real.join("d"), &alias).unwrap();
        let place = Place::new(alias.as_os_str().as_encoded_bytes()).unwrap();
        let expected = real.join("d/x/y").into_os_string().into_encoded_bytes();
        for spelled in ["x/y", "./x//y", "x/./y/"] {
            assert_eq!(place.normal(spelled.as_bytes()), expected, "{spelled}");
        }
        let through_alias = alias.join("x/y").into_os_string().into_encoded_bytes();
        assert_eq!(place.normal(&through_alias), expected);
        assert_eq!(place.normal(&expected), expected);
    }

    #[test]
    fn parents() {
        for (path, expected) in
            [("a", None), ("a/b", Some("a")), ("/a", Some("/")), ("/a/b/", Some("/a")), ("a//b", Some("a/"))]
        {
            assert_eq!(parent(path.as_bytes()), expected.map(str::as_bytes), "{path}");
        }
    }
}
