//! A client's end of a named pipe: reads and writes that end in time, whatever the other side does.
#![expect(unsafe_code, reason = "overlapped input and output has no safe form outside of an async runtime")]

use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::{AsHandle, AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::path::Path;
use std::ptr::{null, null_mut};
use std::time::Duration;

use windows_sys::Win32::Foundation::{
    ERROR_IO_PENDING, ERROR_OPERATION_ABORTED, ERROR_PIPE_NOT_CONNECTED, GENERIC_READ, GENERIC_WRITE,
    INVALID_HANDLE_VALUE, WAIT_OBJECT_0,
};
use windows_sys::Win32::Storage::FileSystem::{
    CreateFileW, FILE_FLAG_OVERLAPPED, OPEN_EXISTING, ReadFile, SECURITY_IDENTIFICATION,
    SECURITY_SQOS_PRESENT, WriteFile,
};
use windows_sys::Win32::System::IO::{CancelIoEx, GetOverlappedResult, OVERLAPPED};
use windows_sys::Win32::System::Threading::{CreateEventW, INFINITE, WaitForSingleObject};

/// One end of a connected pipe.
#[derive(Debug)]
pub struct Pipe {
    handle: OwnedHandle,
    /// Signalled when the one operation under way has ended.
    ended: OwnedHandle,
}

impl Pipe {
    /// Opens a free instance of the pipe `name`.
    ///
    /// # Errors
    /// The system's: `ERROR_PIPE_BUSY` if there is no free one just now, `NotFound` if there is no such pipe.
    pub fn open(name: &Path) -> io::Result<Self> {
        let name: Vec<u16> = name.as_os_str().encode_wide().chain([0]).collect();
        // The other side may ask who we are, and not act as us.
        let flags = FILE_FLAG_OVERLAPPED | SECURITY_SQOS_PRESENT | SECURITY_IDENTIFICATION;
        let access = GENERIC_READ | GENERIC_WRITE;
        // SAFETY: the name ends with a zero and outlives the call.
        let handle =
            unsafe { CreateFileW(name.as_ptr(), access, 0, null(), OPEN_EXISTING, flags, null_mut()) };
        if handle == INVALID_HANDLE_VALUE {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else's.
        let handle = unsafe { OwnedHandle::from_raw_handle(handle) };
        // SAFETY: no pointers but null ones.
        let event = unsafe { CreateEventW(null(), 1, 0, null()) };
        if event.is_null() {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and nobody else's.
        Ok(Self { handle, ended: unsafe { OwnedHandle::from_raw_handle(event) } })
    }

    /// Reads once, into the room that `buffer` has beyond its end, waiting `patience` at most, or for ever.
    ///
    /// # Errors
    /// `TimedOut`: nothing came; `BrokenPipe`: the other side has closed; else the system's.
    pub fn read(&self, buffer: &mut Vec<u8>, patience: Option<Duration>) -> io::Result<usize> {
        let room = buffer.spare_capacity_mut();
        let bytes = u32::try_from(room.len()).unwrap_or(u32::MAX);
        let start = room.as_mut_ptr().cast();
        let read = self.perform(patience, |handle, overlapped| {
            // SAFETY: the buffer has this room, and `perform` returns only when nothing is written to it any more.
            unsafe { ReadFile(handle.as_raw_handle(), start, bytes, null_mut(), overlapped) }
        })?;
        // SAFETY: the system has written so many bytes there.
        unsafe { buffer.set_len(buffer.len() + read) };
        Ok(read)
    }

    /// Writes once, waiting `patience` at most.
    ///
    /// # Errors
    /// `TimedOut`: nobody reads; `BrokenPipe`: the other side has closed; else the system's. How much went before a
    /// `TimedOut` is not known.
    pub fn write(&self, bytes: &[u8], patience: Duration) -> io::Result<usize> {
        let count = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.perform(Some(patience), |handle, overlapped| {
            // SAFETY: the bytes outlive the operation: `perform` returns only when it has ended.
            unsafe { WriteFile(handle.as_raw_handle(), bytes.as_ptr(), count, null_mut(), overlapped) }
        })
    }

    /// One operation, from its beginning to its end; one that is not over in time is cancelled, and its end awaited.
    fn perform(
        &self,
        patience: Option<Duration>,
        begin: impl FnOnce(BorrowedHandle<'_>, *mut OVERLAPPED) -> i32,
    ) -> io::Result<usize> {
        let mut overlapped = OVERLAPPED { hEvent: self.ended.as_raw_handle(), ..OVERLAPPED::default() };
        if begin(self.handle.as_handle(), &raw mut overlapped) == 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(ERROR_IO_PENDING.cast_signed()) {
                return Err(plain(error));
            }
            // SAFETY: the handle is ours.
            let waited = unsafe { WaitForSingleObject(self.ended.as_raw_handle(), milliseconds(patience)) };
            if waited != WAIT_OBJECT_0 {
                // SAFETY: the operation was begun on this handle with this structure. It may have ended since.
                unsafe { CancelIoEx(self.handle.as_raw_handle(), &raw const overlapped) };
            }
        }
        let mut bytes = 0;
        // SAFETY: as above; this waits until the system has done with the structure and the buffer.
        let ended = unsafe {
            GetOverlappedResult(self.handle.as_raw_handle(), &raw const overlapped, &raw mut bytes, 1)
        };
        if ended == 0 { Err(plain(io::Error::last_os_error())) } else { Ok(bytes as usize) }
    }
}

impl AsHandle for Pipe {
    fn as_handle(&self) -> BorrowedHandle<'_> {
        self.handle.as_handle()
    }
}

/// A wait as the system takes it: whole milliseconds, never less than what was asked for.
fn milliseconds(patience: Option<Duration>) -> u32 {
    let Some(patience) = patience else { return INFINITE };
    u32::try_from(patience.as_nanos().div_ceil(1_000_000)).unwrap_or(INFINITE).min(INFINITE - 1)
}

/// The same under the names that sockets have for it.
fn plain(error: io::Error) -> io::Error {
    match error.raw_os_error().map(i32::cast_unsigned) {
        Some(ERROR_OPERATION_ABORTED) => io::ErrorKind::TimedOut.into(),
        Some(ERROR_PIPE_NOT_CONNECTED) => io::ErrorKind::BrokenPipe.into(),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_never_shorter_than_asked_for() {
        assert_eq!(milliseconds(None), INFINITE);
        assert_eq!(milliseconds(Some(Duration::ZERO)), 0);
        assert_eq!(milliseconds(Some(Duration::from_micros(1))), 1);
        assert_eq!(milliseconds(Some(Duration::from_millis(7))), 7);
        assert_eq!(milliseconds(Some(Duration::MAX)), INFINITE - 1);
    }
}
