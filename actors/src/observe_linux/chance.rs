//! What a run takes from chance: the clock, random numbers, the machine's load. Watched for tools of which nobody
//! knows whether it shows in their results.
//!
//! Pure bookkeeping but for two looks at the process that asks: which program it runs, and whether random numbers go
//! to libc itself. What must never happen: that a process of the run reads the clock before it was made visible.

use std::collections::HashSet;

use super::process::program_of;
use super::vdso;

/// Whether chance shows in the results of a program, by its base name.
pub type IsHarmless = fn(&[u8]) -> bool;

/// See the module.
pub struct Chance {
    is_harmless: IsHarmless,
    /// Threads of processes whose clock is visible, or does not matter.
    met: HashSet<u32>,
}

impl Chance {
    /// Watches all but the programs that `is_harmless`.
    pub fn new(is_harmless: IsHarmless) -> Self {
        Self { is_harmless, met: HashSet::new() }
    }

    /// A thread asks for something, and waits: makes its process's clock visible, unless it is, or does not matter.
    ///
    /// # Errors
    /// Why that cannot be done.
    pub fn meet(&mut self, tid: u32) -> Result<(), &'static str> {
        if self.met.contains(&tid) {
            return Ok(());
        }
        if self.matters(tid) {
            vdso::make_visible(tid)?;
        }
        self.met.insert(tid);
        Ok(())
    }

    /// Some thread is about to execute a program: one of the known processes has a new memory soon, and it may be
    /// known by another of its threads.
    pub fn forget(&mut self) {
        self.met.clear();
    }

    /// Whether what this thread takes from chance can show in the result.
    pub fn matters(&self, tid: u32) -> bool {
        !program_of(tid).is_some_and(|name| (self.is_harmless)(&name))
    }
}

/// Whether random bytes go into libc's own memory: it seeds the allocator's check against double frees, once.
/// Nobody but libc has variables there.
pub fn is_for_libc(tid: u32, address: u64) -> bool {
    let Ok(maps) = std::fs::read_to_string(format!("/proc/{tid}/maps")) else { return false };
    let mut libc_end = None;
    for line in maps.lines() {
        let mut fields = line.split_ascii_whitespace();
        let Some((start, end)) = fields.next().and_then(|range| range.split_once('-')) else { return false };
        let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
        let (Some(start), Some(end)) = (number(start), number(end)) else { return false };
        let is_libc = match fields.nth(4) {
            Some(path) => path.rsplit('/').next().is_some_and(is_libc),
            // What of a library's variables is all zero follows the file, without a name.
            None => libc_end == Some(start),
        };
        if (start..end).contains(&address) {
            return is_libc;
        }
        libc_end = is_libc.then_some(end);
    }
    false
}

fn is_libc(name: &str) -> bool {
    name == "libc.so.6"
        || (name.starts_with("libc-2.") && name.ends_with(".so"))
        || name.starts_with("ld-musl-")
}
