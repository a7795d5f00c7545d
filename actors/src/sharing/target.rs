//! Sharing between build directories: a Rust crate of a registry lies at one place on a machine, is compiled from
//! there, and differs from project to project only in where Cargo has its results put: the target directory.
//!
//! The target directory leaves the key, and with it goes whatever names something below it: arguments, `LD_LIBRARY_PATH`.
//! A result may then be shared if nothing but crates and libraries was read below that directory (so no source's path
//! lies there), no variable that the source asked for names it, and its path stands in no output. Dependency
//! information and the messages by which rustc announces its outputs do name it; they are text of a known form, and are
//! written anew.

use crate::blobs::{Blobs, PendingBlob};
use crate::digest::Digest;
use crate::freshness::WorkingDirectory;
use crate::invocation::Invocation;
use crate::key::{RequestKey, environment_digest, environment_digest_of};
use crate::observation::{Fact, Observation, Spelled};
use crate::plan::Plan;
use crate::record::{Output, OutputFile, Record};
use crate::signature::FileKind;

use super::{SharedRequest, Standpoint, Tie, is_searchable, renumbered, traces};

/// What stands for the target directory in a shared key; nobody can type a NUL.
const MARK: &[u8] = b"\0target\0";

/// What announces an output on standard error (`--json=artifacts`).
const ANNOUNCEMENT: &[u8] = b"\"artifact\":\"";

/// The ends of names of files whose own paths do not show in what is made of them.
const LIBRARIES: [&[u8]; 6] = [b".rmeta", b".rlib", b".so", b".a", b".dylib", b".dll"];

/// Variables whose naming the target directory is no secret: Cargo puts it there for every compile.
const NAMING: [&[u8]; 1] = [b"LD_LIBRARY_PATH"];

/// The request as one with any target directory.
pub(super) fn shared_request(invocation: &Invocation, plan: &Plan, target: &[u8]) -> Option<SharedRequest> {
    let is_plain =
        || WorkingDirectory::open(target).and_then(|dir| dir.path()).is_ok_and(|path| path == target);
    if !is_searchable(target) || !is_plain() || leads_into(&invocation.cwd, target) {
        return None;
    }
    let portable = |bytes: &[u8]| replaced(bytes, target, MARK);
    let argv: Vec<Vec<u8>> = invocation.argv.iter().map(portable).collect::<Option<_>>()?;
    let key_env = plan.key_env.iter().map(|entry| portable(entry)).collect::<Option<_>>()?;
    let plan = Plan { key_env, ..plan.clone() };
    let key = RequestKey::shared(invocation, &plan, &argv, &[b"target\0", &invocation.cwd[..]].concat());
    let standpoint = Standpoint { base: target.to_vec(), within: Vec::new(), outputs: Vec::new() };
    let environment = portable_environment(invocation, target);
    Some(SharedRequest { standpoint, key, names_base: false, environment })
}

/// The digest of the whole environment but for the target directory; nothing if a variable tells of that which programs
/// may well read.
fn portable_environment(invocation: &Invocation, target: &[u8]) -> Option<Digest> {
    let tells = |entry: &[u8]| {
        let name = entry.split(|&b| b == b'=').next().unwrap_or_default();
        traces::contains(entry, target) && !NAMING.contains(&name)
    };
    if invocation.env.iter().any(tells) {
        return None;
    }
    let entries: Option<Vec<Vec<u8>>> = invocation.env.iter().map(|e| replaced(e, target, MARK)).collect();
    Some(environment_digest_of(&entries?.iter().collect(), &invocation.cwd))
}

