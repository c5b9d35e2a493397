//! A pod of a list while it is read: what its members mean together is decided at its end.

use super::pod::{Container, ContainerState, MAX_MESSAGE, MAX_POD, Pod, keep};
use crate::kube::leaves::{Leaf, Leaves};
use serde::Deserializer;
use serde::de::DeserializeSeed;

/// What is read of a pod; all else is skipped.
const WANTED: [&str; 8] = [
    "metadata/name",
    "metadata/creationTimestamp",
    "metadata/ownerReferences/*/uid",
    "metadata/annotations/kubectl.kubernetes.io/default-container",
    "spec/containers/*/name",
    "spec/initContainers/*/name",
    "spec/initContainers/*/restartPolicy",
    "status/",
];

/// A pod as it is read. Members of an object may come in any order (RFC 8259 4), so what they mean together is decided at the end of the object.
#[derive(Debug, Default)]
struct Draft {
    pod: Pod,
    first_container: String,
    /// Of `spec`, with whether they are sidecars.
    init_containers: Vec<(String, bool)>,
    /// The last container's status, and what it has been.
    container: Option<(Container, ContainerRuns)>,
    condition: Condition,
    /// Reason and message of the condition that counts.
    disruption: Option<(String, String)>,
    unscheduled: Option<(String, String)>,
}

#[derive(Debug, Default)]
struct ContainerRuns {
    waiting: ContainerRun,
    is_running: bool,
    terminated: Option<ContainerRun>,
    /// `lastState.terminated`.
    last: Option<ContainerRun>,
}

#[derive(Debug, Default)]
struct ContainerRun {
    reason: String,
    message: String,
    exit_code: Option<i64>,
    signal: Option<i64>,
    finished: String,
}

#[derive(Debug, Default)]
struct Condition {
    kind: String,
    status: String,
    reason: String,
    message: String,
}

/// Reads a pod. `is_owner`: whether what has this uid should own it.
pub(super) fn pod_of<'de, D: Deserializer<'de>>(item: D, is_owner: &dyn Fn(&str) -> bool) -> Result<Pod, D::Error> {
    let (mut draft, mut path) = (Draft::default(), String::new());
    let mut see = |path: &str, leaf: Leaf<'_>| match leaf {
        Leaf::Member => WANTED.iter().any(|wanted| wanted.starts_with(path) || path.starts_with(wanted)),
        leaf => {
            draft.see(path, leaf, is_owner);
            true
        }
    };
    Leaves { path: &mut path, see: &mut see }.deserialize(item)?;
    Ok(draft.finish())
}

impl Draft {
    /// `path`: below the pod. What there is no room for is left out, with all that follows.
    fn see(&mut self, path: &str, leaf: Leaf<'_>, is_owner: &dyn Fn(&str) -> bool) {
        if self.pod.bytes > MAX_POD && path != "metadata/ownerReferences/*/uid" {
            return;
        }
        let statuses = [("status/initContainerStatuses/*", true), ("status/containerStatuses/*", false)];
        for (prefix, init) in statuses {
            let Some(path) = path.strip_prefix(prefix) else { continue };
            if leaf == Leaf::Element && path.is_empty() {
                self.end_container();
                self.container = Some((Container { init, ..Container::default() }, ContainerRuns::default()))
            } else if let Some((container, runs)) = &mut self.container {
                see_container(container, runs, path, leaf)
            }
            return;
        }
        let pod = &mut self.pod;
        match (path, leaf) {
            ("status/conditions/*", Leaf::Element) => return self.end_condition(),
            ("spec/initContainers/*", Leaf::Element) => {
                pod.bytes += size_of::<(String, bool)>();
                return self.init_containers.push(Default::default());
            }
            ("metadata/ownerReferences/*/uid", Leaf::Text(text)) => return pod.is_owned |= is_owner(text),
            _ => (),
        }
        let Leaf::Text(text) = leaf else { return };
        let place = match path {
            "metadata/name" => &mut pod.name,
            "metadata/creationTimestamp" => &mut pod.created,
            "metadata/annotations/kubectl.kubernetes.io/default-container" => &mut pod.default_container,
            "spec/containers/*/name" if self.first_container.is_empty() => &mut self.first_container,
            "spec/containers/*/name" => {
                pod.other_containers.push(String::new());
                pod.other_containers.last_mut().expect("it was pushed")
            }
            "spec/initContainers/*/name" => match self.init_containers.last_mut() {
                Some((name, _)) => name,
                None => return,
            },
            "spec/initContainers/*/restartPolicy" => {
                if let Some((_, is_sidecar)) = self.init_containers.last_mut() {
                    *is_sidecar = text == "Always"
                }
                return;
            }
            "status/phase" => &mut pod.phase,
            "status/startTime" => &mut pod.started,
            "status/reason" => &mut pod.reason,
            "status/message" => &mut pod.message,
            "status/conditions/*/type" => return note(text, &mut self.condition.kind),
            "status/conditions/*/status" => return note(text, &mut self.condition.status),
            "status/conditions/*/reason" => return note(text, &mut self.condition.reason),
            "status/conditions/*/message" => return note(text, &mut self.condition.message),
            _ => return,
        };
        keep(&mut pod.bytes, text, place)
    }

