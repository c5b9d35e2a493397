//! A semaphore with a bounded queue for requests that may call the API server. A queued request holds no thread.

use super::connection::Connection;
use super::serve::route_on;
use super::slot::Slot;
use crate::config::Enabled;
use crate::dispatch::Work;
use crate::http::Request;
use crate::route::Route;
use crate::status::Status;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Dispatches in flight, so also API calls in flight. With 5 ms a call that is what two cores can serve, and more than an API server
/// creates; and each needs a thread with a TLS connection, a quarter of a megabyte at most.
pub(super) const MAX_IN_FLIGHT: usize = 56;
/// Requests that wait for a permit.
const MAX_QUEUE: usize = 1024;

/// A whole request, and the connection that waits for its reply.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) slot: Slot,
    pub(super) connection: Box<Connection>,
    pub(super) request: Request,
    pub(super) route: Result<Route, Status>,
    /// When the whole request was received.
    pub(super) arrived: Instant,
    /// What the filter has decided, if that was before this task got its permit.
    pub(super) planned: Option<Box<Work>>,
    /// Of requests for a page of Jobs it is the next.
    pub(super) has_turn: bool,
}

impl Task {
    pub(super) fn new(slot: Slot, connection: Box<Connection>, request: Request, enabled: Enabled) -> Self {
        Task {
            slot,
            route: route_on(&request, enabled, connection.is_reserved()),
            connection,
            request,
            arrived: Instant::now(),
            planned: None,
            has_turn: false,
        }
    }
    /// Whether the API server was called for it.
    pub(super) fn has_begun(&self) -> bool {
        self.planned.as_ref().is_some_and(|work| work.tried().is_some())
    }
    /// As [`Route::is_dispatch`].
    pub(super) fn is_dispatch(&self) -> bool {
        self.route.as_ref().is_ok_and(Route::is_dispatch)
    }
}

/// What becomes of a task.
#[derive(Debug)]
pub(super) enum Decision {
    Admitted(Task),
    Queued,
    /// The queue is full.
    Rejected(Task),
}

#[derive(Debug, Default)]
pub(super) struct Admission {
    in_flight: AtomicUsize,
    queue: Mutex<VecDeque<Task>>,
}

impl Admission {
    fn queue(&self) -> MutexGuard<'_, VecDeque<Task>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// In flight, and queued.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.in_flight.load(SeqCst), self.queue().len())
    }

    fn try_acquire(&self) -> bool {
        let more = |in_flight| (in_flight < MAX_IN_FLIGHT).then_some(in_flight + 1);
        self.in_flight.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// Admitted: the caller has a permit, and releases it with [`Admission::next`].
    pub(super) fn admit(&self, task: Task) -> Decision {
        if self.try_acquire() {
            return Decision::Admitted(task);
        }
        let mut queue = self.queue();
        if self.try_acquire() {
            Decision::Admitted(task) // a permit was released before the queue was locked
        } else if task.has_begun() {
            queue.push_front(task); // few at once, for which the retry budget has a bound
            Decision::Queued
        } else if queue.len() < MAX_QUEUE {
            queue.push_back(task);
            Decision::Queued
        } else {
            Decision::Rejected(task)
        }
    }

    /// For the holder of a permit: the oldest task, with `again` as the newest. None releases the permit.
    pub(super) fn next(&self, again: Option<Task>) -> Option<Task> {
        let mut queue = self.queue();
        queue.extend(again);
        let next = queue.pop_front();
        if next.is_none() {
            self.in_flight.fetch_sub(1, SeqCst); // while the queue is locked, so that no task is queued behind the last one
        }
        next
    }

    /// The first queued task that `is_wanted`.
    pub(super) fn pop_if(&self, is_wanted: impl Fn(&Task) -> bool) -> Option<Task> {
        let mut queue = self.queue();
        let place = queue.iter().position(is_wanted)?; // a planned task is older than those before it
        queue.remove(place)
    }
}
