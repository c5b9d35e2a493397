//! Decides what to do after each response of the API server. Pure: no clock, no randomness, no I/O.
//!
//! The API server may create a Job and still answer 500, or the connection may break. A name that is final before the first POST makes
//! a retry safe; nonce, fingerprint and delivery in the annotations show afterwards which request created a Job. They count as they were stored, and
//! whether or not the Job has our label: webhooks and policies change what is sent.

use super::log::{LogQuery, not_started};
use crate::kube::{Failure, Job, Log, Pods, Refusal, RefusalKind, Which};
use crate::status::{Reason, Status};
use std::sync::Arc;

/// Retries of a dispatch, after responses that may differ the next time. The pauses between them take up to three seconds in all, unless the
/// API server asks for more.
const MAX_RETRIES: u8 = 4;
/// Further names after a random one was taken.
const MAX_NAMES: u8 = 3;
/// Retries after the Job that held the name was gone when it was read.
const MAX_VANISHED: u8 = 1;
/// Seconds: a quota is freed when a Job ends.
const QUOTA_RETRY_AFTER: u32 = 10;
const RETRY_AFTER: u32 = 1;
const INVALID_RESPONSE: &str = "the API server's response is invalid";

/// What a dispatch is to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Intent<'a> {
    Create {
        fingerprint: &'a str,
        nonce: &'a str,
        /// Of the delivery, if the request has an id that decides alone.
        delivery: Option<&'a str>,
        naming: Naming,
        is_dry_run: bool,
    },
    Lookup,
    Log(&'a LogQuery),
    Delete,
}

/// Where the name of a Job comes from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Naming {
    /// From the filter.
    Given,
    /// From an idempotency key.
    Keyed,
    /// Drawn, so that each request creates a Job.
    Random,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Call {
    /// Post the manifest; under a new name if `names` has grown.
    Create,
    Get,
    /// List the pods of the Job that was found.
    Pods,
    /// Read the log that was chosen.
    Log,
    /// Delete the Job that was found, and no other of its name.
    Delete,
}

impl Call {
    /// Whether something has changed if it was processed.
    fn changes(self) -> bool {
        matches!(self, Call::Create | Call::Delete)
    }
}

/// What has happened so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Attempts {
    pub(super) retries: u8,
    pub(super) names: u8,
    pub(super) vanished: u8,
    /// A POST failed in a way that may have created the Job, or a DELETE in one that may have deleted it.
    pub(super) may_be_done: bool,
    /// The answer to a refused POST, unless the Job exists already.
    pub(super) refusal: Option<Box<Status>>,
    /// The Job that is to be deleted, or whose pods are asked for.
    pub(super) found: Option<Arc<Job>>,
    /// The log that is to be read.
    pub(super) which: Option<Box<Which>>,
}

/// What a call has come to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum CallOutcome {
    Created(Box<Job>),
    Found(Box<Job>),
    /// It is being deleted, or is gone already.
    Deleted,
    /// Of the Job.
    Pods(Box<Pods>),
    /// Of a container.
    Log(Arc<Log>),
    Failed(Failure),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Call(Call, Attempts),
    /// Make this call once more after a pause, if the time and the retry budget allow it; else `otherwise`, if that needs no call or the
    /// budget allows it; else [`without_call`].
    Again {
        call: Call,
        attempts: Attempts,
        /// Seconds that the API server asks to wait.
        retry_after: Option<u32>,
        otherwise: Box<Step>,
    },
    /// Get the Job once there is memory for a long answer.
    ReadLong(Attempts),
    Answer(Result<Answer, Status>),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Created(Box<Job>),
    /// It was created, and is gone already.
    Gone,
    /// The Job exists already, created by the same request.
    Same(Box<Job>),
    /// The API server would accept it.
    Valid(Box<Job>),
    /// The Job that was asked for.
    Found(Box<Job>),
    /// That, with its pods.
    WithPods(Arc<Job>, Box<Pods>),
    Log(Arc<Log>),
    /// The Job is being deleted.
    Deleting(Arc<Job>),
}

