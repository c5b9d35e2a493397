use crate::dispatch::manifest;
use crate::support::dispatcher::{AS_IS, Dispatcher};
use crate::support::http::{JSON, request};
use crate::support::namespace::Namespace;
use crate::support::scripted::{Act, Scripted};
use crate::support::{eventually, path};
use serde_json::json;
use std::io::Write;
use std::process::{Command, Stdio};

fn scrape(dispatcher: &Dispatcher) -> String {
    let reply = dispatcher.get("/metrics");
    assert_eq!((reply.code, reply.header("Content-Type")), (200, Some("text/plain; version=0.0.4; charset=utf-8")));
    String::from_utf8(reply.body).unwrap()
}

fn value(text: &str, series: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next().unwrap().parse().ok()
}

/// A dispatcher to which something of every kind has happened.
fn used(namespace: &Namespace) -> Dispatcher {
    let dispatcher = Dispatcher::for_namespace(namespace, &[AS_IS]);
    let job = manifest(json!({"name": "a"}), json!({}));
    assert_eq!(dispatcher.post("/job/some/where", &job).code, 201);
    assert_eq!(dispatcher.post("/job/some/where", &job).code, 200);
    assert_eq!(dispatcher.post("/job", "{").code, 400);
    assert_eq!(dispatcher.post("/job", "1").code, 500);
    assert_eq!(dispatcher.get("/job/a").code, 200);
    assert_eq!(dispatcher.get("/job/b").code, 404);
    assert_eq!(dispatcher.get("/health/live").code, 200);
    assert_eq!(dispatcher.get("/health/ready").code, 200);
    for number in 0..20 {
        assert_eq!(dispatcher.get(&format!("/nowhere/{number}")).code, 404);
    }
    assert_eq!(dispatcher.send(request("POST", "/job", "", "{}")).code, 415);
    assert_eq!(dispatcher.send(request("BREW", "/job", JSON, "{}")).code, 405);
    assert_eq!(dispatcher.send("nonsense\r\n\r\n").code, 400);
    dispatcher
}

