//! Reads a list of pods: what callers are told of each, in bounded memory.

use super::answer::{Outcome, deserializer};
use super::client::{Call, Client, Verb};
use super::leaves::{Leaf, Leaves};
use super::stream::escaped;
use serde::Serialize;
use serde::de::DeserializeSeed;
use std::io::Read;
use std::time::Instant;

/// Bytes of all pods of an answer, up to 56 of which are made at once: what is held, and the text as JSON. A pod takes some six hundred
/// without messages.
const MAX_PODS: usize = 64 << 10;
/// Bytes of one pod: the kubelet keeps 12 KiB of messages for each.
const MAX_POD: usize = 16 << 10;
/// Pods of a page: the API server holds it whole.
const PAGE: usize = 500;
/// Pages that are read: pods come in the order of their names, and the newest may be the last.
const MAX_PAGES: usize = 20;
/// Bytes of one message: the kubelet keeps 4 KiB.
const MAX_MESSAGE: usize = 4 << 10;
/// Bytes of a text beside its characters.
const ENTRY: usize = 16;
/// What is read of a list; all else is skipped.
const WANTED: [&str; 8] = [
    "kind",
    "metadata/continue",
    "items/*/metadata/name",
    "items/*/metadata/creationTimestamp",
    "items/*/metadata/ownerReferences/*/uid",
    "items/*/spec/containers/*/name",
    "items/*/spec/initContainers/*/name",
    "items/*/status/",
];

/// Pods of one Job, the newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pods {
    pub(crate) pods: Vec<Pod>,
    /// Something is missing: older pods, for which there is no room, or parts of a pod.
    pub(crate) is_truncated: bool,
    /// For the next page.
    token: String,
}

/// What callers are told of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pod {
    pub(crate) name: String,
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    phase: String,
    /// Why it has no node, as `Unschedulable`, or why it has ended, as `Evicted`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    started: String,
    /// When its last container has ended, if all have.
    #[serde(skip_serializing_if = "String::is_empty")]
    finished: String,
    /// Init containers first.
    pub(crate) containers: Vec<Container>,
    /// Of `spec.containers`, the first.
    #[serde(skip)]
    pub(crate) first_container: String,
    /// Of `spec`, and its init containers.
    #[serde(skip)]
    other_containers: Vec<String>,
    #[serde(skip)]
    created: String,
    #[serde(skip)]
    is_owned: bool,
    /// Something of it is missing, for which there was no room.
    #[serde(skip)]
    pub(crate) is_cut: bool,
    #[serde(skip)]
    bytes: usize,
}

/// What callers are told of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Container {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    init: bool,
    state: State,
    /// Why it waits, or why its last run has ended.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    /// Of the same, as its termination message.
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    /// Of the run that has ended last.
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<i64>,
    #[serde(skip_serializing_if = "is_zero")]
    restarts: i64,
    /// A run before its present or last one has ended.
    #[serde(skip)]
    pub(crate) has_previous: bool,
}

/// The state of a container.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// Kubernetes' default.
    #[default]
    Waiting,
    Running,
    Terminated,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl Container {
    pub(crate) fn is_running(&self) -> bool {
        self.state == State::Running
    }

    /// Whether it has a log: of its present run, or of one that has ended.
    pub(crate) fn has_log(&self) -> bool {
        self.state != State::Waiting || self.has_previous
    }
}