/// `call`: the previous one, which has come to `outcome`.
pub(super) fn next(intent: Intent<'_>, attempts: Attempts, call: Call, outcome: CallOutcome) -> Step {
    let fail = |status| Step::Answer(Err(status));
    match outcome {
        CallOutcome::Created(job) => Step::Answer(Ok(match intent {
            Intent::Create { is_dry_run: true, .. } => Answer::Valid(job),
            _ => Answer::Created(job),
        })),
        CallOutcome::Found(job) => found(intent, attempts, job),
        CallOutcome::Deleted => deleted(Attempts { may_be_done: true, ..attempts }),
        CallOutcome::Pods(pods) => with_pods(intent, attempts, pods),
        CallOutcome::Log(log) if log.is_missing() => fail(
            Status::new(Reason::NotFound, "the log is gone with its container")
                .with_note("the kubelet cannot retrieve it"),
        ),
        CallOutcome::Log(log) => Step::Answer(Ok(Answer::Log(log))),
        CallOutcome::Failed(failure) => failed(intent, attempts, call, failure),
    }
}

fn failed(intent: Intent<'_>, attempts: Attempts, call: Call, failure: Failure) -> Step {
    let fail = |status| Step::Answer(Err(status));
    match failure {
        Failure::TooLong => {
            let may_be_done = attempts.may_be_done || call.changes();
            Step::ReadLong(Attempts { may_be_done, ..attempts })
        }
        Failure::Refused(refusal) => refused(intent, attempts, call, refusal),
        // also when a refusal came before: whether the Job exists is not known
        Failure::NotCalled => fail(
            Status::new(Reason::ServiceUnavailable, "the API server cannot be reached")
                .with_retry_after(RETRY_AFTER)
                .with_note("no call was made, because several calls in a row could not connect"),
        ),
        Failure::Unreachable(why) => {
            again(attempts, call, None, bad_gateway("the API server cannot be reached").with_note(why))
        }
        Failure::Disconnected(why) => {
            let attempts = Attempts { may_be_done: attempts.may_be_done || call.changes(), ..attempts };
            again(attempts, call, None, bad_gateway("the API server closed the connection").with_note(why))
        }
        Failure::TimedOut(why) => {
            fail(Status::new(Reason::Timeout, "the API server did not respond in time").with_note(why))
        }
        Failure::InvalidResponse(why) => {
            let attempts = Attempts { may_be_done: attempts.may_be_done || call.changes(), ..attempts };
            read_or_fail(attempts, call, bad_gateway(INVALID_RESPONSE).with_note(why))
        }
    }
}

fn found(intent: Intent<'_>, attempts: Attempts, job: Box<Job>) -> Step {
    let Intent::Create { fingerprint, nonce, delivery, naming, is_dry_run } = intent else {
        return match intent {
            _ if !job.is_ours => Step::Answer(Err(no_such_job())),
            Intent::Log(_) => Step::Call(Call::Pods, Attempts { found: Some(Arc::new(*job)), ..attempts }),
            Intent::Delete if job.is_being_deleted => Step::Answer(Ok(Answer::Deleting(Arc::new(*job)))),
            Intent::Delete => Step::Call(Call::Delete, Attempts { found: Some(Arc::new(*job)), ..attempts }),
            _ => Step::Answer(Ok(Answer::Found(job))),
        };
    };
    let is_random = naming == Naming::Random;
    let is_delivered = delivery.is_some() && job.delivery.as_deref() == delivery;
    let is_same = !is_random && (is_delivered || job.fingerprint.as_deref() == Some(fingerprint));
    // a webhook may have removed our annotations; nobody else draws the same name just then
    let is_unmarked = is_random && attempts.may_be_done && job.nonce.is_none();
    if is_unmarked || job.nonce.as_deref() == Some(nonce) {
        Step::Answer(Ok(Answer::Created(job))) // by our own earlier attempt, whose response was lost
    } else if is_random && let Some(refusal) = attempts.refusal {
        Step::Answer(Err(*refusal)) // another name would be refused too
    } else if is_random && attempts.names < MAX_NAMES {
        Step::Call(Call::Create, Attempts { names: attempts.names + 1, may_be_done: false, ..attempts })
    } else if job.is_being_deleted {
        let status = Status::new(Reason::AlreadyExists, "the Job of this name is being deleted");
        Step::Answer(Err(status.with_retry_after(RETRY_AFTER)))
    } else if is_same {
        Step::Answer(Ok(if is_dry_run { Answer::Valid(job) } else { Answer::Same(job) }))
    } else if naming == Naming::Keyed && job.fingerprint.is_some() {
        let message = "the idempotency key has created a Job for another request";
        Step::Answer(Err(Status::new(Reason::IdempotencyKeyReused, message)))
    } else {
        Step::Answer(Err(Status::new(Reason::AlreadyExists, "the name belongs to a Job of another request")))
    }
}

