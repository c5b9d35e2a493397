//! Records the history of all Jobs of a namespace, through an API server that is never stopped except to restore etcd.

use super::super::super::api::Api;
use super::history::{History, Job, SLACK, Time};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Between two tries to list.
const AGAIN: Duration = Duration::from_millis(50);
/// A watch is not ended before.
const WATCH_SECONDS: u32 = 7_200;

/// The time of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(pub(crate) Instant);

impl Clock {
    pub(crate) fn now(self) -> Time {
        self.0.elapsed().as_millis() as Time
    }
}

pub(crate) struct Recorder {
    clock: Clock,
    jobs: String,
    pub(crate) history: Mutex<History>,
    /// How often it has listed.
    lists: AtomicUsize,
    /// When each version was seen.
    versions: Mutex<HashMap<(String, u64), Time>>,
}

impl Recorder {
    /// Returns when it has listed. `jobs`: the path of the namespace's Jobs. It continues until the process ends.
    pub(crate) fn start(clock: Clock, admin: Api, jobs: &str) -> Arc<Self> {
        let recorder = Arc::new(Recorder {
            clock,
            jobs: jobs.to_owned(),
            history: Mutex::default(),
            lists: AtomicUsize::new(0),
            versions: Mutex::default(),
        });
        let own = recorder.clone();
        thread::Builder::new().name("recorder".into()).spawn(move || own.follow(&admin)).unwrap();
        recorder.wait(0);
        recorder
    }

    /// How often it has listed until now.
    pub(crate) fn lists(&self) -> usize {
        self.lists.load(SeqCst)
    }

    /// Until it has listed more often than this.
    pub(crate) fn wait(&self, lists: usize) {
        super::super::super::eventually("the recorder to list", || (self.lists() > lists).then_some(()))
    }

    /// The longest time from an answer to us, with these versions of Jobs, until the recorder had seen them.
    pub(crate) fn lag(&self, changes: &[(String, u64, Time)]) -> Time {
        let versions = self.versions.lock().unwrap();
        let lag = |(name, version, answered): &(String, u64, Time)| {
            Some(versions.get(&(name.clone(), *version))?.saturating_sub(*answered))
        };
        changes.iter().filter_map(lag).max().unwrap_or(0)
    }

    fn follow(&self, admin: &Api) {
        let mut heard = 0;
        loop {
            let Some((200, list)) = admin.try_call("GET", &self.jobs, None) else {
                thread::sleep(AGAIN);
                continue;
            };
            self.list(&list, heard);
            self.lists.fetch_add(1, SeqCst);
            let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
            let path = format!("{}?watch=1&timeoutSeconds={WATCH_SECONDS}&resourceVersion={version}", self.jobs);
            admin.watch(&path, |event| self.see(&event));
            heard = self.clock.now().saturating_sub(SLACK);
        }
    }

    /// `heard`: until when everything had been seen.
    fn list(&self, list: &Value, heard: Time) {
        let at = self.clock.now();
        let mut history = self.history.lock().unwrap();
        let mut gone = history.present();
        for job in list["items"].as_array().into_iter().flatten() {
            let name = job["metadata"]["name"].as_str().unwrap_or_default();
            gone.retain(|known| known != name);
            history.add(name, heard, at, Some(Job::of(job)))
        }
        gone.iter().for_each(|name| history.add(name, heard, at, None))
    }

    fn see(&self, event: &Value) {
        let at = self.clock.now();
        let object = &event["object"];
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let job = match event["type"].as_str() {
            Some("ADDED" | "MODIFIED") => Some(Job::of(object)),
            Some("DELETED") => None,
            _ => return,
        };
        if let Some(job) = &job {
            self.versions.lock().unwrap().entry((name.to_owned(), job.version)).or_insert(at);
        }
        self.history.lock().unwrap().add(name, at.saturating_sub(SLACK), at, job)
    }
}
