//! zccache's actors and the plain components they are shells of.

pub mod absent_names;
pub mod acceptor;
#[cfg(target_os = "linux")]
#[path = "attributes_linux.rs"]
pub mod attributes;
#[cfg(not(target_os = "linux"))]
#[path = "attributes_elsewhere.rs"]
pub mod attributes;
pub mod blobs;
pub mod capture;
pub mod compile;
pub mod connection;
pub mod conversation;
pub mod coordinator;
pub mod counters;
#[cfg(target_os = "linux")]
#[path = "default_acl_linux.rs"]
pub mod default_acl;
#[cfg(not(target_os = "linux"))]
#[path = "default_acl_elsewhere.rs"]
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
pub mod head_start;
#[cfg(target_os = "linux")]
#[path = "heritage_linux.rs"]
pub mod heritage;
#[cfg(not(target_os = "linux"))]
#[path = "heritage_elsewhere.rs"]
pub mod heritage;
pub mod hit;
pub mod index;
pub mod invocation;
pub mod journal;
#[cfg(target_os = "linux")]
#[path = "kept_files_linux.rs"]
pub mod kept_files;
#[cfg(not(target_os = "linux"))]
#[path = "kept_files_elsewhere.rs"]
pub mod kept_files;
pub mod kept_threads;
pub mod key;
pub mod lease;
pub mod look_up;
pub mod manifest;
pub mod name_filter;
pub mod named_variables;
pub mod observation;
pub mod observation_pool;
pub mod observe_declared;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
pub mod observe_linux;
pub mod observe_none;
pub mod observer;
pub mod overdue;
pub mod passing;
pub mod plan;
#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod program_file;
pub mod reach;
mod readiness;
pub mod record;
pub mod root;
pub mod runner;
pub mod second_hand;
pub mod settle;
pub mod settling;
pub mod sharing;
pub mod signature;
#[cfg_attr(unix, path = "spelling_unix.rs")]
#[cfg_attr(windows, path = "spelling_windows.rs")]
pub mod spelling;
#[cfg(target_os = "linux")]
pub mod standard_input;
#[cfg(not(target_os = "linux"))]
#[path = "standard_input_unknown.rs"]
pub mod standard_input;
pub mod storage;
pub mod store;
pub mod supervision;
#[cfg(target_os = "linux")]
#[path = "sys_linux.rs"]
pub mod sys;
#[cfg(target_os = "macos")]
#[path = "sys_macos.rs"]
pub mod sys;
#[cfg(windows)]
#[path = "sys_windows.rs"]
pub mod sys;
pub mod timing;
#[cfg(target_os = "linux")]
pub mod tool_run;
#[cfg(not(target_os = "linux"))]
#[path = "tool_run_portable.rs"]
pub mod tool_run;
mod turn;
mod units;
pub mod work;
pub mod worker;
pub mod world;

#[cfg(test)]
mod test_support;
