//! Processes that may have so much memory together and no more: then the kernel kills one of them, as it does on a
//! machine that has none left. Control groups of either version; they take root, and a kernel that has them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::{Sandbox, wait};

/// Where control groups of the first version have those for memory.
const FIRST: &str = "/sys/fs/cgroup/memory";

/// Where those of the second are.
const SECOND: &str = "/sys/fs/cgroup";

/// A group of processes, gone when dropped; they must have ended by then.
#[derive(Debug)]
pub struct MemoryGroup {
    directory: PathBuf,
    limit: &'static str,
    usage: &'static str,
    events: &'static str,
}

impl MemoryGroup {
    /// One that may have `bytes`. `None` where there are no such groups, or no leave to make one.
    pub fn new(bytes: u64) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("zct-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let group = if Path::new(FIRST).join("memory.limit_in_bytes").exists() {
            Self {
                directory: Path::new(FIRST).join(name),
                limit: "memory.limit_in_bytes",
                usage: "memory.usage_in_bytes",
                events: "memory.oom_control",
            }
        } else {
            std::fs::write(Path::new(SECOND).join("cgroup.subtree_control"), "+memory").ok()?;
            let directory = Path::new(SECOND).join(name);
            Self { directory, limit: "memory.max", usage: "memory.current", events: "memory.events" }
        };
        std::fs::create_dir(&group.directory).ok()?;
        group.limit_to(bytes).then_some(group)
    }

    /// The file of a group to which its processes are written.
    fn processes(&self) -> PathBuf {
        self.directory.join("cgroup.procs")
    }

    fn limit_to(&self, bytes: u64) -> bool {
        std::fs::write(self.directory.join(self.limit), bytes.to_string()).is_ok()
    }

    /// A command in the sandbox that is of this group from its start, as is all that it starts.
    pub fn command(&self, sandbox: &Sandbox, program: impl AsRef<OsStr>) -> Command {
        let mut command = sandbox.command("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]).arg(self.processes()).arg(program);
        command
    }

    /// How many processes the kernel has killed in it.
    ///
    /// # Panics
    /// If it does not tell.
    pub fn kills(&self) -> u64 {
        let text =
            std::fs::read_to_string(self.directory.join(self.events)).expect("a group tells its events");
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|count| count.trim().parse().ok()).expect("a group tells how many were killed")
    }

    /// Leaves the group no more than it has, again and again, until the kernel has killed one of it: `first`, who is
    /// put forward.
    ///
    /// # Panics
    /// If that does not come to pass.
    pub fn shrink_until_killed(&self, first: i32) {
        std::fs::write(format!("/proc/{first}/oom_score_adj"), "1000").expect("a process can be put forward");
        wait::until("the kernel kills for want of memory", || {
            let usage = std::fs::read_to_string(self.directory.join(self.usage)).unwrap_or_default();
            self.limit_to(usage.trim().parse().unwrap_or(u64::MAX));
            (self.kills() > 0 && !wait::is_alive(first)).then_some(())
        });
        self.limit_to(1 << 40);
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A process that has ended may be counted for a moment still.
        for _ in 0..200 {
            if std::fs::remove_dir(&self.directory).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}
