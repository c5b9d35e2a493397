//! Answers about a Job, at once or when it has ended.

use super::next::no_such_job;
use super::prefer::{Body, Wait};
use crate::answered::{Answered, Record};
use crate::http::Reply;
use crate::kube::{Job, Pod, Pods};
use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;

/// A Job that GET and DELETE do not find: a webhook, a policy or somebody has removed its label.
const HIDDEN: &str = "the Job has lost the dispatcher's label, so GET and DELETE do not find it";
/// A Job that a repeated request does not find: it was created so.
const UNMARKED: &str =
    "a webhook or policy has changed the Job's annotations, so a repeat of this request does not find it";
const GONE: &str = "the Job is gone: it was deleted, perhaps because its ttlSecondsAfterFinished was over";

/// An answer without the Job.
#[derive(Clone, Debug, Default)]
pub(super) struct AnswerDraft {
    pub(super) name: String,
    pub(super) code: u16,
    /// For `Location`: slashes of the request's path. None: without.
    pub(super) depth: Option<usize>,
    pub(super) body: Body,
    pub(super) is_dry_run: bool,
    /// Of the API server.
    pub(super) warnings: u32,
    pub(super) wait: Option<Wait>,
    pub(super) tries: u32,
    pub(super) pods: Option<Box<Pods>>,
    /// The pods belong to the answer, and could not be read.
    pub(super) lacks_pods: bool,
    /// How old the state is, if it could not be confirmed.
    pub(super) age: Option<Duration>,
    /// Why its newest pod waits.
    pub(super) pod_reason: Option<Box<str>>,
    /// Instead of the Job's own message.
    pub(super) message: Option<&'static str>,
}

/// An answer that waits for the end of its Job.
#[derive(Debug)]
pub(crate) struct Waiting {
    draft: AnswerDraft,
    job: Arc<Job>,
    time: Duration,
}

/// An answer now, or one that waits.
#[derive(Debug)]
pub(crate) enum AnswerOrWait {
    Answer(Answered),
    Wait(Box<Waiting>),
}

impl AnswerDraft {
    /// The Job was stored without the marks that a repeated request would find it by.
    pub(super) fn unmarked(self) -> Self {
        AnswerDraft { message: Some(UNMARKED), ..self }
    }

    /// Waits if the caller wants to, the Job has not ended, and the watch can report its end.
    pub(super) fn or_wait(mut self, job: Arc<Job>) -> AnswerOrWait {
        if !job.is_ours && !self.is_dry_run {
            self.message = Some(HIDDEN);
            self.wait = None
        }
        match self.wait {
            Some(wait) if wait.goes_on(&job) => {
                AnswerOrWait::Wait(Box::new(Waiting { draft: self, job, time: wait.time }))
            }
            _ => AnswerOrWait::Answer(self.answer(Some(&job))),
        }
    }

    /// `job`: None if it is gone.
    pub(super) fn answer(self, job: Option<&Job>) -> Answered {
        let json = if self.body == Body::Whole { object(&self, job) } else { Vec::new() };
        self.answer_as(json)
    }

    /// `json`: the object.
    fn answer_as(self, json: Vec<u8>) -> Answered {
        let reply = match self.body {
            Body::Whole => Reply::json(self.code, json),
            Body::Minimal | Body::NoneForEvent => Reply::empty(self.code),
        };
        let minimal = (self.body == Body::Minimal).then(|| "return=minimal".to_owned());
        let wait = self.wait.and_then(|wait| wait.preferred).map(|seconds| format!("wait={seconds}"));
        let applied: Vec<_> = minimal.into_iter().chain(wait).collect();
        let mut headers = Vec::new();
        if !applied.is_empty() {
            headers.push(("Preference-Applied", applied.join(", ")))
        }
        if let Some(depth) = self.depth {
            headers.push(("Location", location(depth, &self.name)))
        }
        let warning = self.message.filter(|message| [HIDDEN, UNMARKED].contains(message));
        let note = warning.map(|message| format!("Job {}: {message}", self.name));
        let record = Record { job: Some(self.name), note, tries: self.tries, ..Record::default() };
        Answered { reply: Reply { headers, ..reply }, record, memory: None }
    }
}

