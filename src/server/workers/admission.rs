//! How exchanges get permits, and wait for them.

use super::Workers;
use crate::server::exchange::{Exchange, Waits};
use crate::server::permits::{Entry, Permits};
use crate::server::slot::Slot;
use std::time::Duration;

/// Whether an exchange has what it has asked for.
pub(super) enum Admission {
    Admitted(Box<Exchange>),
    /// Another thread will run it.
    Queued,
    /// Too many wait already.
    Rejected(Box<Exchange>),
}

impl Workers {
    /// A permit of these, or a place in their queue, for so long after the request.
    pub(super) fn enter(
        &self,
        permits: &Permits,
        exchange: Box<Exchange>,
        waits: Waits,
        time: Duration,
        is_urgent: bool,
    ) -> Admission {
        if permits.try_acquire() {
            return Admission::Admitted(exchange);
        }
        let (mut entry, deadline) = (Entry::Queued, exchange.arrived + time);
        let back = self.connections.park(exchange, waits, deadline, |slot| {
            entry = permits.enter(slot, is_urgent);
            entry == Entry::Queued
        });
        match back {
            None => Admission::Queued,
            Some(exchange) if entry == Entry::Admitted => Admission::Admitted(exchange),
            Some(exchange) => Admission::Rejected(exchange),
        }
    }

    /// Passes a permit on to the exchange that has waited longest; None releases it.
    pub(super) fn next_of(&self, permits: &Permits) -> Option<Box<Exchange>> {
        let slot = permits.pass_on()?;
        self.take_or_next(permits, slot)
    }

    /// The exchange for which there is a permit; where its wait is over, the next.
    pub(super) fn take_or_next(&self, permits: &Permits, mut slot: Slot) -> Option<Box<Exchange>> {
        loop {
            let exchange = self.connections.take(slot);
            if exchange.is_some() {
                return exchange;
            }
            slot = permits.pass_on()?
        }
    }
}
