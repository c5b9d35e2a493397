use crate::support::dispatcher::{AS_IS, Dispatcher};
use crate::support::eventually;
use crate::support::http::{JSON, request};
use crate::support::kubelet::ends;
use crate::support::namespace::Namespace;
use serde_json::{Value, json};
use std::time::Duration;

/// A manifest that the API server takes.
pub(crate) fn manifest(metadata: Value, annotations: Value) -> String {
    json!({
        "metadata": metadata,
        "spec": {"backoffLimit": 0, "template": {
            "metadata": {"annotations": annotations},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "job", "image": "busybox"}]},
        }},
    })
    .to_string()
}

fn named(name: &str) -> String {
    manifest(json!({"name": name}), json!({}))
}

#[test]
fn a_post_creates_a_job_and_a_repeated_one_returns_it() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[]);
    let body = r#"{"id": "a", "phrase": "hello"}"#;
    let reply = dispatcher.post("/job", body);
    assert_eq!((reply.code, reply.json()), (201, json!({"id": "demo-job-a"})));
    assert_eq!(reply.header("Location"), Some("job/demo-job-a"));
    let job = namespace.job("demo-job-a").expect("the Job is there");
    assert_eq!(job["spec"]["template"]["spec"]["containers"][0]["args"], json!(["hello"]));
    assert_eq!(job["metadata"]["labels"]["app.kubernetes.io/managed-by"], "k8s-job-dispatcher");
    assert_eq!(job["metadata"]["managedFields"][0]["manager"], "k8s-job-dispatcher");

    let again = dispatcher.post("/job", r#"{"phrase":"hello","id":"a"}"#);
    assert_eq!((again.code, again.json()), (200, json!({"id": "demo-job-a"})));
    assert_eq!(again.header("Location"), Some("job/demo-job-a"));

    for other in [("/job", r#"{"id": "a", "phrase": "bye"}"#), ("/job/x", body), ("/job?x", body)] {
        assert_eq!(dispatcher.post(other.0, other.1).error(), (409, "AlreadyExists".into()), "{other:?}");
    }
    assert_eq!(namespace.job_names(), ["demo-job-a"]);
}

#[test]
fn status_while_running_and_after_the_end() {
    let namespace = Namespace::new();
    namespace.cluster.needs_controller_manager();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    for (name, exit_code, condition) in [("good", 0, "Complete"), ("bad", 3, "Failed")] {
        let annotations = ends(Duration::from_millis(700), exit_code, "said at the end");
        assert_eq!(dispatcher.post("/job", &manifest(json!({"name": name}), annotations)).code, 201);
        let status = || {
            let reply = dispatcher.get(&format!("/job/{name}"));
            assert_eq!((reply.code, &reply.json()["id"]), (200, &json!(name)));
            reply.json()["status"].clone()
        };
        eventually("the Job to run", || (status()["active"] == 1).then_some(()));
        let last = eventually("the Job to end", || {
            let status = status();
            let conditions = status["conditions"].as_array().into_iter().flatten();
            let is_over = conditions.filter(|c| c["type"] == condition && c["status"] == "True").count() == 1;
            is_over.then_some(status)
        });
        let count = if exit_code == 0 { &last["succeeded"] } else { &last["failed"] };
        assert_eq!(count, 1, "{last}");
    }
}

#[test]
fn only_our_jobs_are_shown_and_ids_are_not_paths() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    let manifest: Value = serde_json::from_str(&named("theirs")).unwrap();
    namespace.admin().create(&namespace.jobs(), manifest);
    assert_eq!(dispatcher.post("/job", &named("ours")).code, 201);
    assert_eq!(dispatcher.get("/job/ours").code, 200);
    assert_eq!(dispatcher.get("/job/ours/?watch=1").code, 200);
    assert_eq!(dispatcher.get("/job/ours?watch=1").code, 200);
    let no_such_job = dispatcher.get("/job/unknown");
    assert_eq!(no_such_job.error(), (404, "NotFound".into()));
    let theirs = dispatcher.get("/job/theirs");
    assert_eq!(theirs.body, no_such_job.body, "somebody else's Job looks like none");
    let (long, label) = ("a".repeat(254), "a".repeat(64));
    for id in [
        "ours%2fstatus",
        "ours%2Fstatus",
        "..",
        "%2e%2e",
        ".",
        "ours%252fstatus",
        "%00",
        "%ff",
        "OURS",
        "ours%20",
        "*",
        &long,
        &label,
    ] {
        assert_eq!(dispatcher.get(&format!("/job/{id}")).error(), (404, "NotFound".into()), "{id}");
    }
    assert_eq!(dispatcher.get("/job/ours/status").error().0, 405);
    assert_eq!(dispatcher.get("/job/").error(), (405, "MethodNotAllowed".into()));
    let head = {
        let mut line = dispatcher.line();
        line.send(request("HEAD", "/job/ours", "", ""));
        line.receive_for("HEAD").unwrap()
    };
    assert_eq!((head.code, head.body.len()), (200, 0));
    assert!(head.header("Content-Length").is_some_and(|length| length != "0"));
    assert_eq!(dispatcher.post("/job", &named("theirs")).error(), (409, "AlreadyExists".into()));
}

