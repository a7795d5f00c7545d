//! What a tool would have inherited from its client, had that started it: limits, priority, processors.

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
}

impl Inherited {
    /// What the children of process `client` inherit.
    pub fn of(client: libc::pid_t) -> Self {
        Self { limits: limits_of(client), nice: nice_of(client), affinity: affinity_of(client) }
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
