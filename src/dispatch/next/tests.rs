use super::*;

const CREATE: Intent<'_> =
    Intent::Create { fingerprint: "f", nonce: "n", delivery: None, naming: Naming::Given, is_dry_run: false };
const GENERATED: Intent<'_> =
    Intent::Create { fingerprint: "f", nonce: "n", delivery: None, naming: Naming::Random, is_dry_run: false };
const KEYED: Intent<'_> =
    Intent::Create { fingerprint: "f", nonce: "n", delivery: None, naming: Naming::Keyed, is_dry_run: false };
const DRY_RUN: Intent<'_> =
    Intent::Create { fingerprint: "f", nonce: "n", delivery: None, naming: Naming::Given, is_dry_run: true };
const NONE: Attempts =
    Attempts { retries: 0, names: 0, vanished: 0, may_be_done: false, refusal: None, found: None, which: None };

fn success(step: Step) -> &'static str {
    match step {
        Step::Answer(Ok(Answer::Created(_))) => "created",
        Step::Answer(Ok(Answer::Same(_))) => "same",
        Step::Answer(Ok(Answer::Valid(_))) => "valid",
        Step::Answer(Ok(Answer::Found(_))) => "found",
        Step::Answer(Ok(Answer::Deleting(_))) => "deleting",
        other => panic!("{other:?}"),
    }
}

fn job(is_ours: bool, fingerprint: &str, nonce: &str) -> Job {
    Job { is_ours, fingerprint: Some(fingerprint.into()), nonce: Some(nonce.into()), ..Job::default() }
}

fn after(intent: Intent<'_>, attempts: Attempts, call: Call, outcome: CallOutcome) -> Step {
    next(intent, attempts, call, outcome)
}

/// Code, reason and Retry-After of the answer.
fn failure(step: Step) -> (Reason, Option<u32>) {
    match step {
        Step::Answer(Err(status)) => (status.reason, status.retry_after),
        other => panic!("{other:?}"),
    }
}

fn refusal(kind: RefusalKind, retry_after: Option<u32>) -> CallOutcome {
    CallOutcome::Failed(Failure::Refused(Refusal { kind, causes: Vec::new(), retry_after, said: "said".into() }))
}

#[test]
fn a_taken_name_is_read() {
    let found = |intent, attempts, job: Job| after(intent, attempts, Call::Get, CallOutcome::Found(Box::new(job)));
    assert_eq!(after(CREATE, NONE, Call::Create, refusal(RefusalKind::NameTaken, None)), Step::Call(Call::Get, NONE));
    assert_eq!(success(found(CREATE, NONE, job(true, "f", "n"))), "created");
    assert_eq!(success(found(CREATE, NONE, job(true, "f", "other"))), "same");
    assert_eq!(success(found(DRY_RUN, NONE, job(true, "f", "other"))), "valid");
    assert_eq!(failure(found(CREATE, NONE, job(true, "other", "other"))), (Reason::AlreadyExists, None));
    assert_eq!(success(found(CREATE, NONE, job(false, "f", "n"))), "created", "a webhook has removed our label");
    assert_eq!(success(found(CREATE, NONE, job(false, "f", "other"))), "same");
    let stranger = Job { fingerprint: None, nonce: None, ..job(false, "", "") };
    assert_eq!(failure(found(CREATE, NONE, stranger.clone())), (Reason::AlreadyExists, None));
    let deleted = Job { is_being_deleted: true, ..job(true, "f", "other") };
    assert_eq!(failure(found(CREATE, NONE, deleted.clone())), (Reason::AlreadyExists, Some(1)));

    assert_eq!(success(found(KEYED, NONE, job(true, "f", "other"))), "same");
    assert_eq!(failure(found(KEYED, NONE, job(true, "other", "other"))), (Reason::IdempotencyKeyReused, None));
    assert_eq!(failure(found(KEYED, NONE, job(false, "other", "other"))), (Reason::IdempotencyKeyReused, None));
    assert_eq!(failure(found(KEYED, NONE, stranger)), (Reason::AlreadyExists, None));
    let delivered =
        Intent::Create { fingerprint: "g", nonce: "n", delivery: Some("d"), naming: Naming::Keyed, is_dry_run: false };
    let of_delivery = |delivery: &str| Job { delivery: Some(delivery.into()), ..job(true, "f", "other") };
    assert_eq!(success(found(delivered, NONE, of_delivery("d"))), "same", "the id decides, whatever the body");
    assert_eq!(failure(found(delivered, NONE, of_delivery("e"))), (Reason::IdempotencyKeyReused, None));
    assert_eq!(
        failure(found(KEYED, NONE, Job { fingerprint: Some("g".into()), ..of_delivery("d") })).0,
        Reason::IdempotencyKeyReused
    );
    assert_eq!(failure(found(KEYED, NONE, deleted)), (Reason::AlreadyExists, Some(1)));
}

