//! Reads a list of pods: what callers see of each, in bounded memory.

mod draft;
mod pod;
mod waiting;

use super::client::Client;
use super::failure::Failure;
use super::items::{Items, each_item};
use super::request::{ApiRequest, Verb};
use super::url::escaped;
use pod::MAX_POD;
pub(crate) use pod::Pod;
use serde::Deserializer;
use std::io::Read;
use std::time::Instant;
pub(crate) use waiting::{JobKey, MAX_JOBS};

/// Bytes of all pods of an answer, up to 56 of which are made at once: what is held, and the text as JSON. A pod takes some six hundred
/// without messages.
const MAX_PODS: usize = 64 << 10;
/// Pods of a page: the API server holds it whole.
const PAGE: usize = 500;
/// Pages that are read: pods come in the order of their names, and the newest may be the last.
const MAX_PAGES: usize = 20;

/// Pods of one Job, the newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pods {
    pub(crate) pods: Vec<Pod>,
    /// Something is missing: older pods, for which there is no room, or parts of a pod.
    pub(crate) is_truncated: bool,
    /// For the next page.
    token: String,
}

impl Client {
    /// The pods of the Job of this name and uid. `only`: the one of this name.
    pub(crate) fn pods(
        &mut self,
        namespace: &str,
        job: &str,
        uid: &str,
        only: Option<&str>,
        until: Instant,
    ) -> Result<Pods, Failure> {
        let only = only.map(|name| format!("&fieldSelector=metadata.name%3D{}", escaped(name))).unwrap_or_default();
        let mut all = Pods::default();
        for _ in 0..MAX_PAGES {
            let next = continued(&all.token);
            let path = format!(
                "/api/v1/namespaces/{namespace}/pods?labelSelector=batch.kubernetes.io%2Fjob-name%3D{job}&limit={PAGE}{only}{next}"
            );
            let mut response =
                self.call(ApiRequest { verb: Verb::Pods, path: &path, body: None, until })?.expect("", 200)?;
            let read = all.with_page(&mut response.whole_body(), uid);
            all = read.map_err(|error| response.broken(error, "a list of pods"))?;
            if all.token.is_empty() {
                return Ok(all);
            }
        }
        all.is_truncated = true;
        Ok(all)
    }
}

/// The part of a query that asks for the page with this token; empty for the first.
fn continued(token: &str) -> String {
    if token.is_empty() { String::new() } else { format!("&continue={}", escaped(token)) }
}

impl Pods {
    /// Adds those of a PodList that are owned by what has this uid: anybody may give a pod the label of a Job.
    pub(crate) fn with_page(mut self, json: &mut dyn Read, uid: &str) -> serde_json::Result<Self> {
        let metadata = each_item(json, &mut PodItems { pods: &mut self, uid })?;
        self.token = metadata.next.unwrap_or_default();
        Ok(self)
    }

    fn add(&mut self, mut pod: Pod) {
        if !pod.is_owned {
            return;
        }
        pod.is_cut |= pod.bytes > MAX_POD;
        self.is_truncated |= pod.is_cut;
        pod.bytes = pod.bytes.min(MAX_POD) + size_of::<Pod>();
        if !pod.has_ended() {
            pod.finished.clear()
        }
        let place = self.pods.partition_point(|other| (&other.created, &other.name) > (&pod.created, &pod.name));
        self.pods.reserve_exact(1);
        self.pods.insert(place, pod);
        while self.pods.iter().map(|pod| pod.bytes).sum::<usize>() > MAX_PODS {
            self.pods.pop();
            self.is_truncated = true
        }
    }
}

struct PodItems<'l> {
    pods: &'l mut Pods,
    uid: &'l str,
}

