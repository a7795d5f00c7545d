//! What the kernel itself reads when a file is executed: the interpreter that the file names.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};

/// What an executable file says about how it is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// An ELF file of this machine; its loader, if it is dynamic.
    Elf(Option<Vec<u8>>),
    /// A script, and its interpreter.
    Script(Vec<u8>),
    /// Neither: the kernel refuses it, or hands it to who knows whom (`binfmt_misc`).
    Unknown,
}

/// As much of a file's start as is read, in bytes: program headers are in the first page in practice, and the
/// kernel looks at 256 bytes of a script.
const HEAD_BYTES: usize = 4096;

/// As much of a script's first line as the kernel takes, in bytes (linux/binfmts.h: `BINPRM_BUF_SIZE`).
const SCRIPT_LINE_BYTES_MAX: usize = 256;

/// The longest loader path believed, in bytes (the kernel's own limit).
const LOADER_BYTES_MAX: usize = 4096;

/// Program header type of the loader's path (elf.h: `PT_INTERP`).
const PT_INTERP: u32 = 3;

/// Program header types of a part that is loaded, and of the dynamic section (elf.h).
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;

/// Tags in the dynamic section (elf.h): the end, a library that is needed, the strings, and their length.
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_STRSZ: u64 = 10;

/// The largest dynamic section and the most of its strings that are read, in bytes: those of a compiler with all of LLVM
/// in it have some hundreds of entries, and a few MiB of names.
const DYNAMIC_BYTES_MAX: u64 = 64 << 10;
const STRINGS_BYTES_MAX: u64 = 64 << 20;

/// The ELF machine of this architecture (elf.h: `EM_*`).
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
/// See above.
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// Looks into the file at `path`, relative to `directory`.
pub fn format_of(directory: impl AsFd, path: &[u8]) -> Format {
    let Some(read) = reader(directory, path) else { return Format::Unknown };
    parse(&read(0, HEAD_BYTES), read)
}

/// The libraries that the program at `path`, relative to `directory`, names as needed; none if that cannot be told.
pub fn needed_libraries(directory: impl AsFd, path: &[u8]) -> Option<Vec<Vec<u8>>> {
    let read = reader(directory, path)?;
    needed(&read(0, HEAD_BYTES), read)
}

/// Gives up to so many bytes of a file from an offset on.
fn reader(directory: impl AsFd, path: &[u8]) -> Option<impl Fn(u64, usize) -> Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let file = rustix::fs::openat(directory, path, flags, Mode::empty()).ok()?;
    Some(move |offset: u64, bytes: usize| {
        let mut buffer = vec![0; bytes];
        let got = rustix::io::pread(&file, buffer.as_mut_slice(), offset).unwrap_or(0);
        buffer.truncate(got);
        buffer
    })
}

fn parse(head: &[u8], read: impl Fn(u64, usize) -> Vec<u8>) -> Format {
    if let Some(line) = head.strip_prefix(b"#!") {
        return script(&line[..line.len().min(SCRIPT_LINE_BYTES_MAX - 2)]);
    }
    elf(head, read).unwrap_or(Format::Unknown)
}

fn script(line: &[u8]) -> Format {
    let line = line.split(|&b| b == b'\n' || b == 0).next().unwrap_or_default();
    match line.split(|&b| b == b' ' || b == b'\t').find(|word| !word.is_empty()) {
        Some(word) => Format::Script(word.to_vec()),
        None => Format::Unknown,
    }
}

/// A program header: what of the file it is about.
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    bytes: u64,
}

fn segments(head: &[u8], read: impl Fn(u64, usize) -> Vec<u8>) -> Option<Vec<Segment>> {
    // Class 64, little-endian.
    if !head.starts_with(b"\x7fELF\x02\x01") || u16_at(head, 18)? != MACHINE {
        return None;
    }
    let (offset, size, count) = (u64_at(head, 32)?, u16_at(head, 54)?, u16_at(head, 56)?);
    let headers = read(offset, usize::from(size) * usize::from(count));
    let segment = |i: usize| {
        let header = headers.get(i * usize::from(size)..)?;
        Some(Segment {
            kind: u32_at(header, 0)?,
            offset: u64_at(header, 8)?,
            address: u64_at(header, 16)?,
            bytes: u64_at(header, 32)?,
        })
    };
    (0..usize::from(count)).map(segment).collect()
}

fn elf(head: &[u8], read: impl Fn(u64, usize) -> Vec<u8>) -> Option<Format> {
    let segments = segments(head, &read)?;
    let Some(loader) = segments.iter().find(|s| s.kind == PT_INTERP) else { return Some(Format::Elf(None)) };
    let mut path = read(loader.offset, usize::try_from(loader.bytes).ok()?.min(LOADER_BYTES_MAX));
    path.truncate(path.iter().position(|&b| b == 0)?);
    Some(Format::Elf(Some(path)))
}