impl Pod {
    /// Whether it runs no container any more.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(&self.phase[..], "Succeeded" | "Failed")
    }

    pub(crate) fn has_container(&self, name: &str) -> bool {
        self.first_container == name || self.other_containers.iter().any(|other| other == name)
    }

    /// `path`: below the pod. What there is no room for is left out, with all that follows.
    fn see(&mut self, path: &str, leaf: Leaf<'_>, uid: &str) {
        if self.bytes > MAX_POD && path != "metadata/ownerReferences/*/uid" {
            return;
        }
        let statuses = [("status/initContainerStatuses/*", true), ("status/containerStatuses/*", false)];
        for (prefix, is_init) in statuses {
            let Some(path) = path.strip_prefix(prefix) else { continue };
            if leaf == Leaf::Element && path.is_empty() {
                self.bytes += size_of::<Container>();
                if self.bytes <= MAX_POD {
                    self.containers.reserve_exact(1);
                    self.containers.push(Container { init: is_init, ..Container::default() })
                }
            } else if let Some(mut container) = self.containers.pop() {
                self.see_container(&mut container, path, leaf);
                self.containers.push(container)
            }
            return;
        }
        let Leaf::Text(text) = leaf else { return };
        let is_unscheduled = |reason: &str| matches!(reason, "Unschedulable" | "SchedulingGated");
        let place = match path {
            "metadata/ownerReferences/*/uid" => return self.is_owned |= text == uid,
            "metadata/name" => &mut self.name,
            "metadata/creationTimestamp" => &mut self.created,
            "spec/containers/*/name" if self.first_container.is_empty() => &mut self.first_container,
            "spec/initContainers/*/name" | "spec/containers/*/name" => {
                self.other_containers.push(String::new());
                self.other_containers.last_mut().expect("it was pushed")
            }
            "status/phase" => &mut self.phase,
            "status/startTime" => &mut self.started,
            "status/reason" => &mut self.reason,
            "status/message" => &mut self.message,
            "status/conditions/*/reason" if is_unscheduled(text) => &mut self.reason,
            // of the reason before it: the API server writes members in a fixed order
            "status/conditions/*/message" if self.message.is_empty() && is_unscheduled(&self.reason) => {
                &mut self.message
            }
            _ => return,
        };
        keep(&mut self.bytes, text, place)
    }

    /// `path`: below the container's status, with a slash.
    fn see_container(&mut self, container: &mut Container, path: &str, leaf: Leaf<'_>) {
        let (when, name) = path.rsplit_once('/').unwrap_or_default();
        // what it was before it runs or waits; its state comes first, for the API server writes members in a fixed order
        let is_last = when == "/lastState/terminated";
        container.has_previous |= is_last;
        if is_last && container.state == State::Terminated {
            return;
        }
        match (when, leaf) {
            ("", Leaf::Number(number)) if name == "restartCount" => container.restarts = number,
            ("/state/running", _) => container.state = State::Running,
            ("/state/terminated" | "/lastState/terminated", Leaf::Number(number)) => {
                let place = match name {
                    "exitCode" => &mut container.exit_code,
                    "signal" => &mut container.signal,
                    _ => return,
                };
                *place = Some(number);
                if !is_last {
                    container.state = State::Terminated
                }
            }
            (_, Leaf::Text(text)) => {
                let place = match (when, name) {
                    ("", "name") => &mut container.name,
                    ("/state/terminated", "finishedAt") if text > &self.finished[..] => &mut self.finished,
                    ("/state/waiting" | "/state/terminated" | "/lastState/terminated", "reason") => {
                        &mut container.reason
                    }
                    ("/state/waiting" | "/state/terminated" | "/lastState/terminated", "message") => {
                        &mut container.message
                    }
                    _ => return,
                };
                if !is_last || container.state == State::Running {
                    keep(&mut self.bytes, text, place)
                }
            }
            _ => (),
        }
    }
}

/// Copies a text if there is room for it.
fn keep(bytes: &mut usize, text: &str, place: &mut String) {
    let text = &text[..text.floor_char_boundary(MAX_MESSAGE)];
    // as JSON
    let length = |byte| match byte {
        b'"' | b'\\' => 2,
        0..0x20 => 6,
        _ => 1,
    };
    *bytes += text.bytes().map(length).sum::<usize>() + ENTRY;
    if *bytes <= MAX_POD {
        text.clone_into(place)
    }
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
    ) -> Outcome {
        let only = only.map(|name| format!("&fieldSelector=metadata.name%3D{}", escaped(name))).unwrap_or_default();
        let mut all = Pods::default();
        for _ in 0..MAX_PAGES {
            let next = match &all.token[..] {
                "" => String::new(),
                token => format!("&continue={}", escaped(token)),
            };
            let path = format!(
                "/api/v1/namespaces/{namespace}/pods?labelSelector=batch.kubernetes.io%2Fjob-name%3D{job}&limit={PAGE}{only}{next}"
            );
            let outcome = match self.call(Call { verb: Verb::Pods, path: &path, body: None, until }) {
                Ok(answer) => answer.outcome_of_pods(uid, all),
                Err(outcome) => outcome,
            };
            all = match outcome {
                Outcome::Pods(pods) if !pods.token.is_empty() => *pods,
                outcome => return outcome,
            }
        }
        all.is_truncated = true;
        Outcome::Pods(all.into())
    }
}

