//! The service's side of the transport, on tokio: framed messages over a stream of bytes.
//!
//! Every receive and every flush can be dropped half-way and begun again: bytes that came or have yet to go
//! are kept in the connection, not in the future. What carries the bytes is the platform's (`async_unix.rs`,
//! `async_windows.rs`); how a connection ends, and which time-out holds, is the same on all of them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use crate::async_transport::Stream;
use crate::frame::{self, FrameError, HEADER_BYTES};
use crate::peer::Peer;
use crate::transport::{Descriptor, RecvError, SendError, Timeout};

/// Bytes asked for by one read: a request with its environment, most times.
const READ_BYTES: usize = 16 * 1024;

/// The most that the buffer grows ahead of what has come, in bytes: a length field alone takes no memory.
const READ_AHEAD_BYTES_MAX: usize = 256 * 1024;

/// Why a connection was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Another user's process; its connection is closed.
    #[error("refused a connection of user {uid} (process {})", .pid.unwrap_or(0))]
    Stranger {
        /// Its user id.
        uid: u32,
        /// Its process id, if it can be seen from here.
        pid: Option<u32>,
    },
    /// This connection, or the system just now, does not allow it; the next may be accepted.
    #[error("failed to accept a connection: {0}")]
    Passing(#[source] io::Error),
    /// The listener is of no use any more.
    #[error("failed to accept connections: {0}")]
    Fatal(#[source] io::Error),
}

impl AcceptError {
    /// Whether no later connection can be accepted either.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Fatal(_))
    }

    /// Whether the system lacks descriptors or memory: wait a moment before the next `accept`, which would
    /// fail at once.
    pub fn is_shortage(&self) -> bool {
        matches!(self, Self::Passing(e) if crate::async_transport::is_shortage(e))
    }
}

/// A client's connection: a [`Receiver`] and a [`Sender`] in one.
#[derive(Debug)]
pub struct Connection {
    receiver: Receiver,
    sender: Sender,
}

impl Connection {
    pub(crate) fn new(stream: Stream, peer: Peer) -> Self {
        let stream = Arc::new(stream);
        let receiver = Receiver {
            stream: Arc::clone(&stream),
            peer,
            buffer: BytesMut::new(),
            descriptors: Vec::new(),
            recv_timeout: None,
        };
        Self { receiver, sender: Sender { stream, queued: BytesMut::new() } }
    }

    /// Both halves, for two owners. The connection is closed when both are dropped.
    pub fn into_split(self) -> (Receiver, Sender) {
        (self.receiver, self.sender)
    }

    /// See [`Receiver::peer_pid`].
    pub fn peer_pid(&self) -> Option<u32> {
        self.receiver.peer_pid()
    }

    /// Whether the client has the groups that we have; see [`Peer::has_our_groups`].
    pub fn peer_has_our_groups(&self) -> bool {
        self.receiver.stream.peer_has_our_groups(self.receiver.peer)
    }

    /// See [`Receiver::recv`].
    ///
    /// # Errors
    /// See [`RecvError`].
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<T, RecvError> {
        self.receiver.recv().await
    }

    /// See [`Receiver::recv_with`].
    ///
    /// # Errors
    /// See [`RecvError`].
    pub async fn recv_with<T: DeserializeOwned>(&mut self, timeout: Timeout) -> Result<T, RecvError> {
        self.receiver.recv_with(timeout).await
    }

    /// See [`Receiver::set_recv_timeout`].
    pub fn set_recv_timeout(&mut self, timeout: Option<Duration>) {
        self.receiver.set_recv_timeout(timeout);
    }

    /// See [`Receiver::take_descriptors`].
    pub fn take_descriptors(&mut self) -> Vec<Descriptor> {
        self.receiver.take_descriptors()
    }

    /// See [`Sender::queue`].
    ///
    /// # Errors
    /// `TooLarge`.
    pub fn queue<T: Serialize>(&mut self, message: &T) -> Result<(), FrameError> {
        self.sender.queue(message)
    }

    /// See [`Sender::flush`].
    ///
    /// # Errors
    /// The system's.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.sender.flush().await
    }

    /// See [`Sender::send`].
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), SendError> {
        self.sender.send(message).await
    }

    /// See [`Sender::send_encoded`].
    ///
    /// # Errors
    /// The system's.
    pub async fn send_encoded(&mut self, frames: &[u8]) -> io::Result<()> {
        self.sender.send_encoded(frames).await
    }
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver {
    stream: Arc<Stream>,
    peer: Peer,
    /// What has come and was not taken yet.
    buffer: BytesMut,
    descriptors: Vec<Descriptor>,
    recv_timeout: Option<Duration>,
}

impl Receiver {
    /// The client's process id; `None` if it cannot be seen from here.
    pub fn peer_pid(&self) -> Option<u32> {
        self.peer.pid
    }

    /// Sets or clears the default time-out of [`recv`](Self::recv). None is set at first.
    pub fn set_recv_timeout(&mut self, timeout: Option<Duration>) {
        self.recv_timeout = timeout;
    }