#[test]
fn requests_are_counted() {
    let namespace = Namespace::new();
    let dispatcher = used(&namespace);
    let text = scrape(&dispatcher);
    for (series, want) in [
        (r#"build_info{version="0.1.0"}"#, 1.0),
        (r#"requests_total{route="/job",code="201"}"#, 1.0),
        (r#"requests_total{route="/job",code="200"}"#, 1.0),
        (r#"requests_total{route="/job",code="400",reason="BadRequest"}"#, 1.0),
        (r#"requests_total{route="/job",code="415",reason="UnsupportedMediaType"}"#, 1.0),
        (r#"requests_total{route="/job",code="500",reason="FilterOutput"}"#, 1.0),
        (r#"requests_total{route="/job/{id}",code="200"}"#, 1.0),
        (r#"requests_total{route="/job/{id}",code="404",reason="NotFound"}"#, 1.0),
        (r#"requests_total{route="other",code="404",reason="NotFound"}"#, 20.0),
        (r#"requests_total{route="other",code="405",reason="MethodNotAllowed"}"#, 1.0),
        (r#"requests_total{route="other",code="400",reason="BadRequest"}"#, 1.0),
        (r#"request_duration_seconds_count{route="/job"}"#, 5.0),
        (r#"filter_runs_total{outcome="output"}"#, 3.0),
        (r#"filter_runs_total{outcome="bad_body"}"#, 1.0),
        ("filter_run_duration_seconds_count", 4.0),
        (r#"api_requests_total{verb="create",code="201"}"#, 1.0),
        (r#"api_requests_total{verb="create",code="409"}"#, 1.0),
        (r#"api_requests_total{verb="get",code="200"}"#, 2.0),
        (r#"api_requests_total{verb="get",code="404"}"#, 1.0),
        (r#"api_request_duration_seconds_count{verb="create"}"#, 2.0),
        (r#"connections{state="working"}"#, 1.0),
        ("connections_evicted_total", 0.0),
        ("connections_rejected_total", 0.0),
        (r#"dispatches{state="in_flight"}"#, 0.0),
        (r#"dispatches{state="queued"}"#, 0.0),
        ("reserved_bytes{kind=\"large\"}", 0.0),
        ("reserved_bytes{kind=\"answer\"}", 0.0),
        ("reserved_bytes{kind=\"parked\"}", 0.0),
    ] {
        assert_eq!(value(&text, &format!("k8s_job_dispatcher_{series}")), Some(want), "{series} in\n{text}");
    }
    assert_eq!(dispatcher.send(request("POST", "/metrics", JSON, "1")).header("Allow"), Some("GET, HEAD"));
    assert!(dispatcher.log().iter().all(|line| !line.contains("/metrics") || line.contains(" 405 ")));
}

#[test]
fn evicted_connections_are_counted() {
    let dispatcher = Dispatcher::start(&["--dry-run=client", "--max-connections=2"]);
    let _first = dispatcher.line();
    let _second = dispatcher.line();
    // the third connection evicts one of those
    let text = scrape(&dispatcher);
    assert_eq!(value(&text, "k8s_job_dispatcher_connections_evicted_total"), Some(1.0), "{text}");
    assert_eq!(value(&text, r#"k8s_job_dispatcher_connections{state="waiting"}"#), Some(1.0), "{text}");
}

#[test]
fn rejected_connections_are_counted() {
    let server = Scripted::start([Act::Silence]);
    let args = ["--max-connections=1", "--request-timeout=1s", "--server", &server.url, AS_IS];
    let dispatcher = Dispatcher::start(&args);
    let mut worked_on = dispatcher.line();
    worked_on.send(request("POST", "/job", JSON, &manifest(json!({"name": "a"}), json!({}))));
    eventually("the request to be worked on", || (server.seen().len() == 1).then_some(()));
    let mut refused = dispatcher.line();
    refused.send(request("POST", "/job", JSON, &manifest(json!({"name": "b"}), json!({}))));
    assert_eq!(refused.receive().unwrap().error(), (503, "Overloaded".into()));
    assert_eq!(worked_on.receive().unwrap().error(), (504, "Timeout".into()));
    worked_on.send(request("GET", "/metrics", "", ""));
    let text = String::from_utf8(worked_on.receive().unwrap().body).unwrap();
    assert_eq!(value(&text, "k8s_job_dispatcher_connections_rejected_total"), Some(1.0), "{text}");
    assert_eq!(
        value(&text, r#"k8s_job_dispatcher_api_requests_total{verb="create",code="none"}"#),
        Some(1.0),
        "{text}"
    );
}

#[test]
fn a_refused_request_is_logged_with_its_message_and_counted_by_a_route_that_there_is() {
    let (off, on) =
        (Dispatcher::start(&["--dry-run=client"]), Dispatcher::start(&["--dry-run=client", "--enable=delete"]));
    for (dispatcher, route) in [(off, "other"), (on, "/job/{id}")] {
        let head = "DELETE /job/a HTTP/1.1\r\nHost: test\r\nX-Request-Id: it\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(dispatcher.send(format!("{head}zz\r\n")).code, 400);
        let line = dispatcher.logged("it DELETE \"/job/a\" 400 0ms - client=127.0.0.1 reason=BadRequest message=\"");
        assert!(line.contains(" INFO "), "{line}");
        let series =
            format!("k8s_job_dispatcher_requests_total{{route=\"{route}\",code=\"400\",reason=\"BadRequest\"}}");
        let text = scrape(&dispatcher);
        assert_eq!(value(&text, &series), Some(1.0), "{text}");
    }
}

#[test]
fn openmetrics_is_served_on_request() {
    let dispatcher = Dispatcher::start(&["--dry-run=client"]);
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3\r\n";
    let reply = dispatcher.send(request("GET", "/metrics", accept, ""));
    assert!(reply.header("Content-Type").unwrap().starts_with("application/openmetrics-text; version=1.0.0"));
    assert!(String::from_utf8(reply.body).unwrap().ends_with("# EOF\n"));
}

/// The names in the text, with their types.
fn names(text: &str) -> Vec<&str> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.map(|line| line.split(' ').next().unwrap()).collect()
}

#[test]
fn the_documentation_lists_every_metric_and_alerts_use_no_other() {
    let text = scrape(&used(&Namespace::new()));
    assert_eq!(names(&text).len(), 17);
    let page = std::fs::read_to_string(path("docs/operating.md")).unwrap();
    for name in names(&text) {
        assert!(page.contains(&format!("| `{name}")), "docs/operating.md does not list {name}");
    }
    let alerts = std::fs::read_to_string(path("deploy/alerts.yaml")).unwrap();
    for word in alerts.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
        if word.starts_with("k8s_job_dispatcher_") {
            let name = word.trim_end_matches("_bucket");
            assert!(page.contains(&format!("| `{name}")), "{word} is not in docs/operating.md");
        }
    }
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(page.contains(&format!("`{alert}`")), "docs/operating.md does not name the alert {alert}");
    }
}

#[test]
#[ignore = "tests/metrics installs promtool and runs this"]
fn promtool_finds_no_error() {
    let namespace = Namespace::new();
    let text = scrape(&used(&namespace));
    let promtool = |args: &[&str], input: &str| {
        let mut child = Command::new("promtool");
        child.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap_or_else(|error| panic!("cannot run promtool: {error}"));
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
        assert!(output.status.success(), "promtool {args:?}: {said}");
        said
    };
    assert_eq!(promtool(&["check", "metrics"], &text), "");
    assert!(promtool(&["check", "rules", &path("deploy/alerts.yaml")], "").contains("3 rules found"));
    promtool(&["test", "rules", &path("tests/alerts.yaml")], "");
}
