//! The client's two programs: `zccache`, the wrapper (`wrapper` and what it uses), and `zccache-client` (`cli`).
//!
//! The wrapper is started once per compile and must never be the reason for a build to fail, hang or change:
//! it is synchronous, has one thread, and runs the tool itself whenever anything is not as it should be.
//! Processes and command lines have little in common between Unix and Windows, so most of it comes in pairs.

#[cfg(feature = "cli")]
pub mod cli;
pub mod session;
pub mod starting;

#[cfg(unix)]
pub mod fallback;
#[cfg(unix)]
pub mod invocation;
#[cfg(unix)]
pub mod jobserver;
#[cfg(target_os = "linux")]
#[path = "kernel_linux.rs"]
mod kernel;
#[cfg(target_os = "macos")]
#[path = "kernel_macos.rs"]
mod kernel;
#[cfg(unix)]
pub mod output;
#[cfg(unix)]
pub mod process;
#[cfg(unix)]
pub mod request;
#[cfg(unix)]
pub mod start_service;
#[cfg(unix)]
pub mod tool_search;
#[cfg(unix)]
pub mod wrapper;

#[cfg(windows)]
#[path = "windows/command_line.rs"]
pub mod command_line;
#[cfg(windows)]
#[path = "windows/fallback.rs"]
pub mod fallback;
#[cfg(windows)]
#[path = "windows/output.rs"]
pub mod output;
#[cfg(windows)]
#[path = "windows/process.rs"]
pub mod process;
#[cfg(windows)]
#[path = "windows/request.rs"]
pub mod request;
#[cfg(windows)]
#[path = "windows/start_service.rs"]
pub mod start_service;
#[cfg(windows)]
#[path = "windows/tool_search.rs"]
pub mod tool_search;
#[cfg(windows)]
#[path = "windows/wrapper.rs"]
pub mod wrapper;
