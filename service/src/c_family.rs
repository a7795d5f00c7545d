//! The C family: gcc, g++, clang, clang++ under all their names, from command line to plan.
//!
//! The cache is sound by observation, so nothing here has to prove what a compile reads. These modules decide
//! whether an invocation is of a kind that can be served at all, and name what the kernel cannot show: the
//! environment, the processor behind `-march=native`. In doubt they pass through.
//!
//! The pipeline is the file list: `names` → `response_files` → `options` → `command_line` → `judgement` (and `link`) →
//! `outputs`, `environment`, `declared`, `sharing`, `times`, `units` → `plan`.

pub mod command_line;
pub mod declared;
pub mod environment;
pub mod judgement;
pub mod language;
pub mod link;
pub mod names;
pub mod native_cpu;
pub mod options;
pub mod outputs;
pub mod plan;
pub mod response_files;
pub mod sharing;
pub mod times;
pub mod units;
