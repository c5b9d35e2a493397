//! What callers are told of a Job, at once or when it has ended.

use super::Dispatch;
use super::perform::{Progress, Work};
use super::prefer::{Body, Wait};
use crate::http::Reply;
use crate::kube::{Job, Pod, Pods, Situation};
use serde::Serialize;
use serde_json::value::RawValue;
use std::sync::Arc;
use std::time::Duration;

/// An answer, but for the Job.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
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
}

/// An answer that waits for the end of its Job.
#[derive(Debug)]
pub(crate) struct Waiting {
    told: Told,
    job: Arc<Job>,
    time: Duration,
}

impl Told {
    /// Waits if the caller wants to, and the Job has not ended.
    pub(super) fn or_wait(self, job: Arc<Job>) -> Progress {
        match self.wait {
            Some(wait) if wait.goes_on(&job) => Progress::Wait(Box::new(Waiting { told: self, job, time: wait.time })),
            _ => Progress::Done(self.reply(&job)),
        }
    }

    pub(super) fn reply(self, job: &Job) -> Reply {
        let reply = match self.body {
            Body::Whole => Reply::json(self.code, object(&self, job)),
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
        Reply { job: Some(self.name), tries: self.tries, headers, ..reply }
    }
}

impl Waiting {
    /// Of the Job.
    pub(crate) fn name(&self) -> &str {
        &self.told.name
    }
    /// The Job as it was when the wait began.
    pub(crate) fn seen(&self) -> Arc<Job> {
        self.job.clone()
    }
    /// How long the caller waits, from its request on.
    pub(crate) fn time(&self) -> Duration {
        self.time
    }
    /// Whether nothing was created for it.
    pub(crate) fn is_lookup(&self) -> bool {
        self.told.depth.is_none()
    }
    /// Bytes that it holds.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + size_of::<Job>() + self.job.text_bytes()
    }

    /// `newest`: what is known of the Job; what was known at the beginning counts if that is newer.
    pub(crate) fn reply(self, newest: Option<&Job>) -> Reply {
        let newest = newest.filter(|newest| is_newer(newest, &self.job));
        self.told.reply(newest.unwrap_or(&self.job))
    }

    /// Asks for the Job as it is now, and goes on waiting for this time.
    pub(crate) fn look_up(self, time: Duration) -> Box<Work> {
        let wait = self.told.wait.map(|wait| Wait { time, ..wait });
        Work::lookup(self.told.name, wait)
    }

    /// What is still to be done for an answer with pods. `newest`: as for [`Waiting::reply`].
    pub(crate) fn ask_for_pods(self, newest: Option<&Arc<Job>>) -> Box<Work> {
        let job = newest.filter(|newest| is_newer(newest, &self.job)).unwrap_or(&self.job).clone();
        Work::of_known(Dispatch::Lookup(self.told.name, self.told.wait), job, true)
    }

    /// The caller is answered without having waited.
    pub(crate) fn reply_at_once(mut self) -> Reply {
        self.told.wait = None;
        self.reply(None)
    }
}

fn is_newer(newest: &Job, seen: &Job) -> bool {
    newest.uid == seen.uid && newest.version >= seen.version
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
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'j str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'j str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<&'j str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<&'j str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished: Option<&'j str>,
    status: &'j RawValue,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    #[serde(skip_serializing_if = "is_zero")]
    warnings: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<&'j [Pod]>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pods_truncated: bool,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

pub(super) fn object(told: &Told, job: &Job) -> Vec<u8> {
    let Situation { state, reason, message, finished } = &job.situation;
    let object = Object {
        id: &told.name,
        state: state.name(),
        reason: reason.as_deref(),
        message: message.as_deref(),
        created: job.created.as_deref(),
        started: job.started.as_deref(),
        finished: finished.as_deref(),
        status: &job.status,
        dry_run: told.is_dry_run,
        warnings: told.warnings,
        pods: told.pods.as_ref().map(|pods| &pods.pods[..]),
        pods_truncated: told.pods.as_ref().is_some_and(|pods| pods.is_truncated),
    };
    serde_json::to_vec(&object).expect("strings, numbers and JSON can be written")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::State;

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
    fn a_waiting_answer_counts_all_that_it_holds() {
        let size =
            |job: Job| match (Told { wait: Some(Wait { time: Duration::MAX, preferred: None }), ..Told::default() })
                .or_wait(Arc::new(job))
            {
                Progress::Wait(waiting) => waiting.size(),
                other => panic!("{other:?}"),
            };
        let long = "x".repeat(10_000);
        let labels = vec![(long.clone(), long.clone())];
        let situation = Situation { message: Some(long), ..Situation::default() };
        assert!(size(Job { labels, situation, ..Job::default() }) > size(Job::default()) + 30_000);
    }

    #[test]
    fn only_what_is_known_is_told() {
        let told = || Told { name: "a".into(), ..Told::default() };
        let text = |job: &Job, told| String::from_utf8(object(&told, job)).unwrap();
        let nothing = Job::default();
        assert_eq!(text(&nothing, told()), r#"{"id":"a","state":"waiting","status":{}}"#);
        let more = Told { is_dry_run: true, warnings: 2, ..told() };
        let want = r#"{"id":"a","state":"waiting","status":{},"dryRun":true,"warnings":2}"#;
        assert_eq!(text(&nothing, more), want);
        let some = |text: &str| Some(text.to_owned());
        let situation =
            Situation { state: State::Failed, reason: some("R"), message: some("\"m\""), finished: some("F") };
        let status = RawValue::from_string("{\"failed\":1}".into()).unwrap();
        let job = Job { situation, created: some("C"), started: some("S"), status, ..nothing };
        let want = r#"{"id":"a","state":"failed","reason":"R","message":"\"m\"","created":"C","started":"S","finished":"F","status":{"failed":1}}"#;
        assert_eq!(text(&job, told()), want);
    }
}
