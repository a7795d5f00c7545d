//! What the scenarios are written with: a sandbox of a test's own, both ways of running a command, the comparison.
//!
//! Everything here drives the built programs from outside, as a user's build would. Nothing here knows how the
//! service works; what it knows of the wire is `zccache-proto` alone, and only tests that abuse it use that.

pub mod bench;
pub mod binaries;
pub mod fault_points;
pub mod memory_group;
pub mod outcome;
pub mod processes;
pub mod sandbox;
pub mod scenario;
pub mod sources;
pub mod stats;
pub mod wait;

pub use fault_points::fault_points;
pub use memory_group::MemoryGroup;
pub use outcome::{Outcome, Tree};
pub use sandbox::Sandbox;
pub use scenario::{Expect, Scenario};
pub use stats::Stats;
