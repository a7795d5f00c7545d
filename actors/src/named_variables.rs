//! Named variables: those that are left out of every tool's environment, since they differ from shell to shell, and that
//! a text which took part names all the same (`$MAKEFLAGS` in a script). There they are inputs like any other.

use std::fs::File;
use std::io::Read;

use zccache_proto::ByteStrings;

use crate::key::{UNIMPORTANT_PREFIX, UNIMPORTANT_VARIABLES};
use crate::observation::{Seen, Sighting};
use crate::sys::BorrowedFd;
use crate::sys::fs::{Mode, OFlags};

/// The largest text that is looked through, in bytes; a larger one may name anything.
const TEXT_BYTES_MAX: u64 = 64 << 20;

/// Where a file is no text, in bytes from its start: a zero.
const TEXT_START_BYTES: usize = 4096;

/// What a shell sets itself, whatever it was given.
const SET_BY_SHELLS: [&[u8]; 2] = [b"_", b"PPID"];

/// The names in the arguments and in texts of this run, sorted: in those that were executed, or in all of them.
pub fn named(
    arguments: &ByteStrings,
    sightings: &[Sighting],
    cwd: BorrowedFd<'_>,
    all_texts: bool,
) -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = arguments.iter().flat_map(names_in).map(<[u8]>::to_vec).collect();
    for sighting in sightings {
        let read = match &sighting.seen {
            Seen::Before { seen, .. } => seen,
            seen => seen,
        };
        if matches!(read, Seen::Read { executed, .. } if *executed || all_texts) {
            match text(cwd, &sighting.path.0) {
                Some(text) => names.extend(names_in(&text).map(<[u8]>::to_vec)),
                None => names.extend(UNIMPORTANT_VARIABLES.iter().map(|name| name.as_bytes().to_vec())),
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}

/// The names that a text has as words.
fn names_in(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = text.split(|b| !b.is_ascii_alphanumeric() && *b != b'_');
    words.filter(|word| {
        let is_unimportant = || UNIMPORTANT_VARIABLES.iter().any(|name| name.as_bytes() == *word);
        !SET_BY_SHELLS.contains(word)
            && word.first().is_some_and(u8::is_ascii_uppercase)
            && (word.starts_with(UNIMPORTANT_PREFIX) || is_unimportant())
    })
}

/// What is in a file, if that is a text (else nothing); `None` if it cannot be told.
fn text(cwd: BorrowedFd<'_>, path: &[u8]) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut file = File::from(crate::sys::fs::openat(cwd, path, flags, Mode::empty()).ok()?);
    let mut text = Vec::new();
    file.by_ref().take(TEXT_START_BYTES as u64).read_to_end(&mut text).ok()?;
    if text.contains(&0) {
        return Some(Vec::new());
    }
    file.take(TEXT_BYTES_MAX + 1 - text.len() as u64).read_to_end(&mut text).ok()?;
    (text.len() as u64 <= TEXT_BYTES_MAX).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::freshness::WorkingDirectory;
    use crate::observation::Spelled;
    use crate::signature::Signature;

    #[test]
    fn names_are_words_of_texts_and_of_arguments() {
        let temp = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("script", &b"case $MAKEFLAGS in *s*) ;; esac; ${MFLAGS_2} $_ $PPID"[..]),
            ("included", b"echo \"${ZCCACHE_TWO-}\""),
            ("program", b"\x7fELF\0OLDPWD"),
        ] {
            std::fs::write(temp.path().join(file), text).unwrap();
        }
        let cwd = WorkingDirectory::open(temp.path().as_os_str().as_encoded_bytes()).unwrap();
        let sighting = |name: &str, executed| Sighting {
            path: Spelled(name.into()),
            seen: Seen::Read { signature: Signature::of(temp.path()).unwrap(), executed, linked: false },
        };
        let sightings = [sighting("script", true), sighting("included", false), sighting("program", true)];
        let found = |arguments: &[&str], sightings: &[Sighting], all| {
            let names = named(&arguments.iter().collect(), sightings, cwd.fd(), all);
            names.into_iter().map(|name| String::from_utf8(name).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(found(&["sh", "-c", "echo $SHLVL"], &sightings, false), ["MAKEFLAGS", "SHLVL"]);
        assert_eq!(found(&[], &sightings, true), ["MAKEFLAGS", "ZCCACHE_TWO"]);
        assert_eq!(found(&[], &[sighting("gone", true)], false).len(), UNIMPORTANT_VARIABLES.len());
    }

    #[test]
    fn a_text_longer_than_is_looked_through_may_name_anything() {
        let temp = tempfile::tempdir().unwrap();
        let cwd = WorkingDirectory::open(temp.path().as_os_str().as_encoded_bytes()).unwrap();
        let path = temp.path().join("a.txt");
        let mut bytes = vec![b' '; TEXT_BYTES_MAX as usize];
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(text(cwd.fd(), b"a.txt").map(|text| text.len() as u64), Some(TEXT_BYTES_MAX));
        bytes.push(b' ');
        std::fs::write(&path, &bytes).unwrap();
        assert!(text(cwd.fd(), b"a.txt").is_none());
    }
}
