//! Each incident as its operator reads it: the access log has the reason, and the lines beside it have the cause.

use crate::dispatch::manifest;
use crate::support::dispatcher::{AS_IS, Dispatcher};
use crate::support::eventually;
use crate::support::http::{JSON, request};
use crate::support::namespace::Namespace;
use crate::support::scripted::{Act, Scripted, job};
use crate::support::webhook::{Behaviour, Webhook};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn named(name: &str) -> String {
    manifest(json!({"name": name}), json!({}))
}

/// With `X-Request-Id`.
fn post(dispatcher: &Dispatcher, id: &str, target: &str, body: &str) -> u16 {
    let headers = format!("{JSON}X-Request-Id: {id}\r\n");
    dispatcher.send(request("POST", target, &headers, body)).code
}

/// What is logged of this request, without time and level, up to its line in the access log.
fn lines_of(dispatcher: &Dispatcher, id: &str) -> Vec<String> {
    eventually(&format!("the line of {id}"), || {
        let of_it = |line: &String| Some(line.split_once(&format!(" {id} "))?.1.to_owned());
        let lines: Vec<_> = dispatcher.log().iter().filter_map(of_it).collect();
        lines.last()?.contains(" client=").then_some(lines)
    })
}

#[test]
fn the_api_server_is_down() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = format!("http://127.0.0.1:{port}");
    let dispatcher = Dispatcher::start(&[AS_IS, "--server", &server]);
    assert_eq!(post(&dispatcher, "down", "/job", &named("a")), 502);
    let lines = lines_of(&dispatcher, "down");
    let cause = format!("cannot reach {server}: connection refused; is kubectl proxy running?");
    assert!(lines[0].starts_with("try 1 failed after ") && lines[0].ends_with(&cause), "{lines:?}");
    assert!(lines.contains(&format!("502: {cause}")), "{lines:?}");
    assert!(lines.last().unwrap().ends_with(" a client=127.0.0.1 tries=3 reason=BadGateway"), "{lines:?}");
    // from the fourth try on none is made
    assert_eq!(post(&dispatcher, "again", "/job", &named("a")), 503);
    let lines = lines_of(&dispatcher, "again");
    assert_eq!(lines[0], "503: no call was made, because several calls in a row could not connect");
    assert!(lines[1].ends_with(" a client=127.0.0.1 reason=ServiceUnavailable"), "{lines:?}");
}

#[test]
fn a_token_without_rights() {
    let namespace = Namespace::with(json!({}), &["get"]);
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    assert_eq!(post(&dispatcher, "rights", "/job", &named("a")), 502);
    let lines = lines_of(&dispatcher, "rights");
    assert!(lines[0].starts_with("502: 403 ") && lines[0].contains("cannot create resource \\\"jobs\\\""), "{lines:?}");
    assert!(lines[1].ends_with(" a client=127.0.0.1 reason=BadGateway"), "{lines:?}");
}

#[test]
fn a_token_that_is_rejected() {
    let namespace = Namespace::new();
    let command = Dispatcher::command_for(&namespace, &namespace.cluster.url, &[AS_IS]);
    let token = namespace.folder.write("token", "expired");
    let dispatcher = Dispatcher::start_command(command);
    assert_eq!(post(&dispatcher, "expired", "/job", &named("a")), 502);
    let lines = lines_of(&dispatcher, "expired");
    let source = format!("; the token is that of `{}`", token.display());
    assert!(lines[0].starts_with("502: 401 ") && lines[0].ends_with(&source), "{lines:?}");
    assert_eq!(dispatcher.get("/health/ready").code, 503);
    assert!(dispatcher.logged("not ready: ").ends_with(&format!("/readyz returns 401{source}")));
}

/// What is said at start of access that is missing.
fn missing(dispatcher: &Dispatcher) -> Vec<String> {
    dispatcher.logged(" WARN  ");
    let lines = dispatcher.log();
    lines.iter().filter_map(|line| Some(line.split_once(" WARN  ")?.1.to_owned())).collect()
}

