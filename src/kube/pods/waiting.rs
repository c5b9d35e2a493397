//! Why the pods of several Jobs do not run: one list for all of them.

use super::draft::pod_of;
use super::pod::{ContainerState, Pod};
use super::{PAGE, continued};
use crate::kube::client::Client;
use crate::kube::failure::Failure;
use crate::kube::items::{Items, each_item};
use crate::kube::request::{ApiRequest, Verb};
use serde::Deserializer;
use std::cell::Cell;
use std::time::Instant;

/// Jobs that are asked for at once: their names, of 63 characters at most, are part of a URL, which is written in one piece of 4 KiB.
pub(crate) const MAX_JOBS: usize = 40;
/// Pages that are read; pods behind them are not looked at.
const MAX_PAGES: usize = 4;
/// Bytes of a reason: Kubernetes' own are single words.
const MAX_REASON: usize = 64;

/// A Job by its name and its uid.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct JobKey {
    pub(crate) name: Box<str>,
    pub(crate) uid: Box<str>,
}

/// Why the newest pod of each Job waits, in the Jobs' order.
type Reasons = Vec<Option<Box<str>>>;

impl Client {
    /// Why the newest pod of each of these Jobs, [`MAX_JOBS`] at most, waits; None for one that does not, or has none.
    pub(crate) fn waiting_pods(
        &mut self,
        namespace: &str,
        jobs: &[JobKey],
        until: Instant,
    ) -> Result<Reasons, Failure> {
        let path = path(namespace, jobs);
        let mut newest = Newest { jobs, pods: vec![Waiting::default(); jobs.len()] };
        let mut token = String::new();
        for _ in 0..MAX_PAGES {
            let path = format!("{path}{}", continued(&token));
            let mut response =
                self.call(ApiRequest { verb: Verb::Pods, path: &path, body: None, until })?.expect("", 200)?;
            let read = each_item(&mut response.whole_body(), &mut newest);
            token = read.map_err(|error| response.broken(error, "a list of pods"))?.next.unwrap_or_default();
            if token.is_empty() {
                break;
            }
        }
        Ok(newest.pods.into_iter().map(|pod| pod.reason).collect())
    }
}

/// Of the list of the Jobs' pods that have not ended.
fn path(namespace: &str, jobs: &[JobKey]) -> String {
    let names: Vec<&str> = jobs.iter().map(|job| &*job.name).collect();
    format!(
        "/api/v1/namespaces/{namespace}/pods?labelSelector=batch.kubernetes.io%2Fjob-name%20in%20%28{}%29\
         &fieldSelector=status.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed&limit={PAGE}",
        names.join("%2C")
    )
}

/// Why a pod waits: in its own words, else in those of a container that waits, preferably of one that does not just begin.
fn reason(pod: &Pod) -> Option<Box<str>> {
    let reasons = || {
        let waiting = pod.containers.iter().filter(|one| one.state == ContainerState::Waiting);
        waiting.map(|one| &one.reason).filter(|reason| !reason.is_empty())
    };
    let begins = |reason: &&String| matches!(&reason[..], "ContainerCreating" | "PodInitializing");
    let of_container = || reasons().find(|reason| !begins(reason)).or_else(|| reasons().next());
    let reason = if pod.reason.is_empty() { of_container()? } else { &pod.reason };
    Some(reason[..reason.floor_char_boundary(MAX_REASON)].into())
}

/// What is kept of a pod.
#[derive(Clone, Debug, Default)]
struct Waiting {
    name: String,
    created: String,
    reason: Option<Box<str>>,
}

struct Newest<'l> {
    jobs: &'l [JobKey],
    /// One for each Job; without a name if there is none.
    pods: Vec<Waiting>,
}

impl Items for Newest<'_> {
    const KIND: &'static str = "PodList";

    /// Only pods that are owned by one of the Jobs count: anybody may give a pod the label of a Job.
    fn add<'de, D: Deserializer<'de>>(&mut self, item: D) -> Result<(), D::Error> {
        let owner = Cell::new(None);
        let is_owner = |uid: &str| {
            let place = self.jobs.iter().position(|job| *job.uid == *uid);
            owner.set(owner.get().or(place));
            place.is_some()
        };
        let pod = pod_of(item, &is_owner)?;
        if let Some(place) = owner.get()
            && (&pod.created, &pod.name) >= (&self.pods[place].created, &self.pods[place].name)
        {
            self.pods[place] = Waiting { reason: reason(&pod), name: pod.name, created: pod.created }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(name: &str, created: &str, uid: &str, status: Value) -> Value {
        json!({"metadata": {"name": name, "creationTimestamp": created, "ownerReferences": [{"uid": uid}]}, "status": status})
    }

    #[test]
    fn the_longest_path_leaves_room_for_an_address_and_a_token() {
        let job = JobKey { name: "x".repeat(63).into(), uid: "u".into() };
        assert!(path(&"n".repeat(63), &vec![job; MAX_JOBS]).len() < 3000);
    }

    #[test]
    fn the_newest_pod_of_each_job_says_why_it_waits() {
        let waits = |reason: &str| json!({"containerStatuses": [{"name": "a", "state": {"waiting": {"reason": "ContainerCreating"}}}, {"name": "b", "state": {"waiting": {"reason": reason}}}]});
        let list = json!({"kind": "PodList", "items": [
            pod("x-1", "2026-01-01T00:00:02Z", "x", waits("ImagePullBackOff")),
            pod("x-0", "2026-01-01T00:00:01Z", "x", waits("CrashLoopBackOff")),
            pod("y-0", "2026-01-01T00:00:01Z", "y", json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]})),
            pod("z-0", "2026-01-01T00:00:01Z", "z", json!({"containerStatuses": [{"name": "a", "state": {"running": {}}}]})),
            pod("foreign", "2027-01-01T00:00:01Z", "other", waits("ErrImagePull")),
            pod("long", "2026-01-01T00:00:01Z", "l", waits(&"x".repeat(500))),
        ]});
        let jobs = ["x", "y", "z", "none", "l"].map(|uid| JobKey { name: uid.into(), uid: uid.into() });
        let mut newest = Newest { jobs: &jobs, pods: vec![Waiting::default(); jobs.len()] };
        each_item(&mut list.to_string().as_bytes(), &mut newest).unwrap();
        let reasons: Vec<_> = newest.pods.into_iter().map(|pod| pod.reason).collect();
        let long = "x".repeat(MAX_REASON);
        let want = [Some("ImagePullBackOff"), Some("Unschedulable"), None, None, Some(&long[..])];
        assert_eq!(reasons.iter().map(|reason| reason.as_deref()).collect::<Vec<_>>(), want);
    }
}
