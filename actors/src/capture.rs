//! Capture: copying what a run left into the store, before anybody can change it.

use crate::sys::AsFd;
use std::fs::File;
use std::io;

use crate::sys::fs::{AtFlags, Mode, OFlags};

use crate::blobs::{Blobs, PendingBlob};
use crate::default_acl;
use crate::freshness::WorkingDirectory;
use crate::observer::{Effect, Left, Origin, Unstorable};
use crate::record::{Output, OutputFile};
use crate::signature::{FileKind, Signature};
use crate::sys::NEW_FILE_MODE;

/// The most bytes of one output that is captured (4 GiB): a larger one costs more to copy than most tools take.
const OUTPUT_BYTES_MAX: u64 = 4 << 30;

/// The most files of one run: a compile leaves a handful; a run that leaves thousands is an installation.
const OUTPUTS_MAX: usize = 1_000;

/// What a run left, and the contents on their way into the store.
#[derive(Debug, Default)]
pub struct Captured {
    /// In the order of the effects.
    pub outputs: Vec<Output>,
    /// One for each output that is a file.
    pub contents: Vec<PendingBlob>,
}

/// Copies the files of `effects`, as seen from `cwd`, of a run under `umask`.
///
/// A file that is written over keeps its mode; one that may be such is taken only with the mode that any new file gets,
/// as then it is as it would have been had there been none.
///
/// # Errors
/// `NotCaptured` with the reason: the run is then not stored.
pub fn capture(
    effects: &[Effect],
    blobs: &Blobs,
    cwd: &WorkingDirectory,
    umask: u32,
) -> Result<Captured, Unstorable> {
    if effects.len() > OUTPUTS_MAX {
        return Err(Unstorable::TooMany("outputs"));
    }
    let mut captured = Captured::default();
    for effect in effects {
        let file = match effect.left {
            Left::Removed => None,
            Left::File(origin) => {
                let failed = |e: io::Error| {
                    Unstorable::NotCaptured(format!("{}: {e}", String::from_utf8_lossy(&effect.path.0)))
                };
                let (mut file, content) = capture_file(&effect.path.0, blobs, cwd).map_err(failed)?;
                file.replaces = origin == Origin::Replaced;
                if origin == Origin::Kept && file.mode != NEW_FILE_MODE & !umask {
                    return Err(failed(io::Error::other("its mode may be an older file's")));
                }
                captured.contents.push(content);
                Some(file)
            }
        };
        captured.outputs.push(Output { path: effect.path.clone(), file });
    }
    Ok(captured)
}

fn capture_file(path: &[u8], blobs: &Blobs, cwd: &WorkingDirectory) -> io::Result<(OutputFile, PendingBlob)> {
    if default_acl::rules_place(cwd.fd(), path)? {
        return Err(io::Error::other("its mode is its directory's choice"));
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(crate::sys::fs::openat(cwd.fd(), path, flags, Mode::empty())?);
    let before = Signature::at(file.as_fd(), c"", AtFlags::EMPTY_PATH)?;
    if before.kind() != FileKind::File || before.size > OUTPUT_BYTES_MAX {
        return Err(io::Error::other("no regular file, or too large"));
    }
    let stat = crate::sys::fs::fstat(&file)?;
    if stat.st_nlink != 1 {
        return Err(io::Error::other("has several names"));
    }
    if stat.st_uid != crate::sys::process::geteuid().as_raw() {
        return Err(io::Error::other("is somebody else's"));
    }
    let content = blobs.receive(&mut file)?;
    if Signature::at(file.as_fd(), c"", AtFlags::EMPTY_PATH)? != before {
        return Err(io::Error::other("was changed while it was captured"));
    }
    let mode = before.mode & 0o7777;
    Ok((OutputFile { digest: content.digest, bytes: content.bytes, mode, replaces: false }, content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::Spelled;
    use std::os::unix::ffi::OsStrExt;

    const KEPT: Left = Left::File(Origin::Kept);

    #[test]
    fn files_are_captured_and_what_is_unusual_is_not() {
        let temp = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(&temp.path().join("store"));
        let cwd = WorkingDirectory::open(temp.path().as_os_str().as_bytes()).unwrap();
        let effect = |name: &str, left| Effect { path: Spelled(name.into()), left };
        std::fs::write(temp.path().join("a.o"), "object").unwrap();
        let mode = |mode: u32| {
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(temp.path().join("a.o"), permissions).unwrap();
        };
        mode(0o644);
        let capture = |effects: &[Effect]| capture(effects, &blobs, &cwd, 0o022);
        let captured = capture(&[effect("a.o", KEPT), effect("b.o", Left::Removed)]).unwrap();
        assert_eq!(captured.outputs[0].file.unwrap().bytes, 6);
        assert_eq!(captured.outputs[1].file, None);
        std::os::unix::fs::symlink("a.o", temp.path().join("link.o")).unwrap();
        assert!(capture(&[effect("link.o", KEPT)]).is_err());
        mode(0o755);
        assert!(capture(&[effect("a.o", KEPT)]).is_err());
        for (origin, replaces) in [(Origin::Made, false), (Origin::Replaced, true)] {
            let file = capture(&[effect("a.o", Left::File(origin))]).unwrap().outputs[0].file.unwrap();
            assert_eq!((file.mode, file.replaces), (0o755, replaces));
        }
        mode(0o644);
        std::fs::hard_link(temp.path().join("a.o"), temp.path().join("c.o")).unwrap();
        assert!(capture(&[effect("c.o", KEPT)]).is_err());
        assert!(capture(&[effect("missing.o", KEPT)]).is_err());
    }

    #[test]
    fn too_large_and_too_many_outputs_are_not_captured() {
        let temp = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(&temp.path().join("store"));
        let cwd = WorkingDirectory::open(temp.path().as_os_str().as_bytes()).unwrap();
        let capture = |effects: &[Effect]| capture(effects, &blobs, &cwd, 0o022);
        let removed = Effect { path: Spelled("a.o".into()), left: Left::Removed };
        assert!(capture(&vec![removed.clone(); OUTPUTS_MAX]).is_ok());
        let many = capture(&vec![removed; OUTPUTS_MAX + 1]);
        assert!(matches!(many, Err(Unstorable::TooMany("outputs"))));
        // All of it a hole, which takes no place.
        let large = File::create(temp.path().join("large.o")).unwrap();
        large.set_len(OUTPUT_BYTES_MAX + 1).unwrap();
        let made = Effect { path: Spelled("large.o".into()), left: Left::File(Origin::Made) };
        let why = capture(&[made]).unwrap_err().to_string();
        assert!(why.contains("too large"), "{why}");
    }
}
