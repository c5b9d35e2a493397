//! A connection whose request needs memory that others have.

use super::{BODY, Connection, Phase};
use crate::account::Reservation;
use crate::server::memory::SMALL;
use std::time::{Duration, Instant};

/// While others wait for memory, a large body has to arrive evenly over its time, after this time.
const HEAD_START: Duration = Duration::from_secs(2);

/// While others want memory for their answers, a client has to read something in this time.
const STALLED: Duration = Duration::from_secs(5);

impl Connection {
    pub(in crate::server) fn grant(&mut self, memory: Reservation) {
        self.granted = Some(memory);
        self.deadline = Instant::now() + BODY
    }

    /// Whether its client has read nothing for so long that others may have the memory of its reply.
    pub(in crate::server) fn is_stalled(&self, now: Instant) -> bool {
        self.output.is_reserved() && now.saturating_duration_since(self.waits_since) >= STALLED
    }

    /// Whether a large reply waits for its client without memory for it.
    pub(in crate::server) fn has_unreserved_output(&self) -> bool {
        self.output.is_unreserved()
    }

    /// Whether a large body arrives too slowly to let others wait for its memory.
    pub(in crate::server) fn is_slow(&self, now: Instant) -> bool {
        let Phase::Body(request, _) = &self.phase else { return false };
        let reserved =
            request.reservation.as_ref().map_or(0, |memory| memory.bytes() - self.for_run.min(memory.bytes()));
        let left = self.deadline.saturating_duration_since(now).as_secs_f32();
        let due = 1.0 - left / (BODY - HEAD_START).as_secs_f32();
        reserved > SMALL && (request.bytes.len() as f32) < due * reserved as f32
    }
}
