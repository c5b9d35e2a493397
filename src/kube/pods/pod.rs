//! What callers see of a pod and its containers.

use serde::Serialize;

/// Bytes of one pod: the kubelet keeps 12 KiB of messages for each.
pub(super) const MAX_POD: usize = 16 << 10;
/// Bytes of one message: the kubelet keeps 4 KiB.
pub(super) const MAX_MESSAGE: usize = 4 << 10;
/// Bytes of a text beside its characters.
const ENTRY: usize = 16;

/// What callers see of a pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Pod {
    pub(crate) name: String,
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub(super) phase: String,
    /// Why it has no node (`Unschedulable`), is held up (`Init:ImagePullBackOff`, in kubectl's words), is being disrupted
    /// (`PreemptionByScheduler`), or has ended (`Evicted`).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) started: String,
    /// When its last container has ended, if all have.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) finished: String,
    /// Init containers first.
    pub(crate) containers: Vec<Container>,
    /// The one that an annotation names, or the first of `spec.containers`.
    #[serde(skip)]
    pub(crate) default_container: String,
    /// Of `spec`, and its init containers.
    #[serde(skip)]
    pub(super) other_containers: Vec<String>,
    #[serde(skip)]
    pub(super) created: String,
    #[serde(skip)]
    pub(super) is_owned: bool,
    /// Something of it is missing, for which there was no room.
    #[serde(skip)]
    pub(crate) is_cut: bool,
    #[serde(skip)]
    pub(super) bytes: usize,
}

/// What callers see of a container.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Container {
    pub(crate) name: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) init: bool,
    /// An init container that runs beside the others to the end (`restartPolicy: Always`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) sidecar: bool,
    pub(super) state: ContainerState,
    /// Why it waits, or why its last run has ended.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) reason: String,
    /// Of the same, as its termination message.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) message: String,
    /// Of the run that has ended last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) signal: Option<i64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) restarts: i64,
    /// A run before its present or last one has ended.
    #[serde(skip)]
    pub(crate) has_previous: bool,
}

/// The state of a container.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ContainerState {
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
        self.state == ContainerState::Running
    }

    /// Whether it has a log: of its present run, or of one that has ended.
    pub(crate) fn has_log(&self) -> bool {
        self.state != ContainerState::Waiting || self.has_previous
    }
}

impl Pod {
    /// Whether it runs no container any more.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(&self.phase[..], "Succeeded" | "Failed")
    }

    pub(crate) fn has_container(&self, name: &str) -> bool {
        self.default_container == name || self.other_containers.iter().any(|other| other == name)
    }
}

/// Copies a text if there is room for it.
pub(super) fn keep(bytes: &mut usize, text: &str, place: &mut String) {
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
