//! Paths as callers have them.

use std::borrow::Cow;
use std::ffi::{CStr, OsStr};
use std::path::{Path, PathBuf};

use super::OsStrExt;

/// Whatever is a path.
pub trait Arg {
    /// The path.
    fn to_path(&self) -> Cow<'_, Path>;
}

fn of_bytes(bytes: &[u8]) -> Cow<'_, Path> {
    Cow::Borrowed(Path::new(<OsStr as OsStrExt>::from_bytes(bytes)))
}

impl Arg for [u8] {
    fn to_path(&self) -> Cow<'_, Path> {
        of_bytes(self)
    }
}

impl Arg for Vec<u8> {
    fn to_path(&self) -> Cow<'_, Path> {
        of_bytes(self)
    }
}

impl Arg for CStr {
    fn to_path(&self) -> Cow<'_, Path> {
        of_bytes(self.to_bytes())
    }
}

impl Arg for str {
    fn to_path(&self) -> Cow<'_, Path> {
        Cow::Borrowed(Path::new(self))
    }
}

impl Arg for String {
    fn to_path(&self) -> Cow<'_, Path> {
        Cow::Borrowed(Path::new(self))
    }
}

impl Arg for Path {
    fn to_path(&self) -> Cow<'_, Path> {
        Cow::Borrowed(self)
    }
}

impl Arg for PathBuf {
    fn to_path(&self) -> Cow<'_, Path> {
        Cow::Borrowed(self)
    }
}

impl<T: Arg + ?Sized> Arg for &T {
    fn to_path(&self) -> Cow<'_, Path> {
        (**self).to_path()
    }
}