impl Waiting {
    /// Of a lookup, or of a POST.
    #[cfg(test)]
    pub(crate) fn of(job: Arc<Job>, time: Duration, is_lookup: bool) -> Box<Self> {
        let (name, depth) = (job.name.to_string(), (!is_lookup).then_some(1));
        Box::new(Waiting { draft: AnswerDraft { name, code: 200, depth, ..AnswerDraft::default() }, job, time })
    }

    /// Of the Job.
    pub(crate) fn name(&self) -> &str {
        &self.draft.name
    }
    /// The Job as it was when the wait began.
    pub(crate) fn seen(&self) -> &Arc<Job> {
        &self.job
    }
    /// How long the caller waits, from its request on.
    pub(crate) fn time(&self) -> Duration {
        self.time
    }
    /// Whether nothing was created for it.
    pub(crate) fn is_lookup(&self) -> bool {
        self.draft.depth.is_none()
    }
    /// Bytes that it holds, without the Job.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.draft.name.len()
    }

    /// Whether this Job is the one that is waited for: of a lookup, whichever has the name.
    pub(crate) fn is_about(&self, job: &Job) -> bool {
        self.is_lookup() || job.uid == self.job.uid
    }

    /// Waits on for the Job as it is now.
    pub(crate) fn see(&mut self, job: Arc<Job>) {
        self.job = job
    }

    /// With the Job as it is now.
    pub(crate) fn answer(self, job: &Job) -> Answered {
        self.draft.answer(Some(job))
    }

    /// The Job is gone.
    pub(crate) fn answer_gone(self) -> Answered {
        match self.is_lookup() {
            true => Answered::from(no_such_job()).about(self.draft.name, 0),
            false => AnswerDraft { message: Some(GONE), ..self.draft }.answer(None),
        }
    }

    /// The Job's present state could not be confirmed. `last`: what is known of it, and how old that is; `waited`: how old what was known at the
    /// beginning is.
    pub(crate) fn answer_unconfirmed(self, last: Option<(Arc<Job>, Duration)>, waited: Duration) -> Answered {
        let is_newer = |newest: &Job| newest.uid == self.job.uid && newest.version >= self.job.version;
        let (job, age) = last.filter(|(newest, _)| is_newer(newest)).unwrap_or((self.job, waited));
        // the end of a Job is not undone
        let age = Some(age).filter(|_| !job.situation.state.is_final());
        AnswerDraft { age, ..self.draft }.answer(Some(&job))
    }

    /// The name of the Job, and how long its caller waits.
    pub(super) fn into_lookup(self) -> (String, Option<Wait>) {
        (self.draft.name, self.draft.wait)
    }

    /// The answer should have the Job's pods, and has not.
    pub(crate) fn lack_pods(&mut self) {
        self.draft.lacks_pods = true
    }

    /// With the object of another caller.
    pub(crate) fn answer_as(self, json: Vec<u8>) -> Answered {
        self.draft.answer_as(json)
    }

    /// Without what is known of the Job, for which there is no memory.
    pub(crate) fn answer_bare(self) -> Answered {
        self.draft.answer(None)
    }

    /// The caller is answered without having waited.
    pub(crate) fn answer_at_once(mut self) -> Answered {
        self.draft.wait = None;
        self.draft.answer(Some(&self.job))
    }
}

/// The answer to a POST whose Job was created, and is gone.
pub(super) fn gone(draft: AnswerDraft) -> Answered {
    AnswerDraft { message: Some(GONE), ..draft }.answer(None)
}

