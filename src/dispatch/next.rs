//! Decides what to do after each response of the API server. Pure: no clock, no randomness, no I/O.
//!
//! The API server may create a Job and still answer 500, or the connection may break. A name that is final before the first POST makes
//! a retry safe; nonce and fingerprint in the annotations tell afterwards who created a Job.

use crate::kube::{Job, Outcome, Refusal, RefusalKind};
use crate::status::{Reason, Status};
use serde_json::Value;

/// Retries after a response that may differ the next time.
const MAX_FAULTS: u8 = 1;
/// Further names after a random one was taken.
const MAX_NAMES: u8 = 3;
/// Retries after the Job that held the name was gone when it was read.
const MAX_VANISHED: u8 = 1;
/// Seconds: a quota is freed when a Job ends.
const QUOTA_RETRY_AFTER: u32 = 10;
const RETRY_AFTER: u32 = 1;

/// What a dispatch is to do.
#[derive(Clone, Copy, Debug)]
pub(super) enum Intent<'a> {
    Create { fingerprint: &'a str, nonce: &'a str, is_generated: bool, is_dry_run: bool },
    Lookup,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Call {
    /// Post the manifest; under a new name if `names` has grown.
    Create,
    Get,
}

/// Counts what was retried so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Attempts {
    pub(super) faults: u8,
    pub(super) names: u8,
    pub(super) vanished: u8,
}

#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Call(Call, Attempts),
    Answer(Result<Answer, Status>),
}

#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Created,
    /// The Job exists already, created by the same request.
    Same,
    /// The API server would accept it.
    Valid,
    Status(Value),
}

/// `last`: the previous call and its outcome; None at first.
pub(super) fn next(intent: Intent<'_>, attempts: Attempts, last: Option<&(Call, Outcome)>) -> Step {
    let first = match intent {
        Intent::Create { .. } => Call::Create,
        Intent::Lookup => Call::Get,
    };
    let Some((call, outcome)) = last else { return Step::Call(first, attempts) };
    let fail = |status| Step::Answer(Err(status));
    match outcome {
        Outcome::Created => Step::Answer(Ok(match intent {
            Intent::Create { is_dry_run: true, .. } => Answer::Valid,
            Intent::Create { .. } | Intent::Lookup => Answer::Created,
        })),
        Outcome::Found(job) => found(intent, attempts, job),
        Outcome::Refused(refusal) => refused(intent, attempts, *call, refusal),
        Outcome::Disconnected(why) => again(attempts, *call, || {
            bad_gateway("the API server cannot be reached, or closed the connection").with_note(why.clone())
        }),
        Outcome::TimedOut(why) => {
            fail(Status::new(Reason::Timeout, "the API server did not answer in time").with_note(why.clone()))
        }
        Outcome::InvalidResponse(why) => {
            fail(bad_gateway("the API server's response is invalid").with_note(why.clone()))
        }
    }
}

fn found(intent: Intent<'_>, attempts: Attempts, job: &Job) -> Step {
    let Intent::Create { fingerprint, nonce, is_generated, is_dry_run } = intent else {
        return Step::Answer(if job.is_ours { Ok(Answer::Status(job.status.clone())) } else { Err(no_such_job()) });
    };
    // a request without a name creates a new Job each time
    let is_same = !is_generated && job.is_ours && job.fingerprint.as_deref() == Some(fingerprint);
    if job.is_ours && job.nonce.as_deref() == Some(nonce) {
        Step::Answer(Ok(Answer::Created)) // by our own earlier attempt, whose response was lost
    } else if is_generated && attempts.names < MAX_NAMES {
        Step::Call(Call::Create, Attempts { names: attempts.names + 1, ..attempts })
    } else if job.is_being_deleted {
        let status = Status::new(Reason::AlreadyExists, "the Job of this name is being deleted");
        Step::Answer(Err(status.with_retry_after(RETRY_AFTER)))
    } else if is_same {
        Step::Answer(Ok(if is_dry_run { Answer::Valid } else { Answer::Same }))
    } else {
        Step::Answer(Err(Status::new(Reason::AlreadyExists, "the name is taken by a Job of another request")))
    }
}