#[test]
fn what_is_missing_is_said_at_start_with_its_remedy() {
    let namespace = Namespace::with(json!({}), &["create", "get"]);
    let name = &namespace.name;
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=delete,logs", "--require-access"]);
    dispatcher.logged("may not get pods/log");
    let role = "If that is the right namespace, grant it in a Role there (docs/security.md)";
    let calls = "each request for a Job takes a call; set --watch=false to do without";
    let logs = "no log can be read; leave logs out of --enable to do without";
    assert_eq!(
        missing(&dispatcher),
        [
            format!("the dispatcher may not list jobs.batch in namespace {name}: {calls}. {role}"),
            format!("the dispatcher may not watch jobs.batch in namespace {name}: {calls}. {role}"),
            format!(
                "the dispatcher may not delete jobs.batch in namespace {name}: no Job can be deleted; leave delete out of --enable to do without. {role}"
            ),
            format!("the dispatcher may not list pods in namespace {name}: {logs}. {role}"),
            format!("the dispatcher may not get pods/log in namespace {name}: {logs}. {role}"),
        ]
    );
    // one that does without may be ready
    let ready = Dispatcher::for_namespace(&namespace, &[AS_IS, "--watch=false", "--require-access"]);
    eventually("ready", || (ready.get("/health/ready").code == 200).then_some(()));
    assert!(ready.log().iter().all(|line| !line.contains(" WARN ")), "{:?}", ready.log());
    // the other once all is granted
    let reply = dispatcher.get("/health/ready");
    assert_eq!((reply.error(), reply.header("Retry-After")), ((503, "ServiceUnavailable".into()), Some("1")));
    namespace.allow(&["create", "get", "list", "watch", "delete"]);
    namespace.allow_too(&[("", "pods", "list"), ("", "pods/log", "get")]);
    dispatcher.logged("the access that was missing is granted");
    eventually("ready", || (dispatcher.get("/health/ready").code == 200).then_some(()));
}

#[test]
fn with_a_wrong_namespace_token_or_ca_it_is_not_ready() {
    let namespace = Namespace::new();
    let start = |change: &dyn Fn(&mut std::process::Command)| {
        let mut command = Dispatcher::command_for(&namespace, &namespace.cluster.url, &[AS_IS, "--require-access"]);
        change(&mut command);
        Dispatcher::start_command(command)
    };
    let elsewhere = start(&|command| _ = command.arg("--namespace=there-is-none"));
    elsewhere.logged(
        "WARN  the dispatcher may not create jobs.batch in namespace there-is-none: no request can create a Job",
    );
    let expired = start(&|_| _ = namespace.folder.write("token", "expired"));
    let line = expired.logged("WARN  cannot check the dispatcher's access: 401 ");
    let file = namespace.folder.0.join("token");
    assert!(line.ends_with(&format!("; the token is that of `{}`", file.display())), "{line}");
    let other = namespace.folder.write("other.crt", &crate::support::certificates::Authority::new("other").pem);
    let strange = start(&|command| _ = command.arg("--certificate-authority").arg(&other));
    let line = strange.logged("WARN  cannot check the dispatcher's access: no TLS connection to ");
    assert!(line.ends_with("; see --certificate-authority"), "{line}");
    for dispatcher in [&elsewhere, &expired, &strange] {
        let reply = dispatcher.get("/health/ready");
        assert_eq!(reply.error(), (503, "ServiceUnavailable".into()));
        assert!(
            ["lacks rights", "cannot be checked"]
                .iter()
                .any(|says| String::from_utf8_lossy(&reply.body).contains(says)),
            "{:?}",
            dispatcher.log()
        );
    }
    // the right namespace, token and CA
    let good = start(&|_| ());
    eventually("ready", || (good.get("/health/ready").code == 200).then_some(()));
    // while the token is wrong, requests name it too: nothing else is asked of the API server before it is right
    namespace.token_file();
    eventually("the token to be read again", || (expired.get("/health/ready").code == 200).then_some(()));
}

