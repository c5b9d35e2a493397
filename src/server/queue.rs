//! Slots that wait for the same, the longest wait first.

use super::slot::Slot;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

/// `T`: how much each waits for.
#[derive(Debug)]
pub(super) struct Queue<T = ()> {
    entries: Mutex<VecDeque<(Slot, T)>>,
    /// Their number, to look at without the lock.
    len: AtomicUsize,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue { entries: Mutex::default(), len: AtomicUsize::new(0) }
    }
}

impl<T> Queue<T> {
    /// Changes the queue while nobody else sees it.
    pub(super) fn change<R>(&self, change: impl FnOnce(&mut VecDeque<(Slot, T)>) -> R) -> R {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut entries);
        self.len.store(entries.len(), SeqCst);
        result
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len.load(SeqCst)
    }

    /// A slot waits, behind all others. Returns how many wait now.
    pub(super) fn push(&self, slot: Slot, what: T) -> usize {
        self.change(|entries| {
            entries.push_back((slot, what));
            entries.len()
        })
    }

    /// The slot that has waited longest, if it can have what it waits for.
    pub(super) fn pop_if<R>(&self, take: impl FnOnce(&T) -> Option<R>) -> Option<(Slot, R)> {
        if self.len() == 0 {
            return None;
        }
        self.change(|entries| {
            let taken = take(&entries.front()?.1)?;
            entries.pop_front().map(|(slot, _)| (slot, taken))
        })
    }

    /// A slot waits no longer.
    pub(super) fn leave(&self, slot: Slot) {
        if self.len() > 0 {
            self.change(|entries| entries.retain(|(one, _)| *one != slot))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_is_first_and_is_not_overtaken() {
        let (queue, slots) = (Queue::default(), [1, 2, 3].map(Slot::new));
        for (number, slot) in slots.into_iter().enumerate() {
            assert_eq!(queue.push(slot, 3 - number), number + 1);
        }
        let pop = |most: usize| queue.pop_if(|wants| (*wants <= most).then_some(*wants));
        assert_eq!(pop(2), None, "the first wants three");
        assert_eq!(pop(3), Some((slots[0], 3)));
        queue.leave(slots[1].renewed());
        assert_eq!(queue.len(), 2, "that is another wait");
        queue.leave(slots[1]);
        assert_eq!((pop(3), pop(3), queue.len()), (Some((slots[2], 1)), None, 0));
    }
}
