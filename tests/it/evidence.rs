//! The scripted API server stands in where a real one cannot be made to go silent, back in time, or wrong.

use crate::dispatch::manifest;
use crate::support::dispatcher::{AS_IS, Dispatcher};
use crate::support::eventually;
use crate::support::follow::{bookmark, event, events, job, page};
use crate::support::http::{JSON, Line, Reply, request};
use crate::support::kubelet::ends;
use crate::support::namespace::Namespace;
use crate::support::scripted::{Act, Scripted, status};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

fn start(server: &Scripted) -> Dispatcher {
    Dispatcher::start(&[AS_IS, "--server", &server.url, "--namespace=ns"])
}

fn answer(object: Value) -> Act {
    Act::Answer(200, "", object.to_string())
}

/// A watch that has reported all Jobs, of which `a` has version 5 and runs, and passed version 70.
fn whole() -> Act {
    Act::Stays(events(&[event("ADDED", "a", 5, None), bookmark(70, true)]))
}

/// A dispatcher that has begun this watch; it answers for `a` without a call.
fn watching(first: Act) -> (Scripted, Dispatcher) {
    let server = Scripted::start([]);
    server.then_follow(first);
    let dispatcher = start(&server);
    server.then(answer(job("a", "u", 5, None)));
    assert_eq!(dispatcher.get("/job/a").code, 200);
    eventually("the watch to report all Jobs", || {
        let calls = server.seen().len();
        server.then(answer(job("a", "u", 5, None)));
        assert_eq!(dispatcher.get("/job/a").code, 200);
        (server.seen().len() == calls).then_some(())
    });
    server.forget();
    (server, dispatcher)
}

fn state(reply: &Reply) -> String {
    assert!(reply.code < 300, "{}", reply.json());
    reply.json()["state"].as_str().unwrap_or_default().to_owned()
}

fn asked(dispatcher: &Dispatcher, method: &str, target: &str, headers: &str, body: &str) -> Line {
    let mut line = dispatcher.line();
    line.send(request(method, target, headers, body));
    line
}

/// A watch that reports all Jobs of another history.
fn again() -> Act {
    Act::Stays(events(&[event("ADDED", "a", 90, Some("Failed")), bookmark(91, true)]))
}

/// All is listed again, and the Job is asked for meanwhile, and known when that is done.
fn is_listed_again(server: &Scripted, dispatcher: &Dispatcher) {
    eventually("all Jobs to be listed again", || {
        let followed = server.followed();
        (followed.iter().filter(|target| target.contains("sendInitialEvents=true")).count() == 2).then_some(())
    });
    eventually("the Job to be known again", || {
        server.then(answer(job("a", "u", 90, Some("Failed"))));
        let (calls, state) = (server.seen().len(), state(&dispatcher.get("/job/a")));
        (server.seen().len() == calls).then(|| assert_eq!(state, "failed", "of the present history"))
    });
}

#[test]
fn a_silent_watch_is_confirmed_while_somebody_asks() {
    let (server, dispatcher) = watching(whole());
    for _ in 0..2 {
        server.then_follow(answer(serde_json::from_str(&page(200, "", &[])).unwrap()));
        server.then_follow(Act::Stays(String::new()));
    }
    let begin = Instant::now();
    while begin.elapsed() < 13 * SECOND {
        assert_eq!(state(&dispatcher.get("/job/a")), "waiting");
        std::thread::sleep(SECOND / 5);
    }
    assert_eq!(server.seen().len(), 0, "a quiet namespace is served from the cache");
    let followed = server.followed();
    assert_eq!(followed.len(), 5, "two small calls in five seconds: {followed:?}");
    for pair in followed[1..].chunks(2) {
        assert!(pair[0].ends_with("&limit=1") && pair[1].ends_with("&resourceVersion=70"), "{pair:?}");
    }
}