#[test]
fn a_taken_random_name_is_replaced_up_to_three_times() {
    let found = |attempts| after(GENERATED, attempts, Call::Get, CallOutcome::Found(Box::new(job(true, "f", "other"))));
    for names in 0..3 {
        let renamed = Attempts { names: names + 1, ..NONE };
        assert_eq!(found(Attempts { names, ..NONE }), Step::Call(Call::Create, renamed));
    }
    assert_eq!(failure(found(Attempts { names: 3, ..NONE })), (Reason::AlreadyExists, None));
    let ours = after(GENERATED, NONE, Call::Get, CallOutcome::Found(Box::new(job(true, "f", "n"))));
    assert_eq!(success(ours), "created");
}

#[test]
fn a_random_name_that_is_taken_after_a_fault_of_our_own_is_ours() {
    let found = |intent, may_be_done, nonce: Option<&str>| {
        let job = Job { nonce: nonce.map(Into::into), is_ours: false, ..job(false, "f", "") };
        after(intent, Attempts { may_be_done, ..NONE }, Call::Get, CallOutcome::Found(Box::new(job)))
    };
    assert_eq!(success(found(GENERATED, true, None)), "created", "a webhook has removed the nonce");
    let another = Step::Call(Call::Create, Attempts { names: 1, ..NONE });
    assert_eq!(found(GENERATED, false, None), another, "nothing of ours can have created it");
    assert_eq!(found(GENERATED, true, Some("other")), another, "the new name has had no fault");
    let gone = |intent, may_be_done| {
        after(intent, Attempts { may_be_done, ..NONE }, Call::Get, refusal(RefusalKind::NoSuchJob, None))
    };
    assert!(matches!(gone(GENERATED, true), Step::Answer(Ok(Answer::Gone))), "it was created, and is gone");
    assert!(matches!(gone(GENERATED, false), Step::Call(Call::Create, _)));
    assert!(matches!(gone(KEYED, true), Step::Call(Call::Create, _)), "another request may have held the name");
}

/// The row of the retry table for each outcome that may differ the next time: what it leads to when there are no more retries, and whether
/// the POST may have created the Job.
#[test]
fn transient_failures_are_retried_four_times() {
    for (outcome, reason, retry_after, may_create) in [
        (CallOutcome::Failed(Failure::Unreachable("x".into())), Reason::BadGateway, None, false),
        (CallOutcome::Failed(Failure::Disconnected("x".into())), Reason::BadGateway, None, true),
        (refusal(RefusalKind::Fault, None), Reason::ServiceUnavailable, Some(1), true),
        (refusal(RefusalKind::Slow, None), Reason::Timeout, None, true),
        (refusal(RefusalKind::Conflict, Some(9)), Reason::ServiceUnavailable, Some(9), false),
        (refusal(RefusalKind::Busy, None), Reason::ServiceUnavailable, Some(1), false),
        (refusal(RefusalKind::WebhookUnreachable, None), Reason::ServiceUnavailable, Some(1), false),
    ] {
        for (intent, call) in [(CREATE, Call::Create), (CREATE, Call::Get), (Intent::Lookup, Call::Get)] {
            let may_be_done = may_create && call == Call::Create;
            let mut now = NONE;
            for retries in 1..=4 {
                let Step::Again { call: next, attempts, retry_after, otherwise } =
                    after(intent, now, call, outcome.clone())
                else {
                    panic!("{outcome:?} is not retried {retries} times")
                };
                let asked = if let CallOutcome::Failed(Failure::Refused(refusal)) = &outcome {
                    refusal.retry_after
                } else {
                    None
                };
                assert_eq!((next, retry_after), (call, asked));
                assert_eq!(attempts, Attempts { retries, may_be_done, ..NONE });
                assert_eq!(is_read_first(&otherwise), may_be_done, "{outcome:?}");
                now = attempts
            }
            let mut last = after(intent, now, call, outcome.clone());
            assert_eq!(is_read_first(&last), may_be_done, "{outcome:?}");
            if let Step::Call(_, attempts) = last {
                last = after(intent, attempts, Call::Get, refusal(RefusalKind::NoSuchJob, None))
            }
            assert_eq!(failure(last), (reason, retry_after));
        }
    }
}

fn is_read_first(step: &Step) -> bool {
    matches!(step, Step::Call(Call::Get, Attempts { refusal: Some(_), .. }))
}

#[test]
fn a_refusal_is_returned_only_after_looking_for_the_job() {
    let denied = Attempts { refusal: Some(Status::new(Reason::Forbidden, "x").into()), may_be_done: true, ..NONE };
    for (attempts, call) in [(NONE, Call::Create), (denied, Call::Get)] {
        let step = after(CREATE, attempts, call, CallOutcome::Failed(Failure::NotCalled));
        assert_eq!(failure(step), (Reason::ServiceUnavailable, Some(1)));
    }
}

