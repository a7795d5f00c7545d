//! The wrapper from start to end: find the tool, ask the service, do as it says, or run the tool.
//!
//! ```text
//! invocation -> tool_search -> request -> start_service -> session -> ends as the tool did
//!                    |            |            |              |
//!                    |            +-> exec     +--------------+-> fallback: runs the tool itself
//!                    +-> 126, 127                             +-> exec (pass-through)
//! ```

use std::ffi::{CStr, CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use zccache_proto::endpoint::Endpoint;
use zccache_proto::frame;
use zccache_proto::handshake::Hello;
use zccache_proto::message::Request;

use crate::fallback;
use crate::invocation::{Invocation, OWN_NAME, base_name};
use crate::output;
use crate::process::{self, Process, inherited};
use crate::request::CompileRequest;
use crate::session::{self, Answer, Progress};
use crate::start_service::{self, Starter};
use crate::tool_search::{self, FileId, Found, SearchError};

/// The exit status of a usage error of our own.
const EXIT_USAGE: i32 = 2;
/// Shells' exit status for a command that is there and cannot be run.
const EXIT_NOT_EXECUTABLE: i32 = 126;
/// Shells' exit status for a command that is not there.
const EXIT_NOT_FOUND: i32 = 127;
/// Room for the two frames of a request without growing: the greeting, and names of fields.
const REQUEST_OVERHEAD_BYTES: usize = 512;

const USAGE: &str = "\
Usage: zccache TOOL ARGUMENTS...
       TOOL ARGUMENTS...            (where TOOL is a symbolic link to zccache)

Runs a compiler through the cache. Whatever cannot be cached runs as it would without.

  ZCCACHE_DISABLE=1    only run the tool
  ZCCACHE_RECACHE=1    run the tool and store the result, whatever is cached
  ZCCACHE_NO_SPAWN=1   do not start a service

See also: zccache-client --help
";

/// A tool as it is to be run.
pub struct Tool<'a> {
    /// Its path.
    pub path: CString,
    /// Its arguments, `argv[0]` first.
    pub argv: Vec<&'a CStr>,
    /// The name to use in messages, as typed.
    pub name: &'a CStr,
}

/// Runs the wrapper. Returns the exit status, if it returns.
pub fn run(process: &Process) -> i32 {
    let begun = Instant::now();
    let (args, linked) = match Invocation::parse(process.args()) {
        Invocation::Help => return say(USAGE, 0),
        Invocation::Nothing => return say(USAGE, EXIT_USAGE),
        Invocation::Version => return say(concat!("zccache ", env!("CARGO_PKG_VERSION"), "\n"), 0),
        // `zccache zccache gcc`: asked for twice, by a launcher variable and a compiler variable, say.
        Invocation::Prefix { args } => (skip_own_name(args), false),
        Invocation::Link { args } => (args, true),
    };
    let Some(&name) = args.first() else { return say(USAGE, EXIT_USAGE) };
    let Found { path, passed_over } = match tool_search::find(name, process.var("PATH"), FileId::own()) {
        Ok(found) => found,
        Err(error) => return not_run(name, error),
    };
    // By the name as typed a compiler would find our link, and look for its parts beside that.
    let argv0 = path.clone();
    let first: &CStr = if linked || passed_over { &argv0 } else { name };
    let argv = [first].into_iter().chain(args[1..].iter().copied()).collect();
    let tool = Tool { path, argv, name };
    if process.switch("ZCCACHE_DISABLE") {
        return exec(process, &tool);
    }
    through_the_service(process, &tool, begun)
}

fn through_the_service(process: &Process, tool: &Tool<'_>, begun: Instant) -> i32 {
    let Some(request) = CompileRequest::collect(process, &tool.path, &tool.argv) else {
        return exec(process, tool);
    };
    let endpoint = Endpoint::resolve(|name| process.var(name).map(|v| OsString::from(OsStr::from_bytes(v))));
    let mut progress = Progress { stdin_offset: request.stdin_offset, ..Progress::default() };
    // A bug of ours must not show either: no message, and the tool runs.
    std::panic::set_hook(Box::new(|_| {}));
    let answer = catch_unwind(AssertUnwindSafe(|| ask(process, &endpoint, request, begun, &mut progress)));
    match answer.unwrap_or(Answer::Failed) {
        Answer::PassThrough => exec(process, tool),
        Answer::Ended(ended) => process::end_as(ended),
        Answer::NobodyThere | Answer::Failed => fallback::run(process, tool, &endpoint, &progress),
    }
}

fn ask(
    process: &Process,
    endpoint: &Endpoint,
    request: CompileRequest,
    begun: Instant,
    progress: &mut Progress,
) -> Answer {
    let descriptors = request.descriptors();
    progress.merged = request.compile.stdio.merged;
    let mut compile = request.compile;
    compile.patient_until_ns = start_service::patient_until_ns(begun);
    let size = compile.env.as_block().len() + compile.argv.as_block().len() + compile.cwd.len();
    let mut frames = Vec::with_capacity(size + REQUEST_OVERHEAD_BYTES);
    let encoded = frame::encode_into(&Hello::ours(), &mut frames)
        .and_then(|()| frame::encode_into(&Request::Compile(Box::new(compile)), &mut frames));
    if encoded.is_err() {
        // Too long for a frame.
        return Answer::PassThrough;
    }
    let mut starter = Starter::new(process, endpoint, begun);
    while let Some(mut connection) = starter.connect() {
        match session::talk(&mut connection, &frames, &descriptors, progress) {
            // As if there were none; the next attempt comes after a pause.
            Answer::NobodyThere => {}
            answer => return answer,
        }
    }
    Answer::Failed
}

/// Becomes the tool. Returns the exit status, as a shell's, if that cannot be.
pub fn exec(process: &Process, tool: &Tool<'_>) -> i32 {
    let error = process.exec(&tool.path, &tool.argv);
    let name = tool.name.to_bytes();
    match error.kind() {
        io::ErrorKind::NotFound => complain(name, "No such file or directory", EXIT_NOT_FOUND),
        io::ErrorKind::PermissionDenied => complain(name, "Permission denied", EXIT_NOT_EXECUTABLE),
        _ => complain(name, &error.to_string(), EXIT_NOT_EXECUTABLE),
    }
}

fn not_run(name: &CStr, error: SearchError) -> i32 {
    match error {
        SearchError::NotFound => complain(base_or_all(name), "command not found", EXIT_NOT_FOUND),
        SearchError::NotExecutable => complain(base_or_all(name), "Permission denied", EXIT_NOT_EXECUTABLE),
    }
}

/// The tool's name for a message: our own link's path would be beside the point.
fn base_or_all(name: &CStr) -> &[u8] {
    base_name(name.to_bytes())
}

fn skip_own_name<'a>(args: &'a [&'static CStr]) -> &'a [&'static CStr] {
    let own = args.iter().take_while(|a| base_name(a.to_bytes()) == OWN_NAME).count();
    &args[own..]
}

fn say(text: &str, status: i32) -> i32 {
    match output::write_all(inherited(1), text.as_bytes(), &mut 0) {
        Ok(()) => status,
        Err(_) => 1,
    }
}

fn complain(name: &[u8], what: &str, status: i32) -> i32 {
    let line = [b"zccache: ", name, b": ", what.as_bytes(), b"\n"].concat();
    let _ = output::write_all(inherited(2), &line, &mut 0);
    status
}
