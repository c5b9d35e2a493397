//! What one filter run may use: steps, time, stack and memory, counted for the thread that it goes on in.
//!
//! The filter is the operator's and well meant, the body is anybody's; neither may hang or bloat the process. jaq asks its run-time
//! data for the look-up table once for every term that it evaluates, and all values are of our own type: both tell the meter.
//! A run that wants more than its share leaves by unwinding, where jq's `try` cannot catch it.

use super::value::Value;
use jaq_core::{DataT, Lut, data::HasLut};
use std::cell::Cell;
use std::fmt;
use std::panic::resume_unwind;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Bytes charged for a value: 16 of its own, the slack of containers that grow, and the allocator's overhead.
pub(super) const NODE: usize = 48;
/// Nesting of values. Dropping, comparing and printing a value recurse, so this also bounds their stack.
pub(super) const MAX_DEPTH: u32 = 512;
/// Steps of a path over null (`.a.b.c`), and slices in paths: jaq drops a path by recursion.
pub(super) const MAX_HOPS: u32 = 1024;
/// Steps of a path by arrays and objects (`.[[1]]`, `.[{}]`), for the same reason: what they find may be no deeper than where they began.
const MAX_ODD_STEPS: usize = 1 << 14;
/// jaq's string natives make up to 6 bytes of 1 before we see the result, so no string may take more than this share of the memory.
const STRING_SHARE: usize = 7;
/// A step is a few dozen nanoseconds, a look at the clock as much: one look for so many steps.
const STEPS_PER_LOOK: u64 = 1 << 10;
/// Reading the process's size takes microseconds: once for so many steps.
const STEPS_PER_WEIGHING: u64 = 1 << 16;
/// Linux says its size in pages. Where pages are larger than this, the net under the accounts hangs lower.
const PAGE: usize = 4096;

/// What one run may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Steps; one is about what jaq needs to evaluate a term.
    pub(crate) steps: u64,
    /// Bytes held at once: [`NODE`] for a value, and the bytes of strings.
    pub(crate) memory: usize,
    /// Wall-clock time.
    pub(crate) time: Duration,
    /// Bytes of stack below the caller of the run. At most half of the thread's stack: what was built shallow can be driven deep.
    pub(crate) stack: usize,
    /// Bytes of the output as JSON.
    pub(crate) output: usize,
}

/// Which limit ended a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Stop {
    Steps,
    Time,
    Stack,
    Memory,
    Depth,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stop::Steps => "steps",
            Stop::Time => "time",
            Stop::Stack => "recursion",
            Stop::Memory => "memory",
            Stop::Depth => "nesting of values",
        })
    }
}

struct Meter {
    steps: Cell<u64>,
    held: Cell<usize>,
    max_held: Cell<usize>,
    stack_floor: Cell<usize>,
    /// Size of the process when this run was first weighed; 0 before.
    first_weight: Cell<usize>,
    end: Cell<Option<Instant>>,
}

thread_local! {
    static METER: Meter = const {
        Meter {
            steps: Cell::new(u64::MAX),
            held: Cell::new(0),
            max_held: Cell::new(usize::MAX),
            stack_floor: Cell::new(0),
            first_weight: Cell::new(0),
            end: Cell::new(None),
        }
    };
}

/// Size of the process before the first run.
static START_WEIGHT: LazyLock<usize> = LazyLock::new(weight);

/// Metering of this thread: on until this is dropped, also by unwinding.
#[derive(Debug)]
pub(super) struct Metered(());

impl Metered {
    pub(super) fn start(limits: &Limits) -> Self {
        LazyLock::force(&START_WEIGHT);
        let here = 0u8;
        METER.with(|meter| {
            meter.steps.set(limits.steps);
            meter.held.set(0);
            meter.max_held.set(limits.memory);
            meter.stack_floor.set(std::ptr::from_ref(&here).addr().saturating_sub(limits.stack));
            meter.first_weight.set(0);
            meter.end.set(Some(Instant::now() + limits.time));
        });
        Metered(())
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        METER.with(|meter| {
            meter.steps.set(u64::MAX);
            meter.max_held.set(usize::MAX);
            meter.stack_floor.set(0);
            meter.end.set(None);
        });
    }
}

