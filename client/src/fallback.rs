//! Fallback: the service did not see it through, so the wrapper runs the tool itself.
//!
//! First the tool that the service had started is killed, so that two writers never meet. What was already
//! shown of the tool's output is left out the second time. Nothing is ever said about it, except one byte in
//! a file that the service counts.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use zccache_proto::endpoint::Endpoint;

use crate::kernel;
use crate::output;
use crate::process::{self, Child, Process, Setup, inherited, signal_group};
use crate::session::Progress;
use crate::wrapper::{self, Tool};

/// How long the killed tool is waited for. A kill takes effect at once, except for a process that waits for a
/// disk; and one whose parent hangs stays visible though it is dead.
const KILL_PATIENCE: Duration = Duration::from_millis(200);
/// The pause between two looks.
const KILL_PAUSE: Duration = Duration::from_millis(1);
/// The size at which the file of reports stops growing, in bytes: enough for a day without a service.
const REPORTS_BYTES_MAX: u64 = 64 * 1024;
/// Bytes passed on at once: a pipe's usual capacity.
const RELAY_BYTES: usize = 64 * 1024;

/// Runs the tool in place of the service. Returns the exit status if it cannot be run at all.
pub fn run(process: &Process, tool: &Tool<'_>, endpoint: &Endpoint, progress: &Progress) -> i32 {
    if let Some(group) = progress.started {
        end_group(group);
    }
    // Without consequences: a build does not care whether it was counted.
    let _ = report(endpoint);
    if let Some(offset) = progress.stdin_offset {
        let _ = rustix::fs::seek(inherited(0), SeekFrom::Start(offset));
    }
    if progress.stdout_shown + progress.stderr_shown == 0 {
        return wrapper::exec(process, tool);
    }
    match rerun(process, tool, progress) {
        Ok(ended) => process::end_as(ended),
        // No pipe, no process: the output twice is better than none.
        Err(_) => wrapper::exec(process, tool),
    }
}

fn end_group(group: u32) {
    let deadline = Instant::now() + KILL_PATIENCE;
    let mut exists = signal_group(group, libc::SIGKILL);
    while exists && Instant::now() < deadline {
        std::thread::sleep(KILL_PAUSE);
        exists = signal_group(group, 0);
    }
}

fn report(endpoint: &Endpoint) -> io::Result<()> {
    let directory = endpoint.open_directory()?;
    let path = endpoint.fallbacks();
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::CLOEXEC
        | OFlags::NONBLOCK;
    let file = rustix::fs::openat(&directory, name, flags, Mode::RUSR | Mode::WUSR)?;
    let size = u64::try_from(rustix::fs::fstat(&file)?.st_size).unwrap_or(u64::MAX);
    if size < REPORTS_BYTES_MAX {
        rustix::io::write(&file, b".")?;
    }
    Ok(())
}

/// One stream of the tool, on its way to the same one of ours.
struct Relay {
    source: OwnedFd,
    target: i32,
    /// Bytes yet to leave out.
    skip: u64,
}

/// Runs the tool as a child, and leaves out what was shown of its output before.
fn rerun(process: &Process, tool: &Tool<'_>, progress: &Progress) -> io::Result<process::Ended> {
    let mut relays = Vec::new();
    let mut ends: [Option<OwnedFd>; 3] = [None, None, None];
    let shown = if progress.merged {
        [(1, progress.stdout_shown + progress.stderr_shown), (2, 0)]
    } else {
        [(1, progress.stdout_shown), (2, progress.stderr_shown)]
    };
    for (target, skip) in shown.into_iter().filter(|(_, skip)| *skip > 0) {
        let (source, end) = kernel::pipe()?;
        // Only our end: the tool's must stay as tools expect it.
        rustix::fs::fcntl_setfl(&source, OFlags::NONBLOCK)?;
        ends[target as usize] = Some(end);
        relays.push(Relay { source, target, skip });
    }
    let mut streams = ends.each_ref().map(|end| end.as_ref().map(AsFd::as_fd));
    if progress.merged {
        streams[2] = streams[1];
    }
    let child = process.spawn(&tool.path, &tool.argv, &Setup { streams, detached: false })?;
    drop(ends);
    relay_all(relays, &child);
    Ok(child.wait())
}

/// Passes output on until the tool has ended and all that it wrote has gone: not until its last descendant has
/// closed the pipe, since nobody would wait for that without us.
fn relay_all(mut relays: Vec<Relay>, child: &Child) {
    // Where there is no such descriptor, the pipes' ends must do.
    let ended = kernel::end_of(child.pid());
    let mut buffer = vec![0; RELAY_BYTES];
    while !relays.is_empty() {
        let sources = relays.iter().map(|r| PollFd::new(&r.source, PollFlags::IN));
        let mut polled: Vec<PollFd<'_>> =
            sources.chain(ended.iter().map(|e| PollFd::new(e, PollFlags::IN))).collect();
        match poll(&mut polled, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        let has_ended = ended.is_some() && polled.last().is_some_and(|p| !p.revents().is_empty());
        drop(polled);
        relays.retain_mut(|relay| relay.drain(&mut buffer));
        if has_ended {
            return;
        }
    }
}

impl Relay {
    /// Passes on what is there. Returns whether there may be more.
    fn drain(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            let bytes = match rustix::io::read(&self.source, &mut *buffer) {
                Ok(0) => return false,
                Ok(count) => &buffer[..count],
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return true,
                Err(_) => return false,
            };
            let rest = skip(bytes, &mut self.skip);
            // Our reader is gone; with the pipe closed, the tool learns of it as it would have.
            if output::write_all(inherited(self.target), rest, &mut 0).is_err() {
                return false;
            }
        }
    }
}

/// What of `bytes` is beyond the next `left` bytes, which are counted down.
fn skip<'a>(bytes: &'a [u8], left: &mut u64) -> &'a [u8] {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
    *left -= count as u64;
    &bytes[count..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_shown_is_left_out_however_it_is_cut() {
        let text = b"warning: one\nwarning: two\n";
        for shown in 0..=text.len() + 3 {
            for piece in 1..=text.len() {
                let mut left = shown as u64;
                let rest: Vec<u8> = text.chunks(piece).flat_map(|c| skip(c, &mut left).to_vec()).collect();
                assert_eq!(rest, text[shown.min(text.len())..]);
            }
        }
    }

    #[test]
    fn a_report_is_one_byte_and_the_file_stops_growing() {
        let temp = tempfile::tempdir().unwrap();
        let endpoint = Endpoint::in_directory(temp.path().join("run"));
        assert!(report(&endpoint).is_err());
        endpoint.prepare().unwrap();
        for count in 1..4 {
            report(&endpoint).unwrap();
            assert_eq!(endpoint.fallbacks().metadata().unwrap().len(), count);
        }
        std::fs::write(endpoint.fallbacks(), vec![b'.'; REPORTS_BYTES_MAX as usize]).unwrap();
        report(&endpoint).unwrap();
        assert_eq!(endpoint.fallbacks().metadata().unwrap().len(), REPORTS_BYTES_MAX);
    }

    #[test]
    fn numbers_that_mean_more_than_a_group_are_never_signalled() {
        let own = rustix::process::getpgrp().as_raw_nonzero().get().unsigned_abs();
        for group in [0, 1, own, u32::MAX, 1 << 31] {
            assert!(!signal_group(group, 0), "{group}");
        }
    }
}
