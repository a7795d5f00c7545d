//! Who we are to Windows, and what only we may open: identities, owners and security descriptors.
#![expect(unsafe_code, reason = "the system's calls on tokens and security descriptors have no safe form")]

use std::ffi::{OsStr, c_void};
use std::io;
use std::os::windows::ffi::OsStrExt;
use std::os::windows::io::{AsRawHandle, BorrowedHandle, FromRawHandle, OwnedHandle};
use std::ptr::null_mut;

use windows_sys::Win32::Foundation::{LocalFree, WIN32_ERROR};
use windows_sys::Win32::Security::Authorization::{
    ConvertSidToStringSidW, ConvertStringSecurityDescriptorToSecurityDescriptorW, GetSecurityInfo,
    SDDL_REVISION_1, SE_FILE_OBJECT, SE_KERNEL_OBJECT, SE_OBJECT_TYPE, SetSecurityInfo,
};
use windows_sys::Win32::Security::{
    DACL_SECURITY_INFORMATION, GetSecurityDescriptorDacl, GetTokenInformation, OWNER_SECURITY_INFORMATION,
    PROTECTED_DACL_SECURITY_INFORMATION, PSID, SECURITY_ATTRIBUTES, TOKEN_OWNER, TOKEN_QUERY, TOKEN_USER,
    TokenOwner, TokenUser,
};
use windows_sys::Win32::System::Threading::{GetCurrentProcess, OpenProcessToken};

/// Words that a token's user or owner takes at most: a pointer, attributes, and an identity of 68 bytes.
const TOKEN_WORDS_MAX: usize = 32;

/// The identity that this process runs as, as text (`S-1-5-…`).
///
/// # Errors
/// The system's.
pub fn own_user() -> io::Result<String> {
    token_text(TokenUser, |words| {
        // SAFETY: the system has filled the buffer, aligned for it, with this structure.
        unsafe { (*words.cast::<TOKEN_USER>()).User.Sid }
    })
}

/// The identity that owns what this process makes: the user, or the administrators' group for one of them.
fn own_owner() -> io::Result<String> {
    token_text(TokenOwner, |words| {
        // SAFETY: as above.
        unsafe { (*words.cast::<TOKEN_OWNER>()).Owner }
    })
}

fn token_text(class: i32, identity: impl FnOnce(*const u64) -> PSID) -> io::Result<String> {
    let mut token = null_mut();
    // SAFETY: the pseudo handle of this process is always good, and the result is written on success only.
    let opened = unsafe { OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &raw mut token) };
    if opened == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else's.
    let token = unsafe { OwnedHandle::from_raw_handle(token) };
    let mut words = [0_u64; TOKEN_WORDS_MAX];
    let mut bytes = 0;
    // SAFETY: the buffer is of the length given, and outlives the call.
    let told = unsafe {
        let room = u32::try_from(size_of_val(&words)).unwrap_or(0);
        GetTokenInformation(token.as_raw_handle(), class, words.as_mut_ptr().cast(), room, &raw mut bytes)
    };
    if told == 0 {
        return Err(io::Error::last_os_error());
    }
    text_of(identity(words.as_ptr()))
}

/// An identity as text. It must be valid, or null.
fn text_of(identity: PSID) -> io::Result<String> {
    let mut text = null_mut();
    // SAFETY: the caller's identity is valid while this runs; the text is written on success only.
    if unsafe { ConvertSidToStringSidW(identity, &raw mut text) } == 0 {
        return Err(io::Error::last_os_error());
    }
    let mut units = Vec::new();
    // SAFETY: the system ends the text with a zero, and it is freed once, after it was copied.
    unsafe {
        let mut at = text;
        while *at != 0 {
            units.push(*at);
            at = at.add(1);
        }
        LocalFree(text.cast());
    }
    Ok(String::from_utf16_lossy(&units))
}

/// Whether what `handle` leads to, a pipe, is owned by the very user that we are: ours say so themselves.
///
/// # Errors
/// The system's.
pub fn owns_pipe(handle: BorrowedHandle<'_>) -> io::Result<bool> {
    Ok(owner(handle, SE_KERNEL_OBJECT)? == own_user()?)
}

/// Whether what `handle` leads to, a file or directory, is owned by the user that we are, or as what we make is.
///
/// # Errors
/// The system's.
pub fn owns_file(handle: BorrowedHandle<'_>) -> io::Result<bool> {
    let owner = owner(handle, SE_FILE_OBJECT)?;
    Ok(owner == own_user()? || owner == own_owner()?)
}

