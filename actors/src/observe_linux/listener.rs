//! The kernel's side of the conversation: receiving notifications, reading the arguments they point to, and
//! letting the calls go on.
//!
//! Nearly every answer is "go on as if nobody had asked": this observer changes nothing. The others are the client's
//! terminal, which is not the one of our own session, and the loader's list, through which the interposer is loaded.

#![expect(unsafe_code, reason = "seccomp ioctls and process_vm_readv, which no safe wrapper offers")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

/// Set on a listener, the kernel runs the observer on the asking task's processor and back, without the
/// scheduler's detours (linux/seccomp.h: `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP`, kernel 6.6).
const SYNC_WAKE_UP: libc::c_ulong = 1;

/// The smallest page of any system: a read up to such a boundary cannot fail half-way.
const PAGE_BYTES: u64 = 4096;

/// Most paths are shorter than this, in bytes; the rest costs another read.
const FIRST_READ_BYTES: u64 = 256;

/// The longest path the kernel takes, in bytes, its NUL included.
pub const PATH_BYTES_MAX: usize = libc::PATH_MAX as usize;

/// Room for the kernel's structure, in words of 8 bytes; today's is 10.
const REQUEST_WORDS_MAX: usize = 64;

/// A system call that waits for us.
#[derive(Debug, Clone, Copy)]
pub struct Notification {
    /// What to answer to.
    pub id: u64,
    /// The thread that made it.
    pub tid: u32,
    /// The architecture whose numbers count.
    pub architecture: u32,
    /// The call's number.
    pub number: i32,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// Receives and answers.
pub struct Listener {
    fd: OwnedFd,
    request: Box<[u64; REQUEST_WORDS_MAX]>,
    request_bytes: usize,
}

impl Listener {
    /// Takes a filter's listener.
    ///
    /// # Errors
    /// If the kernel's structures are larger than any we know.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let mut sizes =
            libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
        // SAFETY: the kernel fills the structure it is given.
        let result =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, &raw mut sizes) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let request_bytes = usize::from(sizes.seccomp_notif).max(size_of::<libc::seccomp_notif>());
        has_room_for(request_bytes)?;
        // SAFETY: takes a plain number. Older kernels refuse it, which costs time alone.
        unsafe { libc::ioctl(fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
        Ok(Self { fd, request: Box::new([0; REQUEST_WORDS_MAX]), request_bytes })
    }

    /// The next call that waits. None if the one that was there is gone (its thread was killed).
    ///
    /// # Errors
    /// Those of the `ioctl`; the listener is of no use then.
    pub fn receive(&mut self) -> io::Result<Option<Notification>> {
        // The kernel wants its structure zeroed.
        self.request[..self.request_bytes.div_ceil(8)].fill(0);
        let request = self.request.as_mut_ptr().cast::<libc::seccomp_notif>();
        // SAFETY: the buffer has room for the kernel's structure, by the check in `new`.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, request) };
        if result < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::ENOENT | libc::EINTR) => Ok(None),
                _ => Err(error),
            };
        }
        // SAFETY: aligned (words of 8 bytes), initialised, and filled by the kernel; all fields are numbers.
        let r = unsafe { &*request };
        Ok(Some(Notification {
            id: r.id,
            tid: r.pid,
            architecture: r.data.arch,
            number: r.data.nr,
            arguments: r.data.args,
        }))
    }

    /// Lets the call go on, unless it has ended. If its thread is gone there is nobody to tell.
    pub fn resume(&self, id: u64) {
        self.answer(id, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32);
    }

    /// Ends the call, as one that went well and gives 0. Says whether that could be done.
    pub fn succeed(&self, id: u64) -> bool {
        self.answer(id, 0)
    }

    fn answer(&self, id: u64, flags: u32) -> bool {
        let mut response = libc::seccomp_notif_resp { id, val: 0, error: 0, flags };
        loop {
            // SAFETY: the kernel reads the structure it is given.
            let result = unsafe {
                libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response)
            };
            if result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
                return result == 0;
            }
        }
    }

    /// Ends the call with a copy of this descriptor. Says whether that could be done (kernel 5.14); else it still waits.
    pub fn give(&self, id: u64, fd: BorrowedFd<'_>, closes_on_exec: bool) -> bool {
        let mut gift = libc::seccomp_notif_addfd {
            id,
            flags: libc::SECCOMP_ADDFD_FLAG_SEND as u32,
            srcfd: fd.as_raw_fd().cast_unsigned(),
            newfd: 0,
            newfd_flags: if closes_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
        };
        // SAFETY: the kernel reads the structure it is given.
        unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw mut gift) >= 0 }
    }

    /// Whether the call still waits, so that what was read of its thread was that thread's.
    pub fn is_valid(&self, id: u64) -> bool {
        // SAFETY: the kernel reads the number it is given.
        unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn has_room_for(request_bytes: usize) -> io::Result<()> {
    if request_bytes > REQUEST_WORDS_MAX * 8 {
        return Err(io::Error::other("the kernel's notifications are too large"));
    }
    Ok(())
}

/// Reads the string at `address` of thread `tid` into `string`, without its NUL.
///
/// # Errors
/// `FAULT` if it is not readable memory and `NAMETOOLONG` if it is longer than any path: the call will end so
/// itself. Others (`PERM`, `SRCH`) if the memory could not be looked at.
pub fn read_string(tid: u32, address: u64, string: &mut Vec<u8>) -> Result<(), Errno> {
    string.clear();
    let mut want = FIRST_READ_BYTES;
    while string.len() < PATH_BYTES_MAX {
        let from = address.wrapping_add(string.len() as u64);
        let bytes = want.min(PAGE_BYTES - from % PAGE_BYTES).min((PATH_BYTES_MAX - string.len()) as u64);
        let start = string.len();
        string.resize(start + bytes as usize, 0);
        let got = read_memory(tid, from, &mut string[start..])?;
        string.truncate(start + got);
        if let Some(end) = string[start..].iter().position(|&b| b == 0) {
            string.truncate(start + end);
            return Ok(());
        }
        want = PAGE_BYTES;
    }
    Err(Errno::NAMETOOLONG)
}

/// Reads up to `buffer.len()` bytes at `address` of thread `tid`; gives how many, at least one.
///
/// # Errors
/// As [`read_string`].
pub fn read_memory(tid: u32, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let here = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let there = libc::iovec { iov_base: address as *mut _, iov_len: buffer.len() };
    // SAFETY: writes at most `buffer.len()` bytes into `buffer`; the other address is not ours to use.
    let got = unsafe { libc::process_vm_readv(tid as libc::pid_t, &here, 1, &there, 1, 0) };
    match got {
        1.. => Ok(got.unsigned_abs()),
        0 => Err(Errno::FAULT),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_as_long_as_the_kernel_takes_is_read_and_a_longer_one_is_none() {
        let mut text = vec![b'x'; PATH_BYTES_MAX + 1];
        text[PATH_BYTES_MAX] = 0;
        let mut read = Vec::new();
        // Its NUL counts.
        let address = text.as_ptr() as u64;
        assert_eq!(read_string(std::process::id(), address, &mut read), Err(Errno::NAMETOOLONG));
        assert_eq!(read_string(std::process::id(), address + 1, &mut read), Ok(()));
        assert_eq!(read, text[1..PATH_BYTES_MAX]);
    }

    #[test]
    fn a_kernel_whose_notifications_are_larger_than_the_room_for_them_is_not_listened_to() {
        assert!(has_room_for(REQUEST_WORDS_MAX * 8).is_ok());
        assert!(has_room_for(REQUEST_WORDS_MAX * 8 + 1).is_err());
    }
}
