//! Whether a run that asked for the time, or for its process number, can tell it: for tools that ask unasked, and tell
//! only where a text names it.

use std::io::Read;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};
use zccache_proto::ByteStrings;

use crate::observation::{Seen, Sighting};

/// The largest text that is looked through, in bytes; a larger one may hold anything.
const TEXT_BYTES_MAX: u64 = 64 << 20;

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

fn read(cwd: BorrowedFd<'_>, path: &[u8]) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = std::fs::File::from(rustix::fs::openat(cwd, path, flags, Mode::empty()).ok()?);
    let mut text = Vec::new();
    file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut text).ok()?;
    // What the loader reads is no text.
    let is_program = text.starts_with(b"\x7fELF");
    match text.len() as u64 {
        _ if is_program => Some(Vec::new()),
        ..=TEXT_BYTES_MAX => Some(text),
        _ => None,
    }
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
