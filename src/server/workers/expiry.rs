//! Ends what has waited too long, periodically and during shutdown.

use super::{Worker, Workers};
use crate::server::admission::Task;
use crate::server::connection::{Connection, Interest, Step};
use crate::server::slot::Slot;
use crate::status::{Reason, Status};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

impl Workers {
    /// Ends what has passed its deadline; called periodically.
    pub(in crate::server) fn expire_overdue(&self) {
        let mut worker = Worker::without_client();
        let now = Instant::now();
        let is_draining = self.is_draining.load(Relaxed);
        let is_short = self.memory.is_short();
        let is_late = |connection: &Connection| connection.deadline() < now || is_short && connection.is_slow(now);
        let is_over = |connection: &Connection| is_late(connection) || is_draining && connection.is_idle();
        self.connections.take_each(is_over, |slot, mut connection| {
            if connection.parked().is_some() {
                self.end_wait_of(slot, connection)
            } else if is_late(&connection) {
                match connection.expire() {
                    true => {
                        let step = self.advance(&mut worker, &mut connection, false);
                        self.end_wait(slot, &mut connection);
                        self.rearm_or_hand_over(slot, connection, step)
                    }
                    false => self.connections.close(slot, connection),
                }
            } else if connection.has_unread() {
                self.connections.put(slot, connection, Interest::Readable) // a request that came in time
            } else {
                self.connections.close(slot, connection)
            }
        });
        let timeout = self.server.config.request_timeout;
        let message = "was queued for too long";
        let is_late = |task: &Task| task.arrived + timeout < now;
        let pop = || self.admission.pop_if(is_late).or_else(|| self.lists.pop_if(is_late));
        while let Some(task) = pop().or_else(|| self.pop_handed_over_if(is_late)) {
            self.reject_and_rearm(&mut worker, task, Reason::Overloaded, message)
        }
        while let Some(task) = self.large_runs.pop_if(|task| task.arrived + timeout / 2 < now) {
            self.reject_and_rearm(&mut worker, task, Reason::Overloaded, message)
        }
        self.grant_memory()
    }

    /// Rejects partly received requests during shutdown.
    pub(in crate::server) fn reject_unfinished(&self) {
        let mut worker = Worker::without_client();
        self.connections.take_each(Connection::is_unfinished, |slot, mut connection| {
            let message = match connection.waits_for_memory() {
                true => "shutting down; no memory was available in time",
                false => "the request did not arrive before the shutdown",
            };
            connection.refuse(Status::new(Reason::ShuttingDown, message));
            self.end_wait(slot, &mut connection);
            let step = self.advance(&mut worker, &mut connection, false);
            self.rearm_or_hand_over(slot, connection, step)
        });
    }

    /// Lets what waits for its next try have that now: the time for shutdown will be over.
    pub(in crate::server) fn retry_now(&self) {
        while let Some(task) = self.later.pop_if(|_| true) {
            self.hand_over(task)
        }
    }

    /// Rejects what is still queued when the time for shutdown is over.
    pub(in crate::server) fn reject_queued(&self) {
        let mut worker = Worker::without_client();
        let all = |_: &Task| true;
        let pop = || {
            self.admission
                .pop_if(all)
                .or_else(|| self.large_runs.pop_if(all))
                .or_else(|| self.later.pop_if(all))
                .or_else(|| self.lists.pop_if(all))
        };
        while let Some(task) = pop().or_else(|| self.pop_handed_over_if(all)) {
            self.reject_and_rearm(&mut worker, task, Reason::ShuttingDown, "shutting down")
        }
    }

    /// The connection's request waits for memory no longer. Returns whether it did.
    pub(super) fn end_wait(&self, slot: Slot, connection: &mut Connection) -> bool {
        let waited = connection.stop_waiting();
        if waited {
            self.memory.leave(slot)
        }
        waited
    }

    /// For a thread that serves nothing itself.
    pub(super) fn rearm_or_hand_over(&self, slot: Slot, connection: Box<Connection>, step: Step) {
        if let Some(task) = self.rearm(slot, connection, step) {
            self.hand_over(task)
        }
    }
}
