//! Units: the commands that compile each of several sources alone, where that makes the same files.
//!
//! The drivers handle one source after another, so that the same options with one of the sources make what they make of
//! it among others, unless something is made for all at once. What a driver says once for all cannot be told from the
//! command line; whoever uses the units keeps to those that say nothing (`zccache_actors::units`).

use std::ffi::OsStr;

use zccache_actors::invocation::Invocation;
use zccache_actors::sys::OsStrExt;
use zccache_proto::ByteStrings;

use super::command_line::{CommandLine, Source};
use super::environment;

/// The most sources of one command that are looked up one by one: each takes its own plan of all options.
const UNITS_MAX: usize = 256;

/// The most bytes that a unit's arguments may have: response files are written out in them, and Windows takes no
/// longer command line.
const UNIT_BYTES_MAX: usize = 32_000;

/// The arguments, `argv[0]` first, for each source alone; none if the sources are to be kept together. `arguments` are
/// those of the line, response files replaced.
pub fn units(invocation: &Invocation, arguments: &[Vec<u8>], line: &CommandLine) -> Vec<ByteStrings> {
    let tool = invocation.argv.iter().next().unwrap_or_default();
    let bytes = tool.len() + arguments.iter().map(|argument| argument.len() + 1).sum::<usize>();
    if line.sources.len() > UNITS_MAX
        || bytes > UNIT_BYTES_MAX
        || names_all_outputs(line)
        || !are_alike(invocation, arguments, line)
        || is_more_than_its_sources(invocation, arguments, line)
    {
        return Vec::new();
    }
    let unit = |own: usize| {
        let is_anothers =
            |number: &usize| line.sources.iter().any(|s| s.argument == *number && *number != own);
        let kept = arguments.iter().enumerate().filter(|(number, _)| !is_anothers(number));
        std::iter::once(tool).chain(kept.map(|(_, argument)| &argument[..])).collect()
    };
    line.sources.iter().map(|source| unit(source.argument)).collect()
}

/// Whether one name stands for the outputs of all.
fn names_all_outputs(line: &CommandLine) -> bool {
    line.output.is_some() || line.dependency_file.is_some() || line.has_other_names
}

/// Whether the driver does the same with all of them: what it refuses to do, it says before it begins with the first.
fn are_alike(invocation: &Invocation, arguments: &[Vec<u8>], line: &CommandLine) -> bool {
    let Some(first) = line.sources.first() else { return false };
    let path = |source: &Source| invocation.cwd_path().join(OsStr::from_bytes(&source.path));
    // The name tells C from C++.
    let kind = |source: &Source| (source.language, path(source).extension().map(OsStr::to_owned));
    let is_like_it = |source: &Source| kind(source) == kind(first) && path(source).is_file();
    // gcc complains of a language behind the last source.
    let names_language = |argument: &Vec<u8>| argument.starts_with(b"-x");
    line.sources.iter().all(is_like_it) && !arguments.iter().skip(first.argument).any(names_language)
}

/// Whether the command may do something for all sources together, or write down all of its arguments.
fn is_more_than_its_sources(invocation: &Invocation, arguments: &[Vec<u8>], line: &CommandLine) -> bool {
    line.undeclared.is_some()
        || environment::undeclared(&invocation.env).is_some()
        || line.uses_mtimes
        || line.makes_memory()
        || line.is_verbose
        // `-grecord-command-line`, `-frecord-gcc-switches` and kin.
        || arguments.iter().any(|argument| holds(argument, b"record"))
        // One list for all.
        || arguments.iter().any(|argument| holds(argument, b"diagnostics-format"))
        // It would be taken for a response file, once more.
        || arguments.iter().any(|argument| argument.starts_with(b"@"))
        || line.sources.iter().any(|source| source.path == b"-")
}

fn holds(argument: &[u8], part: &[u8]) -> bool {
    argument.windows(part.len()).any(|word| word == part)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::c_family::names::Compiler;
    use zccache_proto::message::{Stdio, StreamKind};

    fn count(arguments: &[Vec<u8>]) -> usize {
        let cwd = tempfile::tempdir().unwrap();
        for source in arguments.iter().filter(|argument| argument.ends_with(b".c")) {
            std::fs::write(cwd.path().join(OsStr::from_bytes(source)), "").unwrap();
        }
        let stream = StreamKind::Null;
        let invocation = Invocation {
            tool: b"/usr/bin/gcc".into(),
            argv: [&b"gcc"[..]].into_iter().collect(),
            cwd: cwd.path().as_os_str().as_bytes().to_vec(),
            env: ByteStrings::default(),
            umask: 0o022,
            stdio: Stdio { stdin: stream, stdout: stream, stderr: stream, merged: false },
        };
        units(&invocation, arguments, &CommandLine::parse(arguments, Compiler::Gcc)).len()
    }

    #[test]
    fn only_so_many_sources_are_units() {
        let sources = |count: usize| (0..count).map(|n| format!("{n}.c").into_bytes()).collect::<Vec<_>>();
        assert_eq!(count(&sources(UNITS_MAX)), UNITS_MAX);
        assert_eq!(count(&sources(UNITS_MAX + 1)), 0);
    }

    #[test]
    fn only_so_long_commands_are_split() {
        let with = |bytes: usize| {
            let option = [&b"-D"[..], &vec![b'x'; bytes - 2]].concat();
            [b"a.c".to_vec(), b"b.c".to_vec(), option]
        };
        let others = "gcc".len() + "a.c b.c ".len() + 1;
        assert_eq!(count(&with(UNIT_BYTES_MAX - others)), 2);
        assert_eq!(count(&with(UNIT_BYTES_MAX - others + 1)), 0);
    }
}
