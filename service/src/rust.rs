//! The Rust family: `rustc` and `clippy-driver`, mostly as Cargo calls them.
//!
//! Nothing here proves what a compile reads: crates, the linker and its inputs, what a procedural macro opens are all
//! seen by the observer. These modules decide whether an invocation can be served at all, name the variables that
//! enter its key, and afterwards say what of a run's observations counts.
//!
//! The pipeline is the file list: `names` → `argument_files` → `command_line` → `judgement` → `environment`,
//! `target_dir`, `checkout` → `plan`;
//! after the run `review`, with `crates`, `dep_info` and `macros`.

pub mod argument_files;
pub mod checkout;
pub mod command_line;
pub mod crates;
pub mod dep_info;
pub mod environment;
pub mod judgement;
pub mod macros;
pub mod names;
pub mod plan;
pub mod review;
pub mod target_dir;
