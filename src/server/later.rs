//! Exchanges whose next call waits for its time: one thread wakes each.

use super::slot::Slot;
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Instant;

/// There are no more slots in it than connections.
#[derive(Debug, Default)]
pub(super) struct Later {
    queue: Mutex<BTreeSet<(Instant, Slot)>>,
    thread: OnceLock<Thread>,
}

impl Later {
    fn queue(&self) -> MutexGuard<'_, BTreeSet<(Instant, Slot)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.queue().len()
    }

    /// Wakes a slot at `time`.
    pub(super) fn push(&self, time: Instant, slot: Slot) {
        let is_first = {
            let mut queue = self.queue();
            queue.insert((time, slot));
            queue.first() == Some(&(time, slot))
        };
        if is_first && let Some(thread) = self.thread.get() {
            thread.unpark()
        }
    }

    /// A slot waits no longer. `time`: at which it was to be woken.
    pub(super) fn leave(&self, time: Instant, slot: Slot) {
        self.queue().remove(&(time, slot));
    }

    /// Wakes each slot at its time, for ever.
    pub(super) fn run(&self, wake: impl Fn(Slot)) {
        let _ = self.thread.set(thread::current()); // there is one
        loop {
            let now = Instant::now();
            let (due, next) = {
                let mut queue = self.queue();
                let is_due = queue.first().is_some_and(|(time, _)| *time <= now);
                let due = if is_due { queue.pop_first() } else { None };
                (due, queue.first().map(|(time, _)| *time))
            };
            match (due, next) {
                (Some((_, slot)), _) => wake(slot),
                (None, Some(time)) => thread::park_timeout(time.saturating_duration_since(now)),
                (None, None) => thread::park(),
            }
        }
    }
}
