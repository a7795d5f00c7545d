//! What makes the actors a compiler cache: command lines become plans, options a configuration, and everything is
//! wired up and kept alive as a daemon.

pub mod any_tool;
pub mod c_family;
pub mod cli;
pub mod config;
#[cfg_attr(unix, path = "daemon_unix.rs")]
#[cfg_attr(windows, path = "daemon_windows.rs")]
pub mod daemon;
pub mod limits;
pub mod logging;
#[cfg_attr(target_os = "linux", path = "observers_linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "observers_elsewhere.rs")]
pub mod observers;
pub mod planner;
pub mod planner_elsewhere;
pub mod rust;
pub mod service_lock;
#[cfg_attr(unix, path = "signals_unix.rs")]
#[cfg_attr(windows, path = "signals_windows.rs")]
mod signals;
pub mod system;
pub mod unwatched;
