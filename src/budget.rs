//! Memory that is limited for the whole process: reserved before it is used, released by dropping the reservation.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A number of bytes to reserve from.
#[derive(Debug)]
pub(crate) struct Budget {
    size: usize,
    available: Mutex<usize>,
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
        Arc::new(Budget { size, available: Mutex::new(size), released: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.available.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reserved_bytes(&self) -> usize {
        self.size - *self.lock()
    }

    /// Returns None if fewer bytes are available now.
    pub(crate) fn try_reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let mut available = self.lock();
        *available = available.checked_sub(bytes)?;
        drop(available);
        Some(Reservation { budget: self.clone(), bytes })
    }

    /// Waits for as many bytes. Returns None if fewer are available at `until`.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: usize, until: Instant) -> Option<Reservation> {
        let wait = until.saturating_duration_since(Instant::now());
        let waited = self.released.wait_timeout_while(self.lock(), wait, |available| *available < bytes);
        let (mut available, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *available = available.checked_sub(bytes)?;
        drop(available);
        Some(Reservation { budget: self.clone(), bytes })
    }
}

impl Reservation {
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Releases what exceeds `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        if surplus > 0 {
            self.bytes -= surplus;
            *self.budget.lock() += surplus;
            self.budget.released.notify_all()
        }
    }

    /// Reserves more, up to `bytes` in all. Returns false if fewer are available now.
    pub(crate) fn try_grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let mut available = self.budget.lock();
        let Some(left) = available.checked_sub(more) else { return false };
        *available = left;
        drop(available);
        self.bytes += more;
        true
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
