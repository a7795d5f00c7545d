//! The processor, as an input: `-march=native` asks it with `cpuid`, which no observer sees.
//!
//! A cache that moves to another machine, or a virtual machine to another host, must not serve what was
//! compiled for the first one.

use std::sync::OnceLock;

/// Fields of `/proc/cpuinfo` that tell kinds of processors apart: x86's, then Arm's, then others'. Not those that
/// change from moment to moment (clock rates) or between cores (numbers).
const FIELDS: &[&str] = &[
    "vendor_id",
    "cpu family",
    "model",
    "model name",
    "stepping",
    "cache size",
    "flags",
    "CPU implementer",
    "CPU architecture",
    "CPU variant",
    "CPU part",
    "CPU revision",
    "Features",
    "cpu",
    "isa",
    "uarch",
    "machine",
    "platform",
];

/// An entry for the request key that tells this machine's processors, made once. Empty if they cannot be told.
pub fn key_entry() -> &'static [u8] {
    static ENTRY: OnceLock<Vec<u8>> = OnceLock::new();
    ENTRY.get_or_init(|| match std::fs::read_to_string("/proc/cpuinfo") {
        Ok(text) => describe(&text),
        Err(_) => Vec::new(),
    })
}

/// The distinct lines of interest, in order; processors of two kinds give both.
fn describe(cpuinfo: &str) -> Vec<u8> {
    let mut lines: Vec<&str> = cpuinfo
        .lines()
        .filter(|line| line.split_once(':').is_some_and(|(field, _)| FIELDS.contains(&field.trim())))
        .collect();
    lines.sort_unstable();
    lines.dedup();
    if lines.is_empty() { Vec::new() } else { format!("native processor\n{}", lines.join("\n")).into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_cores_count_once_and_clock_rates_do_not() {
        let core =
            |n, mhz| format!("processor\t: {n}\nmodel\t\t: 1\ncpu MHz\t\t: {mhz}\nflags\t\t: sse avx\n\n");
        let one = describe(&core(0, 1000));
        assert_eq!(one, b"native processor\nflags\t\t: sse avx\nmodel\t\t: 1");
        assert_eq!(describe(&(core(0, 1000) + &core(1, 2000))), one);
        assert!(describe("").is_empty());
    }
}
