//! Traces: does a content hold bytes that tell where it was made?
//!
//! Only contents in which a path would stand as it is are looked at: text, and object files without compressed
//! sections or another compiler's code. In anything else nothing is found, which proves nothing.

use std::io::Read;
use std::sync::Arc;

use crate::sys::fs::{AtFlags, Mode, OFlags};

use crate::blobs::Blobs;
use crate::freshness::WorkingDirectory;
use crate::observation::{Fact, Observation};
use crate::record::OutputFile;
use crate::signature::Signature;

/// The largest content in bytes that is searched (64 MiB): objects beyond are rare, and sharing them pays less than
/// the memory it takes.
const SEARCHED_BYTES_MAX: u64 = 64 << 20;

/// The content of a stored file, if it is short enough to be searched.
pub fn read(blobs: &Blobs, file: &OutputFile) -> Option<Vec<u8>> {
    if file.bytes > SEARCHED_BYTES_MAX {
        return None;
    }
    let mut content = Vec::new();
    blobs.open(file).ok()?.read_to_end(&mut content).ok()?;
    Some(content)
}

/// Whether `needle` stands in `content`.
pub fn contains(content: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(content, needle).is_some()
}

/// Whether `needle` stands in `content`, and no letter or digit goes on with it. (Something may stand before it: `-oa.o`.)
pub fn contains_word_end(content: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find_iter(content, needle)
        .any(|at| !content.get(at + needle.len()).is_some_and(u8::is_ascii_alphanumeric))
}

/// Whether a search of this content for a path finds it if it is there.
pub fn is_searchable(content: &[u8]) -> bool {
    if content.starts_with(b"\x7fELF") {
        return is_plain_elf(content).unwrap_or(false);
    }
    !content.contains(&0)
}

/// Whether a search of what rustc and linkers make finds a path if it is there: objects, programs and libraries, archives of
/// them, metadata, text.
pub fn is_searchable_build(content: &[u8]) -> bool {
    if let Some(members) = content.strip_prefix(b"!<arch>\n") {
        return are_searchable_members(members).unwrap_or(false);
    }
    // Older compilers pack the metadata in libraries by Snappy, whose frames begin so.
    let is_packed = || contains(content, b"sNaPpY");
    (content.starts_with(METADATA) || is_searchable(content)) && !is_packed()
}

/// What the metadata of a crate begins with (`rustc_metadata::METADATA_HEADER`), less its version.
pub const METADATA: &[u8] = b"rust\0\0\0";

/// The same of the members of an archive, in the common format of GNU and System V; nothing if it is damaged.
fn are_searchable_members(mut members: &[u8]) -> Option<bool> {
    const HEADER_BYTES: usize = 60;
    while !members.is_empty() {
        let (header, rest) = members.split_at_checked(HEADER_BYTES)?;
        let bytes: usize = std::str::from_utf8(&header[48..58]).ok()?.trim_end().parse().ok()?;
        let (member, rest) = rest.split_at_checked(bytes)?;
        // The tables of symbols and of long names have no names of their own.
        let is_table = matches!(header[..16].trim_ascii_end(), b"/" | b"//" | b"/SYM64/");
        if header[58..] != *b"`\n" || !(is_table || is_searchable_build(member)) {
            return Some(false);
        }
        // Each begins at an even place.
        members = if bytes % 2 == 1 { rest.get(1..).unwrap_or_default() } else { rest };
    }
    Some(true)
}

/// Whether an ELF file has none of the sections that hold packed text: compressed ones, and the intermediate code of
/// compilers. Nothing if it is damaged. Layout and numbers: System V ABI, chapter 4.
fn is_plain_elf(content: &[u8]) -> Option<bool> {
    const CLASS_64: u8 = 2;
    const LITTLE_ENDIAN: u8 = 1;
    const SECTION_BYTES: usize = 64;
    const SHF_COMPRESSED: u64 = 0x800;
    const PACKED: &[&[u8]] =
        &[b".zdebug", b".gnu.lto_", b".gnu.debuglto_", b".llvmbc", b".llvm.lto", b"__llvm_covmap"];
    if content.get(4..6)? != [CLASS_64, LITTLE_ENDIAN] {
        return Some(false);
    }
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let mut word = [0; 8];
        word[..bytes].copy_from_slice(content.get(at..at.checked_add(bytes)?)?);
        Some(u64::from_le_bytes(word))
    };
    let table = usize::try_from(number(40, 8)?).ok()?;
    let section = |index: u64| table.checked_add(SECTION_BYTES.checked_mul(usize::try_from(index).ok()?)?);
    // Counts that do not fit the header stand in the first section.
    let (count, names) = (number(60, 2)?, number(62, 2)?);
    let count = if count == 0 { number(section(0)? + 32, 8)? } else { count };
    let names = if names == 0xffff { number(section(0)? + 40, 4)? } else { names };
    let names_at = usize::try_from(number(section(names)? + 24, 8)?).ok()?;
    for index in 0..count {
        let at = section(index)?;
        let name = content.get(names_at.checked_add(usize::try_from(number(at, 4)?).ok()?)?..)?;
        if number(at + 8, 8)? & SHF_COMPRESSED != 0 || PACKED.iter().any(|packed| name.starts_with(packed)) {
            return Some(false);
        }
    }
    Some(true)
}

