//! Sharing: a result that was made in one place, served in another.
//!
//! A request says where it stands: its working directory, and the names of its outputs. Two requests that differ in
//! that alone have different request keys and one **shared key**. A tool treats them alike, but for what it makes of
//! those places. So a result may be shared if the places show neither in what the run observed (`portable`) nor in
//! what it left (`traces`, by a search of all bytes); rules for make, which are text of a known form, are written
//! anew (`rules`). Whatever does not lend itself to that proof is not shared.
//!
//! There are three ways to share, with a key each (`Reach`).

mod portable;
mod rules;
pub mod target;
mod traces;

use std::sync::Arc;

use crate::sys::fs::AtFlags;
use rustc_hash::FxHashSet;
use serde::{Deserialize, Serialize};

use crate::blobs::{Blobs, PendingBlob};
use crate::digest::Digest;
use crate::freshness::WorkingDirectory;
use crate::invocation::Invocation;
use crate::key::RequestKey;
use crate::observation::{Fact, Observation, Spelled};
use crate::plan::{Checkout, Plan, Purpose, Sharing};
use crate::record::{Output, OutputFile, Record};
use portable::{Ported, port, renumbered};
use rules::{Manner, Rules};

/// The longest base in bytes whose traces are searched for: gcc breaks text of 256 bytes and more into pieces when
/// it writes assembler (`ELF_STRING_LIMIT`).
const BASE_BYTES_MAX: usize = 200;

/// How much may lie elsewhere, or be called otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// The working directory and what is below it; and the outputs.
    Directory,
    /// The nearest directory above it that has a `.git`, and what is below; and the outputs.
    Repository,
    /// The outputs alone.
    Outputs,
}

impl Reach {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Directory => b"directory",
            Self::Repository => b"repository",
            Self::Outputs => b"outputs",
        }
    }
}

/// The places of one request: what may differ between requests that share a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standpoint {
    /// The directory that may lie elsewhere, canonical; empty if none may.
    #[serde(with = "serde_bytes")]
    base: Vec<u8>,
    /// The working directory below it: empty, or with a leading slash.
    #[serde(with = "serde_bytes")]
    within: Vec<u8>,
    /// The outputs, as spelled, in the plan's order.
    outputs: Vec<Spelled>,
}

/// A request's standpoint, and the key that it has in common with equal requests from other ones.
pub struct SharedRequest {
    /// Where it stands.
    pub standpoint: Standpoint,
    /// The shared key.
    pub key: RequestKey,
    /// The command line names something below the base, which only requests with this key may have elsewhere.
    names_base: bool,
    /// The digest of the whole environment as those who share have it in common, where they do.
    environment: Option<Digest>,
    /// The checkout, where others may have another one.
    checkout: Option<Checkout>,
}

/// The ways in which a request may share results, in the order in which they are worth trying. Empty if none is open
/// to it.
pub fn shared_requests(invocation: &Invocation, plan: &Plan, cwd: &WorkingDirectory) -> Vec<SharedRequest> {
    if let Some(target) = &plan.target {
        return target::shared_requests(invocation, plan, target);
    }
    let Some(sharing) = &plan.sharing else { return Vec::new() };
    // Under another name of the directory (`PWD`, links), tools see more than one path.
    if plan.foreign_code || plan.pin_mtimes || cwd.path().ok().as_deref() != Some(&invocation.cwd[..]) {
        return Vec::new();
    }
    let bases = [
        (Reach::Directory, Some(invocation.cwd.clone())),
        (Reach::Repository, repository(&invocation.cwd)),
        (Reach::Outputs, Some(Vec::new())),
    ];
    let request =
        |(reach, base): (Reach, Option<Vec<u8>>)| shared_request(invocation, plan, sharing, reach, base?);
    bases.into_iter().filter_map(request).collect()
}

