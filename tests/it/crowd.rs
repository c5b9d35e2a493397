use crate::dispatch::manifest;
use crate::support::dispatcher::{AS_IS, Dispatcher};
use crate::support::eventually;
use crate::support::follow::{bookmark, event, events, page};
use crate::support::http::{JSON, Line, request};
use crate::support::scripted::{Act, Scripted};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
const LIVE: &str = "/health/live";

fn asked(dispatcher: &Dispatcher, method: &str, target: &str, headers: &str, body: &str) -> Line {
    let mut line = dispatcher.line();
    line.send(request(method, target, headers, body));
    line
}

fn metric(dispatcher: &Dispatcher, name: &str) -> f64 {
    dispatcher.metric(name).unwrap_or_else(|| panic!("no {name}"))
}

/// As a kubelet does: on a connection of its own, within a second.
fn probe(dispatcher: &Dispatcher) {
    let begin = Instant::now();
    let reply = dispatcher.get(LIVE);
    assert_eq!(reply.code, 200);
    assert!(begin.elapsed() < SECOND, "a probe took {:?}", begin.elapsed());
}

/// A large upload of which one byte has come, so that it holds memory, or waits for it.
fn upload(dispatcher: &Dispatcher) -> Line {
    let mut line = dispatcher.line();
    line.send(format!("POST /job HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: 2000000\r\n\r\n{{"));
    line
}

/// A dispatcher with these callers that wait for the end of Job `a`, which is suspended.
fn with_waiters(server: &Scripted, args: &[&str], number: u32) -> (Dispatcher, Vec<Line>) {
    let mut waits = event("ADDED", "a", 5, None);
    waits["object"]["spec"] = json!({"suspend": true});
    server.then_follow(Act::Stays(events(&[waits.clone(), bookmark(70, true)])));
    for _ in 0..9 {
        server.then_follow(Act::Answer(200, "", page(100, "", &[])));
        server.then_follow(Act::Stays(String::new()))
    }
    server.then(Act::Answer(200, "", waits["object"].to_string()));
    let dispatcher = Dispatcher::start(&[&[AS_IS, "--server", &server.url, "--namespace=ns"], args].concat());
    assert_eq!(dispatcher.get("/job/a").code, 200);
    eventually("the watch", || (dispatcher.metric("jobs{state=\"suspended\"}") == Some(1.0)).then_some(()));
    let mut waiters = Vec::new();
    for number in 1..=number {
        waiters.push(asked(&dispatcher, "GET", "/job/a?wait=40s", "", ""));
        eventually("callers to wait", || (metric(&dispatcher, "waiters") == f64::from(number)).then_some(()));
    }
    (dispatcher, waiters)
}

#[test]
fn waiters_and_uploads_that_wait_for_memory_leave_probes_alone() {
    let server = Scripted::start([]);
    let (dispatcher, _waiters) = with_waiters(&server, &["--max-connections=16", "--request-timeout=60s"], 8);
    // two of them get memory, and arrive slowly; six wait for it
    let _uploads: Vec<_> = (0..8).map(|_| upload(&dispatcher)).collect();
    (0..30).for_each(|_| probe(&dispatcher));
    // a connection that is just being closed cannot be evicted in place of one of them
    assert!(metric(&dispatcher, "waiters") >= 5.0, "slow uploads make way before them");
}

#[test]
fn waiters_are_answered_to_make_room_when_nothing_else_can_be_evicted() {
    let server = Scripted::start([]);
    let (dispatcher, mut waiters) = with_waiters(&server, &["--max-connections=16", "--request-timeout=30s"], 8);
    (0..8).for_each(|_| server.then(Act::Silence));
    let body = |number: usize| manifest(json!({"name": format!("a-{number}")}), json!({}));
    let busy: Vec<_> = (0..8).map(|number| asked(&dispatcher, "POST", "/job", JSON, &body(number))).collect();
    eventually("all to be served", || (server.seen().len() == 9).then_some(()));
    probe(&dispatcher);
    let reply = waiters[0].receive().expect("the one that has waited longest is answered");
    assert_eq!((reply.code, &reply.json()["state"]), (200, &json!("suspended")));
    assert_eq!((reply.header("Retry-After"), reply.header("Connection")), (Some("1"), Some("close")));
    // a connection that is just being closed cannot be evicted in place of a second
    assert!((4.0..8.0).contains(&metric(&dispatcher, "waiters")), "one or few make room");
    drop(busy)
}

