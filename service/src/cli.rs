//! The service's own command line, and the order in which it comes up.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use zccache_proto::endpoint::Endpoint;

use crate::config::{Config, ConfigError, Shown};
use crate::service_lock::{AlreadyRunning, ServiceLock};
use crate::{daemon, logging, system};

/// The service of zccache, a compiler cache. Wrappers start it when they need it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Go on in the background, detached from the terminal and the caller
    #[arg(long)]
    daemon: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Show every option with its value and where that comes from
    Config {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

/// Exit statuses besides 0 (documented in `docs/contract.md`).
mod exit {
    /// Something failed; the message says what.
    pub const FAILED: u8 = 1;
    /// The command line or the configuration is wrong.
    pub const USAGE: u8 = 2;
    /// A service is running already.
    pub const ALREADY_RUNNING: u8 = 4;
}

/// Everything `main` does.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.command {
        Some(Command::Config { json }) => show_config(json),
        None => serve(arguments.daemon),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    eprintln!("zccache-service: {error:#}");
    let status = if error.is::<ConfigError>() {
        exit::USAGE
    } else if error.is::<AlreadyRunning>() {
        exit::ALREADY_RUNNING
    } else {
        exit::FAILED
    };
    ExitCode::from(status)
}

fn serve(detached: bool) -> anyhow::Result<()> {
    if detached {
        daemon::close_inherited_descriptors();
    }
    let config = Config::load(|name| std::env::var_os(name))?;
    let endpoint = Endpoint::resolve(|name| std::env::var_os(name));
    let lock = ServiceLock::take(&endpoint)?;
    if detached {
        daemon::detach()?;
    }
    daemon::reset_process_state();
    zccache_actors::kept_files::make_room();
    let before = lock.write_pid(&endpoint)?;
    let log_file = logging::start(&config.log_dir, &config.log_level);
    if let Some(before) = before {
        tracing::warn!(%before, "the last service here did not end by itself: it was killed, or had given up");
    }
    let ended = system::run(&config, &endpoint, log_file);
    // Only now may the next service come: everything of this one is written and closed.
    lock.release(&endpoint);
    ended
}

fn show_config(json: bool) -> anyhow::Result<()> {
    let config = Config::load(|name| std::env::var_os(name))?;
    let mut text = String::new();
    if json {
        text = serde_json::to_string_pretty(&config.shown)? + "\n";
    } else {
        let width = |of: fn(&Shown) -> usize| config.shown.iter().map(of).max().unwrap_or(0);
        let (keys, values) = (width(|s| s.key.len()), width(|s| s.value.len()));
        for s in &config.shown {
            text += &format!("{:keys$}  {:values$}  ({})  {}\n", s.key, s.value, s.origin, s.help);
        }
    }
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}
