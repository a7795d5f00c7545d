//! A tool's whole tree of processes, on Windows: a job.
#![expect(unsafe_code, reason = "jobs, and threads of other processes, have no safe form")]

use std::ffi::OsStr;
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::os::windows::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{ERROR_ALREADY_EXISTS, INVALID_HANDLE_VALUE};
use windows_sys::Win32::System::Diagnostics::ToolHelp::{
    CreateToolhelp32Snapshot, TH32CS_SNAPTHREAD, THREADENTRY32, Thread32First, Thread32Next,
};
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOBOBJECT_BASIC_ACCOUNTING_INFORMATION, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
    JobObjectBasicAccountingInformation, JobObjectExtendedLimitInformation, QueryInformationJobObject,
    SetInformationJobObject, TerminateJobObject,
};
use windows_sys::Win32::System::Pipes::PeekNamedPipe;
use windows_sys::Win32::System::Threading::{
    CREATE_NO_WINDOW, CREATE_SUSPENDED, OpenThread, ResumeThread, THREAD_SUSPEND_RESUME,
};
use zccache_proto::message::Exit;
use zccache_proto::tool_job;

use crate::sys::BorrowedFd;

/// The exit status of a tool that was killed: what a shell says of one that was interrupted (`STATUS_CONTROL_C_EXIT`).
const KILLED_STATUS: u32 = 0xC000_013A;

/// How long a tool's processes may outlive it without having been left behind: its console is kept by a process of the
/// system's that ends a moment after it. What is left on purpose stays for longer.
const LEFT_BEHIND_AFTER: Duration = Duration::from_millis(200);

/// How often is looked whether they are gone: a small part of that, and of what starting a process takes.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// Has the tool wait until its tree is made. It opens no window: we have no console that it could share.
pub fn prepare(command: &mut Command, _umask: u32) {
    command.creation_flags(CREATE_SUSPENDED | CREATE_NO_WINDOW);
}

/// A tool's name follows from how it is started here (`spelling::called`).
pub fn set_name(_: &mut Command, _: &OsStr) {}

/// How a process ended.
pub fn exit_of(status: ExitStatus) -> Exit {
    Exit::Code(status.code().unwrap_or(1))
}

/// A tool with all processes that it starts, and those that they start. Dropped, they are gone.
#[derive(Debug)]
pub struct Tree {
    job: OwnedHandle,
}

impl Tree {
    /// Makes the tree around a process that waits (see [`prepare`]), and lets it run.
    ///
    /// # Errors
    /// The system's.
    pub fn around(first: &Child) -> io::Result<Self> {
        let name = tool_job::name(std::process::id(), first.id());
        let name: Vec<u16> = name.encode_utf16().chain([0]).collect();
        // SAFETY: the name ends with a zero; no other pointer but a null one.
        let job = unsafe { CreateJobObjectW(null(), name.as_ptr()) };
        // Somebody's from long ago would be opened, and not made.
        if job.is_null()
            || io::Error::last_os_error().raw_os_error() == Some(ERROR_ALREADY_EXISTS.cast_signed())
        {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and nobody else's.
        let tree = Self { job: unsafe { OwnedHandle::from_raw_handle(job) } };
        tree.limit(JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE)?;
        // SAFETY: both handles are open for the call.
        if unsafe { AssignProcessToJobObject(tree.job.as_raw_handle(), first.as_raw_handle()) } == 0 {
            return Err(io::Error::last_os_error());
        }
        resume(first.id())?;
        Ok(tree)
    }

    fn limit(&self, flags: u32) -> io::Result<()> {
        let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
        limits.BasicLimitInformation.LimitFlags = flags;
        // SAFETY: the structure is ours and of the length given.
        let set = unsafe {
            let bytes = u32::try_from(size_of_val(&limits)).unwrap_or(0);
            let kind = JobObjectExtendedLimitInformation;
            SetInformationJobObject(self.job.as_raw_handle(), kind, (&raw const limits).cast(), bytes)
        };
        if set == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Kills all of it.
    pub fn kill(&self) {
        // SAFETY: the handle is ours.
        unsafe { TerminateJobObject(self.job.as_raw_handle(), KILLED_STATUS) };
    }

    /// Whether processes are left. They are left alone from now on, as they would be without us.
    pub fn release(&self) -> bool {
        let end = Instant::now() + LEFT_BEHIND_AFTER;
        let mut are_left = self.has_processes();
        while are_left && Instant::now() < end {
            std::thread::sleep(LOOK_INTERVAL);
            are_left = self.has_processes();
        }
        let _ = self.limit(0);
        are_left
    }

    fn has_processes(&self) -> bool {
        let mut known = JOBOBJECT_BASIC_ACCOUNTING_INFORMATION::default();
        // SAFETY: the structure is ours and of the length given.
        let told = unsafe {
            let bytes = u32::try_from(size_of_val(&known)).unwrap_or(0);
            let kind = JobObjectBasicAccountingInformation;
            QueryInformationJobObject(
                self.job.as_raw_handle(),
                kind,
                (&raw mut known).cast(),
                bytes,
                null_mut(),
            )
        };
        told == 0 || known.ActiveProcesses > 0
    }
}

/// Lets the one thread of a process that was started suspended run.
fn resume(pid: u32) -> io::Result<()> {
    // SAFETY: plain numbers.
    let list = unsafe { CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0) };
    if list == INVALID_HANDLE_VALUE {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    let list = unsafe { OwnedHandle::from_raw_handle(list) };
    let mut entry = THREADENTRY32 {
        dwSize: u32::try_from(size_of::<THREADENTRY32>()).unwrap_or(0),
        ..THREADENTRY32::default()
    };
    // SAFETY: the entry is ours, and says how long it is.
    let mut more = unsafe { Thread32First(list.as_raw_handle(), &raw mut entry) };
    while more != 0 {
        if entry.th32OwnerProcessID == pid {
            return resume_thread(entry.th32ThreadID);
        }
        // SAFETY: as above.
        more = unsafe { Thread32Next(list.as_raw_handle(), &raw mut entry) };
    }
    Err(io::Error::other("a process without a thread"))
}

fn resume_thread(id: u32) -> io::Result<()> {
    // SAFETY: plain numbers.
    let thread = unsafe { OpenThread(THREAD_SUSPEND_RESUME, 0, id) };
    if thread.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else's.
    let thread = unsafe { OwnedHandle::from_raw_handle(thread) };
    // SAFETY: the handle is ours.
    if unsafe { ResumeThread(thread.as_raw_handle()) } == u32::MAX {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether the other end of a pipe has been closed.
pub fn hung_up(pipe: BorrowedFd<'_>) -> bool {
    // SAFETY: the handle is borrowed for the call; nothing is to be written anywhere.
    let looked =
        unsafe { PeekNamedPipe(pipe.as_raw_handle(), null_mut(), 0, null_mut(), null_mut(), null_mut()) };
    looked == 0
}