#[test]
fn probes_have_places_of_their_own() {
    let server = Scripted::start((0..8).map(|_| Act::Silence));
    let args = [AS_IS, "--server", &server.url, "--namespace=ns", "--max-connections=8", "--request-timeout=30s"];
    let dispatcher = Dispatcher::start(&args);
    let body = |number: usize| manifest(json!({"name": format!("a-{number}")}), json!({}));
    let busy: Vec<_> = (0..8).map(|number| asked(&dispatcher, "POST", "/job", JSON, &body(number))).collect();
    eventually("all to be served", || (server.seen().len() == 8).then_some(()));
    for _ in 0..40 {
        probe(&dispatcher);
        assert_eq!(dispatcher.get("/metrics").code, 200);
    }
    let refused = dispatcher.post("/job", &body(9));
    assert_eq!((refused.error(), refused.header("Connection")), ((503, "Overloaded".into()), Some("close")));
    assert!(metric(&dispatcher, "connections_rejected_total") >= 1.0);
    // the oldest of the silent ones makes room for the next
    let silent: Vec<_> = (0..100).map(|_| dispatcher.line()).collect();
    (0..20).for_each(|_| probe(&dispatcher));
    drop((busy, silent))
}

#[test]
fn many_lists_of_many_jobs_leave_probes_alone() {
    const JOBS: usize = 10_000;
    const CALLERS: usize = 300;
    let labels: serde_json::Map<String, Value> =
        (0..16).map(|number| (format!("label-{number}"), json!("x"))).collect();
    let mut all: Vec<Value> = Vec::new();
    for number in 0..JOBS {
        let mut one = event("ADDED", &format!("job-{number}"), 1 + number as u64, None);
        one["object"]["metadata"]["labels"].as_object_mut().unwrap().extend(labels.clone());
        all.push(one)
    }
    all.push(bookmark(20_000, true));
    let server = Scripted::start([]);
    server.then_follow(Act::Stays(events(&all)));
    for _ in 0..9 {
        server.then_follow(Act::Answer(200, "", page(30_000, "", &[])));
        server.then_follow(Act::Stays(String::new()))
    }
    let args = [AS_IS, "--server", &server.url, "--namespace=ns", "--enable=list", "--max-cache-bytes=67108864"];
    let dispatcher = Dispatcher::start(&args);
    eventually("all Jobs to be known", || {
        (dispatcher.metric("jobs{state=\"waiting\"}") == Some(JOBS as f64) && dispatcher.get("/job").code == 200)
            .then_some(())
    });
    let query: Vec<_> =
        (0..16).map(|number| format!("label=label-{number}%3D{}", if number < 15 { "x" } else { "y" })).collect();
    let target = format!("/job?{}", query.join("&"));
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..30 {
            scope.spawn(|| {
                let mut lines: Vec<_> = (0..CALLERS / 30).map(|_| dispatcher.line()).collect();
                while !is_over.load(SeqCst) {
                    for line in &mut lines {
                        line.send(request("GET", &target, "", ""))
                    }
                    for line in &mut lines {
                        let reply = line.receive().expect("an answer");
                        assert!(reply.code == 200 || reply.code == 503, "{}", reply.code);
                        answered.fetch_add(1, SeqCst);
                    }
                }
            });
        }
        let end = Instant::now() + 4 * SECOND;
        while Instant::now() < end {
            probe(&dispatcher)
        }
        is_over.store(true, SeqCst);
    });
    assert!(answered.load(SeqCst) > CALLERS, "{answered:?} lists were answered");
}

#[test]
fn a_hostile_body_keeps_neither_its_caller_nor_others_nor_the_shutdown_waiting() {
    let filter = r#"if isstring then [splits("a.*z|a")] | length else . end | {metadata: {name: "a"}, spec: {x: .}}"#;
    let args = [filter, "--dry-run=client", "--request-timeout=2s", "--max-filter-time=2s"];
    let mut dispatcher = Dispatcher::start(&args);
    let hostile = format!("\"{}\"", "a".repeat(400_000));
    let begin = Instant::now();
    let mut line = asked(&dispatcher, "POST", "/job", JSON, &hostile);
    let reply = line.receive().unwrap();
    assert!([422, 503].contains(&reply.code), "{}", reply.json());
    assert!(begin.elapsed() < 3 * SECOND, "the caller's time is {:?}", begin.elapsed());
    let mut one = asked(&dispatcher, "POST", "/job", JSON, &hostile);
    let large = format!("[\"{}\"]", "b".repeat(100_000));
    assert_eq!(dispatcher.post("/job", &large).code, 200, "another large request has its turn");
    assert!([422, 503].contains(&one.receive().unwrap().code));
    let _last = asked(&dispatcher, "POST", "/job", JSON, &hostile);
    eventually("it to be received", || {
        (metric(&dispatcher, "dispatches{state=\"queued\"}") > 0.0 || begin.elapsed() > 8 * SECOND).then_some(())
    });
    let begin = Instant::now();
    dispatcher.signal(rustix::process::Signal::TERM);
    assert_eq!(dispatcher.wait().code(), Some(0));
    assert!(begin.elapsed() < 5 * SECOND, "the shutdown took {:?}", begin.elapsed());
}