/// The nearest directory strictly above `cwd` with a `.git`; none if `cwd` itself has one.
fn repository(cwd: &[u8]) -> Option<Vec<u8>> {
    let has_git = |dir: &[u8]| {
        let git = [dir, b"/.git"].concat();
        crate::sys::fs::statat(crate::sys::fs::CWD, &git[..], AtFlags::SYMLINK_NOFOLLOW).is_ok()
    };
    let above = |dir: &[u8]| dir.iter().rposition(|&b| b == b'/').filter(|&slash| slash > 0);
    if has_git(cwd) {
        return None;
    }
    let mut dir = cwd;
    while let Some(slash) = above(dir) {
        dir = &dir[..slash];
        if has_git(dir) {
            return Some(dir.to_vec());
        }
    }
    None
}

fn shared_request(
    invocation: &Invocation,
    plan: &Plan,
    sharing: &Sharing,
    reach: Reach,
    base: Vec<u8>,
) -> Option<SharedRequest> {
    if reach != Reach::Outputs && !is_searchable(&base) {
        return None;
    }
    let within = invocation.cwd[base.len()..].to_vec();
    let standpoint = Standpoint { base, within, outputs: plan.outputs.clone() };
    let (argv, names_base) = standpoint.portable_argv(invocation, sharing)?;
    if standpoint.is_named_in(&invocation.tool)
        || plan.key_env.iter().any(|entry| standpoint.is_named_in(entry))
    {
        return None;
    }
    let place = [reach.name(), &standpoint.within].concat();
    let key = RequestKey::shared(invocation, plan, &argv, &place);
    Some(SharedRequest { standpoint, key, names_base, environment: None, checkout: None })
}

/// Whether a directory's path stands everywhere as it is: nothing quotes any of its characters, or breaks it.
fn is_searchable(path: &[u8]) -> bool {
    const QUOTED: &[u8] = b"\"\\'$#%:&<>";
    let is_plain = |b: &u8| b.is_ascii_graphic() && !QUOTED.contains(b);
    (2..=BASE_BYTES_MAX).contains(&path.len()) && path.iter().all(is_plain)
}

/// What ties a result to the place where it was made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Tie {
    #[error("the environment as a whole is an input")]
    Environment,
    #[error("what it printed tells of its place")]
    Printed,
    #[error("{0} tells, or may tell, of its place")]
    Output(String),
    #[error("what was seen of {0} hangs on its place")]
    Observation(String),
    #[error("{0} was asked for by its whole path, and may be named so by an input")]
    Input(String),
}

impl Tie {
    fn output(path: &Spelled) -> Self {
        Self::Output(path.0.escape_ascii().to_string())
    }

    fn observation(path: &Spelled) -> Self {
        Self::Observation(path.0.escape_ascii().to_string())
    }
}

/// The records, with their keys, by which a stored result is to be found from elsewhere: under the first shared key
/// that it is good for, and under one that others cannot stand for.
pub fn shared_records(
    record: &Record,
    requests: Vec<SharedRequest>,
    plan: &Plan,
    cwd: &WorkingDirectory,
    blobs: &Blobs,
) -> Vec<(RequestKey, Record)> {
    let mut records = Vec::new();
    for request in requests {
        if records.is_empty() || request.names_base {
            let general = match plan.target {
                Some(_) => target::generalise(record, &request, blobs),
                None => generalise(record, &request.standpoint, plan, cwd, blobs),
            };
            match general {
                Ok(general) => records.push((request.key, general)),
                Err(tie) => tracing::debug!(%tie, "a result is good for its own place alone"),
            }
        }
    }
    records
}

/// A record for all who have the shared key in common, if the run proves to be one that may be shared.
fn generalise(
    record: &Record,
    standpoint: &Standpoint,
    plan: &Plan,
    cwd: &WorkingDirectory,
    blobs: &Blobs,
) -> Result<Record, Tie> {
    let result = &record.result;
    if record.environment.is_some() {
        return Err(Tie::Environment);
    }
    if [&result.stdout, &result.stderr].iter().any(|printed| standpoint.shows_in(printed)) {
        return Err(Tie::Printed);
    }
    let rules = plan.sharing.as_ref().and_then(|sharing| sharing.dependency_file);
    let manner = Manner::of_family(plan.policy.family);
    for output in &result.outputs {
        let tie = || Tie::output(&output.path);
        let number = standpoint.number_of(output).ok_or_else(tie)?;
        let Some(file) = &output.file else { continue };
        let content = traces::read(blobs, file).ok_or_else(tie)?;
        let is_clean = match rules == Some(number) {
            true => manner.and_then(|manner| Rules::parse(&content, standpoint, manner)).is_some(),
            false => traces::is_searchable(&content) && !standpoint.shows_in(&content),
        };
        if !is_clean {
            return Err(tie());
        }
    }
    let (observations, identities) = portable_observations(record, standpoint, cwd)?;
    let (variables, result) = (record.variables.clone(), result.clone());
    let origin = Some(standpoint.clone());
    Ok(Record { observations, identities, environment: None, variables, origin, result })
}

