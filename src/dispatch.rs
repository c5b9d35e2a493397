//! Handles a dispatch: [`plan`] turns a request into an action and [`next`] decides after each response of the API server; both are
//! pure. [`perform`] is the one loop that makes the calls.

mod answer;
mod key;
mod next;
mod prefer;
mod retry;

pub(crate) use retry::RetryBudget;

use answer::{Beside, object};
use key::hash_of_key;
use next::{Answer, Attempts, Call, Intent, Naming, Step, next, without_call};
use prefer::Body;
use retry::pause;

use crate::budget::Reservation;
use crate::config::{Config, DryRun};
use crate::filter::{Input, Outcome as Run, SmallRun, hex};
use crate::http::{Reply, Request, query_pairs};
use crate::kube::{Client, Create};
use crate::manifest::{self, Manifest, Name};
use crate::route::{Route, check_headers, no_such_path};
use crate::status::{Reason, Status};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// A call for which less time is left is not worth a retry.
const MIN_CALL: Duration = Duration::from_millis(100);
/// Headers that a filter does not see: they are credentials for other systems.
const HIDDEN_HEADERS: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];

/// What a request asks for, decided.
#[derive(Debug)]
pub(crate) enum Dispatch {
    /// Create this Job and return its name.
    Create {
        manifest: Manifest,
        fingerprint: String,
        nonce: String,
        /// Slashes of the request's path, for the reply's `Location`.
        depth: usize,
        body: Body,
    },
    /// The filter has no output for this request: do nothing.
    Nothing,
    /// Get the status of the Job of this name, which is a DNS-1123 label.
    Lookup(String),
}

/// The result of [`plan`].
#[derive(Debug)]
pub(crate) enum Plan {
    Ready(Box<Work>),
    /// The filter needs more than a small run: see [`plan_large`].
    NeedsLargeRun(Begun),
}

/// What a small run that did not suffice leaves to the large one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    /// Lines that the filter has logged already.
    log_lines: u32,
    /// The hash of the idempotency key.
    key: Option<u64>,
}

/// `until`: when the caller stops waiting.
///
/// Errors: the error for the caller.
pub(crate) fn plan(config: &Config, route: &Route, request: &Request, until: Instant) -> Result<Plan, Status> {
    check_headers(route, request)?;
    match route {
        Route::Job(id) if manifest::is_label(id) => Ok(Plan::Ready(Work::boxed(Dispatch::Lookup(id.clone())))),
        Route::Dispatch(path) => {
            let key = hash_of_key(request, &config.idempotency_headers)?;
            match with_input(request, path, until, |input| config.filter.run_small(input)) {
                SmallRun::Done(outcome) => create(config, request, outcome, key).map(Plan::Ready),
                SmallRun::NeedsLargeRun { log_lines } => Ok(Plan::NeedsLargeRun(Begun { log_lines, key })),
            }
        }
        Route::Job(_) => Err(next::no_such_job()),
        Route::Live | Route::Ready | Route::Metrics | Route::OpenApi | Route::Page(_) => Err(no_such_path()),
    }
}

/// The plan for a POST to `path` whose filter needs a large run, which ends at `until` at the latest. Needs a thread with a stack of
/// [`filter::LARGE_RUN_STACK`](crate::filter::LARGE_RUN_STACK).
///
/// Errors: the error for the caller.
pub(crate) fn plan_large(
    config: &Config,
    path: &str,
    request: &Request,
    begun: Begun,
    until: Instant,
) -> Result<Box<Work>, Status> {
    let run = |input: &Input<'_>| config.filter.run_large(input, begun.log_lines);
    create(config, request, with_input(request, path, until, run), begun.key)
}