fn needed(head: &[u8], read: impl Fn(u64, usize) -> Vec<u8>) -> Option<Vec<Vec<u8>>> {
    let segments = segments(head, &read)?;
    let dynamic = segments.iter().find(|s| s.kind == PT_DYNAMIC)?;
    let entries = read(dynamic.offset, dynamic.bytes.min(DYNAMIC_BYTES_MAX) as usize);
    let entries: Vec<(u64, u64)> = entries
        .chunks_exact(16)
        .map_while(|entry| Some((u64_at(entry, 0)?, u64_at(entry, 8)?)))
        .take_while(|(tag, _)| *tag != DT_NULL)
        .collect();
    let value = |wanted: u64| entries.iter().find(|(tag, _)| *tag == wanted).map(|(_, value)| *value);
    let address = value(DT_STRTAB)?;
    let holder = segments
        .iter()
        .find(|s| s.kind == PT_LOAD && address.checked_sub(s.address).is_some_and(|in_it| in_it < s.bytes))?;
    let offset = holder.offset.checked_add(address - holder.address)?;
    let strings = read(offset, value(DT_STRSZ)?.min(STRINGS_BYTES_MAX) as usize);
    let name = |at: u64| {
        let name = strings.get(usize::try_from(at).ok()?..)?;
        Some(name[..name.iter().position(|&b| b == 0)?].to_vec())
    };
    entries.iter().filter(|(tag, _)| *tag == DT_NEEDED).map(|(_, at)| name(*at)).collect()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_apart() {
        for (head, expected) in [
            ("#!/bin/sh\n", Format::Script(b"/bin/sh".to_vec())),
            ("#! \t/usr/bin/env  python\n", Format::Script(b"/usr/bin/env".to_vec())),
            ("#!\n/bin/sh", Format::Unknown),
            ("echo hello\n", Format::Unknown),
            ("\x7fELF\x02\x01", Format::Unknown),
            ("", Format::Unknown),
        ] {
            assert_eq!(parse(head.as_bytes(), |_, _| Vec::new()), expected, "{head:?}");
        }
    }

    #[test]
    fn a_dynamic_program_names_its_loader() {
        let Format::Elf(Some(loader)) = format_of(rustix::fs::CWD, b"/bin/sh") else { panic!("not dynamic") };
        assert!(loader.starts_with(b"/lib"), "{loader:?}");
    }

    #[test]
    fn a_dynamic_program_names_its_libraries() {
        let names = needed_libraries(rustix::fs::CWD, b"/bin/sh").unwrap();
        assert!(names.contains(&b"libc.so.6".to_vec()), "{names:?}");
        assert_eq!(needed_libraries(rustix::fs::CWD, b"/etc/passwd"), None);
        assert_eq!(needed_libraries(rustix::fs::CWD, b"/nonexistent"), None);
    }

    #[test]
    fn no_more_of_a_programs_tables_is_read_than_any_has() {
        let segment = |kind: u32, bytes: u64| {
            let mut segment = vec![0; 56];
            segment[..4].copy_from_slice(&kind.to_le_bytes());
            segment[32..40].copy_from_slice(&bytes.to_le_bytes());
            segment
        };
        let mut head = vec![0; 64];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[18..20].copy_from_slice(&MACHINE.to_le_bytes());
        head[32..40].copy_from_slice(&64_u64.to_le_bytes());
        head[54..56].copy_from_slice(&56_u16.to_le_bytes());
        head[56..58].copy_from_slice(&2_u16.to_le_bytes());
        let headers = [segment(PT_DYNAMIC, u64::MAX), segment(PT_LOAD, u64::MAX)].concat();
        let table: Vec<u8> = [DT_STRTAB, 7, DT_STRSZ, u64::MAX, DT_NEEDED, 0]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let asked = std::cell::RefCell::new(Vec::new());
        let names = needed(&head, |offset, bytes| {
            asked.borrow_mut().push(bytes);
            match offset {
                64 => headers.clone(),
                0 => table.clone(),
                _ => b"libc.so.6\0".to_vec(),
            }
        });
        assert_eq!(names, Some(vec![b"libc.so.6".to_vec()]));
        assert_eq!(asked.borrow()[1..], [DYNAMIC_BYTES_MAX as usize, STRINGS_BYTES_MAX as usize]);
    }

    #[test]
    fn as_much_of_a_scripts_first_line_counts_as_the_kernel_takes() {
        for (longer, expected) in [(0, SCRIPT_LINE_BYTES_MAX - 2), (1, SCRIPT_LINE_BYTES_MAX - 2), (0, 3)] {
            let name = vec![b'x'; expected + longer];
            let head = [&b"#!"[..], &name, b"\n"].concat();
            let Format::Script(interpreter) = parse(&head, |_, _| Vec::new()) else { panic!("no script") };
            assert_eq!(interpreter.len(), expected);
        }
    }

    #[test]
    fn no_more_of_a_loaders_path_is_read_than_any_path_has() {
        // A header that says that its loader's path is very long; what is read for it never ends.
        let mut head = vec![0; 64];
        head[..6].copy_from_slice(b"\x7fELF\x02\x01");
        head[18..20].copy_from_slice(&MACHINE.to_le_bytes());
        head[32..40].copy_from_slice(&64_u64.to_le_bytes());
        head[54..56].copy_from_slice(&56_u16.to_le_bytes());
        head[56..58].copy_from_slice(&1_u16.to_le_bytes());
        let mut segment = vec![0; 56];
        segment[..4].copy_from_slice(&PT_INTERP.to_le_bytes());
        segment[8..16].copy_from_slice(&1000_u64.to_le_bytes());
        segment[32..40].copy_from_slice(&(1_u64 << 40).to_le_bytes());
        let asked = std::cell::Cell::new(0);
        let format = parse(&head, |offset, bytes| {
            if offset == 64 {
                return segment.clone();
            }
            asked.set(bytes);
            b"/lib/ld.so\0".to_vec()
        });
        assert_eq!(format, Format::Elf(Some(b"/lib/ld.so".to_vec())));
        assert_eq!(asked.get(), LOADER_BYTES_MAX);
    }
}
