//! From an invocation of any tool to its plan.

use std::borrow::Cow;
use std::ffi::OsStr;
use zccache_actors::sys::OsStrExt;

use zccache_actors::invocation::Invocation;
use zccache_actors::plan::{Caution, DeclaredInputs, PassThrough, Plan, Planned, Policy};
use zccache_proto::message::StreamKind;

use super::known::Known;
use super::{archive, known, never, surroundings};
use crate::c_family::language::base_name;
use crate::c_family::response_files;
use crate::planner::Resolved;

/// What the kernel tells in files without time stamps, that any program's libraries may ask for. Their contents enter
/// the key instead.
const KERNEL_FACTS: &[&str] = &[
    "/proc/filesystems",
    "/proc/sys/kernel/ngroups_max",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu/online",
];

/// Of tools that are not listed, nothing is known.
static UNKNOWN: Policy = Policy {
    family: "unknown",
    knows_program: |_| false,
    reads_links_on_its_way_only: false,
    searches: |_| false,
    ignored_reads: KERNEL_FACTS,
    review: None,
    caution: Caution::FULL,
};

/// What an invocation means of a tool that leads to the file `real`.
pub fn plan(invocation: &Invocation, real: Option<&Resolved>) -> Planned {
    match try_plan(invocation, real) {
        Ok(plan) => Planned::Cache(Box::new(plan)),
        Err(reason) => Planned::PassThrough(PassThrough { reason }),
    }
}

fn try_plan(invocation: &Invocation, real: Option<&Resolved>) -> Result<Plan, &'static str> {
    // What is not there passes through, for the wrapper to say so.
    let real = real.ok_or("unknown_tool")?;
    let called = base_name(invocation.argv.iter().next().unwrap_or_default());
    if let Some(reason) = never::reason(called).or_else(|| never::reason(base_name(&real.path))) {
        return Err(reason);
    }
    let known = known(invocation, called, real);
    if known.is_some_and(|known| known.is_archiver()) && !archive::is_repeatable(invocation, called, real) {
        return Err("archive_metadata");
    }
    let policy = known.map_or(&UNKNOWN, |known| known.policy);
    let stdio = &invocation.stdio;
    if known.is_none() && is_terminal(stdio.stdin) && is_terminal(stdio.stdout) {
        return Err("interactive");
    }
    let mut key_env = world(policy);
    if known.is_none() {
        // Tools ask what it is to decide what to read.
        key_env.push(format!("=stdin={:?}", stdio.stdin).into_bytes());
    }
    let unsupported = Some(Cow::Borrowed("a tool of no compiler family"));
    Ok(Plan {
        policy,
        key_env,
        declared: DeclaredInputs { unsupported, ..DeclaredInputs::default() },
        outputs: Vec::new(),
        reads_input: reads_input(invocation),
        pin_mtimes: false,
        timeless: Vec::new(),
        foreign_code: false,
        sharing: None,
        argv: None,
        target: None,
        units: Vec::new(),
        checkout: None,
        time_is_fixed: false,
    })
}

/// What is known of the tool: by what it is called, since some programs go by several names (llvm-objcopy as strip),
/// if what that leads to goes by one of them as well, and is no script that anybody could have written.
fn known(invocation: &Invocation, called: &[u8], real: &Resolved) -> Option<&'static Known> {
    let expanded = response_files::expand(invocation.argv.iter().skip(1), invocation.cwd_path()).ok()?;
    let mut arguments = expanded.arguments;
    // What a variable has the linker make is as good as typed.
    arguments.extend(invocation.env.value_of(b"LDEMULATION").map(<[u8]>::to_vec));
    let known = known::find(called, &arguments)?;
    let is_installed = known.are_scripts && real.path.windows(12).any(|w| w == b"/emscripten/");
    if known.edits_archives() && !archive::copies_without_times(real) {
        return None;
    }
    let programs = known.policy.caution.harmless;
    (is_installed || (real.is_program && programs(base_name(&real.path)))).then_some(known)
}

/// Whether standard input is to be known beforehand, as part of the request. A file can be looked at for nothing: it is,
/// unless some argument names a file, which then is what the tool works on. A pipe's writers would be waited for:
/// it is only where the command says so.
fn reads_input(invocation: &Invocation) -> bool {
    let mut arguments = invocation.argv.iter().skip(1);
    let names_file = |argument: &[u8]| {
        std::fs::symlink_metadata(invocation.cwd_path().join(OsStr::from_bytes(argument))).is_ok()
    };
    match invocation.stdio.stdin {
        StreamKind::File => !arguments.any(names_file),
        StreamKind::Pipe => arguments.any(|argument| argument == b"-"),
        _ => false,
    }
}

fn is_terminal(kind: StreamKind) -> bool {
    matches!(kind, StreamKind::Terminal { .. })
}

/// What a tool can ask the kernel without a path: who runs it and where. Written like variables, with names that none
/// can have.
fn world(policy: &Policy) -> Vec<Vec<u8>> {
    let entry = |name: &str, value: &[u8]| [format!("={name}=").as_bytes(), value].concat();
    let mut entries: Vec<Vec<u8>> =
        surroundings::known().into_iter().map(|(name, value)| entry(name, &value)).collect();
    if policy.ignored_reads == KERNEL_FACTS {
        let facts = KERNEL_FACTS.iter().map(|path| entry(path, &std::fs::read(path).unwrap_or_default()));
        entries.extend(facts);
    }
    entries
}
