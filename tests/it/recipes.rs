use crate::support::dispatcher::Dispatcher;
use crate::support::http::Reply;
use crate::support::kubelet::ending;
use crate::support::namespace::Namespace;
use crate::support::{eventually, path};
use serde_json::{Value, json};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Applies a recipe's file as its text says.
///
/// Errors: kubectl's.
pub(crate) fn try_apply(namespace: &Namespace, file: &str) -> Result<(), String> {
    let file = path(&format!("deploy/recipes/{file}"));
    let mut kubectl = namespace.cluster.kubectl();
    let output = kubectl.args(["--namespace", &namespace.name, "apply", "--filename", &file]).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn apply(namespace: &Namespace, file: &str) {
    try_apply(namespace, file).unwrap();
    // a quota is not known to have room before it has been counted
    let quotas = format!("/api/v1/namespaces/{}/resourcequotas", namespace.name);
    eventually("quotas to be counted", || {
        let quotas = namespace.admin().get(&quotas).1;
        quotas["items"].as_array().unwrap().iter().all(|quota| quota["status"]["used"].is_object()).then_some(())
    });
}

fn dispatcher(namespace: &Namespace, filter: &str, after: Duration) -> Dispatcher {
    let filter = ending(namespace, filter, after);
    Dispatcher::for_namespace(namespace, &["--from-file", filter.to_str().unwrap()])
}

/// The pods that have not ended.
fn running(namespace: &Namespace) -> Vec<Value> {
    let pods = namespace.admin().get(&format!("/api/v1/namespaces/{}/pods", namespace.name)).1;
    let pods = pods["items"].as_array().unwrap().iter();
    pods.filter(|pod| pod["status"]["phase"] != "Succeeded").cloned().collect()
}

pub(crate) fn is_complete(reply: &Reply) -> bool {
    let status = &reply.json()["status"];
    let conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.filter(|condition| condition["type"] == "Complete" && condition["status"] == "True").count() == 1
}

fn id(reply: &Reply) -> String {
    assert_eq!(reply.code, 201, "{:?}", String::from_utf8_lossy(&reply.body));
    reply.json()["id"].as_str().unwrap().to_owned()
}

#[test]
fn one_pod_at_a_time_and_429_when_the_backlog_is_full() {
    let namespace = Namespace::new();
    apply(&namespace, "one-at-a-time/quota.yaml");
    let dispatcher = dispatcher(&namespace, "src/default.jq", Duration::from_millis(600));
    let ids = [1, 2, 3].map(|number| id(&dispatcher.post("/job", &format!("{{\"id\": {number}}}"))));
    let full = dispatcher.post("/job", r#"{"id": 4}"#);
    assert_eq!((full.error(), full.header("Retry-After")), ((429, "QuotaExceeded".into()), Some("10")));

    let events = format!("/api/v1/namespaces/{}/events", namespace.name);
    eventually("a Job that waits to say why", || {
        let events = namespace.admin().get(&events).1;
        let mut events = events["items"].as_array().unwrap().iter();
        events.find(|event| {
            event["reason"] == "FailedCreate" && event["message"].as_str().unwrap().contains("exceeded quota")
        })?;
        Some(())
    });
    let waits = |id: &String| dispatcher.get(&format!("/job/{id}")).json()["status"].get("active").is_none();
    assert!(ids.iter().any(waits), "a Job that waits has no `active`");
    eventually("all Jobs to be complete", || {
        assert!(running(&namespace).len() <= 1, "one pod at a time");
        ids.iter().all(|id| is_complete(&dispatcher.get(&format!("/job/{id}")))).then_some(())
    });
}

#[test]
fn two_classes_have_separate_limits() {
    let namespace = Namespace::new();
    apply(&namespace, "two-classes/classes.yaml");
    let dispatcher = dispatcher(&namespace, "deploy/recipes/two-classes/filter.jq", Duration::from_secs(2));
    assert_eq!(dispatcher.post("/job", "{}").error(), (422, "FilterError".into()));
    let mut ids = Vec::new();
    for (class, count) in [("bulk", 2), ("urgent", 3)] {
        ids.extend((0..count).map(|_| id(&dispatcher.post(&format!("/job/{class}"), r#"{"phrase": "hi"}"#))));
    }
    let mut most = [0, 0];
    eventually("all Jobs to be complete", || {
        let running = running(&namespace);
        let of = |class| running.iter().filter(|pod| pod["spec"]["priorityClassName"] == class).count();
        let now = [of("jobs-bulk"), of("jobs-urgent")];
        most = [most[0].max(now[0]), most[1].max(now[1])];
        ids.iter().all(|id| is_complete(&dispatcher.get(&format!("/job/{id}")))).then_some(())
    });
    assert_eq!(most, [1, 2], "bulk and urgent pods at once");
}

#[test]
fn pods_have_what_a_cluster_autoscaler_reads() {
    let namespace = Namespace::new();
    apply(&namespace, "cluster-autoscaler/headroom.yaml");
    let filter = path("deploy/recipes/cluster-autoscaler/filter.jq");
    let dispatcher = Dispatcher::for_namespace(&namespace, &["--from-file", &filter]);
    let id = id(&dispatcher.post("/job", r#"{"phrase": "hi"}"#));
    let pods = eventually("both pods", || Some(running(&namespace)).filter(|pods| pods.len() == 2));
    let is_jobs = |pod: &&Value| pod["metadata"]["labels"]["job-name"] == *id;
    let job = pods.iter().find(is_jobs).unwrap();
    assert_eq!(job["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"], "false");
    assert_eq!(job["spec"]["nodeSelector"], json!({"pool": "jobs"}));
    assert_eq!(job["spec"]["tolerations"][0]["key"], "pool");
    assert_eq!(job["spec"]["containers"][0]["resources"]["requests"], json!({"cpu": "1", "memory": "1Gi"}));
    let headroom = pods.iter().find(|pod| !is_jobs(pod)).unwrap();
    for field in ["nodeSelector", "tolerations"] {
        assert_eq!(headroom["spec"][field], job["spec"][field], "the room is kept where the Jobs run");
    }
    assert_eq!((&headroom["spec"]["priority"], &headroom["spec"]["preemptionPolicy"]), (&json!(-10), &json!("Never")));
}

#[test]
fn the_curl_command_waits_for_quota_or_fails_at_once() {
    let namespace = Namespace::new();
    apply(&namespace, "retry/backlog.yaml");
    let filter = ending(&namespace, "src/default.jq", Duration::from_secs(2));
    let mut command =
        Dispatcher::command_for(&namespace, &namespace.cluster.url, &["--from-file", filter.to_str().unwrap()]);
    command.env("JOB_KEEP_FOR", "1");
    let dispatcher = Dispatcher::start_command(command);
    let text = std::fs::read_to_string(path("deploy/recipes/retry/README.md")).unwrap();
    let written = text.split("```sh\n").find(|block| block.starts_with("curl")).unwrap().split("```").next().unwrap();
    let written = written.replace("http://127.0.0.1:8000", &format!("http://{}", dispatcher.address));
    let curl = |command: &str| -> Output { Command::new("sh").args(["-c", command]).output().unwrap() };

    assert_eq!(dispatcher.post("/job", r#"{"id": "first"}"#).code, 201);
    let shed = curl(&written.replace("--retry 6 --retry-max-time 120 ", ""));
    assert_eq!(shed.status.code(), Some(22), "{}", String::from_utf8_lossy(&shed.stderr));
    assert!(String::from_utf8_lossy(&shed.stdout).contains("QuotaExceeded"));

    let begin = Instant::now();
    let waited = curl(&written);
    assert!(waited.status.success(), "{}", String::from_utf8_lossy(&waited.stderr));
    let last = String::from_utf8(waited.stdout).unwrap();
    assert!(last.contains(r#"{"id":"demo-job-hello","state":"waiting","#), "{last}");
    assert!(begin.elapsed() >= Duration::from_secs(10), "Retry-After was not waited for");
}

#[test]
fn every_recipe_is_linked_from_the_documentation() {
    let pages = ["docs/operating.md", "docs/security.md"].map(|page| std::fs::read_to_string(path(page)).unwrap());
    for recipe in std::fs::read_dir(path("deploy/recipes")).unwrap() {
        let name = recipe.unwrap().file_name().into_string().unwrap();
        let link = format!("(../deploy/recipes/{name})");
        assert!(
            pages.iter().any(|page| page.contains(&link)),
            "neither docs/operating.md nor docs/security.md links {name}"
        );
    }
}
