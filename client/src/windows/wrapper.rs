//! The wrapper from start to end, on Windows: the twin of `wrapper.rs`.
//!
//! ```text
//! invocation -> tool_search -> request -> start_service -> session -> ends as the tool did
//!                    |            |            |              |
//!                    |            +------------+--------------+-> runs the tool itself
//!                    +-> 127
//! ```

use std::ffi::{OsStr, OsString};
use std::os::windows::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use zccache_proto::endpoint::Endpoint;
use zccache_proto::frame;
use zccache_proto::handshake::Hello;
use zccache_proto::message::Request;

use crate::session::{self, Answer, Progress};
use crate::start_service::Starter;
use crate::tool_search::{OWN_NAME, Search, base_name};
use crate::{command_line, fallback, output, process, request};

/// The exit status of a usage error of our own.
const EXIT_USAGE: i32 = 2;
/// Shells' exit status for a command that is there and cannot be run.
const EXIT_NOT_EXECUTABLE: i32 = 126;
/// Shells' exit status for a command that is not there.
const EXIT_NOT_FOUND: i32 = 127;

const USAGE: &str = "\
Usage: zccache TOOL ARGUMENTS...
       TOOL ARGUMENTS...            (where TOOL.exe is a link to zccache.exe, or a copy of it)

Runs a compiler through the cache. Whatever cannot be cached runs as it would without.

  ZCCACHE_DISABLE=1    only run the tool
  ZCCACHE_NO_SPAWN=1   do not start a service

See also: zccache-client --help
";

/// A tool as it is to be run.
struct Tool {
    path: PathBuf,
    /// Its arguments, its name first.
    argv: Vec<OsString>,
    /// How many arguments of our own command line come before its own, our name not counted.
    skipped: usize,
}

/// Runs the wrapper. Returns the exit status.
pub fn run() -> i32 {
    let begun = Instant::now();
    let args: Vec<OsString> = std::env::args_os().collect();
    let Some(own) = args.first() else { return say(USAGE, EXIT_USAGE) };
    let skipped = match base_name(own).eq_ignore_ascii_case(OWN_NAME) {
        // `zccache zccache gcc`: asked for twice, by a launcher variable and a compiler variable, say.
        true => args.iter().take_while(|name| base_name(name).eq_ignore_ascii_case(OWN_NAME)).count(),
        false => 0,
    };
    let Some(name) = args.get(skipped) else { return say(USAGE, EXIT_USAGE) };
    match (skipped, args.len(), name.to_str()) {
        (1, 2, Some("--help" | "-h")) => return say(USAGE, 0),
        (1, 2, Some("--version" | "-V")) => {
            return say(concat!("zccache ", env!("CARGO_PKG_VERSION"), "\n"), 0);
        }
        _ => {}
    }
    let (path, extensions) = (std::env::var_os("PATH").unwrap_or_default(), std::env::var_os("PATHEXT"));
    let own = std::env::current_exe().ok();
    let search = Search { path: &path, extensions: extensions.as_deref(), own: own.as_deref() };
    let Ok(path) = search.find(name) else {
        return complain(name, "command not found", EXIT_NOT_FOUND);
    };
    let tool = Tool { path, argv: args[skipped..].to_vec(), skipped };
    if is_on("ZCCACHE_DISABLE") {
        return run_tool(&tool);
    }
    through_the_service(&tool, begun)
}

/// Whether the switch `name` is set: to anything but nothing and `0`.
pub fn is_on(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0")
}

fn through_the_service(tool: &Tool, begun: Instant) -> i32 {
    let endpoint = Endpoint::resolve(|name| std::env::var_os(name));
    // A bug of ours must not show: no message, and the tool runs.
    std::panic::set_hook(Box::new(|_| {}));
    let mut progress = Progress::default();
    let answer =
        catch_unwind(AssertUnwindSafe(|| ask(&endpoint, &tool.path, &tool.argv, begun, &mut progress)));
    match answer.unwrap_or(Answer::Failed) {
        Answer::PassThrough => run_tool(tool),
        Answer::Ended(ended) => process::end_as(ended),
        Answer::NobodyThere | Answer::Failed => {
            ended_as(tool, fallback::run(&mut command(tool), &endpoint, &progress))
        }
    }
}

fn ask(
    endpoint: &Endpoint,
    tool: &Path,
    argv: &[OsString],
    begun: Instant,
    progress: &mut Progress,
) -> Answer {
    let Some(compile) = request::collect(tool, argv) else { return Answer::PassThrough };
    let mut frames = Vec::new();
    let encoded = frame::encode_into(&Hello::ours(), &mut frames)
        .and_then(|()| frame::encode_into(&Request::Compile(Box::new(compile)), &mut frames));
    if encoded.is_err() {
        // Too long for a frame.
        return Answer::PassThrough;
    }
    let mut starter = Starter::new(endpoint, begun);
    while let Some(mut connection) = starter.connect() {
        match session::talk(&mut connection, &frames, &[], progress) {
            // As if there were none; the next attempt comes after a pause.
            Answer::NobodyThere => {}
            answer => return answer,
        }
    }
    Answer::Failed
}

/// Runs the tool. Returns its exit status.
fn run_tool(tool: &Tool) -> i32 {
    ended_as(tool, process::run(&mut command(tool)))
}

/// The tool with what was typed behind its name, to the letter, and called as it was typed: with its extension or without.
fn command(tool: &Tool) -> Command {
    let line = process::command_line();
    let mut command = Command::new(called(tool));
    let rest = command_line::rest(&line, tool.skipped);
    if !rest.is_empty() {
        command.raw_arg(process::text(rest));
    }
    command
}

/// The tool's path as it is started: it learns its name from that, and puts it before what it says.
fn called(tool: &Tool) -> PathBuf {
    let typed = tool.argv.first().map(PathBuf::from).unwrap_or_default();
    let is = |a: Option<&OsStr>, b: Option<&OsStr>| a.zip(b).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b));
    let is_program = is(tool.path.extension(), Some(OsStr::new("exe")));
    match typed.file_name() {
        Some(name) if is(tool.path.file_name(), Some(name)) => tool.path.with_file_name(name),
        Some(name) if is_program && is(tool.path.file_stem(), Some(name)) => tool.path.with_file_name(name),
        _ => tool.path.clone(),
    }
}

fn ended_as(tool: &Tool, ended: std::io::Result<process::Ended>) -> i32 {
    match ended {
        Ok(ended) => process::end_as(ended),
        Err(e) => complain(tool.path.as_os_str(), &e.to_string(), EXIT_NOT_EXECUTABLE),
    }
}

fn say(text: &str, status: i32) -> i32 {
    match output::write_all(process::inherited(1), text.as_bytes(), &mut 0) {
        Ok(()) => status,
        Err(_) => 1,
    }
}

fn complain(name: &OsStr, what: &str, status: i32) -> i32 {
    let line = format!("zccache: {}: {what}\n", base_name(name));
    let _ = output::write_all(process::inherited(2), line.as_bytes(), &mut 0);
    status
}
