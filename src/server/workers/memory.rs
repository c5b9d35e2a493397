//! How exchanges get memory: for a request, for a large run, or for an answer. Those that wait for it hold none of the kinds that are waited for.

use super::Workers;
use super::admission::Admission;
use crate::account::{Kind, Reservation};
use crate::metrics::METRICS;
use crate::server::exchange::{Exchange, Waits};
use crate::server::slot::Slot;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// After which connections are visited again to find some to close.
const AGAIN: Duration = Duration::from_millis(100);

impl Workers {
    /// Gives released memory to the exchanges that have waited longest.
    pub(in crate::server) fn grant_memory(&self) {
        while let Some((slot, memory)) = self.memory.next_grant() {
            self.grant(slot, memory)
        }
    }

    /// Gives memory to an exchange that waits for it. Drops the memory if the wait is over.
    pub(super) fn grant(&self, slot: Slot, memory: Reservation) {
        if let Some(mut exchange) = self.connections.take(slot) {
            exchange.grant(memory);
            self.hand_over(exchange)
        }
    }

    /// Lets an exchange wait for memory.
    pub(super) fn wait_for_memory(&self, exchange: Box<Exchange>, kind: Kind, bytes: usize, deadline: Instant) {
        let mut is_first = false;
        self.connections.park(exchange, Waits::Memory(kind), deadline, |slot| {
            is_first = self.memory.wait_for_grant(slot, kind, bytes);
            true
        });
        if is_first {
            self.connections.deadlines.wake() // it looks for slow clients from now on
        }
        self.grant_memory()
    }

    /// Memory for an answer of so many bytes, or a place in the queue for it.
    pub(super) fn acquire_answer(&self, mut exchange: Box<Exchange>, bytes: usize) -> Admission {
        if bytes == 0 || self.memory.try_become(&mut exchange.memory, Kind::Answer, bytes) {
            return Admission::Admitted(exchange);
        }
        exchange.memory = None;
        let held = exchange.request.held_bytes();
        if !self.memory.try_become(&mut exchange.request.reservation, Kind::Parked, held) {
            return Admission::Rejected(exchange);
        }
        let time = self.server.config.request_timeout / 2;
        let deadline = match exchange.look() {
            Some(_) => Instant::now() + time, // it chose to wait
            None => self.until(&exchange).min(exchange.arrived + time),
        };
        self.wait_for_memory(exchange, Kind::Answer, bytes, deadline);
        Admission::Queued
    }

    /// Memory for an answer, after connections of clients that do not read theirs are closed.
    pub(super) fn make_room(&self, kind: Kind, bytes: usize) -> Option<Reservation> {
        let now = Instant::now();
        {
            let mut last = self.made_room.lock().unwrap_or_else(PoisonError::into_inner);
            if last.is_some_and(|last| now - last < AGAIN) {
                return None;
            }
            *last = Some(now)
        }
        let mut memory = None;
        self.close_stalled(now, || {
            memory = self.memory.account.try_reserve(kind, bytes);
            memory.is_some()
        });
        memory
    }

    /// Memory for those that wait for answers, likewise.
    pub(super) fn make_room_for_queued(&self, now: Instant) {
        if self.memory.is_short_of(Kind::Answer) {
            self.close_stalled(now, || {
                self.grant_memory();
                !self.memory.is_short_of(Kind::Answer)
            })
        }
    }

    /// Closes connections whose clients have read nothing of their replies for a while, the longest first, until it is enough. Visits all
    /// connections.
    fn close_stalled(&self, now: Instant, mut is_enough: impl FnMut() -> bool) {
        for slot in self.connections.stalled(now) {
            if let Some(exchange) = self.connections.take(slot) {
                METRICS.connection_evicted();
                self.connections.close(exchange);
                if is_enough() {
                    return;
                }
            }
        }
    }
}
