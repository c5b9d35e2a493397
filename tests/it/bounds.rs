use crate::dispatch::suspended;
use crate::support::dispatcher::{AS_IS, Dispatcher};
use crate::support::eventually;
use crate::support::http::{JSON, Line, Reply, request};
use crate::support::load::process::peak;
use crate::support::load::small_thread;
use crate::support::namespace::Namespace;
use crate::support::scripted::{Act, Scripted};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use std::io::Write;
use std::net::Shutdown;
use std::thread;
use std::time::Instant;

/// Sends all at once. Returns the replies.
fn all(dispatcher: &Dispatcher, number: usize, text: &str) -> Vec<Reply> {
    let mut lines: Vec<Line> = (0..number).map(|_| dispatcher.line()).collect();
    lines.iter_mut().for_each(|line| line.send(text));
    receive(lines)
}

/// Reads the replies on all of these at once.
fn receive(lines: Vec<Line>) -> Vec<Reply> {
    let one = |mut line: Line| line.receive().expect("an answer");
    let reading: Vec<_> =
        lines.into_iter().map(|line| small_thread().spawn(move || one(line)).expect("a thread")).collect();
    reading.into_iter().map(|reading| reading.join().expect("a reply")).collect()
}

fn codes(replies: &[Reply]) -> Vec<u16> {
    let mut codes: Vec<u16> = replies.iter().map(|reply| reply.code).collect();
    codes.sort();
    codes.dedup();
    codes
}

/// Adds a condition with a message of so many bytes to the status of a Job.
fn lengthen(namespace: &Namespace, name: &str, bytes: usize) {
    let condition = json!({"type": "Test", "status": "True", "reason": "Test", "message": "x".repeat(bytes)});
    let path = format!("{}/{name}/status", namespace.jobs());
    let job = namespace.job(name).unwrap();
    let mut conditions = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.retain(|condition| condition["type"] != "Test");
    conditions.push(condition);
    let (code, answer) = namespace.admin().patch(&path, json!({"status": {"conditions": conditions}}));
    assert_eq!(code, 200, "{answer}");
}

/// Creates a Job that is suspended, with a status of that length.
fn create_long(dispatcher: &Dispatcher, namespace: &Namespace, name: &str, bytes: usize) {
    assert_eq!(dispatcher.post("/job", &suspended(json!({ "name": name }))).code, 201);
    let is_seen = || namespace.job(name)?["status"]["conditions"].as_array().map(|_| ());
    eventually("the Job's controller", is_seen);
    lengthen(namespace, name, bytes)
}

/// The process never had more, in MiB. Of the static build, which `DISPATCHER` names (`tests/measure`): others keep much of what is freed.
fn is_below(dispatcher: &Dispatcher, limit: f64) {
    let peak = peak(dispatcher.pid()).unwrap();
    println!("the process had {peak:.1} MiB");
    assert!(std::env::var_os("DISPATCHER").is_none() || peak < limit, "the process had {peak:.1} MiB");
}

#[test]
fn many_labels_of_a_job_take_no_memory_for_a_repeated_post() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--request-timeout=60s"]);
    let labels: serde_json::Map<_, _> = (0..40_000).map(|number| (format!("l{number}"), json!("x"))).collect();
    let job: Value = serde_json::from_str(&suspended(json!({"name": "a", "labels": labels}))).unwrap();
    namespace.admin().create(&namespace.jobs(), job);
    let text = request("POST", "/job", JSON, &suspended(json!({"name": "a"})));
    assert_eq!(codes(&all(&dispatcher, 100, &text)), [409]);
    is_below(&dispatcher, 40.0);
}

#[test]
fn a_long_job_is_shown_to_many_in_turn() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--request-timeout=60s"]);
    create_long(&dispatcher, &namespace, "a", 1_200_000);
    // nothing is known of it at first, so each calls; then all are answered from what is known
    for number in [30, 30] {
        let replies = all(&dispatcher, number, &request("GET", "/job/a", "", ""));
        assert_eq!(codes(&replies), [200]);
        assert!(replies.iter().all(|reply| reply.body.len() > 1_200_000));
    }
    is_below(&dispatcher, 40.0);
    // one whose time is over when the Job has been read
    let another = Dispatcher::for_namespace(&namespace, &[AS_IS, "--request-timeout=60s"]);
    assert_eq!(another.get("/job/a?wait=1ms").code, 200, "alone, it waits for nothing");
    let replies = all(&another, 20, &request("GET", "/job/a?wait=1ms", "", ""));
    assert_eq!(codes(&replies), [200]);
    assert!(replies.iter().all(|reply| reply.body.len() > 1_200_000));
    lengthen(&namespace, "a", 64);
    assert_eq!(dispatcher.get("/job/a").code, 200);
}

