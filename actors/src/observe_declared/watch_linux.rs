//! Watches, while a tool runs, the names that decide where its inputs are: what changes and changes back is
//! seen as well.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// Room for a few dozen events per reading.
const BUFFER_BYTES: usize = 16 * 1024;

/// Watched directories, and the names that matter in them.
pub struct Watch {
    inotify: OwnedFd,
    names: HashMap<i32, HashSet<OsString>>,
}

impl Watch {
    /// Begins to watch. A directory that is not there needs no watch: its name is one in another directory.
    ///
    /// # Errors
    /// If the system does not let us.
    pub fn new(steps: &HashMap<PathBuf, HashSet<OsString>>) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let mut names: HashMap<i32, HashSet<OsString>> = HashMap::new();
        for (directory, wanted) in steps {
            match inotify::add_watch(&inotify, directory, flags) {
                Ok(watch) => names.entry(watch).or_default().extend(wanted.iter().cloned()),
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(Self { inotify, names })
    }

    /// The first name that came, went or was replaced, if one did.
    pub fn changed(&mut self) -> Option<String> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER_BYTES];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.events().intersects(LOST) => return Some("a watched directory".into()),
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                    let names = self.names.get(&event.wd());
                    if let Some(name) = name.filter(|name| names.is_some_and(|n| n.contains(*name))) {
                        return Some(name.to_string_lossy().into_owned());
                    }
                }
                Err(Errno::AGAIN) => return None,
                Err(Errno::INTR) => {}
                Err(e) => return Some(e.to_string()),
            }
        }
    }
}

/// Events that concern the directory as a whole.
const LOST: ReadFlags = ReadFlags::DELETE_SELF
    .union(ReadFlags::MOVE_SELF)
    .union(ReadFlags::IGNORED)
    .union(ReadFlags::UNMOUNT)
    .union(ReadFlags::QUEUE_OVERFLOW);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_is_seen_and_other_names_do_not_matter() {
        let temp = tempfile::tempdir().unwrap();
        let steps = HashMap::from([
            (temp.path().to_owned(), HashSet::from([OsString::from("a.h"), OsString::from("dir")])),
            (temp.path().join("missing"), HashSet::new()),
        ]);
        std::fs::create_dir(temp.path().join("dir")).unwrap();
        let mut watch = Watch::new(&steps).unwrap();
        std::fs::write(temp.path().join("a.o"), "").unwrap();
        assert_eq!(watch.changed(), None);
        std::fs::write(temp.path().join("a.h"), "").unwrap();
        std::fs::remove_file(temp.path().join("a.h")).unwrap();
        assert_eq!(watch.changed().as_deref(), Some("a.h"));
        let mut watch = Watch::new(&steps).unwrap();
        std::fs::rename(temp.path().join("dir"), temp.path().join("else")).unwrap();
        std::fs::rename(temp.path().join("else"), temp.path().join("dir")).unwrap();
        assert_eq!(watch.changed().as_deref(), Some("dir"));
    }
}
