//! A connection whose request needs memory that others have.

use super::{BODY, Connection, Phase};
use crate::budget::Reservation;
use crate::server::memory::SMALL;
use std::time::{Duration, Instant};

/// While others wait for memory, a large body has to arrive evenly over its time, after this time.
const HEAD_START: Duration = Duration::from_secs(2);

impl Connection {
    pub(in crate::server) fn waits_for_memory(&self) -> bool {
        self.waits_for_memory
    }
    pub(in crate::server) fn wait_for_memory(&mut self) {
        self.waits_for_memory = true
    }
    /// Ends the wait for memory. Returns whether it waited.
    pub(in crate::server) fn stop_waiting(&mut self) -> bool {
        std::mem::replace(&mut self.waits_for_memory, false)
    }
    pub(in crate::server) fn grant(&mut self, memory: Reservation) {
        self.waits_for_memory = false;
        self.granted = Some(memory);
        self.deadline = Instant::now() + BODY
    }

    /// Whether a large body arrives too slowly to let others wait for its memory.
    pub(in crate::server) fn is_slow(&self, now: Instant) -> bool {
        let Phase::Body(request, _) = &self.phase else { return false };
        let reserved = request.reservation.as_ref().map_or(0, |memory| memory.bytes());
        let left = self.deadline.saturating_duration_since(now).as_secs_f32();
        let due = 1.0 - left / (BODY - HEAD_START).as_secs_f32();
        !self.waits_for_memory && reserved > SMALL && (request.bytes.len() as f32) < due * reserved as f32
    }
}