    /// The next message, within the default time-out.
    ///
    /// # Errors
    /// As [`recv_with`](Self::recv_with).
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<T, RecvError> {
        self.recv_with(Timeout::Default).await
    }

    /// The next message; the time-out is for the whole frame. Can be dropped and called again, with nothing
    /// lost. While a request is worked on, this is also how the client's going away is noticed (`Closed`).
    ///
    /// # Errors
    /// See [`RecvError`]. After `TimedOut` and `Decode` the connection can be used again.
    pub async fn recv_with<T: DeserializeOwned>(&mut self, timeout: Timeout) -> Result<T, RecvError> {
        if let Some(message) = self.next_message()? {
            return Ok(message);
        }
        match timeout.resolve(self.recv_timeout) {
            None => self.recv_more().await,
            Some(timeout) => {
                // A moment too far off for the clock is never.
                let Some(deadline) = Instant::now().checked_add(timeout) else {
                    return self.recv_more().await;
                };
                let more = tokio::time::timeout_at(deadline, self.recv_more());
                more.await.unwrap_or(Err(RecvError::TimedOut(timeout)))
            }
        }
    }

    /// The descriptors that came with the messages so far, in the order sent; no more than
    /// [`DESCRIPTORS_MAX`](crate::transport::DESCRIPTORS_MAX) are kept at a time, the others were closed.
    pub fn take_descriptors(&mut self) -> Vec<Descriptor> {
        std::mem::take(&mut self.descriptors)
    }

    async fn recv_more<T: DeserializeOwned>(&mut self) -> Result<T, RecvError> {
        loop {
            let Self { stream, buffer, descriptors, .. } = self;
            match stream.read(buffer, descriptors).await {
                Ok(0) => return Err(self.closed()),
                Ok(_) => {}
                // What the client had not read when it went is reported so; it is gone all the same.
                Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                    return Err(self.closed());
                }
                Err(e) => return Err(e.into()),
            }
            if let Some(message) = self.next_message()? {
                return Ok(message);
            }
        }
    }

    fn next_message<T: DeserializeOwned>(&mut self) -> Result<Option<T>, RecvError> {
        match frame::frame_bytes(&self.buffer)? {
            Some(bytes) if self.buffer.len() >= bytes => {
                let frame = self.buffer.split_to(bytes);
                Ok(Some(frame::decode(&frame[HEADER_BYTES..])?))
            }
            _ => Ok(None),
        }
    }

    fn closed(&self) -> RecvError {
        match self.buffer.len() {
            0 => RecvError::Closed,
            received => RecvError::ClosedMidFrame { received },
        }
    }
}

/// Makes room for one read at the end of `buffer`, and says where it begins.
pub(crate) fn make_room(buffer: &mut BytesMut) -> usize {
    let announced = frame::frame_bytes(buffer).ok().flatten().unwrap_or(0);
    let before = buffer.len();
    let wanted = announced.saturating_sub(before).clamp(READ_BYTES, READ_AHEAD_BYTES_MAX);
    buffer.resize(before + wanted, 0);
    before
}

/// The sending half.
#[derive(Debug)]
pub struct Sender {
    stream: Arc<Stream>,
    /// Whole frames, less what has gone of the first.
    queued: BytesMut,
}

impl Sender {
    /// Queues a message, so that several leave in one write.
    ///
    /// # Errors
    /// `TooLarge`; nothing was queued then.
    pub fn queue<T: Serialize>(&mut self, message: &T) -> Result<(), FrameError> {
        self.queued.extend_from_slice(&frame::encode(message)?);
        Ok(())
    }

    /// Sends what is queued. Can be dropped and called again: what has not gone stays queued.
    ///
    /// # Errors
    /// The system's: `BrokenPipe` if the client has gone.
    pub async fn flush(&mut self) -> io::Result<()> {
        while !self.queued.is_empty() {
            let Self { stream, queued } = self;
            let sent = stream.write(queued).await?;
            self.queued.advance(sent);
        }
        Ok(())
    }

    /// Sends a message, after what is queued.
    ///
    /// # Errors
    /// `Frame` if it is over the limit (it is not sent then), else as [`flush`](Self::flush).
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), SendError> {
        self.queue(message)?;
        Ok(self.flush().await?)
    }

    /// Sends whole frames that were encoded before, after what is queued.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub async fn send_encoded(&mut self, frames: &[u8]) -> io::Result<()> {
        self.queued.extend_from_slice(frames);
        self.flush().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_alone_takes_no_more_memory_than_is_read_ahead() {
        let room_behind = |announced: usize| {
            let mut buffer = BytesMut::from(&u32::try_from(announced).unwrap().to_le_bytes()[..]);
            let before = make_room(&mut buffer);
            assert_eq!(before, HEADER_BYTES);
            buffer.len() - before
        };
        assert_eq!(room_behind(READ_AHEAD_BYTES_MAX), READ_AHEAD_BYTES_MAX);
        assert_eq!(room_behind(frame::FRAME_BYTES_MAX - HEADER_BYTES), READ_AHEAD_BYTES_MAX);
    }
}
