//! The planner for systems where compilers are only believed: what their command lines mean there, and what differs from
//! Linux. Paths are made plain, names that may mean other files are passed through, and results are served where they were
//! made alone: a place may be spelled in more ways than a search for it would find.

use zccache_actors::invocation::Invocation;
use zccache_actors::observation::Spelled;
use zccache_actors::observer::wants_terminal;
use zccache_actors::plan::{PassThrough, Plan, Planned, Planner};
use zccache_actors::spelling;

use crate::unwatched::Declared;

/// Why a command with a terminal for its output is passed through: a tool of ours would not have it.
pub const TERMINAL: &str = "terminal";

/// Why a command is passed through of which an argument or a path may mean something else to the tool than to us.
pub const AMBIGUOUS: &str = "ambiguous_argument";

/// What declares all its inputs is cached.
pub struct Elsewhere(pub Declared);

impl Planner for Elsewhere {
    fn plan(&self, invocation: &Invocation) -> Planned {
        let stdio = &invocation.stdio;
        let refused = if wants_terminal(stdio.stdout) || wants_terminal(stdio.stderr) {
            Some(TERMINAL)
        } else {
            invocation.argv.iter().any(spelling::is_expanded).then_some(AMBIGUOUS)
        };
        match (refused, self.0.plan(invocation)) {
            (_, passed @ Planned::PassThrough(_)) => passed,
            (Some(reason), Planned::Cache(_)) => Planned::PassThrough(PassThrough { reason }),
            (None, Planned::Cache(mut plan)) => {
                plan.sharing = None;
                // All of them, whichever is not clear.
                let unclear = paths(&mut plan).map(make_plain).filter(|is_clear| !is_clear).count();
                match unclear {
                    0 => Planned::Cache(plan),
                    _ => Planned::PassThrough(PassThrough { reason: AMBIGUOUS }),
                }
            }
        }
    }
}

/// Every path that was typed.
fn paths(plan: &mut Plan) -> impl Iterator<Item = &mut Spelled> {
    let declared = &mut plan.declared;
    let files = declared.argument_files.iter_mut().map(|(path, _)| path);
    plan.outputs
        .iter_mut()
        .chain(&mut declared.source)
        .chain(&mut declared.dependency_file)
        .chain(&mut declared.quote_dirs)
        .chain(&mut declared.search_dirs)
        .chain(&mut declared.forced_includes)
        .chain(files)
}

/// Has slashes between its parts; whether it means one file and no other.
fn make_plain(path: &mut Spelled) -> bool {
    path.0 = spelling::plain(&path.0).into_owned();
    spelling::oddness(&path.0).is_none()
}
