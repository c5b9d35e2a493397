//! Memory for requests, from their heads until they are answered. A large request that finds none available waits, unread, in order of
//! arrival.

use super::queue::Queue;
use super::slot::Slot;
use crate::budget::{Budget, Reservation};
use std::sync::Arc;

/// Bytes up to which a request is small. Small ones have a budget of their own, so that a few slow uploads do not block them.
pub(super) const SMALL: usize = 16 << 10;
/// Bytes for small requests, and for partly received heads: a thousand requests of 1.5 KiB.
const SMALL_BUDGET: usize = 3 << 19;
/// Bytes for large requests, unless two of the largest need more.
const LARGE_BUDGET: usize = 9 << 19;
/// Bytes for what was received of the requests that wait, which would else take the memory of small ones: 256 of 4 KiB.
const WAITING_BUDGET: usize = 1 << 20;

/// Budgets for requests, and the queue of those that wait.
#[derive(Debug)]
pub(super) struct RequestMemory {
    small: Arc<Budget>,
    large: Arc<Budget>,
    waiting_input: Arc<Budget>,
    /// How many bytes each waits for.
    waiting: Queue<usize>,
    max_waiting: usize,
}

impl RequestMemory {
    /// `max_request`: bytes of the largest request. `connections`: their maximum number, half of which may wait.
    pub(super) fn new(max_request: usize, connections: usize) -> Self {
        RequestMemory {
            small: Budget::new(SMALL_BUDGET),
            large: Budget::new(LARGE_BUDGET.max(2 * max_request)),
            waiting_input: Budget::new(WAITING_BUDGET),
            waiting: Queue::default(),
            max_waiting: connections.div_ceil(2),
        }
    }

    /// For a request of at most [`SMALL`] bytes, or part of a head. None: not available now.
    pub(super) fn try_reserve_small(&self, bytes: usize) -> Option<Reservation> {
        self.small.try_reserve(bytes)
    }

    /// For a larger request. None: not available now, or others have waited longer.
    pub(super) fn try_reserve_large(&self, bytes: usize) -> Option<Reservation> {
        if self.is_short() { None } else { self.large.try_reserve(bytes) }
    }

    /// For what was received of a request that is about to wait. None: no other may wait.
    pub(super) fn try_reserve_waiting(&self, bytes: usize) -> Option<Reservation> {
        if self.queued() < self.max_waiting { self.waiting_input.try_reserve(bytes) } else { None }
    }

    /// Whether requests wait.
    pub(super) fn is_short(&self) -> bool {
        self.queued() > 0
    }

    /// Requests that wait.
    pub(super) fn queued(&self) -> usize {
        self.waiting.len()
    }

    /// Queues a connection that needs so many bytes. The caller then calls [`RequestMemory::next_grant`]: bytes may have been released.
    ///
    /// Returns whether no other waits.
    pub(super) fn wait(&self, slot: Slot, bytes: usize) -> bool {
        self.waiting.push(slot, bytes) == 1
    }

    /// The connection that has waited longest, with its memory, if that is available now.
    pub(super) fn next_grant(&self) -> Option<(Slot, Reservation)> {
        self.waiting.pop_if(|bytes| self.large.try_reserve(*bytes))
    }

    /// Removes a connection from the queue.
    pub(super) fn leave(&self, slot: Slot) {
        self.waiting.leave(slot)
    }

    pub(super) fn reserved_bytes(&self) -> usize {
        [&self.small, &self.large, &self.waiting_input].map(|budget| budget.reserved_bytes()).iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_requests_wait_in_order_of_arrival() {
        let memory = RequestMemory::new(3 << 20, 4);
        let first = memory.try_reserve_large(5 << 20).unwrap();
        assert!(memory.try_reserve_large(2 << 20).is_none() && memory.try_reserve_waiting(1).is_some());
        let slots = [Slot::new(7), Slot::new(8)];
        assert!(memory.wait(slots[0], 2 << 20) && !memory.wait(slots[1], 1));
        assert!(memory.try_reserve_waiting(1).is_none(), "half of the connections wait");
        assert!(memory.next_grant().is_none(), "the second fits, but does not overtake");
        assert!(memory.try_reserve_large(1).is_none(), "nor does a new one");
        drop(first);
        let (slot, reservation) = memory.next_grant().unwrap();
        assert_eq!((slot, reservation.bytes()), (slots[0], 2 << 20));
        memory.leave(slots[1].next());
        assert!(memory.is_short(), "that is another wait");
        memory.leave(slots[1]);
        assert!(memory.next_grant().is_none() && memory.try_reserve_large(1).is_some());
    }
}
