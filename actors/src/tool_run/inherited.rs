//! What a tool would have inherited from its client, had that started it: limits, priority, processors, signals.

#![expect(unsafe_code, reason = "prlimit and sched_getaffinity of another process")]

use std::ffi::c_int;

use rustix::process::Pid;

/// Resources whose limits are inherited: all that Linux knows.
const RESOURCES_COUNT: usize = 16;

/// See the module.
#[derive(Default)]
pub struct Inherited {
    /// Resource limits, as far as they can be read: number of the resource, limit.
    pub limits: Vec<(usize, libc::rlimit)>,
    /// The nice value, if it can be read.
    pub nice: Option<c_int>,
    /// The processors that may be used, if they can be read: tools size their work by them.
    pub affinity: Option<libc::cpu_set_t>,
    /// Signals that are ignored, a bit each, the lowest for signal 1 (`nohup`).
    pub ignored_signals: u64,
    /// Signals that are blocked, likewise.
    pub blocked_signals: u64,
}

impl Inherited {
    /// What the children of process `client` inherit.
    pub fn of(client: libc::pid_t) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{client}/status")).unwrap_or_default();
        Self {
            limits: limits_of(client),
            nice: nice_of(client),
            affinity: affinity_of(client),
            ignored_signals: signal_set(&status, "SigIgn:"),
            blocked_signals: signal_set(&status, "SigBlk:"),
        }
    }

    /// All of it, as bytes that differ where it does.
    pub fn describe(&self) -> Vec<u8> {
        let limits = self.limits.iter().map(|(resource, l)| (*resource, l.rlim_cur, l.rlim_max));
        // SAFETY: a set of processors is an array of words without gaps.
        let processors = self.affinity.as_ref().map(|set| unsafe {
            std::slice::from_raw_parts(std::ptr::from_ref(set).cast::<u8>(), size_of::<libc::cpu_set_t>())
        });
        let signals = (self.ignored_signals, self.blocked_signals);
        format!("{:?} {:?} {processors:?} {signals:?}", limits.collect::<Vec<_>>(), self.nice).into_bytes()
    }
}

fn limits_of(client: libc::pid_t) -> Vec<(usize, libc::rlimit)> {
    let mut limits = Vec::with_capacity(RESOURCES_COUNT);
    for resource in 0..RESOURCES_COUNT {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: reads into a live value; asks for no change.
        if unsafe { libc::prlimit(client, resource as _, std::ptr::null(), &mut limit) } == 0 {
            limits.push((resource, limit));
        }
    }
    limits
}

fn nice_of(client: libc::pid_t) -> Option<c_int> {
    rustix::process::getpriority_process(Pid::from_raw(client)).ok()
}

fn affinity_of(client: libc::pid_t) -> Option<libc::cpu_set_t> {
    // SAFETY: all zeroes is an empty set; the kernel fills it up to its size.
    unsafe {
        let mut cpus = std::mem::zeroed::<libc::cpu_set_t>();
        (libc::sched_getaffinity(client, size_of::<libc::cpu_set_t>(), &mut cpus) == 0).then_some(cpus)
    }
}

/// A set of signals in the text of `/proc/PID/status`; the empty one if it is not there.
fn signal_set(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_signals_are_read_and_show_in_the_description() {
        let status = "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001000\n";
        assert_eq!(signal_set(status, "SigIgn:"), 1 << 12);
        assert_eq!(signal_set(status, "SigCgt:"), 0);
        let own = Inherited::of(rustix::process::getpid().as_raw_nonzero().get());
        let other = Inherited { ignored_signals: own.ignored_signals ^ 1, ..Inherited::default() };
        assert_ne!(own.describe(), other.describe());
        assert!(!own.limits.is_empty() && own.nice.is_some() && own.affinity.is_some());
    }
}
