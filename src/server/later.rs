//! Requests whose next call waits for its time. They hold neither a thread nor a permit for a call; one thread hands them over in time.

use super::admission::Task;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::Instant;

/// There are no more tasks in it than connections.
#[derive(Debug, Default)]
pub(super) struct Later {
    queue: Mutex<Queue>,
    thread: OnceLock<Thread>,
}

#[derive(Debug, Default)]
struct Queue {
    /// By time, and by a number for those of the same time.
    tasks: BTreeMap<(Instant, u64), Task>,
    next: u64,
}

impl Later {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.queue().tasks.len()
    }

    /// Keeps a task until `time`.
    pub(super) fn push(&self, time: Instant, task: Task) {
        let is_first = {
            let mut queue = self.queue();
            let key = (time, queue.next);
            queue.next += 1;
            queue.tasks.insert(key, task);
            queue.tasks.first_key_value().is_some_and(|(first, _)| *first == key)
        };
        if is_first && let Some(thread) = self.thread.get() {
            thread.unpark()
        }
    }

    /// Hands over each task at its time, for ever.
    pub(super) fn run(&self, hand_over: impl Fn(Task)) {
        let _ = self.thread.set(thread::current()); // there is one
        loop {
            let now = Instant::now();
            let (due, next) = {
                let mut queue = self.queue();
                let is_due = queue.tasks.first_key_value().is_some_and(|((time, _), _)| *time <= now);
                let due = if is_due { queue.tasks.pop_first() } else { None };
                (due, queue.tasks.first_key_value().map(|((time, _), _)| *time))
            };
            match (due, next) {
                (Some((_, task)), _) => hand_over(task),
                (None, Some(time)) => thread::park_timeout(time.saturating_duration_since(now)),
                (None, None) => thread::park(),
            }
        }
    }

    /// The first task that `is_wanted`.
    pub(super) fn pop_if(&self, is_wanted: impl Fn(&Task) -> bool) -> Option<Task> {
        let mut queue = self.queue();
        let key = queue.tasks.iter().find(|(_, task)| is_wanted(task)).map(|(key, _)| *key)?;
        queue.tasks.remove(&key)
    }
}