fn with_input<R>(request: &Request, path: &str, wall_end: Instant, run: impl FnOnce(&Input<'_>) -> R) -> R {
    run(&Input {
        body: request.body(),
        path,
        request: &|| describe(request, path),
        fingerprint: &|canonical| fingerprint(path, request.query(), canonical),
        wall_end,
    })
}

fn create(config: &Config, request: &Request, outcome: Run, key: Option<u64>) -> Result<Box<Work>, Status> {
    let (output, fingerprint) = match outcome {
        Run::Output { output, fingerprint } => (output, fingerprint),
        Run::Nothing => return Ok(Work::boxed(Dispatch::Nothing)),
        other => return Err(filter_status(other)),
    };
    let nonce = hex(&[random().to_ne_bytes(), random().to_ne_bytes()].concat());
    let shown_nonce = config.api_server.as_ref().map(|_| &nonce[..]); // --dry-run=client shows none
    let manifest = manifest::check(&output, &config.namespace, &fingerprint, shown_nonce, key)?;
    Ok(Work::boxed(Dispatch::Create {
        manifest,
        fingerprint,
        nonce,
        depth: request.path().matches('/').count(),
        body: prefer::body(request),
    }))
}

/// `$REQUEST`.
fn describe(request: &Request, path: &str) -> Value {
    let query: Map<String, Value> = query_pairs(request.query()).map(|(name, value)| (name, value.into())).collect();
    let mut headers = Map::new();
    for (name, value) in request.headers() {
        let name = name.to_ascii_lowercase();
        if HIDDEN_HEADERS.contains(&name.as_str()) {
            continue;
        }
        let value = String::from_utf8_lossy(value);
        match headers.get_mut(&name) {
            Some(Value::String(before)) => {
                before.push_str(", ");
                before.push_str(&value);
            }
            _ => {
                headers.insert(name, value.into());
            }
        }
    }
    json!({
        "method": request.method(),
        "path": path,
        "query": query,
        "query_string": request.query(),
        "headers": headers,
    })
}

/// What leads from a path with this many slashes, at or below `/job`, to the Job of this name: a relative reference (RFC 3986 5.2), which
/// survives a path prefix that a proxy adds or removes.
fn location(depth: usize, name: &str) -> String {
    match depth {
        0 | 1 => format!("job/{name}"),
        slashes => "../".repeat(slashes - 2) + name,
    }
}

/// Identifies a request: equal path, query string and JSON value give the same fingerprint.
fn fingerprint(path: &str, query: &str, canonical_body: &[u8]) -> String {
    let mut hash = Sha256::new();
    for part in [path.as_bytes(), query.as_bytes(), canonical_body] {
        hash.update((part.len() as u64).to_be_bytes()); // so that different triples never hash the same bytes
        hash.update(part);
    }
    hex(&hash.finalize())
}

fn filter_status(run: Run) -> Status {
    match run {
        Run::Error { message, details } => Status { details, ..Status::new(Reason::FilterError, message) },
        Run::Limit(limit) => {
            Status::new(Reason::FilterLimit, format!("the filter exceeds the limit of {limit} for this request"))
        }
        Run::Many => manifest::operators_mistake("there is more than one"),
        Run::Unwritable(why) => manifest::operators_mistake(why),
        Run::BodyTooLarge => {
            Status::new(Reason::RequestEntityTooLarge, "the body is too large as a value; see --max-filter-memory")
        }
        Run::BadBody(why) => Status::new(Reason::BadRequest, format!("the body is not JSON: {why}")),
        Run::TooLate => Status::new(Reason::Overloaded, "the dispatcher is too busy to run the filter in time"),
        Run::Defect | Run::Output { .. } | Run::Nothing => internal_error(),
    }
}

/// A defect of ours. The panic hook has logged where; the panic's message may quote a body.
pub(crate) fn internal_error() -> Status {
    Status::new(Reason::InternalError, "internal error").with_note("a defect of the dispatcher")
}

/// A dispatch, and how far it has come.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) dispatch: Dispatch,
    /// The name that the Job has so far, and the next call; None before the first.
    begun: Option<(String, Call, Attempts)>,
    /// Of the API server, so far.
    warnings: u32,
    /// While it pauses.
    memory: Option<Reservation>,
}

impl Work {
    fn boxed(dispatch: Dispatch) -> Box<Self> {
        Box::new(Work { dispatch, begun: None, warnings: 0, memory: None })
    }

    /// The Job's name, and how often the API server was tried, if it was.
    pub(crate) fn tried(&self) -> Option<(&str, u32)> {
        self.begun.as_ref().map(|(name, _, attempts)| (&name[..], attempts.retries.into()))
    }
}

/// The result of [`perform`].
#[derive(Debug)]
pub(crate) enum Progress {
    Done(Reply),
    /// To be continued after this time.
    Pause(Box<Work>, Duration),
}

impl From<Status> for Progress {
    fn from(status: Status) -> Self {
        Progress::Done(status.into())
    }
}

