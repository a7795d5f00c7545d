//! The handshake: the first frame each way. A client may send its request right behind its `Hello`.
//!
//! A mismatch is named, so that a person reading a log knows which side to update.

use serde::{Deserialize, Serialize};

use crate::message::protocol_version;

/// What a client's `Hello` starts with; anything else is not a client of ours.
pub const MAGIC: &str = "zccache";

/// A client's first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`MAGIC`].
    pub magic: String,
    /// The client's [`protocol_version`].
    pub protocol: u32,
    /// The client's version, for logs.
    pub build: String,
}

impl Hello {
    /// The greeting of this build.
    pub fn ours() -> Self {
        Self { magic: MAGIC.into(), protocol: protocol_version(), build: env!("CARGO_PKG_VERSION").into() }
    }
}

/// The service's first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Welcome {
    /// Go ahead.
    Accepted {
        /// The service's version, for people.
        build: String,
        /// The service's process id.
        pid: u32,
    },
    /// No. The service closes the connection after this.
    Mismatch {
        /// Why not.
        reason: MismatchReason,
        /// The service's [`protocol_version`].
        protocol: u32,
        /// The service's version.
        build: String,
    },
}

/// Why two sides cannot talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum MismatchReason {
    /// The first frame was a greeting, but not ours.
    #[error("the other side does not speak zccache's protocol")]
    NotZccache,
    /// The client is older than the service.
    #[error("the client is older than the service")]
    ClientOlder,
    /// The client is newer than the service.
    #[error("the client is newer than the service")]
    ClientNewer,
    /// The service finishes what runs and takes no more.
    #[error("the service is shutting down")]
    ShuttingDown,
}

/// Whether a service of this build can talk to the sender of `hello`.
///
/// # Errors
/// The reason why not.
pub fn check(hello: &Hello) -> Result<(), MismatchReason> {
    if hello.magic != MAGIC {
        return Err(MismatchReason::NotZccache);
    }
    match hello.protocol.cmp(&protocol_version()) {
        std::cmp::Ordering::Less => Err(MismatchReason::ClientOlder),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(MismatchReason::ClientNewer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mismatch_has_its_name() {
        let ours = Hello::ours();
        let cases = [
            (ours.clone(), Ok(())),
            (Hello { magic: "http".into(), ..ours.clone() }, Err(MismatchReason::NotZccache)),
            (Hello { protocol: 0, ..ours.clone() }, Err(MismatchReason::ClientOlder)),
            (Hello { protocol: u32::MAX, ..ours }, Err(MismatchReason::ClientNewer)),
        ];
        for (hello, expected) in cases {
            assert_eq!(check(&hello), expected, "{hello:?}");
        }
    }
}
