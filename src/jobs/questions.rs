//! The Jobs to ask for, and whether a thread does.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The Jobs to ask for, each once.
#[derive(Debug, Default)]
pub(super) struct Questions(Mutex<ToAsk>);

#[derive(Debug, Default)]
struct ToAsk {
    /// Names, and until when to ask. There are no more than callers that wait.
    names: VecDeque<(Box<str>, Instant)>,
    has_thread: bool,
}

impl Questions {
    fn lock(&self) -> MutexGuard<'_, ToAsk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the caller has to start the thread that [answers](super::Jobs::answer).
    pub(super) fn push(&self, name: &str, until: Instant) -> bool {
        let mut to_ask = self.lock();
        if !to_ask.names.iter().any(|(queued, _)| **queued == *name) {
            to_ask.names.push_back((name.into(), until))
        }
        !std::mem::replace(&mut to_ask.has_thread, true)
    }

    /// The next; None ends the thread.
    pub(super) fn pop(&self) -> Option<(Box<str>, Instant)> {
        let mut to_ask = self.lock();
        let next = to_ask.names.pop_front();
        to_ask.has_thread = next.is_some();
        next
    }
}
