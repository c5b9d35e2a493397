use crate::support::dispatcher::{AS_IS, Dispatcher};
use crate::support::eventually;
use crate::support::follow::{bookmark, event, events};
use crate::support::http::{Line, Reply, request};
use crate::support::kubelet::ends;
use crate::support::logs::Logs;
use crate::support::namespace::Namespace;
use crate::support::scripted::{Act, Scripted, job, status};
use serde_json::{Value, json};
use std::time::Duration;

const VERBS: [&str; 4] = ["create", "get", "list", "watch"];
const LIST: (&str, &str, &str) = ("", "pods", "list");
const LOG: (&str, &str, &str) = ("", "pods/log", "get");
const SECOND: Duration = Duration::from_secs(1);

fn namespace() -> Namespace {
    let namespace = Namespace::with(json!({}), &VERBS);
    namespace.cluster.needs_controller_manager();
    namespace.allow_too(&[LIST, LOG]);
    namespace
}

/// A manifest with two containers. `node`: where its pods are; empty for nowhere.
fn manifest(name: &str, node: &str, annotations: Value) -> String {
    let mut job: Value =
        serde_json::from_str(&crate::dispatch::manifest(json!({ "name": name }), annotations)).unwrap();
    let pod = &mut job["spec"]["template"]["spec"];
    pod["containers"].as_array_mut().unwrap().push(json!({"name": "side", "image": "busybox"}));
    if !node.is_empty() {
        pod["nodeName"] = json!(node)
    }
    job.to_string()
}

fn pod_names(namespace: &Namespace) -> Vec<String> {
    let pods = namespace.admin().get(&format!("/api/v1/namespaces/{}/pods", namespace.name)).1;
    let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap().to_owned();
    pods["items"].as_array().unwrap().iter().map(name).collect()
}

fn set_status(namespace: &Namespace, pod: &str, status: Value) {
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/status", namespace.name);
    let (code, answer) = namespace.admin().patch(&path, json!({ "status": status }));
    assert_eq!(code, 200, "{answer}");
}

