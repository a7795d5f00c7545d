//! The judgement: is this rustc command of a kind that can be served, and if not, why not. Each reason is a row of
//! `docs/pass-through.md`.

use super::command_line::CommandLine;

/// Every reason this family passes an invocation through for, sorted.
pub const REASONS: &[&str] = &[
    "incremental",
    "no_source",
    "query",
    "response_file",
    "several_sources",
    "source_on_stdin",
    "timing",
    "unrecognised",
];

/// Whether the command can be cached.
///
/// # Errors
/// The reason why it cannot.
pub fn judge(line: &CommandLine) -> Result<(), &'static str> {
    if line.is_query {
        return Err("query");
    }
    if line.is_unrecognised {
        return Err("unrecognised");
    }
    match line.sources.as_slice() {
        [] => return Err("no_source"),
        [source] if source == b"-" => return Err("source_on_stdin"),
        [_] => {}
        _ => return Err("several_sources"),
    }
    if line.is_incremental {
        return Err("incremental");
    }
    if line.is_timed {
        return Err("timing");
    }
    Ok(())
}
