//! How far a shutdown is, and how long it lets exchanges wait.

use super::exchange::{Received, Waits};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long requests in flight may take after SIGTERM: less than a pod's default grace period of 30 s.
pub(super) const DRAIN: Duration = Duration::from_secs(25);
/// How long, within that time, partly received requests have to arrive completely.
const UNFINISHED: Duration = Duration::from_secs(5);
/// How long, within that time, dispatches may pause; then each has its last try.
const PAUSES: Duration = Duration::from_secs(20);
/// When, within that time, all calls have ended, and nothing is queued: the rest is for replies.
const CALLS: Duration = Duration::from_secs(24);

#[derive(Debug, Default)]
pub(super) struct Shutdown {
    announced: OnceLock<Instant>,
    begun: OnceLock<Instant>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stopping {
    No,
    /// Requests are still accepted.
    Announced(Instant),
    /// No more connections are accepted.
    Begun(Instant),
}

impl Shutdown {
    pub(super) fn announce(&self) {
        self.announced.get_or_init(Instant::now);
    }

    pub(super) fn begin(&self) {
        self.announce();
        self.begun.get_or_init(Instant::now);
    }

    pub(super) fn is_announced(&self) -> bool {
        self.announced.get().is_some()
    }

    /// Whether connections are closed after their replies.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.get().is_some()
    }

    pub(super) fn stopping(&self) -> Stopping {
        match (self.announced.get(), self.begun.get()) {
            (_, Some(begun)) => Stopping::Begun(*begun),
            (Some(announced), None) => Stopping::Announced(*announced),
            (None, None) => Stopping::No,
        }
    }

    /// When the last call to the API server has to end.
    pub(super) fn calls_end(&self) -> Option<Instant> {
        self.begun.get().map(|begun| *begun + CALLS)
    }
}

/// Until when an exchange may wait at most. None: until its own deadline.
pub(super) fn latest(waits: Waits, received: Received, stopping: Stopping) -> Option<Instant> {
    let begun = match (stopping, waits) {
        (Stopping::No, _) => return None,
        (Stopping::Announced(at) | Stopping::Begun(at), Waits::Job | Waits::Pods) => return Some(at),
        (Stopping::Announced(_), _) => return None,
        (Stopping::Begun(at), _) => at,
    };
    match (waits, received) {
        (Waits::Client(_), Received::All) => None,
        (Waits::Client(_), Received::Nothing) | (Waits::Job | Waits::Pods, _) => Some(begun),
        (Waits::Client(_), Received::Part) | (Waits::Memory(_), _) => Some(begun + UNFINISHED),
        (Waits::Time, _) => Some(begun + PAUSES),
        (Waits::Worker | Waits::Permit | Waits::LargeRun | Waits::Turn | Waits::Caller, _) => Some(begun + CALLS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Kind;
    use crate::server::connection::Interest;

    #[test]
    fn a_shutdown_lets_nothing_wait_for_longer_than_it_takes_but_a_reply_that_is_being_read() {
        let (at, all) = (Instant::now(), [Received::Nothing, Received::Part, Received::All]);
        let seconds = |waits, received, stopping| Some((latest(waits, received, stopping)? - at).as_secs());
        let client = Waits::Client(Interest::Readable);
        for (waits, want) in [
            (client, [Some(0), Some(5), None]),
            (Waits::Memory(Kind::Large), [Some(5); 3]),
            (Waits::Worker, [Some(24); 3]),
            (Waits::Permit, [Some(24); 3]),
            (Waits::LargeRun, [Some(24); 3]),
            (Waits::Turn, [Some(24); 3]),
            (Waits::Time, [Some(20); 3]),
            (Waits::Job, [Some(0); 3]),
            (Waits::Pods, [Some(0); 3]),
            (Waits::Caller, [Some(24); 3]),
        ] {
            assert_eq!(all.map(|received| seconds(waits, received, Stopping::Begun(at))), want, "{waits:?}");
            let early = if matches!(waits, Waits::Job | Waits::Pods) { Some(0) } else { None };
            assert_eq!(all.map(|received| seconds(waits, received, Stopping::Announced(at))), [early; 3], "{waits:?}");
            assert_eq!(all.map(|received| seconds(waits, received, Stopping::No)), [None; 3], "{waits:?}");
        }
    }
}
