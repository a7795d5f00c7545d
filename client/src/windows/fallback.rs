//! Fallback, on Windows: the twin of `fallback.rs`.
//!
//! First the tool that the service had started is killed, so that two writers never meet: all that it has started is in a
//! job, which ends with the service, should that be what has ended. What was already shown of the tool's output is left
//! out the second time.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::{Command, ExitStatus, Stdio};

use zccache_proto::endpoint::Endpoint;

use crate::output;
use crate::process::{self, Ended, inherited};
use crate::session::Progress;

/// The size at which the file of reports stops growing, in bytes: enough for a day without a service.
const REPORTS_BYTES_MAX: u64 = 64 * 1024;

/// Bytes passed on at once.
const RELAY_BYTES: usize = 64 * 1024;

/// Runs the tool, as `command` has it, in place of the service.
///
/// # Errors
/// If it could not be started.
pub fn run(command: &mut Command, endpoint: &Endpoint, progress: &Progress) -> io::Result<Ended> {
    if let (Some(service), Some(tool)) = (progress.service, progress.started) {
        process::end_tool(service, tool);
    }
    report(endpoint);
    let shown = [(1, progress.stdout_shown), (2, progress.stderr_shown)];
    if shown.iter().all(|(_, bytes)| *bytes == 0) {
        return process::run(command);
    }
    for (number, bytes) in shown {
        match (number, bytes) {
            (_, 0) => {}
            (1, _) => _ = command.stdout(Stdio::piped()),
            _ => _ = command.stderr(Stdio::piped()),
        }
    }
    process::run_with(command, |child| {
        let stdout = child.stdout.take().map(|pipe| (1, Box::new(pipe) as Source));
        let stderr = child.stderr.take().map(|pipe| (2, Box::new(pipe) as Source));
        relay(stdout.into_iter().chain(stderr), progress, || child.wait())
    })
}

type Source = Box<dyn Read + Send>;

/// Passes on what comes of each stream beyond what was shown of it, until all of them have ended.
fn relay(
    sources: impl Iterator<Item = (i32, Source)>,
    progress: &Progress,
    wait: impl FnOnce() -> io::Result<ExitStatus>,
) -> io::Result<ExitStatus> {
    std::thread::scope(|scope| {
        for (number, mut source) in sources {
            let shown = if number == 1 { progress.stdout_shown } else { progress.stderr_shown };
            scope.spawn(move || pass_on(&mut source, number, shown));
        }
        wait()
    })
}

fn pass_on(source: &mut Source, number: i32, mut left: u64) {
    let mut buffer = vec![0; RELAY_BYTES];
    while let Ok(count @ 1..) = source.read(&mut buffer) {
        let rest = skip(&buffer[..count], &mut left);
        // Our reader is gone; with the pipe closed, the tool learns of it as it would have.
        if output::write_all(inherited(number), rest, &mut 0).is_err() {
            return;
        }
    }
}

/// What of `bytes` is beyond the next `left` bytes, which are counted down.
fn skip<'a>(bytes: &'a [u8], left: &mut u64) -> &'a [u8] {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left -= count as u64;
    &bytes[count..]
}

/// Leaves a byte for the service to count. Without consequences: a build does not care whether it was counted.
fn report(endpoint: &Endpoint) {
    let _ = leave_byte(endpoint);
}

fn leave_byte(endpoint: &Endpoint) -> io::Result<()> {
    let mut file = File::options().append(true).create(true).open(endpoint.fallbacks())?;
    if file.metadata()?.len() < REPORTS_BYTES_MAX {
        file.write_all(b".")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_byte_and_the_file_stops_growing() {
        let temp = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::in_directory(temp.path().join("run"));
        assert!(leave_byte(&endpoint).is_err());
        endpoint.prepare().unwrap();
        let length = || endpoint.fallbacks().metadata().unwrap().len();
        leave_byte(&endpoint).unwrap();
        assert_eq!(length(), 1);
        std::fs::write(endpoint.fallbacks(), vec![b'.'; REPORTS_BYTES_MAX as usize - 1]).unwrap();
        for _ in 0..2 {
            leave_byte(&endpoint).unwrap();
            assert_eq!(length(), REPORTS_BYTES_MAX);
        }
    }
}