#[test]
fn a_watch_that_cannot_be_confirmed_is_not_believed() {
    let (server, dispatcher) = watching(whole());
    (0..9).for_each(|_| server.then_follow(Act::Silence)); // as a stopped process does
    let begin = Instant::now();
    let asked = loop {
        server.then(answer(job("a", "u", 80, Some("Complete"))));
        let state = state(&dispatcher.get("/job/a"));
        if !server.seen().is_empty() {
            break state;
        }
        assert!(begin.elapsed() < 12 * SECOND, "a dead watch is believed");
        std::thread::sleep(SECOND / 5);
    };
    assert_eq!(asked, "succeeded");
}

#[test]
fn a_watch_that_goes_back_shows_another_history() {
    for back in [bookmark(69, false), event("MODIFIED", "a", 60, None), event("DELETED", "a", 60, None)] {
        let server = Scripted::start([answer(job("a", "u", 5, None))]);
        server.then_follow(Act::Stays(events(&[event("ADDED", "a", 5, None), bookmark(70, true), back])));
        server.then_follow(again());
        let dispatcher = start(&server);
        assert_eq!(dispatcher.get("/job/a").code, 200);
        is_listed_again(&server, &dispatcher);
        dispatcher.logged("all Jobs are listed again: the watch reported version");
    }
}

#[test]
fn a_list_that_is_older_than_the_watch_shows_another_history() {
    let (server, dispatcher) = watching(whole());
    server.then_follow(Act::Answer(200, "", page(69, "", &[])));
    server.then_follow(again());
    is_listed_again(&server, &dispatcher);
    dispatcher.logged("all Jobs are listed again: the API server is at version 69");
}

#[test]
fn an_answer_that_is_older_than_the_watch_shows_another_history() {
    let taken = || {
        Act::Answer(409, "", status(409, "AlreadyExists", "jobs.batch \"a\" already exists", json!({"kind": "jobs"})))
    };
    for (name, acts, code) in [
        ("b", vec![Act::Answer(201, "", job("b", "w", 66, None).to_string())], 201),
        ("a", vec![taken(), answer(job("a", "u", 4, None))], 409),
        ("a", vec![taken(), answer(job("a", "another", 900, None))], 409),
    ] {
        let (server, dispatcher) = watching(whole());
        server.then_follow(again());
        acts.into_iter().for_each(|act| server.then(act));
        let reply = dispatcher.post("/job", &manifest(json!({ "name": name }), json!({})));
        assert_eq!(reply.code, code, "{name}");
        is_listed_again(&server, &dispatcher);
        dispatcher.logged("all Jobs are listed again: the Job");
    }
}

#[test]
fn after_a_410_and_after_a_broken_connection_all_is_forgotten() {
    let expired =
        json!({"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired"}});
    let first = || [event("ADDED", "a", 5, None), bookmark(70, true)];
    let [a, b] = first();
    for end in [Act::Answer(200, "", events(&[a, b, expired])), Act::Cut(events(&first()))] {
        let server = Scripted::start([answer(job("a", "u", 5, None))]);
        server.then_follow(end);
        // the list is begun, and says nothing yet
        server.then_follow(Act::Stays(String::new()));
        let dispatcher = start(&server);
        assert_eq!(state(&dispatcher.get("/job/a")), "waiting");
        eventually("all Jobs to be listed again", || (server.followed().len() > 1).then_some(()));
        assert!(server.followed()[1].contains("sendInitialEvents=true"), "{:?}", server.followed());
        server.then(answer(job("a", "u", 80, Some("Complete"))));
        assert_eq!(state(&dispatcher.get("/job/a")), "succeeded", "it is asked for");
    }
}

