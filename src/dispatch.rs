//! Handles a dispatch: [`plan`] turns a request into an action and [`next`] decides after each response of the API server; both are
//! pure. [`perform`] carries it out.

mod action;
mod answer;
mod calls;
mod key;
mod list;
mod log;
mod next;
mod page;
mod perform;
mod prefer;
mod retry;

pub(crate) use action::{Creation, Dispatch};
pub(crate) use answer::{AnswerOrWait, Waiting};
pub(crate) use calls::Shared;
pub(crate) use list::{MAX_PAGE, Page, PodReasons, Query, no_page};
pub(crate) use perform::{Progress, Work, perform};
pub(crate) use retry::RetryBudget;

use key::Key;
use log::LogQuery;

use crate::auth::Caller;
use crate::config::Config;
use crate::filter::{Input, Outcome, SmallRun, Unwritable};
use crate::hash::{Sha256, hex};
use crate::http::{Request, pairs};
use crate::manifest::{self, Marks};
use crate::metrics::METRICS;
use crate::random::random;
use crate::route::{Route, check_headers, no_such_path};
use crate::status::{Reason, Status, internal_error};
use crate::trace::TraceParent;
use serde_json::{Map, Value, json};
use std::time::Instant;

/// Headers that a filter does not see: they are credentials.
const HIDDEN_HEADERS: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "x-gitlab-token"];

/// Characters of a parameter's name that an error shows.
const MAX_SHOWN: usize = 40;

/// Slashes of a path: each adds three bytes to the reply's `Location`, and proxies bound a reply's head.
const MAX_SLASHES: usize = 100;

fn slashes(request: &Request) -> usize {
    request.bytes[request.path.clone()].iter().filter(|byte| **byte == b'/').count()
}

/// The result of [`plan`].
#[derive(Debug)]
pub(crate) enum Plan {
    Ready(Box<Work>),
    /// The filter needs more than a small run: see [`plan_large`].
    NeedsLargeRun(Begun),
}

/// What a small run that did not suffice leaves to the large one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Begun {
    /// Lines that the filter has logged already.
    log_lines: u32,
    key: Option<Key>,
}

/// `caller`: None if it was not asked who calls. `until`: when the caller stops waiting.
///
/// Errors: the error for the caller.
pub(crate) fn plan(
    config: &Config,
    route: &Route,
    request: &Request,
    caller: Option<&Caller>,
    until: Instant,
) -> Result<Plan, Status> {
    check_headers(route, request, &config.hosts, config.accept)?;
    match route {
        Route::Job(id) if manifest::is_label(id) => {
            check_query(request, &["wait"])?;
            let wait = prefer::wait(request, config.max_wait, true)?;
            Ok(Plan::Ready(Work::boxed(Dispatch::Lookup(id.clone(), wait))))
        }
        Route::Dispatch(_) if slashes(request) > MAX_SLASHES => {
            Err(Status::new(Reason::UriTooLong, format!("the path has more than {MAX_SLASHES} slashes")))
        }
        Route::Dispatch(path) => {
            let key = key::key(request, path, &config.idempotency_headers)?;
            match with_input(request, path, caller, key, until, |input| config.filter.run_small(input)) {
                SmallRun::Done(outcome, took) => {
                    METRICS.filter_run(outcome.word(), took);
                    create(config, request, caller, outcome, key).map(Plan::Ready)
                }
                SmallRun::NeedsLargeRun { log_lines } => Ok(Plan::NeedsLargeRun(Begun { log_lines, key })),
            }
        }
        Route::Delete(id) if manifest::is_label(id) => {
            check_query(request, &[])?;
            Ok(Plan::Ready(Work::boxed(Dispatch::Delete(id.clone()))))
        }
        Route::Log(id) if manifest::is_label(id) => {
            Ok(Plan::Ready(Work::boxed(Dispatch::Log(id.clone(), LogQuery::of(request)?))))
        }
        Route::Job(_) | Route::Log(_) | Route::Delete(_) => Err(next::no_such_job()),
        Route::List | Route::Live | Route::Ready | Route::Metrics | Route::OpenApi | Route::Page(_) => {
            Err(no_such_path())
        }
    }
}

/// Errors: 400 for a query with other parameters than these.
fn check_query(request: &Request, known: &[&str]) -> Result<(), Status> {
    let unknown = pairs(request.query().as_bytes()).find(|(name, _)| !known.contains(&&**name));
    unknown.map_or(Ok(()), |(name, _)| Err(unknown_parameter(&name, known)))
}

/// `known`: the parameters that there are.
fn unknown_parameter(name: &str, known: &[&str]) -> Status {
    let name: String = name.chars().take(MAX_SHOWN).collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Status::new(Reason::BadRequest, format!("unknown query parameter {name:?}; known for this request: {known}"))
}

