//! `Plan`: what an invocation means to the cache. Made by a pure planner that the service provides.

use std::borrow::Cow;

use zccache_proto::ByteStrings;

use crate::invocation::Invocation;
use crate::observation::Spelled;
use crate::observer::{Observed, Unstorable};
use crate::signature::Signature;

/// Turns invocations into plans. Pure but for reading response files, checking `PWD` and asking whether sources are there:
/// equal invocations give equal plans.
pub trait Planner: Send + Sync {
    /// What this invocation means.
    fn plan(&self, invocation: &Invocation) -> Planned;
}

/// The outcome of planning.
#[derive(Debug, Clone)]
pub enum Planned {
    /// To be looked up, run, stored.
    Cache(Box<Plan>),
    /// Not ours: the client `exec`s the tool.
    PassThrough(PassThrough),
}

/// Why an invocation is not cached. `reason` is what `stats` counts: a short fixed phrase in snake_case,
/// without the user's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassThrough {
    /// For example `unknown_tool`, `preprocess_only`, `query`.
    pub reason: &'static str,
}

/// What the cache needs to know of an invocation that it may serve.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is known of this family of tools.
    pub policy: &'static Policy,
    /// The environment entries (`NAME=value`) that enter the request key, in table order.
    pub key_env: Vec<Vec<u8>>,
    /// What the declared observer needs: how this compile finds its inputs.
    pub declared: DeclaredInputs,
    /// The arguments to run and to key instead of those that were typed, where the user wants others.
    pub argv: Option<ByteStrings>,
    /// Commands (their arguments, `argv[0]` first) that one after another make the same files and say the same, so long
    /// as the tool itself has nothing to say and no options but those that were typed. None, where there is but one thing to be done.
    pub units: Vec<ByteStrings>,
    /// Outputs that the command line names or implies, as spelled (object file, dependency file).
    pub outputs: Vec<Spelled>,
    /// The command asks for standard input to be read to its end: what is there is part of the request.
    pub reads_input: bool,
    /// Time stamps of inputs can enter the result (clang's PCH and modules).
    pub pin_mtimes: bool,
    /// Files whose own time stamps cannot, though those of others can.
    pub timeless: Vec<Spelled>,
    /// Code from elsewhere than the toolchain may take part (plugins, specs, `-B`): what is known of the family's
    /// programs then says nothing.
    pub foreign_code: bool,
    /// How to tell the requester's own places in the command line, if a search of the outputs' bytes shows whether
    /// they enter the result. Without, results are served in the place where they were made alone.
    pub sharing: Option<Sharing>,
    /// The directory that all of a build's results lie below, if results are to be shared with builds that have
    /// another one.
    pub target: Option<Vec<u8>>,
    /// The working directory, if results with a target directory are also to be shared with builds of other checkouts:
    /// the command names what lies there by relative paths, and in options of which it is known what comes of them.
    pub checkout: Option<Checkout>,
    /// `SOURCE_DATE_EPOCH` fixes the time of day, so that only files' own times are left to ask the zone for.
    pub time_is_fixed: bool,
}

/// A directory of sources that may lie elsewhere for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// Its path.
    pub path: Vec<u8>,
    /// A prefix map takes the place of the whole of it, in all that the compiler writes.
    pub is_mapped_away: bool,
}

/// Where a requester's own places stand in a command line.
#[derive(Debug, Clone, Default)]
pub struct Sharing {
    /// Paths in the arguments, in order.
    pub places: Vec<Place>,
    /// Which of `Plan::outputs` is a file of rules for make.
    pub dependency_file: Option<usize>,
}

/// A path in an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The argument's number; 0 is the tool's name.
    pub argument: usize,
    /// Where in it the path begins, in bytes.
    pub offset: usize,
    /// What it is for.
    pub purpose: Purpose,
}

/// What a path in an argument is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It is read, or searched.
    Input,
    /// It is the output with this number in `Plan::outputs`, and names it for make alone if at all.
    Output(usize),
    /// It is the old half of a prefix map, `OLD=NEW`.
    Map {
        /// It changes what `__FILE__` is.
        macros: bool,
        /// It changes debug information.
        debug: bool,
    },
}

/// What the command line says about inputs; used by the declared observer alone.
#[derive(Debug, Clone, Default)]
pub struct DeclaredInputs {
    /// The source file, as spelled.
    pub source: Option<Spelled>,
    /// The dependency file that the command line asks for, if it does.
    pub dependency_file: Option<Spelled>,
    /// Directories searched for headers by `#include "…"` alone, in order (`-iquote`).
    pub quote_dirs: Vec<Spelled>,
    /// Directories searched for headers, in order (`-I`, `-isystem`, `-idirafter`, environment), the
    /// compiler's own not among them.
    pub search_dirs: Vec<Spelled>,
    /// Headers that are read before the source (`-include`, `-imacros`), in order.
    pub forced_includes: Vec<Spelled>,
    /// The arguments, `argv[0]` not among them, with response files replaced by what they hold.
    pub arguments: Vec<Vec<u8>>,
    /// The response files, and what they were when they were read; nothing for one that was not there, and stands for
    /// itself.
    pub argument_files: Vec<(Spelled, Option<Signature>)>,
    /// Why the declared observer cannot vouch for this compile, if it cannot.
    pub unsupported: Option<Cow<'static, str>>,
}

