//! From an invocation of a C family compiler to its plan.

use std::ffi::OsStr;
use zccache_actors::sys::OsStrExt;

use zccache_actors::invocation::Invocation;
use zccache_actors::observation::Spelled;
use zccache_actors::plan::{Caution, PassThrough, Plan, Planned, Policy};

use super::command_line::CommandLine;
use super::judgement::Judged;
use super::names::{self, Compiler};
use super::times::TELLS_TIMES;
use super::{declared, environment, judgement, link, native_cpu, outputs, response_files, sharing, units};
use crate::any_tool::known;

/// Reads that say nothing of the result: random numbers for names that must be unique, and clang asking where its
/// own program lies and by which path it opened a file (`readlink` of its own descriptors).
const IGNORED_READS: &[&str] = &["/dev/null", "/dev/urandom", "/proc/self/exe", "/proc/self/fd"];

/// What runs the parts of a link-time optimisation side by side, in an order that does not show.
const MAKES: &[&[u8]] = &[b"make", b"gmake"];

/// gcc's policy. Its driver reads the links of the programs that it executes, and its preprocessor those of the
/// headers that it opens or looks for, by `realpath` (libiberty's `lrealpath`, libcpp's `maybe_shorter_path`).
pub static GCC: Policy = Policy {
    family: "gcc",
    knows_program: names::is_gcc_program,
    reads_links_on_its_way_only: true,
    searches: names::searches,
    ignored_reads: IGNORED_READS,
    review: None,
    caution: Caution {
        harmless: names::is_gcc_program,
        tells_times: TELLS_TIMES,
        // GCC's manual, "Specifying Subprocesses and the Switches to Pass to Them": the one that it looks for unasked.
        holds_options: |name| name == b"specs",
        strangers: true,
        task: names::task,
        ..Caution::NONE
    },
};

/// clang's policy. It reads few links, so there is nothing to gain from knowing which.
pub static CLANG: Policy = Policy {
    family: "clang",
    knows_program: names::is_clang_program,
    reads_links_on_its_way_only: false,
    searches: names::searches,
    ignored_reads: IGNORED_READS,
    review: None,
    caution: Caution {
        harmless: names::is_clang_program,
        tells_times: TELLS_TIMES,
        // Clang's user manual, "Configuration files": those that it looks for unasked are all called so.
        holds_options: |name| name.ends_with(b".cfg"),
        strangers: true,
        task: names::task,
        ..Caution::NONE
    },
};

/// gcc's policy for links. The linkers ask how many processors and how much memory there are.
pub static GCC_LINK: Policy = Policy {
    family: "gcc",
    knows_program: names::is_gcc_program,
    reads_links_on_its_way_only: false,
    searches: names::searches,
    ignored_reads: known::IGNORED_READS,
    review: None,
    caution: Caution {
        harmless: |name| names::is_gcc_program(name) || MAKES.contains(&name),
        edits: true,
        tells_times: TELLS_TIMES,
        opens_to_remove: known::is_lld,
        holds_options: |name| name == b"specs",
        strangers: true,
        task: names::task,
        // It keeps the names in each directory that it looks for a file in.
        lists_idly: |name| MAKES.contains(&name),
        ..Caution::NONE
    },
};

/// clang's policy for links.
pub static CLANG_LINK: Policy = Policy {
    family: "clang",
    knows_program: names::is_clang_program,
    reads_links_on_its_way_only: false,
    searches: names::searches,
    ignored_reads: known::IGNORED_READS,
    review: None,
    caution: Caution {
        harmless: names::is_clang_program,
        edits: true,
        tells_times: TELLS_TIMES,
        opens_to_remove: known::is_lld,
        holds_options: |name| name.ends_with(b".cfg"),
        strangers: true,
        task: names::task,
        ..Caution::NONE
    },
};

/// What an invocation of this compiler means.
pub fn plan(invocation: &Invocation, compiler: Compiler) -> Planned {
    match try_plan(invocation, compiler) {
        Ok(plan) => Planned::Cache(Box::new(plan)),
        Err(reason) => Planned::PassThrough(PassThrough { reason }),
    }
}

