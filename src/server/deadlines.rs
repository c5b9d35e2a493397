//! When the waits of exchanges end: an entry for each place that has one, in order of time, and one thread that sleeps until the first.
//!
//! An entry may be early, never late: while a wait is followed by one that ends later, as from request to request, the entry stays.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// Times and places. There is one entry for each place, or for a moment an early one in addition.
    entries: Mutex<BTreeSet<(Instant, u32)>>,
    thread: OnceLock<Thread>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum First {
    /// The entry of this place is due, and was removed.
    Due(u32),
    /// None is due before this time. None: there is none.
    Later(Option<Instant>),
}

impl Deadlines {
    fn entries(&self) -> MutexGuard<'_, BTreeSet<(Instant, u32)>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a place, in place of its entry for the time `before`.
    pub(super) fn enter(&self, index: u32, time: Instant, before: Option<Instant>) {
        let is_first = {
            let mut entries = self.entries();
            if let Some(before) = before {
                entries.remove(&(before, index));
            }
            entries.insert((time, index));
            entries.first() == Some(&(time, index))
        };
        if is_first {
            self.wake()
        }
    }

    /// Calls `end` with each place whose entry is due, for ever. `look`: is called before each sleep, and says how long that may be.
    pub(super) fn watch(&self, end: impl Fn(u32), look: impl Fn() -> Option<Duration>) {
        let _ = self.thread.set(thread::current()); // there is one
        loop {
            match self.first(Instant::now()) {
                First::Due(index) => end(index),
                First::Later(time) => {
                    let most = look();
                    let left = time.map(|time| time.saturating_duration_since(Instant::now()));
                    match left.into_iter().chain(most).min() {
                        Some(time) => thread::park_timeout(time),
                        None => thread::park(),
                    }
                }
            }
        }
    }

    fn first(&self, now: Instant) -> First {
        let mut entries = self.entries();
        match entries.first().copied() {
            Some((time, index)) if time <= now => {
                entries.pop_first();
                First::Due(index)
            }
            first => First::Later(first.map(|(time, _)| time)),
        }
    }

    /// Ends the sleep of the thread.
    pub(super) fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_due_in_order_of_time() {
        let (deadlines, begin) = (Deadlines::default(), Instant::now());
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        assert_eq!(deadlines.first(at(9)), First::Later(None));
        deadlines.enter(1, at(5), None);
        deadlines.enter(2, at(3), None);
        deadlines.enter(1, at(2), Some(at(5)));
        assert_eq!(deadlines.first(at(1)), First::Later(Some(at(2))));
        assert_eq!([deadlines.first(at(4)), deadlines.first(at(4))], [First::Due(1), First::Due(2)]);
        assert_eq!(deadlines.first(at(9)), First::Later(None), "each is due once");
    }
}
