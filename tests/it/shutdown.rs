use crate::dispatch::manifest;
use crate::support::dispatcher::{AS_IS, Dispatcher, binary};
use crate::support::eventually;
use crate::support::http::{JSON, request};
use crate::support::namespace::Namespace;
use crate::support::scripted::{Act, Scripted, job};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const BODY: &str = r#"{"metadata": {"name": "a"}, "spec": {}}"#;

#[test]
fn requests_in_flight_finish() {
    for signal in [Signal::TERM, Signal::INT] {
        let server = Scripted::start([Act::Silence]);
        let mut dispatcher = Dispatcher::start(&[AS_IS, "--server", &server.url, "--request-timeout=2s"]);
        let (mut busy, mut idle, mut half) = (dispatcher.line(), dispatcher.line(), dispatcher.line());
        idle.send(request("GET", "/health/live", "", ""));
        assert_eq!(idle.receive().unwrap().code, 200);
        let text = request("GET", "/health/live", "", "");
        half.send(&text[..10]);
        busy.send(request("POST", "/job", JSON, BODY));
        eventually("the call", || (server.seen().len() == 1).then_some(()));
        dispatcher.signal(signal);
        assert!(idle.is_closed(), "idle connections are closed");
        assert!(TcpStream::connect(dispatcher.address).is_err(), "nobody is let in any more");
        half.send(&text[10..]);
        let reply = half.receive().unwrap();
        assert_eq!((reply.code, reply.header("Connection")), (200, Some("close")));
        let reply = busy.receive().unwrap();
        assert_eq!((reply.error().0, reply.header("Connection")), (504, Some("close")));
        drop((busy, half));
        assert_eq!(dispatcher.wait().code(), Some(0));
        dispatcher.logged("stopped");
    }
}

#[test]
fn a_partial_request_does_not_delay_shutdown() {
    let mut dispatcher = Dispatcher::start(&[AS_IS, "--dry-run=client"]);
    let (mut half, mut odd) = (dispatcher.line(), dispatcher.line());
    half.send("POST /job HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n1");
    odd.send("\r");
    dispatcher.get("/health/live"); // by now both were read
    let begin = Instant::now();
    dispatcher.signal(Signal::TERM);
    assert!(odd.is_closed());
    assert_eq!(half.receive().expect("an answer").error(), (503, "ShuttingDown".into()));
    drop(half);
    assert_eq!(dispatcher.wait().code(), Some(0));
    let took = begin.elapsed();
    assert!(took > Duration::from_secs(4) && took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_dispatch_in_flight_creates_its_job() {
    let namespace = Namespace::new();
    let mut dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    let mut lines: Vec<_> = (0..20).map(|_| dispatcher.line()).collect();
    for (number, line) in lines.iter_mut().enumerate() {
        line.send(request("POST", "/job", JSON, &manifest(json!({"name": format!("job-{number}")}), json!({}))));
    }
    dispatcher.signal(Signal::TERM);
    let codes: Vec<_> =
        lines.iter_mut().map(|line| line.receive().expect("what was accepted is answered").code).collect();
    assert_eq!(codes, [201; 20]);
    drop(lines);
    assert_eq!(dispatcher.wait().code(), Some(0));
    assert_eq!(namespace.job_names().len(), 20);
}

#[test]
fn a_dispatch_that_waits_for_its_next_try_is_finished() {
    let busy = Act::Answer(429, "Retry-After: 2\r\n", "Too many requests".into());
    let server = Scripted::start([busy, Act::Answer(201, "", job("a", json!({})))]);
    let mut dispatcher = Dispatcher::start(&[AS_IS, "--server", &server.url, "--namespace=ns"]);
    let mut line = dispatcher.line();
    line.send(request("POST", "/job", JSON, BODY));
    eventually("the first try", || (server.seen().len() == 1).then_some(()));
    dispatcher.signal(Signal::TERM);
    let reply = line.receive().unwrap();
    assert_eq!((reply.code, reply.header("Connection")), (201, Some("close")));
    drop(line);
    assert_eq!(dispatcher.wait().code(), Some(0));
}

#[test]
fn what_would_wait_for_longer_than_the_shutdown_has_its_last_try_before() {
    let busy = Act::Answer(429, "Retry-After: 40\r\n", "Too many requests".into());
    let server = Scripted::start([busy, Act::Answer(201, "", job("a", json!({})))]);
    let mut dispatcher =
        Dispatcher::start(&[AS_IS, "--server", &server.url, "--namespace=ns", "--request-timeout=60s"]);
    let mut line = dispatcher.line();
    line.send(request("POST", "/job", JSON, BODY));
    eventually("the first try", || (server.seen().len() == 1).then_some(()));
    dispatcher.signal(Signal::TERM);
    assert_eq!(line.receive().unwrap().code, 201);
    drop(line);
    assert_eq!(dispatcher.wait().code(), Some(0));
}

#[test]
fn after_a_kill_the_same_request_gets_the_same_job() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    let text = |number| {
        let headers = format!("{JSON}Idempotency-Key: {number}\r\n");
        request("POST", "/job", &headers, &manifest(json!({"generateName": "k-"}), json!({})))
    };
    let mut lines: Vec<_> = (0..20).map(|_| dispatcher.line()).collect();
    for (number, line) in lines.iter_mut().enumerate() {
        line.send(text(number))
    }
    eventually("the first Job", || namespace.job_names().first().cloned());
    drop(dispatcher); // which kills it
    let next = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    for number in 0..20 {
        let reply = next.send(text(number));
        assert!(matches!(reply.code, 200 | 201), "{}", reply.json());
    }
    assert_eq!(namespace.job_names().len(), 20);
}

#[test]
fn during_the_shutdown_delay_it_serves_but_is_not_ready() {
    let server = Scripted::start([Act::Answer(201, "", job("a", json!({})))]);
    let mut dispatcher = Dispatcher::start(&[AS_IS, "--server", &server.url, "--shutdown-delay=1500ms"]);
    let begin = Instant::now();
    dispatcher.signal(Signal::TERM);
    let reply = eventually("not ready", || Some(dispatcher.get("/health/ready")).filter(|reply| reply.code == 503));
    assert_eq!((reply.error(), reply.header("Retry-After")), ((503, "ShuttingDown".into()), Some("1")));
    assert_eq!(dispatcher.get("/health/live").code, 200);
    assert_eq!(dispatcher.post("/job", BODY).code, 201);
    assert_eq!(dispatcher.wait().code(), Some(0));
    let took = begin.elapsed();
    assert!(took > Duration::from_millis(1400) && took < Duration::from_secs(6), "{took:?}");
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut dispatcher = Dispatcher::start(&[AS_IS, "--dry-run=client", "--shutdown-delay=1m"]);
    dispatcher.signal(Signal::TERM);
    dispatcher.logged("stopping");
    dispatcher.signal(Signal::TERM);
    assert_eq!(dispatcher.wait().code(), Some(1));
}

#[test]
fn as_pid_1_it_stops_on_sigterm() {
    // the first process of a pid namespace ignores every signal that it has no handler for
    let mut in_namespace = Command::new("unshare");
    in_namespace.args(["--pid", "--fork", "--kill-child"]).arg(binary());
    in_namespace.args(["--port=0", AS_IS, "--dry-run=client"]).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut dispatcher = Dispatcher::start_command(in_namespace);
    let children = format!("/proc/{0}/task/{0}/children", dispatcher.pid());
    let first: i32 = std::fs::read_to_string(children).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(first).unwrap(), Signal::TERM).unwrap();
    assert_eq!(dispatcher.wait().code(), Some(0));
}
