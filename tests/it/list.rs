use crate::support::dispatcher::{AS_IS, Dispatcher};
use crate::support::eventually;
use crate::support::follow;
use crate::support::http::{Reply, request};
use crate::support::namespace::Namespace;
use crate::support::scripted::{Act, Scripted};
use serde_json::{Value, json};
use std::collections::HashSet;

const ENABLED: [&str; 2] = [AS_IS, "--enable=list"];

fn suspended(name: &str, labels: Value) -> String {
    crate::dispatch::suspended(json!({"name": name, "labels": labels}))
}

fn items(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.code, 200, "{:?}", String::from_utf8_lossy(&reply.body));
    reply.json()["items"].as_array().unwrap().clone()
}

fn names(reply: &Reply) -> Vec<String> {
    items(reply).iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
}

/// A page once so many Jobs are known.
fn list_of(dispatcher: &Dispatcher, number: usize, target: &str) -> Reply {
    eventually("the watch to report all Jobs", || {
        let all = dispatcher.get("/job?limit=500");
        (all.code == 200 && items(&all).len() == number).then_some(())
    });
    dispatcher.get(target)
}

#[test]
fn jobs_are_listed_page_by_page_by_any_replica() {
    let namespace = Namespace::new();
    let replicas = [(); 2].map(|()| Dispatcher::for_namespace(&namespace, &ENABLED));
    for number in 0..25 {
        assert_eq!(replicas[0].post("/job", &suspended(&format!("job-{number:02}"), json!({}))).code, 201);
    }
    let theirs: Value = serde_json::from_str(&suspended("theirs", json!({}))).unwrap();
    namespace.admin().create(&namespace.jobs(), theirs);
    list_of(&replicas[1], 25, "/job");
    let mut target = "/job?limit=10&state=waiting&state=suspended".to_owned();
    let (mut all, mut pages) = (Vec::new(), 0);
    loop {
        let reply = list_of(&replicas[pages % 2], 25, &target);
        all.extend(items(&reply));
        pages += 1;
        let next = reply.json()["continue"].as_str().map(str::to_owned);
        assert_eq!(next.is_some(), reply.header("Link").is_some());
        let Some(link) = reply.header("Link") else { break };
        let (reference, rest) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
        assert_eq!(rest, "; rel=\"next\"");
        target = format!("/job{reference}"); // relative to the path
    }
    assert_eq!(pages, 3);
    let names: HashSet<_> = all.iter().map(|job| job["id"].as_str().unwrap()).collect();
    assert_eq!((all.len(), names.len()), (25, 25), "each once: {names:?}");
    assert!(all.is_sorted_by(|one, other| one["created"].as_str() >= other["created"].as_str()), "the newest first");
    eventually("a list to have the object of GET", || {
        let one = replicas[0].get("/job/job-07").json();
        items(&replicas[0].get("/job")).contains(&one).then_some(())
    });
    let mut line = replicas[0].line();
    line.send(request("HEAD", "/job", "", ""));
    let head = line.receive_for("HEAD").unwrap();
    assert_eq!((head.code, head.body.len()), (200, 0));
}

#[test]
fn jobs_are_chosen_by_state_and_label() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &ENABLED);
    for (name, labels) in [("a", json!({"team": "x"})), ("b", json!({"team": "x"})), ("c", json!({}))] {
        assert_eq!(dispatcher.post("/job", &suspended(name, labels)).code, 201);
    }
    list_of(&dispatcher, 3, "/job");
    for (query, want) in [
        ("state=suspended&label=team%3Dx", vec!["a", "b"]),
        ("state=failed", vec![]),
        ("label=team=x&label=team=y", vec![]),
        ("label=app.kubernetes.io/managed-by=k8s-job-dispatcher", vec!["a", "b", "c"]),
        ("label=app.kubernetes.io/managed-by=else", vec![]),
    ] {
        let mut reported = names(&dispatcher.get(&format!("/job?{query}")));
        reported.sort_unstable();
        assert_eq!(reported, want, "{query}");
    }
    for bad in ["limit=0", "limit=501", "state=lost", "label=x", "continue=x"] {
        assert_eq!(dispatcher.get(&format!("/job?{bad}")).error(), (400, "BadRequest".into()), "{bad}");
    }
    namespace.admin().call("DELETE", &format!("{}/a?propagationPolicy=Background", namespace.jobs()), None);
    list_of(&dispatcher, 2, "/job");
    // one reads what one wrote, also before the watch reports it
    assert_eq!(dispatcher.post("/job", &suspended("d", json!({}))).code, 201);
    assert!(names(&dispatcher.get("/job")).contains(&"d".to_owned()));
}

