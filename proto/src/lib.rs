//! What crosses zccache's socket: messages, frames, handshake, endpoint, and both sides' transports.
//!
//! `docs/protocol.md` tells the same in prose. Nothing here knows of caches, keys or compilers.
//!
//! A transport is a pair of files, one a platform, under one name: [`async_transport`] for the service,
//! [`blocking_transport`] for clients, [`peer`] for who is at the other end, [`own_directory`] for where it lies.

pub mod age;
pub mod byte_strings;
pub mod endpoint;
pub mod frame;
pub mod handshake;
pub mod message;
mod received;
pub mod report;
pub mod root;
#[cfg_attr(unix, path = "spelling_unix.rs")]
#[cfg_attr(windows, path = "spelling_windows.rs")]
pub mod spelling;
pub mod transport;

#[cfg(feature = "async")]
pub mod async_connection;
#[cfg(all(unix, feature = "async"))]
#[path = "async_unix.rs"]
pub mod async_transport;
#[cfg(unix)]
#[path = "blocking_unix.rs"]
pub mod blocking_transport;
#[cfg(unix)]
#[path = "own_directory_unix.rs"]
pub mod own_directory;
#[cfg(target_os = "linux")]
#[path = "peer_linux.rs"]
pub mod peer;

#[cfg(target_os = "linux")]
#[path = "kernel_linux.rs"]
mod kernel;
#[cfg(target_os = "macos")]
#[path = "kernel_macos.rs"]
mod kernel;
#[cfg(target_os = "macos")]
#[path = "peer_macos.rs"]
pub mod peer;

#[cfg(all(windows, feature = "async"))]
#[path = "async_windows.rs"]
pub mod async_transport;
#[cfg(windows)]
#[path = "blocking_windows.rs"]
pub mod blocking_transport;
#[cfg(windows)]
#[path = "own_directory_windows.rs"]
pub mod own_directory;
#[cfg(windows)]
#[path = "peer_windows.rs"]
pub mod peer;
#[cfg(all(windows, feature = "async"))]
mod pipe_instance_windows;
#[cfg(windows)]
mod pipe_windows;
#[cfg(windows)]
mod security_windows;
#[cfg(windows)]
#[path = "tool_job_windows.rs"]
pub mod tool_job;

pub use byte_strings::ByteStrings;