/// The plan for a POST to `path` whose filter needs a large run, which ends at `until` at the latest. Needs a thread with a stack of
/// [`filter::LARGE_RUN_STACK`](crate::filter::LARGE_RUN_STACK).
///
/// Errors: the error for the caller.
pub(crate) fn plan_large(
    config: &Config,
    path: &str,
    request: &Request,
    caller: Option<&Caller>,
    begun: Begun,
    until: Instant,
) -> Result<Box<Work>, Status> {
    let run = |input: &Input<'_>| config.filter.run_large(input, begun.log_lines);
    let (outcome, took) = with_input(request, path, caller, begun.key, until, run);
    METRICS.filter_run(outcome.word(), took);
    create(config, request, caller, outcome, begun.key)
}

fn with_input<R>(
    request: &Request,
    path: &str,
    caller: Option<&Caller>,
    key: Option<Key>,
    wall_end: Instant,
    run: impl FnOnce(&Input<'_>) -> R,
) -> R {
    let is_empty = request.body().is_empty() && request.header("content-type").is_none();
    run(&Input {
        seed: key.map(|key| key.digest()),
        body: if is_empty { b"null" } else { request.body() },
        path,
        request: &|| describe(request, path, caller),
        fingerprint: &|canonical| fingerprint(path, request.query(), canonical),
        wall_end,
    })
}

fn create(
    config: &Config,
    request: &Request,
    caller: Option<&Caller>,
    outcome: Outcome,
    key: Option<Key>,
) -> Result<Box<Work>, Status> {
    let (output, fingerprint) = match outcome {
        Outcome::Output { output, fingerprint } => (output, fingerprint),
        Outcome::Nothing => return Ok(Work::boxed(Dispatch::Nothing)),
        other => return Err(filter_status(other)),
    };
    let nonce = hex(&[random().to_ne_bytes(), random().to_ne_bytes()].concat());
    let shown_nonce = config.api_server.as_ref().map(|_| &nonce[..]); // --dry-run=client shows none
    let delivery = key.and_then(|key| key.delivery());
    let trace_parent = TraceParent::of(request).map(TraceParent::header);
    let marks = Marks {
        fingerprint: &fingerprint,
        nonce: shown_nonce,
        delivery: delivery.as_deref(),
        caller: caller.map(|caller| &*caller.json),
        trace_parent: trace_parent.as_deref(),
    };
    let manifest = manifest::check(&output, &config.namespace, marks, key.map(|key| key.suffix()))?;
    Ok(Work::boxed(Dispatch::Create(Creation {
        manifest,
        fingerprint,
        nonce,
        delivery,
        depth: slashes(request),
        body: prefer::body(request),
        wait: prefer::wait(request, config.max_wait, false)?,
    })))
}

/// `$REQUEST`.
fn describe(request: &Request, path: &str, caller: Option<&Caller>) -> Value {
    let pairs = pairs(request.query().as_bytes());
    let query: Map<String, Value> = pairs.map(|(name, value)| (name.into_owned(), value.into())).collect();
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
    let mut described = json!({
        "method": request.method(),
        "path": path,
        "query": query,
        "query_string": request.query(),
        "headers": headers,
    });
    if let Some(caller) = caller {
        described["caller"] = caller.describe()
    }
    described
}

/// Identifies a request: equal path, query string and JSON value give the same fingerprint.
fn fingerprint(path: &str, query: &str, canonical_body: &[u8]) -> String {
    let mut hash = Sha256::new();
    for part in [path.as_bytes(), query.as_bytes(), canonical_body] {
        hash.update((part.len() as u64).to_be_bytes()); // so that different triples never hash the same bytes
        hash.update(part);
    }
    [key::VERSION, ":", &hex(&hash.finish())].concat()
}

fn filter_status(outcome: Outcome) -> Status {
    match outcome {
        Outcome::Error { message, details } => Status { details, ..Status::new(Reason::FilterError, message) },
        Outcome::Limit(limit) => {
            Status::new(Reason::FilterLimit, format!("the filter exceeds the limit of {limit} for this request"))
        }
        Outcome::Many => manifest::operators_mistake("the filter has more than one output"),
        Outcome::Unwritable(Unwritable::TooLong) => {
            Status::new(Reason::FilterLimit, "the filter exceeds the limit of output for this request")
        }
        Outcome::Unwritable(why) => manifest::operators_mistake(why),
        Outcome::BodyTooLarge => {
            Status::new(Reason::RequestEntityTooLarge, "the body is too large as a value; see --max-filter-memory")
        }
        Outcome::BadBody(why) => Status::new(Reason::BadRequest, format!("the body is not JSON: {why}")),
        Outcome::TooLate => Status::new(Reason::Overloaded, "the dispatcher is too busy to run the filter in time"),
        Outcome::Defect | Outcome::Output { .. } | Outcome::Nothing => internal_error(),
    }
}

#[cfg(test)]
mod tests;
