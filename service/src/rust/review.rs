//! The review of a run of rustc: which of its observations count, which variables its result hangs on, and whether it
//! may be stored at all.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use zccache_actors::sys::OsStrExt;

use zccache_actors::invocation::Invocation;
use zccache_actors::observation::{Seen, Spelled};
use zccache_actors::observer::{Left, Observed, Origin, Unstorable};
use zccache_actors::plan::{Printed, Variables};

use super::command_line::CommandLine;
use super::{crates, dep_info, macros, names, plan};
use crate::c_family::language::base_name;

/// See [`zccache_actors::plan::Review`].
pub fn review(
    invocation: &Invocation,
    observed: &mut Observed,
    printed: &Printed<'_>,
) -> Result<Variables, Unstorable> {
    let cwd = invocation.cwd_path();
    let line = plan::command_line(&invocation.argv, cwd)
        .map_err(|_| Unstorable::InputChanged("arguments".into()))?;
    let stderr = if invocation.stdio.merged { printed.stdout } else { printed.stderr };
    crates::narrow_listings(&line, observed, stderr);
    note_replacements(observed);
    forget_own_outputs(observed, cwd);
    let loaded = macros::loaded(&observed.sightings, observed.programs.iter().map(|p| &p.0[..]), cwd);
    if let Some((path, _)) = loaded.iter().find(|(path, signature)| macros::tells_time(path, cwd, *signature))
    {
        tracing::debug!(library = %path.escape_ascii(), "the time may have been asked for");
        return Err(Unstorable::AskedTime);
    }
    if let Some((path, _)) = loaded.first() {
        tracing::debug!(library = %path.escape_ascii(), "any variable may have been read");
    }
    if line.brings_code || !loaded.is_empty() {
        return Ok(Variables::Any);
    }
    Ok(asked_variables(&line, observed, invocation).map_or(Variables::Any, Variables::Named))
}

/// rustc and the linkers that are known move what they made to its place, whatever is there. (lld opens an older file
/// there, and does not read it, to have it removed at leisure.)
fn note_replacements(observed: &mut Observed) {
    let is_known = |program: &Spelled| names::is_rust_program(base_name(&program.0));
    if !observed.programs.iter().all(is_known) {
        return;
    }
    let mut replaced = HashSet::new();
    for effect in &mut observed.effects {
        if matches!(effect.left, Left::File(Origin::Moved | Origin::Edited)) {
            effect.left = Left::File(Origin::Replaced);
            replaced.insert(effect.path.clone());
        }
    }
    observed.sightings.retain(|s| !(matches!(s.seen, Seen::Before { .. }) && replaced.contains(&s.path)));
}

/// What rustc finds where it is about to write matters to it only if that is its source, or a directory. (The observer
/// leaves this in where a run failed, since other tools do other things then.)
fn forget_own_outputs(observed: &mut Observed, cwd: &Path) {
    let absolute = |path: &[u8]| cwd.join(OsStr::from_bytes(path));
    let written = observed.effects.iter().filter(|effect| matches!(effect.left, Left::File(_)));
    let written: HashSet<PathBuf> = written.map(|effect| absolute(&effect.path.0)).collect();
    observed.sightings.retain(|sighting| {
        let is_question = matches!(sighting.seen, Seen::Absent | Seen::Metadata { .. } | Seen::Kind { .. });
        !(is_question && written.contains(&absolute(&sighting.path.0)))
    });
}

/// The variables that the source asked for, if the compiler wrote down which.
fn asked_variables(line: &CommandLine, observed: &Observed, invocation: &Invocation) -> Option<Vec<Vec<u8>>> {
    let mut written = observed.effects.iter().filter(|effect| matches!(effect.left, Left::File(_)));
    let path = match line.dep_info.as_ref()? {
        Some(named) => written.find(|effect| effect.path.0 == *named)?,
        None => {
            let is_dep_info = |path: &[u8]| path.ends_with(b".d");
            let first = written.by_ref().find(|effect| is_dep_info(&effect.path.0))?;
            if written.any(|effect| is_dep_info(&effect.path.0)) {
                return None;
            }
            first
        }
    };
    let path = invocation.cwd_path().join(OsStr::from_bytes(&path.path.0));
    Some(dep_info::variables(&std::fs::read(path).ok()?))
}
