//! What a command writes by its own word: the output, and the file of rules for make.
//!
//! Side outputs are not listed: the observer sees them.

use super::command_line::{CommandLine, Mode, Source};
use super::language::{Language, base_name};

/// The files that a command names or implies as its outputs, as spelled.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outputs {
    /// The object, assembler, preprocessed source or rules.
    pub main: Option<Vec<u8>>,
    /// The rules for make beside it.
    pub dependencies: Option<Vec<u8>>,
}

/// The outputs of compiling `source` as `line` says.
pub fn outputs(line: &CommandLine, source: &Source) -> Outputs {
    let main = match line.mode {
        Mode::SyntaxOnly => None,
        mode if source.language == Language::Header && !mode.only_reads() => {
            // Beside the header.
            line.output.clone().or_else(|| Some([&source.path[..], b".gch"].concat()))
        }
        Mode::Dependencies => line.dependency_file.clone().or_else(|| line.output.clone()),
        _ => line.output.clone().or_else(|| implied(line, source, implied_extension(line)?)),
    };
    let dependencies = if line.writes_dependencies { dependencies(line, source) } else { None };
    Outputs { main, dependencies }
}

fn implied_extension(line: &CommandLine) -> Option<&'static [u8]> {
    match (line.mode, line.emits_llvm) {
        (Mode::Precompile, _) => Some(b"pcm"),
        (Mode::Compile, false) => Some(b"o"),
        (Mode::Compile, true) => Some(b"bc"),
        (Mode::Assemble, false) => Some(b"s"),
        (Mode::Assemble, true) => Some(b"ll"),
        _ => None,
    }
}

/// An output's name in the working directory, from the source's.
fn implied(line: &CommandLine, source: &Source, extension: &[u8]) -> Option<Vec<u8>> {
    (!line.has_other_names).then(|| with_extension(base_name(&source.path), extension))
}

/// `-MF`, or the output's name with `.d` instead of its extension, or so from the source's name.
fn dependencies(line: &CommandLine, source: &Source) -> Option<Vec<u8>> {
    match (&line.dependency_file, &line.output) {
        (Some(file), _) => Some(file.clone()),
        // What `-MD` makes of several `-o` differs; the observer sees it.
        (None, Some(output)) => (line.output_count == 1).then(|| with_extension(output, b"d")),
        (None, None) => implied(line, source, b"d"),
    }
}

/// A path whose last part ends in `extension` instead of what follows its last dot, if it has one.
fn with_extension(path: &[u8], extension: &[u8]) -> Vec<u8> {
    let name_start = path.len() - base_name(path).len();
    let stem_end = match path[name_start..].iter().rposition(|&b| b == b'.') {
        Some(dot) => name_start + dot,
        None => path.len(),
    };
    let mut renamed = path[..stem_end].to_vec();
    renamed.push(b'.');
    renamed.extend_from_slice(extension);
    renamed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_is_what_follows_the_last_dot_of_the_last_part() {
        for (path, expect) in
            [("a.c", "a.d"), ("x/a.tab.c", "x/a.tab.d"), ("d.x/a", "d.x/a.d"), ("a", "a.d"), ("a.", "a.d")]
        {
            assert_eq!(with_extension(path.as_bytes(), b"d"), expect.as_bytes(), "{path}");
        }
    }
}
