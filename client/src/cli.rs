//! `zccache-client`: commands for people and scripts. Each says what went wrong and what to do about it.
//!
//! Exit statuses, which scripts rely on (`docs/contract.md`): 0 done, 1 failed, 2 usage, 3 no service runs.

pub mod ask;
pub mod exec;
#[cfg_attr(unix, path = "cli/program_unix.rs")]
#[cfg_attr(windows, path = "cli/program_windows.rs")]
mod program;
pub mod service;
pub mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use serde_bytes::ByteBuf;
use zccache_proto::endpoint::Endpoint;
use zccache_proto::message::{Evict, Reply, Request};

use ask::ask;

/// The state in which a service takes work (`StatusReport::state`).
const SERVING: &str = "serving";

/// How a command ended, if not well.
#[derive(Debug)]
pub enum Failure {
    /// No service runs.
    NotRunning,
    /// The service closed the connection in place of an answer.
    Gone,
    /// Anything else.
    Other(anyhow::Error),
    /// Already told by a program that we ran; its status.
    Told(u8),
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// What a command comes to.
pub type Outcome = Result<(), Failure>;

#[derive(Parser)]
#[command(name = "zccache-client", version, about = "Looks after zccache's service and its cache", long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the service, and return when it answers
    Start,
    /// Let the service finish what runs and exit, and return when it is gone
    Stop,
    /// How the service is (exit status 3: none runs)
    Status {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Hits, misses and sizes
    Stats {
        /// As one JSON object
        #[arg(long)]
        json: bool,
        /// Set all counters to zero after showing them
        #[arg(long)]
        zero: bool,
        /// Where the time of hits went, phase by phase (`--json` tells always)
        #[arg(long)]
        timing: bool,
    },
    /// Forget everything that is cached
    Clear,
    /// Forget results that have not been used for a while, or that belong to a project
    #[command(group(clap::ArgGroup::new("which").required(true).multiple(true).args(["older_than", "root"])))]
    Evict {
        /// Results not used for so long, such as 30d or 12h
        #[arg(long, value_name = "AGE", value_parser = zccache_proto::age::parse)]
        older_than: Option<Duration>,
        /// Results made in this directory or below it, or with outputs there
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
    },
    /// Look through everything that is cached, put right what is not, and enforce the limits
    Gc,
    /// Run a tool through the cache, with more inputs and outputs than those that are observed
    Exec(exec::Exec),
    /// Every option's value, and where it comes from
    Config {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command line.
pub fn main() -> ExitCode {
    let endpoint = Endpoint::resolve(|name| std::env::var_os(name));
    let outcome = match Cli::parse().command {
        Command::Start => service::start(&endpoint),
        Command::Stop => service::stop(&endpoint),
        Command::Status { json } => status(&endpoint, json),
        Command::Stats { json, zero, timing } => stats(&endpoint, json, zero, timing),
        Command::Clear => clear(&endpoint),
        Command::Evict { older_than, root } => evict(&endpoint, older_than, root.as_deref()),
        Command::Gc => forget(&endpoint, &Request::Gc),
        Command::Config { json } => service::config(json),
        Command::Exec(run) => exec::exec(run),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::NotRunning) => {
            eprintln!(
                "zccache-client: no service is running at {}; `zccache-client start` starts one",
                endpoint.socket().display()
            );
            ExitCode::from(3)
        }
        Err(Failure::Gone) => {
            eprintln!(
                "zccache-client: the service went away without an answer: its log may tell why, or it is older than this program"
            );
            ExitCode::FAILURE
        }
        Err(Failure::Other(error)) => {
            eprintln!("zccache-client: {error:#}");
            ExitCode::FAILURE
        }
        Err(Failure::Told(status)) => ExitCode::from(status),
    }
}

fn status(endpoint: &Endpoint, json: bool) -> Outcome {
    let Reply::Status(report) = ask(endpoint, &Request::Status)? else { return Err(ask::unexpected()) };
    if json {
        print_json(&report)?
    } else {
        print(&table::status(&report, endpoint))?
    }
    // For scripts that wait for a service to serve.
    if report.state == SERVING { Ok(()) } else { Err(Failure::Told(1)) }
}

fn stats(endpoint: &Endpoint, json: bool, zero: bool, timing: bool) -> Outcome {
    let Reply::Stats(report) = ask(endpoint, &Request::Stats { zero })? else {
        return Err(ask::unexpected());
    };
    match (json, timing) {
        (true, _) => print_json(&report),
        (false, true) => print(&table::timing(&report)),
        (false, false) => print(&table::stats(&report)),
    }
}

fn clear(endpoint: &Endpoint) -> Outcome {
    match ask(endpoint, &Request::Clear)? {
        Reply::Cleared { records, blobs } => {
            print(&format!("forgot {records} results, deleted {blobs} files"))
        }
        _ => Err(ask::unexpected()),
    }
}

fn evict(endpoint: &Endpoint, older_than: Option<Duration>, root: Option<&Path>) -> Outcome {
    let roots = match root {
        Some(root) => spellings(root).with_context(|| format!("--root {}", root.display()))?,
        None => Vec::new(),
    };
    let which = Evict { older_than_s: older_than.map(|age| age.as_secs()), roots };
    forget(endpoint, &Request::Evict(which))
}

/// A directory as it was typed, made absolute, and as it really is, if it is there still: builds may have called it
/// either.
fn spellings(directory: &Path) -> std::io::Result<Vec<ByteBuf>> {
    let typed = std::path::absolute(directory)?;
    let real = std::fs::canonicalize(directory).ok().filter(|real| *real != typed);
    // `absolute` leaves a slash at the end, and dots within.
    let bytes = |path: PathBuf| {
        ByteBuf::from(path.components().collect::<PathBuf>().into_os_string().into_encoded_bytes())
    };
    Ok([Some(typed), real].into_iter().flatten().map(bytes).collect())
}

fn forget(endpoint: &Endpoint, request: &Request) -> Outcome {
    match ask(endpoint, request)? {
        Reply::Evicted { records, blobs, bytes } => {
            print(&format!("forgot {records} results, deleted {blobs} files ({})", table::size(bytes)))
        }
        _ => Err(ask::unexpected()),
    }
}

fn print_json(report: &impl serde::Serialize) -> Outcome {
    print(&serde_json::to_string_pretty(report)?)
}

/// Prints a line. A reader who has gone (`| head`) is no failure.
fn print(text: &str) -> Outcome {
    use std::io::Write;
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}