fn owner(handle: BorrowedHandle<'_>, kind: SE_OBJECT_TYPE) -> io::Result<String> {
    let (mut owner, mut descriptor) = (null_mut(), null_mut());
    // SAFETY: the handle is borrowed for the call; the results are written on success only.
    let outcome = unsafe {
        GetSecurityInfo(
            handle.as_raw_handle(),
            kind,
            OWNER_SECURITY_INFORMATION,
            &raw mut owner,
            null_mut(),
            null_mut(),
            null_mut(),
            &raw mut descriptor,
        )
    };
    succeeded(outcome)?;
    let text = text_of(owner);
    // SAFETY: it holds the owner, which was read, and is freed once.
    unsafe { LocalFree(descriptor) };
    text
}

/// Access for us, and for the system where it says so.
#[derive(Debug)]
pub struct OwnerOnly {
    descriptor: *mut c_void,
}

// SAFETY: the descriptor is this value's alone, and is never changed after it was made.
unsafe impl Send for OwnerOnly {}
// SAFETY: as above.
unsafe impl Sync for OwnerOnly {}

impl OwnerOnly {
    /// For a service's pipe: we may do anything, everybody else nothing.
    ///
    /// # Errors
    /// The system's.
    #[cfg(feature = "async")]
    pub fn pipe() -> io::Result<Self> {
        let user = own_user()?;
        Self::parse(&format!("O:{user}D:P(A;;GA;;;{user})"))
    }

    /// For a directory and what is made in it: we and the system may do anything, everybody else nothing.
    ///
    /// # Errors
    /// The system's.
    pub fn directory() -> io::Result<Self> {
        let user = own_user()?;
        Self::parse(&format!("D:P(A;OICI;FA;;;{user})(A;OICI;FA;;;SY)"))
    }

    fn parse(text: &str) -> io::Result<Self> {
        let text = wide(text.as_ref());
        let mut descriptor = null_mut();
        // SAFETY: the text ends with a zero; the result is written on success only.
        let made = unsafe {
            ConvertStringSecurityDescriptorToSecurityDescriptorW(
                text.as_ptr(),
                SDDL_REVISION_1,
                &raw mut descriptor,
                null_mut(),
            )
        };
        if made == 0 { Err(io::Error::last_os_error()) } else { Ok(Self { descriptor }) }
    }

    /// Calls `with` with these as attributes of something to be made, good for as long as it runs.
    pub fn with_attributes<T>(&self, with: impl FnOnce(*mut SECURITY_ATTRIBUTES) -> T) -> T {
        let mut attributes = SECURITY_ATTRIBUTES {
            nLength: u32::try_from(size_of::<SECURITY_ATTRIBUTES>()).unwrap_or(0),
            lpSecurityDescriptor: self.descriptor,
            bInheritHandle: 0,
        };
        with(&raw mut attributes)
    }

    /// Takes from others what they may do with the directory that `handle` leads to (opened with `WRITE_DAC`).
    ///
    /// # Errors
    /// The system's.
    pub fn narrow(&self, handle: BorrowedHandle<'_>) -> io::Result<()> {
        let (mut present, mut defaulted, mut list) = (0, 0, null_mut());
        // SAFETY: the descriptor is valid for as long as this value is; the list lies within it.
        let outcome = unsafe {
            let parts = (&raw mut present, &raw mut list, &raw mut defaulted);
            if GetSecurityDescriptorDacl(self.descriptor, parts.0, parts.1, parts.2) == 0 {
                return Err(io::Error::last_os_error());
            }
            SetSecurityInfo(
                handle.as_raw_handle(),
                SE_FILE_OBJECT,
                DACL_SECURITY_INFORMATION | PROTECTED_DACL_SECURITY_INFORMATION,
                null_mut(),
                null_mut(),
                list,
                null_mut(),
            )
        };
        succeeded(outcome)
    }
}

impl Drop for OwnerOnly {
    fn drop(&mut self) {
        // SAFETY: made by the system for us to free, and freed once.
        unsafe { LocalFree(self.descriptor) };
    }
}

fn succeeded(outcome: WIN32_ERROR) -> io::Result<()> {
    if outcome == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(outcome.cast_signed())) }
}

/// A text as the system takes it: UTF-16, ended by a zero.
pub fn wide(text: &OsStr) -> Vec<u16> {
    text.encode_wide().chain([0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_have_an_identity_and_own_what_we_make() {
        assert!(own_user().unwrap().starts_with("S-1-"), "{:?}", own_user());
        assert!(own_owner().unwrap().starts_with("S-1-"));
        let file = tempfile::tempfile().unwrap();
        assert!(owns_file(std::os::windows::io::AsHandle::as_handle(&file)).unwrap());
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(OwnerOnly::parse("D:P(A;;nonsense;;;S-1-1-0)").is_err());
    }
}
