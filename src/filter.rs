//! OWNS jaq: compiles a filter once and runs it for each request, within limits. Knows neither HTTP nor Kubernetes.
//!
//! JSON in, JSON out. Whatever filter and body are, a run ends within limits of time and memory (`filter/meter.rs`).
//!
//! A run starts as a small one, with little of everything, on the thread of its request. If it needs more, it starts again as a large
//! one, with the full limits; the caller lets large runs go one at a time. A run changes nothing outside but the log, so starting again is
//! sound; `now`, and `cuid2` without a seed, then give other values.

mod access;
mod arithmetic;
mod checks;
mod compile;
mod data;
mod fold;
mod json;
mod layout;
mod limits;
mod load;
mod meter;
mod natives;
mod number;
mod order;
mod outputs;
mod parse;
mod regex;
mod rewrite;
mod syntax;
mod trial;
mod unstable;
mod value;

pub(crate) use json::{Member, Output, Unwritable};
pub(crate) use load::Source;
pub(crate) use meter::{Exceeded, Limits};

use crate::alloc;
use data::{Data, Run};
use jaq_core::{Ctx, Exn, Vars};
use meter::Metered;
use natives::ENVIRONMENT;
use parse::{convert, parse};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use value::Value;

/// Stack of a thread that does small runs, and calls.
pub(crate) const SMALL_RUN_STACK: usize = 1 << 20;
/// Stack of a thread that does large runs. Half of it is for what a run builds, half for driving it: with less, nested iterators that
/// take little stack to build and much to run exceeded the stack before the meter noticed.
pub(crate) const LARGE_RUN_STACK: usize = 4 << 20;
pub(crate) const MAX_STACK: usize = LARGE_RUN_STACK / 2;
/// Steps of a run: a few seconds at most, and a thousand times what an ordinary filter takes.
pub(crate) const MAX_STEPS: u64 = 20_000_000;
/// Bytes of the output: what a manifest may have. etcd takes 1.5 MiB, and the API server adds to it.
pub(crate) const MAX_OUTPUT: usize = 1 << 20;
/// Limits of a small run. Every thread may need this much at the same time. Ordinary requests stay below a fifth of it, except for the
/// memory: the default filter with a body of 10 KB needs most of that.
const SMALL: Limits =
    Limits { memory: 96 << 10, stack: 48 << 10, output: 32 << 10, steps: 1 << 17, time: Duration::from_millis(100) };
/// Bytes of a body from which on a small run is not tried: the values would not fit.
pub(crate) const MAX_SMALL_BODY: usize = 64 << 10;
/// Steps of a small run after which the thread returns freed pages: more than ordinary filters take, fewer than fill a megabyte.
const MANY_STEPS: u64 = 8 << 10;
/// Bytes of an error's message, and of its details as JSON.
const MAX_MESSAGE: usize = 1024;

/// Paths of keys.
pub(crate) type Members = &'static [&'static [&'static str]];

/// A compiled filter, shared by all threads.
pub(crate) struct Filter {
    filter: jaq_core::Filter<Data>,
    wants_request: bool,
    constants: Vec<Value>,
    layouts: Option<Vec<layout::Layout>>,
    members: Members,
    limits: Limits,
    /// Why `metadata.name` differs when a request is repeated.
    unstable_name: Option<&'static str>,
    digest: String,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The input of a run.
pub(crate) struct Input<'a> {
    /// `.`, as JSON text.
    pub(crate) body: &'a [u8],
    /// `$PATH`.
    pub(crate) path: &'a str,
    /// `$REQUEST`, made only for a filter that mentions it.
    pub(crate) request: &'a dyn Fn() -> serde_json::Value,
    /// Makes the fingerprint from the body as canonical JSON (sorted keys, no white space).
    pub(crate) fingerprint: &'a dyn Fn(&[u8]) -> String,
    /// What `cuid2` is derived from, so that a request that is repeated has the same; None: random.
    pub(crate) seed: Option<[u8; 32]>,
    /// Until when the caller can wait.
    pub(crate) wall_end: Instant,
}

/// How a run ended.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// One output, and the request's fingerprint.
    Output {
        output: Output,
        fingerprint: String,
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
    /// The machine was too busy to finish the run before `wall_end`.
    TooLate,
    /// A defect of ours, or of jaq.
    Defect,
}

/// A small run: its outcome, with how long it took, or that it needs a large one.
#[derive(Debug, PartialEq)]
pub(crate) enum SmallRun {
    Done(Outcome, Duration),
    NeedsLargeRun {
        /// Lines that it has logged already.
        log_lines: u32,
    },
}

impl Outcome {
    /// For the metrics.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Outcome::Output { .. } => "output",
            Outcome::Error { .. } => "error",
            Outcome::Nothing => "empty",
            Outcome::Many | Outcome::Unwritable(_) => "bad_output",
            Outcome::Limit(_) => "limit",
            Outcome::BodyTooLarge => "body_too_large",
            Outcome::BadBody(_) => "bad_body",
            Outcome::TooLate => "overloaded",
            Outcome::Defect => "defect",
        }
    }

    /// Whether a run with larger limits may end otherwise.
    fn is_for_want_of_more(&self) -> bool {
        match self {
            Outcome::Limit(limit) => match limit {
                Exceeded::Steps | Exceeded::Time | Exceeded::Stack | Exceeded::Memory => true,
                Exceeded::WallClock | Exceeded::Depth => false,
            },
            Outcome::BodyTooLarge | Outcome::Unwritable(Unwritable::TooLong) => true,
            Outcome::Output { .. }
            | Outcome::Error { .. }
            | Outcome::Nothing
            | Outcome::Many
            | Outcome::Unwritable(Unwritable::NotFinite)
            | Outcome::BadBody(_)
            | Outcome::TooLate
            | Outcome::Defect => false,
        }
    }
}