fn with_pods(intent: Intent<'_>, attempts: Attempts, pods: Box<Pods>) -> Step {
    let Some(job) = attempts.found else { return Step::Answer(Err(no_such_job())) };
    match intent {
        Intent::Log(query) => match query.choose(&job, &pods) {
            Ok(which) => Step::Call(Call::Log, Attempts { found: Some(job), which: Some(which.into()), ..attempts }),
            Err(status) => Step::Answer(Err(status)),
        },
        _ => Step::Answer(Ok(Answer::WithPods(job, pods))),
    }
}

/// The Job that was found is being deleted, or is gone.
fn deleted(attempts: Attempts) -> Step {
    Step::Answer(match attempts.found {
        Some(job) if attempts.may_be_done => Ok(Answer::Deleting(job)),
        _ => Err(no_such_job()), // somebody else has deleted it
    })
}

fn refused(intent: Intent<'_>, attempts: Attempts, call: Call, refusal: Refusal) -> Step {
    match refusal.kind {
        // the Job that was found is gone; what has its name now was not meant
        RefusalKind::NoSuchJob | RefusalKind::AnotherUid if call == Call::Delete => deleted(attempts),
        RefusalKind::NoSuchJob if call == Call::Log => {
            Step::Answer(Err(Status::new(Reason::NotFound, "the log is gone with its pod")))
        }
        // the kubelet has no such log, or not yet
        RefusalKind::Invalid if call == Call::Log => {
            let status = match attempts.which.is_some_and(|which| which.has_ended) {
                true => Status::new(Reason::NotFound, "the log is gone with its container"),
                false => not_started("the container has not started"),
            };
            Step::Answer(Err(status.with_note(refusal.said)))
        }
        // a node that cannot be reached: others wait for these calls
        RefusalKind::Fault if call == Call::Log => Step::Answer(Err(status_of(call, refusal))),
        RefusalKind::NameTaken if call == Call::Delete => {
            again(attempts, call, refusal.retry_after, status_of(call, refusal))
        }
        RefusalKind::Conflict | RefusalKind::Busy | RefusalKind::WebhookUnreachable => {
            again(attempts, call, refusal.retry_after, status_of(call, refusal))
        }
        RefusalKind::Fault | RefusalKind::Slow => {
            let attempts = Attempts { may_be_done: attempts.may_be_done || call.changes(), ..attempts };
            again(attempts, call, refusal.retry_after, status_of(call, refusal))
        }
        RefusalKind::NameTaken if call == Call::Create => Step::Call(Call::Get, attempts),
        RefusalKind::NoSuchJob if call == Call::Get => no_job(intent, attempts, refusal),
        // quotas are checked before names
        RefusalKind::Quota => read_or_fail(Attempts { may_be_done: true, ..attempts }, call, status_of(call, refusal)),
        _ => read_or_fail(attempts, call, status_of(call, refusal)),
    }
}

/// A GET found no Job.
fn no_job(intent: Intent<'_>, attempts: Attempts, refusal: Refusal) -> Step {
    match intent {
        Intent::Lookup | Intent::Log(_) | Intent::Delete => Step::Answer(Err(no_such_job())),
        Intent::Create { naming, .. } => match attempts.refusal {
            Some(refusal) => Step::Answer(Err(*refusal)),
            None if naming == Naming::Random && attempts.may_be_done => Step::Answer(Ok(Answer::Gone)),
            None if attempts.vanished < MAX_VANISHED => {
                Step::Call(Call::Create, Attempts { vanished: attempts.vanished + 1, ..attempts })
            }
            None => {
                let status = Status::new(Reason::AlreadyExists, "the name is taken and freed repeatedly");
                Step::Answer(Err(status.with_retry_after(RETRY_AFTER).with_note(refusal.said)))
            }
        },
    }
}

