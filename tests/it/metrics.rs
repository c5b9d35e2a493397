use crate::dispatch::manifest;
use crate::support::cluster::free_port;
use crate::support::component::Component;
use crate::support::dispatcher::{AS_IS, Dispatcher};
use crate::support::helm::helm;
use crate::support::http::{JSON, request};
use crate::support::namespace::Namespace;
use crate::support::scripted::{Act, Scripted, job};
use crate::support::{eventually, path, said};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

const ALERTS: &str = "deploy/chart/files/alerts.yaml";
const DASHBOARD: &str = "deploy/chart/files/dashboard.json";

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
        let head =
            "DELETE /job/a HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: it\r\nTransfer-Encoding: chunked\r\n\r\n";
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
    let namespace = Namespace::new();
    let dispatcher = used(&namespace);
    eventually("the watch to know the Jobs", || dispatcher.metric("jobs{state=\"waiting\"}"));
    let text = scrape(&dispatcher);
    assert_eq!(names(&text).len(), 24); // no Job has ended
    let page = std::fs::read_to_string(path("docs/operating.md")).unwrap();
    for name in names(&text) {
        assert!(page.contains(&format!("`{name}")), "docs/operating.md does not list {name}");
    }
    let alerts = std::fs::read_to_string(path(ALERTS)).unwrap();
    for used in [&alerts, &std::fs::read_to_string(path(DASHBOARD)).unwrap()] {
        for word in used.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            if ["k8s_job_dispatcher_", "process_"].iter().any(|begin| word.starts_with(begin)) {
                let name = word.trim_end_matches("_bucket");
                assert!(page.contains(&format!("`{name}")), "{word} is not in docs/operating.md");
            }
        }
    }
    // reasons that alerts look for are reasons, and begin at start
    let fresh = scrape(&Dispatcher::start(&["--dry-run=client"]));
    for reason in
        alerts.split("reason=").skip(1).filter_map(|rest| rest.split('"').nth(1)).flat_map(|all| all.split('|'))
    {
        let series = "{route=\"/job\",code=";
        let begins = fresh.lines().any(|line| line.contains(series) && line.contains(&format!("reason=\"{reason}\"")));
        assert!(begins, "{reason} does not begin at start:\n{fresh}");
    }
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(page.contains(&format!("`{alert}`")), "docs/operating.md does not name the alert {alert}");
    }
}