#[test]
fn an_unknown_parameter_or_value_is_400_and_says_what_there_is() {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--enable=list,delete,logs"]);
    for (method, target, says) in [
        (
            "GET",
            "/job?lable=a=b",
            "unknown query parameter \"lable\"; known for this request: limit, continue, state, label, name, counts",
        ),
        ("HEAD", "/job?x", ""),
        (
            "GET",
            "/job?state=faild",
            "state must be one of waiting, suspended, starting, running, succeeded, failed, deleting",
        ),
        ("GET", "/job/a?wiat=9s", "unknown query parameter \"wiat\"; known for this request: wait"),
        (
            "GET",
            "/job/a/log?lines=9",
            "unknown query parameter \"lines\"; known for this request: pod, container, tail, previous",
        ),
        ("DELETE", "/job/a?force", "unknown query parameter \"force\"; known for this request: none"),
    ] {
        let mut line = dispatcher.line();
        line.send(request(method, target, "", ""));
        let reply = line.receive_for(method).unwrap();
        assert_eq!(reply.code, 400, "{target}");
        if method != "HEAD" {
            assert_eq!(reply.json()["error"]["message"], says, "{target}");
        }
    }
    assert_eq!(dispatcher.post("/job?lable=a", &named("a")).code, 201, "that is the filter's");
}

#[test]
fn a_full_quota() {
    let namespace = Namespace::new();
    namespace.limit_jobs(0);
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS]);
    assert_eq!(post(&dispatcher, "quota", "/job", &named("a")), 429);
    let lines = lines_of(&dispatcher, "quota");
    assert!(lines[0].contains("exceeded quota: jobs"), "{lines:?}");
    assert!(lines[1].ends_with(" a client=127.0.0.1 reason=QuotaExceeded"), "{lines:?}");
}

#[test]
fn a_webhook_that_hangs_is_named_and_takes_one_try() {
    let namespace = Namespace::new();
    let webhook = Webhook::with_timeout(&namespace, 3);
    let dispatcher = Dispatcher::for_namespace(&namespace, &[AS_IS, "--request-timeout=5s"]);
    webhook.behave(Behaviour::Silence);
    let before = webhook.calls();
    let headers = format!("{JSON}X-Request-Id: hangs\r\n");
    let reply = dispatcher.send(request("POST", "/job", &headers, &named("a")));
    assert_eq!((reply.error(), reply.header("Retry-After")), ((503, "ServiceUnavailable".into()), Some("1")));
    let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("admission webhook") && !message.contains("busy"), "{message}");
    let lines = lines_of(&dispatcher, "hangs");
    let words = format!("failed calling webhook \\\\\"{}\\\\\"", webhook.name);
    assert!(lines[0].starts_with("503: 500 ") && lines[0].contains(&words.replace("\\\\", "\\")), "{lines:?}");
    assert!(lines[1].ends_with(" a client=127.0.0.1 reason=ServiceUnavailable"), "{lines:?}");
    assert_eq!(webhook.calls() - before, 1, "a second try would have less time than the first has taken");
}

#[test]
fn each_failed_try_has_its_cause() {
    let busy = |text: &str| Act::Answer(429, "", text.into());
    let server = Scripted::start([busy("once"), Act::HangUp, Act::Answer(201, "", job("a", json!({})))]);
    let dispatcher = Dispatcher::start(&[AS_IS, "--server", &server.url, "--namespace=ns"]);
    assert_eq!(post(&dispatcher, "tries", "/job", &named("a")), 201);
    let lines = lines_of(&dispatcher, "tries");
    assert!(lines[0].starts_with("try 1 failed after ") && lines[0].ends_with(": 429 \"once\""), "{lines:?}");
    assert!(lines[1].starts_with("try 2 failed after ") && lines[1].contains("closed the connection"), "{lines:?}");
    assert!(lines.last().unwrap().ends_with(" a client=127.0.0.1 tries=3"), "{lines:?}");
}

