//! Ends what has waited too long, and what a shutdown does not wait for.

use super::{Worker, Workers};
use crate::server::exchange::{Exchange, Stage, Then, Waits, on_deadline};
use crate::status::Status;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// While requests wait for memory.
const SLOW_INTERVAL: Duration = Duration::from_millis(500);

impl Workers {
    /// Ends each wait at its deadline, for ever.
    pub(in crate::server) fn end_in_time(&self) {
        let end = |index: u32| {
            // a defect must not end all deadlines; the hook logs it
            let _ = catch_unwind(AssertUnwindSafe(|| self.end_overdue(index)));
        };
        let last = Cell::new(Instant::now());
        self.connections.deadlines.watch(end, || {
            let (is_short, now) = (self.memory.is_short(), Instant::now());
            if is_short && now - last.get() >= SLOW_INTERVAL {
                last.set(now);
                self.end_slow(now)
            }
            is_short.then_some(SLOW_INTERVAL)
        })
    }

    /// Ends the wait in this place, if its deadline has passed.
    pub(super) fn end_overdue(&self, index: u32) {
        if let Some(exchange) = self.connections.take_overdue(index) {
            self.end_now(exchange)
        }
        self.grant_memory()
    }

    /// Ends the wait of an exchange that was taken at its deadline.
    pub(super) fn end_now(&self, exchange: Box<Exchange>) {
        let is_stopping = self.connections.shutdown.has_begun();
        let then = on_deadline(exchange.waits, exchange.received(), is_stopping);
        self.end(exchange, then)
    }

    /// Ends large bodies that arrive too slowly, and replies that are not read, while others wait for their memory. Visits all connections.
    fn end_slow(&self, now: Instant) {
        let is_slow = |one: &Exchange| matches!(one.waits, Waits::Client(_)) && one.connection.is_slow(now);
        self.connections.take_each(is_slow, |exchange| self.end(exchange, Then::Expire));
        self.grant_memory();
        self.make_room_for_queued(now)
    }

    /// Ends the wait of an exchange that was taken for it.
    fn end(&self, mut exchange: Box<Exchange>, then: Then) {
        let was_queued = self.unqueue(&exchange);
        if let Stage::Look(look) = &mut exchange.stage {
            look.has_missed |= !was_queued;
            look.lacks_pods |= exchange.waits == Waits::Pods // in time
        }
        match then {
            Then::Run | Then::Stay => self.hand_over(exchange),
            Then::Close if exchange.connection.has_unread() => self.hand_over(exchange), // a request that came in time
            Then::Close => self.connections.close(exchange),
            Then::Expire => match exchange.connection.expire(self.server.config.enabled) {
                true => self.go_on(exchange),
                false => self.connections.close(exchange),
            },
            Then::Refuse(reason, message) => match exchange.stage {
                Stage::Receive => {
                    exchange.connection.refuse(Status::new(reason, message), self.server.config.enabled);
                    self.go_on(exchange)
                }
                _ => self.reject_and_rearm(&mut Worker::without_client(), exchange, reason, message),
            },
        }
    }

    /// Continues with a connection that has something to send.
    fn go_on(&self, mut exchange: Box<Exchange>) {
        let advanced = self.advance(&mut Worker::without_client(), &mut exchange.connection, false);
        self.rearm_or_hand_over(exchange, advanced)
    }

    /// Takes the slot of an exchange out of where it waits. Returns false if it was not there: what it waits for is on its way.
    pub(super) fn unqueue(&self, exchange: &Exchange) -> bool {
        let slot = exchange.slot;
        match exchange.waits {
            Waits::Client(_) | Waits::Time => (),
            Waits::Memory(kind) => self.memory.leave(slot, kind),
            Waits::Worker => self.ready.leave(slot),
            Waits::Permit => self.permits.leave(slot),
            Waits::LargeRun => self.large_runs.leave(slot),
            Waits::Turn => self.lists.leave(slot),
            Waits::Pods | Waits::Caller => self.shared.leave(slot),
            Waits::Job => {
                return exchange.look().is_some_and(|look| self.server.jobs.leave(look.waiting.name(), &slot));
            }
        }
        true
    }
}