#[test]
fn the_dispatcher_chooses_names() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    let id = |metadata| {
        let reply = dispatcher.post("/job", &manifest(metadata, json!({})));
        assert_eq!(reply.code, 201);
        reply.json()["id"].as_str().unwrap().to_owned()
    };
    let (first, second) = (id(json!({"generateName": "batch-"})), id(json!({"generateName": "batch-"})));
    assert!(first.starts_with("batch-") && first.len() == "batch-".len() + 10 && first != second, "{first} {second}");
    let default = id(json!({}));
    assert!(default.starts_with("job-") && default.len() == "job-".len() + 10, "{default}");
    let long = id(json!({"generateName": "x".repeat(80)}));
    assert_eq!(long.len(), 62);
    assert_eq!(id(json!({"name": "both", "generateName": "x-"})), "both");
    assert!(namespace.job("both").unwrap()["metadata"]["generateName"].is_null());
    assert_eq!(namespace.job_names().len(), 5);
}

#[test]
fn a_dry_run_on_the_server_stores_nothing() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--dry-run=server"]);
    for _ in 0..2 {
        let reply = dispatcher.post("/job", &named("a"));
        assert_eq!((reply.code, reply.json()), (200, json!({"id": "a", "dryRun": true})));
    }
    let invalid = dispatcher.post("/job", r#"{"metadata": {"name": "a"}, "spec": {}}"#);
    assert_eq!(invalid.error(), (422, "Invalid".into()));
    assert_eq!(namespace.job_names(), [""; 0]);
}

#[test]
fn the_default_filters_pod_satisfies_restricted_pod_security() {
    let namespace = Namespace::with(json!({"pod-security.kubernetes.io/enforce": "restricted"}), &["create", "get"]);
    namespace.cluster.needs_controller_manager();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[]);
    assert_eq!(dispatcher.post("/job", r#"{"id": 1}"#).code, 201);
    let pods = format!("/api/v1/namespaces/{}/pods", namespace.name);
    let pod = eventually("the pod", || namespace.admin().get(&pods).1["items"].get(0).cloned());
    assert_eq!(pod["spec"]["securityContext"]["runAsUser"], 65532);
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
    assert!(dispatcher.log().iter().all(|line| !line.contains("warns")), "{:?}", dispatcher.log());
}

#[test]
fn readiness_follows_the_api_server() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[]);
    assert_eq!(dispatcher.get("/health/ready").code, 200);
    assert_eq!(dispatcher.get("/health/live").code, 200);
    let live = dispatcher.get("/health/live");
    let text = Some("text/plain; charset=utf-8");
    assert_eq!((live.code, &live.body[..], live.header("Content-Type")), (200, &b"ok"[..], text));
    assert_eq!(dispatcher.get("/health/ready").body, b"ok");
    assert_eq!(dispatcher.send(request("POST", "/health/ready", JSON, "1")).header("Allow"), Some("GET, HEAD"));
}
