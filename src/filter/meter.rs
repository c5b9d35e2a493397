//! Limits of one filter run: steps, time, stack and memory, counted per thread.
//!
//! The filter is trusted, the body is not; neither may hang or bloat the process. jaq asks its run-time data for the look-up table once
//! for every term that it evaluates, and all values are of our own type: both count here. A run that exceeds a limit ends by
//! unwinding, which jq's `try` cannot catch.

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
/// Steps of a path over null (`.a.b.c`), and slices in paths: jaq drops a path recursively.
pub(super) const MAX_NULL_DEPTH: u32 = 1024;
/// Path steps with an array or object as index (`.[[1]]`, `.[{}]`), for the same reason: they need not get deeper into the value.
const MAX_CONTAINER_INDEXES: usize = 1 << 14;
/// jaq's string natives make up to 6 bytes of 1 before we see the result, so a string is limited to this fraction of the memory.
const STRING_SHARE: usize = 7;
/// Steps between two reads of the clock; one read costs about as much as one step, a few dozen nanoseconds.
const STEPS_PER_CLOCK_CHECK: u64 = 1 << 10;
/// Steps between two reads of the process's size, which take microseconds.
const STEPS_PER_SIZE_CHECK: u64 = 1 << 16;
/// Linux says its size in pages. Where pages are larger than this, the net under the accounts hangs lower.
const PAGE: usize = 4096;

/// What one run may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Steps; one is about the evaluation of one term.
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

/// The limit that a run exceeded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Exceeded {
    Steps,
    Time,
    Stack,
    Memory,
    Depth,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Exceeded::Steps => "steps",
            Exceeded::Time => "time",
            Exceeded::Stack => "recursion",
            Exceeded::Memory => "memory",
            Exceeded::Depth => "nesting of values",
        })
    }
}

struct Meter {
    steps: Cell<u64>,
    held: Cell<usize>,
    max_held: Cell<usize>,
    stack_floor: Cell<usize>,
    /// Size of the process when this run was first weighed; 0 before.
    first_resident_bytes: Cell<usize>,
    end: Cell<Option<Instant>>,
}

thread_local! {
    static METER: Meter = const {
        Meter {
            steps: Cell::new(u64::MAX),
            held: Cell::new(0),
            max_held: Cell::new(usize::MAX),
            stack_floor: Cell::new(0),
            first_resident_bytes: Cell::new(0),
            end: Cell::new(None),
        }
    };
}

/// Size of the process before the first run.
static START_RESIDENT_BYTES: LazyLock<usize> = LazyLock::new(resident_bytes);

/// Meters this thread until dropped, also by unwinding.
#[derive(Debug)]
pub(super) struct Metered(());

impl Metered {
    pub(super) fn start(limits: &Limits) -> Self {
        LazyLock::force(&START_RESIDENT_BYTES);
        let here = 0u8;
        METER.with(|meter| {
            meter.steps.set(limits.steps);
            meter.held.set(0);
            meter.max_held.set(limits.memory);
            meter.stack_floor.set(std::ptr::from_ref(&here).addr().saturating_sub(limits.stack));
            meter.first_resident_bytes.set(0);
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
pub(super) fn exceed(limit: Exceeded) -> ! {
    resume_unwind(Box::new(limit))
}

/// Counts `extra + 1` steps.
#[inline]
pub(super) fn step(extra: usize) {
    METER.with(|meter| {
        let before = meter.steps.get();
        let Some(left) = before.checked_sub(extra as u64 + 1) else { exceed(Exceeded::Steps) };
        meter.steps.set(left);
        if std::ptr::from_ref(&extra).addr() < meter.stack_floor.get() {
            exceed(Exceeded::Stack)
        }
        if before / STEPS_PER_CLOCK_CHECK != left / STEPS_PER_CLOCK_CHECK {
            check_clock(meter, before / STEPS_PER_SIZE_CHECK != left / STEPS_PER_SIZE_CHECK)
        }
    })
}

/// Reads the clock now, after something slow that evaluated no term.
pub(super) fn check_clock_now() {
    METER.with(|meter| check_clock(meter, false))
}

#[cold]
fn check_clock(meter: &Meter, weigh: bool) {
    let Some(end) = meter.end.get() else { return };
    if Instant::now() > end {
        exceed(Exceeded::Time)
    }
    // A net under the accounts: what jaq holds besides values is only estimated, so a long run is weighed now and then. It may add
    // its share to whatever is there, or fill what all runs together may take.
    if weigh {
        let now = resident_bytes();
        if meter.first_resident_bytes.get() == 0 {
            meter.first_resident_bytes.set(now);
        }
        let max = meter.max_held.get();
        let all = max.saturating_mul(5 * super::most_runs()) / 2;
        if now > meter.first_resident_bytes.get().saturating_add(max).max(START_RESIDENT_BYTES.saturating_add(all)) {
            exceed(Exceeded::Memory)
        }
    }
}

/// Resident bytes of the process; 0 where there is no `/proc`.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).map_or(0, |pages| pages * PAGE)
}

#[inline]
fn recount(now: usize, before: usize) {
    METER.with(|meter| {
        let held = meter.held.get().wrapping_sub(before).saturating_add(now);
        if now > before && held > meter.max_held.get() {
            exceed(Exceeded::Memory)
        }
        meter.held.set(held)
    })
}

/// Charges `bytes` until the end of the run.
pub(super) fn charge(bytes: usize) {
    recount(bytes, 0)
}

/// Charges a step that a path may take without getting deeper.
pub(super) fn charge_container_index() {
    charge(METER.with(|meter| meter.max_held.get() / MAX_CONTAINER_INDEXES))
}

/// The longest string of this run, in bytes.
pub(super) fn max_string() -> usize {
    METER.with(|meter| meter.max_held.get() / STRING_SHARE)
}

/// Bytes that count as held until this is dropped.
#[derive(Debug, Default)]
pub(super) struct Charge(usize);

impl Charge {
    pub(super) fn new(bytes: usize) -> Self {
        let mut held = Charge(0);
        held.set(bytes);
        held
    }
    pub(super) fn set(&mut self, bytes: usize) {
        if bytes > self.0 {
            step((bytes - self.0) >> 8) // memory that is written takes time
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

impl Clone for Charge {
    fn clone(&self) -> Self {
        Charge::new(self.0)
    }
}

impl Drop for Charge {
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

/// Names the value type and run-time data for jaq.
#[derive(Debug)]
pub(crate) struct Data;

impl DataT for Data {
    type V<'a> = Value;
    type Data<'a> = Run<'a>;
}

impl<'a> HasLut<'a, Data> for Run<'a> {
    fn lut(&self) -> &'a Lut<Data> {
        step(0);
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