#[test]
fn without_the_rights_it_is_said_and_off_it_is_not_there() {
    let namespace = Namespace::with(json!({}), &["create", "get"]);
    let dispatcher = Dispatcher::for_namespace(&namespace, &ENABLED);
    dispatcher.logged("may not list and watch Jobs");
    assert_eq!(dispatcher.get("/job").error(), (502, "BadGateway".into()));
    let dry = Dispatcher::start(&["--dry-run=client", "--enable=list"]);
    assert_eq!(items(&dry.get("/job")), [] as [Value; 0]);
    assert_eq!(dry.get("/job?counts=true").json()["counts"]["running"], 0);
    let off = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    let reply = off.get("/job");
    assert_eq!((reply.error().0, reply.header("Allow")), (405, Some("POST")));
}

#[test]
fn a_list_says_what_it_does_not_know() {
    let server = Scripted::start([]);
    server.then_follow(Act::Silence);
    let dispatcher = Dispatcher::start(&[AS_IS, "--server", &server.url, "--namespace=ns", "--enable=list"]);
    let reply = dispatcher.get("/job");
    assert_eq!((reply.error(), reply.header("Retry-After")), ((503, "ServiceUnavailable".into()), Some("1")));

    let event = |number: usize| {
        json!({"type": "ADDED", "object": {"kind": "Job", "metadata": {
            "name": format!("job-{number:05}"), "uid": number.to_string(), "resourceVersion": number.to_string(),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app.kubernetes.io/managed-by": "k8s-job-dispatcher"},
        }, "status": {"conditions": [{"type": "Complete", "status": "True", "message": "m".repeat(1000)}]}}})
    };
    let end = json!({"type": "BOOKMARK", "object": {"kind": "Job", "metadata": {
        "resourceVersion": "9999", "annotations": {"k8s.io/initial-events-end": "true"},
    }}});
    let events = (1..=2000).map(event).chain([end]).map(|event| format!("{event}\n")).collect();
    let server = Scripted::start([]);
    server.then_follow(Act::Stays(events));
    let args = ["--server", &server.url, "--namespace=ns", "--enable=list", "--max-cache-bytes=1048576"];
    let dispatcher = Dispatcher::start(&[&[AS_IS], &args[..]].concat());
    let reply = eventually("a page", || Some(dispatcher.get("/job?limit=500")).filter(|reply| reply.code == 200));
    let body = reply.json();
    assert_eq!(body["truncated"], true);
    let reported = body["items"].as_array().unwrap().len();
    assert!(reported > 50 && reported < 500 && body["continue"].is_string(), "a page has a bound in bytes: {reported}");
    assert!(reply.body.len() < 257 << 10);
}

#[test]
fn jobs_are_found_by_name_and_counted() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &ENABLED);
    for name in ["report-1", "report-2", "import-1"] {
        assert_eq!(dispatcher.post("/job", &suspended(name, json!({}))).code, 201);
    }
    let mut found = names(&list_of(&dispatcher, 3, "/job?name=port-1"));
    found.sort_unstable();
    assert_eq!(found, ["import-1", "report-1"]);
    let reply = dispatcher.get("/job?name=report&counts=true&limit=1");
    assert_eq!((names(&reply).len(), &reply.json()["counts"]["suspended"]), (1, &json!(3)), "of all Jobs");
    assert_eq!(dispatcher.get("/job").json().get("counts"), None);
    assert_eq!(dispatcher.get("/job?pods=true").error(), (400, "BadRequest".into()), "it is not enabled");
}

