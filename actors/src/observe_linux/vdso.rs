//! Makes the clock visible: turns the kernel's clock functions in a process's memory back into system calls.
//!
//! A process asks for the time, and newer ones for random numbers, by calling functions that the kernel maps into it
//! (vdso(7)), and no system call is made. Written over in the process's own copy of that page, with the very system
//! calls they stand for, they give the same answers, only slower, and the filter sees them.
//!
//! The functions lie at the same place in the mapping for every process of a running kernel, so they are looked up
//! once, in our own. What must never happen: that a process runs with half of them written over, or with a function
//! whose end is not known to lie beyond what is written.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

/// The entry of the auxiliary vector that tells where the mapping is (elf.h: `AT_SYSINFO_EHDR`).
const AT_SYSINFO_EHDR: u64 = 33;

/// The most of the mapping that is looked at: it has two pages of 4 KiB today.
const IMAGE_BYTES_MAX: usize = 64 * 1024;

/// Program header type of the dynamic section (elf.h: `PT_DYNAMIC`).
const PT_DYNAMIC: u32 = 2;

/// The tags of the tables in the dynamic section (elf.h: `DT_STRTAB`, `DT_SYMTAB`).
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;

/// Size of an entry of the symbol table, in bytes (elf.h: `Elf64_Sym`).
const SYMBOL_BYTES: usize = 24;

/// What is to be written, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Patch {
    /// From the start of the mapping.
    offset: u64,
    code: Vec<u8>,
}

/// What every process of this kernel gets; none if the mapping is not understood.
static PATCHES: LazyLock<Option<Vec<Patch>>> = LazyLock::new(|| {
    let Some(start) = mapping_of("self") else { return Some(Vec::new()) };
    patches(&read_image("self", start)?)
});

/// Makes the clock of the process of thread `tid` visible. Its thread must be waiting in a system call.
///
/// # Errors
/// Why that cannot be done.
pub fn make_visible(tid: u32) -> Result<(), &'static str> {
    let process = tid.to_string();
    let Some(start) = mapping_of(&process) else { return Ok(()) };
    let patches = PATCHES.as_ref().ok_or("the kernel's clock functions are not the known ones")?;
    let memory = File::options().read(true).write(true).open(format!("/proc/{process}/mem"));
    let memory = memory.map_err(|_| "a process's memory cannot be written")?;
    for patch in patches {
        let mut there = vec![0; patch.code.len()];
        let at = start + patch.offset;
        memory.read_exact_at(&mut there, at).map_err(|_| "a process's memory cannot be read")?;
        if there != patch.code {
            memory.write_all_at(&patch.code, at).map_err(|_| "a process's clock cannot be watched")?;
        }
    }
    Ok(())
}

/// Where the mapping of a process starts, if it has one.
fn mapping_of(process: &str) -> Option<u64> {
    let vector = std::fs::read(format!("/proc/{process}/auxv")).ok()?;
    let word = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
    vector.chunks_exact(16).find_map(|entry| {
        (word(&entry[..8])? == AT_SYSINFO_EHDR).then(|| word(&entry[8..])).flatten().filter(|&at| at != 0)
    })
}

fn read_image(process: &str, start: u64) -> Option<Vec<u8>> {
    let memory = File::open(format!("/proc/{process}/mem")).ok()?;
    let mut image = Vec::new();
    let mut page = [0_u8; 4096];
    while image.len() < IMAGE_BYTES_MAX && memory.read_exact_at(&mut page, start + image.len() as u64).is_ok()
    {
        image.extend_from_slice(&page);
    }
    Some(image)
}

/// What to write into an image like this; none if a function to be written over is too short.
fn patches(image: &[u8]) -> Option<Vec<Patch>> {
    let symbols = symbols(image)?;
    let mut patches: Vec<Patch> = Vec::new();
    for (name, code) in code::FUNCTIONS {
        let Some(&(offset, bytes)) = symbols.get(name.as_bytes()) else { continue };
        let landing = code::landing(image.get(usize::try_from(offset).ok()?..)?);
        if landing + code.len() as u64 > bytes {
            return None;
        }
        patches.push(Patch { offset: offset + landing, code: code.to_vec() });
    }
    Some(patches)
}

