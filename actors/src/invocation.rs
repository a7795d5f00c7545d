//! `Invocation`: what was typed, before anybody asked what it means.

use crate::sys::OsStrExt;
use std::ffi::OsStr;
use std::path::Path;

use zccache_proto::ByteStrings;
use zccache_proto::message::{Compile, Stdio};

/// One run of a tool as its user would have had it. Printed for debugging, it tells no values of variables.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The real tool's path, as found on `PATH`.
    pub tool: Vec<u8>,
    /// The arguments, `argv[0]` first.
    pub argv: ByteStrings,
    /// The absolute working directory.
    pub cwd: Vec<u8>,
    /// The environment, `NAME=value` each.
    pub env: ByteStrings,
    /// The file mode creation mask.
    pub umask: u32,
    /// What the standard streams are.
    pub stdio: Stdio,
}

impl Invocation {
    /// The working directory as a path.
    pub fn cwd_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.cwd))
    }

    /// The tool as a path.
    pub fn tool_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.tool))
    }
}

impl From<Compile> for Invocation {
    fn from(c: Compile) -> Self {
        Self { tool: c.tool, argv: c.argv, cwd: c.cwd, env: c.env, umask: c.umask, stdio: c.stdio }
    }
}