/// What leads from a path with this many slashes, at or below `/job`, to the Job of this name: a relative reference (RFC 3986 5.2), which
/// survives a path prefix that a proxy adds or removes.
fn location(depth: usize, name: &str) -> String {
    match depth {
        0 | 1 => format!("job/{name}"),
        slashes => "../".repeat(slashes - 2) + name,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Object<'j> {
    id: &'j str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_age: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'j str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_reason: Option<&'j str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'j str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<&'j str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<&'j str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished: Option<&'j str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'j RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    #[serde(skip_serializing_if = "is_zero")]
    warnings: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<&'j [Pod]>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pods_truncated: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pods_unavailable: bool,
}

/// Bytes of an ordinary object without its status.
const OBJECT: usize = 256;

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// `job`: None if it is gone.
pub(super) fn object(draft: &AnswerDraft, job: Option<&Job>) -> Vec<u8> {
    let situation = job.map(|job| &job.situation);
    let object = Object {
        id: &draft.name,
        state: situation.map(|situation| situation.state.name()),
        state_age: draft.age.map(|age| age.as_secs() + 1), // never less than it is
        reason: situation.and_then(|situation| situation.reason.as_deref()),
        pod_reason: draft.pod_reason.as_deref(),
        message: draft.message.or_else(|| situation?.message.as_deref()),
        created: job.and_then(|job| job.created.as_deref()),
        started: job.and_then(|job| job.started.as_deref()),
        finished: situation.and_then(|situation| situation.finished.as_deref()),
        status: job.map(|job| &*job.status),
        dry_run: draft.is_dry_run,
        warnings: draft.warnings,
        pods: draft.pods.as_ref().map(|pods| &pods.pods[..]),
        pods_truncated: draft.pods.as_ref().is_some_and(|pods| pods.is_truncated),
        pods_unavailable: draft.lacks_pods,
    };
    let mut json = Vec::with_capacity(OBJECT + object.status.map_or(0, |status| status.get().len()));
    serde_json::to_writer(&mut json, &object).expect("strings, numbers and JSON can be written");
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::{JobState, Situation};

    #[test]
    fn a_location_leads_to_the_job_from_every_path() {
        for (path, want) in [
            ("/job", "job/"),
            ("/job/", ""),
            ("/job/a", ""),
            ("/job/a/", "../"),
            ("/job/a/b", "../"),
            ("/job/a/b/c//", "../../../../"),
            ("/j%6Fb/%C3%A9", ""),
        ] {
            assert_eq!(location(path.matches('/').count(), "a"), format!("{want}a"), "{path}");
        }
    }

    #[test]
    fn a_job_that_a_webhook_hides_is_said_to_be_hidden_and_is_not_waited_for() {
        let wait = Some(Wait { time: Duration::from_secs(9), preferred: Some(9) });
        let draft = AnswerDraft { name: "a".into(), code: 201, depth: Some(1), wait, ..AnswerDraft::default() };
        let AnswerOrWait::Answer(Answered { reply, record, .. }) = draft.or_wait(Arc::default()) else {
            panic!("it waits")
        };
        assert!(String::from_utf8_lossy(&reply.body).contains(HIDDEN) && record.note.is_some());
        assert!(reply.headers.iter().all(|(name, _)| *name != "Preference-Applied"));
    }

    #[test]
    fn absent_fields_are_omitted() {
        let draft = || AnswerDraft { name: "a".into(), ..AnswerDraft::default() };
        let text = |job: &Job, draft| String::from_utf8(object(&draft, Some(job))).unwrap();
        let nothing = Job::default();
        assert_eq!(text(&nothing, draft()), r#"{"id":"a","state":"waiting","status":{}}"#);
        let more = AnswerDraft { is_dry_run: true, warnings: 2, ..draft() };
        let want = r#"{"id":"a","state":"waiting","status":{},"dryRun":true,"warnings":2}"#;
        assert_eq!(text(&nothing, more), want);
        let gone = AnswerDraft { message: Some(GONE), ..draft() };
        let want = format!(r#"{{"id":"a","message":"{GONE}"}}"#);
        assert_eq!(String::from_utf8(object(&gone, None)).unwrap(), want);
        let old = AnswerDraft { age: Some(Duration::from_millis(2100)), lacks_pods: true, ..draft() };
        let want = r#"{"id":"a","state":"waiting","stateAge":3,"status":{},"podsUnavailable":true}"#;
        assert_eq!(text(&nothing, old), want);
        let some = |text: &str| Some(text.into());
        let situation =
            Situation { state: JobState::Failed, reason: some("R"), message: some("\"m\""), finished: some("F") };
        let status = RawValue::from_string("{\"failed\":1}".into()).unwrap();
        let job = Job { situation, created: some("C"), started: some("S"), status, ..nothing };
        let want = r#"{"id":"a","state":"failed","reason":"R","message":"\"m\"","created":"C","started":"S","finished":"F","status":{"failed":1}}"#;
        assert_eq!(text(&job, draft()), want);
    }
}
