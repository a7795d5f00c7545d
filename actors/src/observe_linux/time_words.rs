//! Whether a run that asked for the time, or for its process number, can tell it: for tools that ask unasked, and tell
//! only where a text names it.

use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};
use zccache_proto::ByteStrings;

use crate::observation::{Seen, Sighting};

/// The largest text that is looked through, in bytes; a larger one may hold anything.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// As much of a file as tells what kind it is.
const HEAD_BYTES: u64 = 8;

/// Whether one of `words` is in an argument, or in a text that was read or executed. Without words it may always.
pub fn may_be_told(
    words: &[&str],
    arguments: &ByteStrings,
    sightings: &[Sighting],
    cwd: BorrowedFd<'_>,
) -> bool {
    let has_word =
        |text: &[u8]| words.iter().any(|word| text.windows(word.len()).any(|w| w == word.as_bytes()));
    let is_read = |s: &&Sighting| matches!(&s.seen, Seen::Read { .. } | Seen::Before { .. });
    words.is_empty()
        || arguments.iter().any(has_word)
        || sightings.iter().filter(is_read).any(|s| read(cwd, &s.path.0).is_none_or(|text| has_word(&text)))
}

/// The text of a file, empty if it is a program or the like; none if it cannot be read or is too long.
pub fn read(cwd: BorrowedFd<'_>, path: &[u8]) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut file = std::fs::File::from(rustix::fs::openat(cwd, path, flags, Mode::empty()).ok()?);
    let mut text = Vec::new();
    file.by_ref().take(HEAD_BYTES).read_to_end(&mut text).ok()?;
    if is_no_text(&text) {
        return Some(Vec::new());
    }
    file.take(TEXT_BYTES_MAX + 1 - text.len() as u64).read_to_end(&mut text).ok()?;
    (text.len() as u64 <= TEXT_BYTES_MAX).then_some(text)
}

/// Whether a file that begins so is a program, an archive of objects, or a crate's metadata: neither a compiler nor a shell
/// takes one for a text.
fn is_no_text(head: &[u8]) -> bool {
    [&b"\x7fELF"[..], b"!<arch>\n", b"rust\0"].iter().any(|magic| head.starts_with(magic))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::Spelled;
    use crate::signature::Signature;
    use std::os::fd::AsFd;

    #[test]
    fn the_time_may_be_told_where_a_word_says_so() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a.c");
        std::fs::write(&path, "int x = __LINE__;").unwrap();
        let directory = std::fs::File::open(temp.path()).unwrap();
        let signature = Signature::of(&path).unwrap();
        let sightings = [Sighting {
            path: Spelled(b"a.c".to_vec()),
            seen: Seen::Read { signature, executed: false, linked: false },
        }];
        let told = |words: &[&str], arguments: &[&str]| {
            may_be_told(words, &arguments.iter().collect(), &sightings, directory.as_fd())
        };
        assert!(!told(&["__TIME__"], &["tool", "a.c"]));
        assert!(told(&["__TIME__"], &["tool", "-DX=__TIME__"]));
        assert!(told(&["__LINE__"], &["tool"]));
        assert!(told(&[], &["tool"]));
        std::fs::remove_file(&path).unwrap();
        assert!(told(&["__TIME__"], &["tool"]));
    }

    #[test]
    fn a_text_longer_than_is_looked_through_may_hold_anything() {
        let temp = tempfile::tempdir().unwrap();
        let directory = std::fs::File::open(temp.path()).unwrap();
        let file = std::fs::File::create(temp.path().join("a.txt")).unwrap();
        file.set_len(TEXT_BYTES_MAX).unwrap();
        assert_eq!(read(directory.as_fd(), b"a.txt").map(|text| text.len() as u64), Some(TEXT_BYTES_MAX));
        file.set_len(TEXT_BYTES_MAX + 1).unwrap();
        assert!(read(directory.as_fd(), b"a.txt").is_none());
    }
}
