//! The one loop that makes the calls of a dispatch.

use super::answer::{Told, Waiting, gone};
use super::next::{self, Answer, Attempts, Call, Intent, Naming, Step, next, without_call};
use super::prefer::Body;
use super::retry::{RetryBudget, pause};
use super::{Dispatch, internal_error, random};
use crate::budget::{Budget, Reservation};
use crate::config::{Config, DryRun};
use crate::http::Reply;
use crate::jobs::{Before, Known};
use crate::kube::{Client, Create, Job, Log, Outcome, RefusalKind};
use crate::manifest::{Manifest, Name};
use crate::status::{Reason, Status};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of logs until they are sent: twelve are read at once, and an ordinary one has ten kilobytes.
const LOG_BUDGET: usize = 6 << 20;
/// Bytes of answers with pods until they are sent: as many of the longest as are made at once.
const POD_BUDGET: usize = 56 * (64 << 10);
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
    /// The Job that is asked for, as it is now: its pods or a log are all that is still to be asked for.
    known: Option<Arc<Job>>,
    /// The Job that is asked for, which had ended when it was last heard of, and how long that is ago. It is the answer if no call can be made.
    ended: Option<(Arc<Job>, Duration)>,
    /// The answer should have the Job's pods.
    with_pods: bool,
    /// When the answer has to leave, if that is before the request's own time is over.
    until: Option<Instant>,
}

impl Work {
    pub(super) fn boxed(dispatch: Dispatch) -> Box<Self> {
        Box::new(Work {
            dispatch,
            begun: None,
            warnings: 0,
            memory: None,
            known: None,
            ended: None,
            with_pods: false,
            until: None,
        })
    }

    pub(super) fn of_known(dispatch: Dispatch, job: Arc<Job>) -> Box<Self> {
        Box::new(Work { known: Some(job), ..*Work::boxed(dispatch) })
    }

    /// `last`: the Job as it was when it was last heard of, and how long that is ago. `with_pods`: the answer should have the Job's pods.
    pub(crate) fn or_ended(mut self: Box<Self>, last: Option<(Arc<Job>, Duration)>, with_pods: bool) -> Box<Self> {
        self.with_pods = with_pods;
        self.ended = last.filter(|(job, _)| job.situation.state.is_final());
        self
    }

    /// Answers by then.
    pub(crate) fn by(mut self: Box<Self>, until: Instant) -> Box<Self> {
        self.until = Some(until);
        self
    }

    /// When the answer has to leave, if that is before the request's own time is over.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// The Job's name, and how often the API server was tried, if it was.
    pub(crate) fn tried(&self) -> Option<(&str, u32)> {
        self.begun.as_ref().map(|(name, _, attempts)| (&name[..], attempts.retries.into()))
    }

    /// Answers with what is known already; gives back what needs a call. `with_pods`: the answer has the Job's pods.
    pub(crate) fn found(self: Box<Self>, job: &Arc<Job>, with_pods: bool) -> Result<Progress, Box<Self>> {
        match self.dispatch {
            Dispatch::Lookup(name, wait) if !with_pods || wait.is_some_and(|wait| wait.goes_on(job)) => {
                Ok(Told { name, code: 200, wait, ..Told::default() }.or_wait(job.clone()))
            }
            dispatch => Err(Work::of_known(dispatch, job.clone())),
        }
    }

    /// The name of the Job that is read.
    pub(crate) fn lookup_name(&self) -> Option<&str> {
        match &self.dispatch {
            Dispatch::Lookup(name, _) | Dispatch::Log(name, _) => Some(name),
            _ => None,
        }
    }

