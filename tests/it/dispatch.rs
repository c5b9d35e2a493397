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

/// One that no controller changes.
pub(crate) fn suspended(metadata: Value) -> String {
    let mut job: Value = serde_json::from_str(&manifest(metadata, json!({}))).unwrap();
    job["spec"]["suspend"] = json!(true);
    job.to_string()
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
    assert_eq!((reply.code, &reply.json()["id"]), (201, &json!("demo-job-a")));
    assert_eq!(reply.header("Location"), Some("job/demo-job-a"));
    let job = namespace.job("demo-job-a").expect("the Job is there");
    assert_eq!(job["spec"]["template"]["spec"]["containers"][0]["args"], json!(["hello"]));
    assert_eq!(job["metadata"]["labels"]["app.kubernetes.io/managed-by"], "k8s-job-dispatcher");
    assert_eq!(job["metadata"]["managedFields"][0]["manager"], "k8s-job-dispatcher");

    let again = dispatcher.post("/job", r#"{"phrase":"hello","id":"a"}"#);
    assert_eq!((again.code, &again.json()["id"]), (200, &json!("demo-job-a")));
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
    for (name, exit_code, state, condition) in [("good", 0, "succeeded", "Complete"), ("bad", 3, "failed", "Failed")] {
        let annotations = ends(Duration::from_secs(3), exit_code, "said at the end");
        assert_eq!(dispatcher.post("/job", &manifest(json!({"name": name}), annotations)).code, 201);
        let job = || {
            let reply = dispatcher.get(&format!("/job/{name}"));
            assert_eq!((reply.code, &reply.json()["id"]), (200, &json!(name)));
            reply.json()
        };
        let first = eventually("the Job to run", || Some(job()).filter(|job| job["state"] == "running"));
        assert_eq!(first["started"], first["status"]["startTime"]);
        let last = eventually("the Job to end", || Some(job()).filter(|job| job["state"] == state));
        let count = if exit_code == 0 { &last["status"]["succeeded"] } else { &last["status"]["failed"] };
        let conditions = last["status"]["conditions"].as_array().unwrap();
        let condition = conditions.iter().find(|one| one["type"] == condition && one["status"] == "True").unwrap();
        assert_eq!((count, &last["reason"]), (&json!(1), &condition["reason"]), "{last}");
        assert_eq!(last["created"], first["created"]);
        assert!(last["finished"].as_str() >= last["started"].as_str(), "{last}");
    }
}

#[test]
fn states_before_the_start_and_while_deleted() {
    let namespace = Namespace::new();
    namespace.cluster.needs_controller_manager();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    let mut suspended: Value = serde_json::from_str(&named("suspended")).unwrap();
    suspended["spec"]["suspend"] = json!(true);
    let created = dispatcher.post("/job", &suspended.to_string()).json();
    assert_eq!((&created["state"], &created["status"]), (&json!("suspended"), &json!({})));
    let job = |name: &str| dispatcher.get(&format!("/job/{name}")).json();
    let last = eventually("the condition", || Some(job("suspended")).filter(|job| job["reason"] == "JobSuspended"));
    assert_eq!((&last["state"], &last["created"]), (&json!("suspended"), &created["created"]));

    let quota = json!({"metadata": {"name": "no-pods"}, "spec": {"hard": {"pods": "0"}}});
    namespace.admin().create(&format!("/api/v1/namespaces/{}/resourcequotas", namespace.name), quota);
    eventually("the quota", || {
        let reply = dispatcher.post("/job", &manifest(json!({"generateName": "quota-"}), json!({})));
        let id = reply.json()["id"].as_str().unwrap().to_owned();
        let events = format!("/api/v1/namespaces/{}/events?fieldSelector=involvedObject.name={id}", namespace.name);
        let is_refused = eventually("its first event", || {
            let (_, events) = namespace.admin().get(&events);
            let reasons: Vec<_> = events["items"].as_array()?.iter().map(|event| event["reason"].clone()).collect();
            (!reasons.is_empty()).then(|| reasons.contains(&json!("FailedCreate")))
        });
        is_refused.then(|| assert_eq!(job(&id)["state"], "waiting"))
    });

    let path = format!("{}/suspended", namespace.jobs());
    let finalizers = json!({"metadata": {"finalizers": ["tests.example/wait"]}});
    namespace.admin().patch(&path, finalizers);
    namespace.admin().try_call("DELETE", &path, None);
    eventually("it to be reported", || (job("suspended")["state"] == "deleting").then_some(()));
    namespace.admin().patch(&path, json!({"metadata": {"finalizers": null}}));
    eventually("it to be gone", || (dispatcher.get("/job/suspended").code == 404).then_some(()));
}

#[test]
fn an_answer_without_a_body_has_the_location() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    for (headers, applied) in
        [("Prefer: return=minimal\r\n", Some("return=minimal")), ("Ce-Specversion: 1.0\r\n", None)]
    {
        for code in [201, 200] {
            let mut line = dispatcher.line();
            let name = if applied.is_some() { "minimal" } else { "event" };
            line.send(request("POST", "/job", &format!("{JSON}{headers}"), &named(name)));
            let reply = line.receive().unwrap();
            assert_eq!((reply.code, reply.body.len(), reply.header("Content-Length")), (code, 0, Some("0")));
            assert_eq!(reply.header("Location"), Some(&*format!("job/{name}")));
            assert_eq!((reply.header("Preference-Applied"), reply.header("Content-Type")), (applied, None));
        }
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
    assert_eq!(dispatcher.get("/job/ours/?wait=0s").code, 200);
    assert_eq!(dispatcher.get("/job/ours?watch=1").error(), (400, "BadRequest".into()));
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
        let object = reply.json();
        assert_eq!((reply.code, &object["id"], &object["dryRun"]), (200, &json!("a"), &json!(true)));
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

#[test]
fn a_post_without_a_body_runs_the_filter_on_null() {
    let namespace = Namespace::new();
    let filter =
        format!("if . == null then {} else error(\"not null\") end", manifest(json!({"name": "ping"}), json!({})));
    let dispatcher = Dispatcher::for_namespace(&namespace, &[&filter]);
    for (text, code) in [
        ("POST /job HTTP/1.1\r\nHost: localhost\r\n\r\n", 201),
        ("POST /job HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n", 200),
        ("POST /job HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 0\r\n\r\n", 400),
        ("POST /job HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nnull", 415),
    ] {
        assert_eq!(dispatcher.send(text).code, code, "{text:?}");
    }
}

#[test]
fn pages_of_other_origins_can_neither_create_nor_delete() {
    let namespace = Namespace::with(json!({}), &["create", "get", "list", "watch", "delete"]);
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=delete"]);
    let body = manifest(json!({"name": "a"}), json!({}));
    assert_eq!(dispatcher.post("/job", &body).code, 201);
    for headers in [
        "Sec-Fetch-Site: cross-site\r\n",
        "Sec-Fetch-Site: same-site\r\n",
        "Origin: http://other\r\n",
        "Origin: null\r\n",
    ] {
        let post = dispatcher.send(request("POST", "/job", &format!("{JSON}{headers}"), &body));
        assert_eq!(post.error(), (403, "CrossOrigin".into()), "{headers}");
        assert_eq!(
            dispatcher.send(request("POST", "/job", headers, "")).error().0,
            403,
            "{headers} without a preflight"
        );
        assert_eq!(dispatcher.send(request("DELETE", "/job/a", headers, "")).error().0, 403, "{headers}");
        assert_eq!(dispatcher.send(request("GET", "/job/a", headers, "")).code, 200, "{headers}");
    }
    let ours = "Sec-Fetch-Site: same-origin\r\nOrigin: http://test\r\n";
    assert_eq!(dispatcher.send(request("DELETE", "/job/a", ours, "")).code, 202);
}