/// Makes calls until there is an answer, or a pause before the next; the one place that does. Without a client (`--dry-run=client`) it
/// makes none.
pub(crate) fn perform(
    config: &Config,
    budget: &RetryBudget,
    client: Option<&mut Client>,
    mut work: Box<Work>,
    until: Instant,
) -> Progress {
    let Some(client) = client else { return Progress::Done(shown(work.dispatch)) };
    client.take_warnings(); // of a readiness check, which are not this caller's
    let is_dry_run = config.dry_run == DryRun::Server;
    let lookup_name = if let Dispatch::Lookup(name) = &work.dispatch { name.clone() } else { String::new() };
    let (mut manifest, intent, depth, body) = match &mut work.dispatch {
        Dispatch::Create { manifest, fingerprint, nonce, depth, body } => {
            let naming = match manifest.name {
                Name::Given(_) => Naming::Given,
                Name::Keyed(_) => Naming::Keyed,
                Name::Generated(_) => Naming::Random,
            };
            let intent = Intent::Create { fingerprint: &*fingerprint, nonce: &*nonce, naming, is_dry_run };
            (Some(manifest), intent, *depth, *body)
        }
        Dispatch::Nothing => return Progress::Done(Reply::empty(204)),
        Dispatch::Lookup(_) => (None, Intent::Lookup, 0, Body::Whole),
    };
    work.memory = None;
    let (mut name, mut names, mut step) = match work.begun.take() {
        Some((name, call, attempts)) => (name, attempts.names, Step::Call(call, attempts)),
        None if Instant::now() >= until => {
            return Status::new(Reason::Overloaded, "no time was left to call the API server").into();
        }
        None => {
            budget.deposit();
            let name = match &mut manifest {
                Some(manifest) => manifest.choose_name(random()),
                None => lookup_name,
            };
            (name, 0, next(intent, Attempts::default(), None))
        }
    };
    let how = if is_dry_run { Create::DryRun } else { Create::Store };
    let mut tries = 1;
    loop {
        step = match step {
            Step::Call(call, attempts) => {
                if let Some(manifest) = &mut manifest
                    && attempts.names > names
                {
                    name = manifest.choose_name(random());
                }
                (names, tries) = (attempts.names, u32::from(attempts.retries) + 1);
                let json = manifest.as_ref().map_or(&[][..], |manifest| &manifest.json);
                let outcome = match call {
                    Call::Create => client.create(&config.namespace, &name, json, how, until),
                    Call::Get => client.get(&config.namespace, &name, until),
                };
                next(intent, attempts, Some((call, outcome)))
            }
            Step::Again { call, attempts, retry_after, otherwise } => {
                let pause = pause(attempts.retries, retry_after, random());
                let is_in_time = Instant::now() + pause + MIN_CALL < until;
                // a large manifest has its memory already, which others need for their runs
                let (bytes, has_room) = match &manifest {
                    None => (0, true),
                    Some(Manifest { reservation: None, json, .. }) => (json.capacity(), true),
                    Some(Manifest { reservation: Some(of_runs), .. }) => {
                        (0, of_runs.leaves(2 * config.filter.max_output()))
                    }
                };
                if is_in_time
                    && has_room
                    && !client.is_cut_off()
                    && let Some(memory) = budget.withdraw_pause(bytes)
                {
                    work.memory = Some(memory);
                    work.warnings += client.take_warnings();
                    work.begun = Some((name, call, attempts));
                    return Progress::Pause(work, pause);
                }
                match *otherwise {
                    step @ Step::Call(..) if !budget.withdraw() => without_call(step),
                    step => step,
                }
            }
            Step::Answer(answer) => {
                let warnings = work.warnings + client.take_warnings();
                let answered = match answer {
                    Ok(answer) => reply(name, depth, body, answer, warnings),
                    Err(status) => Reply { job: Some(name), ..status.into() },
                };
                return Progress::Done(Reply { tries, ..answered });
            }
        }
    }
}

/// With `--dry-run=client`.
fn shown(dispatch: Dispatch) -> Reply {
    match dispatch {
        Dispatch::Create { mut manifest, .. } => {
            let name = manifest.choose_name(random());
            Reply { job: Some(name), reservation: manifest.reservation, ..Reply::json(200, manifest.json) }
        }
        Dispatch::Nothing => Reply::empty(204),
        Dispatch::Lookup(_) => next::no_such_job().into(),
    }
}

fn reply(name: String, depth: usize, body: Body, answer: Answer, warnings: u32) -> Reply {
    let (code, job) = match &answer {
        Answer::Created(job) => (201, job),
        Answer::Same(job) | Answer::Valid(job) | Answer::Found(job) => (200, job),
    };
    let beside = Beside { is_dry_run: matches!(answer, Answer::Valid(_)), warnings };
    let reply = match body {
        Body::Whole => Reply::json(code, object(&name, job, beside)),
        Body::Minimal => Reply::empty(code).with_header("Preference-Applied", "return=minimal"),
        Body::NoneForEvent => Reply::empty(code),
    };
    let reply = match answer {
        Answer::Found(_) => reply,
        Answer::Created(_) | Answer::Same(_) | Answer::Valid(_) => {
            reply.with_header("Location", location(depth, &name))
        }
    };
    Reply { job: Some(name), ..reply }
}

/// Random bits for names and nonces, from the kernel: as many for one system call as 64 of these numbers need.
pub(crate) fn random() -> u64 {
    const NUMBERS: usize = 64;
    thread_local! {
        static KEPT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    KEPT.with_borrow_mut(|kept| {
        if kept.is_empty() {
            kept.resize(8 * NUMBERS, 0);
            getrandom::fill(kept).expect("the kernel has random bytes, as the TLS library needs too")
        }
        let number = u64::from_ne_bytes(*kept.last_chunk().expect("it holds whole numbers"));
        kept.truncate(kept.len() - 8);
        number
    })
}

#[cfg(test)]
mod tests;
