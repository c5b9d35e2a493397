//! OWNS jaq: compiles a filter once and runs it for each request, within limits. Knows neither HTTP nor Kubernetes.
//!
//! JSON in, JSON out. Whatever filter and body are, a run ends within limits of time and memory (`filter/meter.rs`).

mod access;
mod arithmetic;
mod compile;
mod json;
mod meter;
mod natives;
mod order;
mod regex;
mod rewrite;
mod value;

pub(crate) use compile::Source;
pub(crate) use json::Unwritable;
pub(crate) use meter::{Exceeded, Limits};
pub(crate) use natives::hex;

use crate::metrics::METRICS;
use jaq_core::{Ctx, Exn, Vars};
use meter::{Data, Metered, Run, charge};
use natives::ENVIRONMENT;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Condvar, LazyLock, Mutex};
use std::time::Instant;
use value::Value;

/// Stack of a thread that runs filters. Half of it is for what a run builds, half for driving it: with less, nested iterators that
/// were built shallow and driven deep met the end of the stack before the meter.
pub(crate) const THREAD_STACK: usize = 4 << 20;
pub(crate) const RUN_STACK: usize = THREAD_STACK / 2;
/// Steps of a run: a few seconds at most, and a thousand times what an ordinary filter takes.
pub(crate) const MAX_STEPS: u64 = 20_000_000;
/// Bytes of the output: what a manifest may have. etcd takes 1.5 MiB, and the API server adds to it.
pub(crate) const MAX_OUTPUT: usize = 1 << 20;
/// Bytes of an error's message, and of its details as JSON.
const MAX_MESSAGE: usize = 1024;
/// Bytes that jaq holds per pending context: a few boxes, and a list of variables.
const CONTEXT: usize = 384;
const CONTEXT_VARIABLE: usize = 16;

/// Runs at once: more would only share the cores, and each may hold its whole memory.
pub(crate) fn most_runs() -> usize {
    static CORES: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));
    *CORES
}

/// A compiled filter, shared by all threads.
pub(crate) struct Filter {
    filter: jaq_core::Filter<Data>,
    wants_request: bool,
    per_context: usize,
    limits: Limits,
    permits: Permits,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// What a filter is run on.
pub(crate) struct Input<'a> {
    /// `.`, as JSON text.
    pub(crate) body: &'a [u8],
    /// `$PATH`.
    pub(crate) path: &'a str,
    /// `$REQUEST`, made only for a filter that mentions it.
    pub(crate) request: &'a dyn Fn() -> serde_json::Value,
    /// Until when a run may wait before it starts.
    pub(crate) start_by: Instant,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// One output, as strict JSON; and the body as canonical JSON (sorted keys, no white space).
    Output {
        json: Vec<u8>,
        canonical: Vec<u8>,
    },
    /// An error of the filter or of jq's, each at most 1 KiB.
    Error {
        message: String,
        details: Option<serde_json::Value>,
    },
    /// No output: `empty`, `halt`.
    Nothing,
    /// More than one output.
    Many,
    Unwritable(Unwritable),
    Limit(Exceeded),
    /// The parsed body exceeds the memory of one run.
    BodyTooLarge,
    /// The body is not JSON; what and where.
    BadBody(String),
    /// The run could not start in time.
    NoPermit,
    /// A defect of ours, or of jaq.
    Defect,
}

impl Outcome {
    /// For the metrics.
    fn word(&self) -> &'static str {
        match self {
            Outcome::Output { .. } => "output",
            Outcome::Error { .. } => "error",
            Outcome::Nothing => "empty",
            Outcome::Many | Outcome::Unwritable(_) => "bad_output",
            Outcome::Limit(_) => "limit",
            Outcome::BodyTooLarge => "body_too_large",
            Outcome::BadBody(_) => "bad_body",
            Outcome::NoPermit => "overloaded",
            Outcome::Defect => "defect",
        }
    }
}