#[test]
fn after_a_quotas_refusal_the_job_is_read() {
    let step = after(CREATE, NONE, Call::Create, refusal(RefusalKind::Quota, None));
    let Step::Call(Call::Get, attempts) = step else { panic!("{step:?}") };
    let got = |outcome| after(CREATE, attempts.clone(), Call::Get, outcome);
    assert_eq!(failure(got(refusal(RefusalKind::NoSuchJob, None))), (Reason::QuotaExceeded, Some(10)));
    let found = |job| got(CallOutcome::Found(Box::new(job)));
    assert_eq!(success(found(job(true, "f", "other"))), "same");
    assert_eq!(success(found(job(true, "f", "n"))), "created");
    assert_eq!(failure(found(job(true, "other", "other"))), (Reason::AlreadyExists, None));
    let deleted = Job { is_being_deleted: true, ..job(true, "f", "other") };
    assert_eq!(failure(found(deleted)), (Reason::AlreadyExists, Some(1)));

    let generated =
        after(GENERATED, attempts.clone(), Call::Get, CallOutcome::Found(Box::new(job(true, "f", "other"))));
    assert_eq!(failure(generated), (Reason::QuotaExceeded, Some(10)), "a new name would be refused too");
}

#[test]
fn after_a_refusal_that_follows_a_fault_the_job_is_read() {
    let faulty = Attempts { retries: 4, may_be_done: true, ..NONE };
    for (kind, reason) in [
        (RefusalKind::Invalid, Reason::Invalid),
        (RefusalKind::Policy, Reason::Forbidden),
        (RefusalKind::Busy, Reason::ServiceUnavailable),
        (RefusalKind::NamespaceTerminating, Reason::ServiceUnavailable),
        (RefusalKind::NotAllowed, Reason::BadGateway),
    ] {
        let step = after(CREATE, faulty.clone(), Call::Create, refusal(kind, None));
        let Step::Call(Call::Get, attempts) = step else { panic!("{kind:?} gave {step:?}") };
        let created = CallOutcome::Found(Box::new(job(true, "f", "n")));
        assert_eq!(success(after(CREATE, attempts.clone(), Call::Get, created)), "created");
        let gone = after(CREATE, attempts, Call::Get, refusal(RefusalKind::NoSuchJob, None));
        assert_eq!(failure(gone).0, reason, "{kind:?}");
    }
}

#[test]
fn after_an_invalid_response_the_job_is_read() {
    let unreadable = || CallOutcome::Failed(Failure::InvalidResponse("too many headers".into()));
    let step = after(CREATE, NONE, Call::Create, unreadable());
    let Step::Call(Call::Get, attempts) = step else { panic!("{step:?}") };
    let created = CallOutcome::Found(Box::new(job(true, "f", "n")));
    assert_eq!(success(after(CREATE, attempts.clone(), Call::Get, created)), "created");
    let gone = after(CREATE, attempts, Call::Get, refusal(RefusalKind::NoSuchJob, None));
    assert_eq!(failure(gone), (Reason::BadGateway, None));
    assert_eq!(failure(after(Intent::Lookup, NONE, Call::Get, unreadable())), (Reason::BadGateway, None));
}

#[test]
fn a_get_cannot_be_invalid_or_over_quota() {
    use RefusalKind::*;
    for kind in [Invalid, TooLarge, Policy, Quota, WebhookFault, NameTaken] {
        for intent in [Intent::Lookup, CREATE] {
            let step = after(intent, NONE, Call::Get, refusal(kind, None));
            assert_eq!(failure(step), (Reason::BadGateway, None), "{kind:?}");
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
        (RefusalKind::WebhookFault, Reason::ServiceUnavailable, Some(1)),
        (RefusalKind::NamespaceTerminating, Reason::ServiceUnavailable, Some(1)),
        (RefusalKind::NotAllowed, Reason::BadGateway, None),
        (RefusalKind::NotAuthenticated, Reason::BadGateway, None),
        (RefusalKind::Unexpected, Reason::BadGateway, None),
    ] {
        assert_eq!(failure(after(CREATE, NONE, Call::Create, refusal(why, None))), (reason, retry_after), "{why:?}");
    }
    assert_eq!(
        failure(after(CREATE, NONE, Call::Create, CallOutcome::Failed(Failure::TimedOut("x".into())))).0,
        Reason::Timeout
    );
}

#[test]
fn a_vanished_job_is_created_again_once() {
    let gone = |attempts| after(CREATE, attempts, Call::Get, refusal(RefusalKind::NoSuchJob, None));
    let once = Attempts { vanished: 1, ..NONE };
    assert_eq!(gone(NONE), Step::Call(Call::Create, once.clone()));
    assert_eq!(failure(gone(once)), (Reason::AlreadyExists, Some(1)));
    assert_eq!(failure(after(CREATE, NONE, Call::Create, refusal(RefusalKind::NoSuchJob, None))).0, Reason::BadGateway);
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
        WebhookFault,
        WebhookUnreachable,
    ];
    for intent in [CREATE, GENERATED, Intent::Lookup] {
        for (call, why) in all.into_iter().flat_map(|why| [(Call::Create, why), (Call::Get, why)]) {
            let mut steps = vec![after(intent, NONE, call, refusal(why, None))];
            while let Some(step) = steps.pop() {
                let (next, attempts) = match step {
                    Step::Call(next, attempts) => (next, attempts),
                    Step::ReadLong(attempts) => (Call::Get, attempts),
                    Step::Again { call, attempts, otherwise, .. } => {
                        steps.push(*otherwise);
                        (call, attempts)
                    }
                    Step::Answer(_) => continue,
                };
                let is_progress = (call, next) == (Call::Create, Call::Get);
                assert!(is_progress || attempts != NONE, "{call:?} {why:?} leads to {next:?} again");
            }
        }
    }
}

