//! Large runs of the filter, one at a time: a queue, and a thread that exists while there is something in it. A task that waits here
//! holds neither a worker thread nor a permit, so that small requests pass.

use super::admission::Task;
use crate::budget::{Budget, Reservation};
use crate::dispatch::Begun;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Tasks that wait for a large run.
const MAX_QUEUE: usize = 1024;
/// Bytes for the outputs of large runs, until they are answered. A run reserves two of the largest outputs: one as the filter gives it, one
/// as the manifest.
const OUTPUT_BUDGET: usize = 3 << 20;
/// Bytes for large replies, until they are sent. Clients that do not read theirs do not stop the runs of others.
const REPLY_BUDGET: usize = 1 << 20;

/// A task, and what its small run has left.
#[derive(Debug)]
pub(super) struct LargeRun {
    pub(super) task: Task,
    pub(super) begun: Begun,
}

#[derive(Debug)]
pub(super) struct LargeRuns {
    queue: Mutex<Queue>,
    outputs: Arc<Budget>,
    replies: Arc<Budget>,
}

#[derive(Debug, Default)]
struct Queue {
    runs: VecDeque<LargeRun>,
    has_thread: bool,
}

/// What becomes of a run that is queued.
#[derive(Debug)]
pub(super) enum Queued {
    /// A thread works on the queue.
    Waits,
    /// The caller has to start a thread, which calls [`LargeRuns::next`] until that returns None.
    NeedsThread,
    /// The queue is full.
    Rejected(Box<Task>),
}

impl LargeRuns {
    pub(super) fn new() -> Self {
        LargeRuns { queue: Mutex::default(), outputs: Budget::new(OUTPUT_BUDGET), replies: Budget::new(REPLY_BUDGET) }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, run: LargeRun) -> Queued {
        let mut queue = self.queue();
        if queue.runs.len() >= MAX_QUEUE {
            return Queued::Rejected(Box::new(run.task));
        }
        queue.runs.push_back(run);
        if std::mem::replace(&mut queue.has_thread, true) { Queued::Waits } else { Queued::NeedsThread }
    }

    /// The oldest run. None: the thread ends.
    pub(super) fn next(&self) -> Option<LargeRun> {
        let mut queue = self.queue();
        let next = queue.runs.pop_front();
        queue.has_thread = next.is_some();
        next
    }

    /// The oldest run, if it `is_wanted`. For other threads than the one that runs.
    pub(super) fn pop_if(&self, is_wanted: impl Fn(&Task) -> bool) -> Option<Task> {
        let mut queue = self.queue();
        let is_wanted = queue.runs.front().is_some_and(|run| is_wanted(&run.task));
        if is_wanted { queue.runs.pop_front().map(|run| run.task) } else { None }
    }

    pub(super) fn len(&self) -> usize {
        self.queue().runs.len()
    }

    /// Memory for a run's output, whose bytes are at most `max_output`. Waits until `until`.
    pub(super) fn reserve_output(&self, max_output: usize, until: Instant) -> Option<Reservation> {
        self.outputs.reserve(2 * max_output, until)
    }

    /// Memory for a large reply. None: not available now.
    pub(super) fn try_reserve_reply(&self, bytes: usize) -> Option<Reservation> {
        self.replies.try_reserve(bytes)
    }
}