#[test]
fn those_who_wait_for_a_long_job_hold_no_memory_for_answers() {
    const MANY: usize = 150;
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    create_long(&dispatcher, &namespace, "a", 100_000);
    eventually("the watch", || (dispatcher.get("/job/a").body.len() > 100_000).then_some(()));
    let mut waiters: Vec<Line> = (0..MANY).map(|_| dispatcher.line()).collect();
    waiters.iter_mut().for_each(|line| line.send(request("GET", "/job/a?wait=10s", "", "")));
    eventually("callers to wait", || (dispatcher.metric("waiters") == Some(MANY as f64)).then_some(()));
    assert_eq!(dispatcher.metric("reserved_bytes{kind=\"answer\"}"), Some(0.0));
    for reply in receive(waiters) {
        assert_eq!((reply.code, reply.json()["state"].as_str()), (200, Some("suspended")));
        assert!(reply.body.len() > 100_000);
    }
}

#[test]
fn all_waiters_get_a_long_answer_in_turn() {
    const MANY: usize = 500;
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--request-timeout=60s"]);
    create_long(&dispatcher, &namespace, "a", 24_000);
    let mut waiters: Vec<Line> = (0..MANY).map(|_| dispatcher.line()).collect();
    waiters.iter_mut().for_each(|line| line.send(request("GET", "/job/a?wait=60s", "", "")));
    eventually("callers to wait", || (dispatcher.metric("waiters") == Some(MANY as f64)).then_some(()));
    let now = namespace.job("a").unwrap()["metadata"]["creationTimestamp"].clone();
    let condition = |name: &str, message: &str| json!({"type": name, "status": "True", "reason": "Test", "message": message, "lastTransitionTime": now});
    let conditions = json!([condition("FailureTarget", "x"), condition("Failed", &"x".repeat(300_000))]);
    let path = format!("{}/a/status", namespace.jobs());
    let status = json!({"status": {"startTime": now, "conditions": conditions}});
    let (code, answer) = namespace.admin().patch(&path, status);
    assert_eq!(code, 200, "{answer}");
    for reply in receive(waiters) {
        assert_eq!((reply.code, reply.json()["state"].as_str()), (200, Some("failed")));
        assert!(reply.body.len() > 300_000);
    }
    is_below(&dispatcher, 40.0);
}

/// A connection whose client reads nothing of the reply to this, with a buffer that holds little of it.
fn unread(dispatcher: &Dispatcher, target: &str) -> Line {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(2 << 10).unwrap();
    socket.connect(&dispatcher.address.into()).unwrap();
    let mut line = Line::of(socket.into());
    line.send(request("GET", target, "", ""));
    line
}

#[test]
fn clients_that_do_not_read_their_metrics_do_not_hide_them_from_others() {
    let dispatcher = Dispatcher::start(&["{spec: {}}", "--dry-run=client"]);
    let _unread: Vec<Line> = (0..200).map(|_| unread(&dispatcher, "/metrics")).collect();
    let held = || dispatcher.metric("reserved_bytes{kind=\"metrics\"}").is_some_and(|bytes| bytes > 1e6);
    eventually("replies that are not read", || held().then_some(()));
    assert_eq!(dispatcher.get("/metrics").code, 200);
    is_below(&dispatcher, 40.0);
}

#[test]
fn clients_that_do_not_read_make_way_for_others() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--request-timeout=60s"]);
    create_long(&dispatcher, &namespace, "a", 1_200_000);
    eventually("the watch", || (dispatcher.get("/job/a").body.len() > 1_200_000).then_some(()));
    let _unread: Vec<Line> = (0..15).map(|_| unread(&dispatcher, "/job/a")).collect();
    let held = || dispatcher.metric("reserved_bytes{kind=\"answer\"}").is_some_and(|bytes| bytes > 9e6);
    eventually("replies that are not read", || held().then_some(()));
    let begin = Instant::now();
    let mut line = dispatcher.line();
    line.send(request("GET", "/job/a", "", ""));
    assert_eq!(line.receive().expect("an answer").code, 200, "after {:?}", begin.elapsed());
    assert_eq!(dispatcher.get("/metrics").code, 200);
    is_below(&dispatcher, 40.0);
}

#[test]
fn a_location_has_a_bound() {
    let dispatcher = Dispatcher::start(&["{metadata: {name: \"a\"}, spec: {}}", "--dry-run=client"]);
    assert_eq!(dispatcher.post(&format!("/job{}", "/".repeat(99)), "1").code, 200);
    let reply = dispatcher.post(&format!("/job{}", "/".repeat(8000)), "1");
    assert_eq!(reply.error(), (414, "URITooLong".to_owned()));
}

