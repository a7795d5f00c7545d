//! The service's program, seen from outside: start it, wait until it is gone, ask it for its configuration.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use zccache_proto::endpoint::Endpoint;
use zccache_proto::message::{Reply, Request};

use super::ask::{self, ask};
use super::{Failure, Outcome, print, program};
use crate::start_service::{SERVICE_NAME, lock_is_held};
use crate::starting::EXIT_ALREADY_RUNNING;

/// How long a started service may take to answer: a large index on a slow disk.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long a stopping service may take to finish what runs: longer than any compile.
const STOP_PATIENCE: Duration = Duration::from_secs(600);
/// After which waiting is told.
const STOP_SILENCE: Duration = Duration::from_secs(2);
/// How long a process may take to be gone whose lock is free: the system closes its files a moment before. Where it
/// cannot be told from one that nobody reaps (before Linux 5.3), it stays to be seen, and is not waited for any longer.
const EXIT_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);
/// How much of the service's complaints is kept, in bytes.
const COMPLAINT_BYTES_MAX: u64 = 64 * 1024;

/// Starts the service, and returns when it answers.
///
/// # Errors
/// Why it could not be started, in the service's own words if it had any.
pub fn start(endpoint: &Endpoint) -> Outcome {
    if let Ok(Reply::Status(report)) = ask(endpoint, &Request::Status) {
        return print(&format!(
            "already running: process {}, {}",
            report.service.pid,
            endpoint.socket().display()
        ));
    }
    let unusable = || format!("failed to prepare the runtime directory {}", endpoint.directory().display());
    endpoint.prepare().with_context(unusable)?;
    let program = find_program()?;
    let mut complaints = tempfile_unlinked(endpoint).context("failed to start the service")?;
    let pid = start_and_wait(endpoint, &program, &complaints).map_err(|e| explain(e, &mut complaints))?;
    print(&format!("started: process {pid}, {}", endpoint.socket().display()))
}

fn start_and_wait(endpoint: &Endpoint, program: &Path, complaints: &File) -> anyhow::Result<u32> {
    let deadline = Instant::now() + START_PATIENCE;
    let mut child = spawn(program, complaints)?;
    let mut exited = false;
    loop {
        match ask(endpoint, &Request::Status) {
            Ok(Reply::Status(report)) => {
                // The process that made it a daemon ends by itself.
                let _ = child.try_wait();
                return Ok(report.service.pid);
            }
            Err(Failure::Other(error)) => return Err(error),
            _ => {}
        }
        match if exited { None } else { child.try_wait()? } {
            None => {}
            Some(status) if status.success() => exited = true,
            // Somebody else's was faster, and will answer; or the last one is still leaving.
            Some(status) if status.code() == Some(EXIT_ALREADY_RUNNING) => {
                child = spawn(program, complaints)?
            }
            Some(status) => bail!("the service did not start ({status})"),
        }
        if Instant::now() > deadline {
            bail!("the service does not answer within {} s", START_PATIENCE.as_secs());
        }
        std::thread::sleep(PAUSE);
    }
}

fn spawn(program: &Path, complaints: &File) -> anyhow::Result<Child> {
    let mut command = Command::new(program);
    command.arg("--daemon").stdin(Stdio::null()).stdout(Stdio::null()).stderr(complaints.try_clone()?);
    program::spawn_daemon(&mut command).with_context(|| format!("failed to run {}", program.display()))
}

