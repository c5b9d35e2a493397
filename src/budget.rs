//! Memory that is limited for the whole process: reserved before it is used, released by dropping the reservation.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

/// A number of bytes to reserve from. Every request reserves some, so that takes no lock; who waits for bytes holds one.
#[derive(Debug)]
pub(crate) struct Budget {
    size: usize,
    available: AtomicUsize,
    /// Threads that wait, or are about to.
    waiting: AtomicUsize,
    lock: Mutex<()>,
    released: Condvar,
}

/// Reserved bytes.
#[derive(Debug)]
pub(crate) struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Budget {
    pub(crate) fn new(size: usize) -> Arc<Self> {
        let available = AtomicUsize::new(size);
        Arc::new(Budget {
            size,
            available,
            waiting: AtomicUsize::new(0),
            lock: Mutex::default(),
            released: Condvar::new(),
        })
    }

    pub(crate) fn reserved_bytes(&self) -> usize {
        self.size - self.available.load(SeqCst)
    }

    fn take(&self, bytes: usize) -> bool {
        self.available.fetch_update(SeqCst, SeqCst, |available| available.checked_sub(bytes)).is_ok()
    }

    /// Returns None if fewer bytes are available now.
    pub(crate) fn try_reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        self.take(bytes).then(|| Reservation { budget: self.clone(), bytes })
    }

    /// Waits for as many bytes. Returns None if fewer are available at `until`.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize, until: Instant) -> Option<Reservation> {
        self.waiting.fetch_add(1, SeqCst);
        let guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = until.saturating_duration_since(Instant::now());
        let mut is_reserved = false;
        let waited = self.released.wait_timeout_while(guard, wait, |()| {
            is_reserved = is_reserved || self.take(bytes);
            !is_reserved
        });
        drop(waited);
        self.waiting.fetch_sub(1, SeqCst);
        is_reserved.then(|| Reservation { budget: self.clone(), bytes })
    }

    fn release(&self, bytes: usize) {
        self.available.fetch_add(bytes, SeqCst);
        // who counts itself after this sees the bytes; who did before waits, or will not before the lock is free
        if self.waiting.load(SeqCst) > 0 {
            let _guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.released.notify_all()
        }
    }
}

impl Reservation {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether as many bytes are available beside it.
    pub(crate) fn leaves(&self, bytes: usize) -> bool {
        self.budget.available.load(SeqCst) >= bytes
    }

    /// Releases what exceeds `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        if surplus > 0 {
            self.bytes -= surplus;
            self.budget.release(surplus)
        }
    }

    /// Reserves more, up to `bytes` in all. Returns false if fewer are available now.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let is_reserved = self.budget.take(more);
        self.bytes += if is_reserved { more } else { 0 };
        is_reserved
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_reserved_is_released_once() {
        let budget = Budget::new(10);
        let mut first = budget.try_reserve(7).unwrap();
        assert!(budget.try_reserve(4).is_none());
        first.shrink(6);
        assert_eq!((first.bytes(), budget.reserved_bytes()), (6, 6));
        assert!(first.leaves(4) && !first.leaves(5));
        let second = budget.try_reserve(3).unwrap();
        assert!(!first.try_grow(8) && first.try_grow(7) && budget.try_reserve(1).is_none());
        drop((first, second));
        assert_eq!(budget.reserved_bytes(), 0);
    }

    #[test]
    fn a_reservation_can_be_waited_for() {
        let budget = Budget::new(10);
        let first = budget.try_reserve(10).unwrap();
        assert!(budget.reserve(1, Instant::now()).is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| budget.reserve(10, Instant::now() + Duration::from_secs(60)).is_some());
            drop(first);
            assert!(waiting.join().unwrap());
        });
        assert_eq!(budget.reserved_bytes(), 0);
    }
}
