//! The world that paths are looked up in: a client in another mount namespace or behind another root (a chroot, a
//! container that shares our runtime directory) means other files by the same names.

use std::sync::OnceLock;

use crate::sys::fs::{AtFlags, CWD};

use crate::signature::Signature;

/// Device and inode of a mount namespace and of a root directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct World {
    namespace: (u64, u64),
    root: (u64, u64),
}

impl World {
    fn of(process: &str) -> Option<Self> {
        let look = |what: &str| {
            let s = Signature::at(CWD, format!("/proc/{process}/{what}"), AtFlags::empty()).ok()?;
            Some((s.dev, s.ino))
        };
        Some(Self { namespace: look("ns/mnt")?, root: look("root")? })
    }
}

/// Whether process `pid` means the same files by the same paths as we do. Without `/proc` nobody can tell; then
/// there is no container's either, and the answer is yes.
pub fn is_ours(pid: u32) -> bool {
    static OURS: OnceLock<Option<World>> = OnceLock::new();
    match OURS.get_or_init(|| World::of("self")) {
        Some(ours) => World::of(&pid.to_string()).as_ref() == Some(ours),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_live_in_our_world_and_nobody_is_in_none() {
        assert!(is_ours(std::process::id()));
        assert!(!is_ours(u32::MAX));
    }
}
