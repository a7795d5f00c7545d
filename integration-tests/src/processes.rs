//! Which processes there are, as `/proc` tells: those at work in a directory, and the services of a sandbox.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::{Sandbox, wait};

/// A process that was alive when it was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// The first 15 bytes of its name, as the kernel keeps it.
    pub name: String,
}

/// All processes whose working directory is `directory`.
pub fn working_in(directory: &Path) -> Vec<Process> {
    having(|entry| std::fs::read_link(entry.join("cwd")).is_ok_and(|cwd| cwd == directory))
}

/// The services whose runtime directory is the sandbox's.
pub fn services_of(sandbox: &Sandbox) -> Vec<Process> {
    let mut variable = OsStr::new("ZCCACHE_RUNTIME_DIR=").to_os_string();
    variable.push(sandbox.var("ZCCACHE_RUNTIME_DIR"));
    let mut found = having(|entry| {
        let environment = std::fs::read(entry.join("environ")).unwrap_or_default();
        environment.split(|&b| b == 0).any(|item| item == variable.as_bytes())
    });
    found.retain(|process| process.name == "zccache-service");
    found
}

/// The process that a descriptor table, session and directory are asked of.
///
/// # Panics
/// If `/proc` does not tell.
pub fn entry(pid: i32) -> PathBuf {
    let path = PathBuf::from(format!("/proc/{pid}"));
    assert!(path.is_dir(), "process {pid} is gone");
    path
}

/// The processes that `parent` has started and not reaped, ended ones included.
///
/// # Panics
/// If there is no `/proc`.
pub fn children_of(parent: i32) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("/proc is there").filter_map(Result::ok);
    let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    // Behind the name in parentheses: state, parent.
    let is_child = |stat: &String| {
        let parent_of = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        parent_of == Some(&parent.to_string())
    };
    stats.filter(is_child).collect()
}

/// Whether a process is stopped, as by SIGSTOP.
pub fn is_stopped(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state stands behind the name in parentheses.
    stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
}

/// The session that a process belongs to.
///
/// # Panics
/// If `/proc` does not tell.
pub fn session_of(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(entry(pid).join("stat")).expect("a process has a stat line");
    // Behind the name in parentheses: state, parent, group, session.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().nth(3);
    fields.and_then(|f| f.parse().ok()).expect("the session is a number")
}

fn having(condition: impl Fn(&Path) -> bool) -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").expect("/proc is there").filter_map(Result::ok);
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let name = std::fs::read_to_string(entry.path().join("comm")).ok()?.trim().to_string();
            (condition(&entry.path()) && wait::is_alive(pid)).then_some(Process { pid, name })
        })
        .collect()
}
