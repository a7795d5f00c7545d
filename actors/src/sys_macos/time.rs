//! Clocks.

pub use rustix::time::Timespec;

/// Which clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockId {
    /// One that never goes back, the same for all processes.
    Monotonic,
    /// The one that files are stamped with.
    RealtimeCoarse,
}

/// The time by `clock`.
pub fn clock_gettime(clock: ClockId) -> Timespec {
    rustix::time::clock_gettime(match clock {
        ClockId::Monotonic => rustix::time::ClockId::Monotonic,
        ClockId::RealtimeCoarse => rustix::time::ClockId::Realtime,
    })
}
