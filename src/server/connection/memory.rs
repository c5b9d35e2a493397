//! A connection whose request needs memory that others have.

use super::{BODY, Connection, Phase};
use crate::budget::Reservation;
use crate::server::memory::{SMALL, Ticket};
use std::time::{Duration, Instant};

/// While others wait for memory, a large body has to arrive evenly over its time, after this time.
const HEAD_START: Duration = Duration::from_secs(2);

impl Connection {
    /// Its place among those that wait for memory, if it waits.
    pub(in crate::server) fn ticket(&self) -> Option<Ticket> {
        self.waiting
    }
    pub(in crate::server) fn wait_with(&mut self, ticket: Ticket) {
        self.waiting = Some(ticket)
    }
    /// Ends the wait for memory. Returns its place, if it waited.
    pub(in crate::server) fn stop_waiting(&mut self) -> Option<Ticket> {
        self.waiting.take()
    }
    pub(in crate::server) fn grant(&mut self, memory: Reservation) {
        self.waiting = None;
        self.granted = Some(memory);
        self.deadline = Instant::now() + BODY
    }

    /// Whether a large body arrives too slowly to let others wait for its memory.
    pub(in crate::server) fn is_slow(&self, now: Instant) -> bool {
        let Phase::Body(request, _) = &self.phase else { return false };
        let reserved = request.reservation.as_ref().map_or(0, |memory| memory.bytes());
        let left = self.deadline.saturating_duration_since(now).as_secs_f32();
        let due = 1.0 - left / (BODY - HEAD_START).as_secs_f32();
        self.waiting.is_none() && reserved > SMALL && (request.bytes.len() as f32) < due * reserved as f32
    }
}
