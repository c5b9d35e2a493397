//! What several callers ask for at the same time, and one of them reads for all.

use super::slot::Slot;
use crate::hash::Digest;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Key {
    /// The pods of a Job, which are read after its callers were woken: its uid and version.
    Pods(Box<str>, u64),
    /// Who has the token with this digest.
    Caller(Digest),
}

/// There are few at a time.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<Vec<Reading>>);

#[derive(Debug)]
struct Reading {
    key: Key,
    since: Instant,
    /// Those that wait for it.
    others: Vec<Slot>,
}

impl Shared {
    fn all(&self) -> MutexGuard<'_, Vec<Reading>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the caller has to read it. One that began longer ago than `time` counts as gone.
    pub(super) fn begin(&self, key: &Key, time: Duration) -> bool {
        let (mut all, now) = (self.all(), Instant::now());
        match all.iter_mut().find(|reading| reading.key == *key) {
            Some(reading) if now - reading.since < time => return false,
            Some(reading) => reading.since = now,
            None => all.push(Reading { key: key.clone(), since: now, others: Vec::new() }),
        }
        true
    }

    /// A slot waits until it is read. Returns false if it was read meanwhile.
    pub(super) fn join(&self, key: &Key, slot: Slot) -> bool {
        let mut all = self.all();
        let reading = all.iter_mut().find(|reading| reading.key == *key);
        reading.map(|reading| reading.others.push(slot)).is_some()
    }

    /// It was read, or cannot be. Returns those that wait for it.
    pub(super) fn end(&self, key: &Key) -> Vec<Slot> {
        let mut all = self.all();
        let at = all.iter().position(|reading| reading.key == *key);
        at.map(|at| all.swap_remove(at).others).unwrap_or_default()
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.all().iter().map(|reading| reading.others.len()).sum()
    }

    /// A slot waits no longer.
    pub(super) fn leave(&self, slot: Slot) {
        self.all().iter_mut().for_each(|reading| reading.others.retain(|one| *one != slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reads_for_all() {
        let (shared, key, other) = (Shared::default(), Key::Pods("u".into(), 7), Key::Caller([7; 32]));
        let time = Duration::from_secs(9);
        assert!(shared.begin(&key, time) && !shared.begin(&key, time) && shared.begin(&other, time));
        let slots = [1, 2, 3].map(Slot::new);
        assert!(slots.iter().all(|slot| shared.join(&key, *slot)));
        assert_eq!(shared.waiting(), 3);
        shared.leave(slots[1]);
        assert_eq!((shared.end(&key), shared.end(&other)), (vec![slots[0], slots[2]], vec![]));
        assert!(!shared.join(&key, slots[0]), "it was read meanwhile");
        assert!(shared.begin(&key, time) && shared.begin(&key, Duration::ZERO), "the one before has gone");
    }
}