/// The same where the look for the Job has to be repeated: each cause once, and none that is empty.
#[test]
fn a_lost_response_is_logged_once_although_the_job_is_looked_for_twice() {
    let half = Act::Answer(201, "", "{\"kind\": \"Pod\"}".into());
    let server = Scripted::start([half, Act::Answer(429, "", "busy".into()), Act::JobAsPosted]);
    let dispatcher = Dispatcher::start(&[AS_IS, "--server", &server.url, "--namespace=ns"]);
    assert_eq!(post(&dispatcher, "twice", "/job", &named("a")), 201);
    let lines = lines_of(&dispatcher, "twice");
    assert!(lines[0].contains(", and the Job was looked for: 201 with "), "{lines:?}");
    assert!(lines[1].ends_with(": 429 \"busy\""), "{lines:?}");
    assert_eq!(lines.len(), 3, "{lines:?}");
}

/// What a filter, the headers or the API server refuse: one line with the reason, and what the caller was told at debug.
#[test]
fn each_refusal_has_its_reason_and_at_debug_its_message() {
    let namespace = Namespace::new();
    for level in ["info", "debug"] {
        let filter =
            "if . == null then error(\"no alerts\") elif . == [] then [range(99; 1e9)] elif . == 0 then 1 else . end";
        let level_option = format!("--log-level={level}");
        let dispatcher = Dispatcher::for_namespace(&namespace, &[filter, &level_option, "--max-body-bytes=2000"]);
        assert!(matches!(post(&dispatcher, "first", "/job", &named("a")), 200 | 201));
        let mut invalid: Value = serde_json::from_str(&named("b")).unwrap();
        invalid["spec"]["template"]["spec"]["restartPolicy"] = json!("Sometimes");
        let text = "Content-Type: text/plain\r\n";
        for (id, method, target, headers, body, code, reason) in [
            ("filter", "POST", "/job/alerts", JSON, "null", 422, "FilterError"),
            ("limit", "POST", "/job", JSON, "[]", 422, "FilterLimit"),
            ("output", "POST", "/job", JSON, "0", 500, "FilterOutput"),
            ("json", "POST", "/job", JSON, "{", 400, "BadRequest"),
            ("name", "POST", "/job", JSON, &named("Not_A_Label"), 422, "Invalid"),
            ("fields", "POST", "/job", JSON, &invalid.to_string(), 422, "Invalid"),
            ("taken", "POST", "/job?other", JSON, &named("a"), 409, "AlreadyExists"),
            ("text", "POST", "/job", text, "{}", 415, "UnsupportedMediaType"),
            ("page", "POST", "/job", &format!("{JSON}Sec-Fetch-Site: cross-site\r\n"), "{}", 403, "CrossOrigin"),
            ("size", "POST", "/job", JSON, &"x".repeat(2001), 413, "RequestEntityTooLarge"),
            ("none", "GET", "/job/none", "", "", 404, "NotFound"),
            ("path", "GET", "/jobs", "", "", 404, "NotFound"),
            ("method", "DELETE", "/job/a", "", "", 405, "MethodNotAllowed"),
            ("expect", "POST", "/job", &format!("{JSON}Expect: more\r\n"), "{}", 417, "ExpectationFailed"),
        ] {
            let reply = dispatcher.send(request(method, target, &format!("{headers}X-Request-Id: {id}\r\n"), body));
            assert_eq!(reply.error(), (code, reason.to_owned()), "{id}");
            let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
            let line = lines_of(&dispatcher, id).pop().unwrap();
            let has_words =
                line.contains(&format!(" client=127.0.0.1 reason={reason}")) && line.contains(&code.to_string());
            assert!(has_words, "{id}: {line}");
            assert!(level == "info" || line.contains(&format!(" message={message:?}")), "{id}: {line}");
            assert!(level == "debug" || id != "filter" || !line.contains("message="), "it may quote the body: {line}");
        }
    }
}