/// What is known of one family of tools. A constant of the service.
#[derive(Debug)]
pub struct Policy {
    /// The family's name; part of the request key.
    pub family: &'static str,
    /// Whether a program, by the base name of its resolved path, is one whose environment reads are in the
    /// family's table. Any other program makes the whole environment an input.
    pub knows_program: fn(&[u8]) -> bool,
    /// Programs of this family read symbolic links only along paths that they also open, execute or ask about, or
    /// that a text which they read names as a header. Watching them need then not watch `readlink`.
    pub reads_links_on_its_way_only: bool,
    /// Programs (by base name) that look for so many files that it is worth the while to observe that from inside.
    pub searches: fn(&[u8]) -> bool,
    /// Paths whose reading does not matter (`/dev/urandom` for seeds, `/proc/meminfo` for heap sizes). One that ends
    /// with a slash stands for all that is below it.
    pub ignored_reads: &'static [&'static str],
    /// Looks through what was observed of a run, if the family has more to say of it than its observations do.
    pub review: Option<Review>,
    /// What may show in the results of this family's tools, beyond what files hold.
    pub caution: Caution,
}

impl Policy {
    /// Whether the reading of `path` does not matter.
    pub fn ignores(&self, path: &[u8]) -> bool {
        self.ignored_reads
            .iter()
            .map(|ignored| ignored.as_bytes())
            .any(|ignored| ignored == path || (ignored.ends_with(b"/") && path.starts_with(ignored)))
    }
}

/// Says what else the result of a run hangs on, and rewrites observations that say more than the family's tools go by.
///
/// # Errors
/// Why the run must not be stored.
pub type Review = fn(&Invocation, &mut Observed, &Printed<'_>) -> Result<Variables, Unstorable>;

/// What a run printed.
#[derive(Debug, Clone, Copy)]
pub struct Printed<'a> {
    /// To standard output (and error, when merged).
    pub stdout: &'a [u8],
    /// To standard error.
    pub stderr: &'a [u8],
}

/// The environment variables that a run was seen to hang on, beyond those in its request's key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Variables {
    /// None.
    #[default]
    None,
    /// Those of these names, sorted.
    Named(Vec<Vec<u8>>),
    /// Any of them, less those that are known to tell nothing.
    Any,
}

/// What may show in a tool's result, beyond what files hold. Nothing of it does for compilers; all of it may for a tool
/// that nobody knows.
#[derive(Debug, Clone, Copy)]
pub struct Caution {
    /// The clock, random numbers and measurements may. If not, they are watched for only where other programs than
    /// the family's may take part.
    pub chance: bool,
    /// Programs (by base name) that may ask for those, since it does not show.
    pub harmless: fn(&[u8]) -> bool,
    /// Programs (by base name) that ask for the time zone when they start, whether or not they tell the time.
    pub asks_zone_idly: fn(&[u8]) -> bool,
    /// If not empty: the run tells the time only if one of these words is in a file that it reads or in an argument.
    pub time_words: &'static [&'static str],
    /// Programs (by base name) whose listings of directories do not matter.
    pub lists_idly: fn(&[u8]) -> bool,
    /// Programs (by base name) that open a file to read only to remove it right after.
    pub opens_to_remove: fn(&[u8]) -> bool,
    /// Files whose writing is the tool's own business, and leaves nothing: locks of its cache.
    pub is_own_lock: fn(&[u8]) -> bool,
    /// What of the metadata of files that are read.
    pub metadata: ShownMetadata,
    /// Whether a file of this base name may hold options, which then are as good as typed.
    pub holds_options: fn(&[u8]) -> bool,
    /// Of files that are read, what was asked of their times and modes counts as well where other programs than the
    /// family's took part.
    pub strangers: bool,
    /// What a program (by base name) does in a run, if only one program of the family does it.
    pub task: fn(&[u8]) -> Option<&[u8]>,
    /// Whether a text that is read, or an argument, can make the times of files show.
    pub tells_times: Option<fn(&[u8]) -> bool>,
    /// What was in the place of an output before: its questions about that are inputs.
    pub old_outputs: bool,
    /// Files may be edited in place: what was in one that is opened for writing and not emptied is an input.
    pub edits: bool,
    /// What a process inherits beside words, environment and streams may: limits, signals, further descriptors.
    pub heritage: bool,
}

/// What of the metadata of a file that is read may show in a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownMetadata {
    /// Nothing at all.
    ContentOnly,
    /// Nothing, save that files with equal content are told apart by their time stamps (`#pragma once`).
    None,
    /// Its permission bits, as with tools that hand them on to their output.
    Mode,
    /// All of it.
    All,
}

impl Caution {
    /// For tools that are known well.
    pub const NONE: Self = Self {
        chance: false,
        harmless: |_| false,
        asks_zone_idly: |_| false,
        time_words: &[],
        lists_idly: |_| false,
        opens_to_remove: |_| false,
        is_own_lock: |_| false,
        metadata: ShownMetadata::None,
        holds_options: |_| false,
        strangers: false,
        task: |_| None,
        tells_times: None,
        old_outputs: false,
        edits: false,
        heritage: false,
    };

    /// For tools of which nothing is known.
    pub const FULL: Self = Self {
        chance: true,
        metadata: ShownMetadata::All,
        old_outputs: true,
        edits: true,
        heritage: true,
        ..Self::NONE
    };
}
