//! How many threads run. Decides at each tick whether to let more in, by what it sees; its clock is the ticks.
//!
//! Threads block on the API server only. The core threads (four a core) always run; a ready connection waits for the next of them,
//! which costs no context switch. Extra threads run only while threads wait for the API server: when even its fastest answers take more
//! than a tick, or none comes at all. What waits for a core makes the other calls slow, but not the fastest. Then, if no thread has been
//! idle for a tick, a few more are let in.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

pub(super) const TICK: Duration = Duration::from_millis(1);
/// Ticks after which the fastest call is looked at: long enough for a few calls of a slow API server, or for one of a quick one that did
/// not have to wait for a core.
const WINDOW: u32 = 16;
/// Ticks without need after which the scaler sleeps.
const QUIET_TICKS: u32 = 64;

/// The shortest time that a dispatch has waited for the API server, in microseconds.
#[derive(Debug)]
pub(super) struct Fastest {
    in_this_window: AtomicU64,
    in_the_last: AtomicU64,
}

impl Default for Fastest {
    fn default() -> Self {
        Fastest { in_this_window: AtomicU64::new(u64::MAX), in_the_last: AtomicU64::new(0) }
    }
}

impl Fastest {
    /// A dispatch has waited so long in all; not at all if it made no call.
    pub(super) fn note(&self, waited: Duration) {
        match waited.as_micros() as u64 {
            0 => (),
            waited => _ = self.in_this_window.fetch_min(waited, Relaxed),
        }
    }

    /// A window without a call changes nothing.
    fn end_window(&self) {
        let fastest = self.in_this_window.swap(u64::MAX, Relaxed);
        if fastest != u64::MAX {
            self.in_the_last.store(fastest, Relaxed)
        }
    }

    /// Whether threads wait for the API server rather than for a core.
    pub(super) fn is_slow(&self) -> bool {
        self.in_the_last.load(Relaxed) > TICK.as_micros() as u64
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Decision {
    Nothing,
    /// Start threads, or wake those that rest.
    LetIn,
    /// Until no thread is idle.
    Sleep,
}

#[derive(Debug, Default)]
pub(super) struct Scaler {
    ticks: u32,
    /// Ticks in a row with an idle thread.
    quiet: u32,
    iterations: u64,
}

impl Scaler {
    /// Decides after a tick. `is_idle`: a thread waits for a ready connection. `iterations`: how often one has come back to wait.
    /// `has_ready`: whether a connection is ready.
    pub(super) fn tick(
        &mut self,
        is_idle: bool,
        iterations: u64,
        fastest: &Fastest,
        has_ready: impl FnOnce() -> bool,
    ) -> Decision {
        self.ticks = (self.ticks + 1) % WINDOW;
        if self.ticks == 0 {
            fastest.end_window()
        }
        if is_idle {
            self.quiet = (self.quiet + 1) % QUIET_TICKS;
            return if self.quiet == 0 { Decision::Sleep } else { Decision::Nothing };
        }
        self.quiet = 0;
        let is_stuck = iterations == std::mem::replace(&mut self.iterations, iterations);
        match (is_stuck || fastest.is_slow()) && has_ready() {
            true => Decision::LetIn,
            false => Decision::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it decides at each of these ticks, while threads come back `steps` times a tick.
    fn decisions(scaler: &mut Scaler, fastest: &Fastest, ticks: u32, steps: u64, has_ready: bool) -> Vec<Decision> {
        let first = scaler.iterations;
        let tick = |number: u32| scaler.tick(false, first + steps * u64::from(number), fastest, || has_ready);
        (1..=ticks).map(tick).collect()
    }

    #[test]
    fn threads_are_let_in_while_calls_are_slow() {
        let (mut scaler, fastest) = (Scaler::default(), Fastest::default());
        let mut is_let_in = |micros: u64, steps: u64, has_ready: bool| {
            (0..2).for_each(|_| fastest.note(Duration::from_micros(micros)));
            decisions(&mut scaler, &fastest, WINDOW, steps, has_ready).last() == Some(&Decision::LetIn)
        };
        assert!(!is_let_in(900, 3, true), "they wait for a core");
        assert!(is_let_in(1_100, 3, true));
        assert!(!is_let_in(1_100, 3, false), "nothing waits for a thread");
        assert!(is_let_in(0, 3, true), "no call has ended since");
        assert!(!is_let_in(500, 3, true), "one was quick");
        assert!(is_let_in(0, 0, true), "all are stuck");
    }

    #[test]
    fn one_quick_call_in_a_window_is_enough() {
        let (mut scaler, fastest) = (Scaler::default(), Fastest::default());
        [70_000, 800, 90_000].iter().for_each(|micros| fastest.note(Duration::from_micros(*micros)));
        assert!(!decisions(&mut scaler, &fastest, 2 * WINDOW, 1, true).contains(&Decision::LetIn));
    }

    #[test]
    fn it_sleeps_when_a_thread_was_idle_for_long() {
        let (mut scaler, fastest) = (Scaler::default(), Fastest::default());
        let mut idle =
            |ticks: u32| (0..ticks).filter(|_| scaler.tick(true, 1, &fastest, || true) == Decision::Sleep).count();
        assert_eq!([QUIET_TICKS - 1, 1, QUIET_TICKS - 1].map(&mut idle), [0, 1, 0]);
        scaler.tick(false, 2, &fastest, || true);
        let idle = (1..QUIET_TICKS).all(|_| scaler.tick(true, 1, &fastest, || true) == Decision::Nothing);
        assert!(idle, "a busy tick begins it anew");
    }
}