#[test]
fn what_is_logged_at_debug_has_the_requests_id() {
    let namespace = Namespace::new();
    let webhook = Webhook::new(&namespace);
    webhook.behave(Behaviour::allow_with_warnings(&["odd Job".into()]));
    let dispatcher = Dispatcher::for_namespace(&namespace, &["debug(\"looks\")", "--log-level=debug"]);
    assert_eq!(post(&dispatcher, "all", "/job", &named("a")), 201);
    let lines = lines_of(&dispatcher, "all");
    let begins: Vec<_> = lines.iter().map(|line| line.split(' ').take(3).collect::<Vec<_>>().join(" ")).collect();
    let call = format!("POST {}?fieldManager", namespace.jobs());
    assert_eq!(begins[0], "filter says \"\\\"looks\\\"\"");
    assert!(begins[1].starts_with("the API server"), "{lines:?}");
    assert!(begins[2].starts_with(&call), "{lines:?}");
    assert_eq!(begins[3], "POST \"/job\" 201");
    assert!(!dispatcher.log().iter().any(|line| line.contains("odd Job") && !line.contains(" all ")));
}

#[test]
fn a_body_that_does_not_arrive_and_a_probe_during_the_shutdown() {
    let dispatcher = Dispatcher::start(&["--dry-run=client", "--shutdown-delay=1s"]);
    let mut slow = dispatcher.line();
    slow.send("POST /job HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: slow\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{");
    dispatcher.signal(Signal::TERM);
    let line = dispatcher.logged("stopping");
    assert!(line.ends_with("stopping; connections are accepted for another 1s"), "{line}");
    assert_eq!(dispatcher.get("/health/ready").error(), (503, "ShuttingDown".into()));
    dispatcher.logged("GET \"/health/ready\" 503 0ms - client=127.0.0.1 reason=ShuttingDown");
    assert_eq!(slow.receive().unwrap().error(), (503, "ShuttingDown".into()));
    let line = lines_of(&dispatcher, "slow").pop().unwrap();
    let message = "the request did not arrive before the shutdown";
    assert_eq!(line, format!("POST \"/job\" 503 0ms - client=127.0.0.1 reason=ShuttingDown message={message:?}"));
}

