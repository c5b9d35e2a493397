//! Extra threads that are not needed now. Each keeps its connection to the API server; the last to come is the first to go on.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

#[derive(Debug, Default)]
pub(super) struct Resting(Mutex<Vec<Arc<Rest>>>);

#[derive(Debug)]
struct Rest {
    thread: Thread,
    is_over: AtomicBool,
}

impl Resting {
    fn all(&self) -> MutexGuard<'_, Vec<Arc<Rest>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rests until this thread is woken. Returns false if that was not within `time`.
    pub(super) fn rest(&self, time: Duration) -> bool {
        let rest = Arc::new(Rest { thread: thread::current(), is_over: AtomicBool::new(false) });
        self.all().push(rest.clone());
        let end = Instant::now() + time;
        while !rest.is_over.load(SeqCst) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let mut all = self.all();
                let before = all.len();
                all.retain(|one| !Arc::ptr_eq(one, &rest));
                return all.len() == before; // it was woken just now
            }
            thread::park_timeout(left)
        }
        true
    }

    /// Wakes the thread that came last. Returns false if none rests.
    pub(super) fn wake_one(&self) -> bool {
        let last = self.all().pop();
        if let Some(rest) = &last {
            rest.is_over.store(true, SeqCst);
            rest.thread.unpark()
        }
        last.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_rests_until_it_is_woken_or_its_time_is_over() {
        let resting = Resting::default();
        assert!(!resting.rest(Duration::from_millis(1)) && !resting.wake_one(), "nobody rests any more");
        thread::scope(|scope| {
            let woken = scope.spawn(|| resting.rest(Duration::from_secs(20)));
            while !resting.wake_one() {
                thread::yield_now()
            }
            assert!(woken.join().unwrap());
        });
    }
}
