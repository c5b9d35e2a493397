//! A Job as the API server gives it: the parts that we need, and what they say of its state. Pure.

use super::bound::{USUAL_ANSWER, keep};
use super::metadata::{LABEL, Metadata};
use super::scalar::Scalar;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};
use serde_json::value::RawValue;
use std::time::Duration;

/// What has become of a Job.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(crate) enum JobState {
    /// It has no pod yet, as under a quota.
    #[default]
    Waiting,
    /// `spec.suspend`, as Kueue sets it.
    Suspended,
    /// It has pods, and none is ready.
    Starting,
    Running,
    Succeeded,
    Failed,
    Deleting,
}

impl JobState {
    pub(crate) const ALL: [JobState; 7] = [
        JobState::Waiting,
        JobState::Suspended,
        JobState::Starting,
        JobState::Running,
        JobState::Succeeded,
        JobState::Failed,
        JobState::Deleting,
    ];

    /// Its name in answers and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            JobState::Waiting => "waiting",
            JobState::Suspended => "suspended",
            JobState::Starting => "starting",
            JobState::Running => "running",
            JobState::Succeeded => "succeeded",
            JobState::Failed => "failed",
            JobState::Deleting => "deleting",
        }
    }

    /// Whether it never changes again.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, JobState::Succeeded | JobState::Failed)
    }
}

/// A Job's state, and what decided it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Situation {
    pub(crate) state: JobState,
    /// Of the condition that decided.
    pub(crate) reason: Option<Box<str>>,
    pub(crate) message: Option<Box<str>>,
    /// When it ended, as RFC 3339.
    pub(crate) finished: Option<Box<str>>,
}

/// The parts of a Job that we need.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub(crate) name: Box<str>,
    pub(crate) uid: Box<str>,
    pub(crate) labels: Box<[(Box<str>, Box<str>)]>,
    /// `metadata.resourceVersion`: a later one is larger (KEP-5504).
    pub(crate) version: u64,
    pub(crate) is_ours: bool,
    pub(crate) fingerprint: Option<Box<str>>,
    pub(crate) nonce: Option<Box<str>>,
    /// Of the delivery that it was created for, if it has an id.
    pub(crate) delivery: Option<Box<str>>,
    pub(crate) is_being_deleted: bool,
    pub(crate) situation: Situation,
    /// Times as RFC 3339.
    pub(crate) created: Option<Box<str>>,
    pub(crate) started: Option<Box<str>>,
    /// As the API gives it, as JSON text.
    pub(crate) status: Box<RawValue>,
}

impl Default for Job {
    fn default() -> Self {
        Job {
            name: Box::default(),
            uid: Box::default(),
            labels: Box::default(),
            version: 0,
            is_ours: false,
            fingerprint: None,
            nonce: None,
            delivery: None,
            is_being_deleted: false,
            situation: Situation::default(),
            created: None,
            started: None,
            status: no_status(),
        }
    }
}

impl PartialEq for Job {
    fn eq(&self, other: &Self) -> bool {
        let marks = |job: &Job| {
            (
                job.name.clone(),
                job.version,
                job.uid.clone(),
                job.is_ours,
                job.is_being_deleted,
                job.fingerprint.clone(),
                job.nonce.clone(),
                job.delivery.clone(),
            )
        };
        let seen = |job: &Job| (job.situation.clone(), job.created.clone(), job.started.clone());
        marks(self) == marks(other) && seen(self) == seen(other) && self.status.get() == other.status.get()
    }
}

impl Job {
    pub(crate) fn label(&self, wanted: &str) -> Option<&str> {
        self.labels.iter().find(|(key, _)| **key == *wanted).map(|(_, value)| &value[..])
    }

    /// Bytes that it holds beside itself.
    pub(crate) fn text_bytes(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        let texts = [&self.fingerprint, &self.nonce, &self.delivery, &self.created, &self.started];
        let situation = [&self.situation.reason, &self.situation.message, &self.situation.finished];
        let strings: usize = texts.into_iter().chain(situation).map(text).sum();
        let labels: usize = self.labels.iter().map(|(key, value)| LABEL + key.len() + value.len()).sum();
        labels + self.name.len() + self.uid.len() + self.status.get().len() + strings
    }

