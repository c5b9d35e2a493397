//! Makes the calls of a dispatch: the one place that does. What comes after each is decided in [`next`](super::next).

use super::next::{Answer, Attempts, Call, CallOutcome, Intent, Step, next, without_call};
use super::retry::{RetryBudget, pause};
use crate::account::{Account, Kind, Reservation};
use crate::config::{Config, DryRun};
use crate::jobs::{Before, Known};
use crate::kube::{Client, Create, Failure, Job, LONG_ANSWER, RefusalKind};
use crate::manifest::Manifest;
use crate::random::random;
use crate::status::{Status, internal_error};
use log::warn;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A call for which less time is left is not worth a retry: the API server has less still.
const MIN_CALL: Duration = Duration::from_millis(500);

/// What all dispatches share.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'s> {
    pub(crate) config: &'s Config,
    pub(crate) budget: &'s RetryBudget,
    pub(crate) account: &'s Arc<Account>,
    /// Learns the result of each call.
    pub(crate) known: &'s Known,
}

/// What it takes to call the API server.
pub(super) struct Calls<'c> {
    pub(super) shared: Shared<'c>,
    pub(super) client: &'c mut Client,
    /// For a long answer.
    pub(super) memory: Option<Reservation>,
    /// When the answer has to be there.
    pub(super) until: Instant,
}

/// A call that was decided, and what has happened before.
#[derive(Debug)]
pub(super) struct NextCall {
    /// Of the Job.
    pub(super) name: String,
    pub(super) call: Call,
    pub(super) attempts: Attempts,
    /// Its answer needs memory of its own.
    pub(super) is_long: bool,
}

impl NextCall {
    pub(super) fn new(name: String, call: Call) -> Self {
        NextCall { name, call, attempts: Attempts::default(), is_long: false }
    }

    /// To read a Job; where it is known, its pods.
    pub(super) fn of(name: String, known: Option<Arc<Job>>) -> Self {
        let call = if known.is_some() { Call::Pods } else { Call::Get };
        NextCall { attempts: Attempts { found: known, ..Attempts::default() }, ..NextCall::new(name, call) }
    }
}

/// What calls have come to.
pub(super) enum Ended {
    Answer {
        name: String,
        tries: u32,
        answer: Result<Answer, Status>,
    },
    /// The next call is to be made after this time. `memory`: for the pause, except what a large manifest has.
    Pause {
        next_call: NextCall,
        memory: Option<Reservation>,
        pause: Duration,
    },
    /// The next call is to be made when there is memory for a long answer.
    Long(NextCall),
}

