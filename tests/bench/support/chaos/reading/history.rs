//! The history of each Job as the recorder saw it, and what was true when. Pure.

use serde_json::Value;
use std::collections::BTreeMap;

/// Milliseconds since the beginning of the run.
pub(crate) type Time = u64;

/// A change may have happened this long before the recorder saw it.
pub(crate) const SLACK: Time = 500;

/// A Job at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Job {
    pub(crate) uid: String,
    pub(crate) version: u64,
    /// Has the label of the dispatcher; without it the dispatcher reports no such Job.
    pub(crate) is_labelled: bool,
    /// Has a deletionTimestamp.
    pub(crate) is_deleted: bool,
    pub(crate) state: &'static str,
}

/// One change of a Job; None: it is absent.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// The earliest moment at which it may have become true.
    pub(crate) since: Time,
    /// When the recorder saw it.
    pub(crate) at: Time,
    pub(crate) job: Option<Job>,
}

/// What is known of one name. A name without entries has always been absent.
#[derive(Clone, Debug, Default)]
pub(crate) struct History(BTreeMap<String, Vec<Entry>>);

impl Job {
    /// From a Job in JSON.
    pub(crate) fn of(job: &Value) -> Self {
        let metadata = &job["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Job {
            uid: text(&metadata["uid"]),
            version: text(&metadata["resourceVersion"]).parse().unwrap_or(0),
            is_labelled: metadata["labels"]["app.kubernetes.io/managed-by"] == "k8s-job-dispatcher",
            is_deleted: metadata["deletionTimestamp"].is_string(),
            state: state(job),
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        is_final(self.state)
    }
}

pub(crate) fn is_final(state: &str) -> bool {
    matches!(state, "succeeded" | "failed")
}

/// A Job's state by the table in `docs/http.md`.
fn state(job: &Value) -> &'static str {
    let status = &job["status"];
    let is_true = |name: &str| {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().any(|one| one["type"] == name && one["status"] == "True")
    };
    let some = |field: &str| status[field].as_i64().unwrap_or(0) > 0;
    let uncounted =
        |field: &str| status["uncountedTerminatedPods"][field].as_array().is_some_and(|uids| !uids.is_empty());
    let is_ready = some("active") && (status["ready"].is_null() || some("ready"));
    let is_ending = some("terminating") || uncounted("succeeded") || uncounted("failed");
    let is_decided = is_true("FailureTarget") || is_true("SuccessCriteriaMet");
    match () {
        _ if is_true("Complete") => "succeeded",
        _ if is_true("Failed") => "failed",
        _ if job["metadata"]["deletionTimestamp"].is_string() => "deleting",
        _ if job["spec"]["suspend"] == true => "suspended",
        _ if is_decided || is_ready || is_ending => "running",
        _ if some("active") || some("succeeded") || some("failed") => "starting",
        _ => "waiting",
    }
}

impl History {
    /// Adds what was seen at this time, unless nothing has changed.
    pub(crate) fn add(&mut self, name: &str, since: Time, at: Time, job: Option<Job>) {
        let entries = self.0.entry(name.to_owned()).or_default();
        if entries.last().map(|entry| &entry.job) != Some(&job) {
            entries.push(Entry { since, at, job })
        }
    }

    /// Names of the Jobs that are there now.
    pub(crate) fn present(&self) -> Vec<String> {
        let is_there = |entries: &Vec<Entry>| entries.last().is_some_and(|entry| entry.job.is_some());
        self.0.iter().filter(|(_, entries)| is_there(entries)).map(|(name, _)| name.clone()).collect()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub(crate) fn entries(&self, name: &str) -> &[Entry] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// What may have been true of a Job at some moment of this time, with the beginning and the end of each, both at their extremes.
    pub(crate) fn during(&self, name: &str, from: Time, to: Time) -> Vec<(Time, Time, Option<&Job>)> {
        let entries = self.entries(name);
        let first = entries.first().map_or(Time::MAX, |entry| entry.at);
        let before = std::iter::once((0, first, None));
        let rest = entries.iter().enumerate().map(|(place, entry)| {
            let until = entries.get(place + 1).map_or(Time::MAX, |next| next.at);
            (entry.since, until, entry.job.as_ref())
        });
        before.chain(rest).filter(|(begin, end, _)| *begin <= to && *end >= from).collect()
    }

    /// Whether this may have been true at some moment of this time.
    pub(crate) fn was(&self, name: &str, from: Time, to: Time, test: impl Fn(Option<&Job>) -> bool) -> bool {
        self.during(name, from, to).into_iter().any(|(_, _, job)| test(job))
    }

    /// Whether one and the same Job was there, with its label, during all of this time.
    pub(crate) fn stayed(&self, name: &str, from: Time, to: Time) -> bool {
        let during = self.during(name, from, to);
        let first = during.first().and_then(|(_, _, job)| *job).map(|job| &job.uid);
        during.iter().all(|(_, _, job)| job.is_some_and(|job| job.is_labelled && Some(&job.uid) == first))
    }

    /// The history around a time, in words.
    pub(crate) fn words(&self, name: &str, from: Time, to: Time) -> String {
        let entries = self.entries(name);
        let begin = entries.partition_point(|entry| entry.at < from).saturating_sub(1);
        let end = (entries.partition_point(|entry| entry.at <= to) + 1).min(entries.len());
        let words: Vec<_> = entries[begin.min(end)..end].iter().map(Entry::words).collect();
        if words.is_empty() { "never there".to_owned() } else { words.join("; ") }
    }
}

impl Entry {
    fn words(&self) -> String {
        let from = if self.at - self.since > SLACK {
            format!(" (since {} or later)", seconds(self.since))
        } else {
            String::new()
        };
        let Some(job) = &self.job else { return format!("{}{from} absent", seconds(self.at)) };
        let label = if job.is_labelled { "" } else { ", without its label" };
        let deleted = if job.is_deleted { ", with deletionTimestamp" } else { "" };
        let uid = job.uid.get(..8).unwrap_or(&job.uid);
        format!("{}{from} {} (uid {uid}, version {}{label}{deleted})", seconds(self.at), job.state, job.version)
    }
}

/// A time as it is printed.
pub(crate) fn seconds(time: Time) -> String {
    format!("{}.{:03}", time / 1000, time % 1000)
}