#[test]
fn a_lookup_shows_only_our_jobs() {
    let found = |is_ours| {
        let job = Job { is_ours, ..Job::default() };
        after(Intent::Lookup, NONE, Call::Get, CallOutcome::Found(Box::new(job)))
    };
    assert_eq!(success(found(true)), "found");
    assert_eq!(failure(found(false)).0, Reason::NotFound);
    assert_eq!(
        failure(after(Intent::Lookup, NONE, Call::Get, refusal(RefusalKind::NoSuchJob, None))).0,
        Reason::NotFound
    );
}

#[test]
fn only_our_jobs_are_deleted_and_only_the_one_that_was_found() {
    let found = |job: Job| after(Intent::Delete, NONE, Call::Get, CallOutcome::Found(Box::new(job)));
    assert_eq!(failure(found(job(false, "f", "n"))).0, Reason::NotFound);
    let step = found(job(true, "f", "n"));
    let Step::Call(Call::Delete, attempts) = step else { panic!("{step:?}") };
    let deleted = |outcome| after(Intent::Delete, attempts.clone(), Call::Delete, outcome);
    assert_eq!(success(deleted(CallOutcome::Deleted)), "deleting");
    // AnotherUid: another has its name now
    for gone in [RefusalKind::NoSuchJob, RefusalKind::AnotherUid] {
        assert_eq!(failure(deleted(refusal(gone, None))).0, Reason::NotFound);
        let Step::Again { attempts, .. } = deleted(CallOutcome::Failed(Failure::Disconnected("x".into()))) else {
            panic!("it is not retried")
        };
        let again = after(Intent::Delete, attempts, Call::Delete, refusal(gone, None));
        assert_eq!(success(again), "deleting", "by the try before");
    }
    assert_eq!(failure(deleted(refusal(RefusalKind::Policy, None))).0, Reason::Forbidden);
    assert_eq!(failure(deleted(refusal(RefusalKind::WebhookFault, None))).0, Reason::ServiceUnavailable);
    for again in [RefusalKind::Busy, RefusalKind::Conflict, RefusalKind::NameTaken] {
        let Step::Again { call: Call::Delete, otherwise, .. } = deleted(refusal(again, None)) else {
            panic!("{again:?}")
        };
        assert_eq!(failure(*otherwise), (Reason::ServiceUnavailable, Some(1)), "{again:?}");
    }
    assert_eq!(failure(deleted(refusal(RefusalKind::NotAllowed, None))).0, Reason::BadGateway);
    let again = Job { is_being_deleted: true, ..job(true, "f", "n") };
    assert_eq!(success(found(again)), "deleting");
    let gone = after(Intent::Delete, NONE, Call::Get, refusal(RefusalKind::NoSuchJob, None));
    assert_eq!(failure(gone).0, Reason::NotFound);
}

#[test]
fn a_dry_run_is_not_a_creation() {
    assert_eq!(success(after(CREATE, NONE, Call::Create, CallOutcome::Created(Box::default()))), "created");
    assert_eq!(success(after(DRY_RUN, NONE, Call::Create, CallOutcome::Created(Box::default()))), "valid");
}

#[test]
fn a_long_job_is_read_when_there_is_memory_for_it() {
    for (intent, call, may_be_done) in
        [(Intent::Lookup, Call::Get, false), (CREATE, Call::Get, false), (CREATE, Call::Create, true)]
    {
        let want = Step::ReadLong(Attempts { may_be_done, ..NONE });
        assert_eq!(after(intent, NONE, call, CallOutcome::Failed(Failure::TooLong)), want, "{call:?}");
    }
}
