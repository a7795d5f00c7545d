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
use super::language::base_name;
use super::outputs::Outputs;

/// The places in a command whose results may be shared; `arguments` are those after `argv[0]`, with response files
/// replaced.
pub fn sharing(
    invocation: &Invocation,
    arguments: &[Vec<u8>],
    line: &CommandLine,
    outputs: &Outputs,
) -> Option<Sharing> {
    let mut names = outputs.main.iter().chain(&outputs.dependencies);
    let is_open = !line.hides_places
        && !line.uses_mtimes
        && line.undeclared.is_none()
        && environment::undeclared(&invocation.env).is_none()
        && names.all(|name| is_plain(name, outputs.dependencies.is_some()))
        && !may_be_one(outputs);
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
        dependency_file: dependency_file(line, arguments, outputs),
    })
}

/// Whether a name stands in a result as it does in the command line. What make or a shell would not take for a part of a
/// name is quoted, by each compiler in its own way; and in rules for make gcc takes a leading `./` away.
fn is_plain(name: &[u8], is_in_rules: bool) -> bool {
    let is_plain = |&b: &u8| b.is_ascii_alphanumeric() || b"/._-+=@,~".contains(&b) || !b.is_ascii();
    !(is_in_rules && name.starts_with(b"./")) && name.iter().all(is_plain)
}

/// Whether both outputs may be one file, of which there is only what was written last.
fn may_be_one(outputs: &Outputs) -> bool {
    let [main, dependencies] =
        [&outputs.main, &outputs.dependencies].map(|name| name.as_deref().map(base_name));
    main.is_some() && main == dependencies
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

/// The file of rules whose targets, where they are called like outputs, are meant to be. With `-M`, `-E` and the like the
/// target is called after the source; one that is given might be written otherwise, and be an output's name then.
fn dependency_file(line: &CommandLine, arguments: &[Vec<u8>], outputs: &Outputs) -> Option<usize> {
    let is_made = matches!(line.mode, command_line::Mode::Compile | command_line::Mode::Assemble);
    let mut targets = line.places.iter().filter(|place| place.purpose == command_line::Purpose::Target);
    let are_clear = is_made
        && !line.hides_targets
        && targets.all(|place| is_plain(&arguments[place.argument][place.offset..], true));
    outputs.dependencies.as_ref().filter(|_| are_clear).map(|_| usize::from(outputs.main.is_some()))
}
