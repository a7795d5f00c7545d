//! Sharing between builds of Rust: a crate of a registry lies at one place on a machine, is compiled from
//! there, and differs from project to project only in where Cargo has its results put: the target directory. A crate of a
//! workspace is compiled from the workspace's own directory, and differs from checkout to checkout in that as well.
//!
//! The target directory leaves the key, and with it goes whatever names something below it: arguments, `LD_LIBRARY_PATH`.
//! A result may then be shared if nothing but crates and libraries was read below that directory (so no source's path
//! lies there), no variable that the source asked for names it, and its path stands in no output. Dependency
//! information and the messages by which rustc announces its outputs do name it; they are text of a known form, and are
//! written anew.
//!
//! The checkout may leave the key too, if the command names its sources by relative paths. Then nothing at all may say its
//! path but the target directory's name: neither variables, nor what was observed, nor a byte of an output, and an output is
//! searched only where paths stand as they are. Metadata holds digests of where its crate was compiled besides, so crates that
//! have any are shared only if a prefix map (`--remap-path-prefix`) takes the checkout's place.

use std::sync::Arc;

use crate::blobs::{Blobs, PendingBlob};
use crate::digest::Digest;
use crate::freshness::WorkingDirectory;
use crate::invocation::Invocation;
use crate::key::{RequestKey, environment_digest, environment_digest_of};
use crate::observation::{Fact, Observation, Spelled};
use crate::plan::{Checkout, Plan};
use crate::record::{Output, OutputFile, Record};
use crate::signature::FileKind;

use super::portable::{descend, renumbered, stays_below};
use super::{SharedRequest, Standpoint, Tie, is_searchable, traces};

/// What stands for the target directory in a shared key; nobody can type a NUL.
const MARK: &[u8] = b"\0target\0";

/// What stands for the checkout.
const CHECKOUT_MARK: &[u8] = b"\0checkout\0";

/// What announces an output on standard error (`--json=artifacts`).
const ANNOUNCEMENT: &[u8] = b"\"artifact\":\"";

/// The ends of names of files whose own paths do not show in what is made of them.
const LIBRARIES: [&[u8]; 6] = [b".rmeta", b".rlib", b".so", b".a", b".dylib", b".dll"];

/// Variables whose naming the target directory is no secret: Cargo puts it there for every compile.
const NAMING: [&[u8]; 1] = [b"LD_LIBRARY_PATH"];

/// The request as one from any checkout with any target directory, and as one with any target directory.
pub(super) fn shared_requests(invocation: &Invocation, plan: &Plan, target: &[u8]) -> Vec<SharedRequest> {
    if !is_searchable(target) || !is_plain(target) || leads_into(&invocation.cwd, target) {
        return Vec::new();
    }
    let anywhere = plan.checkout.as_ref().and_then(|c| from_any_checkout(invocation, plan, target, c));
    let here = with_any_target(invocation, plan, target);
    anywhere.into_iter().chain(here).collect()
}

/// Whether this is the directory's own name, without links.
fn is_plain(directory: &[u8]) -> bool {
    WorkingDirectory::open(directory).and_then(|dir| dir.path()).is_ok_and(|path| path == directory)
}

/// The request as one with any target directory.
fn with_any_target(invocation: &Invocation, plan: &Plan, target: &[u8]) -> Option<SharedRequest> {
    let portable = |bytes: &[u8]| replaced(bytes, target, MARK);
    let argv: Vec<Vec<u8>> = invocation.argv.iter().map(portable).collect::<Option<_>>()?;
    let key_env = plan.key_env.iter().map(|entry| portable(entry)).collect::<Option<_>>()?;
    let plan = Plan { key_env, ..plan.clone() };
    let key = RequestKey::shared(invocation, &plan, &argv, &[b"target\0", &invocation.cwd[..]].concat());
    let environment = portable_environment(invocation, target);
    Some(SharedRequest {
        standpoint: standpoint(target),
        key,
        names_base: false,
        environment,
        checkout: None,
    })
}

