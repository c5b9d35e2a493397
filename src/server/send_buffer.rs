//! Replies on their way to a client, which may read slowly or not at all.

use super::reply::{Frame, SMALL_BODY, print};
use crate::account::Reservation;
use crate::http::Reply;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, send, sendmsg};
use std::borrow::Cow;
use std::io::IoSlice;
use std::net::TcpStream;

/// Bytes to send: heads with small bodies, then one large body.
#[derive(Debug, Default)]
pub(super) struct SendBuffer {
    bytes: Vec<u8>,
    large_body: Cow<'static, [u8]>,
    sent: usize,
    /// Memory for a large reply.
    memory: Option<Reservation>,
}

impl SendBuffer {
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether bytes are left to send.
    pub(super) fn is_pending(&self) -> bool {
        self.sent < self.bytes.len() + self.large_body.len()
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes)
    }

    /// Adds a reply. The one before has been sent. `memory`: for a large body.
    pub(super) fn push_reply(&mut self, reply: Reply, memory: Option<Reservation>, frame: &Frame) {
        print(&mut self.bytes, &reply, frame);
        self.memory = memory;
        match reply.body {
            _ if frame.is_head => (),
            small if small.len() <= SMALL_BODY => self.bytes.extend(&*small),
            large => self.large_body = large,
        }
    }

    /// Whether a large body that is not the program's own waits for its client without a reservation.
    pub(super) fn is_unreserved(&self) -> bool {
        matches!(self.large_body, Cow::Owned(_))
            && self.is_pending()
            && self.memory.is_none()
            && !self.large_body.is_empty()
    }

    /// Whether what waits for the client has memory that others may need.
    pub(super) fn is_reserved(&self) -> bool {
        self.is_pending() && self.memory.is_some()
    }

    /// Bytes that were sent.
    pub(super) fn sent(&self) -> usize {
        self.sent
    }

    /// Sends as much as the client accepts now. Returns whether that was everything.
    pub(super) fn send(&mut self, stream: &TcpStream) -> Result<bool, Errno> {
        while self.is_pending() {
            let sent = match self.bytes.get(self.sent..) {
                Some(head) if self.large_body.is_empty() => send(stream, head, SendFlags::DONTWAIT),
                Some(head) => {
                    let parts = [IoSlice::new(head), IoSlice::new(&self.large_body)];
                    sendmsg(stream, &parts, &mut SendAncillaryBuffer::default(), SendFlags::DONTWAIT)
                }
                None => send(stream, &self.large_body[self.sent - self.bytes.len()..], SendFlags::DONTWAIT),
            };
            match sent {
                Ok(sent) => self.sent += sent,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => (),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Forgets what was sent, with its memory.
    pub(super) fn clear(&mut self) {
        *self = SendBuffer::default()
    }
}
