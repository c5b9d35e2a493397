use crate::dispatch::manifest;
use crate::support::dispatcher::{AS_IS, Dispatcher};
use crate::support::eventually;
use crate::support::follow::{bookmark, event, events, page};
use crate::support::http::{JSON, Line, Reply, request};
use crate::support::kubelet::ends;
use crate::support::namespace::Namespace;
use crate::support::scripted::{Act, Scripted, status};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

fn metric(dispatcher: &Dispatcher, name: &str) -> f64 {
    dispatcher.metric(name).unwrap_or_else(|| panic!("no {name}"))
}

fn asked(dispatcher: &Dispatcher, method: &str, target: &str, headers: &str, body: &str) -> Line {
    let mut line = dispatcher.line();
    line.send(request(method, target, headers, body));
    line
}

fn wait_for(dispatcher: &Dispatcher, name: &str, time: &str) -> Line {
    asked(dispatcher, "GET", &format!("/job/{name}?wait={time}"), "", "")
}

fn suspended(name: &str) -> String {
    crate::dispatch::suspended(json!({ "name": name }))
}

fn waiters(dispatcher: &Dispatcher, number: usize) {
    // not all connections that were closed are given up yet, so that there may be no place for one more
    let waiting = || dispatcher.metric("waiters") == Some(number as f64);
    eventually("callers to wait", || waiting().then_some(()))
}

fn state(reply: Reply) -> (u16, String) {
    (reply.code, reply.json()["state"].as_str().unwrap_or_default().to_owned())
}

fn is(code: u16, state: &str) -> (u16, String) {
    (code, state.to_owned())
}

#[test]
fn a_caller_waits_for_the_end_of_a_job() {
    let namespace = Namespace::new();
    namespace.cluster.needs_controller_manager();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    for (name, exit_code, last) in [("good", 0, "succeeded"), ("bad", 3, "failed")] {
        let body = manifest(json!({ "name": name }), ends(2 * SECOND, exit_code, ""));
        let prefer = format!("{JSON}Prefer: wait=25\r\n");
        let mut post = asked(&dispatcher, "POST", "/job", &prefer, &body);
        eventually("the Job", || namespace.job(name));
        let mut get = wait_for(&dispatcher, name, "25s");
        let mut again = asked(&dispatcher, "POST", "/job", &prefer, &body);
        let posted = post.receive().unwrap();
        assert_eq!(posted.header("Preference-Applied"), Some("wait=25"));
        assert_eq!(posted.header("Location"), Some(&*format!("job/{name}")));
        assert_eq!(state(posted), is(201, last));
        assert_eq!(state(get.receive().unwrap()), is(200, last));
        assert_eq!(state(again.receive().unwrap()), is(200, last), "the same request again waits for the same Job");
        let begin = Instant::now();
        assert_eq!(state(wait_for(&dispatcher, name, "25s").receive().unwrap()), is(200, last));
        assert!(begin.elapsed() < SECOND, "it has ended already");
        get.send(request("GET", "/health/live", "", ""));
        assert_eq!(get.receive().unwrap().code, 200, "the connection continues");
    }
    for route in ["/job", "/job/{id}"] {
        let observed = metric(&dispatcher, &format!("request_duration_seconds_sum{{route=\"{route}\"}}"));
        assert!(observed < 1.5, "the time that callers chose to wait is not counted: {observed} for {route}");
    }
}

#[test]
fn a_wait_has_an_end() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--max-wait=2s"]);
    let long = asked(&dispatcher, "POST", "/job", &format!("{JSON}Prefer: wait=600\r\n"), &suspended("a"));
    let took = |mut line: Line| {
        let begin = Instant::now();
        let reply = line.receive().unwrap();
        (begin.elapsed(), reply)
    };
    let (time, reply) = took(long);
    assert!(time > SECOND && time < 10 * SECOND, "{time:?}");
    assert_eq!((reply.code, reply.header("Preference-Applied")), (201, Some("wait=2")));
    let (time, reply) = took(wait_for(&dispatcher, "a", "500ms"));
    assert_eq!(state(reply), is(200, "suspended"));
    assert!(time >= SECOND / 2 && time < 5 * SECOND, "{time:?}");
    let (time, reply) = took(wait_for(&dispatcher, "a", "0"));
    assert!(reply.code == 200 && time < SECOND, "{time:?}");
    for bad in ["", "soon", "-1", "1x"] {
        assert_eq!(wait_for(&dispatcher, "a", bad).receive().unwrap().error(), (400, "BadRequest".into()), "{bad}");
    }
    assert_eq!(wait_for(&dispatcher, "unknown", "20s").receive().unwrap().error().0, 404);
    let off = Dispatcher::for_namespace(&namespace, &[AS_IS, "--max-wait=0"]);
    for time in ["20s", "soon"] {
        assert_eq!(state(wait_for(&off, "a", time).receive().unwrap()), is(200, "suspended"), "it is switched off");
    }
}

