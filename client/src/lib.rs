//! The client's two programs: `zccache`, the wrapper (`wrapper` and what it uses), and `zccache-client` (`cli`).
//!
//! The wrapper is started once per compile and must never be the reason for a build to fail, hang or change:
//! it is synchronous, has one thread, and runs the tool itself whenever anything is not as it should be.

#[cfg(feature = "cli")]
pub mod cli;
pub mod fallback;
pub mod invocation;
pub mod jobserver;
pub mod output;
pub mod process;
pub mod request;
pub mod session;
pub mod start_service;
pub mod tool_search;
pub mod wrapper;