/// A record for all whose requests differ in the target directory alone, if the run proves to be one that may be shared.
pub(super) fn generalise(record: &Record, request: &SharedRequest, blobs: &Blobs) -> Result<Record, Tie> {
    let target = &request.standpoint.base[..];
    let environment = match record.environment {
        Some(_) => Some(request.environment.ok_or(Tie::Environment)?),
        None => None,
    };
    let tells = |value: &[u8]| traces::contains(value, target);
    if record.variables.iter().any(|v| v.value.as_ref().is_some_and(|value| tells(value))) {
        return Err(Tie::Environment);
    }
    let result = &record.result;
    if tells(&result.stdout) || !is_told_in_announcements_alone(&result.stderr, target) {
        return Err(Tie::Printed);
    }
    for output in &result.outputs {
        let Some(file) = &output.file else { continue };
        let content = traces::read(blobs, file).ok_or_else(|| Tie::output(&output.path))?;
        let is_clean = if is_dependency_information(output) {
            replaced(&content, target, MARK).is_some()
        } else {
            !tells(&content)
        };
        if !is_clean {
            return Err(Tie::output(&output.path));
        }
    }
    let mut general = portable_observations(record, target)?;
    general.environment = environment;
    general.origin = Some(request.standpoint.clone());
    Ok(general)
}

/// The record without what goes without saying: that directories lead to the target directory.
fn portable_observations(record: &Record, target: &[u8]) -> Result<Record, Tie> {
    let (mut observations, mut identities) = (Vec::new(), Vec::new());
    for (observation, &identity) in record.observations.iter().zip(&record.identities) {
        if !is_portable(observation, target) {
            return Err(Tie::observation(&observation.path));
        }
        if !is_needless(observation, record, target) {
            observations.push(observation.clone());
            identities.push(identity);
        }
    }
    Ok(Record { observations, identities: renumbered(&identities), ..record.clone() })
}

fn is_portable(observation: &Observation, target: &[u8]) -> bool {
    let path = &observation.path.0[..];
    if !leads_into(path, target) {
        return !matches!(&observation.fact, Fact::Symlink { target: link } if traces::contains(&link.0, target))
            && !traces::contains(path, target);
    }
    let is_plain = !path.windows(4).any(|w| w == b"/../") && !path.ends_with(b"/..");
    is_plain
        && match &observation.fact {
            Fact::Content { .. } => LIBRARIES.iter().any(|end| path.ends_with(end)),
            Fact::Absent | Fact::Names { .. } | Fact::Listed { .. } | Fact::Kind { .. } => true,
            _ => false,
        }
}

/// Whether this says only that something above the target directory is a directory, and nothing else is said to lie
/// there.
fn is_needless(observation: &Observation, record: &Record, target: &[u8]) -> bool {
    let path = &observation.path.0[..];
    let is_directory = matches!(observation.fact, Fact::Kind { kind: FileKind::Directory, .. });
    let is_below = |other: &Observation| {
        other.path.0.len() > path.len()
            && leads_into(&other.path.0, path)
            && !is_above(&other.path.0, target)
            && !leads_into(&other.path.0, target)
    };
    is_directory && is_above(path, target) && !record.observations.iter().any(is_below)
}

/// A shared record as a record of the request that stands at `here`, with the contents that had to be made anew.
///
/// # Errors
/// If a content is missing, or cannot be written.
pub fn localise(
    record: &Record,
    here: &Standpoint,
    invocation: &Invocation,
    blobs: &Blobs,
) -> std::io::Result<(Record, Vec<PendingBlob>)> {
    let unusable = || std::io::Error::other("a shared record that is none here");
    let origin = &record.origin.as_ref().ok_or_else(unusable)?.base[..];
    let at_home = |bytes: &[u8]| replaced(bytes, origin, &here.base).ok_or_else(unusable);
    let mut local = Record { origin: None, ..record.clone() };
    local.environment = local.environment.map(|_| environment_digest(invocation));
    for observation in &mut local.observations {
        observation.path = Spelled(at_home(&observation.path.0)?);
    }
    local.result.stderr = at_home(&local.result.stderr)?.into();
    let mut contents = Vec::new();
    for output in &mut local.result.outputs {
        output.path = Spelled(at_home(&output.path.0)?);
        let rewritten = is_dependency_information(output);
        if let (Some(file), true) = (&mut output.file, rewritten) {
            let content = at_home(&traces::read(blobs, file).ok_or_else(unusable)?)?;
            let content = blobs.receive_bytes(&content)?;
            *file = OutputFile { digest: content.digest, bytes: content.bytes, ..*file };
            contents.push(content);
        }
    }
    Ok((local, contents))
}