/// The record's observations as any requester with the shared key would have them, and their identities.
fn portable_observations(
    record: &Record,
    standpoint: &Standpoint,
    cwd: &WorkingDirectory,
) -> Result<(Vec<Arc<Observation>>, Vec<u32>), Tie> {
    let mut observations = Vec::with_capacity(record.observations.len());
    let mut identities = Vec::with_capacity(record.identities.len());
    let (mut seen, mut moved) = (FxHashSet::default(), None);
    for (observation, &identity) in record.observations.iter().zip(&record.identities) {
        let mut observation = Arc::clone(observation);
        let ported = match standpoint.base.is_empty() {
            true => Some(Ported::AsItIs),
            false => port(&observation, &standpoint.base, &standpoint.within),
        };
        match ported {
            None => return Err(Tie::observation(&observation.path)),
            Some(Ported::Needless) => continue,
            Some(Ported::AsItIs) => {}
            Some(Ported::To(path)) => {
                // Looking at links on the way follows from other paths; all else may come from a text.
                let moving = Arc::make_mut(&mut observation);
                let old = std::mem::replace(&mut moving.path, Spelled(path));
                if !matches!(observation.fact, Fact::Kind { follow: false, .. }) {
                    moved = Some(old);
                }
            }
        }
        if seen.insert(observation.clone()) {
            observations.push(observation);
            identities.push(identity);
        }
    }
    if let Some(path) = moved
        && traces::any_input_says(&record.observations, &standpoint.base, cwd)
    {
        return Err(Tie::Input(path.0.escape_ascii().to_string()));
    }
    Ok((observations, renumbered(&identities)))
}

/// A shared record as a record of the request that stands at `here`, with the contents that had to be made anew.
///
/// # Errors
/// If a content is missing, or cannot be written.
pub fn localise(
    record: &Record,
    here: &Standpoint,
    plan: &Plan,
    blobs: &Blobs,
) -> std::io::Result<(Record, Vec<PendingBlob>)> {
    let unusable = || std::io::Error::other("a shared record that is none here");
    // What was elsewhere for its maker must not be at home here: prefix maps, say, would change its name.
    if !here.base.is_empty()
        && !record.observations.iter().all(|o| port(o, &here.base, &here.within) == Some(Ported::AsItIs))
    {
        return Err(unusable());
    }
    let origin = record.origin.as_ref().ok_or_else(unusable)?;
    let rules = plan.sharing.as_ref().and_then(|sharing| sharing.dependency_file);
    let manner = Manner::of_family(plan.policy.family);
    let mut local = Record { origin: None, ..record.clone() };
    let mut contents = Vec::new();
    for output in &mut local.result.outputs {
        let number = origin.number_of(output).ok_or_else(unusable)?;
        output.path = here.outputs.get(number).ok_or_else(unusable)?.clone();
        // The tool that made it did not write what it read, as it would here.
        if record.observations.iter().any(|o| o.path == output.path && matches!(o.fact, Fact::Content { .. }))
        {
            return Err(unusable());
        }
        if let (Some(file), true) = (&mut output.file, rules == Some(number)) {
            let content = traces::read(blobs, file).ok_or_else(unusable)?;
            let rules = manner.and_then(|manner| Rules::parse(&content, origin, manner));
            let rules = rules.ok_or_else(unusable)?;
            let content = blobs.receive_bytes(&rules.written_at(here))?;
            *file = OutputFile { digest: content.digest, bytes: content.bytes, ..*file };
            contents.push(content);
        }
    }
    Ok((local, contents))
}

