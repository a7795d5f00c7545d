//! This process and its child, on Windows: the twin of `process.rs`.
//!
//! No program can take another's place here, so the wrapper starts the tool, waits, and ends as it did. The tool's
//! command line is the wrapper's own, from the tool's first argument on, to the letter. A tool does not outlive a wrapper
//! that is killed; what it leaves behind when it ends by itself is left alone, as it would be without us.
#![expect(unsafe_code, reason = "jobs, standard streams and the command line as typed have no safe form")]

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::windows::ffi::OsStringExt;
use std::os::windows::io::{AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::process::{Child, Command};
use std::ptr::{null, null_mut};
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::{HANDLE_FLAG_INHERIT, INVALID_HANDLE_VALUE, SetHandleInformation};
use windows_sys::Win32::Storage::FileSystem::{FILE_TYPE_CHAR, FILE_TYPE_DISK, FILE_TYPE_PIPE, GetFileType};
use windows_sys::Win32::System::Console::{
    GetStdHandle, STD_ERROR_HANDLE, STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, SetConsoleCtrlHandler,
};
use windows_sys::Win32::System::Environment::GetCommandLineW;
use windows_sys::Win32::System::JobObjects::{
    AssignProcessToJobObject, CreateJobObjectW, JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOBOBJECT_BASIC_ACCOUNTING_INFORMATION, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
    JobObjectBasicAccountingInformation, JobObjectExtendedLimitInformation, OpenJobObjectW,
    QueryInformationJobObject, SetInformationJobObject, TerminateJobObject,
};
use windows_sys::Win32::System::SystemServices::{JOB_OBJECT_QUERY, JOB_OBJECT_TERMINATE};
use windows_sys::Win32::System::Threading::GetCurrentProcess;
use zccache_proto::message::StreamKind;
use zccache_proto::tool_job;

/// How long a killed tool is waited for: a kill takes effect at once, but for what waits for a disk.
const KILL_PATIENCE: Duration = Duration::from_millis(200);
/// The pause between two looks.
const KILL_PAUSE: Duration = Duration::from_millis(1);
/// The exit status of a tool that was killed (`STATUS_CONTROL_C_EXIT`).
const KILLED_STATUS: u32 = 0xC000_013A;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this status.
    Code(i32),
    /// By this signal. There are none here; a service never says so.
    Signal(i32),
}

/// A standard stream: 0, 1 or 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StandardStream(i32);

/// The standard stream of this number.
pub fn inherited(number: i32) -> StandardStream {
    StandardStream(number)
}

impl StandardStream {
    /// Its handle, if it is open.
    pub fn handle(self) -> Option<BorrowedHandle<'static>> {
        let number = [STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE].get(self.0 as usize)?;
        // SAFETY: a plain call.
        let handle = unsafe { GetStdHandle(*number) };
        if handle.is_null() || handle == INVALID_HANDLE_VALUE {
            return None;
        }
        // SAFETY: nobody here closes the standard streams.
        Some(unsafe { BorrowedHandle::borrow_raw(handle) })
    }

    /// What kind of file it is.
    pub fn kind(self) -> StreamKind {
        let Some(handle) = self.handle() else { return StreamKind::Closed };
        // SAFETY: the handle is open for the call.
        match unsafe { GetFileType(handle.as_raw_handle()) } {
            FILE_TYPE_DISK => StreamKind::File,
            FILE_TYPE_PIPE => StreamKind::Pipe,
            FILE_TYPE_CHAR if io::IsTerminal::is_terminal(&handle) => {
                StreamKind::Terminal { rows: 0, columns: 0 }
            }
            FILE_TYPE_CHAR => StreamKind::Null,
            _ => StreamKind::Other,
        }
    }

    /// A file of our own for it, closed independently.
    ///
    /// # Errors
    /// If it is not open.
    pub fn to_file(self) -> io::Result<File> {
        let handle = self.handle().ok_or(io::ErrorKind::NotConnected)?;
        Ok(handle.try_clone_to_owned()?.into())
    }
}

/// The command line that this process was started with, in UTF-16.
pub fn command_line() -> Vec<u16> {
    // SAFETY: the system's own text, ended by a zero, which nobody changes.
    unsafe {
        let start = GetCommandLineW();
        let length = (0..).take_while(|&at| *start.add(at) != 0).count();
        std::slice::from_raw_parts(start, length).to_vec()
    }
}

/// The same as text for another command line.
pub fn text(units: &[u16]) -> OsString {
    OsString::from_wide(units)
}

/// Kills the tool whose first process is `tool`, with all its processes, which the service `service` has started, and waits
/// for them to be gone. Where there is no such job, they are.
pub fn end_tool(service: u32, tool: u32) {
    let name: Vec<u16> = tool_job::name(service, tool).encode_utf16().chain([0]).collect();
    // SAFETY: the name ends with a zero.
    let job = unsafe { OpenJobObjectW(JOB_OBJECT_QUERY | JOB_OBJECT_TERMINATE, 0, name.as_ptr()) };
    if job.is_null() {
        return;
    }
    // SAFETY: just opened, and nobody else's.
    let job = Job(unsafe { OwnedHandle::from_raw_handle(job) });
    // SAFETY: the handle is ours.
    unsafe { TerminateJobObject(job.0.as_raw_handle(), KILLED_STATUS) };
    let deadline = Instant::now() + KILL_PATIENCE;
    while job.has_processes() && Instant::now() < deadline {
        std::thread::sleep(KILL_PAUSE);
    }
}