#[test]
fn a_job_tells_how_its_pods_ended() {
    let namespace = namespace();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=pods"]);
    let body = manifest("a", "", ends(SECOND, 3, "said at the end"));
    let posted = dispatcher.post("/job", &body);
    assert_eq!((posted.code, posted.json().get("pods")), (201, None), "a POST returns the Job alone");
    // anybody may give a pod the label of a Job
    let stranger = json!({
        "metadata": {"name": "stranger", "labels": {"batch.kubernetes.io/job-name": "a"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    namespace.admin().create(&format!("/api/v1/namespaces/{}/pods", namespace.name), stranger);
    for target in ["/job/a?wait=25s", "/job/a", "/job/a?wait=25s"] {
        let job = dispatcher.get(target).json();
        assert_eq!(job["state"], "failed", "{target}: {job}");
        let [pod] = &job["pods"].as_array().unwrap()[..] else { panic!("one pod: {job}") };
        assert!(pod["name"].as_str().unwrap().starts_with("a-"));
        assert_eq!((&pod["phase"], &pod["finished"]), (&json!("Failed"), &json!("2026-01-01T00:00:01Z")));
        let ended = |name| json!({"name": name, "state": "terminated", "exitCode": 3, "reason": "Error", "message": "said at the end"});
        assert_eq!(pod["containers"], json!([ended("job"), ended("side")]));
    }
    let off = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    assert_eq!(off.get("/job/a").json().get("pods"), None);
}

#[test]
fn those_who_wait_for_the_same_job_share_a_list_of_its_pods() {
    const MANY: usize = 200;
    let namespace = namespace();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=pods"]);
    assert_eq!(dispatcher.post("/job", &manifest("a", "", ends(5 * SECOND, 3, "said at the end"))).code, 201);
    let mut waiters: Vec<Line> = (0..MANY).map(|_| dispatcher.line()).collect();
    waiters.iter_mut().for_each(|line| line.send(request("GET", "/job/a?wait=40s", "", "")));
    for line in &mut waiters {
        let job = line.receive().unwrap().json();
        assert_eq!(job["state"], "failed", "{job}");
        assert_eq!(job["pods"][0]["containers"][0]["message"], "said at the end", "{job}");
    }
    let calls = dispatcher.metric("api_requests_total{verb=\"pods\",code=\"200\"}").expect("calls");
    assert!((1.0..=20.0).contains(&calls), "{calls} calls for {MANY} callers");
}

#[test]
fn pods_that_cannot_be_read_for_one_caller_are_read_for_the_next() {
    let server = Scripted::start([]);
    server.then_follow(Act::Stays(events(&[event("ADDED", "a", 5, None), bookmark(70, true)])));
    let dispatcher =
        Dispatcher::start(&[AS_IS, "--enable=pods", "--server", &server.url, "--namespace=ns", "--request-timeout=9s"]);
    let running = event("ADDED", "a", 5, None)["object"].to_string();
    let forbidden = status(403, "Forbidden", "pods is forbidden: User \"u\" cannot list resource \"pods\"", json!({}));
    let pods = json!({"kind": "PodList", "items": [{"kind": "Pod", "metadata": {
        "name": "a-x", "ownerReferences": [{"uid": "u", "controller": true}],
    }, "status": {"phase": "Running"}}]});
    server.then(Act::Answer(200, "", running));
    server.then(Act::Answer(403, "", forbidden.clone()));
    assert_eq!(dispatcher.get("/job/a").json()["podsUnavailable"], true, "the watch begins");
    eventually("the watch", || (dispatcher.metric("jobs{state=\"waiting\"}") == Some(1.0)).then_some(()));
    let mut lines = [(); 2].map(|()| dispatcher.line());
    lines.iter_mut().for_each(|line| line.send(request("GET", "/job/a?wait=60s", "", "")));
    eventually("callers to wait", || (dispatcher.metric("waiters") == Some(2.0)).then_some(()));
    server.then(Act::Late(SECOND, 403, forbidden));
    server.then(Act::Answer(200, "", pods.to_string()));
    server.say(&events(&[event("MODIFIED", "a", 80, Some("Complete"))]));
    let reported = lines.map(|mut line| line.receive().unwrap().json());
    let lacking = reported.iter().filter(|job| job["podsUnavailable"] == true).count();
    assert_eq!(lacking, 1, "{reported:?}");
    assert!(reported.iter().any(|job| job["pods"][0]["name"] == "a-x"), "{reported:?}");
}

#[test]
fn a_job_tells_why_its_pods_wait() {
    let namespace = namespace();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=pods"]);
    assert_eq!(dispatcher.post("/job", &manifest("a", "", json!({}))).code, 201);
    let pod = eventually("the pod", || pod_names(&namespace).pop());
    set_status(
        &namespace,
        &pod,
        json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}]}),
    );
    let reported = dispatcher.get("/job/a").json()["pods"][0].clone();
    assert_eq!(
        (&reported["reason"], &reported["message"]),
        (&json!("Unschedulable"), &json!("0/3 nodes are available"))
    );
    let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}});
    let container =
        json!({"name": "job", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": waiting});
    set_status(&namespace, &pod, json!({"containerStatuses": [container]}));
    let reported = dispatcher.get("/job/a?wait=1s").json();
    assert_eq!(reported["pods"][0]["containers"][0]["reason"], "ImagePullBackOff", "{reported}");
    // a Job without pods has none
    let mut suspended: Value = serde_json::from_str(&manifest("b", "", json!({}))).unwrap();
    suspended["spec"]["suspend"] = json!(true);
    assert_eq!(dispatcher.post("/job", &suspended.to_string()).code, 201);
    assert_eq!(dispatcher.get("/job/b").json()["pods"], json!([]));
}

#[test]
fn without_the_rights_it_is_said() {
    let namespace = Namespace::with(json!({}), &VERBS);
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=pods,logs"]);
    assert_eq!(dispatcher.post("/job", &manifest("a", "", json!({}))).code, 201);
    assert_eq!(dispatcher.get("/job/a/log").error(), (502, "BadGateway".into()));
    assert!(dispatcher.logged("502: ").contains("cannot list resource"), "the log names it");
    let reported = dispatcher.get("/job/a").json();
    assert_eq!(
        (&reported["id"], &reported["podsUnavailable"], reported.get("pods")),
        (&json!("a"), &json!(true), None)
    );
    assert!(dispatcher.logged("answered with what is known: ").contains("cannot list resource"), "the log names it");
}

#[test]
fn a_waiter_gets_the_job_if_its_pods_cannot_be_read() {
    let namespace = Namespace::with(json!({}), &VERBS);
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=pods"]);
    let mut body: Value = serde_json::from_str(&manifest("a", "", json!({}))).unwrap();
    body["spec"]["suspend"] = json!(true);
    assert_eq!(dispatcher.post("/job", &body.to_string()).code, 201);
    let mut line = dispatcher.line();
    line.send(request("GET", "/job/a?wait=60s", "", ""));
    eventually("a caller to wait", || {
        let metrics = String::from_utf8(dispatcher.get("/metrics").body).unwrap();
        metrics.contains("k8s_job_dispatcher_waiters 1").then_some(())
    });
    let failed = json!({"status": {"startTime": "2026-01-01T00:00:00Z", "conditions": [
        {"type": "FailureTarget", "status": "True"}, {"type": "Failed", "status": "True"},
    ]}});
    assert_eq!(namespace.admin().patch(&format!("{}/a/status", namespace.jobs()), failed).0, 200);
    let reported = line.receive().unwrap();
    assert_eq!(
        (reported.code, &reported.json()["state"], &reported.json()["podsUnavailable"]),
        (200, &json!("failed"), &json!(true))
    );
    // also where a call tells of the Job at the end of the wait, because there is no watch
    let namespace = Namespace::with(json!({}), &["create", "get"]);
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=pods"]);
    assert_eq!(dispatcher.post("/job", &body.to_string()).code, 201);
    let reported = dispatcher.get("/job/a?wait=1s");
    assert_eq!(
        (reported.code, &reported.json()["state"], reported.json().get("pods")),
        (200, &json!("suspended"), None)
    );
    assert_eq!(reported.json()["podsUnavailable"], true);
}

fn log(dispatcher: &Dispatcher, name: &str, query: &str) -> Reply {
    dispatcher.get(&format!("/job/{name}/log{query}"))
}

fn text(reply: Reply) -> String {
    assert_eq!(reply.code, 200, "{:?}", String::from_utf8_lossy(&reply.body));
    assert_eq!(reply.header("Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!(reply.header("X-Content-Type-Options"), Some("nosniff"));
    String::from_utf8(reply.body).unwrap()
}

#[test]
fn a_log_is_returned_as_text() {
    let namespace = namespace();
    let logs = Logs::new(&namespace);
    logs.write("one\ntwo\t\u{1b}[31mred\r\nthree\n");
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=logs"]);
    let body = manifest("a", &logs.node, ends(SECOND, 0, ""));
    assert_eq!(dispatcher.post("/job", &body).code, 201);
    assert_eq!(dispatcher.get("/job/a?wait=25s").json()["state"], "succeeded");
    assert_eq!(text(log(&dispatcher, "a", "")), "one\ntwo\tred\nthree\n");
    assert_eq!(text(log(&dispatcher, "a", "?tail=1")), "three\n");
    assert_eq!(text(log(&dispatcher, "a", "?tail=0")), "");
    let pod = pod_names(&namespace).pop().unwrap();
    assert_eq!(text(log(&dispatcher, "a", &format!("?pod={pod}&container=side&tail=1"))), "three\n");
    let asked = logs.asked();
    assert!(asked[0].starts_with(&format!("/containerLogs/{}/{pod}/job?", namespace.name)), "{asked:?}");
    assert!(asked[0].contains("tailLines=100") && asked[3].contains("/side?"), "{asked:?}");
    let mut line = dispatcher.line();
    line.send(request("HEAD", "/job/a/log", "", ""));
    let head = line.receive_for("HEAD").unwrap();
    assert_eq!((head.code, head.body.len()), (200, 0));
    for (query, code) in [
        ("?tail=x", 400),
        ("?previous=maybe", 400),
        ("?previous=true", 404),
        ("?pod=other", 404),
        ("?pod=a,b=c", 404),
        ("?container=other", 404),
    ] {
        assert_eq!(log(&dispatcher, "a", query).error().0, code, "{query}");
    }
    for name in ["unknown", "A_", "x%2fy"] {
        assert_eq!(log(&dispatcher, name, "").error(), (404, "NotFound".into()));
    }
    logs.write("é".repeat(1 << 20));
    let long = text(log(&dispatcher, "a", ""));
    assert!(long.len() <= 1 << 20 && long.len() > 1 << 19, "{}", long.len());
}

#[test]
fn before_a_container_has_started_it_has_no_log() {
    let namespace = namespace();
    let logs = Logs::new(&namespace);
    logs.write("of the run before\n");
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=logs"]);
    let mut body: Value = serde_json::from_str(&manifest("a", &logs.node, json!({}))).unwrap();
    body["spec"]["suspend"] = json!(true);
    assert_eq!(dispatcher.post("/job", &body.to_string()).code, 201);
    let not_started = |words: &str| {
        let reply = log(&dispatcher, "a", "");
        assert_eq!(reply.error(), (409, "NotStarted".into()));
        assert!(reply.header("Retry-After").is_some());
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains(words), "{}", reply.json());
    };
    not_started("no pod yet");
    namespace.admin().patch(&format!("{}/a", namespace.jobs()), json!({"spec": {"suspend": false}}));
    let pod = eventually("the pod", || pod_names(&namespace).pop());
    let container = |state: Value, last: Value| json!([{"name": "job", "image": "i", "imageID": "", "ready": false, "restartCount": 1, "state": state, "lastState": last}]);
    let pulls = json!({"waiting": {"reason": "ErrImagePull"}});
    set_status(&namespace, &pod, json!({"containerStatuses": container(pulls, json!({}))}));
    not_started("ErrImagePull");
    let (waits, last) = (json!({"waiting": {"reason": "CrashLoopBackOff"}}), json!({"terminated": {"exitCode": 1}}));
    set_status(&namespace, &pod, json!({"containerStatuses": container(waits, last)}));
    for query in ["", "?previous=true"] {
        assert_eq!(text(log(&dispatcher, "a", query)), "of the run before\n");
    }
    assert!(logs.asked()[1].contains("previous=true"));
}

#[test]
fn a_log_that_is_off_or_a_strangers_is_not_there() {
    let namespace = namespace();
    let logs = Logs::new(&namespace);
    let off = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=pods"]);
    let reply = log(&off, "a", "");
    assert_eq!((reply.error().0, reply.header("Allow")), (405, Some("POST")));
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=logs"]);
    let mut theirs: Value = serde_json::from_str(&manifest("theirs", &logs.node, ends(SECOND, 0, ""))).unwrap();
    theirs["apiVersion"] = json!("batch/v1");
    theirs["kind"] = json!("Job");
    namespace.admin().create(&namespace.jobs(), theirs);
    eventually("its pod", || pod_names(&namespace).pop());
    assert_eq!(log(&dispatcher, "theirs", "").error(), (404, "NotFound".into()));
    assert!(logs.asked().is_empty());
}

/// A Job that is ours, and its pod, whose container is in this state.
fn ours(state: Value) -> (Value, Value) {
    let mut ours: Value = serde_json::from_str(&job("a", json!({}))).unwrap();
    ours["metadata"]["uid"] = json!("u");
    let pod = json!({
        "metadata": {"name": "p", "ownerReferences": [{"uid": "u"}]}, "spec": {"containers": [{"name": "c"}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "c", "state": state}]},
    });
    (ours, json!({"kind": "PodList", "items": [pod]}))
}

#[test]
fn what_becomes_of_a_log_that_cannot_be_read() {
    let runs = || json!({"running": {"startedAt": "S"}});
    let ended = json!({"terminated": {"exitCode": 0}});
    for (state, act, want) in [
        // recorded: the kubelet cannot be reached
        (
            runs(),
            Act::Answer(
                500,
                "",
                status(500, "InternalError", "Get \"https://10.0.0.1:10250/containerLogs/n/p/c\": dial tcp", json!({})),
            ),
            (503, "ServiceUnavailable"),
        ),
        (
            runs(),
            Act::Answer(
                400,
                "",
                status(
                    400,
                    "BadRequest",
                    "container \"c\" in pod \"p\" is waiting to start: ContainerCreating",
                    json!({}),
                ),
            ),
            (409, "NotStarted"),
        ),
        (
            runs(),
            Act::Answer(404, "", status(404, "NotFound", "pods \"p\" not found", json!({"kind": "pods"}))),
            (404, "NotFound"),
        ),
        (runs(), Act::HalfAnswer, (502, "BadGateway")),
        (runs(), Act::HangUp, (502, "BadGateway")),
        (
            ended,
            // recorded: the container was removed from its node
            Act::Answer(400, "", status(400, "BadRequest", "container not found", json!({}))),
            (404, "NotFound"),
        ),
    ] {
        let (ours, pods) = ours(state);
        // a retry gets the same
        let found = [ours.to_string(), pods.to_string()].map(|body| Act::Answer(200, "", body));
        let server = Scripted::start(found.into_iter().chain(std::iter::repeat_n(act.clone(), 5)));
        let dispatcher = Dispatcher::start(&[AS_IS, "--server", &server.url, "--namespace=ns", "--enable=logs"]);
        let reply = log(&dispatcher, "a", "");
        let (code, reason) = reply.error();
        assert_eq!((code, &reason[..]), want, "{act:?}");
        if code == 503 {
            assert_eq!(server.seen().len(), 3, "a node that cannot be reached is not tried again");
        }
    }
}
