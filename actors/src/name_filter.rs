//! `NameFilter`: which names in a listed directory a tool goes by. A tool that looks through a directory for certain
//! names sees all of them; its result hangs on those that it would take.

use crate::sys::BorrowedFd;

use crate::sys::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The most names a directory may have to be looked at again: reading more costs as much as a compile.
const NAMES_MAX: usize = 100_000;

/// Names that begin with one of some prefixes and end with one of some suffixes, but for a few.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct NameFilter {
    /// Sorted. An empty one stands for any beginning.
    pub prefixes: Vec<ByteName>,
    /// Sorted.
    pub suffixes: Vec<ByteName>,
    /// Names that do not matter all the same. Sorted.
    pub ignored: Vec<ByteName>,
}

/// A name, or a part of one.
pub type ByteName = serde_bytes::ByteBuf;

impl NameFilter {
    /// Whether a name matters.
    pub fn takes(&self, name: &[u8]) -> bool {
        let is_ignored = || self.ignored.binary_search_by(|ignored| ignored.as_slice().cmp(name)).is_ok();
        self.suffixes.iter().any(|suffix| name.ends_with(suffix)) && self.has_prefix_of(name) && !is_ignored()
    }

    /// Prefixes are sorted: what begins `name` is among those not after it. There may be thousands.
    fn has_prefix_of(&self, name: &[u8]) -> bool {
        (0..=name.len()).any(|end| self.prefixes.binary_search_by(|p| p.as_slice().cmp(&name[..end])).is_ok())
    }

    /// The digest of those of `names` that matter, in any order.
    pub fn digest(&self, names: &[Vec<u8>]) -> Digest {
        let mut taken: Vec<&[u8]> = names.iter().map(Vec::as_slice).filter(|name| self.takes(name)).collect();
        taken.sort_unstable();
        Digest::of(&taken.join(&0))
    }
}

/// The names in a directory, in no order.
///
/// # Errors
/// If it cannot be listed, or holds more than `NAMES_MAX` names.
pub fn names_in(dir: BorrowedFd<'_>, path: impl crate::sys::path::Arg) -> std::io::Result<Vec<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = crate::sys::fs::openat(dir, path, flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in crate::sys::fs::Dir::new(opened)? {
        names.push(entry?.file_name().to_bytes().to_vec());
        if names.len() > NAMES_MAX {
            return Err(std::io::Error::other("too many names in one directory"));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<ByteName> {
        list.iter().map(|name| ByteName::from(*name)).collect()
    }

    #[test]
    fn only_names_that_would_be_taken_count() {
        let filter = NameFilter {
            prefixes: names(&["libbar-1", "libfoo-0a"]),
            suffixes: names(&[".rlib", ".rmeta"]),
            ignored: names(&["libbar-1.rlib"]),
        };
        let digest = |list: &[&str]| {
            filter.digest(&list.iter().map(|name| name.as_bytes().to_vec()).collect::<Vec<_>>())
        };
        let plain = digest(&["libfoo-0a.rlib", "libbar-1.rmeta"]);
        for (list, same) in [
            (&["libbar-1.rmeta", "libfoo-0a.rlib"][..], true),
            (&["libbar-1.rmeta", "libbar-1.rlib", "libfoo-0a.rlib", "libfoo-0a.d", "foo-0a.rlib"], true),
            (&["libbar-1.rmeta", "libfoo-0a.rlib", "libfoo-0a.rmeta"], false),
            (&["libbar-1.rmeta", "libfoo-0a.rlib", "libfoo-0ab.rlib"], false),
            (&["libfoo-0a.rlib"], false),
        ] {
            assert_eq!(digest(list) == plain, same, "{list:?}");
        }
        let any = NameFilter { prefixes: names(&[""]), suffixes: names(&[".so"]), ..Default::default() };
        assert!(any.takes(b"x.so") && !any.takes(b"x.o"));
    }

    #[test]
    #[cfg(unix)]
    fn a_directory_of_more_names_than_are_looked_at_is_not_listed() {
        use crate::sys::AsFd;
        // In memory, where a hundred thousand names are soon made. Two of those that are there are the directory itself
        // and the one above.
        let place = if cfg!(target_os = "linux") { "/dev/shm".into() } else { std::env::temp_dir() };
        let temp = tempfile::tempdir_in(place).unwrap();
        let directory = std::fs::File::open(temp.path()).unwrap();
        let link = |name: &str| rustix::fs::symlinkat("x", &directory, name).unwrap();
        (2..NAMES_MAX).for_each(|number| link(&number.to_string()));
        assert_eq!(names_in(directory.as_fd(), ".").unwrap().len(), NAMES_MAX);
        link("one more");
        assert!(names_in(directory.as_fd(), ".").is_err());
    }
}
