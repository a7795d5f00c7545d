//! The judgement: is this command of a kind that can be served from a cache, and if not, why not.
//!
//! Each reason is a row of `docs/pass-through.md`. The order is from what the user would least expect to be
//! cached to the finer points, so that the reason that is counted is the one that helps.

use super::command_line::{CommandLine, Mode, Source, is_device};
use super::language::Language;
use super::link;

/// Every reason this family passes an invocation through for, sorted. `docs/pass-through.md` explains each.
pub const REASONS: &[&str] = &[
    "compiler_internal",
    "dependencies_only",
    "dependencies_output",
    "device_argument",
    "driver_log",
    "incomplete_command",
    "link_by_chance",
    "modules",
    "no_source",
    "offload",
    "other_language",
    "output_to_device",
    "output_to_stdout",
    "precompiled_header",
    "preprocess_only",
    "query",
    "response_file",
    "several_architectures",
    "source_on_stdin",
    "static_analyzer",
    "time_in_object",
    "timing",
    "unknown_processor",
    "unknown_tool",
    "unrecognised",
    "working_directory",
];

/// What a command that can be cached is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judged<'a> {
    /// Compile this one source.
    Compile(&'a Source),
    /// Compile each of several sources, one after another, on its own.
    CompileEach,
    /// Make a program or library.
    Link,
}

/// What a command that can be cached is to do; `words` are the tool's path and the arguments, response files replaced.
///
/// # Errors
/// The reason why it cannot.
pub fn judge<'l, 'w>(
    line: &'l CommandLine,
    words: impl Iterator<Item = &'w [u8]> + Clone,
) -> Result<Judged<'l>, &'static str> {
    let has_inputs = !line.sources.is_empty() || line.has_linker_inputs;
    if line.is_query || (line.is_verbose && !has_inputs) {
        return Err("query");
    }
    if line.refusal == Some("compiler_internal") {
        return Err("compiler_internal");
    }
    if line.is_incomplete {
        return Err("incomplete_command");
    }
    if let Some(reason) = line.refusal {
        return Err(reason);
    }
    if line.architecture_count > 1 {
        return Err("several_architectures");
    }
    if line.is_unrecognised {
        return Err("unrecognised");
    }
    if line.mode == Mode::Link && has_inputs && !makes_headers(line) {
        return link::judge(line, words).map(|()| Judged::Link);
    }
    if line.mode == Mode::Compile && ask_for_time_in_object(words.clone()) {
        return Err("time_in_object");
    }
    line.sources.iter().try_for_each(|source| judge_source(line, source))?;
    let judged = match line.sources.as_slice() {
        [] => return Err("no_source"),
        [source] => Judged::Compile(source),
        _ => Judged::CompileEach,
    };
    judge_output(line)?;
    Ok(judged)
}

/// Whether the words, of which the first is the tool, make clang write the time into objects: a target of Microsoft's,
/// where that is the default, or the option itself.
fn ask_for_time_in_object<'w>(words: impl Iterator<Item = &'w [u8]>) -> bool {
    let holds = |word: &[u8], part: &[u8]| word.windows(part.len()).any(|w| w == part);
    let is_microsofts = |word| [&b"windows"[..], b"msvc", b"win32"].iter().any(|part| holds(word, part));
    let mut names_target = true;
    words.enumerate().any(|(number, word)| {
        let target = if number == 0 { super::language::base_name(word) } else { word };
        let asks = (names_target || word.starts_with(b"--target=")) && is_microsofts(target);
        names_target = matches!(word, b"-target" | b"--target");
        asks || holds(word, b"-mincremental-linker-compatible")
    })
}

/// Headers alone, without `-c`: the compiler precompiles them and does not link.
fn makes_headers(line: &CommandLine) -> bool {
    let is_header = |source: &Source| source.language == Language::Header;
    !line.sources.is_empty() && !line.has_linker_inputs && line.sources.iter().all(is_header)
}

fn judge_source(line: &CommandLine, source: &Source) -> Result<(), &'static str> {
    // Of a kind that nobody named: an error of the compiler's.
    if source.path == b"-" && source.language == Language::LinkerInput {
        return Err("source_on_stdin");
    }
    if line.names_device {
        return Err("device_argument");
    }
    match (source.language, line.mode) {
        (Language::Other | Language::LinkerInput, _) => Err("other_language"),
        // Stages that such an input has behind it: nothing is compiled, or it goes to standard output.
        (Language::Preprocessed, Mode::Preprocess | Mode::Dependencies) => Err("no_source"),
        (Language::AssemblerSource, Mode::SyntaxOnly | Mode::Precompile | Mode::Assemble) => Err("no_source"),
        (Language::Assembler, mode) if mode != Mode::Compile => Err("no_source"),
        (Language::Ir, mode) if mode.only_reads() => Err("no_source"),
        _ => Ok(()),
    }
}

fn judge_output(line: &CommandLine) -> Result<(), &'static str> {
    let dependency_file = line.dependency_file.as_deref();
    if line.output.is_none() {
        match line.mode {
            Mode::Preprocess => return Err("preprocess_only"),
            Mode::Dependencies if dependency_file.is_none() => return Err("dependencies_only"),
            _ => {}
        }
    }
    // With rules instead of a result, `-MD` is a contradiction that the families resolve differently.
    if line.mode == Mode::Dependencies && line.writes_dependencies {
        return Err("dependencies_only");
    }
    for path in line.output.as_deref().into_iter().chain(dependency_file) {
        if path == b"-" {
            return Err("output_to_stdout");
        }
        if path == b"/dev/null" || is_device(path) {
            return Err("output_to_device");
        }
        if path.is_empty() {
            return Err("incomplete_command");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::c_family::options::{OPTIONS, Role};

    #[test]
    fn targets_tell_of_times_and_files_do_not() {
        let asks = |line: &str| ask_for_time_in_object(line.split(' ').map(str::as_bytes));
        for line in [
            "clang --target=x86_64-pc-windows-msvc -c a.c",
            "clang -target x86_64-pc-windows-msvc19.20 -c a.c",
            "clang --target i686-pc-win32 -c a.c",
            "/opt/x86_64-pc-windows-msvc-clang -c a.c",
            "clang -Xclang -mincremental-linker-compatible -c a.c",
        ] {
            assert!(asks(line), "{line}");
        }
        for line in
            ["gcc -c windows.c", "/opt/windows/gcc -c win32.c -o msvc", "clang -Dwindows -Iwin32 -c a.c"]
        {
            assert!(!asks(line), "{line}");
        }
    }

    #[test]
    fn reasons_are_sorted_snake_case_and_cover_the_table() {
        assert!(REASONS.is_sorted());
        for reason in REASONS {
            assert!(reason.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{reason}");
        }
        for option in OPTIONS.iter().filter(|o| o.role == Role::PassThrough) {
            assert!(REASONS.contains(&option.note), "{}", option.name);
        }
    }
}