#[test]
fn large_manifests_wait_for_a_slow_api_server_beside_each_other() {
    const MANY: usize = 30;
    let server = Scripted::start(vec![Act::Silence; MANY]);
    let dispatcher =
        Dispatcher::start(&["{spec: {x: .}}", "--server", &server.url, "--namespace=ns", "--request-timeout=60s"]);
    let body = format!("\"{}\"", "x".repeat(400_000));
    let post = request("POST", "/job", JSON, &body);
    let lines: Vec<Line> = (0..MANY).map(|_| dispatcher.line()).collect();
    // those for whom there is no memory wait unread
    let posting: Vec<_> = lines
        .iter()
        .map(|line| line.stream.try_clone().unwrap())
        .map(|mut stream| {
            let post = post.clone();
            thread::spawn(move || stream.write_all(post.as_bytes()))
        })
        .collect();
    // each has the memory of its manifest alone: the body is needed no longer
    eventually("sixteen calls at once", || (server.seen().len() >= 16).then_some(()));
    is_below(&dispatcher, 40.0);
    drop((dispatcher, lines));
    posting.into_iter().for_each(|posting| _ = posting.join());
}

/// The filter, and everything that can be enabled.
pub(crate) const EVERYTHING: [&str; 2] = [AS_IS, "--enable=pods,logs,list,delete"];

/// A namespace that allows that.
pub(crate) fn namespace_for_everything() -> Namespace {
    let namespace = Namespace::with(json!({}), &["create", "get", "list", "watch", "delete"]);
    namespace.allow_too(&[("", "pods", "list"), ("", "pods/log", "get")]);
    namespace
}

/// Large Jobs, a full cache, and clients of every kind, until those that wait were answered.
pub(crate) fn everything_at_once(dispatcher: &Dispatcher, namespace: &Namespace) {
    const JOBS: usize = 250;
    let names: Vec<String> = (0..JOBS).map(|number| format!("job-{number}")).collect();
    names.iter().for_each(|name| create_long(dispatcher, namespace, name, 60_000));
    create_long(dispatcher, namespace, "a", 1_200_000);
    eventually("a full cache", || dispatcher.metric("jobs_cache_bytes").filter(|bytes| *bytes > 14e6));

    let send = |text: String| {
        let line = dispatcher.line();
        line.stream.set_nonblocking(true).unwrap();
        let _ = (&line.stream).write(text.as_bytes()); // as much as is read at once
        line
    };
    let upload = || format!("POST /job HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: 2000000\r\n\r\n{{");
    let large =
        request("POST", "/job", JSON, &suspended(json!({"name": "l", "annotations": {"x": "x".repeat(200_000)}})));
    let again = request("POST", "/job", JSON, &suspended(json!({"name": "a"})));
    let (mut held, mut posting): (Vec<Line>, Vec<_>) = Default::default();
    for number in 0..300 {
        held.push(send(request("GET", "/job/a?wait=8s", "", "")));
        held.push(send(again.clone()));
        if number % 3 == 0 {
            held.push(unread(dispatcher, &format!("/job/{}", names[number % JOBS])))
        }
        if number % 10 == 0 {
            held.push(unread(dispatcher, "/job/a"));
            held.push(unread(dispatcher, "/job?limit=500"));
            held.push(send(upload()));
            let line = dispatcher.line();
            let (mut stream, large) = (line.stream.try_clone().unwrap(), large.clone());
            posting.push(thread::spawn(move || stream.write_all(large.as_bytes())));
            held.push(line)
        }
    }
    for _ in 0..20 {
        assert_eq!(dispatcher.get("/health/live").code, 200);
        assert_eq!(dispatcher.get("/metrics").code, 200);
    }
    // until those that wait were answered
    eventually("the callers that wait", || (dispatcher.metric("waiters") == Some(0.0)).then_some(()));
    assert_eq!(dispatcher.post("/job", &suspended(json!({"name": "z"}))).code, 201);
    held.iter().for_each(|line| _ = line.stream.shutdown(Shutdown::Both)); // also where a thread still sends
    posting.into_iter().for_each(|posting| _ = posting.join());
}

/// the sum in `docs/operating.md` holds; `memory.rs` does it in a cgroup.
#[test]
fn the_process_stays_below_the_sum_with_everything_at_once() {
    let namespace = namespace_for_everything();
    let dispatcher = Dispatcher::for_namespace(&namespace, &EVERYTHING);
    everything_at_once(&dispatcher, &namespace);
    is_below(&dispatcher, 64.0);
}
