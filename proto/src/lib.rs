//! What crosses zccache's socket: messages, frames, handshake, endpoint, and both sides' transports.
//!
//! `docs/protocol.md` tells the same in prose. Nothing here knows of caches, keys or compilers.

pub mod age;
pub mod byte_strings;
pub mod endpoint;
pub mod frame;
pub mod handshake;
pub mod message;
pub mod own_directory;
pub mod report;
pub mod transport;

#[cfg(all(unix, feature = "async"))]
pub mod async_unix;
#[cfg(unix)]
pub mod blocking_unix;
#[cfg(unix)]
pub mod peer_unix;

pub use byte_strings::ByteStrings;
