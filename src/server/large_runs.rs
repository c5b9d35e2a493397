//! Large runs of the filter, one at a time, by a thread that exists while there is one. What waits for it holds neither a worker thread nor a
//! permit for calls, so that small requests pass.

use super::permits::Permits;
use crate::budget::{Budget, Reservation};
use std::sync::Arc;
use std::time::Instant;

/// Bytes for the outputs of large runs, until they are answered. A run reserves two of the largest outputs: one as the filter gives it, one
/// as the manifest.
const OUTPUT_BUDGET: usize = 3 << 20;
/// Bytes for large replies, until they are sent. Clients that do not read theirs do not stop the runs of others.
const REPLY_BUDGET: usize = 1 << 20;

/// Requests that wait for a large run.
const MAX_QUEUE: usize = 1024;

#[derive(Debug)]
pub(super) struct LargeRuns {
    /// The thread has the only one.
    pub(super) permits: Permits,
    outputs: Arc<Budget>,
    replies: Arc<Budget>,
}

impl LargeRuns {
    pub(super) fn new() -> Self {
        LargeRuns {
            permits: Permits::new(1, MAX_QUEUE),
            outputs: Budget::new(OUTPUT_BUDGET),
            replies: Budget::new(REPLY_BUDGET),
        }
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
