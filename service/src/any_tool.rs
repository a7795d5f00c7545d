//! Any tool: linkers, archivers, checkers, generators, and programs of which nothing is known.
//!
//! What such a tool reads and leaves is observed, so nothing need be known of its command line. What the kernel does
//! not show must be: the whole environment is an input, and whether the clock, random numbers and metadata show in
//! the result is looked up by the tool's name (`known`). Of a tool that is not listed they all may. Tools that are
//! about the state of the world, or only start others, are not ours (`never`).

mod archive;
pub mod known;
pub mod never;
pub mod plan;
#[cfg_attr(unix, path = "any_tool/surroundings_unix.rs")]
#[cfg_attr(windows, path = "any_tool/surroundings_windows.rs")]
mod surroundings;

/// Every reason this lane passes an invocation through for, sorted. `docs/pass-through.md` explains each.
pub const REASONS: &[&str] = &[
    "archive_metadata",
    "build_driver",
    "inherited_descriptors",
    "interactive",
    "interpreter",
    "system_utility",
    "unknown_tool",
];