/// The request as one from any checkout; nothing if more than its target directory and its prefix maps name it.
fn from_any_checkout(
    invocation: &Invocation,
    plan: &Plan,
    target: &[u8],
    checkout: &Checkout,
) -> Option<SharedRequest> {
    if !is_searchable(&checkout.path) || !is_plain(&checkout.path) {
        return None;
    }
    let argument = |bytes: &[u8]| {
        let bytes = replaced(bytes, target, MARK)?;
        match traces::contains(&bytes, &checkout.path) {
            true => with_old_half_marked(&bytes, &checkout.path),
            false => Some(bytes),
        }
    };
    let entry = |entry: &Vec<u8>| {
        replaced(entry, target, MARK).filter(|entry| !traces::contains(entry, &checkout.path))
    };
    let argv: Vec<Vec<u8>> = invocation.argv.iter().map(argument).collect::<Option<_>>()?;
    let key_env = plan.key_env.iter().map(entry).collect::<Option<_>>()?;
    let plan = Plan { key_env, ..plan.clone() };
    let key = RequestKey::shared(invocation, &plan, &argv, b"checkout\0");
    let checkout = Some(checkout.clone());
    // A macro may ask where it is in more ways than by variables.
    Some(SharedRequest {
        standpoint: standpoint(target),
        key,
        names_base: false,
        environment: None,
        checkout,
    })
}

/// A prefix map whose old half is the checkout, or leads into it, with a mark for that.
fn with_old_half_marked(argument: &[u8], checkout: &[u8]) -> Option<Vec<u8>> {
    const OPTION: &[u8] = b"--remap-path-prefix=";
    let map = argument.strip_prefix(OPTION).unwrap_or(argument);
    let rest = map.strip_prefix(checkout).filter(|rest| matches!(rest.first(), Some(b'/' | b'=')))?;
    let is_clean = !traces::contains(rest, checkout) && (map.len() < argument.len() || rest.contains(&b'='));
    is_clean.then(|| [&argument[..argument.len() - map.len()], CHECKOUT_MARK, rest].concat())
}

fn standpoint(target: &[u8]) -> Standpoint {
    Standpoint { base: target.to_vec(), within: Vec::new(), outputs: Vec::new() }
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
    let checkout = request.checkout.as_ref();
    let tells = |value: &[u8]| {
        traces::contains(value, target) || checkout.is_some_and(|c| traces::contains(value, &c.path))
    };
    if record.variables.iter().any(|v| v.value.as_ref().is_some_and(|value| tells(value))) {
        return Err(Tie::Environment);
    }
    let result = &record.result;
    let elsewhere = |text: &[u8]| replaced(text, target, MARK).filter(|text| !tells(text));
    if tells(&result.stdout)
        || !is_told_in_announcements_alone(&result.stderr, target)
        || elsewhere(&result.stderr).is_none()
    {
        return Err(Tie::Printed);
    }
    for output in &result.outputs {
        if checkout.is_some_and(|checkout| is_below(&checkout.path, &output.path.0, target)) {
            return Err(Tie::output(&output.path));
        }
        let Some(file) = &output.file else { continue };
        let content = traces::read(blobs, file).ok_or_else(|| Tie::output(&output.path))?;
        let is_clean = if is_dependency_information(output) {
            elsewhere(&content).is_some()
        } else {
            !tells(&content) && checkout.is_none_or(|checkout| is_open(&content, checkout))
        };
        if !is_clean {
            return Err(Tie::output(&output.path));
        }
    }
    let mut general = match checkout {
        None => portable_observations(record, target, None)?,
        Some(Checkout { path, .. }) => {
            let from_within = seen_from_within(record, path, target);
            if let Some(tied) = from_within.observations.iter().find(|o| is_tied_to(path, o, target)) {
                return Err(Tie::observation(&tied.path));
            }
            portable_observations(&from_within, target, Some(path))?
        }
    };
    general.environment = environment;
    general.origin = Some(request.standpoint.clone());
    Ok(general)
}

/// Whether a content would show where it was compiled if it told of it.
fn is_open(content: &[u8], checkout: &Checkout) -> bool {
    traces::is_searchable_build(content)
        && (checkout.is_mapped_away || !traces::contains(content, traces::METADATA))
}