impl Filter {
    /// `members`: of an output, whose places are wanted, as paths of keys.
    ///
    /// Errors: one text with all errors, each with file, line, column, source line and caret.
    pub(crate) fn compile(source: Source<'_>, limits: Limits, members: Members) -> Result<Self, String> {
        Self::compile_with(source, limits, members, true)
    }

    /// `folds`: whether what is constant is computed now. It is, except in tests that compare.
    fn compile_with(source: Source<'_>, limits: Limits, members: Members, folds: bool) -> Result<Self, String> {
        LazyLock::force(&ENVIRONMENT);
        let compile::Compiled { filter, wants_request, constants, layouts, unstable_name, digest } =
            compile::compile(source, folds.then_some(members))?;
        alloc::return_freed_pages();
        Ok(Filter { filter, wants_request, constants, layouts, members, limits, unstable_name, digest })
    }

    /// What makes `metadata.name` differ when a request is repeated, if anything does.
    pub(crate) fn unstable_name(&self) -> Option<&'static str> {
        self.unstable_name
    }

    /// The first 12 digits of the SHA-256 of its sources; without modules that of its text.
    pub(crate) fn digest(&self) -> &str {
        &self.digest
    }

    /// Bytes that the output of a large run may have.
    pub(crate) fn max_output(&self) -> usize {
        self.limits.output
    }

    /// Tries a small run on this thread, whose stack is at least [`SMALL_RUN_STACK`].
    pub(crate) fn run_small(&self, input: &Input<'_>) -> SmallRun {
        if input.body.len() > MAX_SMALL_BODY {
            return SmallRun::NeedsLargeRun { log_lines: 0 };
        }
        let limits = Limits {
            steps: SMALL.steps.min(self.limits.steps),
            memory: SMALL.memory.min(self.limits.memory),
            time: SMALL.time.min(self.limits.time),
            stack: SMALL.stack.min(self.limits.stack),
            output: SMALL.output.min(self.limits.output),
        };
        let begin = Instant::now();
        let outcome = self.run_within(input, &limits, 0);
        if meter::steps_taken() > MANY_STEPS {
            alloc::return_freed_pages()
        }
        if outcome.is_for_want_of_more() {
            return SmallRun::NeedsLargeRun { log_lines: meter::log_lines() };
        }
        SmallRun::Done(outcome, begin.elapsed())
    }

    /// Runs with the full limits on this thread, whose stack is at least [`LARGE_RUN_STACK`]. `log_lines`: of the small run before. Returns
    /// also how long it took.
    pub(crate) fn run_large(&self, input: &Input<'_>, log_lines: u32) -> (Outcome, Duration) {
        let begin = Instant::now();
        let mut outcome = self.run_within(input, &self.limits, log_lines);
        if let Outcome::Output { output, .. } = &mut outcome {
            output.json.shrink_to_fit()
        }
        alloc::return_freed_pages();
        (outcome, begin.elapsed())
    }

    fn run_within(&self, input: &Input<'_>, limits: &Limits, log_lines: u32) -> Outcome {
        let is_parsed = Cell::new(false);
        let metered = Metered::start(limits, input.wall_end, log_lines, input.seed);
        let done = catch_unwind(AssertUnwindSafe(|| self.run_metered(input, limits, &is_parsed)));
        drop(metered);
        done.unwrap_or_else(|why| match why.downcast_ref::<Exceeded>() {
            Some(Exceeded::WallClock) => Outcome::TooLate,
            Some(limit) if is_parsed.get() || *limit == Exceeded::Time => Outcome::Limit(*limit),
            Some(_) => Outcome::BodyTooLarge,
            None => Outcome::Defect, // the panic hook has logged where
        })
    }

    fn run_metered(&self, input: &Input<'_>, limits: &Limits, is_parsed: &Cell<bool>) -> Outcome {
        let body = match parse(input.body) {
            Ok(body) => body,
            Err(error) => return Outcome::BadBody(error),
        };
        let fingerprint = (input.fingerprint)(&body.to_canonical_json(input.body.len()));
        is_parsed.set(true);
        let request = if self.wants_request { convert((input.request)()) } else { Value::default() };
        let variables = [ENVIRONMENT.clone(), Value::string(input.path), request];
        let variables = Vars::new(variables.into_iter().chain(self.constants.iter().cloned()));
        let mut outputs = self.filter.id.run((Ctx::<Data>::new(Run(&self.filter.lut), variables), body));
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
        match self.written(output, limits.output) {
            Ok(output) => Outcome::Output { output, fingerprint },
            Err(why) => Outcome::Unwritable(why),
        }
    }
}

impl Filter {
    /// An output of the program as JSON of at most `max` bytes.
    fn written(&self, output: Value, max: usize) -> Result<Output, Unwritable> {
        let (Some(layouts), Value::Array(list)) = (&self.layouts, &output) else {
            return output.to_output(max, self.members);
        };
        match &list[..] {
            [output] => output.to_output(max, self.members),
            [layout, values @ ..] => match layout.place(layouts.len()).and_then(|number| layouts.get(number)) {
                Some(layout) => layout.fill(values, max, self.members),
                None => output.to_output(max, self.members), // there is no other number
            },
            [] => output.to_output(max, self.members), // there is no empty output
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

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