/// No wildcard arm: a new kind must be handled here.
fn refused(intent: Intent<'_>, attempts: Attempts, call: Call, refusal: &Refusal) -> Step {
    let note = |status: Status| status.with_note(refusal.said.clone());
    let later = || {
        let status = Status::new(Reason::ServiceUnavailable, "the API server is busy");
        note(status.with_retry_after(refusal.retry_after.unwrap_or(RETRY_AFTER)))
    };
    let operators = |what: &str| note(bad_gateway(what));
    let status = match refusal.kind {
        RefusalKind::NameTaken => match call {
            Call::Create => return Step::Call(Call::Get, attempts),
            Call::Get => operators("the API server's response is invalid"),
        },
        RefusalKind::Conflict | RefusalKind::Fault => return again(attempts, call, later),
        RefusalKind::NoSuchJob => match (intent, call) {
            (Intent::Lookup, _) => no_such_job(),
            (Intent::Create { .. }, Call::Get) if attempts.vanished < MAX_VANISHED => {
                return Step::Call(Call::Create, Attempts { vanished: attempts.vanished + 1, ..attempts });
            }
            (Intent::Create { .. }, Call::Get) => {
                let status = Status::new(Reason::AlreadyExists, "the name is taken and freed repeatedly");
                note(status.with_retry_after(RETRY_AFTER))
            }
            (Intent::Create { .. }, Call::Create) => operators("the API server does not know Jobs"),
        },
        RefusalKind::NoSuchNamespace => operators("the namespace of the Jobs does not exist"),
        RefusalKind::Invalid => {
            let status =
                Status::new(Reason::Invalid, "the API server rejects the manifest as invalid; causes name the fields");
            note(Status { causes: refusal.causes.clone(), ..status })
        }
        RefusalKind::TooLarge => {
            note(Status::new(Reason::RequestEntityTooLarge, "the API server rejects the manifest as too large"))
        }
        RefusalKind::Policy => note(Status::new(Reason::Forbidden, "an admission webhook or policy denies the Job")),
        RefusalKind::Quota => {
            let status = Status::new(Reason::QuotaExceeded, "the namespace's quota is used up");
            note(status.with_retry_after(QUOTA_RETRY_AFTER))
        }
        RefusalKind::NamespaceTerminating | RefusalKind::Busy => later(),
        RefusalKind::NotAllowed => operators("the dispatcher lacks permission for this"),
        RefusalKind::NotAuthenticated => operators("the API server rejects the dispatcher's token"),
        RefusalKind::Slow => note(Status::new(Reason::Timeout, "the API server did not finish in time")),
        RefusalKind::Unexpected => operators("the API server's response is invalid"),
    };
    Step::Answer(Err(status))
}

