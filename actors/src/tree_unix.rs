//! A tool's whole tree of processes, on macOS: a process group.
#![expect(unsafe_code, reason = "the mask of modes is set in the child, before it is the tool")]

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use zccache_proto::message::Exit;

use crate::sys::BorrowedFd;

/// Gives the tool a group of its own, and the client's mask.
pub fn prepare(command: &mut Command, umask: u32) {
    command.process_group(0);
    let mask = umask as libc::mode_t;
    let set_mask = move || {
        // SAFETY: a plain system call, fit for a process that was just forked.
        unsafe { libc::umask(mask) };
        Ok(())
    };
    // SAFETY: it makes one system call and touches no memory of anybody's.
    unsafe { command.pre_exec(set_mask) };
}

/// The tool's name for itself.
pub fn set_name(command: &mut Command, name: &OsStr) {
    command.arg0(name);
}

/// How a process ended.
pub fn exit_of(status: ExitStatus) -> Exit {
    match status.code() {
        Some(code) => Exit::Code(code),
        None => Exit::Signal(status.signal().unwrap_or(libc::SIGKILL)),
    }
}

/// A tool with all processes that stay in its group. Dropped, they are gone.
#[derive(Debug)]
pub struct Tree {
    group: Option<Pid>,
    released: std::cell::Cell<bool>,
}

impl Tree {
    /// The tree of a process that [`prepare`] prepared.
    ///
    /// # Errors
    /// None on this system.
    pub fn around(first: &Child) -> io::Result<Self> {
        let group = i32::try_from(first.id()).ok().and_then(Pid::from_raw);
        Ok(Self { group, released: std::cell::Cell::new(false) })
    }

    /// Kills all of it.
    pub fn kill(&self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// Whether processes are left. They are left alone from now on, as they would be without us.
    pub fn release(&self) -> bool {
        self.released.set(true);
        self.group.is_some_and(|group| test_kill_process_group(group).is_ok())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if !self.released.get() {
            self.kill();
        }
    }
}

/// Whether the other end of a pipe has been closed.
pub fn hung_up(pipe: BorrowedFd<'_>) -> bool {
    let mut looked = [PollFd::new(&pipe, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut looked, Some(&at_once)).is_ok_and(|ready| ready > 0)
}
