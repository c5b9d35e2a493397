//! A semaphore with a queue. What waits in it holds no thread: the queue has its slot.

use super::queue::Queue;
use super::slot::Slot;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

#[derive(Debug)]
pub(super) struct Permits {
    max: usize,
    max_queue: usize,
    used: AtomicUsize,
    queue: Queue,
}

/// What becomes of a slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Entry {
    /// It has a permit, which is released with [`Permits::pass_on`].
    Admitted,
    Queued,
    /// The queue is full.
    Rejected,
}

impl Permits {
    /// `max_queue`: slots that wait; one that has begun may come in addition.
    pub(super) fn new(max: usize, max_queue: usize) -> Self {
        Permits { max, max_queue, used: AtomicUsize::new(0), queue: Queue::default() }
    }

    /// Permits in use.
    pub(super) fn used(&self) -> usize {
        self.used.load(SeqCst)
    }

    /// A permit, if one is free.
    pub(super) fn try_acquire(&self) -> bool {
        let more = |used| (used < self.max).then_some(used + 1);
        self.used.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// A permit, or a place in the queue. `is_urgent`: before all others, and whether or not the queue is full.
    pub(super) fn enter(&self, slot: Slot, is_urgent: bool) -> Entry {
        self.queue.change(|queue| {
            if self.try_acquire() {
                return Entry::Admitted; // it was released before the queue was locked
            }
            match is_urgent {
                true => queue.push_front((slot, ())),
                false if queue.len() >= self.max_queue => return Entry::Rejected,
                false => queue.push_back((slot, ())),
            }
            Entry::Queued
        })
    }

    /// Passes a permit on: to the slot that has waited longest. None releases it.
    pub(super) fn pass_on(&self) -> Option<Slot> {
        self.queue.change(|queue| {
            let next = queue.pop_front();
            if next.is_none() {
                self.used.fetch_sub(1, SeqCst); // while the queue is locked, so that no slot is queued behind the last one
            }
            next.map(|(slot, ())| slot)
        })
    }

    /// Slots that wait.
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Queues a slot behind all others: the next request of a connection that has a permit, which is passed on.
    pub(super) fn queue_behind(&self, slot: Slot) {
        self.queue.push(slot, ());
    }

    /// A slot waits no longer.
    pub(super) fn leave(&self, slot: Slot) {
        self.queue.leave(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permits_are_passed_on_in_order() {
        let permits = Permits::new(1, 9);
        let slots = [1, 2, 3, 4].map(Slot::new);
        assert_eq!(permits.enter(slots[0], false), Entry::Admitted);
        assert!(!permits.try_acquire());
        assert_eq!([slots[1], slots[2]].map(|slot| permits.enter(slot, false)), [Entry::Queued; 2]);
        assert_eq!(permits.enter(slots[3], true), Entry::Queued);
        permits.leave(slots[1]);
        assert_eq!((permits.pass_on(), permits.used()), (Some(slots[3]), 1));
        permits.queue_behind(slots[0]);
        assert_eq!([permits.pass_on(), permits.pass_on()], [Some(slots[2]), Some(slots[0])]);
        assert!(permits.pass_on().is_none() && permits.try_acquire(), "it was released");
    }

    #[test]
    fn the_queue_has_a_bound() {
        let permits = Permits::new(0, 2);
        for index in 0..2 {
            assert_eq!(permits.enter(Slot::new(index), false), Entry::Queued);
        }
        let slot = Slot::new(2);
        assert_eq!([false, true].map(|is_urgent| permits.enter(slot, is_urgent)), [Entry::Rejected, Entry::Queued]);
    }
}