/// Retries the same call once, then fails with `otherwise`.
fn again(attempts: Attempts, call: Call, otherwise: impl FnOnce() -> Status) -> Step {
    if attempts.faults < MAX_FAULTS {
        Step::Call(call, Attempts { faults: attempts.faults + 1, ..attempts })
    } else {
        Step::Answer(Err(otherwise()))
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
mod tests {
    use super::*;
    use serde_json::json;

    const CREATE: Intent<'_> = Intent::Create { fingerprint: "f", nonce: "n", is_generated: false, is_dry_run: false };
    const GENERATED: Intent<'_> =
        Intent::Create { fingerprint: "f", nonce: "n", is_generated: true, is_dry_run: false };
    const DRY_RUN: Intent<'_> = Intent::Create { fingerprint: "f", nonce: "n", is_generated: false, is_dry_run: true };
    const NONE: Attempts = Attempts { faults: 0, names: 0, vanished: 0 };
    const FAULT: Attempts = Attempts { faults: 1, names: 0, vanished: 0 };

    fn job(is_ours: bool, fingerprint: &str, nonce: &str) -> Job {
        Job { is_ours, fingerprint: Some(fingerprint.into()), nonce: Some(nonce.into()), ..Job::default() }
    }

    fn after(intent: Intent<'_>, attempts: Attempts, call: Call, outcome: Outcome) -> Step {
        next(intent, attempts, Some(&(call, outcome)))
    }

    /// Code, reason and Retry-After of the answer.
    fn failure(step: Step) -> (Reason, Option<u32>) {
        match step {
            Step::Answer(Err(status)) => (status.reason, status.retry_after),
            other => panic!("{other:?}"),
        }
    }

    fn refusal(kind: RefusalKind, retry_after: Option<u32>) -> Outcome {
        Outcome::Refused(Refusal { kind, causes: Vec::new(), retry_after, said: "said".into() })
    }

    #[test]
    fn a_taken_name_is_read() {
        let found = |intent, attempts, job: Job| after(intent, attempts, Call::Get, Outcome::Found(Box::new(job)));
        assert_eq!(
            after(CREATE, NONE, Call::Create, refusal(RefusalKind::NameTaken, None)),
            Step::Call(Call::Get, NONE)
        );
        assert_eq!(found(CREATE, NONE, job(true, "f", "n")), Step::Answer(Ok(Answer::Created)));
        assert_eq!(found(CREATE, NONE, job(true, "f", "other")), Step::Answer(Ok(Answer::Same)));
        assert_eq!(found(DRY_RUN, NONE, job(true, "f", "other")), Step::Answer(Ok(Answer::Valid)));
        assert_eq!(failure(found(CREATE, NONE, job(true, "other", "other"))), (Reason::AlreadyExists, None));
        assert_eq!(failure(found(CREATE, NONE, job(false, "f", "n"))), (Reason::AlreadyExists, None));
        let deleted = Job { is_being_deleted: true, ..job(true, "f", "other") };
        assert_eq!(failure(found(CREATE, NONE, deleted)), (Reason::AlreadyExists, Some(1)));
    }

    #[test]
    fn a_taken_random_name_is_replaced_up_to_three_times() {
        let found = |attempts| after(GENERATED, attempts, Call::Get, Outcome::Found(Box::new(job(true, "f", "other"))));
        for names in 0..3 {
            let renamed = Attempts { names: names + 1, ..NONE };
            assert_eq!(found(Attempts { names, ..NONE }), Step::Call(Call::Create, renamed));
        }
        assert_eq!(failure(found(Attempts { names: 3, ..NONE })), (Reason::AlreadyExists, None));
        let ours = after(GENERATED, NONE, Call::Get, Outcome::Found(Box::new(job(true, "f", "n"))));
        assert_eq!(ours, Step::Answer(Ok(Answer::Created)));
    }

    #[test]
    fn transient_failures_are_retried_once() {
        for (outcome, reason, retry_after) in [
            (Outcome::Disconnected("x".into()), Reason::BadGateway, None),
            (refusal(RefusalKind::Fault, None), Reason::ServiceUnavailable, Some(1)),
            (refusal(RefusalKind::Conflict, Some(9)), Reason::ServiceUnavailable, Some(9)),
        ] {
            for (intent, call) in [(CREATE, Call::Create), (CREATE, Call::Get), (Intent::Lookup, Call::Get)] {
                assert_eq!(after(intent, NONE, call, outcome.clone()), Step::Call(call, FAULT));
                assert_eq!(failure(after(intent, FAULT, call, outcome.clone())), (reason, retry_after));
            }
        }
    }

    #[test]
    fn other_failures_are_final() {
        for (why, reason, retry_after) in [
            (RefusalKind::NoSuchNamespace, Reason::BadGateway, None),
            (RefusalKind::Invalid, Reason::Invalid, None),
            (RefusalKind::TooLarge, Reason::RequestEntityTooLarge, None),
            (RefusalKind::Policy, Reason::Forbidden, None),
            (RefusalKind::Quota, Reason::QuotaExceeded, Some(10)),
            (RefusalKind::NamespaceTerminating, Reason::ServiceUnavailable, Some(1)),
            (RefusalKind::Busy, Reason::ServiceUnavailable, Some(1)),
            (RefusalKind::NotAllowed, Reason::BadGateway, None),
            (RefusalKind::NotAuthenticated, Reason::BadGateway, None),
            (RefusalKind::Slow, Reason::Timeout, None),
            (RefusalKind::Unexpected, Reason::BadGateway, None),
        ] {
            assert_eq!(
                failure(after(CREATE, NONE, Call::Create, refusal(why, None))),
                (reason, retry_after),
                "{why:?}"
            );
        }
        assert_eq!(failure(after(CREATE, NONE, Call::Create, Outcome::TimedOut("x".into()))).0, Reason::Timeout);
        assert_eq!(
            failure(after(CREATE, NONE, Call::Create, Outcome::InvalidResponse("x".into()))).0,
            Reason::BadGateway
        );
    }

    #[test]
    fn a_vanished_job_is_created_again_once() {
        let gone = |attempts| after(CREATE, attempts, Call::Get, refusal(RefusalKind::NoSuchJob, None));
        let once = Attempts { vanished: 1, ..NONE };
        assert_eq!(gone(NONE), Step::Call(Call::Create, once));
        assert_eq!(failure(gone(once)), (Reason::AlreadyExists, Some(1)));
        assert_eq!(
            failure(after(CREATE, NONE, Call::Create, refusal(RefusalKind::NoSuchJob, None))).0,
            Reason::BadGateway
        );
    }

    #[test]
    fn every_repeated_call_is_counted() {
        use RefusalKind::*;
        let all = [
            NameTaken,
            Conflict,
            NoSuchJob,
            NoSuchNamespace,
            Invalid,
            TooLarge,
            Policy,
            Quota,
            NamespaceTerminating,
            NotAllowed,
            NotAuthenticated,
            Busy,
            Fault,
            Slow,
            Unexpected,
        ];
        for intent in [CREATE, GENERATED, Intent::Lookup] {
            for (call, why) in all.into_iter().flat_map(|why| [(Call::Create, why), (Call::Get, why)]) {
                if let Step::Call(next, attempts) = after(intent, NONE, call, refusal(why, None)) {
                    let is_progress = (call, next) == (Call::Create, Call::Get);
                    assert!(is_progress || attempts != NONE, "{call:?} {why:?} leads to {next:?} again");
                }
            }
        }
    }

    #[test]
    fn a_lookup_shows_only_our_jobs() {
        let found = |is_ours| {
            let job = Job { is_ours, status: json!({"active": 1}), ..Job::default() };
            after(Intent::Lookup, NONE, Call::Get, Outcome::Found(Box::new(job)))
        };
        assert_eq!(next(Intent::Lookup, NONE, None), Step::Call(Call::Get, NONE));
        assert_eq!(found(true), Step::Answer(Ok(Answer::Status(json!({"active": 1})))));
        assert_eq!(failure(found(false)).0, Reason::NotFound);
        assert_eq!(
            failure(after(Intent::Lookup, NONE, Call::Get, refusal(RefusalKind::NoSuchJob, None))).0,
            Reason::NotFound
        );
    }

    #[test]
    fn a_dry_run_is_not_a_creation() {
        assert_eq!(next(CREATE, NONE, None), Step::Call(Call::Create, NONE));
        assert_eq!(after(CREATE, NONE, Call::Create, Outcome::Created), Step::Answer(Ok(Answer::Created)));
        assert_eq!(after(DRY_RUN, NONE, Call::Create, Outcome::Created), Step::Answer(Ok(Answer::Valid)));
    }
}