#[cold]
pub(super) fn stop(why: Stop) -> ! {
    resume_unwind(Box::new(why))
}

/// Takes `extra + 1` steps.
#[inline]
pub(super) fn tick(extra: usize) {
    METER.with(|meter| {
        let before = meter.steps.get();
        let Some(left) = before.checked_sub(extra as u64 + 1) else { stop(Stop::Steps) };
        meter.steps.set(left);
        if std::ptr::from_ref(&extra).addr() < meter.stack_floor.get() {
            stop(Stop::Stack)
        }
        if before / STEPS_PER_LOOK != left / STEPS_PER_LOOK {
            look(meter, before / STEPS_PER_WEIGHING != left / STEPS_PER_WEIGHING)
        }
    })
}

/// Looks at the clock now, after something that took long and evaluated no term.
pub(super) fn look_at_clock() {
    METER.with(|meter| look(meter, false))
}

#[cold]
fn look(meter: &Meter, weigh: bool) {
    let Some(end) = meter.end.get() else { return };
    if Instant::now() > end {
        stop(Stop::Time)
    }
    // A net under the accounts: what jaq holds besides values is only estimated, so a long run is weighed now and then. It may add
    // its share to whatever is there, or fill what all runs together may take.
    if weigh {
        let now = weight();
        if meter.first_weight.get() == 0 {
            meter.first_weight.set(now);
        }
        let max = meter.max_held.get();
        let all = max.saturating_mul(5 * super::most_runs()) / 2;
        if now > meter.first_weight.get().saturating_add(max).max(START_WEIGHT.saturating_add(all)) {
            stop(Stop::Memory)
        }
    }
}

/// Resident bytes of the process; 0 where there is no `/proc`.
fn weight() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).map_or(0, |pages| pages * PAGE)
}

#[inline]
fn recount(now: usize, before: usize) {
    METER.with(|meter| {
        let held = meter.held.get().wrapping_sub(before).saturating_add(now);
        if now > before && held > meter.max_held.get() {
            stop(Stop::Memory)
        }
        meter.held.set(held)
    })
}

/// Charges `bytes` until the end of the run.
pub(super) fn charge(bytes: usize) {
    recount(bytes, 0)
}

/// Charges a step that a path may take without getting deeper.
pub(super) fn charge_odd_step() {
    charge(METER.with(|meter| meter.max_held.get() / MAX_ODD_STEPS))
}

/// The longest string of this run, in bytes.
pub(super) fn max_string() -> usize {
    METER.with(|meter| meter.max_held.get() / STRING_SHARE)
}

/// Bytes that count as held until this is dropped.
#[derive(Debug, Default)]
pub(super) struct Held(usize);

impl Held {
    pub(super) fn new(bytes: usize) -> Self {
        let mut held = Held(0);
        held.set(bytes);
        held
    }
    pub(super) fn set(&mut self, bytes: usize) {
        if bytes > self.0 {
            tick((bytes - self.0) >> 8) // memory that is written takes time
        }
        recount(bytes, self.0);
        self.0 = bytes
    }
    pub(super) fn grow(&mut self, bytes: usize) {
        self.set(self.0 + bytes)
    }
    pub(super) fn shrink(&mut self, bytes: usize) {
        self.set(self.0 - bytes)
    }
}

impl Clone for Held {
    fn clone(&self) -> Self {
        Held::new(self.0)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        recount(0, self.0)
    }
}

/// jaq's run-time data. Every term asks it for the look-up table; every context and pending iterator of jaq clones it.
pub(crate) struct Run<'a> {
    pub(super) lut: &'a Lut<Data>,
    /// Bytes charged for each clone: an estimate of what jaq holds beside it.
    pub(super) per_context: usize,
}

/// Tells jaq which values and which run-time data it works with.
#[derive(Debug)]
pub(crate) struct Data;

impl DataT for Data {
    type V<'a> = Value;
    type Data<'a> = Run<'a>;
}

impl<'a> HasLut<'a, Data> for Run<'a> {
    fn lut(&self) -> &'a Lut<Data> {
        tick(0);
        self.lut
    }
}

impl Clone for Run<'_> {
    fn clone(&self) -> Self {
        recount(self.per_context, 0);
        Run { ..*self }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        recount(0, self.per_context)
    }
}