/// A POST whose response is lost, and that is not repeated: the Job is looked for.
#[test]
fn a_lost_response_is_logged_although_the_caller_gets_its_job() {
    let half = || Act::Answer(201, "", "{\"kind\": \"Pod\"}".into());
    let server = Scripted::start([half(), Act::JobAsPosted]);
    let dispatcher = Dispatcher::start(&[AS_IS, "--server", &server.url, "--namespace=ns"]);
    assert_eq!(post(&dispatcher, "lost", "/job", &named("a")), 201);
    let lines = lines_of(&dispatcher, "lost");
    assert!(
        lines[0].starts_with("try 1 failed after ") && lines[0].contains(", and the Job was looked for: 201 with "),
        "{lines:?}"
    );
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn without_a_delay_none_is_named() {
    let mut dispatcher = Dispatcher::start(&["--dry-run=client"]);
    dispatcher.signal(Signal::TERM);
    assert!(dispatcher.logged("stopping").ends_with(" INFO  stopping"));
    assert!(dispatcher.wait().success());
}

#[test]
fn a_proxys_client_and_the_callers_trace_are_in_the_line_and_on_the_job() {
    let namespace = Namespace::new();
    let filter = ". * {metadata: {annotations: {seen: ($REQUEST.headers.traceparent // \"none\")}}}";
    let dispatcher = Dispatcher::for_namespace(&namespace, &[filter, "--forwarded-for"]);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let headers =
        format!("{JSON}X-Request-Id: traced\r\nX-Forwarded-For: 203.0.113.9, 10.0.0.1\r\nTraceparent: {parent}\r\n");
    assert_eq!(dispatcher.send(request("POST", "/job", &headers, &named("a"))).code, 201);
    let line = lines_of(&dispatcher, "traced").pop().unwrap();
    assert!(line.ends_with(&format!(" a client=127.0.0.1 forwarded=203.0.113.9 trace={trace}")), "{line}");
    let annotations = |name: &str| namespace.job(name).unwrap()["metadata"]["annotations"].clone();
    assert_eq!(annotations("a")["k8s-job-dispatcher/traceparent"], parent);
    assert_eq!(annotations("a")["seen"], parent);
    // one that is invalid is not continued
    let headers = format!("{JSON}X-Request-Id: odd\r\nTraceparent: {parent}-\r\n");
    assert_eq!(dispatcher.send(request("POST", "/job", &headers, &named("b"))).code, 201);
    assert!(lines_of(&dispatcher, "odd").pop().unwrap().ends_with(" b client=127.0.0.1"));
    assert_eq!(annotations("b").get("k8s-job-dispatcher/traceparent"), None);
    // a caller that waits has both in its line too
    let waits = format!("X-Request-Id: waits\r\nX-Forwarded-For: 203.0.113.9\r\nTraceparent: {parent}\r\n");
    assert_eq!(dispatcher.send(request("GET", "/job/a?wait=100ms", &waits, "")).code, 200);
    let line = lines_of(&dispatcher, "waits").pop().unwrap();
    assert!(line.ends_with(&format!(" a client=127.0.0.1 forwarded=203.0.113.9 trace={trace}")), "{line}");
}

#[test]
fn json_lines_are_objects_with_the_names_that_collectors_know() {
    let dispatcher = {
        let mut command = crate::support::dispatcher::command(&["--port=0", "--log-format=json", "--log-level=debug"]);
        command.args(["--dry-run=client", "if . == 1 then error(\"a \\\"b\\\"\\n\\u0001\") else debug end"]);
        Dispatcher::start_command(command)
    };
    assert_eq!(post(&dispatcher, "json", "/job", "1"), 422);
    assert_eq!(post(&dispatcher, "good", "/job/b", &named("a")), 200);
    let line_of = |id: &str| {
        eventually("its line", || {
            let lines = dispatcher.log();
            let mut lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap());
            lines.rfind(|line| line["request_id"] == id && line.get("url.path").is_some())
        })
    };
    let line = line_of("json");
    let keys: BTreeSet<&str> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let want = [
        "@timestamp",
        "client.address",
        "error.message",
        "error.type",
        "http.request.method",
        "http.response.status_code",
        "http.server.request.duration",
        "log.level",
        "message",
        "network.peer.address",
        "request_id",
        "severity",
        "time",
        "url.path",
    ];
    assert_eq!(keys.into_iter().collect::<Vec<_>>(), want);
    let page = std::fs::read_to_string(crate::support::path("docs/operating.md")).unwrap();
    for name in ["client=", "forwarded=", "tries=", "reason=", "trace=", "message="] {
        assert!(page.contains(&format!("\n| `{name}` | `")), "docs/operating.md has no row for {name}");
    }
    for key in want.into_iter().chain(["k8s.job.name", "tries", "trace_id"]) {
        let has_row = |line: &str| line.split(" | ").nth(1).is_some_and(|cell| cell.contains(&format!("`{key}`")));
        assert!(key == "message" || page.lines().any(has_row), "docs/operating.md has no row for {key}");
    }
    let message = "POST \"/job\" 422 0ms - client=127.0.0.1 reason=FilterError message=\"a \\\"b\\\"\\n\\u{1}\"";
    for (key, want) in [
        ("severity", json!("INFO")),
        ("log.level", json!("info")),
        ("http.request.method", json!("POST")),
        ("url.path", json!("/job")),
        ("http.response.status_code", json!(422)),
        ("error.type", json!("FilterError")),
        ("error.message", json!("a \"b\"\n\u{1}")),
        ("client.address", json!("127.0.0.1")),
    ] {
        assert_eq!(line[key], want, "{key}");
    }
    let shown = line["message"].as_str().unwrap();
    assert!(
        shown.starts_with("POST \"/job\" 422 ") && shown.ends_with(message.split("ms ").nth(1).unwrap()),
        "{shown}"
    );
    assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z') && time.len() == 24), "{line}");
    assert_eq!(line["time"], line["@timestamp"]);
    let good = line_of("good");
    assert_eq!((&good["k8s.job.name"], good.get("error.type")), (&json!("a"), None));
    let filter = dispatcher.log().into_iter().find(|line| line.contains("filter says")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&filter).unwrap()["request_id"], "good");
    let warning = dispatcher
        .log()
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .any(|line| line["severity"] == "DEBUG" && line["log.level"] == "debug");
    assert!(warning);
}
