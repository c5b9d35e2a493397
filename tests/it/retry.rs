use crate::dispatch::manifest;
use crate::support::certificates::Authority;
use crate::support::dispatcher::{AS_IS, Dispatcher};
use crate::support::http::{JSON, request};
use crate::support::namespace::Namespace;
use crate::support::scripted::{Act, Scripted, job, status};
use crate::support::webhook::{Behaviour, Webhook};
use crate::support::{Folder, eventually};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

fn named(name: &str) -> String {
    manifest(json!({ "name": name }), json!({}))
}

fn gauge(dispatcher: &Dispatcher, name: &str) -> u64 {
    let text = String::from_utf8(dispatcher.get("/metrics").body).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

#[test]
fn an_api_server_that_cannot_be_reached_is_left_alone_until_it_is_back() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dispatcher = Dispatcher::start(&[AS_IS, "--server", &format!("http://{address}"), "--namespace=ns"]);
    assert_eq!(dispatcher.post("/job", &named("a")).error(), (502, "BadGateway".into()), "tried three times");
    let begin = Instant::now();
    for _ in 0..50 {
        let reply = dispatcher.post("/job", &named("a"));
        assert_eq!((reply.error().0, reply.header("Retry-After")), (503, Some("1")));
    }
    assert!(begin.elapsed() < Duration::from_secs(5), "at once");
    dispatcher.logged("no calls until it accepts connections");
    // the first that it gets is a probe, not a caller's request
    let listener = eventually("the port to be free", || TcpListener::bind(address).ok());
    let post = thread::spawn(move || {
        let reply = dispatcher.post("/job", &named("a"));
        (dispatcher, reply)
    });
    let first = BufReader::new(listener.accept().unwrap().0).lines().next().unwrap().unwrap();
    assert_eq!(first, "GET /readyz HTTP/1.1");
    let (dispatcher, reply) = post.join().unwrap();
    assert_eq!(reply.code, 503);
    dispatcher.logged("accepts connections again");
}

#[test]
fn who_waits_for_the_next_try_holds_no_permit() {
    let server = Scripted::start([]);
    let dispatcher = Dispatcher::start(&[AS_IS, "--server", &server.url, "--namespace=ns"]);
    for _ in 0..10 {
        server.then(Act::Answer(429, "Retry-After: 2\r\n", "Too many requests".into()))
    }
    let mut lines: Vec<_> = (0..10).map(|_| dispatcher.line()).collect();
    for line in &mut lines {
        line.send(request("POST", "/job", JSON, &named("a")))
    }
    eventually("all to wait", || {
        let queued = gauge(&dispatcher, "k8s_job_dispatcher_dispatches{state=\"queued\"}");
        (queued == 10).then_some(())
    });
    assert_eq!(gauge(&dispatcher, "k8s_job_dispatcher_dispatches{state=\"in_flight\"}"), 0);
    for _ in 0..10 {
        server.then(Act::Answer(201, "", job("a", json!({}))))
    }
    assert!(lines.iter_mut().all(|line| line.receive().unwrap().code == 201));
    dispatcher.logged(" 201 ");
    assert!(
        dispatcher.log().iter().filter(|line| line.ends_with("a client=127.0.0.1 tries=2")).count() == 10,
        "{:?}",
        dispatcher.log()
    );
    assert_eq!(gauge(&dispatcher, "k8s_job_dispatcher_retried_dispatches_total{code=\"201\",tries=\"2\"}"), 10);
}

/// An API server that answers so gets no more calls for 300 requests than these and the retry budget make.
fn assert_at_most_a_fifth_more(answer: &Act) {
    let server = Scripted::start([]);
    let dispatcher = Dispatcher::start(&[AS_IS, "--server", &server.url, "--namespace=ns"]);
    (0..2000).for_each(|_| server.then(answer.clone()));
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| (0..30).for_each(|_| assert_eq!(dispatcher.post("/job", &named("a")).code, 503)));
        }
    });
    let calls = server.seen().len();
    assert!((310..=300 + 20 + 60).contains(&calls), "{calls} calls for 300 requests");
}

#[test]
fn retries_are_a_fifth_of_what_is_asked() {
    assert_at_most_a_fifth_more(&Act::Answer(503, "", status(503, "ServiceUnavailable", "busy", json!({}))));
}

#[test]
fn a_look_for_the_job_counts_as_a_retry() {
    assert_at_most_a_fifth_more(&Act::Answer(500, "", status(500, "InternalError", "a fault", json!({}))));
}

#[test]
fn a_name_that_does_not_resolve_is_no_connection() {
    let dispatcher = Dispatcher::start(&[AS_IS, "--server=http://nowhere.invalid", "--namespace=ns"]);
    assert_eq!(dispatcher.post("/job", &named("a")).error(), (502, "BadGateway".into()));
    assert_eq!(dispatcher.post("/job", &named("a")).error(), (503, "ServiceUnavailable".into()));
    dispatcher.logged("no calls until it accepts connections");
}

#[test]
fn an_api_server_that_does_no_tls_handshake_stays_left_alone() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap(); // the kernel accepts
    let namespace = Namespace::new();
    let url = format!("https://{}", silent.local_addr().unwrap());
    let dispatcher = Dispatcher::start_command(Dispatcher::command_for(&namespace, &url, &[AS_IS]));
    assert_eq!(dispatcher.post("/job", &named("a")).code, 502, "tried three times");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(5) {
        let asked = Instant::now();
        assert_eq!(dispatcher.post("/job", &named("a")).code, 503);
        assert!(asked.elapsed() < Duration::from_secs(1), "no caller's request is the probe");
        thread::sleep(Duration::from_millis(50))
    }
}

