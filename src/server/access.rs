//! Whether the dispatcher has the access that it needs: asked at start, so that a mistake shows before the first request.

use crate::config::{Config, Enabled};
use crate::kube::{ApiServer, Client, Right};
use log::{info, warn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// For each question: a connection takes 2 s at most.
const TIME: Duration = Duration::from_secs(5);
/// Between two rounds of questions, while readiness waits for access.
const AGAIN: Duration = Duration::from_secs(5);

/// A right that is needed, and what to do without it.
type Need = (Right, &'static str);

/// Once all of it was granted, it is not asked again: a Role that is changed later must not make all replicas unready at once.
#[derive(Debug, Default)]
pub(super) struct Access {
    is_granted: AtomicBool,
}

impl Access {
    pub(super) fn is_granted(&self) -> bool {
        self.is_granted.load(Relaxed)
    }

    /// Asks for all that is needed, and logs what is missing; again until all is granted, if `--require-access` is given.
    pub(super) fn check(&self, config: &Config, server: &Arc<ApiServer>) {
        let (mut client, needs) = (Client::new(server.clone()), needs(config.watch, config.enabled));
        let mut before = Vec::new();
        loop {
            let problems = problems(&mut client, &config.namespace, &needs);
            let is_news = problems != before;
            problems.iter().filter(|_| is_news).for_each(|problem| warn!("{problem}"));
            if problems.is_empty() {
                if !before.is_empty() {
                    info!("the access that was missing is granted")
                }
                return self.is_granted.store(true, Relaxed);
            }
            if !config.require_access {
                return;
            }
            before = problems;
            thread::sleep(AGAIN)
        }
    }
}

/// What is missing, and what to do; empty if nothing is.
fn problems(client: &mut Client, namespace: &str, needs: &[Need]) -> Vec<String> {
    let mut problems = Vec::new();
    for (right, remedy) in needs {
        match client.may(namespace, *right, Instant::now() + TIME) {
            Ok(true) => (),
            Ok(false) => problems.push(format!(
                "the dispatcher may not {right} in namespace {namespace}: {remedy}; if the namespace is right, a Role there has to grant it"
            )),
            // the others would fail likewise
            Err(failure) => return vec![format!("cannot check the dispatcher's access: {failure}")],
        }
    }
    problems
}

/// What is needed for what is switched on.
fn needs(watch: bool, enabled: Enabled) -> Vec<Need> {
    let right = |verb, group, resource, subresource| Right { verb, group, resource, subresource };
    let jobs = |verb| right(verb, "batch", "jobs", "");
    let all = [
        (true, jobs("create"), "no request can create a Job"),
        (true, jobs("get"), "Jobs cannot be read, nor repeated requests answered"),
        (watch, jobs("list"), "requests for Jobs take a call each, unless --watch=false says that it is intended"),
        (watch, jobs("watch"), "requests for Jobs take a call each, unless --watch=false says that it is intended"),
        (enabled.delete, jobs("delete"), "deletions fail; leave delete out of --enable, or grant it"),
        (enabled.pods || enabled.logs, right("list", "", "pods", ""), "neither pods nor logs can be read"),
        (enabled.logs, right("get", "", "pods", "log"), "no log can be read; leave logs out of --enable, or grant it"),
    ];
    all.into_iter().filter(|(is_needed, ..)| *is_needed).map(|(_, right, remedy)| (right, remedy)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switched_on_decides_what_is_needed() {
        let rights = |watch, enabled| {
            needs(watch, enabled).iter().map(|(right, _)| right.to_string()).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(rights(false, Enabled::default()), "create jobs.batch, get jobs.batch");
        let all = "create jobs.batch, get jobs.batch, list jobs.batch, watch jobs.batch, delete jobs.batch, list pods, get pods/log";
        assert_eq!(rights(true, Enabled::ALL), all);
        let pods = Enabled { pods: true, ..Enabled::default() };
        assert_eq!(rights(false, pods), "create jobs.batch, get jobs.batch, list pods");
    }
}
