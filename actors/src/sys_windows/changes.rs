//! Names that come and go in a directory, as the system tells of them.
#![expect(
    unsafe_code,
    reason = "changes of a directory are written into memory of ours while we do other things"
)]

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::windows::ffi::OsStringExt;
use std::os::windows::fs::OpenOptionsExt;
use std::os::windows::io::AsRawHandle;
use std::path::Path;
use std::ptr::null_mut;

use windows_sys::Win32::Foundation::{ERROR_IO_INCOMPLETE, ERROR_NOTIFY_ENUM_DIR};
use windows_sys::Win32::Storage::FileSystem::{
    FILE_FLAG_BACKUP_SEMANTICS, FILE_FLAG_OVERLAPPED, FILE_LIST_DIRECTORY, FILE_NOTIFY_CHANGE_DIR_NAME,
    FILE_NOTIFY_CHANGE_FILE_NAME, FILE_SHARE_DELETE, FILE_SHARE_READ, FILE_SHARE_WRITE,
    ReadDirectoryChangesW,
};
use windows_sys::Win32::System::IO::{CancelIoEx, GetOverlappedResult, OVERLAPPED};

/// Room for changes, in words of four bytes: for a hundred names of common length. More are told as many.
const ROOM_WORDS: usize = 4096;

/// Words of a change before its name: where the next one is, what happened, the name's length in bytes.
const HEAD_WORDS: usize = 3;

/// What has happened since the last look.
#[derive(Debug)]
pub enum Changed {
    /// Nothing.
    Nothing,
    /// These names came or went; there may be more.
    Names(Vec<OsString>),
    /// More than there was room for.
    Much,
}

/// A directory that is watched.
pub struct Changes {
    directory: File,
    /// What the system writes to until it is asked to stop: neither moves.
    told: Box<Told>,
    /// The system has been asked and has not answered.
    asked: bool,
}

struct Told {
    state: OVERLAPPED,
    room: [u32; ROOM_WORDS],
}

// SAFETY: the pointers within the state are the system's own, and of this process.
unsafe impl Send for Changes {}

impl Changes {
    /// Begins to watch.
    ///
    /// # Errors
    /// The system's.
    pub fn of(directory: &Path) -> io::Result<Self> {
        // Whoever wants to remove or rename what is in it is in nobody's way.
        let directory = OpenOptions::new()
            .access_mode(FILE_LIST_DIRECTORY)
            .share_mode(FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE)
            .custom_flags(FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OVERLAPPED)
            .open(directory)?;
        let told = Box::new(Told { state: OVERLAPPED::default(), room: [0; ROOM_WORDS] });
        let mut changes = Self { directory, told, asked: false };
        changes.ask()?;
        Ok(changes)
    }

    fn ask(&mut self) -> io::Result<()> {
        self.told.state = OVERLAPPED::default();
        let bytes = u32::try_from(size_of_val(&self.told.room)).unwrap_or(0);
        let told = &raw mut *self.told;
        // SAFETY: the room and the state are ours, lie where they lie until the system is done (see `drop`), and are
        // touched by nobody else before.
        let asked = unsafe {
            ReadDirectoryChangesW(
                self.directory.as_raw_handle(),
                (&raw mut (*told).room).cast(),
                bytes,
                0,
                FILE_NOTIFY_CHANGE_FILE_NAME | FILE_NOTIFY_CHANGE_DIR_NAME,
                null_mut(),
                &raw mut (*told).state,
                None,
            )
        };
        if asked == 0 {
            return Err(io::Error::last_os_error());
        }
        self.asked = true;
        Ok(())
    }

    /// The system's answer: how many bytes it has written. `wait`: until there is one.
    fn answer(&mut self, wait: bool) -> io::Result<usize> {
        let mut bytes = 0;
        // SAFETY: the state is the one that the system was asked with.
        let done = unsafe {
            let state = &raw const self.told.state;
            GetOverlappedResult(self.directory.as_raw_handle(), state, &raw mut bytes, wait.into())
        };
        if done == 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(bytes as usize)
    }

    /// What has happened since the last look.
    ///
    /// # Errors
    /// The system's; the directory itself may be gone.
    pub fn look(&mut self) -> io::Result<Changed> {
        let code = |e: &io::Error| e.raw_os_error().map(i32::cast_unsigned);
        match self.answer(false) {
            Err(e) if code(&e) == Some(ERROR_IO_INCOMPLETE) => Ok(Changed::Nothing),
            Err(e) => {
                self.asked = false;
                if code(&e) == Some(ERROR_NOTIFY_ENUM_DIR) { Ok(Changed::Much) } else { Err(e) }
            }
            Ok(bytes) => {
                self.asked = false;
                let names = names(&self.told.room[..bytes.div_ceil(size_of::<u32>()).min(ROOM_WORDS)]);
                self.ask()?;
                Ok(if names.is_empty() { Changed::Much } else { Changed::Names(names) })
            }
        }
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        if self.asked {
            // SAFETY: the handle is ours. What was asked for is over when this has been waited for.
            unsafe { CancelIoEx(self.directory.as_raw_handle(), &raw const self.told.state) };
            let _ = self.answer(true);
        }
    }
}

/// The names in what the system wrote.
fn names(told: &[u32]) -> Vec<OsString> {
    let mut names = Vec::new();
    let mut at = 0;
    while let Some([next, _, length]) = told.get(at..).and_then(<[u32]>::first_chunk::<HEAD_WORDS>) {
        let units = told[at + HEAD_WORDS..].iter().flat_map(|word| {
            let [a, b, c, d] = word.to_ne_bytes();
            [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])]
        });
        let units: Vec<u16> = units.take(*length as usize / size_of::<u16>()).collect();
        names.push(OsString::from_wide(&units));
        if *next == 0 {
            break;
        }
        at += *next as usize / size_of::<u32>();
    }
    names
}