#[test]
fn each_token_is_tried_once_for_a_call() {
    let server = Scripted::start([]);
    let rejected = || Act::Answer(401, "", status(401, "Unauthorized", "Unauthorized", json!({})));
    let folder = Folder::new();
    let token = folder.write("token", "one").display().to_string();
    let dispatcher = Dispatcher::start(&[AS_IS, "--server", &server.url, "--namespace=ns", "--token-file", &token]);
    folder.write("token", "two");
    server.then(rejected());
    server.then(Act::Answer(201, "", job("a", json!({}))));
    assert_eq!(dispatcher.post("/job", &named("a")).code, 201);
    (0..9).for_each(|_| server.then(rejected()));
    assert_eq!(dispatcher.post("/job", &named("a")).code, 502);
    let used: Vec<_> = server.seen().into_iter().filter_map(|seen| seen.authorization).collect();
    assert_eq!(used, ["one", "two", "two", "one"].map(|token| format!("Bearer {token}")));
}

#[test]
fn who_has_waited_for_the_next_try_is_first_in_the_queue() {
    const PERMITS: usize = 56;
    let server = Scripted::start([Act::Answer(429, "Retry-After: 1\r\n", "Too many requests".into())]);
    let dispatcher = Dispatcher::start(&[AS_IS, "--server", &server.url, "--namespace=ns", "--request-timeout=8s"]);
    let send = |name: &str| {
        let mut line = dispatcher.line();
        line.send(request("POST", "/job", JSON, &named(name)));
        line
    };
    let mut first = send("first");
    eventually("its first try", || (server.seen().len() == 1).then_some(()));
    (1..PERMITS).for_each(|_| server.then(Act::Silence));
    server.then(Act::Drip(Duration::from_millis(300)));
    let others: Vec<_> = (0..PERMITS).map(|_| send("other")).collect();
    eventually("all permits to be taken", || (server.seen().len() == 1 + PERMITS).then_some(()));
    let second = send("second");
    server.then(Act::Answer(201, "", job("first", json!({}))));
    assert_eq!(first.receive().unwrap().code, 201);
    drop((others, second));
}

#[test]
fn the_api_server_gives_up_first() {
    let namespace = Namespace::new();
    let webhook = Webhook::new(&namespace);
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--request-timeout=3s"]);
    webhook.behave(Behaviour::Silence);
    // a busy API server may close the connection at the same moment, before it has answered
    let gives_up = |_| match dispatcher.post("/job", &named("a")).error() {
        (504, reason) => reason == "Timeout",
        other => {
            assert_eq!(other, (502, "BadGateway".into()));
            false
        }
    };
    assert!((0..3).any(gives_up), "it never answers");
    // its own words, not ours for a connection that was given up
    let log = dispatcher.logged("504: 504");
    assert!(log.contains("Timeout: "), "{log}");
    webhook.behave(Behaviour::allow());
    assert_eq!(dispatcher.post("/job", &named("a")).code, 201);
}

#[test]
fn warnings_are_counted_in_the_answer() {
    let namespace = Namespace::new();
    let webhook = Webhook::new(&namespace);
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    webhook.behave(Behaviour::allow_with_warnings(&["first".into(), "second".into()]));
    let reply = dispatcher.post("/job", &named("a"));
    assert_eq!((reply.code, &reply.json()["warnings"]), (201, &json!(2)));
    dispatcher.logged("second");
    webhook.behave(Behaviour::allow());
    assert!(dispatcher.post("/job", &named("b")).json().get("warnings").is_none());
}

#[test]
fn a_token_that_is_written_in_part_or_gone_for_a_while_stops_nothing() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    let token = namespace.folder.0.join("token");
    assert_eq!(dispatcher.post("/job", &named("a")).code, 201);
    let whole = namespace.token();
    // seen only when the API server says 401, or after a minute
    std::fs::write(&token, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(dispatcher.post("/job", &named("b")).code, 201);
    std::fs::remove_file(&token).unwrap();
    assert_eq!(dispatcher.post("/job", &named("c")).code, 201);
}

#[test]
fn a_ca_that_is_rotated_is_followed_while_the_api_server_runs() {
    let namespace = Namespace::new();
    let [old, new] = ["old", "new"].map(Authority::new);
    let serve = |authority: &Authority| {
        let (certificate, key) = authority.server();
        [namespace.folder.write("tls.crt", &certificate), namespace.folder.write("tls.key", &key)]
    };
    // as the kubelet does: a new folder, and a link that is swapped
    let trust = |name: &str, authority: &Authority| {
        let folder = namespace.folder.0.join(name);
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("ca.crt"), &authority.pem).unwrap();
        let link = namespace.folder.0.join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        std::fs::rename(&link, namespace.folder.0.join("current")).unwrap();
    };
    let [certificate, key] = serve(&old).map(|path| path.display().to_string());
    trust("first", &old);
    let flags = [format!("--tls-cert-file={certificate}"), format!("--tls-private-key-file={key}")];
    let server = namespace.cluster.api_server_with(&flags, &old.pem);
    let mut command = Dispatcher::command_for(&namespace, &server.url, &[AS_IS]);
    command.arg("--certificate-authority").arg(namespace.folder.0.join("current/ca.crt"));
    let dispatcher = Dispatcher::start_command(command);
    assert_eq!(dispatcher.post("/job", &named("before")).code, 201);

    serve(&new);
    trust("second", &new);
    eventually("the API server to use its new certificate", || {
        server.admin_with(&new.pem).try_call("GET", "/readyz", None)
    });
    // more at once than there are connections from before
    thread::scope(|scope| {
        for number in 0..24 {
            let dispatcher = &dispatcher;
            scope.spawn(move || assert_eq!(dispatcher.post("/job", &named(&format!("after-{number}"))).code, 201));
        }
    });
    assert_eq!(namespace.job_names().len(), 25);
}
