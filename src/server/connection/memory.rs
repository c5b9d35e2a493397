//! A connection whose request needs memory that others have.

use super::{BODY, Connection, Phase};
use crate::budget::Reservation;
use crate::server::memory::SMALL;
use std::time::{Duration, Instant};

/// While others wait for memory, a large body has to arrive evenly over its time, after this time.
const HEAD_START: Duration = Duration::from_secs(2);

impl Connection {
    pub(in crate::server) fn grant(&mut self, memory: Reservation) {
        self.granted = Some(memory);
        self.deadline = Instant::now() + BODY
    }

    /// Whether a large body arrives too slowly to let others wait for its memory.
    pub(in crate::server) fn is_slow(&self, now: Instant) -> bool {
        let Phase::Body(request, _) = &self.phase else { return false };
        let reserved = request.reservation.as_ref().map_or(0, |memory| memory.bytes());
        let left = self.deadline.saturating_duration_since(now).as_secs_f32();
        let due = 1.0 - left / (BODY - HEAD_START).as_secs_f32();
        reserved > SMALL && (request.bytes.len() as f32) < due * reserved as f32
    }
}
