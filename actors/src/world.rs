//! The world that paths are looked up in: a client in another mount namespace or behind another root (a chroot, a
//! container that shares our runtime directory) means other files by the same names.

use std::sync::OnceLock;

use zccache_proto::root::Root;

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

/// Whether process `pid`, which waits for us, means the same files by the same paths as we do. It says what its `root`
/// is, where its kernel tells; else it is looked for in `/proc`. Without that nobody can tell; then there is no
/// container's either, and the answer is yes.
pub fn is_ours(pid: u32, root: Option<Root>) -> bool {
    static ROOT: OnceLock<Option<Root>> = OnceLock::new();
    match (ROOT.get_or_init(Root::ours), root) {
        (Some(ours), Some(theirs)) => *ours == theirs,
        _ => is_ours_by_proc(pid),
    }
}

fn is_ours_by_proc(pid: u32) -> bool {
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
        assert!(is_ours(std::process::id(), None));
        assert!(!is_ours(u32::MAX, None));
        let ours = Root::ours();
        assert!(is_ours(std::process::id(), ours));
        let elsewhere = [
            ours.map(|root| Root { mount: root.mount + 1, ..root }),
            ours.map(|root| Root { inode: root.inode + 1, ..root }),
        ];
        assert!(elsewhere.iter().flatten().all(|&root| !is_ours(std::process::id(), Some(root))));
    }
}