fn try_plan(invocation: &Invocation, compiler: Compiler) -> Result<Plan, &'static str> {
    let cwd = invocation.cwd_path();
    let expanded =
        response_files::expand(invocation.argv.iter().skip(1), cwd).map_err(|_| "response_file")?;
    let arguments = &expanded.arguments[..];
    let line = CommandLine::parse(arguments, compiler);
    let words = std::iter::once(&invocation.tool[..]).chain(arguments.iter().map(Vec::as_slice));
    let judged = judgement::judge(&line, words)?;
    if let Some(reason) = environment::refusal(&invocation.env, compiler) {
        return Err(reason);
    }
    let asks_processor = line.asks_processor || invocation.env.value_of(b"CCC_OVERRIDE_OPTIONS").is_some();
    if asks_processor && native_cpu::key_entry().is_empty() {
        return Err("unknown_processor");
    }
    let (declared, outputs, sharing) = match judged {
        Judged::Compile(source) => {
            let outputs = outputs::outputs(&line, source);
            let sharing = match line.makes_memory() {
                // It holds paths in whatever form.
                true => None,
                false => sharing::sharing(invocation, arguments, &line, &outputs),
            };
            let dependencies = outputs.dependencies.as_deref();
            let declared = declared::declared(&line, source, dependencies, &invocation.env, &expanded);
            (declared, outputs.main.into_iter().chain(outputs.dependencies).collect(), sharing)
        }
        Judged::CompileEach => {
            let each = line.sources.iter().map(|source| outputs::outputs(&line, source));
            let outputs = each.flat_map(|outputs| outputs.main.into_iter().chain(outputs.dependencies));
            (declared::undeclared("several sources"), outputs.collect(), None)
        }
        Judged::Link => (declared::undeclared("a link"), vec![link::output(&line)], None),
    };
    let units = match judged {
        Judged::CompileEach => units::units(invocation, arguments, &line),
        Judged::Compile(_) | Judged::Link => Vec::new(),
    };
    Ok(Plan {
        policy: policy(compiler, judged),
        key_env: key_env(invocation, &line, asks_processor),
        declared,
        argv: None,
        units,
        outputs: outputs.into_iter().map(Spelled).collect(),
        reads_input: line.sources.iter().any(|source| source.path == b"-"),
        pin_mtimes: pins_mtimes(invocation, &line),
        timeless: timeless(&line),
        foreign_code: judged == Judged::Link || may_run_foreign_code(invocation, &line),
        sharing,
        target: None,
        checkout: None,
        time_is_fixed: is_time_fixed(invocation, compiler),
    })
}

/// Whether code from elsewhere may take part: a plugin, another assembler, whatever specs or an option that we do
/// not see through bring in. (What is not declared is more than that; in doubt it is foreign.)
fn may_run_foreign_code(invocation: &Invocation, line: &CommandLine) -> bool {
    line.reads_any_variable || line.undeclared.is_some() || environment::undeclared(&invocation.env).is_some()
}

fn policy(compiler: Compiler, judged: Judged<'_>) -> &'static Policy {
    match (compiler, judged) {
        (Compiler::Gcc, Judged::Compile(_) | Judged::CompileEach) => &GCC,
        (Compiler::Gcc, Judged::Link) => &GCC_LINK,
        (Compiler::Clang, Judged::Compile(_) | Judged::CompileEach) => &CLANG,
        (Compiler::Clang, Judged::Link) => &CLANG_LINK,
    }
}

fn key_env(invocation: &Invocation, line: &CommandLine, asks_processor: bool) -> Vec<Vec<u8>> {
    let cwd = invocation.cwd_path();
    let reads_any = line.reads_any_variable || environment::brings_code(&invocation.env, line.compiler);
    let mut entries = environment::key_entries(&invocation.env, cwd, line.compiler, reads_any);
    if asks_processor {
        entries.push(native_cpu::key_entry().to_vec());
    }
    entries
}

/// gcc takes the time from `SOURCE_DATE_EPOCH`. clang does so since version 16, which the name does not tell, and
/// an older one that is believed to would freeze its `__DATE__`.
fn is_time_fixed(invocation: &Invocation, compiler: Compiler) -> bool {
    compiler == Compiler::Gcc && invocation.env.value_of(b"SOURCE_DATE_EPOCH").is_some()
}

/// clang writes time stamps into precompiled headers and modules, compares them with those of the headers, and takes a
/// precompiled one for `-include` unasked.
fn pins_mtimes(invocation: &Invocation, line: &CommandLine) -> bool {
    let has_precompiled = |header: &Vec<u8>| {
        let is_there = |name: &Vec<u8>| {
            std::fs::symlink_metadata(invocation.cwd_path().join(OsStr::from_bytes(name))).is_ok()
        };
        precompiled(header).iter().any(is_there)
    };
    line.uses_mtimes
        || (line.compiler == Compiler::Clang
            && (line.makes_memory() || line.forced_includes.iter().any(has_precompiled)))
}

/// The precompiled headers that clang takes instead of this one.
fn precompiled(header: &[u8]) -> [Vec<u8>; 2] {
    [&b".pch"[..], b".gch"].map(|extension| [header, extension].concat())
}

/// Precompiled headers of which only the content counts: it names the times of the headers that it was made of, and
/// nothing names its own, unless another such file is made of it. So one that was served serves as well as one made.
fn timeless(line: &CommandLine) -> Vec<Spelled> {
    if line.makes_memory() {
        return Vec::new();
    }
    let unasked = line.forced_includes.iter().flat_map(|header| precompiled(header));
    line.precompiled_headers.iter().cloned().chain(unasked).map(Spelled).collect()
}