/// Runs `command` with our streams, and waits for its end. It ends with us, should we be killed.
///
/// # Errors
/// If it could not be started.
pub fn run(command: &mut Command) -> io::Result<Ended> {
    run_with(command, |child| child.wait())
}

/// The same; `attend` sees to it until its end.
///
/// # Errors
/// If it could not be started, and those of `attend`.
pub fn run_with(
    command: &mut Command,
    attend: impl FnOnce(&mut Child) -> io::Result<std::process::ExitStatus>,
) -> io::Result<Ended> {
    // Without a job the tool is only not killed with us.
    let job = Job::around_us().ok();
    // Ctrl-C reaches everybody at the terminal. The tool decides what it does, and we end as it does.
    // SAFETY: a plain call; the handler touches nothing.
    unsafe { SetConsoleCtrlHandler(Some(leave_it_to_the_tool), 1) };
    let status = attend(&mut command.spawn()?)?;
    if let Some(job) = job {
        job.release();
    }
    Ok(Ended::Code(status.code().unwrap_or(1)))
}

/// Ends this process as another one did.
pub fn end_as(ended: Ended) -> i32 {
    match ended {
        Ended::Code(status) => status,
        // As shells say it.
        Ended::Signal(signal) => 128 + signal,
    }
}

unsafe extern "system" fn leave_it_to_the_tool(_: u32) -> i32 {
    1
}

/// A job that this process and its children are in, and that ends with this process.
struct Job(OwnedHandle);

impl Job {
    fn around_us() -> io::Result<Self> {
        // SAFETY: no pointers but null ones.
        let job = unsafe { CreateJobObjectW(null(), null()) };
        if job.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and nobody else's.
        let job = Self(unsafe { OwnedHandle::from_raw_handle(job) });
        job.limit(JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE)?;
        // SAFETY: the job is ours; the pseudo handle of this process is always good.
        match unsafe { AssignProcessToJobObject(job.0.as_raw_handle(), GetCurrentProcess()) } {
            0 => {
                // Before the job is closed with us not in it: it must not kill anybody.
                job.limit(0)?;
                Err(io::Error::last_os_error())
            }
            _ => Ok(job),
        }
    }

    fn limit(&self, flags: u32) -> io::Result<()> {
        let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
        limits.BasicLimitInformation.LimitFlags = flags;
        // SAFETY: the structure is ours and of the length given.
        let set = unsafe {
            let bytes = u32::try_from(size_of_val(&limits)).unwrap_or(0);
            let kind = JobObjectExtendedLimitInformation;
            SetInformationJobObject(self.0.as_raw_handle(), kind, (&raw const limits).cast(), bytes)
        };
        if set == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn has_processes(&self) -> bool {
        let mut known = JOBOBJECT_BASIC_ACCOUNTING_INFORMATION::default();
        // SAFETY: the structure is ours and of the length given.
        let told = unsafe {
            let bytes = u32::try_from(size_of_val(&known)).unwrap_or(0);
            let kind = JobObjectBasicAccountingInformation;
            QueryInformationJobObject(
                self.0.as_raw_handle(),
                kind,
                (&raw mut known).cast(),
                bytes,
                null_mut(),
            )
        };
        told != 0 && known.ActiveProcesses > 0
    }

    /// What is left of the tool's tree lives on.
    fn release(self) {
        // Closing the job would kill this process, too, were it still to.
        if self.limit(0).is_err() {
            std::mem::forget(self);
        }
    }
}

/// Starts a service, which gets none of our streams: whoever waits for their end would wait for the service's.
///
/// # Errors
/// If it could not be started.
pub fn spawn_detached(command: &mut Command) -> io::Result<Child> {
    use std::os::windows::process::CommandExt;

    use windows_sys::Win32::System::Threading::{
        CREATE_BREAKAWAY_FROM_JOB, CREATE_NEW_PROCESS_GROUP, DETACHED_PROCESS,
    };

    let streams = [0, 1, 2].map(|number| inherited(number).handle());
    let pass = |flag: u32| {
        for stream in streams.iter().flatten() {
            // SAFETY: the handle is open for the call.
            unsafe { SetHandleInformation(stream.as_raw_handle(), HANDLE_FLAG_INHERIT, flag) };
        }
    };
    pass(0);
    let flags = DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP;
    // A build's job may end before the service is to; where it lets nobody go, the service ends with it.
    let child = command.creation_flags(flags | CREATE_BREAKAWAY_FROM_JOB).spawn();
    let child = child.or_else(|_| command.creation_flags(flags).spawn());
    pass(HANDLE_FLAG_INHERIT);
    child
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Stdio;

    #[test]
    fn a_tool_of_a_service_that_hangs_is_ended() {
        // We are the service; its tool waits for a key that nobody presses.
        let mut command = Command::new("cmd");
        command.args(["/c", "pause"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut tool = command.spawn().unwrap();
        let name = tool_job::name(std::process::id(), tool.id());
        let name: Vec<u16> = name.encode_utf16().chain([0]).collect();
        // SAFETY: the name ends with a zero; the handle is the child's, and open.
        let job = unsafe {
            let job = CreateJobObjectW(null(), name.as_ptr());
            assert_ne!(AssignProcessToJobObject(job, tool.as_raw_handle()), 0);
            Job(OwnedHandle::from_raw_handle(job))
        };
        let begun = Instant::now();
        end_tool(std::process::id(), tool.id());
        assert!(!job.has_processes() || begun.elapsed() >= KILL_PATIENCE);
        assert_eq!(tool.wait().unwrap().code(), Some(KILLED_STATUS.cast_signed()));
        // Of one that nobody has started, nothing is to be ended.
        end_tool(std::process::id(), 0);
    }
}
