//! The one loop that makes the calls of a dispatch.

use super::answer::{Told, Waiting};
use super::next::{self, Answer, Attempts, Call, Intent, Naming, Step, next, without_call};
use super::prefer::{Body, Wait};
use super::retry::{RetryBudget, pause};
use super::{Dispatch, random};
use crate::budget::Reservation;
use crate::config::{Config, DryRun};
use crate::http::Reply;
use crate::kube::{Client, Create, Job};
use crate::manifest::{Manifest, Name};
use crate::status::{Reason, Status};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A call for which less time is left is not worth a retry: the API server has less still, and has just taken all of its time.
const MIN_CALL: Duration = Duration::from_millis(500);

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
    pub(super) fn boxed(dispatch: Dispatch) -> Box<Self> {
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
    /// To be answered when its Job has ended.
    Wait(Box<Waiting>),
}

impl Work {
    /// Answers a lookup with what is known already; gives it back if it is none.
    pub(crate) fn found(self: Box<Self>, job: &Arc<Job>) -> Result<Progress, Box<Self>> {
        let Dispatch::Lookup(name, wait) = self.dispatch else { return Err(self) };
        let told = Told { name, code: 200, wait, ..Told::default() };
        Ok(told.or_wait(job.clone()))
    }

    /// The name of the Job that is looked up.
    pub(crate) fn lookup_name(&self) -> Option<&str> {
        if let Dispatch::Lookup(name, _) = &self.dispatch { Some(name) } else { None }
    }

    /// A lookup that waits for this time.
    pub(crate) fn lookup(name: &str, time: Duration) -> Box<Self> {
        Work::boxed(Dispatch::Lookup(name.to_owned(), Some(Wait { time, is_preference: false })))
    }
}

impl From<Status> for Progress {
    fn from(status: Status) -> Self {
        Progress::Done(status.into())
    }
}

/// Makes calls until there is an answer, or a pause before the next; the one place that does. Without a client (`--dry-run=client`) it
/// makes none. `see`: is told of each Job that is found or created, and of each that is not there.
pub(crate) fn perform(
    config: &Config,
    budget: &RetryBudget,
    client: Option<&mut Client>,
    see: &dyn Fn(&str, Option<&Job>),
    mut work: Box<Work>,
    until: Instant,
) -> Progress {
    let Some(client) = client else { return Progress::Done(shown(work.dispatch)) };
    client.take_warnings(); // of a readiness check, which are not this caller's
    let is_dry_run = config.dry_run == DryRun::Server;
    let lookup_name = if let Dispatch::Lookup(name, _) = &work.dispatch { name.clone() } else { String::new() };
    let (mut manifest, intent, depth, body, wait) = match &mut work.dispatch {
        Dispatch::Create { manifest, fingerprint, nonce, depth, body, wait } => {
            let naming = match manifest.name {
                Name::Given(_) => Naming::Given,
                Name::Keyed(_) => Naming::Keyed,
                Name::Generated(_) => Naming::Random,
            };
            let intent = Intent::Create { fingerprint: &*fingerprint, nonce: &*nonce, naming, is_dry_run };
            (Some(manifest), intent, *depth, *body, *wait)
        }
        Dispatch::Nothing => return Progress::Done(Reply::empty(204)),
        Dispatch::Lookup(_, wait) => (None, Intent::Lookup, 0, Body::Whole, *wait),
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
                let answer = match answer {
                    Ok(answer) => answer,
                    Err(status) => {
                        if matches!(intent, Intent::Lookup) && status.reason == Reason::NotFound {
                            see(&name, None)
                        }
                        return Progress::Done(Reply { job: Some(name), tries, ..status.into() });
                    }
                };
                let is_dry_run = matches!(answer, Answer::Valid(_));
                let is_lookup = matches!(answer, Answer::Found(_));
                let code = if matches!(answer, Answer::Created(_)) { 201 } else { 200 };
                let (Answer::Created(job) | Answer::Same(job) | Answer::Valid(job) | Answer::Found(job)) = answer;
                let wait = wait.filter(|_| !is_dry_run);
                if !is_dry_run {
                    see(&name, Some(&job))
                }
                let depth = (!is_lookup).then_some(depth);
                let told = Told { name, code, depth, body, is_dry_run, warnings, wait, tries };
                return told.or_wait(Arc::new(*job));
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
        Dispatch::Lookup(..) => next::no_such_job().into(),
    }
}