/// A file that a daemon may go on writing to without anybody reading, unlike a pipe; it has no name.
fn tempfile_unlinked(endpoint: &Endpoint) -> anyhow::Result<File> {
    let path = endpoint.directory().join(format!("start-{}.err", std::process::id()));
    let file = File::options().read(true).append(true).create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn explain(error: anyhow::Error, complaints: &mut File) -> anyhow::Error {
    use std::io::Seek;
    let mut text = Vec::new();
    let _ = complaints.rewind();
    let _ = complaints.take(COMPLAINT_BYTES_MAX).read_to_end(&mut text);
    match String::from_utf8_lossy(&text).trim_end() {
        "" => error,
        said => anyhow!("{error}; it said:\n{said}"),
    }
}

/// Lets the service finish and exit; returns when it is gone and its lock is free.
///
/// # Errors
/// If it does not answer, or is not gone in time. That none runs is no error.
pub fn stop(endpoint: &Endpoint) -> Outcome {
    let asked = pid_of(endpoint);
    let running = ask_to_stop(endpoint)?;
    if running.is_none() && !lock_is_held(endpoint) {
        return print("not running");
    }
    wait_until_gone(endpoint, asked, running, STOP_PATIENCE)?;
    print("stopped")
}

/// Asks the service to stop; returns how many tools still run for it, or nothing if it takes no questions: it is leaving,
/// or has just come, if there is one.
fn ask_to_stop(endpoint: &Endpoint) -> Result<Option<u64>, Failure> {
    match ask(endpoint, &Request::Shutdown) {
        Ok(Reply::ShuttingDown { running }) => Ok(Some(running)),
        Ok(_) => Err(ask::unexpected()),
        // It went before it could say so.
        Err(Failure::Gone) => Ok(Some(0)),
        Err(Failure::NotRunning) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// What the pid file says.
fn pid_of(endpoint: &Endpoint) -> Option<String> {
    std::fs::read_to_string(endpoint.pid_file()).ok()
}

/// Waits until the service whose process is `asked` has gone; a build under way may have started the next one by then. If it
/// took no questions, it is asked as soon as it does.
fn wait_until_gone(
    endpoint: &Endpoint,
    mut asked: Option<String>,
    mut running: Option<u64>,
    patience: Duration,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let is_terminal = std::io::stderr().is_terminal();
    let mut told = false;
    loop {
        if running.is_none() {
            asked = asked.or_else(|| pid_of(endpoint));
        }
        // It takes its pid file away just before it lets go of the lock.
        if !lock_is_held(endpoint) || pid_of(endpoint).is_some_and(|pid| Some(pid) != asked) {
            break;
        }
        if begun.elapsed() > patience {
            return Err(anyhow!("the service still runs after {} s", patience.as_secs()).into());
        }
        if running.is_none() {
            running = ask_to_stop(endpoint)?;
        }
        let count = running.unwrap_or(0);
        if !told && (is_terminal || count > 0) && begun.elapsed() > STOP_SILENCE {
            told = true;
            let _ = writeln!(std::io::stderr(), "waiting for the service to finish ({count} running)…");
        }
        std::thread::sleep(PAUSE);
    }
    let pid = asked.and_then(|pid| pid.trim().parse().ok());
    let released = Instant::now();
    while pid.is_some_and(program::is_there) && released.elapsed() < EXIT_PATIENCE {
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Shows the configuration, as the service reads it.
///
/// # Errors
/// The service's own exit status, if it is not 0.
pub fn config(json: bool) -> Outcome {
    let program = find_program()?;
    let status = Command::new(&program)
        .arg("config")
        .args(json.then_some("--json"))
        .status()
        .with_context(|| format!("failed to run {}", program.display()))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Failure::Told(u8::try_from(code).unwrap_or(1))),
        None => Err(anyhow!("{} ended by {status}", program.display()).into()),
    }
}

/// The service's program: beside ours, else on `PATH`.
fn find_program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("failed to find this program")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = own.parent().map(Path::to_path_buf).into_iter().chain(std::env::split_paths(&path));
    directories.map(|d| d.join(SERVICE_NAME)).find(|p| program::is_executable(p)).ok_or_else(|| {
        anyhow!("{SERVICE_NAME} is neither beside {} nor on PATH; install it there", own.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_does_not_finish_is_not_waited_for_longer_than_the_patience() {
        let temp = tempfile::tempdir().expect("a directory can be made");
        let endpoint = Endpoint::in_directory(temp.path().to_owned());
        let lock = File::create(endpoint.service_lock()).expect("a file can be made");
        lock.lock().expect("a file can be locked");
        let begun = Instant::now();
        let patience = Duration::from_secs(1);
        let waited = wait_until_gone(&endpoint, None, Some(1), patience).expect_err("it is there still");
        assert!(matches!(waited, Failure::Other(e) if e.to_string() == "the service still runs after 1 s"));
        assert!((patience..patience * 5).contains(&begun.elapsed()));
    }

    #[test]
    fn of_long_complaints_the_beginning_is_told() {
        let mut complaints = tempfile::tempfile().expect("a file can be made");
        let bytes = usize::try_from(COMPLAINT_BYTES_MAX).expect("it is small") + 1;
        complaints.write_all(&vec![b'X'; bytes]).expect("a file can be written");
        let told = explain(anyhow!("no"), &mut complaints).to_string();
        assert_eq!(told.matches('X').count(), bytes - 1);
    }
}
