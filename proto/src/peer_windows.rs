//! Who is at the other end of a named pipe, as the system knows it.
//!
//! The service lets nobody else in (the pipe's security descriptor); a client checks that the pipe was made by the user
//! that it runs as, since anybody may make a pipe of any name.
#![expect(unsafe_code, reason = "a pipe's process ids have no safe form")]

use std::io;
use std::os::windows::io::{AsRawHandle, BorrowedHandle};

use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::System::Pipes::{GetNamedPipeClientProcessId, GetNamedPipeServerProcessId};

use crate::security_windows;

/// The process at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its process id; `None` if the system does not tell.
    pub pid: Option<u32>,
    ours: bool,
}

impl Peer {
    /// The client of the instance that `pipe` is. Only our own user could open it.
    pub fn of_client(pipe: BorrowedHandle<'_>) -> Self {
        Self { pid: pid_by(pipe, GetNamedPipeClientProcessId), ours: true }
    }

    /// The service that made what `pipe` was opened as.
    ///
    /// # Errors
    /// The system's.
    pub fn of_server(pipe: BorrowedHandle<'_>) -> io::Result<Self> {
        let ours = security_windows::owns_pipe(pipe)?;
        Ok(Self { pid: pid_by(pipe, GetNamedPipeServerProcessId), ours })
    }

    /// Whether it runs as the user that we are.
    pub fn is_ours(self) -> bool {
        self.ours
    }
}

fn pid_by(pipe: BorrowedHandle<'_>, ask: unsafe extern "system" fn(HANDLE, *mut u32) -> i32) -> Option<u32> {
    let mut pid = 0;
    // SAFETY: the handle is borrowed for the call, and the number is ours.
    let told = unsafe { ask(pipe.as_raw_handle(), &raw mut pid) };
    (told != 0 && pid != 0).then_some(pid)
}
