//! What a client's process hands on to the tools that it starts, beside words, directory, mask and streams: limits,
//! priority, processors, signals, a terminal, further descriptors. Tools of which nothing is known may show any of it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zccache_proto::ByteStrings;

use crate::invocation::Invocation;
use crate::tool_run::inherited::Inherited;

/// Streams, which every request tells of.
const STREAMS_COUNT: i32 = 3;

/// What a descriptor's flags hold if it closes when the tool is executed (`O_CLOEXEC`, asm-generic/fcntl.h).
const CLOSES_ON_EXEC: u64 = 0o2_000_000;

/// The major numbers of pseudo-terminals (linux/major.h: `UNIX98_PTY_SLAVE_MAJOR`), which have 256 minor ones each.
const PSEUDO_TERMINALS: std::ops::Range<u64> = 136..144;

/// What process `pid` hands on, as an entry of a request's key that no variable can be.
///
/// # Errors
/// The reason to pass the request through: it has descriptors open that the tool would have as well and may use, and
/// that did not come with the request; or its output goes into a file that it is to work on, which tools refuse.
pub fn key_entry(pid: u32, sent: &[i32], invocation: &Invocation) -> Result<Vec<u8>, &'static str> {
    if has_descriptors_besides(pid, sent, &invocation.argv) || names_its_output(pid, invocation) {
        return Err("inherited_descriptors");
    }
    let inherited = libc::pid_t::try_from(pid).map(Inherited::of).unwrap_or_default();
    let terminal: &[u8] = if terminal_of(pid).is_some() { b"terminal " } else { b"" };
    Ok([b"=heritage=", terminal, &inherited.describe()].concat())
}

/// The path of the terminal that controls a process. `None` if there is none; one that is no pseudo-terminal has no
/// path that we know.
pub fn terminal_of(pid: u32) -> Option<Option<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which is in parentheses and may hold any others: state, parent, group, session, terminal.
    let number: i32 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(4)?.parse().ok()?;
    let device = u64::from(number.cast_unsigned());
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    let is_pseudo = PSEUDO_TERMINALS.contains(&major);
    (device != 0)
        .then(|| is_pseudo.then(|| format!("/dev/pts/{}", (major - PSEUDO_TERMINALS.start) * 256 + minor)))
}

/// Whether the process has descriptors open that its tools inherit and may use, beside the streams and those that were
/// sent. If that cannot be told, it has.
fn has_descriptors_besides(pid: u32, sent: &[i32], arguments: &ByteStrings) -> bool {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return true };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut further = numbers.filter(|number| *number >= STREAMS_COUNT && !sent.contains(number));
    further.any(|number| is_handed_on(pid, number) && may_be_used(pid, number, arguments))
}

/// Whether an argument names the file that standard output or error goes into.
fn names_its_output(pid: u32, invocation: &Invocation) -> bool {
    let identity = |path: &Path| {
        let file = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        Some((file.dev(), file.ino()))
    };
    let outputs = [1, 2].map(|number| identity(Path::new(&format!("/proc/{pid}/fd/{number}"))));
    let is_output = |argument: &[u8]| {
        let named = identity(&invocation.cwd_path().join(OsStr::from_bytes(argument)));
        named.is_some() && outputs.contains(&named)
    };
    outputs.iter().any(Option::is_some) && invocation.argv.iter().skip(1).any(is_output)
}

fn is_handed_on(pid: u32, number: i32) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")) else { return true };
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    flags
        .and_then(|digits| u64::from_str_radix(digits.trim(), 8).ok())
        .is_none_or(|f| f & CLOSES_ON_EXEC == 0)
}

/// Files and devices are opened for somebody. Pipes and sockets are left to processes that know nothing of them by every
/// job server and test runner: one that is meant to be used is named.
fn may_be_used(pid: u32, number: i32, arguments: &ByteStrings) -> bool {
    let opened = std::fs::read_link(format!("/proc/{pid}/fd/{number}"));
    let is_file = opened.is_ok_and(|path| path.is_absolute() && path != Path::new("/dev/null"));
    is_file || arguments.iter().any(|argument| holds_number(argument, number))
}

/// Whether a text has this number among its numbers.
fn holds_number(text: &[u8], number: i32) -> bool {
    let digits = number.to_string();
    text.split(|b| !b.is_ascii_digit()).any(|word| word == digits.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_named_by_its_number_alone() {
        for (text, expect) in
            [("cat <&3", true), ("--status-fd=3", true), ("13", false), ("a3.c", true), ("", false)]
        {
            assert_eq!(holds_number(text.as_bytes(), 3), expect, "{text}");
        }
    }
}