#[test]
fn a_job_that_ends_and_vanishes_is_reported_as_ended_and_a_deleted_one_as_gone() {
    let namespace = Namespace::new();
    namespace.cluster.needs_controller_manager();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    let mut short: Value = serde_json::from_str(&manifest(json!({"name": "short"}), ends(SECOND, 0, ""))).unwrap();
    short["spec"]["ttlSecondsAfterFinished"] = json!(0);
    assert_eq!(dispatcher.post("/job", &short.to_string()).code, 201);
    let mut line = wait_for(&dispatcher, "short", "25s");
    assert_eq!(state(line.receive().unwrap()), is(200, "succeeded"));
    eventually("it to be gone", || (dispatcher.get("/job/short").code == 404).then_some(()));

    assert_eq!(dispatcher.post("/job", &suspended("deleted")).code, 201);
    let mut lines = [wait_for(&dispatcher, "deleted", "25s"), wait_for(&dispatcher, "deleted", "25s")];
    let mut post = asked(&dispatcher, "POST", "/job", &format!("{JSON}Prefer: wait=25\r\n"), &suspended("deleted"));
    waiters(&dispatcher, 3);
    let calls = || metric(&dispatcher, "api_requests_total{verb=\"get\",code=\"404\"}");
    let before = calls();
    namespace.admin().call("DELETE", &format!("{}/deleted?propagationPolicy=Background", namespace.jobs()), None);
    for line in &mut lines {
        assert_eq!(line.receive().unwrap().error(), (404, "NotFound".into()));
    }
    let posted = post.receive().unwrap();
    assert_eq!((posted.code, posted.header("Location")), (200, Some("job/deleted")));
    let reported = posted.json();
    assert!(reported.get("state").is_none() && reported["message"].as_str().unwrap().contains("is gone"), "{reported}");
    assert_eq!(calls(), before + 1.0, "it is asked for once, for all that wait");
    eventually("it to be gone", || (dispatcher.get("/job/deleted").code == 404).then_some(()));
    assert_eq!(dispatcher.post("/job", &suspended("deleted")).code, 201);
    assert_eq!(state(dispatcher.get("/job/deleted")), is(200, "suspended"), "a new one of the same name");
}

#[test]
fn what_takes_a_call_at_the_end_of_a_wait_begins_half_a_second_before() {
    let namespace = Namespace::new();
    namespace.allow_too(&[("", "pods", "list")]);
    let mut deleted: Value = serde_json::from_str(&suspended("deleted")).unwrap();
    deleted["metadata"]["finalizers"] = json!(["tests.example/wait"]);
    let plain = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    let with_pods = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=pods"]);
    for body in [suspended("a"), deleted.to_string()] {
        assert_eq!(plain.post("/job", &body).code, 201)
    }
    let path = format!("{}/deleted", namespace.jobs());
    namespace.admin().delete(&path);
    std::thread::scope(|scope| {
        for (dispatcher, name, last, has_pods) in [
            (&plain, "a", "suspended", false),
            (&plain, "deleted", "deleting", false),
            (&with_pods, "a", "suspended", true),
        ] {
            scope.spawn(move || {
                dispatcher.get("/job/unknown"); // begins the watch
                eventually("the watch", || (metric(dispatcher, "watch_silence_seconds") > 0.0).then_some(()));
                let begin = Instant::now();
                let reply = wait_for(dispatcher, name, "8s").receive().unwrap();
                let took = begin.elapsed();
                assert_eq!(reply.json()["pods"].is_array(), has_pods, "{}", reply.json());
                assert_eq!(state(reply), is(200, last));
                assert!(took > 15 * SECOND / 2 && took < 11 * SECOND, "{name}: {took:?}");
            });
        }
    });
    namespace.admin().patch(&path, json!({"metadata": {"finalizers": null}}));
}

