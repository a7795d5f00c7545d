//! How names are spelled on Windows: paths and lists of them, programs, variables. The twin of `spelling_unix.rs`.
//!
//! Compilers there are handed paths with either slash, and spell them in every mixture. Here they are taken apart at
//! slashes alone, so whatever comes from outside is made [`plain`] first; to the system both mean the same.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::PathBuf;

use crate::sys::OsStrExt;

pub use zccache_proto::spelling::is_absolute;

/// What may stand for no input at all on a compiler's command line: standard input, which is empty.
pub const NO_INPUT: &str = "-";

/// The extension of programs.
const EXE: &[u8] = b".exe";

/// The extensions that the programs of gcc try, in their order (libiberty's `pex-win32.c`).
const STARTED: [&str; 5] = [".com", ".exe", ".bat", ".cmd", ""];

/// Characters that no name of a file has, or that mean something else within one.
const SPECIAL: &[u8] = b":*?\"<>|";

/// Whether this stands between a directory and a name.
pub fn is_separator(b: u8) -> bool {
    matches!(b, b'/' | b'\\')
}

/// What the system puts before a full path that is to be taken to the letter.
const TO_THE_LETTER: &[u8] = br"\\?\";

/// A path as the rest of this crate takes it apart: at slashes.
pub fn plain(path: &[u8]) -> Cow<'_, [u8]> {
    let path = path.strip_prefix(TO_THE_LETTER).unwrap_or(path);
    if path.contains(&b'\\') {
        Cow::Owned(path.iter().map(|&b| if b == b'\\' { b'/' } else { b }).collect())
    } else {
        Cow::Borrowed(path)
    }
}

/// Where an absolute path begins, with its slash, and the rest of it; nothing for any other.
pub fn split_root(path: &[u8]) -> Option<(&[u8], &[u8])> {
    matches!(path, [drive, b':', b'/', ..] if drive.is_ascii_alphabetic()).then(|| path.split_at(3))
}

/// Why a compiler may take this plain name for another one than we do, if it may: compilers read names in one character
/// set or another, and the system leaves out dots and spaces at the end, has streams of files, devices in every
/// directory, and a directory of its own for each drive.
pub fn oddness(path: &[u8]) -> Option<&'static str> {
    let rest = split_root(path).map_or(path, |(_, rest)| rest);
    let is_short = |part: &[u8]| part == b"." || part == b"..";
    let is_cut = |part: &[u8]| !is_short(part) && matches!(part.last(), Some(b'.' | b' '));
    if !path.is_ascii() {
        Some("a name that is not ASCII")
    } else if rest.starts_with(b"/") {
        Some("a path from the root of a drive, or of a share")
    } else if rest.iter().any(|b| SPECIAL.contains(b) || b.is_ascii_control()) {
        Some("a name with a special character")
    } else if rest.split(|&b| b == b'/').any(is_cut) {
        Some("a name that ends with a dot or a space")
    } else if rest.split(|&b| b == b'/').any(is_device) {
        Some("a device")
    } else {
        None
    }
}

/// Whether a name, whatever its extension, is that of a device ("Naming Files, Paths, and Namespaces").
fn is_device(name: &[u8]) -> bool {
    let stem = name.split(|&b| b == b'.').next().unwrap_or_default().trim_ascii_end().to_ascii_lowercase();
    match &stem[..] {
        b"con" | b"prn" | b"aux" | b"nul" | b"conin$" | b"conout$" => true,
        [b'c', b'o', b'm', digit] | [b'l', b'p', b't', digit] => digit.is_ascii_digit(),
        _ => false,
    }
}

/// The paths in a list such as `PATH` is, all plain.
pub fn list(list: &[u8]) -> Vec<Vec<u8>> {
    list.split(|&b| b == b';').map(|path| plain(path).into_owned()).collect()
}

/// A program's name as tables have it, from the name of its file.
pub fn program(file: &[u8]) -> Cow<'_, [u8]> {
    let name = file.to_ascii_lowercase();
    Cow::Owned(name.strip_suffix(EXE).map(<[u8]>::to_vec).unwrap_or(name))
}

/// The names that the file of a program may have, the first that is there being the one.
pub fn program_files(name: &str) -> Vec<Vec<u8>> {
    STARTED.iter().map(|extension| format!("{name}{extension}").into_bytes()).collect()
}

/// A variable's name as tables have it: their case means nothing here.
pub fn variable(name: &[u8]) -> Cow<'_, [u8]> {
    Cow::Owned(name.to_ascii_uppercase())
}

/// How a program at `path` is started so that it is called `name`. It learns its name from how it is started, so it is
/// started without its extension if it was called without: tools put their names before what they say.
pub fn called(path: PathBuf, name: &[u8]) -> PathBuf {
    let name = plain(name);
    let name = name.rsplit(|&b| b == b'/').next().unwrap_or_default();
    let file = path.file_name().map(|file| file.as_bytes().to_ascii_lowercase()).unwrap_or_default();
    let lower = name.to_ascii_lowercase();
    let is_without = file.strip_suffix(EXE) == Some(&lower[..]);
    if lower == file || is_without { path.with_file_name(OsStr::from_bytes(name)) } else { path }
}

/// Characters that programs take apart for themselves when they start: patterns of names, and quotes of another kind.
const TAKEN_APART: &[u8] = b"*?['";

/// Whether programs may take this argument for others than it is when it is handed to them by us: a command line is one
/// text, which each program takes apart by its own rules, by what was quoted in it among others.
pub fn is_expanded(argument: &[u8]) -> bool {
    argument.iter().any(|b| TAKEN_APART.contains(b))
}