    /// From its start to its end; None if it has not both, or they make no sense.
    pub(crate) fn duration(&self) -> Option<Duration> {
        let time = |text: &Option<Box<str>>| text.as_ref()?.parse::<Timestamp>().ok();
        time(&self.situation.finished)?.duration_since(time(&self.started)?).try_into().ok()
    }

    /// Bytes of an answer with it, without those that every answer has.
    pub(crate) fn answer_bytes(&self) -> usize {
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        self.status.get().len() + text(&self.situation.reason) + text(&self.situation.message)
    }

    /// Whether an answer with it is longer than a usual one, for which every call has room.
    pub(crate) fn is_long(&self) -> bool {
        self.answer_bytes() > USUAL_ANSWER
    }

    /// As it is from its deletion on, unless it had ended before.
    pub(crate) fn being_deleted(self) -> Self {
        match self.situation.state.is_final() {
            true => self,
            false => {
                let situation = Situation { state: JobState::Deleting, ..Situation::default() };
                Job { is_being_deleted: true, situation, ..self }
            }
        }
    }
}

fn no_status() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).expect("it is JSON")
}

/// A Job in JSON, or the beginning of another object.
#[derive(Deserialize)]
pub(super) struct JobObject {
    /// Items of a list have none.
    #[serde(default)]
    pub(super) kind: Scalar,
    #[serde(default)]
    pub(super) metadata: Metadata,
    /// Of a Status.
    #[serde(default)]
    pub(super) code: Scalar,
    #[serde(default)]
    spec: Option<Spec>,
    #[serde(default, deserialize_with = "kept")]
    status: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    suspend: Scalar,
}

/// Kubernetes' JobStatus, as far as it decides the state (kubernetes/api/batch/v1/types.go).
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct JobStatus {
    conditions: Option<Vec<Condition>>,
    start_time: Option<Box<str>>,
    completion_time: Option<Box<str>>,
    active: Option<i64>,
    /// Missing from servers older than 1.24.
    ready: Option<i64>,
    terminating: Option<i64>,
    succeeded: Option<i64>,
    failed: Option<i64>,
    uncounted_terminated_pods: Option<Uncounted>,
}

/// Pods that have ended, and are not in `succeeded` or `failed` yet.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Uncounted {
    succeeded: Option<Vec<IgnoredAny>>,
    failed: Option<Vec<IgnoredAny>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Condition {
    r#type: String,
    status: String,
    reason: Option<Box<str>>,
    message: Option<Box<str>>,
    last_transition_time: Option<Box<str>>,
}

impl JobObject {
    /// Errors: its status is none.
    pub(super) fn job(self) -> serde_json::Result<Job> {
        let JobObject { metadata, spec, status, .. } = self;
        let status = status.filter(|status| status.get() != "null").unwrap_or_else(no_status);
        let parsed: JobStatus = match status.get() {
            "{}" => JobStatus::default(),
            text => serde_json::from_str(text)?,
        };
        let started = parsed.start_time.clone();
        let is_being_deleted = metadata.deletion_timestamp.text().is_some();
        let is_suspended = spec.is_some_and(|spec| spec.suspend == Scalar::Boolean(true));
        Ok(Job {
            version: metadata.version(),
            name: metadata.name.into_text().unwrap_or_default(),
            uid: metadata.uid.into_text().unwrap_or_default(),
            is_ours: metadata.labels.is_ours,
            labels: metadata.labels.all,
            fingerprint: metadata.annotations.fingerprint,
            nonce: metadata.annotations.nonce,
            delivery: metadata.annotations.delivery,
            is_being_deleted,
            situation: situation(parsed, is_suspended, is_being_deleted),
            created: metadata.creation_timestamp.into_text(),
            started,
            status,
        })
    }
}