#[test]
fn cached_jobs_are_returned_without_a_call() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    dispatcher.get("/job/unknown"); // begins the watch
    eventually("the watch", || (metric(&dispatcher, "watch_silence_seconds") > 0.0).then_some(()));
    let calls = || {
        let text = String::from_utf8(dispatcher.get("/metrics").body).unwrap();
        text.lines().filter(|line| line.contains("api_requests_total{verb=\"get\",code=\"200\"}")).count()
    };
    for number in 0..50 {
        let name = format!("job-{number}");
        assert_eq!(dispatcher.post("/job", &suspended(&name)).code, 201);
        assert_eq!(state(dispatcher.get(&format!("/job/{name}"))), is(200, "suspended"), "one reads what one wrote");
    }
    assert_eq!(calls(), 0);
    assert_eq!(metric(&dispatcher, "jobs{state=\"suspended\"}"), 50.0);
    // another dispatcher's Jobs are known too
    let other = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    assert_eq!(other.post("/job", &suspended("other")).code, 201);
    eventually("the other's Job", || (metric(&dispatcher, "jobs{state=\"suspended\"}") == 51.0).then_some(()));
    assert_eq!(dispatcher.get("/job/other").code, 200);
    assert_eq!(calls(), 0);
}

#[test]
fn a_dispatcher_that_stops_answers_those_who_wait() {
    let namespace = Namespace::new();
    let mut dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--shutdown-delay=1s"]);
    assert_eq!(dispatcher.post("/job", &suspended("a")).code, 201);
    let mut lines: Vec<_> = (0..5).map(|_| wait_for(&dispatcher, "a", "60s")).collect();
    waiters(&dispatcher, 5);
    let begin = Instant::now();
    dispatcher.signal(Signal::TERM);
    for line in &mut lines {
        let reply = line.receive().unwrap();
        assert_eq!((reply.header("Connection"), reply.header("Retry-After")), (Some("close"), Some("1")));
        assert_eq!(state(reply), is(200, "suspended"));
    }
    assert!(begin.elapsed() < SECOND, "at once");
    drop(lines);
    assert_eq!(dispatcher.wait().code(), Some(0));
}

#[test]
fn who_leaves_waits_no_longer_and_half_may_wait() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--max-connections=8"]);
    assert_eq!(dispatcher.post("/job", &suspended("a")).code, 201);
    let mut lines: Vec<_> = (0..4).map(|_| wait_for(&dispatcher, "a", "60s")).collect();
    waiters(&dispatcher, 4);
    let mut fifth = wait_for(&dispatcher, "a", "60s");
    assert_eq!(fifth.receive().unwrap().error(), (503, "Overloaded".into()));
    let prefer = format!("{JSON}Prefer: wait=60\r\n");
    let reply = asked(&dispatcher, "POST", "/job", &prefer, &suspended("b")).receive().unwrap();
    assert_eq!(
        (reply.code, reply.header("Preference-Applied")),
        (201, None),
        "it was created, and is returned at once"
    );
    // newcomers take the places of others
    let newcomers: Vec<_> = (0..20)
        .map(|_| {
            let mut line = asked(&dispatcher, "GET", "/health/live", "", "");
            assert_eq!(line.receive().unwrap().code, 200);
            line
        })
        .collect();
    drop(newcomers);
    waiters(&dispatcher, 4);
    lines.truncate(1);
    waiters(&dispatcher, 1);
    lines[0].send(request("GET", "/health/live", "", "")); // pipelined: it is answered later
    namespace.admin().call("DELETE", &format!("{}/a?propagationPolicy=Background", namespace.jobs()), None);
    assert_eq!(lines[0].receive().unwrap().code, 404);
    assert_eq!(lines[0].receive().unwrap().code, 200);
}

