//! Runs and ends pods as a kubelet would: there are no nodes, so somebody has to write their status.
//!
//! A pod whose template has the annotation `tests/ends-after` (milliseconds) is ready at once, and ends that long after it appeared, with the exit code in
//! `tests/exit-code` (default 0) and the termination message in `tests/message`.

use super::api::Api;
use super::namespace::Namespace;
use super::path;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const AFTER: &str = "tests/ends-after";
const EXIT_CODE: &str = "tests/exit-code";
const MESSAGE: &str = "tests/message";
const AGAIN: Duration = Duration::from_millis(200);

/// The annotations that make a pod end.
pub(crate) fn ends(after: Duration, exit_code: i32, message: &str) -> Value {
    json!({AFTER: after.as_millis().to_string(), EXIT_CODE: exit_code.to_string(), MESSAGE: message})
}

/// A filter of the repository, changed so that its pods end.
pub(crate) fn ending(namespace: &Namespace, filter: &str, after: Duration) -> PathBuf {
    let text = std::fs::read_to_string(path(filter)).unwrap();
    let annotations = ends(after, 0, "the end");
    namespace.folder.write("filter.jq", &format!("{text}\n| .spec.template.metadata.annotations += {annotations}"))
}

pub(crate) fn start(admin: Api) {
    let watch = move || {
        // those that run; and those that have ended since the watch began, which may be reported as running for a moment
        let seen: Arc<Mutex<HashMap<String, bool>>> = Arc::default();
        loop {
            // when etcd was restored from a backup, pods that had ended run again
            seen.lock().unwrap().retain(|_, is_running| *is_running);
            // without a resourceVersion a watch begins with what is there; it ends every few minutes, or with its API server
            admin.watch("/api/v1/pods?watch=1&timeoutSeconds=300", |event| {
                let pod = &event["object"];
                let annotations = &pod["metadata"]["annotations"];
                let Some(after) = annotations[AFTER].as_str().and_then(|text| text.parse().ok()) else { return };
                let has_ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
                let uid = pod["metadata"]["uid"].to_string();
                if !has_ended && !seen.lock().unwrap().contains_key(&uid) {
                    seen.lock().unwrap().insert(uid.clone(), true);
                    let (admin, pod, seen) = (admin.clone(), pod.clone(), seen.clone());
                    thread::spawn(move || {
                        run(&admin, &pod);
                        thread::sleep(Duration::from_millis(after));
                        end(&admin, &pod);
                        seen.lock().unwrap().insert(uid, false)
                    });
                }
            });
            thread::sleep(AGAIN);
        }
    };
    thread::Builder::new().name("kubelet".into()).spawn(watch).unwrap();
}

fn run(admin: &Api, pod: &Value) {
    let state = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
    patch(admin, pod, "Running", true, &state)
}

fn end(admin: &Api, pod: &Value) {
    let annotations = &pod["metadata"]["annotations"];
    let code: i32 = annotations[EXIT_CODE].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (phase, reason) = if code == 0 { ("Succeeded", "Completed") } else { ("Failed", "Error") };
    let state = json!({"terminated": {
        "exitCode": code, "reason": reason, "message": annotations[MESSAGE],
        "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z",
    }});
    patch(admin, pod, phase, false, &state)
}

/// `state`: of each container.
fn patch(admin: &Api, pod: &Value, phase: &str, is_ready: bool, state: &Value) {
    let status = |container: &Value| {
        json!({
            "name": container["name"], "image": container["image"], "imageID": "x", "ready": is_ready, "restartCount": 0,
            "started": is_ready, "state": state,
        })
    };
    let containers: Vec<Value> = pod["spec"]["containers"].as_array().into_iter().flatten().map(status).collect();
    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
    let path = format!("/api/v1/namespaces/{}/pods/{}/status", text("namespace"), text("name"));
    let conditions = json!([{"type": "Ready", "status": if is_ready { "True" } else { "False" }}]);
    let status = json!({"phase": phase, "conditions": conditions, "containerStatuses": containers});
    admin.try_call("PATCH", &path, Some(&json!({ "status": status })));
}