/// An ended Job keeps its state while it is deleted. `SuccessCriteriaMet` and `FailureTarget` say what will become of a Job whose pods
/// are still ending.
fn situation(status: JobStatus, is_suspended: bool, is_being_deleted: bool) -> Situation {
    let conditions = status.conditions.unwrap_or_default();
    let is_true = |name: &str| conditions.iter().find(|one| one.r#type == name && one.status == "True");
    let because = |state, condition: Option<&Condition>| Situation {
        state,
        reason: condition.and_then(|condition| condition.reason.clone()).filter(|reason| !reason.is_empty()),
        message: condition.and_then(|condition| condition.message.clone()).filter(|message| !message.is_empty()),
        finished: None,
    };
    let ended = |state, condition: &Condition| Situation {
        finished: status.completion_time.clone().or_else(|| condition.last_transition_time.clone()),
        ..because(state, Some(condition))
    };
    if let Some(condition) = is_true("Complete") {
        return ended(JobState::Succeeded, condition);
    }
    if let Some(condition) = is_true("Failed") {
        return ended(JobState::Failed, condition);
    }
    let some = |count: Option<i64>| count.unwrap_or(0) > 0;
    let uncounted = status.uncounted_terminated_pods.unwrap_or_default();
    let has = |pods: Option<Vec<IgnoredAny>>| pods.is_some_and(|pods| !pods.is_empty());
    let is_ending = some(status.terminating) || has(uncounted.succeeded) || has(uncounted.failed);
    let decided = is_true("FailureTarget").or(is_true("SuccessCriteriaMet"));
    match () {
        _ if is_being_deleted => because(JobState::Deleting, None),
        _ if is_suspended => because(JobState::Suspended, is_true("Suspended")),
        _ if decided.is_some() => because(JobState::Running, decided),
        _ if some(status.active) && status.ready.is_none_or(|ready| ready > 0) || is_ending => {
            because(JobState::Running, None)
        }
        // between two pods too, as after one that has failed
        _ if some(status.active) || some(status.succeeded) || some(status.failed) => because(JobState::Starting, None),
        _ => because(JobState::Waiting, None),
    }
}

/// Text that is kept.
fn kept<'de, D: Deserializer<'de>>(json: D) -> Result<Option<Box<RawValue>>, D::Error> {
    keep(|| Option::deserialize(json))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn job(spec: Value, status: Value, deleted: bool) -> Job {
        let mut metadata = json!({"name": "a", "labels": null, "creationTimestamp": "2026-11-26T00:00:00Z"});
        if deleted {
            metadata["deletionTimestamp"] = "2026-11-26T00:01:00Z".into()
        }
        let object = json!({"kind": "Job", "metadata": metadata, "spec": spec, "status": status});
        serde_json::from_value::<JobObject>(object).unwrap().job().unwrap()
    }

    fn condition(name: &str, status: &str) -> Value {
        json!({"type": name, "status": status, "reason": "R", "message": "m", "lastTransitionTime": "T"})
    }

    #[test]
    fn a_job_takes_the_time_from_its_start_to_its_end() {
        let took = |started: Option<&str>, finished: Option<&str>| {
            let situation = Situation { finished: finished.map(Into::into), ..Situation::default() };
            Job { started: started.map(Into::into), situation, ..Job::default() }.duration()
        };
        let (start, end) = (Some("2026-11-30T23:59:50Z"), Some("2026-12-01T00:01:00Z"));
        assert_eq!(took(start, end), Some(Duration::from_secs(70)));
        assert_eq!([took(end, start), took(None, end), took(start, None), took(start, Some("soon"))], [None; 4]);
    }

    #[test]
    fn states() {
        use JobState::*;
        let uncounted = json!({"uncountedTerminatedPods": {"succeeded": ["u"]}, "ready": 0});
        let nothing_uncounted = json!({"uncountedTerminatedPods": {}, "active": 1, "ready": 0});
        let with = |mut status: Value, conditions: Value| {
            status["conditions"] = conditions;
            status
        };
        for (status, want) in [
            (json!(null), Waiting),
            (json!({}), Waiting),
            (json!({"startTime": "T"}), Waiting),
            (json!({"active": 1, "ready": 0, "terminating": 0}), Starting),
            (nothing_uncounted, Starting),
            (json!({"active": 2, "ready": 1}), Running),
            (json!({"active": 1}), Running),
            (json!({"failed": 1, "ready": 0}), Starting),
            (json!({"succeeded": 1, "ready": 0}), Starting),
            (json!({"terminating": 1, "ready": 0}), Running),
            (uncounted, Running),
            (with(json!({"active": 1, "ready": 0}), json!([condition("Complete", "False")])), Starting),
            (with(json!({"active": 1, "ready": 0}), json!([condition("FailureTarget", "True")])), Running),
            (with(json!({}), json!([condition("SuccessCriteriaMet", "True")])), Running),
            (with(json!({}), json!([condition("Suspended", "True")])), Waiting),
            (
                with(json!({}), json!([condition("SuccessCriteriaMet", "True"), condition("Complete", "True")])),
                Succeeded,
            ),
            (with(json!({}), json!([condition("FailureTarget", "True"), condition("Failed", "True")])), Failed),
            (json!({"conditions": null, "active": 0}), Waiting),
        ] {
            let situation = job(json!({"suspend": false}), status.clone(), false).situation;
            assert_eq!(situation.state, want, "{status}");
            let suspended = job(json!({"suspend": true}), status.clone(), false).situation.state;
            assert_eq!(suspended, if want.is_final() { want } else { Suspended }, "{status}, suspended");
            let deleted = job(json!({"suspend": true}), status.clone(), true).situation.state;
            assert_eq!(deleted, if want.is_final() { want } else { Deleting }, "{status}, being deleted");
        }
    }

    #[test]
    fn the_condition_that_decided_is_reported() {
        let reported = |suspend: bool, status: Value| {
            let Situation { reason, finished, .. } = job(json!({"suspend": suspend}), status, false).situation;
            (reason.unwrap_or_default(), finished.unwrap_or_default())
        };
        let pair = |reason: &str, finished: &str| (reason.into(), finished.into());
        assert_eq!(reported(false, json!({"conditions": [condition("Failed", "True")]})), pair("R", "T"));
        let complete = json!({"completionTime": "C", "conditions": [condition("Complete", "True")]});
        assert_eq!(reported(false, complete), pair("R", "C"));
        assert_eq!(reported(true, json!({"conditions": [condition("Suspended", "True")]})), pair("R", ""));
        assert_eq!(reported(false, json!({"conditions": [condition("FailureTarget", "True")]})), pair("R", ""));
        assert_eq!(
            reported(false, json!({"active": 1, "conditions": [condition("Suspended", "False")]})),
            pair("", "")
        );
        let empty = json!({"conditions": [{"type": "Complete", "status": "True", "reason": "", "message": ""}]});
        let situation = job(json!({}), empty, false).situation;
        assert_eq!((situation.reason, situation.message), (None, None), "Kubernetes 1.20 gives none");
    }

    #[test]
    fn our_marks_and_times_are_found() {
        let text = r#"{"kind":"Job","metadata":{"name":"a","labels":{"x":"y","app.kubernetes.io/managed-by":"k8s-job-dispatcher"},
            "annotations":{"k8s-job-dispatcher/nonce":"n","big":"...","k8s-job-dispatcher/fingerprint":"f"},
            "creationTimestamp":"C"},"spec":{"template":{"suspend":true}},"status":{"startTime":"S"}}"#;
        let job = serde_json::from_str::<JobObject>(text).unwrap().job().unwrap();
        assert!(job.is_ours && !job.is_being_deleted);
        let text = |text: &Option<Box<str>>| text.clone().unwrap_or_default().into_string();
        assert_eq!([job.fingerprint, job.nonce, job.created, job.started].map(|one| text(&one)), ["f", "n", "C", "S"]);
        assert_eq!((job.situation.state, job.status.get()), (JobState::Waiting, r#"{"startTime":"S"}"#));
    }
}