/// Whether an observation means something else from another checkout, or may: it climbs out of the checkout, or names by its
/// whole path what is there.
fn is_tied_to(checkout: &[u8], observation: &Observation, target: &[u8]) -> bool {
    let path = &observation.path.0[..];
    let leads_out = path.first() != Some(&b'/') && !stays_below(0, path, &observation.fact);
    (is_below(checkout, path, target) && !is_directory_at(checkout, observation))
        || leads_out
        || matches!(&observation.fact, Fact::Symlink { target: link } if traces::contains(&link.0, checkout))
}

/// Whether this says only that there is a directory at this path.
fn is_directory_at(path: &[u8], observation: &Observation) -> bool {
    observation.path.0 == path && matches!(observation.fact, Fact::Kind { kind: FileKind::Directory, .. })
}

/// Whether a path hangs on where the checkout is, other than by what is below it and by the target directory.
fn is_below(checkout: &[u8], path: &[u8], target: &[u8]) -> bool {
    if path.first() != Some(&b'/') {
        return descend(0, path).is_none();
    }
    let path = without_detours(path);
    leads_into(&path, checkout) && !leads_into(&path, target)
}

/// An absolute path without detours, as far as its text tells.
fn without_detours(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for part in path.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".") {
        match part {
            b".." => drop(kept.pop()),
            part => kept.push(part),
        }
    }
    kept.iter().flat_map(|part| [&b"/"[..], part]).collect::<Vec<_>>().concat()
}

/// The record with relative paths where links were looked for on the way to something in the checkout: rustc asks where its
/// source really is. (Looking at links on the way follows from other paths; all else by whole paths may come from a text.)
fn seen_from_within(record: &Record, checkout: &[u8], target: &[u8]) -> Record {
    let mut record = record.clone();
    for observation in &mut record.observations {
        if is_below(checkout, &observation.path.0, target)
            && matches!(observation.fact, Fact::Kind { follow: false, .. })
            && let Some(path) =
                observation.path.0.strip_prefix(checkout).and_then(|rest| rest.strip_prefix(b"/"))
            && !path.is_empty()
        {
            let path = Spelled(path.to_vec());
            Arc::make_mut(observation).path = path;
        }
    }
    record
}