impl Pods {
    /// Adds those of a PodList that are owned by what has this uid: anybody may give a pod the label of a Job.
    pub(crate) fn read(mut self, json: &mut dyn Read, uid: &str) -> serde_json::Result<Self> {
        self.token.clear();
        let pods = &mut self;
        let (mut pod, mut path, mut is_list) = (Pod::default(), String::new(), false);
        let mut see = |path: &str, leaf: Leaf<'_>| {
            match (path, leaf) {
                (_, Leaf::Member) => {
                    return WANTED.iter().any(|wanted| wanted.starts_with(path) || path.starts_with(wanted));
                }
                ("kind", Leaf::Text(kind)) => is_list = kind == "PodList",
                ("metadata/continue", Leaf::Text(token)) => token.clone_into(&mut pods.token),
                ("items/*", Leaf::Element) => pods.add(std::mem::take(&mut pod)),
                _ => {
                    if let Some(path) = path.strip_prefix("items/*/") {
                        pod.see(path, leaf, uid)
                    }
                }
            }
            true
        };
        let mut json = deserializer(json);
        Leaves { path: &mut path, see: &mut see }.deserialize(&mut json)?;
        json.end()?; // so that the connection is used again
        if !is_list {
            return Err(serde::de::Error::custom("it is no PodList"));
        }
        self.add(pod);
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(items: Value) -> Pods {
        let list = json!({"kind": "PodList", "metadata": {"continue": ""}, "items": items}).to_string();
        Pods::default().read(&mut list.as_bytes(), "u").unwrap()
    }

    fn pod(name: &str, created: &str, status: Value) -> Value {
        json!({
            "metadata": {"name": name, "creationTimestamp": created, "ownerReferences": [{"uid": "x"}, {"uid": "u"}]},
            "spec": {"initContainers": [{"name": "before"}], "containers": [{"name": "main"}, {"name": "side"}]},
            "status": status,
        })
    }

    fn told(status: Value) -> Value {
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
        assert_eq!(told(status), want);
    }

    #[test]
    fn a_pod_tells_why_it_waits() {
        let unschedulable = json!({"phase": "Pending", "conditions": [
            {"type": "X", "status": "True", "message": "other"},
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"},
        ]});
        let want = json!({"name": "p", "phase": "Pending", "reason": "Unschedulable", "message": "0/3 nodes", "containers": []});
        assert_eq!(told(unschedulable), want);
        let waits = |last: Value| {
            let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}});
            told(json!({"phase": "Pending", "containerStatuses": [{"name": "c", "state": waiting, "lastState": last}]}))
        };
        assert_eq!(
            waits(json!({}))["containers"][0],
            json!({"name": "c", "state": "waiting", "reason": "CrashLoopBackOff", "message": "back-off"})
        );
        let last = json!({"terminated": {"exitCode": 2, "reason": "Error", "signal": 3}});
        let told = waits(last);
        let container = &told["containers"][0];
        assert_eq!((&container["exitCode"], &container["signal"]), (&json!(2), &json!(3)));
        assert_eq!(container["reason"], "CrashLoopBackOff");
    }

    #[test]
    fn strangers_are_left_out_and_the_newest_come_first() {
        let mut stranger = pod("stranger", "2027", json!({}));
        stranger["metadata"]["ownerReferences"] = json!([{"uid": "x"}]);
        let pods = read(json!([pod("a", "2025", json!({})), pod("b", "2026", json!({})), stranger]));
        let names: Vec<_> = pods.pods.iter().map(|pod| &pod.name[..]).collect();
        assert_eq!((names, pods.is_truncated), (vec!["b", "a"], false));
        assert_eq!(pods.pods[0].first_container, "main");
        let has = |name| pods.pods[0].has_container(name);
        assert!(has("before") && has("main") && has("side") && !has("x"));
        assert!(Pods::default().read(&mut r#"{"kind": "Status"}"#.as_bytes(), "u").is_err());
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