fn is_dependency_information(output: &Output) -> bool {
    output.path.0.ends_with(b".d")
}

/// Whether all that standard error says of the target directory is which outputs were made below it.
fn is_told_in_announcements_alone(stderr: &[u8], target: &[u8]) -> bool {
    let announced = memchr::memmem::find_iter(stderr, target).all(|at| stderr[..at].ends_with(ANNOUNCEMENT));
    announced && replaced(stderr, target, MARK).is_some()
}

/// `bytes` with the directory `from` called `to`; nothing if what looks like it may be something else.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    let (mut text, mut done) = (Vec::with_capacity(bytes.len()), 0);
    for at in memchr::memmem::find_iter(bytes, from) {
        let begins = at == 0 || b" \n\"'=:,".contains(&bytes[at - 1]) || bytes[..at].ends_with(b"-L");
        let ends = bytes.get(at + from.len()).is_none_or(|b| b"/:\n ".contains(b));
        if !begins || !ends {
            return None;
        }
        text.extend_from_slice(&bytes[done..at]);
        text.extend_from_slice(to);
        done = at + from.len();
    }
    text.extend_from_slice(&bytes[done..]);
    Some(text)
}

/// Whether `path` is `directory` or below it.
fn leads_into(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
}

/// Whether `path` is strictly above `directory`.
fn is_above(path: &[u8], directory: &[u8]) -> bool {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    directory.strip_prefix(path).is_some_and(|rest| rest.first() == Some(&b'/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_renamed_only_where_it_is_surely_meant() {
        for (text, expect) in [
            ("/t/deps/a.d: a.rs /t/deps/b", Some("/u/deps/a.d: a.rs /u/deps/b")),
            ("dependency=/t", Some("dependency=/u")),
            ("LD_LIBRARY_PATH=/t/deps:/t/x:/lib", Some("LD_LIBRARY_PATH=/u/deps:/u/x:/lib")),
            ("{\"artifact\":\"/t/x.rmeta\"}", Some("{\"artifact\":\"/u/x.rmeta\"}")),
            ("/other", Some("/other")),
            ("/tmp", None),
            ("/x/t/a", None),
        ] {
            let got = replaced(text.as_bytes(), b"/t", b"/u").map(|text| String::from_utf8(text).unwrap());
            assert_eq!(got.as_deref(), expect, "{text}");
        }
    }

    #[test]
    fn messages_may_name_the_directory_where_they_announce_outputs() {
        let told = |stderr: &str| is_told_in_announcements_alone(stderr.as_bytes(), b"/t");
        assert!(told("{\"artifact\":\"/t/a.rmeta\",\"emit\":\"metadata\"}\n"));
        assert!(told(""));
        assert!(!told("{\"artifact\":\"/t/a.rmeta\"}\n{\"message\":\"in /t/out/gen.rs\"}\n"));
    }

    #[test]
    fn sources_below_the_directory_tie_a_result_to_it() {
        let check =
            |path: &str, fact: Fact| is_portable(&Observation { path: Spelled(path.into()), fact }, b"/t");
        let signature =
            crate::signature::Signature { dev: 1, ino: 1, size: 1, mtime_ns: 1, ctime_ns: 1, mode: 0 };
        let content = || Fact::Content { digest: Digest::of(b""), signature, executed: false, linked: false };
        assert!(check("/t/debug/deps/liba.rmeta", content()) && check("/src/a.rs", content()));
        assert!(!check("/t/debug/build/a/out/gen.rs", content()));
        assert!(check("/t/debug/deps/libc.so.6", Fact::Absent));
        assert!(
            !check("/t/../a", Fact::Absent)
                && !check("/x/t/debug", Fact::Symlink { target: Spelled(b"/t/x".to_vec()) })
        );
    }
}