/// The record without what goes without saying: that directories lead to the target directory, and to the checkout.
fn portable_observations(record: &Record, target: &[u8], checkout: Option<&[u8]>) -> Result<Record, Tie> {
    let places: Vec<&[u8]> = [target].into_iter().chain(checkout).collect();
    let (mut observations, mut identities) = (Vec::new(), Vec::new());
    for (observation, &identity) in record.observations.iter().zip(&record.identities) {
        if !is_portable(observation, target) {
            return Err(Tie::observation(&observation.path));
        }
        let is_checkout = checkout.is_some_and(|checkout| is_directory_at(checkout, observation));
        if !is_checkout && !is_needless(observation, record, &places) {
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

/// Whether this says only that one of these places, or something above one, is a directory, and nothing else is said to
/// lie there.
fn is_needless(observation: &Observation, record: &Record, places: &[&[u8]]) -> bool {
    let path = &observation.path.0[..];
    let is_directory = matches!(observation.fact, Fact::Kind { kind: FileKind::Directory, .. });
    let leads_to_one = |path: &[u8]| places.iter().any(|place| is_above(path, place));
    let is_in_one = |path: &[u8]| places.iter().any(|place| leads_into(path, place));
    let is_below = |other: &Arc<Observation>| {
        let other = &other.path.0[..];
        other.len() > path.len() && leads_into(other, path) && !leads_to_one(other) && !is_in_one(other)
    };
    is_directory && leads_to_one(path) && !record.observations.iter().any(is_below)
}

/// A shared record as a record of the request `request`, with the contents that had to be made anew.
///
/// # Errors
/// If a content is missing, or cannot be written.
pub fn localise(
    record: &Record,
    request: &SharedRequest,
    invocation: &Invocation,
    blobs: &Blobs,
) -> std::io::Result<(Record, Vec<PendingBlob>)> {
    let unusable = || std::io::Error::other("a shared record that is none here");
    let here = &request.standpoint;
    let origin = &record.origin.as_ref().ok_or_else(unusable)?.base[..];
    let at_home = |bytes: &[u8]| replaced(bytes, origin, &here.base).ok_or_else(unusable);
    let mut local = Record { origin: None, ..record.clone() };
    local.environment = local.environment.map(|_| environment_digest(invocation));
    for observation in &mut local.observations {
        let path = at_home(&observation.path.0)?;
        if path != observation.path.0 {
            Arc::make_mut(observation).path = Spelled(path);
        }
    }
    // What lay outside of its maker's checkout must not be within the requester's: prefix maps, say, would change its name.
    if let Some(checkout) = &request.checkout
        && local.observations.iter().any(|o| is_tied_to(&checkout.path, o, &here.base))
    {
        return Err(unusable());
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
    fn only_prefix_maps_may_name_the_checkout() {
        for (argument, expect) in [
            ("--remap-path-prefix=/a/b=.", Some("--remap-path-prefix=<>=.")),
            ("--remap-path-prefix=/a/b/src=x", Some("--remap-path-prefix=<>/src=x")),
            // The value of an option that stands alone.
            ("/a/b=.", Some("<>=.")),
            ("/a/b/src/lib.rs", None),
            ("--remap-path-prefix=/a/b=/a/b", None),
            ("--remap-path-prefix=/a/bc=x", None),
            ("--remap-path-prefix=x=/a/b", None),
            ("-Clink-arg=-Wl,-rpath,/a/b/lib", None),
            ("--cfg=place=\"/a/b\"", None),
        ] {
            let got = with_old_half_marked(argument.as_bytes(), b"/a/b").map(|text| {
                String::from_utf8(text).unwrap().replace(std::str::from_utf8(CHECKOUT_MARK).unwrap(), "<>")
            });
            assert_eq!(got.as_deref(), expect, "{argument}");
        }
    }

    #[test]
    fn what_is_named_by_its_whole_path_ties_a_result_to_its_checkout() {
        let see = |path: &str, fact: Fact| Observation { path: Spelled(path.into()), fact };
        let tied = |observation: &Observation| is_tied_to(b"/a/b", observation, b"/a/b/target");
        let link = || Fact::Kind { follow: false, kind: FileKind::File };
        for (path, expect) in [
            ("src/lib.rs", false),
            ("src/../README.md", false),
            ("../other/src/lib.rs", true),
            ("src/../../lib.rs", true),
            ("/a/b/src/lib.rs", true),
            ("/a/b/target/debug/deps/liba.rlib", false),
            ("/a/bc/lib.rs", false),
            ("/a/x/../b/src/lib.rs", true),
            ("/a/b/target/../lib.rs", true),
            ("/a/b/../lib.rs", false),
            ("/usr/lib/libc.so", false),
        ] {
            assert_eq!(tied(&see(path, Fact::Absent)), expect, "{path}");
        }
        assert!(!tied(&see("/a/b", Fact::Kind { follow: false, kind: FileKind::Directory })));
        assert!(tied(&see("/x", Fact::Symlink { target: Spelled(b"/a/b/x".to_vec()) })));
        // A link that leads out leads each checkout somewhere else.
        let link_to = |target: &[u8]| Fact::Symlink { target: Spelled(target.to_vec()) };
        assert!(
            tied(&see("src/x.rs", link_to(b"../../x.rs"))) && !tied(&see("src/x.rs", link_to(b"../x.rs")))
        );
        // A look at links on the way is one from within.
        let record = |observations: Vec<Observation>| Record {
            identities: vec![crate::record::NO_FILE; observations.len()],
            observations: observations.into_iter().map(Arc::new).collect(),
            environment: None,
            variables: Vec::new(),
            origin: None,
            result: crate::record::RunResult {
                exit: zccache_proto::message::Exit::Code(0),
                stdout: b"".to_vec().into(),
                stderr: b"".to_vec().into(),
                outputs: Vec::new(),
            },
        };
        let seen =
            |observations| seen_from_within(&record(observations), b"/a/b", b"/a/b/target").observations;
        assert_eq!(seen(vec![see("/a/b/src", link())]), [Arc::new(see("src", link()))]);
        let content = see("/a/b/src/lib.rs", Fact::Absent);
        assert_eq!(seen(vec![content.clone()]), [Arc::new(content)]);
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