    /// The answer when a call has failed, or cannot be made: with what is known of the Job if that is enough.
    pub(crate) fn failure(&self, status: Status, tries: u32) -> Reply {
        let Dispatch::Lookup(name, wait) = &self.dispatch else { return Reply { tries, ..status.into() } };
        let told = || Told { name: name.clone(), code: 200, wait: *wait, ..Told::default() };
        let reply = match (&self.known, &self.ended) {
            (Some(job), _) => Told { lacks_pods: true, ..told() }.reply(Some(job)),
            (None, Some((job, age))) if matches!(status.code(), 502..=504) => {
                let age = Some(*age);
                Told { age, lacks_pods: self.with_pods, ..told() }.reply(Some(job))
            }
            _ => return Reply { tries, ..status.into() },
        };
        Reply { note: Some(status.note.unwrap_or(status.message)), tries, ..reply }
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

/// For what is read for callers, until it is sent.
#[derive(Debug)]
pub(crate) struct Memory {
    logs: Arc<Budget>,
    pods: Arc<Budget>,
}

impl Default for Memory {
    fn default() -> Self {
        Memory { logs: Budget::new(LOG_BUDGET), pods: Budget::new(POD_BUDGET) }
    }
}

impl From<Status> for Progress {
    fn from(status: Status) -> Self {
        Progress::Done(status.into())
    }
}

/// Makes calls until there is an answer, or a pause before the next; the one place that does. Without a client (`--dry-run=client`) it
/// makes none. `known`: learns what each call has told.
pub(crate) fn perform(
    config: &Config,
    budget: &RetryBudget,
    memory: &Memory,
    client: Option<&mut Client>,
    known: &Known,
    mut work: Box<Work>,
    until: Instant,
) -> Progress {
    let Some(client) = client else { return Progress::Done(shown(work.dispatch)) };
    client.take_warnings(); // of a readiness check, which are not this caller's
    let is_dry_run = config.dry_run == DryRun::Server;
    let lookup_name = match &work.dispatch {
        Dispatch::Lookup(name, _) | Dispatch::Log(name, _) | Dispatch::Delete(name) => name.clone(),
        Dispatch::Create { .. } | Dispatch::Nothing => String::new(),
    };
    let (mut manifest, intent, depth, body, wait) = match &mut work.dispatch {
        Dispatch::Create { manifest, fingerprint, nonce, delivery, depth, body, wait } => {
            let naming = match manifest.name {
                Name::Given(_) => Naming::Given,
                Name::Keyed(_) => Naming::Keyed,
                Name::Generated(_) => Naming::Random,
            };
            let (fingerprint, nonce, delivery) = (&**fingerprint, &**nonce, delivery.as_deref());
            let intent = Intent::Create { fingerprint, nonce, delivery, naming, is_dry_run };
            (Some(manifest), intent, *depth, *body, *wait)
        }
        Dispatch::Nothing => return Progress::Done(Reply::empty(204)),
        Dispatch::Lookup(_, wait) => (None, Intent::Lookup, 0, Body::Whole, *wait),
        Dispatch::Log(_, query) => (None, Intent::Log(query), 0, Body::Whole, None),
        Dispatch::Delete(_) => (None, Intent::Delete, 0, Body::Whole, None),
    };
    let only = if let Intent::Log(query) = intent { query.pod() } else { None };
    work.memory = None;
    let (mut name, mut names, mut step) = match work.begun.take() {
        Some((name, call, attempts)) => (name, attempts.names, Step::Call(call, attempts)),
        None if Instant::now() >= until => {
            let status = Status::new(Reason::Overloaded, "no time was left to call the API server");
            return Progress::Done(work.failure(status, 0));
        }
        None => {
            budget.deposit();
            let name = match &mut manifest {
                Some(manifest) => manifest.choose_name(random()),
                None => lookup_name,
            };
            let first = match work.known.clone() {
                None => next(intent, Attempts::default(), None),
                found => Step::Call(Call::Pods, Attempts { found, ..Attempts::default() }),
            };
            (name, 0, first)
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
                let uid = attempts.found.as_ref().map_or("", |job| &job.uid);
                let before = known.before(&name);
                let outcome = match call {
                    Call::Create => client.create(&config.namespace, &name, json, how, until),
                    Call::Get => client.get(&config.namespace, &name, until),
                    Call::Pods => client.pods(&config.namespace, &name, uid, only, until),
                    Call::Log => match &attempts.which {
                        Some(which) => client.log(&config.namespace, which, &memory.logs, until),
                        None => return internal_error().into(), // it is chosen before
                    },
                    Call::Delete => client.delete(&config.namespace, &name, uid, how, until),
                };
                if how == Create::Store || call == Call::Get {
                    learn(known, &before, &name, call, &outcome, attempts.found.as_deref())
                }
                next(intent, attempts, Some((call, outcome)))
            }
            Step::Again { call, attempts, retry_after, otherwise } => {
                let pause = pause(attempts.retries, retry_after, random());
                let is_in_time = Instant::now() + pause + MIN_CALL < until;
                // a large manifest has its memory already, which others need for their runs
                let (bytes, has_room) = match &manifest {
                    None => (attempts.found.as_ref().map_or(0, |job| size_of::<Job>() + job.text_bytes()), true),
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
            Step::Answer(Ok(Answer::Found(job)))
                if config.enabled.pods && !wait.is_some_and(|wait| wait.goes_on(&job)) =>
            {
                work.known = Some(Arc::new(*job));
                Step::Call(Call::Pods, Attempts { found: work.known.clone(), ..Attempts::default() })
            }
            Step::Answer(answer) => {
                let warnings = work.warnings + client.take_warnings();
                let answer = match answer {
                    Ok(answer) => answer,
                    Err(status) => return Progress::Done(Reply { job: Some(name), ..work.failure(status, tries) }),
                };
                let is_unmarked = match (&answer, intent) {
                    (Answer::Created(job), Intent::Create { fingerprint, .. }) => {
                        job.fingerprint.as_deref() != Some(fingerprint)
                    }
                    _ => false,
                };
                let is_dry_run = is_dry_run && !matches!(answer, Answer::Found(_) | Answer::WithPods(..));
                let (code, depth, job) = match answer {
                    Answer::Log(log) => {
                        let Some(Log { text, memory }) = Arc::into_inner(log) else { return internal_error().into() };
                        let reply = Reply::text("text/plain; charset=utf-8", text);
                        return Progress::Done(Reply { job: Some(name), tries, reservation: Some(memory), ..reply });
                    }
                    Answer::WithPods(job, pods) => {
                        let told = Told { name, code: 200, warnings, wait, tries, pods: Some(pods), ..Told::default() };
                        let mut reply = told.reply(Some(&job));
                        if let Cow::Owned(body) = &mut reply.body {
                            body.shrink_to_fit()
                        }
                        // none for slow readers beyond this
                        return Progress::Done(match memory.pods.try_reserve(reply.body.len()) {
                            memory @ Some(_) => Reply { reservation: memory, ..reply },
                            None => {
                                let status = Status::new(Reason::Overloaded, "too many lists of pods are being sent");
                                Reply { job: reply.job, ..work.failure(status, tries) }
                            }
                        });
                    }
                    Answer::Gone => {
                        let told =
                            Told { name, code: 201, depth: Some(depth), body, warnings, tries, ..Told::default() };
                        return Progress::Done(gone(told));
                    }
                    Answer::Created(job) => (201, Some(depth), job),
                    Answer::Same(job) | Answer::Valid(job) => (200, Some(depth), job),
                    Answer::Found(job) => (200, None, job),
                    Answer::Deleting(job) => (202, None, Box::new(Job::clone(&job).being_deleted())),
                };
                let wait = wait.filter(|_| !is_dry_run);
                let told = Told { name, code, depth, body, is_dry_run, warnings, wait, tries, ..Told::default() };
                let told = if is_unmarked { told.unmarked() } else { told };
                return told.or_wait(Arc::new(*job));
            }
        }
    }
}

/// What a call has told of a Job. `found`: the Job that was to be deleted.
fn learn(known: &Known, before: &Before, name: &str, call: Call, outcome: &Outcome, found: Option<&Job>) {
    match outcome {
        Outcome::Created(job) => known.created(before, job),
        Outcome::Found(job) => known.found(before, job),
        Outcome::Deleted => found.iter().for_each(|job| known.deleted(job)),
        Outcome::Refused(refusal)
            if refusal.kind == RefusalKind::NoSuchJob && matches!(call, Call::Get | Call::Delete) =>
        {
            known.not_found(before, name)
        }
        _ => (),
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
        Dispatch::Lookup(..) | Dispatch::Log(..) | Dispatch::Delete(_) => next::no_such_job().into(),
    }
}
