//! The user's language, and the character set that programs take bytes for.
#![expect(unsafe_code, reason = "what the user has chosen has no safe form")]

use windows_sys::Win32::Globalization::{GetACP, GetUserDefaultLCID, GetUserDefaultUILanguage};

/// English as it is in the United States: what programs speak that are not translated.
const PLAIN_ENGLISH: u32 = 0x0409;

fn known() -> [u32; 3] {
    // SAFETY: plain calls.
    unsafe { [GetUserDefaultLCID(), GetUserDefaultUILanguage().into(), GetACP()] }
}

/// All of it, for keys.
pub fn locale() -> Vec<u8> {
    known().iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Whether programs speak plain English, unless told otherwise.
pub fn is_english() -> bool {
    known()[..2].iter().all(|language| *language == PLAIN_ENGLISH)
}