/// A Job whose pod exists, and waits.
#[test]
fn a_page_says_why_pods_wait_with_one_call_for_all() {
    let namespace = Namespace::new();
    namespace.cluster.needs_controller_manager();
    namespace.allow_too(&[("", "pods", "list")]);
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=list,pods"]);
    let pods = format!("/api/v1/namespaces/{}/pods", namespace.name);
    for name in ["pulls", "waits"] {
        assert_eq!(dispatcher.post("/job", &crate::dispatch::manifest(json!({"name": name}), json!({}))).code, 201);
        let pod = eventually("its pod", || {
            let (_, list) = namespace.admin().get(&format!("{pods}?labelSelector=batch.kubernetes.io/job-name={name}"));
            list["items"][0]["metadata"]["name"].as_str().map(str::to_owned)
        });
        let state = json!({"waiting": {"reason": "ImagePullBackOff", "message": "back-off"}});
        let status = match name {
            "pulls" => {
                json!({"containerStatuses": [{"name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}]})
            }
            _ => {
                json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]})
            }
        };
        let (code, answer) = namespace.admin().patch(&format!("{pods}/{pod}/status"), json!({"status": status}));
        assert_eq!(code, 200, "{answer}");
    }
    let calls = || dispatcher.metric("api_requests_total{verb=\"pods\",code=\"200\"}").unwrap_or_default();
    let page = eventually("both to start", || {
        let page = dispatcher.get("/job?pods=true");
        let starts = |job: &Value| job["state"] == "starting" && job.get("podReason").is_some();
        (items(&page).len() == 2 && items(&page).iter().all(starts)).then_some(page)
    });
    let reasons: HashSet<(String, String)> = items(&page)
        .iter()
        .map(|job| (job["id"].as_str().unwrap().into(), job["podReason"].as_str().unwrap().into()))
        .collect();
    assert_eq!(
        reasons,
        [("pulls", "ImagePullBackOff"), ("waits", "Unschedulable")].map(|(a, b)| (a.into(), b.into())).into()
    );
    let before = calls();
    assert_eq!(items(&dispatcher.get("/job?pods=true&state=starting")).len(), 2);
    assert_eq!(calls() - before, 1.0, "one call for all");
    assert_eq!(items(&dispatcher.get("/job?state=starting"))[0].get("podReason"), None);
    assert_eq!(calls() - before, 1.0, "none where nobody asks");
    // where they cannot be read, the page says so
    namespace.allow(&["create", "get", "list", "watch"]);
    let page = eventually("the right to be gone", || {
        let page = dispatcher.get("/job?pods=true").json();
        page.get("podsUnavailable").is_some().then_some(page)
    });
    assert_eq!((page["items"].as_array().unwrap().len(), &page["podsUnavailable"]), (2, &json!(true)));
    dispatcher.logged("the page does without the reasons of pods: 403 ");
}

/// Where the API server hangs, a page comes without them, and others are not held up.
#[test]
fn a_page_does_not_wait_long_for_the_reasons_of_pods() {
    let mut starting = follow::job("starts", "u", 5, None);
    starting["status"] = json!({"active": 1, "ready": 0});
    let server = Scripted::start([Act::Silence]);
    server.then_follow(Act::Stays(follow::events(&[
        json!({"type": "ADDED", "object": starting}),
        follow::bookmark(9, true),
    ])));
    let args = [AS_IS, "--server", &server.url, "--namespace=ns", "--enable=list,pods"];
    let dispatcher = Dispatcher::start(&args);
    list_of(&dispatcher, 1, "/job");
    let mut line = dispatcher.line();
    line.send(request("GET", "/job?pods=true", "", ""));
    eventually("the pods to be asked for", || (server.seen().len() == 1).then_some(()));
    assert_eq!(names(&dispatcher.get("/job")), ["starts"], "without waiting for the other");
    let page = line.receive().unwrap();
    assert_eq!((names(&page), &page.json()["podsUnavailable"]), (vec!["starts".to_owned()], &json!(true)));
    assert!(
        server.seen()[0].target.contains("/pods?labelSelector=batch.kubernetes.io%2Fjob-name%20in%20%28starts%29&")
    );
    // one that leaves meanwhile leaves nothing behind
    server.then(Act::Silence);
    let mut line = dispatcher.line();
    line.send(request("GET", "/job?pods=true", "", ""));
    eventually("the pods to be asked for", || (server.seen().len() == 2).then_some(()));
    drop(line);
    eventually("the call to end", || (dispatcher.metric("dispatches{state=\"in_flight\"}")? == 0.0).then_some(()));
    assert_eq!(dispatcher.metric("reserved_bytes{kind=\"answer\"}"), Some(0.0));
    assert_eq!(names(&dispatcher.get("/job")), ["starts"]);
}
