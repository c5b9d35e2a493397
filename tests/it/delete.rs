use crate::dispatch::manifest;
use crate::support::dispatcher::{AS_IS, Dispatcher};
use crate::support::eventually;
use crate::support::http::{Reply, request};
use crate::support::kubelet::ends;
use crate::support::namespace::Namespace;
use crate::support::scripted::{Act, Scripted, job, status};
use serde_json::{Value, json};
use std::time::Duration;

const VERBS: [&str; 5] = ["create", "get", "list", "watch", "delete"];

fn delete(dispatcher: &Dispatcher, name: &str) -> Reply {
    dispatcher.send(request("DELETE", &format!("/job/{name}"), "", ""))
}

#[test]
fn a_job_is_deleted_with_its_pods() {
    let namespace = Namespace::with(json!({}), &VERBS);
    namespace.cluster.needs_controller_manager();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=delete"]);
    assert_eq!(
        dispatcher.post("/job", &manifest(json!({"name": "a"}), ends(Duration::from_secs(600), 0, ""))).code,
        201
    );
    let pods = format!("/api/v1/namespaces/{}/pods", namespace.name);
    let count = || namespace.admin().get(&pods).1["items"].as_array().unwrap().len();
    eventually("its pod", || (count() == 1).then_some(()));
    let reply = delete(&dispatcher, "a");
    assert_eq!((reply.code, &reply.json()["id"], &reply.json()["state"]), (202, &json!("a"), &json!("deleting")));
    let after = dispatcher.get("/job/a");
    assert!(after.code == 404 || after.json()["state"] == "deleting", "one reads what one wrote");
    eventually("it to be gone", || (delete(&dispatcher, "a").code == 404).then_some(()));
    eventually("its pod to be gone", || (count() == 0).then_some(()));
}

#[test]
fn again_while_it_is_deleted_and_others_jobs() {
    let namespace = Namespace::with(json!({}), &VERBS);
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=delete"]);
    let theirs: Value = serde_json::from_str(&manifest(json!({"name": "theirs"}), json!({}))).unwrap();
    namespace.admin().create(&namespace.jobs(), theirs);
    for name in ["theirs", "unknown", "OURS", "a%2fstatus"] {
        assert_eq!(delete(&dispatcher, name).error(), (404, "NotFound".into()), "{name}");
    }
    let held = manifest(json!({"name": "held", "finalizers": ["tests.example/wait"]}), json!({}));
    assert_eq!(dispatcher.post("/job", &held).code, 201);
    for _ in 0..3 {
        let reply = delete(&dispatcher, "held");
        assert_eq!((reply.code, &reply.json()["state"]), (202, &json!("deleting")));
    }
    namespace.admin().patch(&format!("{}/held", namespace.jobs()), json!({"metadata": {"finalizers": null}}));
    eventually("it to be gone", || (delete(&dispatcher, "held").code == 404).then_some(()));
    assert_eq!(namespace.job_names(), ["theirs"]);
}

#[test]
fn a_dry_run_deletes_nothing_and_off_is_as_if_it_were_not_there() {
    let namespace = Namespace::with(json!({}), &VERBS);
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    assert_eq!(dispatcher.post("/job", &manifest(json!({"name": "a"}), json!({}))).code, 201);
    let off = delete(&dispatcher, "a");
    assert_eq!((off.code, off.header("Allow")), (405, Some("GET, HEAD, POST")));
    let dry = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=delete", "--dry-run=server"]);
    let reply = delete(&dry, "a");
    assert_eq!((reply.code, &reply.json()["dryRun"]), (202, &json!(true)));
    assert!(namespace.job("a").unwrap()["metadata"].get("deletionTimestamp").is_none());
}

/// A Job of ours.
fn found(uid: &str) -> Act {
    let mut job: Value = serde_json::from_str(&job("a", json!({}))).unwrap();
    job["metadata"]["uid"] = json!(uid);
    Act::Answer(200, "", job.to_string())
}

fn is_gone() -> Act {
    Act::Answer(404, "", status(404, "NotFound", "jobs.batch \"a\" not found", json!({"kind": "jobs"})))
}

/// The answer, and the methods of the calls.
fn deleted_by(script: impl IntoIterator<Item = Act>) -> (u16, Vec<String>) {
    let server = Scripted::start(script);
    let dispatcher = Dispatcher::start(&[AS_IS, "--server", &server.url, "--namespace=ns", "--enable=delete"]);
    let code = delete(&dispatcher, "a").code;
    let seen = server.seen();
    for call in seen.iter().filter(|call| call.method == "DELETE") {
        let options: Value = serde_json::from_str(&call.body).unwrap();
        assert_eq!(options["preconditions"], json!({"uid": "u"}), "no other Job is deleted");
        assert_eq!(options["propagationPolicy"], "Background");
    }
    (code, seen.into_iter().map(|call| call.method).collect())
}

fn methods(words: &str) -> Vec<String> {
    words.split(' ').map(str::to_owned).collect()
}

#[test]
fn the_job_that_was_looked_at_is_deleted_and_no_other() {
    // another one has its name now
    let message = "Precondition failed: UID in precondition: u, UID in object meta: v";
    let conflict = Act::Answer(409, "", status(409, "Conflict", message, json!({"kind": "jobs"})));
    assert_eq!(deleted_by([found("u"), conflict]), (404, methods("GET DELETE")));
    assert_eq!(deleted_by([found("u"), is_gone()]), (404, methods("GET DELETE")));
}

#[test]
fn a_deletion_whose_response_is_lost_is_reported() {
    let message = "Precondition failed: UID in precondition: u, UID in object meta: v";
    let conflict = Act::Answer(409, "", status(409, "Conflict", message, json!({"kind": "jobs"})));
    for then in [is_gone(), conflict] {
        let script = [found("u"), Act::HangUp, then];
        assert_eq!(deleted_by(script), (202, methods("GET DELETE DELETE")));
    }
}

#[test]
fn a_denied_deletion_is_the_callers_affair() {
    let denied = "admission webhook \"keep.example\" denied the request: keep it";
    let act = Act::Answer(403, "", status(403, "Forbidden", denied, json!({})));
    assert_eq!(deleted_by([found("u"), act]), (422, methods("GET DELETE")));
}
