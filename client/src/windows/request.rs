//! The request, on Windows: the twin of `request.rs`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use zccache_proto::ByteStrings;
use zccache_proto::message::{Compile, Stdio, StreamKind};

use crate::process::inherited;
use crate::wrapper::is_on;

/// The request for running `tool`, called `argv[0]`, here. `None` if our surroundings are so odd that the tool should see
/// them itself: no working directory, or nowhere to write to.
pub fn collect(tool: &Path, argv: &[OsString]) -> Option<Compile> {
    let cwd = std::env::current_dir().ok()?;
    let [stdin, stdout, stderr] = [0, 1, 2].map(|number| inherited(number).kind());
    if stdout == StreamKind::Closed || stderr == StreamKind::Closed {
        return None;
    }
    Some(Compile {
        tool: bytes(tool.as_os_str()),
        argv: argv.iter().map(|argument| bytes(argument)).collect(),
        cwd: bytes(cwd.as_os_str()),
        env: environment(),
        umask: 0,
        stdio: Stdio { stdin, stdout, stderr, merged: false },
        descriptors: Vec::new(),
        recache: is_on("ZCCACHE_RECACHE"),
        // The service's clock is its own.
        patient_until_ns: 0,
        root: None,
    })
}

/// In the standard library's own encoding: UTF-8 wherever it is text.
fn bytes(text: &OsStr) -> Vec<u8> {
    text.as_encoded_bytes().to_vec()
}

fn environment() -> ByteStrings {
    std::env::vars_os().map(|(name, value)| [&bytes(&name)[..], b"=", &bytes(&value)].concat()).collect()
}