#[test]
fn without_the_right_to_watch_waiters_are_polled_for() {
    let namespace = Namespace::with(json!({}), &["create", "get"]);
    namespace.cluster.needs_controller_manager();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    let body = manifest(json!({"name": "a"}), ends(SECOND, 0, ""));
    let mut post = asked(&dispatcher, "POST", "/job", &format!("{JSON}Prefer: wait=25\r\n"), &body);
    let mut gets: Vec<_> = Vec::new();
    eventually("the Job", || namespace.job("a"));
    gets.extend((0..10).map(|_| wait_for(&dispatcher, "a", "25s")));
    assert_eq!(state(post.receive().unwrap()), is(201, "succeeded"));
    for get in &mut gets {
        assert_eq!(state(get.receive().unwrap()), is(200, "succeeded"));
    }
    dispatcher.logged("may not list and watch Jobs");
    let said = dispatcher.log().iter().filter(|line| line.contains("may not list and watch")).count();
    assert_eq!((said, metric(&dispatcher, "watch_restarts_total{cause=\"forbidden\"}") >= 1.0), (1, true));
    assert_eq!(dispatcher.post("/job", &suspended("b")).code, 201);
    let preferred = asked(&dispatcher, "GET", "/job/b", "Prefer: wait=1\r\n", "").receive().unwrap();
    assert_eq!(preferred.header("Preference-Applied"), Some("wait=1"));
    assert_eq!(state(preferred), is(200, "suspended"));
    let mut gone = wait_for(&dispatcher, "b", "25s");
    let others: Vec<_> = (0..30).map(|_| wait_for(&dispatcher, "b", "25s")).collect();
    waiters(&dispatcher, 31);
    // one Job is asked for once in a round of the poll, and not once for each caller
    let calls = || metric(&dispatcher, "api_requests_total{verb=\"get\",code=\"200\"}");
    let (begin, before) = (Instant::now(), calls());
    eventually("more calls", || (calls() >= before + 10.0).then_some(()));
    assert!(begin.elapsed() > SECOND / 2, "20 a second at most");
    drop(others);
    waiters(&dispatcher, 1);
    namespace.admin().call("DELETE", &format!("{}/b?propagationPolicy=Background", namespace.jobs()), None);
    assert_eq!(gone.receive().unwrap().error().0, 404);
}

#[test]
fn rights_that_are_given_later_are_used() {
    let namespace = Namespace::with(json!({}), &["create", "get"]);
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    assert_eq!(dispatcher.post("/job", &suspended("a")).code, 201);
    let mut line = wait_for(&dispatcher, "a", "60s");
    dispatcher.logged("may not list and watch Jobs");
    let jobs = || dispatcher.metric("jobs{state=\"suspended\"}");
    assert_eq!(jobs(), None, "nothing would report that they are gone");
    namespace.allow(&["create", "get", "list", "watch"]);
    eventually("the watch", || (jobs() == Some(1.0)).then_some(()));
    waiters(&dispatcher, 1);
    namespace.admin().call("DELETE", &format!("{}/a?propagationPolicy=Background", namespace.jobs()), None);
    assert_eq!(line.receive().unwrap().error().0, 404);
}

#[test]
fn rights_that_are_taken_away_leave_waiters_to_the_poll() {
    let namespace = Namespace::new();
    let mut server = namespace.cluster.another_api_server();
    let dispatcher = Dispatcher::start_command(Dispatcher::command_for(&namespace, &server.url, &[AS_IS]));
    for name in ["ends", "goes"] {
        assert_eq!(dispatcher.post("/job", &suspended(name)).code, 201);
    }
    let mut lines = [wait_for(&dispatcher, "ends", "60s"), wait_for(&dispatcher, "goes", "60s")];
    let mut short = wait_for(&dispatcher, "ends", "25s");
    waiters(&dispatcher, 3);
    namespace.allow(&["create", "get"]);
    server.kill(); // a running watch is not checked for its rights again
    server.start_again();
    dispatcher.logged("may not list and watch Jobs");
    end(&namespace, "ends");
    namespace.admin().call("DELETE", &format!("{}/goes?propagationPolicy=Background", namespace.jobs()), None);
    assert_eq!(state(lines[0].receive().unwrap()), is(200, "failed"));
    assert_eq!(lines[1].receive().unwrap().error().0, 404, "its last state is not known");
    assert_eq!(state(short.receive().unwrap()), is(200, "failed"));
    assert_eq!(dispatcher.post("/job", &suspended("more")).code, 201, "all else continues");
}

