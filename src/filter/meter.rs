//! Limits of one filter run: steps, time, stack and memory, counted per thread.
//!
//! The filter is trusted, the body is not; neither may hang or bloat the process. jaq asks its run-time data for the look-up table once
//! for every term that it evaluates, and all values are of our own type: both count here. A run that exceeds a limit ends by
//! unwinding, which jq's `try` cannot catch.

use crate::alloc;
use cpu_time::ThreadTime;
use std::cell::Cell;
use std::fmt;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

/// Nesting of values. Dropping, comparing and printing a value recurse, so this also bounds their stack.
pub(super) const MAX_DEPTH: u32 = 512;
/// Steps of a path over null (`.a.b.c`), and slices in paths: jaq drops a path recursively.
pub(super) const MAX_NULL_DEPTH: u32 = 1024;
/// Path steps with an array or object as index (`.[[1]]`, `.[{}]`), for the same reason: they need not get deeper into the value.
const MAX_CONTAINER_INDEXES: u32 = 1 << 14;
/// Slices in paths (`.[1:2] |= f`) at once, for the same reason.
const MAX_SLICES: u32 = 1 << 10;
/// jaq's string natives make up to 6 bytes of 1 before we see the result, so a string is limited to this fraction of the memory.
const STRING_SHARE: usize = 7;
/// The longest string of any run: jaq's natives work on a string in one piece, which takes a tenth of a second at most (`@html`).
const MAX_STRING: usize = 5 << 19;
/// Steps between two reads of the clocks, which take a fraction of a microsecond; these steps take a hundred.
const STEPS_PER_CLOCK_CHECK: u64 = 1 << 12;

/// What one run may use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Steps; one is about the evaluation of one term.
    pub(crate) steps: u64,
    /// Bytes held at once, as the allocator counts them.
    pub(crate) memory: usize,
    /// CPU time of the run's thread.
    pub(crate) time: Duration,
    /// Bytes of stack below the caller of the run. At most half of the thread's stack: an iterator takes less to build than to run.
    pub(crate) stack: usize,
    /// Bytes of the output as JSON.
    pub(crate) output: usize,
}

/// The limit that a run exceeded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Exceeded {
    Steps,
    /// Its own CPU time.
    Time,
    /// The time that its caller can wait, because the machine is busy.
    WallClock,
    Stack,
    Memory,
    Depth,
}

impl fmt::Display for Exceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Exceeded::Steps => "steps",
            Exceeded::Time => "time",
            Exceeded::WallClock => "waiting time",
            Exceeded::Stack => "recursion",
            Exceeded::Memory => "memory",
            Exceeded::Depth => "nesting of values",
        })
    }
}

struct Meter {
    /// Steps left.
    steps: Cell<u64>,
    max_steps: Cell<u64>,
    /// Steps that the last run has taken.
    taken_steps: Cell<u64>,
    /// Limit of [`alloc::needed_bytes`].
    memory: Cell<isize>,
    container_indexes: Cell<u32>,
    slices: Cell<u32>,
    stack_floor: Cell<usize>,
    /// CPU time of this thread at the run's first check of the clock.
    cpu_start: Cell<Option<ThreadTime>>,
    cpu_limit: Cell<Duration>,
    wall_end: Cell<Option<Instant>>,
    /// Lines that the run has logged, and lines that an earlier attempt has logged already.
    log_lines: Cell<u32>,
    skipped_log_lines: Cell<u32>,
    /// What `cuid2` is derived from, and how many the run has had.
    seed: Cell<Option<[u8; 32]>>,
    cuids: Cell<u64>,
}

thread_local! {
    static METER: Meter = const {
        Meter {
            steps: Cell::new(u64::MAX),
            max_steps: Cell::new(u64::MAX),
            taken_steps: Cell::new(0),
            memory: Cell::new(isize::MAX),
            container_indexes: Cell::new(0),
            slices: Cell::new(0),
            stack_floor: Cell::new(0),
            cpu_start: Cell::new(None),
            cpu_limit: Cell::new(Duration::MAX),
            wall_end: Cell::new(None),
            log_lines: Cell::new(0),
            skipped_log_lines: Cell::new(0),
            seed: Cell::new(None),
            cuids: Cell::new(0),
        }
    };
}

/// Meters this thread until dropped, also by unwinding.
#[derive(Debug)]
pub(super) struct Metered(());

