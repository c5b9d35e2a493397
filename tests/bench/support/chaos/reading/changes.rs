//! What others do with the Jobs: an admin deletes them, creates others under their names, and changes them.

use super::super::super::api::Api;
use super::super::super::kubelet::ends;
use super::super::super::load::Rng;
use super::super::super::namespace::Namespace;
use super::Shared;
use super::history::{History, Time};
use serde_json::{Value, json};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const LABEL: &str = "app.kubernetes.io/managed-by";
/// Jobs that nobody changes.
const STAY: usize = 60;
/// On average, between two changes.
const PAUSE: Duration = Duration::from_millis(400);
/// Until a label comes back.
const UNLABELLED: Duration = Duration::from_millis(300);
/// How many of the newest Jobs are changed.
const NEWEST: usize = 60;

pub(super) struct Changes {
    shared: Arc<Shared>,
    admin: Api,
    jobs: String,
    seed: u64,
    /// Held while etcd is restored.
    pub(super) gate: Mutex<()>,
    /// Names, versions, and when we learned of them.
    pub(super) answered: Mutex<Vec<(String, u64, Time)>>,
}

impl Changes {
    pub(super) fn new(shared: &Arc<Shared>, namespace: &Namespace, seed: u64) -> Self {
        Changes {
            shared: shared.clone(),
            admin: namespace.admin().clone(),
            jobs: namespace.jobs(),
            seed: seed ^ 0xc4a9,
            gate: Mutex::new(()),
            answered: Mutex::default(),
        }
    }

    pub(super) fn make_those_that_stay(&self) {
        for number in 0..STAY {
            let name = format!("kept-{number}");
            self.admin.create(&self.jobs, job(&name, json!({}), true));
            self.shared.names.lock().unwrap().push(name)
        }
    }

    /// Until it is over.
    pub(super) fn go_on(&self) {
        let mut rng = Rng::new(self.seed);
        while !self.shared.is_over.load(Relaxed) {
            thread::sleep(Duration::from_millis(rng.below(2 * PAUSE.as_millis() as usize) as u64));
            let name = {
                let names = self.shared.names.lock().unwrap();
                let others = &names[STAY..];
                if others.is_empty() {
                    continue;
                }
                others[others.len() - 1 - rng.below(others.len().min(NEWEST))].clone()
            };
            let _open = self.gate.lock().unwrap();
            self.change(&name, &mut rng);
        }
    }

    fn change(&self, name: &str, rng: &mut Rng) {
        let done = match rng.below(8) {
            0 => self.delete(name, "Background"),
            1 => self.delete(name, "Foreground"),
            2 | 3 => self.make_again(name, rng),
            4 => self.patch(name, json!({"metadata": {"labels": {LABEL: null}}})).then_some("a label was removed"),
            5 => {
                let removed = self.patch(name, json!({"metadata": {"labels": {LABEL: null}}}));
                thread::sleep(UNLABELLED);
                let label = json!({"metadata": {"labels": {LABEL: "k8s-job-dispatcher"}}});
                (self.patch(name, label) && removed).then_some("a label was removed, and came back")
            }
            6 => self.patch(name, json!({"spec": {"suspend": true}})).then_some("a Job was suspended"),
            _ => self.patch(name, json!({"spec": {"suspend": false}})).then_some("a Job was resumed"),
        };
        if let Some(done) = done {
            self.shared.count(done)
        }
    }

    fn delete(&self, name: &str, policy: &str) -> Option<&'static str> {
        let answer = self.admin.try_call("DELETE", &self.path(name), Some(&json!({"propagationPolicy": policy})));
        answer.filter(|(code, _)| *code == 200).map(|_| "a Job was deleted")
    }

    /// Another Job under its name.
    fn make_again(&self, name: &str, rng: &mut Rng) -> Option<&'static str> {
        self.delete(name, "Background")?;
        let annotations = ends(Duration::from_millis(2_000 + rng.below(8_000) as u64), 0, "the end");
        let (code, made) = self.admin.try_call("POST", &self.jobs, Some(&job(name, annotations, rng.below(2) == 0)))?;
        self.note(code, &made).then_some("a Job was made again")
    }

    fn patch(&self, name: &str, patch: Value) -> bool {
        let answer = self.admin.try_call("PATCH", &self.path(name), Some(&patch));
        answer.is_some_and(|(code, job)| self.note(code, &job))
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.jobs)
    }

    /// Whether it worked.
    fn note(&self, code: u16, job: &Value) -> bool {
        let text = |field: &str| job["metadata"][field].as_str().unwrap_or_default();
        let version = text("resourceVersion").parse().unwrap_or(0);
        self.answered.lock().unwrap().push((text("name").to_owned(), version, self.shared.clock.now()));
        matches!(code, 200 | 201)
    }

    /// Counts the Jobs that were gone after they had ended.
    pub(super) fn note_expired(&self, history: &History) {
        for name in history.names() {
            let pairs = history.entries(name).windows(2);
            let is_end = |job: &super::history::Job| job.has_ended() && job.is_deleted;
            let expired = pairs.filter(|pair| pair[0].job.as_ref().is_some_and(is_end) && pair[1].job.is_none());
            expired.for_each(|_| self.shared.count("a Job with a TTL was gone"))
        }
    }
}

/// A Job as the dispatcher would have created it, except its annotations.
fn job(name: &str, annotations: Value, is_suspended: bool) -> Value {
    json!({
        "metadata": {"name": name, "labels": {LABEL: "k8s-job-dispatcher"}},
        "spec": {"suspend": is_suspended, "backoffLimit": 0, "template": {
            "metadata": {"annotations": annotations},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "job", "image": "busybox"}]},
        }},
    })
}