/// Whether a text that was read says `needle`, so that a path with it may come from there. Yes in doubt.
pub fn any_input_says(observations: &[Arc<Observation>], needle: &[u8], cwd: &WorkingDirectory) -> bool {
    observations.iter().any(|observation| match observation.fact {
        Fact::Content { signature, executed: false, .. } => {
            input(&observation.path.0, signature, cwd).is_none_or(|content| contains(&content, needle))
        }
        _ => false,
    })
}

/// The content of an input, if it is still the one with this signature.
fn input(path: &[u8], signature: Signature, cwd: &WorkingDirectory) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(crate::sys::fs::openat(cwd.fd(), path, flags, Mode::empty()).ok()?);
    let now = Signature::at(&file, c"", AtFlags::EMPTY_PATH).ok()?;
    let mut content = Vec::new();
    (&mut file).take(4).read_to_end(&mut content).ok()?;
    // A program or a library of the tool's own is no text.
    if content != b"\x7fELF" {
        (now == signature && now.size <= SEARCHED_BYTES_MAX)
            .then(|| file.read_to_end(&mut content).ok())??;
    }
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_told_from_the_beginnings_of_others() {
        for (content, told) in [
            ("-c a.c -o a.o", true),
            ("-oa.o\0", true),
            ("\"a.o\"", true),
            ("a.o.tmp", true),
            (".rela.orc", false),
        ] {
            assert_eq!(contains_word_end(content.as_bytes(), b"a.o"), told, "{content}");
        }
    }

    #[test]
    fn all_members_of_an_archive_must_be_searchable() {
        let archive = |members: &[(&str, &[u8])]| {
            let mut bytes = b"!<arch>\n".to_vec();
            for (name, content) in members {
                bytes.extend(
                    format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 644, content.len()).bytes(),
                );
                bytes.extend_from_slice(content);
                bytes.resize(bytes.len().next_multiple_of(2), b'\n');
            }
            bytes
        };
        let is_fine = |members: &[(&str, &[u8])]| is_searchable_build(&archive(members));
        assert!(is_fine(&[
            ("/", b"\0\0\0\x01x"),
            ("//", b"long/\n"),
            ("a.txt/", b"odd"),
            ("lib.rmeta/", b"rust\0\0\0\nx")
        ]));
        assert!(!is_fine(&[("a.txt/", b"text"), ("a.bc/", b"BC\xc0\xde\0")]));
        assert!(!is_fine(&[("lib.rmeta/", b"rust\0\0\0\n\xff\x06\0\0sNaPpY")]));
        assert!(!is_searchable_build(&archive(&[("a.txt/", b"text")])[..70]), "cut short");
        assert!(is_searchable_build(b"rust\0\0\0\n") && !is_searchable_build(b"!<thin>\n\0"));
    }

    #[test]
    fn text_is_searchable_and_what_may_be_packed_is_not() {
        assert!(is_searchable(b""));
        assert!(is_searchable(b"a.o: a.c\n"));
        assert!(!is_searchable(b"BC\xc0\xde\0"));
        assert!(!is_searchable(b"\x7fELF"));
        assert!(!is_searchable(b"\x7fELF\x02\x01\x01"));
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        // A program of ours with plain sections; cut short it is damaged.
        assert_eq!(is_plain_elf(&own), Some(true));
        assert_eq!(is_plain_elf(&own[..own.len() / 2]), None);
    }

    #[test]
    fn contents_longer_than_are_searched_may_tell_of_any_place() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("long");
        let blobs = Blobs::new(&temp.path().join("cache"));
        let cwd = WorkingDirectory::open(temp.path().as_os_str().as_encoded_bytes()).unwrap();
        for (bytes, is_searched) in [(SEARCHED_BYTES_MAX, true), (SEARCHED_BYTES_MAX + 1, false)] {
            let sparse = std::fs::File::create(&path).unwrap();
            sparse.set_len(bytes).unwrap();
            let pending = blobs.receive(&mut std::fs::File::open(&path).unwrap()).unwrap();
            blobs.commit(&pending).unwrap();
            let digest = pending.digest;
            assert_eq!(
                read(&blobs, &OutputFile { digest, bytes, mode: 0o644, replaces: false }).is_some(),
                is_searched
            );
            assert_eq!(input(b"long", Signature::of(&path).unwrap(), &cwd).is_some(), is_searched);
        }
    }
}
