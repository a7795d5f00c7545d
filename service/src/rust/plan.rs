//! From an invocation of rustc to its plan.

use std::borrow::Cow;

use zccache_actors::invocation::Invocation;
use zccache_actors::observation::Spelled;
use zccache_actors::plan::{Caution, DeclaredInputs, PassThrough, Plan, Planned, Policy, ShownMetadata};

use super::command_line::{CommandLine, without_incremental};
use super::names::{self, Driver};
use super::{argument_files, checkout, environment, judgement, review, target_dir};

/// Reads that say nothing of the result: seeds, what the allocator and the threads ask of the kernel (how many
/// processors may be used decides how work is split over threads, not what comes of it), clang and lld looking for
/// themselves.
const IGNORED_READS: &[&str] = &[
    "/dev/null",
    "/dev/urandom",
    "/proc/cpuinfo",
    "/proc/self/cgroup",
    "/proc/self/exe",
    "/proc/self/fd",
    "/proc/self/maps",
    "/proc/self/mountinfo",
    "/proc/self/statm",
    "/proc/stat",
    "/proc/sys/vm/overcommit_memory",
    "/sys/devices/system/cpu/",
    "/sys/fs/cgroup/",
    "/sys/kernel/mm/transparent_hugepage/",
];

/// What is known of rustc.
pub static RUST: Policy = Policy {
    family: "rust",
    knows_program: names::is_rust_program,
    reads_links_on_its_way_only: false,
    searches: |_| false,
    ignored_reads: IGNORED_READS,
    review: Some(review::review),
    // Macros and stand-ins for the linker run programs of the user's.
    caution: Caution {
        chance: true,
        harmless: names::is_rust_program,
        metadata: ShownMetadata::ContentOnly,
        ..Caution::NONE
    },
};

/// What an invocation of this compiler means. With `strip_incremental`, incremental compiles are run as others.
pub fn plan(invocation: &Invocation, driver: Driver, strip_incremental: bool) -> Planned {
    match try_plan(invocation, driver, strip_incremental) {
        Ok(plan) => Planned::Cache(Box::new(plan)),
        Err(reason) => Planned::PassThrough(PassThrough { reason }),
    }
}

fn try_plan(invocation: &Invocation, driver: Driver, strip_incremental: bool) -> Result<Plan, &'static str> {
    let mut argv = None;
    if strip_incremental {
        let (kept, stripped) = without_incremental(invocation.argv.iter());
        argv = stripped.then(|| kept.into_iter().collect());
    }
    let line = command_line(argv.as_ref().unwrap_or(&invocation.argv), invocation.cwd_path())?;
    judgement::judge(&line)?;
    let target = target_dir::target_dir(&line);
    let checkout = checkout::checkout(&line, &invocation.argv, invocation.cwd_path(), target.as_deref());
    Ok(Plan {
        policy: &RUST,
        key_env: environment::key_entries(&invocation.env, driver),
        declared: DeclaredInputs {
            unsupported: Some(Cow::Borrowed("rustc does not declare all that it reads")),
            ..DeclaredInputs::default()
        },
        argv,
        outputs: outputs(&line),
        pin_mtimes: false,
        timeless: Vec::new(),
        foreign_code: false,
        time_is_fixed: false,
        sharing: None,
        reads_input: false,
        target,
        units: Vec::new(),
        checkout,
    })
}

/// Reads the command line of an invocation of a Rust compiler: all but the tool's name, rustup's `+toolchain`, and, for `clippy-driver`, the
/// `rustc` that Cargo puts after it.
///
/// # Errors
/// `response_file` if an argument file cannot be read.
pub fn command_line(
    argv: &zccache_proto::ByteStrings,
    cwd: &std::path::Path,
) -> Result<CommandLine, &'static str> {
    let mut arguments = argv.iter();
    let name = crate::c_family::language::base_name(arguments.next().unwrap_or_default());
    let mut arguments = arguments.peekable();
    // Which toolchain rustup's stand-in is to run.
    arguments.next_if(|next| next.starts_with(b"+"));
    if names::driver_named(name) == Some(Driver::Clippy) {
        let is_rustc = |next: &&[u8]| stem(crate::c_family::language::base_name(next)) == b"rustc";
        arguments.next_if(is_rustc);
    }
    Ok(CommandLine::parse(&argument_files::expand(arguments, cwd)?))
}

fn stem(name: &[u8]) -> &[u8] {
    name.iter().rposition(|&b| b == b'.').map_or(name, |dot| &name[..dot])
}

/// The outputs that the command line names or implies, as far as can be told: what a failing compile may have left.
fn outputs(line: &CommandLine) -> Vec<Spelled> {
    if let Some(output) = &line.output {
        return vec![Spelled(output.clone())];
    }
    let (Some(name), Some(directory)) = (&line.crate_name, &line.out_dir) else { return Vec::new() };
    let stem = [name.as_slice(), &line.extra_filename].concat();
    let output = |(prefix, suffix): (&str, &str)| {
        let file = [prefix.as_bytes(), &stem, suffix.as_bytes()].concat();
        Spelled([directory.as_slice(), b"/", &file].concat())
    };
    [("lib", ".rmeta"), ("lib", ".rlib"), ("lib", ".so"), ("", "")].map(output).to_vec()
}
