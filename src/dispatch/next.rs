//! What to do after each answer of the API server. Pure: no clock, no randomness, no I/O, so that it can be read, and checked, as a table.
//!
//! The API server may make a Job and still answer 500, or the line may drop. A name that is final before the first POST makes it safe
//! to post again; nonce and fingerprint in the annotations tell afterwards whose a Job is.

use crate::kube::{Job, Outcome, Refusal, Why};
use crate::status::{Reason, Status};
use serde_json::Value;

/// More tries after an answer that may be different the next time.
const MAX_FAULTS: u8 = 1;
/// More names after a random one was found taken.
const MAX_DRAWS: u8 = 3;
/// More tries after a Job that held the name was gone when it was read.
const MAX_VANISHED: u8 = 1;
/// Seconds: a quota is freed when a Job ends.
const QUOTA_RETRY_AFTER: u32 = 10;
const RETRY_AFTER: u32 = 1;

/// What a dispatch wants.
#[derive(Clone, Copy, Debug)]
pub(super) enum Aim<'a> {
    Create { fingerprint: &'a str, nonce: &'a str, is_generated: bool, is_dry_run: bool },
    Lookup,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Call {
    /// Post the manifest; under a new name when there is one draw more than before.
    Create,
    Get,
}

/// What went wrong so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Tries {
    pub(super) faults: u8,
    pub(super) draws: u8,
    pub(super) vanished: u8,
}

#[derive(Debug, PartialEq)]
pub(super) enum Step {
    Call(Call, Tries),
    Answer(Result<Answer, Status>),
}

#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Created,
    /// The Job is there already, made by the same request.
    Same,
    /// The API server would take it.
    Valid,
    Status(Value),
}

/// `last`: the call before, and how it ended; none at first.
pub(super) fn next(aim: Aim<'_>, tries: Tries, last: Option<&(Call, Outcome)>) -> Step {
    let first = match aim {
        Aim::Create { .. } => Call::Create,
        Aim::Lookup => Call::Get,
    };
    let Some((call, outcome)) = last else { return Step::Call(first, tries) };
    let fail = |status| Step::Answer(Err(status));
    match outcome {
        Outcome::Created => Step::Answer(Ok(match aim {
            Aim::Create { is_dry_run: true, .. } => Answer::Valid,
            Aim::Create { .. } | Aim::Lookup => Answer::Created,
        })),
        Outcome::Found(job) => found(aim, tries, job),
        Outcome::Refused(refusal) => refused(aim, tries, *call, refusal),
        Outcome::Cut(why) => {
            again(tries, *call, || bad_gateway("the API server cannot be reached, or hung up").with_note(why.clone()))
        }
        Outcome::TimedOut(why) => {
            fail(Status::new(Reason::Timeout, "the API server did not answer in time").with_note(why.clone()))
        }
        Outcome::Unreadable(why) => {
            fail(bad_gateway("the API server's answer is not one of an API server").with_note(why.clone()))
        }
    }
}

fn found(aim: Aim<'_>, tries: Tries, job: &Job) -> Step {
    let Aim::Create { fingerprint, nonce, is_generated, is_dry_run } = aim else {
        return Step::Answer(if job.is_ours { Ok(Answer::Status(job.status.clone())) } else { Err(no_such_job()) });
    };
    // a request that leaves the name to us wants a Job of its own each time
    let is_same = !is_generated && job.is_ours && job.fingerprint.as_deref() == Some(fingerprint);
    if job.is_ours && job.nonce.as_deref() == Some(nonce) {
        Step::Answer(Ok(Answer::Created)) // by our own earlier attempt, whose answer was lost
    } else if is_generated && tries.draws < MAX_DRAWS {
        Step::Call(Call::Create, Tries { draws: tries.draws + 1, ..tries })
    } else if job.is_being_deleted {
        let status = Status::new(Reason::AlreadyExists, "the Job of this name is being deleted");
        Step::Answer(Err(status.with_retry_after(RETRY_AFTER)))
    } else if is_same {
        Step::Answer(Ok(if is_dry_run { Answer::Valid } else { Answer::Same }))
    } else {
        Step::Answer(Err(Status::new(Reason::AlreadyExists, "the name is held by a Job of another request")))
    }
}

