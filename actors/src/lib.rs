//! zccache's actors and the plain components they are shells of.

pub mod absent_names;
pub mod acceptor;
pub mod blobs;
pub mod capture;
pub mod compile;
pub mod connection;
pub mod coordinator;
pub mod counters;
pub mod default_acl;
pub mod delivery;
pub mod digest;
pub mod digesting;
pub mod exec;
pub mod faults;
pub mod file_table;
pub mod flights;
pub mod freshness;
pub mod hasher;
pub mod hit;
pub mod index;
pub mod invocation;
pub mod journal;
pub mod kept_threads;
pub mod key;
pub mod lease;
pub mod look_up;
pub mod manifest;
pub mod name_filter;
pub mod observation;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub mod observe_declared;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub mod observe_linux;
#[cfg(target_os = "linux")]
pub mod observe_none;
pub mod observer;
pub mod passing;
pub mod plan;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod program_file;
pub mod reach;
pub mod record;
pub mod root;
pub mod runner;
pub mod second_hand;
pub mod settle;
pub mod sharing;
pub mod signature;
pub mod standard_input;
pub mod storage;
pub mod store;
pub mod supervision;
#[cfg(target_os = "linux")]
pub mod tool_run;
pub mod work;
pub mod world;

#[cfg(test)]
mod test_support;
