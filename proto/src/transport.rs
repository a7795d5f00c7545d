//! What both transports share: how a receive can end, and which time-out applies to it.

use std::io;
use std::time::Duration;

use crate::frame::FrameError;

/// An open file that travels beside a message, or could: this platform's kind.
#[cfg(unix)]
pub type Descriptor = std::os::fd::OwnedFd;
/// An open file that travels beside a message, or could: this platform's kind.
#[cfg(windows)]
pub type Descriptor = std::os::windows::io::OwnedHandle;

/// One that is lent to a send.
#[cfg(unix)]
pub type BorrowedDescriptor<'a> = std::os::fd::BorrowedFd<'a>;
/// One that is lent to a send.
#[cfg(windows)]
pub type BorrowedDescriptor<'a> = std::os::windows::io::BorrowedHandle<'a>;

/// The default time-out that a client may set for `recv` (it is not applied unless asked for): five minutes,
/// longer than any single step of ours, so it only ever ends a wait that nothing would have ended.
pub const SUGGESTED_RECV_TIMEOUT: Duration = Duration::from_secs(300);

/// The most descriptors one message may carry: three streams and a jobserver's two, with room.
pub const DESCRIPTORS_MAX: usize = 8;

/// How a receive can fail.
#[derive(Debug, thiserror::Error)]
pub enum RecvError {
    /// The peer closed the connection between two frames.
    #[error("the connection was closed")]
    Closed,
    /// The peer closed the connection within a frame.
    #[error("the connection was closed {received} bytes into a frame")]
    ClosedMidFrame {
        /// Bytes of the frame that had come.
        received: usize,
    },
    /// Nothing whole came in time. What came of a frame is kept: the connection can be used again.
    #[error("nothing was received within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// What came is not a frame of ours.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The system's error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// How a send can fail.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The message does not fit a frame; nothing was sent.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The system's error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The time-out of one `recv`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timeout {
    /// The connection's default, if one is set; for ever if none is.
    Default,
    /// This long, whatever the default.
    After(Duration),
    /// For ever, whatever the default.
    Never,
}

impl Timeout {
    /// The time-out in force, given the connection's default.
    pub fn resolve(self, default: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Default => default,
            Self::After(d) => Some(d),
            Self::Never => None,
        }
    }
}
