//! Asks the API server who has a token, and whether that caller may.

use super::serve::{Server, purpose};
use crate::auth::{Auth, Known, Question, Verdict};
use crate::http::Request;
use crate::kube::{Client, Failure, RefusalKind};
use crate::logger::about;
use crate::route::Route;
use crate::status::{Reason, Status, internal_error};
use std::time::Instant;

impl Server {
    /// Decides who calls. `id`: of the request, for the log.
    pub(super) fn review(
        &self,
        id: &str,
        route: &Result<Route, Status>,
        request: &Request,
        client: &mut Option<Client>,
        until: Instant,
    ) -> Verdict {
        let _about = about(id);
        let (auth, purpose) = (&self.config.auth, purpose(route));
        if Instant::now() >= until {
            return auth.cannot_tell(Status::new(Reason::Overloaded, "too many requests were queued before this one"));
        }
        match auth.question(purpose, request) {
            None => auth.check(purpose, request),
            Some(question) => {
                let answer = self.guarded(client, |client| match client {
                    None => Answer::Failed(internal_error()), // it is not switched on without an API server
                    Some(client) => ask(auth, &self.config.namespace, question, client, until),
                });
                match answer {
                    Answer::Failed(status) => auth.cannot_tell(status),
                    Answer::Nobody(why) => auth.conclude(purpose, None, false, &why),
                    Answer::Owner(known, may) => auth.conclude(purpose, Some(&known), may, ""),
                }
            }
        }
    }
}

/// What the API server says.
enum Answer {
    Failed(Status),
    /// The token is nobody's, and why.
    Nobody(String),
    /// Who has it, and whether that may.
    Owner(Known, bool),
}

impl From<Status> for Answer {
    fn from(status: Status) -> Self {
        Answer::Failed(status)
    }
}

fn ask(auth: &Auth, namespace: &str, question: Question, client: &mut Client, until: Instant) -> Answer {
    let Question { token, known, wanted } = question;
    let known = match known {
        Some(known) => known,
        None => match client.owner(&token, auth.audiences(), until) {
            Err(failure) => return Answer::Failed(failed(&failure)),
            Ok(Err(why)) => {
                auth.learn_nobody(&token);
                return Answer::Nobody(why);
            }
            Ok(Ok(user)) => auth.learn_owner(&token, user),
        },
    };
    let Some(wanted) = wanted else { return Answer::Owner(known, true) };
    match client.user_may(&known.user, namespace, wanted.verb, wanted.subresource, until) {
        Err(failure) => Answer::Failed(failed(&failure)),
        Ok(may) => {
            auth.learn_right(&token, wanted, may);
            Answer::Owner(known, may)
        }
    }
}

/// Not the caller's fault, and not known to be good: 502 if the dispatcher may not ask, else 503.
fn failed(failure: &Failure) -> Status {
    match failure {
        Failure::Refused(refusal) if matches!(refusal.kind, RefusalKind::NotAllowed | RefusalKind::NotAuthenticated) => {
            Status::new(Reason::BadGateway, "the dispatcher is not permitted to check callers; its log says more").with_note(
                format!(
                    "callers cannot be checked; bind the ClusterRole system:auth-delegator to the dispatcher's service account \
                     (docs/security.md): {failure}"
                ),
            )
        }
        _ => Status::new(Reason::ServiceUnavailable, "callers cannot be checked at the moment")
            .with_retry_after(1)
            .with_note(format!("callers cannot be checked: {failure}")),
    }
}
