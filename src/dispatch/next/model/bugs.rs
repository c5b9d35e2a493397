//! Known bugs, put back.

use super::super::*;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bug {
    RandomNameOnRetry,
    TakenIsDone,
    NoNonce,
    QuotaIsBelieved,
    /// A refusal that follows a fault is returned when the Job cannot be looked for.
    RefusalIsBelieved,
}

/// [`next`], with a bug put back.
pub(super) fn decide(
    bug: Option<Bug>,
    intent: Intent<'_>,
    attempts: Attempts,
    call: Call,
    outcome: CallOutcome,
) -> Step {
    let outcome = match (bug, call, outcome) {
        (
            Some(Bug::TakenIsDone),
            Call::Create,
            CallOutcome::Failed(Failure::Refused(Refusal { kind: RefusalKind::NameTaken, .. })),
        ) => {
            return Step::Answer(Ok(Answer::Same(Box::default())));
        }
        (Some(Bug::QuotaIsBelieved), Call::Create, CallOutcome::Failed(Failure::Refused(refusal)))
            if refusal.kind == RefusalKind::Quota =>
        {
            return Step::Answer(Err(status_of(Call::Create, refusal)));
        }
        (Some(Bug::RefusalIsBelieved), Call::Get, CallOutcome::Failed(Failure::NotCalled))
            if attempts.refusal.is_some() =>
        {
            return Step::Answer(Err(*attempts.refusal.expect("there is one")));
        }
        (Some(Bug::NoNonce), _, CallOutcome::Found(job)) => {
            CallOutcome::Found(Job { nonce: Some("".into()), ..*job }.into())
        }
        (_, _, outcome) => outcome,
    };
    match next(intent, attempts, call, outcome) {
        Step::Again { call: Call::Create, attempts, retry_after, otherwise } if bug == Some(Bug::RandomNameOnRetry) => {
            let attempts = Attempts { names: attempts.names + 1, ..attempts };
            Step::Again { call: Call::Create, attempts, retry_after, otherwise }
        }
        step => step,
    }
}