impl Items for PodItems<'_> {
    const KIND: &'static str = "PodList";

    fn add<'de, D: Deserializer<'de>>(&mut self, item: D) -> Result<(), D::Error> {
        self.pods.add(draft::pod_of(item, &|uid| uid == self.uid)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::pod::MAX_MESSAGE;
    use super::*;
    use crate::kube::response::tests::response;
    use serde_json::{Value, json};

    fn read(items: Value) -> Pods {
        let list = json!({"kind": "PodList", "metadata": {"continue": ""}, "items": items}).to_string();
        Pods::default().with_page(&mut list.as_bytes(), "u").unwrap()
    }

    fn pod(name: &str, created: &str, status: Value) -> Value {
        json!({
            "metadata": {"name": name, "creationTimestamp": created, "ownerReferences": [{"uid": "x"}, {"uid": "u"}]},
            "spec": {"initContainers": [{"name": "before"}], "containers": [{"name": "main"}, {"name": "side"}]},
            "status": status,
        })
    }

    fn reported(status: Value) -> Value {
        serde_json::to_value(&read(json!([pod("p", "2026", status)])).pods[0]).unwrap()
    }

    #[test]
    fn a_pod_tells_how_its_containers_ended() {
        let status = json!({
            "phase": "Failed", "startTime": "S",
            "conditions": [{"type": "Ready", "status": "False", "reason": "PodFailed", "message": "no"}],
            "initContainerStatuses": [{"name": "before", "state": {"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": "F1"}}}],
            "containerStatuses": [
                {"name": "main", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "F3"}},
                    "lastState": {"terminated": {"exitCode": 1, "signal": 9, "reason": "Error", "message": "old", "finishedAt": "F9"}}, "restartCount": 2},
                {"name": "side", "state": {"terminated": {"exitCode": 3, "finishedAt": "F2"}}},
            ],
        });
        let want = json!({
            "name": "p", "phase": "Failed", "started": "S", "finished": "F3", "containers": [
                {"name": "before", "init": true, "state": "terminated", "reason": "Completed", "exitCode": 0},
                {"name": "main", "state": "terminated", "reason": "OOMKilled", "exitCode": 137, "restarts": 2},
                {"name": "side", "state": "terminated", "exitCode": 3},
            ],
        });
        assert_eq!(reported(status), want);
    }

    #[test]
    fn a_pod_tells_why_it_waits() {
        let unschedulable = json!({"phase": "Pending", "conditions": [
            {"type": "X", "status": "True", "message": "other"},
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"},
        ]});
        let want = json!({"name": "p", "phase": "Pending", "reason": "Unschedulable", "message": "0/3 nodes", "containers": []});
        assert_eq!(reported(unschedulable), want);
        let waits = |last: Value| {
            let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}});
            reported(
                json!({"phase": "Pending", "containerStatuses": [{"name": "c", "state": waiting, "lastState": last}]}),
            )
        };
        assert_eq!(
            waits(json!({}))["containers"][0],
            json!({"name": "c", "state": "waiting", "reason": "CrashLoopBackOff", "message": "back-off"})
        );
        let last = json!({"terminated": {"exitCode": 2, "reason": "Error", "signal": 3}});
        let reported = waits(last);
        let container = &reported["containers"][0];
        assert_eq!((&container["exitCode"], &container["signal"]), (&json!(2), &json!(3)));
        assert_eq!(container["reason"], "CrashLoopBackOff");
    }

    #[test]
    fn nothing_depends_on_the_order_of_members() {
        let text = r#"{"items": [{"status": {
            "containerStatuses": [
                {"lastState": {"terminated": {"message": "old", "reason": "Error", "exitCode": 1}}, "state": {"waiting": {"message": "m", "reason": "R"}}, "name": "a"},
                {"lastState": {"terminated": {"reason": "Error", "exitCode": 7}}, "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}, "name": "b"},
                {"lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}, "state": {"running": {"startedAt": "S"}}, "name": "c"}
            ],
            "initContainerStatuses": [{"state": {"terminated": {"exitCode": 0}}, "name": "i"}],
            "conditions": [{"message": "0/3", "reason": "Unschedulable", "status": "False", "type": "PodScheduled"}, {"message": "x", "reason": "y"}],
            "phase": "Pending"
        }, "metadata": {"ownerReferences": [{"uid": "u"}], "name": "p"}}], "kind": "PodList"}"#;
        let pods = Pods::default().with_page(&mut text.as_bytes(), "u").unwrap();
        let reported = serde_json::to_value(&pods.pods[0]).unwrap();
        let want = json!({"name": "p", "phase": "Pending", "reason": "Unschedulable", "message": "0/3", "containers": [
            {"name": "i", "init": true, "state": "terminated", "exitCode": 0},
            {"name": "a", "state": "waiting", "reason": "R", "message": "m", "exitCode": 1},
            {"name": "b", "state": "terminated", "reason": "Completed", "exitCode": 0},
            {"name": "c", "state": "running", "reason": "OOMKilled", "exitCode": 137},
        ]});
        assert_eq!(reported, want);
    }

    #[test]
    fn a_pod_tells_what_disrupts_it() {
        let condition = |status: &str| {
            json!({"phase": "Running", "conditions": [
                {"type": "DisruptionTarget", "status": status, "reason": "PreemptionByScheduler", "message": "preempted"},
            ]})
        };
        let reported_now = reported(condition("True"));
        assert_eq!(
            (&reported_now["reason"], &reported_now["message"]),
            (&json!("PreemptionByScheduler"), &json!("preempted"))
        );
        assert_eq!(reported(condition("False")).get("reason"), None);
        let mut evicted = condition("True");
        (evicted["phase"], evicted["reason"]) = (json!("Failed"), json!("Evicted"));
        assert_eq!(reported(evicted)["reason"], "Evicted");
    }

    #[test]
    fn sidecars_are_marked_and_init_containers_that_hold_a_pod_up_are_named() {
        let of = |states: Value| {
            let mut pod = pod("p", "2026", json!({"phase": "Pending", "initContainerStatuses": states}));
            pod["spec"]["initContainers"] =
                json!([{"restartPolicy": "Always", "name": "proxy"}, {"name": "before"}, {"name": "last"}]);
            serde_json::to_value(&read(json!([pod])).pods[0]).unwrap()
        };
        let runs = |name: &str| json!({"name": name, "state": {"running": {"startedAt": "S"}}});
        let ended = |name: &str, code: i64| json!({"name": name, "state": {"terminated": {"exitCode": code}}});
        let waits = |name: &str, reason: &str| json!({"name": name, "state": {"waiting": {"reason": reason}}});
        let killed = of(json!([ended("proxy", 137), ended("before", 0), ended("last", 0)]));
        assert_eq!(
            killed["containers"][0],
            json!({"name": "proxy", "init": true, "sidecar": true, "state": "terminated", "exitCode": 137})
        );
        for (states, reason, message) in [
            (
                json!([runs("proxy"), waits("before", "ImagePullBackOff")]),
                "Init:ImagePullBackOff",
                "init container before",
            ),
            (
                json!([runs("proxy"), runs("before"), waits("last", "PodInitializing")]),
                "Init:1/3",
                "init container before",
            ),
            (json!([runs("proxy"), ended("before", 0), ended("last", 3)]), "Init:ExitCode:3", "init container last"),
        ] {
            let reported = of(states);
            assert_eq!((&reported["reason"], &reported["message"]), (&json!(reason), &json!(message)));
        }
        assert_eq!(of(json!([runs("proxy"), ended("before", 0), ended("last", 0)])).get("reason"), None);
    }

    #[test]
    fn the_default_container_is_that_of_the_annotation() {
        let mut meshed = pod("p", "2026", json!({}));
        meshed["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/default-container": "side"});
        let pods = read(json!([meshed]));
        assert_eq!(pods.pods[0].default_container, "side");
        assert!(["main", "side", "before"].iter().all(|name| pods.pods[0].has_container(name)));
    }

    #[test]
    fn strangers_are_left_out_and_the_newest_come_first() {
        let mut stranger = pod("stranger", "2027", json!({}));
        stranger["metadata"]["ownerReferences"] = json!([{"uid": "x"}]);
        let pods = read(json!([pod("a", "2025", json!({})), pod("b", "2026", json!({})), stranger]));
        let names: Vec<_> = pods.pods.iter().map(|pod| &pod.name[..]).collect();
        assert_eq!((names, pods.is_truncated), (vec!["b", "a"], false));
        assert_eq!(pods.pods[0].default_container, "main");
        let has = |name| pods.pods[0].has_container(name);
        assert!(has("before") && has("main") && has("side") && !has("x"));
        assert!(Pods::default().with_page(&mut r#"{"kind": "Status"}"#.as_bytes(), "u").is_err());
    }

    #[test]
    fn a_pod_that_is_too_long_is_an_invalid_response_and_not_a_lost_connection() {
        let long = format!(r#"{{"kind": "PodList", "items": [{{"x": "{}"}}]}}"#, "x".repeat(11 << 20));
        let error = Pods::default().with_page(&mut long.as_bytes(), "u").unwrap_err();
        let failure = response(200, "").broken(error, "a list of pods");
        assert!(
            matches!(&failure, Failure::InvalidResponse(why) if why.contains("an object has more than")),
            "{failure:?}"
        );
    }

    #[test]
    fn what_is_held_is_bounded() {
        let message = "\u{e9}".repeat(5 << 10);
        let status = |containers: usize| {
            let ended = json!({"terminated": {"exitCode": 1, "message": message}});
            let container = |number| json!({"name": format!("c{number}"), "state": ended});
            json!({"phase": "Failed", "containerStatuses": (0..containers).map(container).collect::<Vec<_>>()})
        };
        let one = read(json!([pod("p", "2026", status(1))]));
        assert_eq!((one.pods[0].containers[0].message.len(), one.is_truncated), (MAX_MESSAGE, false));
        let wide = read(json!([pod("p", "2026", status(1000))]));
        let kept = &wide.pods[0].containers;
        assert!(wide.is_truncated && kept.len() < 10);
        assert!(kept.iter().enumerate().all(|(at, container)| container.name == format!("c{at}")), "each is itself");
        let escaped = read(json!([pod("p", "2026", json!({"message": "\u{1}".repeat(4 << 10), "phase": "Failed"}))]));
        assert!(serde_json::to_vec(&escaped.pods).unwrap().len() <= MAX_POD, "as JSON");
        let many =
            |count: usize| read((0..count).map(|number| pod(&format!("p{number:03}"), "2026", status(1))).collect());
        let many = many(40);
        assert!(many.is_truncated && (10..16).contains(&many.pods.len()), "{}", many.pods.len());
        assert_eq!(many.pods[0].name, "p039");
    }
}