/// What a refusal means for the caller. No wildcard arm: a new kind must be handled here.
fn status_of(call: Call, refusal: Refusal) -> Status {
    let Refusal { kind, causes, retry_after, said } = refusal;
    let later = |message: &str| {
        Status::new(Reason::ServiceUnavailable, message).with_retry_after(retry_after.unwrap_or(RETRY_AFTER))
    };
    let status = match (kind, call) {
        (RefusalKind::Invalid, Call::Create) => {
            let message = match causes.is_empty() {
                true => "the API server rejects the manifest as invalid; the dispatcher's log has its message",
                false => "the API server rejects the manifest as invalid; causes name the fields",
            };
            Status { causes, ..Status::new(Reason::Invalid, message) }
        }
        (RefusalKind::TooLarge, Call::Create) => {
            Status::new(Reason::RequestEntityTooLarge, "the API server rejects the manifest as too large")
        }
        (RefusalKind::Policy, Call::Create) => {
            Status::new(Reason::Forbidden, "an admission webhook or policy denies the Job")
        }
        (RefusalKind::Quota, Call::Create) => {
            Status::new(Reason::QuotaExceeded, "the namespace's quota is exhausted").with_retry_after(QUOTA_RETRY_AFTER)
        }
        (RefusalKind::Policy, Call::Delete) => {
            Status::new(Reason::Forbidden, "an admission webhook or policy denies the deletion")
        }
        (RefusalKind::WebhookFault, Call::Create | Call::Delete) => later("an admission webhook fails at the moment"),
        (RefusalKind::WebhookUnreachable, _) => later("an admission webhook cannot be called, or responds too late"),
        (RefusalKind::Fault, Call::Log) => later("the log cannot be read at the moment"),
        (RefusalKind::Conflict | RefusalKind::Fault | RefusalKind::Busy, _)
        | (RefusalKind::NameTaken, Call::Delete) => later("the API server is busy"),
        (RefusalKind::NamespaceTerminating, _) => later("the namespace of the Jobs is being deleted"),
        (RefusalKind::Slow, _) => Status::new(Reason::Timeout, "the API server did not finish in time"),
        (RefusalKind::NoSuchJob, _) => bad_gateway("the API server does not know Jobs"),
        (RefusalKind::NoSuchNamespace, _) => bad_gateway("the namespace of the Jobs does not exist"),
        (RefusalKind::NotAllowed, _) => bad_gateway("the dispatcher lacks permission for this"),
        (RefusalKind::NotAuthenticated, _) => bad_gateway("the API server rejects the dispatcher's token"),
        (RefusalKind::NameTaken | RefusalKind::AnotherUid | RefusalKind::Gone | RefusalKind::Unexpected, _)
        | (
            RefusalKind::Invalid
            | RefusalKind::TooLarge
            | RefusalKind::Policy
            | RefusalKind::Quota
            | RefusalKind::WebhookFault,
            Call::Get | Call::Pods | Call::Log | Call::Delete, // they cannot be refused so
        ) => bad_gateway(INVALID_RESPONSE),
    };
    status.with_note(said)
}

/// Retries the same call, else fails with `status`, unless the Job exists.
fn again(attempts: Attempts, call: Call, retry_after: Option<u32>, status: Status) -> Step {
    let retries = attempts.retries + 1;
    let retry = (retries <= MAX_RETRIES).then(|| Attempts { retries, ..attempts.clone() });
    let otherwise = read_or_fail(attempts, call, status);
    match retry {
        Some(attempts) => Step::Again { call, attempts, retry_after, otherwise: otherwise.into() },
        None => otherwise,
    }
}

/// Fails with `status`. If a POST may have created the Job, it is read first.
fn read_or_fail(attempts: Attempts, call: Call, status: Status) -> Step {
    if call == Call::Create && attempts.may_be_done {
        Step::Call(Call::Get, Attempts { refusal: Some(Box::new(status)), ..attempts })
    } else {
        Step::Answer(Err(status))
    }
}

/// The step after a failure for which the budget allows no further call.
pub(super) fn without_call(step: Step) -> Step {
    match step {
        Step::Call(_, Attempts { refusal: Some(status), .. }) => Step::Answer(Err(*status)),
        step => step,
    }
}

fn bad_gateway(message: &str) -> Status {
    Status::new(Reason::BadGateway, message)
}

/// It does not exist, is not ours, or cannot exist: callers see no difference.
pub(super) fn no_such_job() -> Status {
    Status::new(Reason::NotFound, "no such Job")
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
