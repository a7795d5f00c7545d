//! Links: commands that make a program or a library, of objects, of sources, or of both.
//!
//! What the linker reads is observed: libraries where they are found and where they are not, scripts, plugins. Here
//! is judged what observation cannot show: that the result holds the time or a random number by its very nature.

use super::command_line::{CommandLine, is_device};
use super::language::{Language, base_name};
use crate::any_tool::known::shows_chance_in_link;

/// Parts of arguments and of compilers' names that mean Windows, whose programs hold the time of their link.
const WINDOWS: &[&[u8]] = &[b"mingw", b"windows", b"msvc", b"cygwin", b"i386pe"];

/// Whether this link can be served from a cache; `words` are the tool's path and the arguments, response files
/// replaced.
///
/// # Errors
/// The reason why it cannot.
pub fn judge<'a>(
    line: &CommandLine,
    mut words: impl Iterator<Item = &'a [u8]> + Clone,
) -> Result<(), &'static str> {
    for source in &line.sources {
        match source.language {
            _ if source.path == b"-" => return Err("source_on_stdin"),
            Language::Header => return Err("precompiled_header"),
            Language::Other => return Err("other_language"),
            _ => {}
        }
    }
    if line.names_device {
        return Err("device_argument");
    }
    match line.output.as_deref() {
        Some(b"-") => return Err("output_to_stdout"),
        Some(b"") => return Err("incomplete_command"),
        Some(path) if path == b"/dev/null" || is_device(path) => return Err("output_to_device"),
        _ => {}
    }
    // The linker's own response files are not looked into.
    if words.clone().any(|word| word.starts_with(b"-Wl,@") || word == b"-Xlinker=@") {
        return Err("response_file");
    }
    let is_for_windows =
        |word: &[u8]| WINDOWS.iter().any(|part| word.windows(part.len()).any(|w| w == *part));
    // A path may hold anything; a target or an option has neither slash nor dot.
    let is_path = |word: &[u8]| !word.starts_with(b"-") && word.iter().any(|b| matches!(b, b'/' | b'.'));
    let tool_is_for_windows = words.next().is_some_and(|tool| is_for_windows(base_name(tool)));
    let hangs_on_chance =
        |word: &[u8]| (is_for_windows(word) && !is_path(word)) || shows_chance_in_link(word);
    if line.has_other_names || tool_is_for_windows || words.any(hangs_on_chance) {
        return Err("link_by_chance");
    }
    Ok(())
}

/// The output of a link, as spelled.
pub fn output(line: &CommandLine) -> Vec<u8> {
    line.output.clone().unwrap_or_else(|| b"a.out".to_vec())
}
