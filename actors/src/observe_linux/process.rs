//! What the kernel tells of an observed process.

/// The base name of the program that a thread executes.
pub fn program_of(tid: u32) -> Option<Vec<u8>> {
    let path = rustix::fs::readlink(format!("/proc/{tid}/exe"), Vec::new()).ok()?.into_bytes();
    path.rsplit(|&b| b == b'/').next().map(<[u8]>::to_vec)
}

/// The process that a thread belongs to.
pub fn leader_of(tid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}