/// Makes a suspended Job fail.
fn end(namespace: &Namespace, name: &str) {
    let failed = json!({"status": {"conditions": [
        {"type": "FailureTarget", "status": "True", "reason": "R", "message": "m"},
        {"type": "Failed", "status": "True", "reason": "R", "message": "m"},
    ], "startTime": "2026-01-01T00:00:00Z"}});
    let (code, answer) = namespace.admin().patch(&format!("{}/{name}/status", namespace.jobs()), failed);
    assert_eq!(code, 200, "{answer}");
}

#[test]
fn waiters_survive_the_end_of_an_api_server() {
    let namespace = Namespace::new();
    let mut server = namespace.cluster.another_api_server();
    let dispatcher = Dispatcher::start_command(Dispatcher::command_for(&namespace, &server.url, &[AS_IS]));
    for name in ["deleted", "ends"] {
        assert_eq!(dispatcher.post("/job", &suspended(name)).code, 201);
    }
    let mut lines = [wait_for(&dispatcher, "deleted", "60s"), wait_for(&dispatcher, "ends", "60s")];
    let mut short = wait_for(&dispatcher, "ends", "3s");
    waiters(&dispatcher, 3);
    server.kill();
    // while it is gone; another one is there
    namespace.admin().call("DELETE", &format!("{}/deleted?propagationPolicy=Background", namespace.jobs()), None);
    let reported = short.receive().unwrap();
    let age = reported.json()["stateAge"].as_u64();
    assert_eq!(state(reported), is(200, "suspended"), "the last state");
    assert!(age.is_some_and(|age| age < 10), "it cannot be confirmed: {age:?}");
    server.start_again();
    assert_eq!(lines[0].receive().unwrap().error().0, 404, "it has disappeared while there was no watch");
    end(&namespace, "ends");
    assert_eq!(state(lines[1].receive().unwrap()), is(200, "failed"));
}

fn one_job() -> String {
    event("", "a", 5, None)["object"].to_string()
}

#[test]
fn a_version_that_is_too_old_begins_the_watch_anew() {
    let expired =
        json!({"type": "ERROR", "object": {"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired"}});
    let server = Scripted::start([Act::Answer(200, "", one_job())]);
    for reported in [
        events(&[event("ADDED", "a", 5, None), bookmark(7, true), expired]),
        events(&[event("ADDED", "a", 9, Some("Complete")), bookmark(9, true)]),
    ] {
        server.then_follow(Act::Answer(200, "", reported))
    }
    let dispatcher = Dispatcher::start(&[AS_IS, "--server", &server.url, "--namespace=ns"]);
    let mut line = wait_for(&dispatcher, "a", "25s");
    assert_eq!(state(line.receive().unwrap()), is(200, "succeeded"));
    let follows = server.followed();
    assert!(follows.iter().take(2).all(|target| target.contains("sendInitialEvents=true")), "{follows:?}");
    assert!(follows[0].contains("/jobs?watch=1&labelSelector=app.kubernetes.io%2Fmanaged-by%3Dk8s-job-dispatcher&"));
    assert_eq!(metric(&dispatcher, "watch_restarts_total{cause=\"expired\"}"), 1.0);
}

#[test]
fn where_a_watch_cannot_begin_with_all_jobs_they_are_listed() {
    let invalid = status(
        422,
        "Invalid",
        "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
        json!({}),
    );
    let page = |next: &str, items: &[Value]| page(20, next, items);
    let item = |name: &str, condition: Option<&str>| event("", name, 11, condition)["object"].clone();
    let server = Scripted::start([Act::Answer(200, "", one_job())]);
    for act in [
        Act::Answer(422, "", invalid),
        Act::Answer(200, "", page("a+b", &[item("b", None)])),
        Act::Answer(200, "", page("", &[item("a", None)])),
        Act::Answer(200, "", events(&[event("MODIFIED", "a", 21, Some("Failed"))])),
    ] {
        server.then_follow(act)
    }
    let dispatcher = Dispatcher::start(&[AS_IS, "--server", &server.url, "--namespace=ns"]);
    let mut line = wait_for(&dispatcher, "a", "25s");
    assert_eq!(state(line.receive().unwrap()), is(200, "failed"));
    let follows = server.followed();
    assert!(follows[1].ends_with("&limit=200") && follows[2].ends_with("&limit=200&continue=a%2Bb"), "{follows:?}");
    assert!(follows[3].ends_with("&resourceVersion=20"), "{follows:?}");
    assert_eq!(metric(&dispatcher, "jobs{state=\"waiting\"}"), 1.0);
}