impl SharedRequest {
    /// Whether a record asks for the environment that this request has, as far as it is shared.
    pub fn accepts(&self, record: &Record) -> bool {
        record.environment.is_none() || record.environment == self.environment
    }
}

impl Standpoint {
    /// The arguments with the requester's places replaced by marks (which hold a NUL, so that nobody can type them),
    /// and whether any named something below the base; nothing if the base is left somewhere.
    fn portable_argv(&self, invocation: &Invocation, sharing: &Sharing) -> Option<(Vec<Vec<u8>>, bool)> {
        let mut argv: Vec<Vec<u8>> = invocation.argv.iter().map(<[u8]>::to_vec).collect();
        let is_hidden = self.is_mapped_away(&argv, sharing)?;
        let mut names_base = false;
        for place in &sharing.places {
            let argument = argv.get_mut(place.argument)?;
            let (before, value) = argument.split_at_checked(place.offset)?;
            let below = self.below_base(value);
            let marked = match (place.purpose, below) {
                (Purpose::Output(number), _) => [before, format!("\0output {number}\0").as_bytes()].concat(),
                (Purpose::Map { .. }, Some(rest)) => [before, b"\0base\0", rest].concat(),
                (Purpose::Input, Some(rest)) if is_hidden => [before, b"\0base\0", rest].concat(),
                _ => continue,
            };
            names_base |= below.is_some();
            *argument = marked;
        }
        (!argv.iter().any(|argument| self.is_named_in(argument))).then_some((argv, names_base))
    }

    /// Whether prefix maps hide the whole base from `__FILE__` and from debug information. Nothing if a map takes
    /// away more than the base: what is left of a path then tells where it was, and a search for the base does not
    /// find it.
    fn is_mapped_away(&self, argv: &[Vec<u8>], sharing: &Sharing) -> Option<bool> {
        let (mut in_macros, mut in_debug) = (false, false);
        for place in &sharing.places {
            let Purpose::Map { macros, debug } = place.purpose else { continue };
            let map = argv.get(place.argument)?.get(place.offset..)?;
            let old = &map[..map.iter().position(|&b| b == b'=')?];
            if old == self.base {
                in_macros |= macros;
                in_debug |= debug;
            } else if self.base.starts_with(old) {
                return None;
            }
        }
        Some(in_macros && in_debug)
    }

    /// What follows the base in a path below it, or in an option's value that begins with one.
    fn below_base<'a>(&self, path: &'a [u8]) -> Option<&'a [u8]> {
        let rest = path.strip_prefix(&self.base[..]).filter(|_| !self.base.is_empty())?;
        matches!(rest.first(), None | Some(b'/' | b'=')).then_some(rest)
    }

    /// Whether the base's path stands in `bytes`.
    fn is_named_in(&self, bytes: &[u8]) -> bool {
        !self.base.is_empty() && traces::contains(bytes, &self.base)
    }

    /// Which of the plan's outputs this is.
    fn number_of(&self, output: &Output) -> Option<usize> {
        self.outputs.iter().position(|path| *path == output.path)
    }

    /// Whether a content, or what was printed, tells where the request stood, or how its outputs are called (`-grecord-command-line`).
    fn shows_in(&self, content: &[u8]) -> bool {
        let is_named = |output: &Spelled| match output.0.contains(&b'/') {
            true => traces::contains(content, &output.0),
            // Short ones are everywhere: `a.d` in `.rela.debug_info`.
            false => traces::contains_word_end(content, &output.0),
        };
        self.is_named_in(content) || self.outputs.iter().any(is_named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_longer_than_compilers_write_in_one_piece_is_not_looked_for() {
        let base = |bytes: usize| format!("/{}", "x".repeat(bytes - 1)).into_bytes();
        assert!(is_searchable(&base(BASE_BYTES_MAX)));
        assert!(!is_searchable(&base(BASE_BYTES_MAX + 1)));
    }
}