/// No wildcard: who adds a reason decides here what it means.
fn refused(aim: Aim<'_>, tries: Tries, call: Call, refusal: &Refusal) -> Step {
    let note = |status: Status| status.with_note(refusal.said.clone());
    let later = || {
        let status = Status::new(Reason::ServiceUnavailable, "the API server cannot take the request now");
        note(status.with_retry_after(refusal.retry_after.unwrap_or(RETRY_AFTER)))
    };
    let operators = |what: &str| note(bad_gateway(what));
    let status = match refusal.why {
        Why::NameTaken => match call {
            Call::Create => return Step::Call(Call::Get, tries),
            Call::Get => operators("the API server's answer is not one of an API server"),
        },
        Why::Conflict | Why::Fault => return again(tries, call, later),
        Why::NoSuchJob => match (aim, call) {
            (Aim::Lookup, _) => no_such_job(),
            (Aim::Create { .. }, Call::Get) if tries.vanished < MAX_VANISHED => {
                return Step::Call(Call::Create, Tries { vanished: tries.vanished + 1, ..tries });
            }
            (Aim::Create { .. }, Call::Get) => {
                let status = Status::new(Reason::AlreadyExists, "the name is taken and freed again all the time");
                note(status.with_retry_after(RETRY_AFTER))
            }
            (Aim::Create { .. }, Call::Create) => operators("the API server does not know Jobs"),
        },
        Why::NoSuchNamespace => operators("the namespace of the Jobs does not exist"),
        Why::Invalid => {
            let status =
                Status::new(Reason::Invalid, "the API server finds the manifest invalid; causes name the fields");
            note(Status { causes: refusal.causes.clone(), ..status })
        }
        Why::TooLarge => {
            note(Status::new(Reason::RequestEntityTooLarge, "the API server finds the manifest too large"))
        }
        Why::Policy => note(Status::new(Reason::Forbidden, "a policy of the cluster refuses the Job")),
        Why::Quota => {
            let status = Status::new(Reason::QuotaExceeded, "the namespace's quota is used up");
            note(status.with_retry_after(QUOTA_RETRY_AFTER))
        }
        Why::NamespaceTerminating | Why::Busy => later(),
        Why::NotAllowed => operators("the API server does not let the dispatcher do this"),
        Why::NotAuthenticated => operators("the API server does not accept the dispatcher's token"),
        Why::Slow => note(Status::new(Reason::Timeout, "the API server did not finish in time")),
        Why::Unexpected => operators("the API server's answer is not one of an API server"),
    };
    Step::Answer(Err(status))
}

/// The same call once more, then what `otherwise` says.
fn again(tries: Tries, call: Call, otherwise: impl FnOnce() -> Status) -> Step {
    if tries.faults < MAX_FAULTS {
        Step::Call(call, Tries { faults: tries.faults + 1, ..tries })
    } else {
        Step::Answer(Err(otherwise()))
    }
}

fn bad_gateway(message: &str) -> Status {
    Status::new(Reason::BadGateway, message)
}

