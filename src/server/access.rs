//! Whether the dispatcher has the access that it needs: asked at start, so that a mistake shows before the first request.

use crate::config::{Config, Enabled};
use crate::kube::{ApiServer, Client, Right};
use log::{info, warn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// For each question: a connection takes 2 s at most.
const TIME: Duration = Duration::from_secs(5);
/// Between two rounds of questions, while readiness waits for access.
const AGAIN: Duration = Duration::from_secs(5);
/// Rounds after which a problem that stays is logged again: a minute.
const REPEAT: u32 = 12;

/// Without the rights of `--auth token-review`.
const REVIEWS: &str = "no caller with a token of Kubernetes can be checked; bind the ClusterRole system:auth-delegator";

/// A right that is needed, and what does not work without it.
type Need = (Right, &'static str);

/// Once all of it was granted, it is not asked again: a Role that is changed later must not make all replicas unready at once.
#[derive(Debug, Default)]
pub(super) struct Access(Mutex<State>);

/// What is known of it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum State {
    #[default]
    NotAsked,
    /// The API server does not answer.
    Unknown,
    Denied,
    Granted,
}

impl Access {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it is not known to be granted; None if it is.
    pub(super) fn lack(&self) -> Option<&'static str> {
        match *self.state() {
            State::NotAsked => Some("the dispatcher's access is being checked"),
            State::Unknown => Some("the dispatcher's access cannot be checked; its log says why"),
            State::Denied => Some("the dispatcher lacks rights in the API server; its log names them"),
            State::Granted => None,
        }
    }

    /// Asks for all that is needed, and logs what is missing; again until all is granted, if `--require-access` is given.
    pub(super) fn check(&self, config: &Config, server: &Arc<ApiServer>) {
        let needs = needs(config.watch, config.enabled, config.auth.asks());
        let (mut before, mut rounds) = (Vec::new(), 0);
        loop {
            // ureq's resolver panics when the system has no more threads
            let round = || ask(&mut Client::new(server.clone()), &config.namespace, &needs);
            let (state, problems) = catch_unwind(AssertUnwindSafe(round))
                .unwrap_or_else(|_panic| (State::Unknown, vec!["cannot check the dispatcher's access".to_owned()]));
            *self.state() = state;
            if problems != before || rounds % REPEAT == 0 {
                problems.iter().for_each(|problem| warn!("{problem}"))
            }
            if state == State::Granted {
                if rounds > 0 {
                    info!("the access that was missing is granted")
                }
                return;
            }
            if !config.require_access {
                return;
            }
            (before, rounds) = (problems, rounds + 1);
            thread::sleep(AGAIN)
        }
    }
}

/// What is missing, and what to do.
fn ask(client: &mut Client, namespace: &str, needs: &[Need]) -> (State, Vec<String>) {
    let mut problems = Vec::new();
    for (right, without) in needs {
        match client.may(namespace, *right, Instant::now() + TIME) {
            Ok(true) => (),
            Ok(false) if right.is_of_cluster() => problems.push(format!("the dispatcher may not {right}: {without}")),
            Ok(false) => problems.push(format!(
                "the dispatcher may not {right} in namespace {namespace}: {without}. If that is the right namespace, grant it in a Role \
                 there (docs/security.md)"
            )),
            // the others would fail likewise
            Err(failure) => {
                problems.push(format!("cannot check the dispatcher's access: {failure}"));
                return (State::Unknown, problems);
            }
        }
    }
    (if problems.is_empty() { State::Granted } else { State::Denied }, problems)
}

/// What is needed for what is switched on.
fn needs(watch: bool, enabled: Enabled, asks_who_calls: bool) -> Vec<Need> {
    let right = |verb, group, resource, subresource| Right { verb, group, resource, subresource };
    let jobs = |verb| right(verb, "batch", "jobs", "");
    let watches = match enabled.list {
        true => {
            "Jobs cannot be listed, and each request for a Job takes a call; leave list out of --enable and set --watch=false to do without"
        }
        false => "each request for a Job takes a call; set --watch=false to do without",
    };
    let pods = match enabled.pods {
        true => "neither pods nor logs can be read; leave pods and logs out of --enable to do without",
        false => "no log can be read; leave logs out of --enable to do without",
    };
    let logs = right("get", "", "pods", "log");
    let all = [
        (true, jobs("create"), "no request can create a Job"),
        (true, jobs("get"), "neither Jobs nor repeated requests can be answered"),
        (watch, jobs("list"), watches),
        (watch, jobs("watch"), watches),
        (enabled.delete, jobs("delete"), "no Job can be deleted; leave delete out of --enable to do without"),
        (enabled.pods || enabled.logs, right("list", "", "pods", ""), pods),
        (enabled.logs, logs, "no log can be read; leave logs out of --enable to do without"),
        (asks_who_calls, right("create", "authentication.k8s.io", "tokenreviews", ""), REVIEWS),
        (asks_who_calls, right("create", "authorization.k8s.io", "subjectaccessreviews", ""), REVIEWS),
    ];
    all.into_iter().filter(|(is_needed, ..)| *is_needed).map(|(_, right, without)| (right, without)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switched_on_decides_what_is_needed() {
        let rights = |watch, enabled| {
            needs(watch, enabled, false).iter().map(|(right, _)| right.to_string()).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(rights(false, Enabled::default()), "create jobs.batch, get jobs.batch");
        let all = "create jobs.batch, get jobs.batch, list jobs.batch, watch jobs.batch, delete jobs.batch, list pods, get pods/log";
        assert_eq!(rights(true, Enabled::ALL), all);
        let pods = Enabled { pods: true, ..Enabled::default() };
        assert_eq!(rights(false, pods), "create jobs.batch, get jobs.batch, list pods");
    }
}
