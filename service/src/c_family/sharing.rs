//! Where the requester's own directories and output names stand in a command, so that a result can be shared
//! with a request from elsewhere.
//!
//! Whether a result *is* shared is decided by its bytes and observations (`zccache_actors::sharing`). Here is
//! decided whether looking at the bytes tells: a command with an option that we do not know through and through,
//! or that compresses or digests paths, stays where it is.

use zccache_actors::invocation::Invocation;
use zccache_actors::plan::{Place, Purpose, Sharing};

use super::command_line::{self, CommandLine};
use super::environment;
use super::outputs::Outputs;

/// The places in a command whose results may be shared; `arguments` are those after `argv[0]`, with response files
/// replaced.
pub fn sharing(
    invocation: &Invocation,
    arguments: &[Vec<u8>],
    line: &CommandLine,
    outputs: &Outputs,
) -> Option<Sharing> {
    let is_open = !line.hides_places
        && !line.uses_mtimes
        && line.undeclared.is_none()
        && environment::undeclared(&invocation.env).is_none()
        && (outputs.dependencies.is_none() || names_are_plain(outputs));
    let is_as_typed = invocation.argv.iter().skip(1).eq(arguments.iter().map(Vec::as_slice));
    let to_place = |place: &command_line::Place| {
        let value = &arguments[place.argument][place.offset..];
        let purpose = purpose(place.purpose, value, line, outputs)?;
        // In `argv` the tool's name comes first.
        Some(Place { argument: place.argument + 1, offset: place.offset, purpose })
    };
    is_open.then(|| Sharing {
        // What stands in a response file is content, and cannot be replaced.
        places: if is_as_typed { line.places.iter().filter_map(to_place).collect() } else { Vec::new() },
        dependency_file: dependency_file(line, outputs),
    })
}

/// Whether rules for make name the outputs as the command line does. gcc takes a leading `./` away, and what make would
/// not take for a part of a name is quoted, by each compiler in its own way.
fn names_are_plain(outputs: &Outputs) -> bool {
    let is_plain = |&b: &u8| b.is_ascii_alphanumeric() || b"/._-+=@,~".contains(&b) || !b.is_ascii();
    let names = outputs.main.iter().chain(&outputs.dependencies);
    names.into_iter().all(|name| !name.starts_with(b"./") && name.iter().all(is_plain))
}

fn purpose(
    purpose: command_line::Purpose,
    value: &[u8],
    line: &CommandLine,
    outputs: &Outputs,
) -> Option<Purpose> {
    let numbers = [&outputs.main, &outputs.dependencies].into_iter().flatten();
    let number = || numbers.clone().position(|output| output == value).map(Purpose::Output);
    match purpose {
        command_line::Purpose::Input => Some(Purpose::Input),
        command_line::Purpose::Map { macros, debug } => Some(Purpose::Map { macros, debug }),
        // Of several, the compilers take one or another.
        command_line::Purpose::Output if line.output_count > 1 => None,
        command_line::Purpose::Output | command_line::Purpose::DependencyFile => number(),
        // The usual target is the output, and is named in the rules alone.
        command_line::Purpose::Target => number().filter(|_| line.output_count == 1),
    }
}

fn dependency_file(line: &CommandLine, outputs: &Outputs) -> Option<usize> {
    match line.mode {
        command_line::Mode::Dependencies => outputs.main.as_ref().map(|_| 0),
        _ => outputs.dependencies.as_ref().map(|_| usize::from(outputs.main.is_some())),
    }
}
