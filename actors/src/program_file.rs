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

/// The ELF machine of this architecture (elf.h: `EM_*`).
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;
/// See above.
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// Looks into the file at `path`, relative to `directory`.
pub fn format_of(directory: impl AsFd, path: &[u8]) -> Format {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    let Ok(file) = rustix::fs::openat(directory, path, flags, Mode::empty()) else { return Format::Unknown };
    let read = |offset: u64, bytes: usize| {
        let mut buffer = vec![0; bytes];
        let got = rustix::io::pread(&file, buffer.as_mut_slice(), offset).unwrap_or(0);
        buffer.truncate(got);
        buffer
    };
    parse(&read(0, HEAD_BYTES), read)
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

fn elf(head: &[u8], read: impl Fn(u64, usize) -> Vec<u8>) -> Option<Format> {
    // Class 64, little-endian.
    if !head.starts_with(b"\x7fELF\x02\x01") || u16_at(head, 18)? != MACHINE {
        return None;
    }
    let (offset, size, count) = (u64_at(head, 32)?, u16_at(head, 54)?, u16_at(head, 56)?);
    let headers = read(offset, usize::from(size) * usize::from(count));
    for i in 0..usize::from(count) {
        let header = headers.get(i * usize::from(size)..)?;
        if u32_at(header, 0)? == PT_INTERP {
            let bytes = usize::try_from(u64_at(header, 32)?).ok()?.min(LOADER_BYTES_MAX);
            let mut path = read(u64_at(header, 8)?, bytes);
            path.truncate(path.iter().position(|&b| b == 0)?);
            return Some(Format::Elf(Some(path)));
        }
    }
    Some(Format::Elf(None))
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