#[test]
fn a_streaming_list_that_fails_is_replaced_by_pages() {
    let busy = || Act::Answer(503, "", status(503, "ServiceUnavailable", "not ready", json!({})));
    for first in [busy(), Act::Silence, Act::Stays(String::new())] {
        let server = Scripted::start([]);
        server.then_follow(first.clone());
        server.then_follow(Act::Answer(200, "", page(20, "", &[job("a", "u", 11, None)])));
        server.then_follow(Act::Stays(events(&[event("MODIFIED", "a", 21, Some("Complete"))])));
        (0..400).for_each(|_| server.then(answer(job("a", "u", 11, None)))); // while there is no watch it is polled for
        let dispatcher = start(&server);
        let begin = Instant::now();
        let mut line = asked(&dispatcher, "GET", "/job/a?wait=30s", "", "");
        assert_eq!(state(&line.receive().unwrap()), "succeeded");
        let followed = server.followed();
        assert!(followed[1].ends_with("&limit=200") && followed[2].ends_with("&resourceVersion=20"), "{followed:?}");
        assert!(begin.elapsed() < 9 * SECOND, "{first:?} took {:?}", begin.elapsed());
    }
}

#[test]
fn a_watch_that_ends_after_it_ran_is_resumed_within_a_second() {
    let (server, dispatcher) =
        watching(Act::Answer(200, "", events(&[event("ADDED", "a", 5, None), bookmark(70, true)])));
    for _ in 0..4 {
        server.then_follow(Act::Answer(200, "", page(100, "", &[])));
        server.then_follow(Act::Answer(200, "", String::new())); // a balancer that ends what is idle
    }
    server.then_follow(Act::Answer(200, "", page(100, "", &[])));
    server.then_follow(Act::Stays(events(&[event("MODIFIED", "a", 101, Some("Complete"))])));
    (0..400).for_each(|_| server.then(answer(job("a", "u", 5, None))));
    let begin = Instant::now();
    let mut line = asked(&dispatcher, "GET", "/job/a?wait=30s", "", "");
    assert_eq!(state(&line.receive().unwrap()), "succeeded");
    let took = begin.elapsed();
    assert!(took < 7 * SECOND, "the pauses grow: {took:?}");
    assert!(took > 3 * SECOND, "one start a second at most: {took:?}");
}

#[test]
fn retry_after_is_obeyed_by_the_watch() {
    let server = Scripted::start([answer(job("a", "u", 5, None))]);
    server.then_follow(Act::Answer(429, "Retry-After: 4\r\n", "Too many requests, please try again later.".into()));
    server.then_follow(Act::Answer(200, "", page(20, "", &[])));
    server.then_follow(Act::Stays(String::new()));
    let dispatcher = start(&server);
    let begin = Instant::now();
    dispatcher.get("/job/a");
    eventually("a second start", || (server.followed().len() > 1).then_some(()));
    assert!(begin.elapsed() > 4 * SECOND, "{:?}", begin.elapsed());
}

#[test]
fn one_job_that_cannot_be_read_hides_no_other() {
    let mut odd = event("ADDED", "odd", 4, None);
    odd["object"]["status"] = json!({"active": "1"});
    let mut unlabelled = event("MODIFIED", "a", 71, None);
    unlabelled["object"]["metadata"]["labels"] = json!({});
    let reported = [
        odd,
        event("ADDED", "a", 5, None),
        bookmark(70, true),
        unlabelled,
        event("MODIFIED", "a", 72, Some("Complete")),
    ];
    let (_server, dispatcher) = watching(Act::Stays(events(&reported)));
    assert_eq!(state(&dispatcher.get("/job/a")), "succeeded");
    dispatcher.logged("the Job \"odd\" is skipped");
}