impl Filter {
    /// Errors: one text with all errors, each with file, line, column, source line and caret.
    pub(crate) fn compile(source: Source<'_>, limits: Limits) -> Result<Self, String> {
        LazyLock::force(&ENVIRONMENT);
        let compiled = compile::compile(source)?;
        Ok(Filter {
            filter: compiled.filter,
            wants_request: compiled.wants_request,
            per_context: CONTEXT + CONTEXT_VARIABLE * compiled.variables,
            limits,
            permits: Permits { free: Mutex::new(most_runs()), freed: Condvar::new() },
        })
    }

    /// Runs the filter on this thread, whose stack is of at least [`THREAD_STACK`].
    pub(crate) fn run(&self, input: &Input<'_>) -> Outcome {
        let Some(_permit) = self.permits.take(input.start_by) else {
            METRICS.filter_run(Outcome::NoPermit.word(), None);
            return Outcome::NoPermit;
        };
        let begin = Instant::now();
        let is_parsed = Cell::new(false);
        let metered = Metered::start(&self.limits);
        let done = catch_unwind(AssertUnwindSafe(|| self.run_metered(input, &is_parsed)));
        drop(metered);
        let outcome = done.unwrap_or_else(|why| match why.downcast_ref::<Exceeded>() {
            Some(stop) if is_parsed.get() => Outcome::Limit(*stop),
            Some(_) => Outcome::BodyTooLarge,
            None => Outcome::Defect, // the panic hook has logged where
        });
        METRICS.filter_run(outcome.word(), Some(begin.elapsed()));
        outcome
    }

    fn run_metered(&self, input: &Input<'_>, is_parsed: &Cell<bool>) -> Outcome {
        let body = match json::read(input.body) {
            Ok(body) => body,
            Err(error) => return Outcome::BadBody(error.to_string()),
        };
        let canonical = body.to_canonical_json();
        is_parsed.set(true);
        let request = if self.wants_request { json::convert((input.request)()) } else { Value::default() };
        let variables = Vars::new([ENVIRONMENT.clone(), Value::string(input.path), request]);
        charge(self.per_context); // for the run-time data that is made here, not cloned
        let run = Run { lut: &self.filter.lut, per_context: self.per_context };
        let mut outputs = self.filter.id.run((Ctx::<Data>::new(run, variables), body));
        let output = match outputs.next() {
            None => return Outcome::Nothing,
            Some(Err(error)) => return raised(error),
            Some(Ok(output)) => output,
        };
        match outputs.next() {
            None => (),
            Some(Err(error)) => return raised(error),
            Some(Ok(_)) => return Outcome::Many,
        }
        match output.to_strict_json(self.limits.output) {
            Ok(json) => Outcome::Output { json, canonical },
            Err(why) => Outcome::Unwritable(why),
        }
    }
}

fn raised(exception: Exn<'_, Value>) -> Outcome {
    match exception.get_err().map(|error| error.into_val()) {
        Ok(Value::String(text)) => {
            let message = text[..text.floor_char_boundary(MAX_MESSAGE)].to_owned();
            Outcome::Error { message, details: None }
        }
        Ok(Value::Null(_)) => Outcome::Error { message: "null".into(), details: None },
        Ok(other) => {
            let details = match other.to_strict_json(MAX_MESSAGE) {
                Ok(json) => serde_json::from_slice(&json).ok(),
                Err(_) => None,
            };
            let message = other.cut(MAX_MESSAGE);
            Outcome::Error { details: Some(details.unwrap_or_else(|| message.clone().into())), message }
        }
        Err(exception) => match exception.get_halt() {
            Ok(_) => Outcome::Nothing,
            Err(_) => Outcome::Defect, // a break without its label: the compiler rejects that
        },
    }
}

/// Runs that may start.
struct Permits {
    free: Mutex<usize>,
    freed: Condvar,
}

struct Permit<'a>(&'a Permits);

impl Permits {
    fn take(&self, until: Instant) -> Option<Permit<'_>> {
        let free = self.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let wait = until.saturating_duration_since(Instant::now());
        let waited = self.freed.wait_timeout_while(free, wait, |free| *free == 0);
        let (mut free, _) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        *free = free.checked_sub(1)?;
        Some(Permit(self))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) += 1;
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests;
