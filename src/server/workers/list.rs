//! Pages of Jobs: made one at a time, by one worker. The others wait in a queue, without a thread, until it is their turn and the Jobs are known.

use super::{Worker, Workers};
use crate::dispatch::MAX_PAGE;
use crate::http::Reply;
use crate::server::admission::Task;
use crate::status::{Reason, Status};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a list waits until the Jobs are known.
const TIME: Duration = Duration::from_secs(2);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// Requests for a page. There are no more than connections.
#[derive(Debug, Default)]
pub(super) struct Lists(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    tasks: VecDeque<Task>,
    /// A page is being made, or the task whose turn it is waits until the Jobs are known.
    is_taken: bool,
}

impl Lists {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.queue().tasks.len()
    }

    /// Gives the turn to a task, or queues it.
    fn enter(&self, task: Task) -> Option<Task> {
        let mut queue = self.queue();
        if task.has_turn || !std::mem::replace(&mut queue.is_taken, true) {
            return Some(task);
        }
        queue.tasks.push_back(task);
        None
    }

    /// Passes the turn on.
    fn next(&self) -> Option<Task> {
        let mut queue = self.queue();
        let next = queue.tasks.pop_front();
        queue.is_taken = next.is_some();
        next
    }

    /// The first queued task that `is_wanted`.
    pub(super) fn pop_if(&self, is_wanted: impl Fn(&Task) -> bool) -> Option<Task> {
        let mut queue = self.queue();
        let place = queue.tasks.iter().position(is_wanted)?;
        queue.tasks.remove(place)
    }
}

impl Workers {
    /// Answers a request for a page of Jobs, then those that are queued.
    pub(super) fn list(&self, worker: &mut Worker, task: Task) {
        self.want_watch();
        let mut next = self.lists.enter(task);
        while let Some(mut task) = next {
            let Some(reply) = self.page(&task) else {
                task.has_turn = true;
                return self.later.push(Instant::now() + PAUSE, task);
            };
            let step = self.reply(worker, &mut task, reply);
            let Task { slot, connection, request, .. } = task;
            drop(request);
            self.rearm_or_hand_over(slot, connection, step);
            next = self.lists.next()
        }
    }

    /// Passes the turn on of a task that is rejected.
    pub(super) fn give_up_turn(&self) {
        if let Some(next) = self.lists.next() {
            self.hand_over(Task { has_turn: true, ..next })
        }
    }

    /// A page of Jobs; None if they are not known at the moment, and there is time to wait for them.
    fn page(&self, task: &Task) -> Option<Reply> {
        let Some(mut memory) = self.pages.try_reserve(MAX_PAGE) else {
            return Some(Status::new(Reason::Overloaded, "too many lists are being sent").into());
        };
        let has_time = task.arrived.elapsed() < TIME && !self.server.is_stopping.load(Relaxed);
        let mut reply = match self.server.list(&task.request) {
            None if has_time => return None,
            None => {
                let status = Status::new(Reason::ServiceUnavailable, "the Jobs are not known at the moment");
                status.with_retry_after(1).into()
            }
            Some(reply) => reply,
        };
        if let Cow::Owned(body) = &mut reply.body {
            body.shrink_to_fit();
            if body.capacity() <= MAX_PAGE {
                memory.shrink(body.capacity());
                reply.reservation = Some(memory)
            }
        }
        Some(reply)
    }
}