#[test]
fn a_log_in_a_coding_that_was_not_asked_for_is_502() {
    let pods = json!({"kind": "PodList", "metadata": {}, "items": [{
        "metadata": {"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z", "ownerReferences": [{"uid": "u"}]},
        "spec": {"containers": [{"name": "c"}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "c", "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}}}]},
    }]});
    let server = Scripted::start([]);
    for act in [
        answer(job("a", "u", 5, None)),
        answer(pods),
        Act::Answer(200, "Content-Encoding: gzip\r\n", "\u{1f}\u{8b}".into()),
    ] {
        server.then(act)
    }
    let dispatcher = Dispatcher::start(&[AS_IS, "--server", &server.url, "--namespace=ns", "--enable=logs"]);
    assert_eq!(dispatcher.get("/job/a/log").error(), (502, "BadGateway".into()));
    assert_eq!(server.seen()[2].accept_encoding.as_deref(), Some("identity"));
    dispatcher.logged("gzip");
}

#[test]
fn without_a_watch_the_end_of_a_wait_tells_the_job_as_it_is() {
    let namespace = Namespace::with(json!({}), &["create", "get"]);
    namespace.cluster.needs_controller_manager();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--watch=false"]);
    let body = |name: &str| manifest(json!({ "name": name }), ends(20 * SECOND, 0, ""));
    let post = |name: &str, wait: u32| {
        asked(&dispatcher, "POST", "/job", &format!("{JSON}Prefer: wait={wait}\r\n"), &body(name))
    };
    let mut runs = post("runs", 3);
    let mut goes = post("goes", 3);
    eventually("the Job", || namespace.job("goes"));
    namespace.admin().delete(&format!("{}/goes", namespace.jobs()));
    let reported = runs.receive().unwrap();
    assert_eq!((reported.code, state(&reported)), (201, "running".into()), "not as it was at the beginning");
    assert_eq!(reported.json().get("stateAge"), None, "it was asked for");
    let gone = goes.receive().unwrap();
    assert_eq!((gone.code, gone.json().get("state"), gone.json().get("status")), (201, None, None), "{}", gone.json());
    let text = String::from_utf8(dispatcher.get("/metrics").body).unwrap();
    assert!(!text.contains("verb=\"watch\"") && !text.contains("verb=\"list\""), "nothing that is forbidden is tried");
    let refused = crate::support::dispatcher::run(&["--watch=false", "--enable=list", "--check", "."], &[]);
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn a_job_that_lost_our_label_is_gone_for_callers() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    let mut body: Value = serde_json::from_str(&manifest(json!({"name": "a"}), json!({}))).unwrap();
    body["spec"]["suspend"] = json!(true);
    assert_eq!(dispatcher.post("/job", &body.to_string()).code, 201);
    let mut line = asked(&dispatcher, "GET", "/job/a?wait=30s", "", "");
    eventually("the caller to wait", || {
        String::from_utf8(dispatcher.get("/metrics").body).unwrap().contains("waiters 1").then_some(())
    });
    let unlabelled = json!({"metadata": {"labels": {"app.kubernetes.io/managed-by": null}}});
    assert_eq!(namespace.admin().patch(&format!("{}/a", namespace.jobs()), unlabelled).0, 200);
    assert_eq!(line.receive().unwrap().error().0, 404);
    assert_eq!(dispatcher.get("/job/a").error().0, 404);
    assert_eq!(dispatcher.post("/job", &body.to_string()).code, 200, "a repeat finds it by its annotations");
}

/// A MutatingAdmissionPolicy that removes our label from Jobs of one namespace, until this is dropped.
struct Hides<'a>(&'a Namespace);

const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolic";

impl<'a> Hides<'a> {
    fn new(namespace: &'a Namespace) -> Self {
        let name = &namespace.name;
        let rule =
            json!({"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]});
        let expression = "[JSONPatch{op: \"remove\", path: \"/metadata/labels/app.kubernetes.io~1managed-by\"}]";
        let policy = json!({"metadata": {"name": name}, "spec": {
            "failurePolicy": "Fail", "reinvocationPolicy": "Never", "matchConstraints": {"resourceRules": [rule]},
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
        }});
        namespace.admin().create(&format!("{MUTATING}ies"), policy);
        let hides = Hides(namespace);
        let selector = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}});
        let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name, "matchResources": selector}});
        namespace.admin().create(&format!("{MUTATING}ybindings"), binding);
        hides
    }
}