/// A real Prometheus scrapes a dispatcher to which everything has happened; each query of the dashboard finds something.
#[test]
#[ignore = "tests/metrics installs prometheus and runs this"]
fn the_dashboards_queries_find_something() {
    let namespace = Namespace::new();
    let dispatcher = used(&namespace);
    let busy = Scripted::start([Act::Answer(429, "", "busy".into()), Act::Answer(201, "", job("a", json!({})))]);
    let retries = Dispatcher::start(&[AS_IS, "--server", &busy.url]);
    assert_eq!(retries.post("/job", &manifest(json!({"name": "a"}), json!({}))).code, 201);
    let targets = [&dispatcher, &retries].map(|one| one.address.to_string());
    let scrape = json!({"global": {"scrape_interval": "1s"}, "scrape_configs": [{
        "job_name": "d", "static_configs": [{"targets": targets, "labels": {"namespace": "n", "pod": "p"}}],
    }]});
    let config = namespace.folder.write("prometheus.yml", &scrape.to_string()); // JSON is YAML
    let address = format!("127.0.0.1:{}", free_port());
    let args = [
        format!("--config.file={}", config.display()),
        format!("--storage.tsdb.path={}", namespace.folder.0.join("data").display()),
        format!("--web.listen-address={address}"),
    ];
    let program = std::env::var("PROMETHEUS").expect("PROMETHEUS names the program: run tests/metrics");
    let prometheus = Component::start(&namespace.folder.0, "prometheus", program.as_ref(), &args);
    prometheus.wait("prometheus", || TcpStream::connect(&address).ok());
    let query = |text: &str| -> Value {
        let mut stream = TcpStream::connect(&address).unwrap();
        let target = format!("/api/v1/query?query={}", escaped(text));
        stream.write_all(format!("GET {target} HTTP/1.0\r\nHost: localhost\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap()
    };
    // while it scrapes, a Job ends
    let name = "ends";
    assert_eq!(dispatcher.post("/job", &unmanaged(name)).code, 201);
    eventually("the watch to report it", || (dispatcher.metric("jobs{state=\"waiting\"}")? > 0.0).then_some(()));
    let dashboard = std::fs::read_to_string(path(DASHBOARD)).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let rows: Vec<_> =
        panels.iter().filter(|panel| panel["type"] == "row").map(|row| row["title"].as_str().unwrap()).collect();
    assert_eq!(rows, ["Traffic", "Refusals by reason", "Latency", "API calls", "Jobs", "Limits"]);
    end_job(&namespace, name);
    let mut queries = 0;
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        for target in panel["targets"].as_array().unwrap() {
            let expr = target["expr"].as_str().unwrap();
            let text = expr.replace("$__rate_interval", "60s").replace("$namespace", ".*").replace("$job", ".*");
            assert!(!text.contains('$'), "{text}");
            eventually(&format!("{}: {text}", panel["title"]), || {
                let answer = query(&text);
                assert_eq!(answer["status"], "success", "{text}: {answer}");
                answer["data"]["result"].as_array().is_some_and(|series| !series.is_empty()).then_some(())
            });
            queries += 1
        }
    }
    assert!(queries > 25, "{queries}");
    // a Job was seen to end, and how long it took
    assert_eq!(dispatcher.metric("jobs_ended_total{outcome=\"succeeded\"}"), Some(1.0));
    assert_eq!(dispatcher.metric("job_duration_seconds_count{outcome=\"succeeded\"}"), Some(1.0));
}

/// A Job that no controller touches.
fn unmanaged(name: &str) -> String {
    let mut job: Value = serde_json::from_str(&manifest(json!({"name": name}), json!({}))).unwrap();
    job["spec"]["managedBy"] = json!("tests.example/nobody");
    job.to_string()
}

/// As the Job controller says it of one that took 42 s.
fn end_job(namespace: &Namespace, name: &str) {
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:42Z"});
    let status = json!({
        "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:42Z", "succeeded": 1,
        "uncountedTerminatedPods": {}, "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
    });
    let (code, answer) =
        namespace.admin().patch(&format!("{}/{name}/status", namespace.jobs()), json!({"status": status}));
    assert_eq!(code, 200, "{answer}");
}

/// For a query.
fn escaped(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[test]
fn the_states_of_jobs_are_absent_until_they_are_known_and_ends_are_counted() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    let text = scrape(&dispatcher);
    assert!(!text.contains("k8s_job_dispatcher_jobs{"), "{text}");
    assert_eq!(dispatcher.metric("jobs_ended_total{outcome=\"succeeded\"}"), Some(0.0));
    assert_eq!(dispatcher.post("/job", &unmanaged("a")).code, 201);
    assert_eq!(dispatcher.get("/job/a").code, 200);
    eventually("the watch to report it", || (dispatcher.metric("jobs{state=\"waiting\"}")? == 1.0).then_some(()));
    end_job(&namespace, "a");
    eventually("its end", || (dispatcher.metric("jobs_ended_total{outcome=\"succeeded\"}")? == 1.0).then_some(()));
    assert_eq!(dispatcher.metric("jobs{state=\"succeeded\"}"), Some(1.0));
    for (bucket, want) in [("30", 0.0), ("60", 1.0)] {
        let series = format!("job_duration_seconds_bucket{{outcome=\"succeeded\",le=\"{bucket}\"}}");
        let text = scrape(&dispatcher);
        assert_eq!(value(&text, &format!("k8s_job_dispatcher_{series}")), Some(want), "{text}");
    }
    let text = scrape(&dispatcher);
    for name in [
        "cpu_seconds_total",
        "resident_memory_bytes",
        "virtual_memory_bytes",
        "open_fds",
        "max_fds",
        "start_time_seconds",
    ] {
        let value = value(&text, &format!("process_{name}")).unwrap_or_else(|| panic!("no process_{name} in\n{text}"));
        assert!(value > 0.0 || name == "cpu_seconds_total", "{name} is {value}");
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
    assert!(promtool(&["check", "rules", &path(ALERTS)], "").contains("8 rules found"));
    promtool(&["test", "rules", &path("tests/alerts.yaml")], "");
    // what the chart makes of them
    let chart = ["template", "x", &path("deploy/chart"), "--set=metrics.prometheusRule.enabled=true"];
    let yaml = said(&mut helm(&chart));
    let rule = yaml.split("\n---\n").find(|object| object.contains("kind: PrometheusRule")).unwrap();
    let spec: Vec<_> =
        rule.split("\nspec:\n").nth(1).unwrap().lines().map(|line| line.get(2..).unwrap_or_default()).collect();
    let file = namespace.folder.write("rules.yaml", &spec.join("\n"));
    assert!(promtool(&["check", "rules", file.to_str().unwrap()], "").contains("8 rules found"));
}
