//! Where a process's paths begin: its root directory, told from all others that there are at the time.

use serde::{Deserialize, Serialize};

/// A root directory, by the mount that it is reached by. A mount is in one mount namespace alone, and no two that are
/// there at the same time have one number: so two processes with equal roots, both alive, mean the same files by the
/// same absolute paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// The mount's number (statx(2): `stx_mnt_id`).
    pub mount: u64,
    /// The directory's device: major and minor number.
    pub device: (u32, u32),
    /// The directory's inode.
    pub inode: u64,
}

impl Root {
    /// This process's own. `None` where the system does not tell mounts by numbers (before Linux 5.8, or no Linux).
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn ours() -> Option<Self> {
        use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
        let s = statx(CWD, c"/", AtFlags::empty(), StatxFlags::INO | StatxFlags::MNT_ID).ok()?;
        StatxFlags::from_bits_retain(s.stx_mask).contains(StatxFlags::MNT_ID).then_some(Self {
            mount: s.stx_mnt_id,
            device: (s.stx_dev_major, s.stx_dev_minor),
            inode: s.stx_ino,
        })
    }

    /// See above.
    #[cfg(not(target_os = "linux"))]
    #[must_use]
    pub fn ours() -> Option<Self> {
        None
    }
}