impl Calls<'_> {
    /// Makes one call after the other until there is an answer, or a pause. `manifest`: of the Job that is to be created; a further name is
    /// chosen in it.
    pub(super) fn make(&mut self, intent: Intent<'_>, first: NextCall, mut manifest: Option<&mut Manifest>) -> Ended {
        let NextCall { mut name, call, attempts, .. } = first;
        let (mut names, mut tries) = (attempts.names, 1);
        let mut step = Step::Call(call, attempts);
        // of the last call: how it failed, and how long it took
        let mut last = (String::new(), Duration::ZERO);
        // of a POST after which the Job is looked for
        let mut lost = None;
        loop {
            step = match step {
                Step::Call(call, attempts) => {
                    if let Some(manifest) = &mut manifest
                        && attempts.names > names
                    {
                        name = manifest.choose_name(random());
                    }
                    // after a pause, the cause of the POST was logged before it
                    if call == Call::Get && attempts.refusal.is_some() && !last.0.is_empty() {
                        lost = Some((tries, std::mem::take(&mut last)))
                    }
                    (names, tries) = (attempts.names, u32::from(attempts.retries) + 1);
                    let before = self.client.waited();
                    match self.call(intent, call, &attempts, &name, manifest.as_deref()) {
                        Ok(outcome) => {
                            if let CallOutcome::Failed(failure) = &outcome {
                                last = (failure.to_string(), self.client.waited() - before)
                            }
                            next(intent, attempts, call, outcome)
                        }
                        Err(status) => Step::Answer(Err(status)),
                    }
                }
                Step::Again { call, attempts, retry_after, otherwise } => {
                    let pause = pause(attempts.retries, retry_after, random());
                    let (why, took) = &last;
                    if let Some(memory) = self.may_pause(pause, *took, &attempts, manifest.as_deref_mut()) {
                        lost.iter().for_each(log_lost);
                        warn!("try {tries} failed after {took:.1?}, the next comes after {pause:.1?}: {why}");
                        return Ended::Pause {
                            next_call: NextCall { name, call, attempts, is_long: false },
                            memory,
                            pause,
                        };
                    }
                    match *otherwise {
                        step @ Step::Call(..) if !self.shared.budget.withdraw() => without_call(step),
                        step => step,
                    }
                }
                Step::ReadLong(attempts) => {
                    // others need the memory for their runs
                    if let Some(Manifest { reservation: Some(memory), .. }) = manifest {
                        let bytes = memory.bytes();
                        memory.try_become(Kind::Parked, bytes);
                    }
                    return Ended::Long(NextCall { name, call: Call::Get, attempts, is_long: true });
                }
                Step::Answer(answer) => {
                    // what the caller is told of it is logged with the answer
                    let note = answer.as_ref().err().and_then(|status| status.note.as_ref());
                    lost.iter().filter(|(_, (why, _))| note != Some(why)).for_each(log_lost);
                    return Ended::Answer { name, tries, answer };
                }
            }
        }
    }

    /// Errors: the error for the caller.
    fn call(
        &mut self,
        intent: Intent<'_>,
        call: Call,
        attempts: &Attempts,
        name: &str,
        manifest: Option<&Manifest>,
    ) -> Result<CallOutcome, Status> {
        let Shared { config, known, .. } = self.shared;
        let (namespace, until) = (&config.namespace[..], self.until);
        let how = if config.dry_run == DryRun::Server { Create::DryRun } else { Create::Store };
        let uid = attempts.found.as_ref().map_or("", |job| &job.uid);
        let only = if let Intent::Log(query) = intent { query.pod() } else { None };
        let before = known.before(name);
        let done = match call {
            Call::Create => {
                let json = manifest.map_or(&[][..], |manifest| &manifest.json);
                self.client.create(namespace, name, json, how, until).map(CallOutcome::Created)
            }
            Call::Get => {
                let is_long = self.memory.as_ref().is_some_and(|memory| memory.bytes() >= LONG_ANSWER);
                self.client.get(namespace, name, is_long, until).map(CallOutcome::Found)
            }
            Call::Pods => {
                self.client.pods(namespace, name, uid, only, until).map(|pods| CallOutcome::Pods(Box::new(pods)))
            }
            Call::Log => match (&attempts.which, self.memory.take()) {
                (Some(which), Some(memory)) => {
                    self.client.log(namespace, which, memory, until).map(|log| CallOutcome::Log(Arc::new(log)))
                }
                _ => return Err(internal_error()), // it is chosen before, and reserved
            },
            Call::Delete => self.client.delete(namespace, name, uid, how, until).map(|()| CallOutcome::Deleted),
        };
        let outcome = done.unwrap_or_else(CallOutcome::Failed);
        if how == Create::Store || call == Call::Get {
            learn(known, &before, name, call, &outcome, attempts.found.as_deref())
        }
        Ok(outcome)
    }

    /// Memory for a pause; None if there is no pause, for want of time, of memory, or of tokens for retries. `took`: how long the last call
    /// took; the next may take as long, as with a webhook that hangs.
    fn may_pause(
        &self,
        pause: Duration,
        took: Duration,
        attempts: &Attempts,
        manifest: Option<&mut Manifest>,
    ) -> Option<Option<Reservation>> {
        let Shared { budget, account, .. } = self.shared;
        if Instant::now() + pause + took.max(MIN_CALL) >= self.until || self.client.is_cut_off() {
            return None;
        }
        match manifest {
            // others need the memory for their runs
            Some(Manifest { reservation: Some(memory), .. }) => {
                let bytes = memory.bytes();
                (memory.try_become(Kind::Parked, bytes) && budget.withdraw()).then_some(None)
            }
            Some(Manifest { reservation: None, json, .. }) => budget.withdraw_pause(account, json.capacity()).map(Some),
            None => {
                let bytes = attempts.found.as_ref().map_or(0, |job| size_of::<Job>() + job.text_bytes());
                budget.withdraw_pause(account, bytes).map(Some)
            }
        }
    }
}

/// The number of a try whose POST failed, before the Job was looked for, with its cause and how long it took.
fn log_lost((number, (why, took)): &(u32, (String, Duration))) {
    warn!("try {number} failed after {took:.1?}, and the Job was looked for: {why}")
}

/// What a call has shown of a Job. `found`: the Job that was to be deleted.
fn learn(known: &Known, before: &Before, name: &str, call: Call, outcome: &CallOutcome, found: Option<&Job>) {
    match outcome {
        CallOutcome::Created(job) => known.created(before, job),
        CallOutcome::Found(job) => known.found(before, job),
        CallOutcome::Deleted => found.iter().for_each(|job| known.deleted(job)),
        CallOutcome::Failed(Failure::Refused(refusal))
            if refusal.kind == RefusalKind::NoSuchJob && matches!(call, Call::Get | Call::Delete) =>
        {
            known.not_found(before, name)
        }
        _ => (),
    }
}