/// There is none, it is somebody else's, or it cannot be: callers see no difference.
pub(super) fn no_such_job() -> Status {
    Status::new(Reason::NotFound, "no such Job")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CREATE: Aim<'_> = Aim::Create { fingerprint: "f", nonce: "n", is_generated: false, is_dry_run: false };
    const GENERATED: Aim<'_> = Aim::Create { fingerprint: "f", nonce: "n", is_generated: true, is_dry_run: false };
    const DRY_RUN: Aim<'_> = Aim::Create { fingerprint: "f", nonce: "n", is_generated: false, is_dry_run: true };
    const NONE: Tries = Tries { faults: 0, draws: 0, vanished: 0 };
    const FAULT: Tries = Tries { faults: 1, draws: 0, vanished: 0 };

    fn job(is_ours: bool, fingerprint: &str, nonce: &str) -> Job {
        Job { is_ours, fingerprint: Some(fingerprint.into()), nonce: Some(nonce.into()), ..Job::default() }
    }

    fn after(aim: Aim<'_>, tries: Tries, call: Call, outcome: Outcome) -> Step {
        next(aim, tries, Some(&(call, outcome)))
    }

    /// Code, reason and Retry-After of the answer.
    fn failure(step: Step) -> (Reason, Option<u32>) {
        match step {
            Step::Answer(Err(status)) => (status.reason, status.retry_after),
            other => panic!("{other:?}"),
        }
    }

    fn refusal(why: Why, retry_after: Option<u32>) -> Outcome {
        Outcome::Refused(Refusal { why, causes: Vec::new(), retry_after, said: "said".into() })
    }

    #[test]
    fn a_taken_name_is_looked_at() {
        let found = |aim, tries, job: Job| after(aim, tries, Call::Get, Outcome::Found(Box::new(job)));
        assert_eq!(after(CREATE, NONE, Call::Create, refusal(Why::NameTaken, None)), Step::Call(Call::Get, NONE));
        assert_eq!(found(CREATE, NONE, job(true, "f", "n")), Step::Answer(Ok(Answer::Created)));
        assert_eq!(found(CREATE, NONE, job(true, "f", "other")), Step::Answer(Ok(Answer::Same)));
        assert_eq!(found(DRY_RUN, NONE, job(true, "f", "other")), Step::Answer(Ok(Answer::Valid)));
        assert_eq!(failure(found(CREATE, NONE, job(true, "other", "other"))), (Reason::AlreadyExists, None));
        assert_eq!(failure(found(CREATE, NONE, job(false, "f", "n"))), (Reason::AlreadyExists, None));
        let deleted = Job { is_being_deleted: true, ..job(true, "f", "other") };
        assert_eq!(failure(found(CREATE, NONE, deleted)), (Reason::AlreadyExists, Some(1)));
    }

    #[test]
    fn a_taken_random_name_is_drawn_again_three_times() {
        let found = |tries| after(GENERATED, tries, Call::Get, Outcome::Found(Box::new(job(true, "f", "other"))));
        for draws in 0..3 {
            let drawn = Tries { draws: draws + 1, ..NONE };
            assert_eq!(found(Tries { draws, ..NONE }), Step::Call(Call::Create, drawn));
        }
        assert_eq!(failure(found(Tries { draws: 3, ..NONE })), (Reason::AlreadyExists, None));
        let ours = after(GENERATED, NONE, Call::Get, Outcome::Found(Box::new(job(true, "f", "n"))));
        assert_eq!(ours, Step::Answer(Ok(Answer::Created)));
    }

    #[test]
    fn what_may_be_different_the_next_time_is_tried_once_more() {
        for (outcome, reason, retry_after) in [
            (Outcome::Cut("x".into()), Reason::BadGateway, None),
            (refusal(Why::Fault, None), Reason::ServiceUnavailable, Some(1)),
            (refusal(Why::Conflict, Some(9)), Reason::ServiceUnavailable, Some(9)),
        ] {
            for (aim, call) in [(CREATE, Call::Create), (CREATE, Call::Get), (Aim::Lookup, Call::Get)] {
                assert_eq!(after(aim, NONE, call, outcome.clone()), Step::Call(call, FAULT));
                assert_eq!(failure(after(aim, FAULT, call, outcome.clone())), (reason, retry_after));
            }
        }
    }

    #[test]
    fn the_rest_is_final() {
        for (why, reason, retry_after) in [
            (Why::NoSuchNamespace, Reason::BadGateway, None),
            (Why::Invalid, Reason::Invalid, None),
            (Why::TooLarge, Reason::RequestEntityTooLarge, None),
            (Why::Policy, Reason::Forbidden, None),
            (Why::Quota, Reason::QuotaExceeded, Some(10)),
            (Why::NamespaceTerminating, Reason::ServiceUnavailable, Some(1)),
            (Why::Busy, Reason::ServiceUnavailable, Some(1)),
            (Why::NotAllowed, Reason::BadGateway, None),
            (Why::NotAuthenticated, Reason::BadGateway, None),
            (Why::Slow, Reason::Timeout, None),
            (Why::Unexpected, Reason::BadGateway, None),
        ] {
            assert_eq!(
                failure(after(CREATE, NONE, Call::Create, refusal(why, None))),
                (reason, retry_after),
                "{why:?}"
            );
        }
        assert_eq!(failure(after(CREATE, NONE, Call::Create, Outcome::TimedOut("x".into()))).0, Reason::Timeout);
        assert_eq!(failure(after(CREATE, NONE, Call::Create, Outcome::Unreadable("x".into()))).0, Reason::BadGateway);
    }

    #[test]
    fn a_job_that_vanished_makes_room_once() {
        let gone = |tries| after(CREATE, tries, Call::Get, refusal(Why::NoSuchJob, None));
        let once = Tries { vanished: 1, ..NONE };
        assert_eq!(gone(NONE), Step::Call(Call::Create, once));
        assert_eq!(failure(gone(once)), (Reason::AlreadyExists, Some(1)));
        assert_eq!(failure(after(CREATE, NONE, Call::Create, refusal(Why::NoSuchJob, None))).0, Reason::BadGateway);
    }

    #[test]
    fn no_call_is_repeated_without_counting() {
        use Why::*;
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
        for aim in [CREATE, GENERATED, Aim::Lookup] {
            for (call, why) in all.into_iter().flat_map(|why| [(Call::Create, why), (Call::Get, why)]) {
                if let Step::Call(next, tries) = after(aim, NONE, call, refusal(why, None)) {
                    let is_progress = (call, next) == (Call::Create, Call::Get);
                    assert!(is_progress || tries != NONE, "{call:?} {why:?} leads to {next:?} again");
                }
            }
        }
    }

    #[test]
    fn a_lookup_shows_only_what_is_ours() {
        let found = |is_ours| {
            let job = Job { is_ours, status: json!({"active": 1}), ..Job::default() };
            after(Aim::Lookup, NONE, Call::Get, Outcome::Found(Box::new(job)))
        };
        assert_eq!(next(Aim::Lookup, NONE, None), Step::Call(Call::Get, NONE));
        assert_eq!(found(true), Step::Answer(Ok(Answer::Status(json!({"active": 1})))));
        assert_eq!(failure(found(false)).0, Reason::NotFound);
        assert_eq!(failure(after(Aim::Lookup, NONE, Call::Get, refusal(Why::NoSuchJob, None))).0, Reason::NotFound);
    }

    #[test]
    fn a_dry_run_is_not_a_creation() {
        assert_eq!(next(CREATE, NONE, None), Step::Call(Call::Create, NONE));
        assert_eq!(after(CREATE, NONE, Call::Create, Outcome::Created), Step::Answer(Ok(Answer::Created)));
        assert_eq!(after(DRY_RUN, NONE, Call::Create, Outcome::Created), Step::Answer(Ok(Answer::Valid)));
    }
}