impl Metered {
    /// `wall_end`: when the run ends even if it has used less CPU time than it may. `log_lines`: logged by an earlier attempt of the run.
    /// `seed`: what `cuid2` is derived from.
    pub(super) fn start(limits: &Limits, wall_end: Instant, log_lines: u32, seed: Option<[u8; 32]>) -> Self {
        let here = 0u8;
        alloc::start_counting();
        METER.with(|meter| {
            meter.steps.set(limits.steps);
            meter.max_steps.set(limits.steps);
            meter.memory.set(isize::try_from(limits.memory).unwrap_or(isize::MAX));
            meter.container_indexes.set(0);
            meter.slices.set(0);
            meter.stack_floor.set(std::ptr::from_ref(&here).addr().saturating_sub(limits.stack));
            meter.cpu_start.set(None);
            meter.cpu_limit.set(limits.time);
            meter.wall_end.set(Some(wall_end));
            meter.log_lines.set(log_lines);
            meter.skipped_log_lines.set(log_lines);
            meter.seed.set(seed);
            meter.cuids.set(0);
        });
        Metered(())
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        METER.with(|meter| {
            meter.taken_steps.set(meter.max_steps.get().saturating_sub(meter.steps.get()));
            meter.steps.set(u64::MAX);
            meter.memory.set(isize::MAX);
            meter.stack_floor.set(0);
            meter.wall_end.set(None);
        });
    }
}

/// Steps that the last run of this thread has taken.
pub(super) fn steps_taken() -> u64 {
    METER.with(|meter| meter.taken_steps.get())
}

/// Lines that the last run of this thread has logged, with those of an earlier attempt.
pub(super) fn log_lines() -> u32 {
    METER.with(|meter| meter.log_lines.get())
}

/// What the next `cuid2` of this run is derived from, and its number; None: it is random.
pub(super) fn next_cuid() -> Option<([u8; 32], u64)> {
    METER.with(|meter| {
        let number = meter.cuids.get();
        meter.cuids.set(number + 1);
        meter.seed.get().map(|seed| (seed, number))
    })
}

/// Counts a line for the log. Returns false if an earlier attempt of the run has logged it.
pub(super) fn count_log_line() -> bool {
    METER.with(|meter| match meter.skipped_log_lines.get() {
        0 => {
            meter.log_lines.set(meter.log_lines.get() + 1);
            true
        }
        skipped => {
            meter.skipped_log_lines.set(skipped - 1);
            false
        }
    })
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
        if alloc::needed_bytes() > meter.memory.get() {
            exceed(Exceeded::Memory)
        }
        if std::ptr::from_ref(&extra).addr() < meter.stack_floor.get() {
            exceed(Exceeded::Stack)
        }
        // not at the first step: most runs end before the second check would come
        if (before - 1) / STEPS_PER_CLOCK_CHECK != left.wrapping_sub(1) / STEPS_PER_CLOCK_CHECK {
            check_clocks(meter)
        }
    })
}

/// Checks that so many steps are left, before work that cannot be interrupted.
pub(super) fn check_steps(steps: usize) {
    METER.with(|meter| {
        if (steps as u64) > meter.steps.get() {
            exceed(Exceeded::Steps)
        }
    })
}

/// Looks at the clocks now: before and after work whose time is not known from its steps.
pub(super) fn look_at_clocks() {
    METER.with(check_clocks)
}

/// A run ends by its own CPU time, so that a busy machine does not end it; the wall clock bounds how long its caller waits.
#[cold]
fn check_clocks(meter: &Meter) {
    let Some(wall_end) = meter.wall_end.get() else { return };
    let start = meter.cpu_start.get().unwrap_or_else(ThreadTime::now);
    meter.cpu_start.set(Some(start));
    if start.elapsed() > meter.cpu_limit.get() {
        exceed(Exceeded::Time)
    }
    if Instant::now() > wall_end {
        exceed(Exceeded::WallClock)
    }
}

/// Checks that `bytes` more may be allocated, before they are allocated in one go.
pub(super) fn check_memory(bytes: usize) {
    METER.with(|meter| {
        if alloc::needed_bytes().saturating_add_unsigned(bytes) > meter.memory.get() {
            exceed(Exceeded::Memory)
        }
    })
}

/// Counts a path step with an array or object as index.
pub(super) fn count_container_index() {
    METER.with(|meter| {
        meter.container_indexes.set(meter.container_indexes.get() + 1);
        if meter.container_indexes.get() > MAX_CONTAINER_INDEXES {
            exceed(Exceeded::Memory)
        }
    })
}

/// The longest string of this run, in bytes.
pub(super) fn max_string() -> usize {
    METER.with(|meter| (meter.memory.get() as usize / STRING_SHARE).min(MAX_STRING))
}

/// A slice in a path, counted until it is dropped.
#[derive(Debug)]
pub(super) struct Slice(());

impl Slice {
    pub(super) fn new() -> Self {
        METER.with(|meter| {
            meter.slices.set(meter.slices.get() + 1);
            if meter.slices.get() > MAX_SLICES {
                exceed(Exceeded::Depth)
            }
        });
        Slice(())
    }
}

impl Clone for Slice {
    fn clone(&self) -> Self {
        Slice::new()
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        METER.with(|meter| meter.slices.set(meter.slices.get().saturating_sub(1)))
    }
}