impl Drop for Hides<'_> {
    fn drop(&mut self) {
        for kind in ["ybindings", "ies"] {
            self.0.admin().try_call("DELETE", &format!("{MUTATING}{kind}/{}", self.0.name), None);
        }
    }
}

#[test]
fn a_job_that_a_policy_hides_is_said_to_be_hidden() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=delete"]);
    let _hides = Hides::new(&namespace);
    let (mut number, mut reported) = (0, Reply::default());
    let body = |number: u32| manifest(json!({"name": format!("a-{number}")}), json!({}));
    // the API server reads policies from a cache
    eventually("the policy to be in force", || {
        number += 1;
        reported =
            asked(&dispatcher, "POST", "/job", &format!("{JSON}Prefer: wait=20\r\n"), &body(number)).receive().unwrap();
        assert_eq!(reported.code, 201);
        reported.json()["message"].as_str().map(str::to_owned)
    });
    assert!(
        reported.json()["message"].as_str().unwrap().contains("GET and DELETE do not find it"),
        "{}",
        reported.json()
    );
    assert_eq!(reported.header("Preference-Applied"), None, "nothing would report its end");
    dispatcher.logged("has lost the dispatcher's label");
    let name = format!("/job/a-{number}");
    assert_eq!(dispatcher.get(&name).error().0, 404);
    assert_eq!(dispatcher.send(request("DELETE", &name, "", "")).error().0, 404);
    assert_eq!(dispatcher.post("/job", &body(number)).code, 200);
}

#[test]
fn a_finished_job_is_returned_while_the_api_server_is_down() {
    let namespace = Namespace::new();
    namespace.cluster.needs_controller_manager();
    namespace.allow_too(&[("", "pods", "list")]);
    let mut server = namespace.cluster.another_api_server();
    let command = Dispatcher::command_for(&namespace, &server.url, &[AS_IS, "--enable=pods"]);
    let dispatcher = Dispatcher::start_command(command);
    for (name, seconds) in [("ended", 1), ("runs", 60)] {
        let body = manifest(json!({ "name": name }), ends(seconds * SECOND, 0, ""));
        assert_eq!(dispatcher.post("/job", &body).code, 201);
    }
    let reported = dispatcher.get("/job/ended?wait=25s");
    assert_eq!((state(&reported), reported.json()["pods"].as_array().unwrap().len()), ("succeeded".into(), 1));
    server.kill();
    let reported = dispatcher.get("/job/ended");
    assert_eq!((reported.code, state(&reported)), (200, "succeeded".into()));
    assert_eq!((&reported.json()["podsUnavailable"], reported.json().get("pods")), (&json!(true), None));
    assert!(dispatcher.get("/job/runs").code >= 500, "a state that can still change is not returned");
}

#[test]
fn a_list_is_whole_again_when_there_is_room() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=list", "--max-cache-bytes=65536"]);
    let body = |number: usize| {
        let mut body: Value =
            serde_json::from_str(&manifest(json!({"name": format!("a-{number}")}), json!({}))).unwrap();
        body["spec"]["suspend"] = json!(true);
        body.to_string()
    };
    (0..120).for_each(|number| assert_eq!(dispatcher.post("/job", &body(number)).code, 201));
    let listed = || {
        let list = dispatcher.get("/job?limit=500");
        let known = || list.json()["items"].as_array().unwrap().len();
        (list.code == 200).then(|| (known(), list.json()["truncated"] == true))
    };
    eventually("the cache to be full", || listed().filter(|(_, is_truncated)| *is_truncated));
    for number in 0..110 {
        namespace.admin().delete(&format!("{}/a-{number}", namespace.jobs()));
    }
    eventually("all to be known again", || listed().filter(|listed| *listed == (10, false)));
}