    fn end_condition(&mut self) {
        let Condition { kind, status, reason, message } = std::mem::take(&mut self.condition);
        if kind == "DisruptionTarget" && status == "True" {
            self.disruption = Some((reason, message))
        } else if matches!(&reason[..], "Unschedulable" | "SchedulingGated") {
            self.unscheduled = Some((reason, message))
        }
    }

    fn end_container(&mut self) {
        let Some((mut container, runs)) = self.container.take() else { return };
        let pod = &mut self.pod;
        container.has_previous = runs.last.is_some();
        let ContainerRuns { waiting, is_running, terminated, last } = runs;
        // the texts are those of the present state, the exit code that of the run that has ended last
        let (texts, ended) = match (terminated, is_running) {
            (Some(run), _) => {
                container.state = ContainerState::Terminated;
                pod.finished = run.finished.clone().max(std::mem::take(&mut pod.finished));
                ((run.reason, run.message), Some((run.exit_code, run.signal)))
            }
            (None, true) => {
                container.state = ContainerState::Running;
                let last = last.unwrap_or_default();
                ((last.reason, last.message), Some((last.exit_code, last.signal)))
            }
            (None, false) => ((waiting.reason, waiting.message), last.map(|last| (last.exit_code, last.signal))),
        };
        (container.exit_code, container.signal) = ended.unwrap_or_default();
        pod.bytes += size_of::<Container>();
        let name = std::mem::take(&mut container.name);
        keep(&mut pod.bytes, &name, &mut container.name);
        keep(&mut pod.bytes, &texts.0, &mut container.reason);
        keep(&mut pod.bytes, &texts.1, &mut container.message);
        if !container.name.is_empty() {
            pod.containers.reserve_exact(1);
            pod.containers.push(container)
        }
    }

    fn finish(mut self) -> Pod {
        self.end_container();
        self.end_condition();
        let Draft { mut pod, first_container, init_containers, disruption, unscheduled, .. } = self;
        for container in pod.containers.iter_mut().filter(|container| container.init) {
            container.sidecar = init_containers.iter().any(|(name, is_sidecar)| *is_sidecar && *name == container.name)
        }
        pod.containers.sort_by_key(|container| !container.init);
        let why = disruption.or(unscheduled).or_else(|| held_up(&pod, &init_containers));
        if let Some((reason, message)) = why.filter(|_| pod.reason.is_empty()) {
            keep(&mut pod.bytes, &reason, &mut pod.reason);
            keep(&mut pod.bytes, &message, &mut pod.message)
        }
        let names = init_containers.into_iter().map(|(name, _)| name);
        pod.other_containers.extend(names);
        // the annotation may name what is not there
        let is_there =
            pod.default_container == first_container || pod.other_containers.contains(&pod.default_container);
        match is_there {
            true => pod.other_containers.push(first_container),
            false => pod.default_container = first_container,
        }
        pod
    }
}

/// The init container that the others wait for, with the reason in kubectl's words.
fn held_up(pod: &Pod, init_containers: &[(String, bool)]) -> Option<(String, String)> {
    if pod.has_ended() {
        return None;
    }
    let is_done = |container: &Container| match container.state {
        ContainerState::Terminated => container.exit_code == Some(0),
        ContainerState::Running => container.sidecar,
        ContainerState::Waiting => false,
    };
    let init = || pod.containers.iter().filter(|container| container.init);
    let container = init().find(|container| !is_done(container))?;
    let done = init().take_while(|container| is_done(container)).count();
    let why = match (&container.state, &container.reason[..]) {
        (ContainerState::Waiting, "" | "PodInitializing") | (ContainerState::Running, _) => {
            format!("{done}/{}", init_containers.len())
        }
        (ContainerState::Terminated, "") => format!("ExitCode:{}", container.exit_code.unwrap_or_default()),
        (_, reason) => reason.to_owned(),
    };
    let message = match &container.message[..] {
        "" => format!("init container {}", container.name),
        message => format!("init container {}: {message}", container.name),
    };
    Some((format!("Init:{why}"), message))
}

/// `path`: below the container's status, with a slash.
fn see_container(container: &mut Container, runs: &mut ContainerRuns, path: &str, leaf: Leaf<'_>) {
    let (when, name) = path.rsplit_once('/').unwrap_or_default();
    let run = match when {
        "" => {
            match (name, leaf) {
                ("name", Leaf::Text(text)) => note(text, &mut container.name),
                ("restartCount", Leaf::Number(number)) => container.restarts = number,
                _ => (),
            }
            return;
        }
        "/state/running" => return runs.is_running = true,
        "/state/waiting" => &mut runs.waiting,
        "/state/terminated" => runs.terminated.get_or_insert_default(),
        "/lastState/terminated" => runs.last.get_or_insert_default(),
        _ => return,
    };
    match (name, leaf) {
        ("exitCode", Leaf::Number(number)) => run.exit_code = Some(number),
        ("signal", Leaf::Number(number)) => run.signal = Some(number),
        ("reason", Leaf::Text(text)) => note(text, &mut run.reason),
        ("message", Leaf::Text(text)) => note(text, &mut run.message),
        ("finishedAt", Leaf::Text(text)) => note(text, &mut run.finished),
        _ => (),
    }
}

/// Copies a text until the end of its object.
fn note(text: &str, place: &mut String) {
    text[..text.floor_char_boundary(MAX_MESSAGE)].clone_into(place)
}
