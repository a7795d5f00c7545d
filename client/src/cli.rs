//! `zccache-client`: commands for people and scripts. Each says what went wrong and what to do about it.
//!
//! Exit statuses, which scripts rely on (`docs/contract.md`): 0 done, 1 failed, 2 usage, 3 no service runs.

pub mod ask;
pub mod exec;
pub mod service;
pub mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use zccache_proto::endpoint::Endpoint;
use zccache_proto::message::{Reply, Request};

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
    },
    /// Forget everything that is cached
    Clear,
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
        Command::Stats { json, zero } => stats(&endpoint, json, zero),
        Command::Clear => clear(&endpoint),
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
            eprintln!("zccache-client: the service went away without an answer; its log may tell why");
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

fn stats(endpoint: &Endpoint, json: bool, zero: bool) -> Outcome {
    let Reply::Stats(report) = ask(endpoint, &Request::Stats { zero })? else {
        return Err(ask::unexpected());
    };
    if json { print_json(&report) } else { print(&table::stats(&report)) }
}

fn clear(endpoint: &Endpoint) -> Outcome {
    match ask(endpoint, &Request::Clear)? {
        Reply::Cleared { records, blobs } => {
            print(&format!("forgot {records} results, deleted {blobs} files"))
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