/// The functions in the image: name, and from which byte on how many.
fn symbols(image: &[u8]) -> Option<HashMap<&[u8], (u64, u64)>> {
    let half = |at: usize| Some(u16::from_le_bytes(image.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_le_bytes(image.get(at..at + 8)?.try_into().ok()?));
    let headers = usize::try_from(long(32)?).ok()?;
    let header_bytes = usize::from(half(54)?);
    let dynamic = (0..usize::from(half(56)?)).find_map(|i| {
        let header = headers + i * header_bytes;
        (word(header)? == PT_DYNAMIC).then(|| usize::try_from(long(header + 16)?).ok()).flatten()
    })?;
    let mut tables = HashMap::new();
    for entry in (dynamic..image.len()).step_by(16) {
        match long(entry)? {
            0 => break,
            tag => drop(tables.insert(tag, usize::try_from(long(entry + 8)?).ok()?)),
        }
    }
    let (strings, table) = (*tables.get(&DT_STRTAB)?, *tables.get(&DT_SYMTAB)?);
    // The table's length is told by the hash table alone; the names follow it in every kernel so far.
    let count = strings.checked_sub(table)? / SYMBOL_BYTES;
    let mut symbols = HashMap::new();
    for symbol in (0..count).map(|i| table + i * SYMBOL_BYTES) {
        let name = image.get(strings + usize::try_from(word(symbol)?).ok()?..)?;
        let name = &name[..name.iter().position(|&b| b == 0)?];
        symbols.insert(name, (long(symbol + 8)?, long(symbol + 16)?));
    }
    Some(symbols)
}

#[cfg(target_arch = "x86_64")]
mod code {
    /// Each function as its system call: number into `eax`, `syscall`, `ret`. The arguments are in their places, and
    /// what the call destroys may be destroyed by a function.
    pub const FUNCTIONS: &[(&str, &[u8])] = &[
        ("__vdso_clock_gettime", &call(libc::SYS_clock_gettime)),
        ("__vdso_gettimeofday", &call(libc::SYS_gettimeofday)),
        ("__vdso_time", &call(libc::SYS_time)),
        // Asked for its own needs (a last argument of -1), it says that it is not there (`ENOSYS`).
        (
            "__vdso_getrandom",
            &[
                0x49, 0x83, 0xf8, 0xff, // cmp r8, -1
                0x74, 0x08, // je to the last two
                0xb8, 0x3e, 0x01, 0x00, 0x00, // mov eax, 318
                0x0f, 0x05, 0xc3, // syscall; ret
                0x48, 0xc7, 0xc0, 0xda, 0xff, 0xff, 0xff, // mov rax, -38
                0xc3, // ret
            ],
        ),
    ];

    const fn call(number: libc::c_long) -> [u8; 8] {
        let n = (number as u32).to_le_bytes();
        [0xb8, n[0], n[1], n[2], n[3], 0x0f, 0x05, 0xc3]
    }

    /// How many bytes at a function's start mark it as one that may be called by pointer (`endbr64`), and stay.
    pub fn landing(function: &[u8]) -> u64 {
        if function.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]) { 4 } else { 0 }
    }
}

#[cfg(target_arch = "aarch64")]
mod code {
    /// Each function as its system call: `bti c`, number into `x8`, `svc #0`, `ret`. The arguments are in their places.
    /// The first marks a function as one that may be called by pointer, and does nothing where nobody asks for that.
    pub const FUNCTIONS: &[(&str, &[u8])] = &[
        ("__kernel_clock_gettime", &call(libc::SYS_clock_gettime)),
        ("__kernel_gettimeofday", &call(libc::SYS_gettimeofday)),
        // Asked for its own needs (a last argument of -1), it says that it is not there (`ENOSYS`).
        (
            "__kernel_getrandom",
            &[
                0x5f, 0x24, 0x03, 0xd5, // bti c
                0x9f, 0x04, 0x00, 0xb1, // cmn x4, #1
                0x80, 0x00, 0x00, 0x54, // b.eq to the last two
                0xc8, 0x22, 0x80, 0xd2, // mov x8, #278
                0x01, 0x00, 0x00, 0xd4, // svc #0
                0xc0, 0x03, 0x5f, 0xd6, // ret
                0xa0, 0x04, 0x80, 0x92, // mov x0, #-38
                0xc0, 0x03, 0x5f, 0xd6, // ret
            ],
        ),
    ];

    const fn call(number: libc::c_long) -> [u8; 16] {
        let n = (0xd280_0008_u32 | (number as u32) << 5).to_le_bytes();
        [0x5f, 0x24, 0x03, 0xd5, n[0], n[1], n[2], n[3], 0x01, 0x00, 0x00, 0xd4, 0xc0, 0x03, 0x5f, 0xd6]
    }

    /// Nothing of a function stays: what it begins with may be more than a mark (`paciasp` signs the return address, and
    /// its counterpart at the end is written over).
    pub fn landing(_function: &[u8]) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernels_clock_functions_are_found() {
        let start = mapping_of("self").unwrap();
        let image = read_image("self", start).unwrap();
        assert!(symbols(&image).unwrap().keys().any(|name| name.ends_with(b"clock_gettime")));
        assert!(patches(&image).unwrap().len() >= 2);
        assert_eq!(patches(&image[..100]), None);
        assert_eq!(patches(b"no ELF file"), None);
    }

    #[test]
    fn no_more_of_a_mapping_is_read_than_any_kernel_fills() {
        let long = vec![1_u8; 2 * IMAGE_BYTES_MAX];
        assert_eq!(read_image("self", long.as_ptr() as u64).unwrap().len(), IMAGE_BYTES_MAX);
    }
}
