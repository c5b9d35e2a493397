//! What the scripted API server says to lists and watches, as a real one does.

use serde_json::{Value, json};

/// A watch's events, one to a line.
pub(crate) fn events(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

pub(crate) fn event(kind: &str, name: &str, version: u64, condition: Option<&str>) -> Value {
    json!({"type": kind, "object": job(name, "u", version, condition)})
}

/// A Job with our label. `condition`: the type of one that is true.
pub(crate) fn job(name: &str, uid: &str, version: u64, condition: Option<&str>) -> Value {
    let conditions: Vec<_> = condition.iter().map(|name| json!({"type": name, "status": "True"})).collect();
    json!({"kind": "Job", "metadata": {
        "name": name, "uid": uid, "resourceVersion": version.to_string(),
        "labels": {"app.kubernetes.io/managed-by": "k8s-job-dispatcher"},
    }, "status": {"conditions": conditions}})
}

pub(crate) fn bookmark(version: u64, is_end: bool) -> Value {
    let annotations = if is_end { json!({"k8s.io/initial-events-end": "true"}) } else { json!({}) };
    json!({"type": "BOOKMARK", "object": {"kind": "Job", "metadata": {
        "resourceVersion": version.to_string(), "annotations": annotations,
    }}})
}

/// A page of a list. `next`: the token for the page behind it.
pub(crate) fn page(version: u64, next: &str, items: &[Value]) -> String {
    let metadata = json!({"resourceVersion": version.to_string(), "continue": next});
    json!({"kind": "JobList", "metadata": metadata, "items": items}).to_string()
}
