//! Whole requests that may call the API server: so many are in hand, the others queue. A queued one holds no thread.

use super::connection::Connection;
use super::lobby::Slot;
use crate::http::Request;
use crate::route::{Route, route};
use crate::status::Status;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Dispatches in hand, so also API calls in flight. With 5 ms a call that is 10,000 a second, more than an API server creates; and
/// each brings a thread with a TLS connection, a third of a megabyte.
pub(super) const MAX_IN_HAND: usize = 48;
/// Requests that wait for one of those to end.
const MAX_QUEUE: usize = 1024;

/// A whole request, and the connection that waits for its reply.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) slot: Slot,
    pub(super) connection: Box<Connection>,
    pub(super) request: Request,
    pub(super) route: Result<Route, Status>,
    pub(super) arrived: Instant,
    /// Bytes that it counts for while it is queued or in hand.
    pub(super) held: usize,
}

impl Task {
    pub(super) fn new(slot: Slot, connection: Box<Connection>, request: Request) -> Self {
        Task { slot, connection, route: route(&request), request, arrived: Instant::now(), held: 0 }
    }
    /// Whether it may call the API server for longer than a probe does.
    pub(super) fn is_dispatch(&self) -> bool {
        matches!(self.route, Ok(Route::Dispatch(_) | Route::Job(_)))
    }
}

#[derive(Debug)]
pub(super) enum Admitted {
    Now(Task),
    Later,
    /// The queue is full.
    Never(Task),
}

#[derive(Debug, Default)]
pub(super) struct Tasks {
    in_hand: AtomicUsize,
    queue: Mutex<VecDeque<Task>>,
}

impl Tasks {
    fn queue(&self) -> MutexGuard<'_, VecDeque<Task>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In hand, and in the queue.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.in_hand.load(SeqCst), self.queue().len())
    }

    fn take_place(&self) -> bool {
        let more = |in_hand| (in_hand < MAX_IN_HAND).then_some(in_hand + 1);
        self.in_hand.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// Now: the caller has a place, and gives it back with [`Tasks::next`].
    pub(super) fn admit(&self, task: Task) -> Admitted {
        if self.take_place() {
            return Admitted::Now(task);
        }
        let mut queue = self.queue();
        if self.take_place() {
            Admitted::Now(task) // one became free before the queue was locked
        } else if queue.len() < MAX_QUEUE {
            queue.push_back(task);
            Admitted::Later
        } else {
            Admitted::Never(task)
        }
    }

    /// For whoever has a place: the task that has waited longest, `again` being the last to come; or none, and the place is given back.
    pub(super) fn next(&self, again: Option<Task>) -> Option<Task> {
        let mut queue = self.queue();
        queue.extend(again);
        let next = queue.pop_front();
        if next.is_none() {
            self.in_hand.fetch_sub(1, SeqCst); // while the queue is locked, so that nobody queues behind the last one
        }
        next
    }

    /// The task that has waited longest, if it `is_wanted`.
    pub(super) fn pop_if(&self, is_wanted: impl Fn(&Task) -> bool) -> Option<Task> {
        let mut queue = self.queue();
        if queue.front().is_some_and(is_wanted) { queue.pop_front() } else { None }
    }
}
