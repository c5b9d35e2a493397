//! Who may call: tokens in files, identities of Kubernetes, signatures of webhooks.

use crate::support::dispatcher::{Dispatcher, run};
use crate::support::http::{JSON, Line, Reply, request};
use crate::support::namespace::Namespace;
use crate::support::{Folder, eventually};
use serde_json::{Value, json};
use std::fs;
use std::time::Instant;

/// A filter that shows who calls.
const WHO: &str = r#"{metadata: {name: (.name // "a"), annotations: {who: ($REQUEST.caller | tojson), headers: ($REQUEST.headers | keys | tojson)}},
  spec: {suspend: true, template: {spec: {restartPolicy: "Never", containers: [{name: "a", image: "a"}]}}}}"#;

fn with_token(dispatcher: &Dispatcher, method: &str, target: &str, token: &str, body: &str) -> Reply {
    let media_type = if method == "POST" { JSON } else { "" };
    dispatcher.send(request(method, target, &format!("{media_type}Authorization: Bearer {token}\r\n"), body))
}

/// What the API server was asked about callers.
fn reviews(dispatcher: &Dispatcher) -> f64 {
    let count = |verb| dispatcher.metric(&format!("api_requests_total{{verb=\"{verb}\",code=\"201\"}}"));
    ["tokenreview", "subjectaccessreview"].into_iter().filter_map(count).sum()
}

fn job(namespace: &Namespace, name: &str) -> Value {
    let (code, job) = namespace.admin().get(&format!("/apis/batch/v1/namespaces/{}/jobs/{name}", namespace.name));
    assert_eq!(code, 200, "{job}");
    job
}

#[test]
fn tokens_in_files_open_everything_but_what_probes_need() {
    let namespace = Namespace::new();
    let folder = Folder::new();
    fs::write(folder.0.join("ci"), "a-token\nnew-token\n").unwrap();
    let means = format!("tokens={}", folder.0.display());
    let dispatcher = Dispatcher::for_namespace(&namespace, &["--auth", &means, WHO]);
    for (method, target) in [
        ("POST", "/job"),
        ("GET", "/job/a"),
        ("GET", "/metrics"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/x"),
        ("PUT", "/job"),
    ] {
        let reply = dispatcher.send(request(method, target, JSON, "{}"));
        assert_eq!(reply.error(), (401, "Unauthorized".into()), "{method} {target}");
        assert!(reply.header("WWW-Authenticate").unwrap().starts_with("Bearer "));
    }
    for target in ["/health/live", "/health/ready"] {
        assert_eq!(dispatcher.get(target).code, 200, "{target}");
    }
    dispatcher.logged(" reason=Unauthorized message=\"there is no Authorization\"");
    assert_eq!(with_token(&dispatcher, "POST", "/job", "other-token", "{}").code, 401);
    assert!(!dispatcher.log().join("\n").contains("other-token"), "a credential is in the log");

    let created = with_token(&dispatcher, "POST", "/job", "a-token", "{}");
    assert_eq!(created.code, 201);
    let annotations = job(&namespace, "a")["metadata"]["annotations"].clone();
    assert_eq!(annotations["k8s-job-dispatcher/caller"], "ci");
    let who: Value = serde_json::from_str(annotations["who"].as_str().unwrap()).unwrap();
    assert_eq!(who, json!({"kind": "token", "name": "ci", "groups": []}));
    assert!(!annotations["headers"].as_str().unwrap().contains("authorization"));
    dispatcher.logged(" caller=\"ci\"");
    let basic = format!("Authorization: Basic {}\r\n", "Y2k6bmV3LXRva2Vu"); // ci:new-token
    assert_eq!(dispatcher.send(request("GET", "/job/a", &basic, "")).code, 200);
    assert_eq!(with_token(&dispatcher, "GET", "/metrics", "new-token", "").code, 200);
    assert_eq!(with_token(&dispatcher, "GET", "/x", "new-token", "").code, 404);

    fs::remove_file(folder.0.join("ci")).unwrap();
    eventually("the tokens to be revoked", || {
        (with_token(&dispatcher, "GET", "/job/a", "a-token", "").code == 401).then_some(())
    });
}

#[test]
fn metrics_count_outcomes_by_means() {
    let folder = Folder::new();
    fs::write(folder.0.join("ci"), "a-token").unwrap();
    fs::create_dir(folder.0.join(".secrets")).unwrap();
    let secret = folder.0.join(".secrets/gitlab");
    fs::write(&secret, "s").unwrap();
    let (means, webhook) =
        (format!("tokens={}", folder.0.display()), format!("/job/gitlab=gitlab:{}", secret.display()));
    let args = ["--dry-run=client", "--auth", &means, "--webhook", &webhook, "--public", "metrics,docs", WHO];
    let dispatcher = Dispatcher::start(&args);
    let count = |means: &str, outcome: &str| {
        dispatcher.metric(&format!("authentications_total{{means=\"{means}\",outcome=\"{outcome}\"}}")).unwrap()
    };
    assert_eq!(count("webhook", "unauthorized"), 0.0, "the series begin");
    assert_eq!(with_token(&dispatcher, "POST", "/job", "a-token", "{}").code, 200);
    assert_eq!(with_token(&dispatcher, "POST", "/job", "x", "{}").code, 401);
    assert_eq!(dispatcher.get("/job/a").code, 401);
    assert_eq!([dispatcher.get("/docs").code, dispatcher.get("/openapi.json").code], [200, 200]);
    let posted = |token: &str| {
        dispatcher.send(request("POST", "/job/%67itlab/x", &format!("{JSON}X-Gitlab-Token: {token}\r\n"), "{}"))
    };
    assert_eq!(posted("s").code, 200);
    assert_eq!(posted("t").code, 401);
    let shown = String::from_utf8(posted("s").body).unwrap();
    assert!(
        shown.contains(r#"\"kind\":\"webhook\""#) && shown.contains(r#""k8s-job-dispatcher/caller":"/job/gitlab""#),
        "{shown}"
    );
    assert!(!shown.contains("x-gitlab-token"), "a filter sees a credential: {shown}");
    let counts = [
        ("tokens", "ok"),
        ("tokens", "unauthorized"),
        ("none", "unauthorized"),
        ("webhook", "ok"),
        ("webhook", "unauthorized"),
    ];
    assert_eq!(counts.map(|(means, outcome)| count(means, outcome)), [1.0, 1.0, 1.0, 2.0, 1.0]);
}

#[test]
fn a_large_body_is_refused_before_it_is_sent() {
    let folder = Folder::new();
    fs::write(folder.0.join("ci"), "a-token").unwrap();
    let dispatcher = Dispatcher::start(&["--dry-run=client", "--auth", &format!("tokens={}", folder.0.display()), "."]);
    for length in [
        "Content-Length: 2000000\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Content-Length: 2\r\nExpect: 100-continue\r\n",
    ] {
        let mut line = dispatcher.line();
        line.send(format!("POST /job HTTP/1.1\r\nHost: localhost\r\n{JSON}{length}\r\n"));
        assert_eq!(line.receive().expect("an answer to the head").error(), (401, "Unauthorized".into()), "{length}");
    }
    eventually("three lines with what was refused", || {
        let lines = dispatcher.log();
        (lines.iter().filter(|line| line.contains("POST \"/job\" 401")).count() == 3).then_some(())
    });
}

#[test]
fn identities_of_kubernetes_call_with_an_ordinary_role() {
    let namespace = Namespace::new();
    namespace.may_review();
    ["caller", "reader", "stranger"].iter().for_each(|name| namespace.account(name));
    namespace.may_call("caller", &["create", "get"]);
    namespace.may_call("reader", &["get", "list"]);
    let args = ["--auth=token-review", "--auth-audience=dispatcher", "--enable=list,delete", WHO];
    let dispatcher = Dispatcher::for_namespace(&namespace, &args);
    let [caller, reader, stranger] =
        ["caller", "reader", "stranger"].map(|name| namespace.token_with(name, Some("dispatcher")));
    let created = with_token(&dispatcher, "POST", "/job", &caller, "{}");
    assert_eq!(created.code, 201, "{:?}", String::from_utf8_lossy(&created.body));
    let annotations = job(&namespace, "a")["metadata"]["annotations"].clone();
    let name = format!("system:serviceaccount:{}:caller", namespace.name);
    assert_eq!(annotations["k8s-job-dispatcher/caller"], *name);
    let who: Value = serde_json::from_str(annotations["who"].as_str().unwrap()).unwrap();
    assert_eq!((&who["kind"], &who["name"]), (&json!("serviceaccount"), &json!(name)));
    assert!(who["groups"].as_array().unwrap().contains(&json!("system:authenticated")), "{who}");

    let code = |token: &str, method: &str, target: &str| with_token(&dispatcher, method, target, token, "{}").code;
    assert_eq!(
        [code(&caller, "GET", "/job/a"), code(&reader, "GET", "/job/a"), code(&stranger, "GET", "/job/a")],
        [200, 200, 403]
    );
    assert_eq!([code(&caller, "GET", "/job"), code(&reader, "GET", "/job")], [403, 200]);
    assert_eq!([code(&reader, "POST", "/job"), code(&reader, "DELETE", "/job/a")], [403, 403]);
    let refused = with_token(&dispatcher, "DELETE", "/job/a", &caller, "");
    assert_eq!(refused.error(), (403, "Forbidden".into()));
    dispatcher.logged(&format!(" reason=Forbidden message=\"{name} may not delete jobs.k8s-job-dispatcher\""));
    // to read what is no Job it suffices to be somebody
    assert_eq!(
        [code(&stranger, "GET", "/metrics"), code(&stranger, "GET", "/docs"), code(&stranger, "GET", "/x")],
        [200, 200, 404]
    );

    for wrong in [
        &namespace.token_with("caller", None),
        &namespace.token_with("caller", Some("other")),
        "not-a-token",
        &caller[..caller.len() - 2],
    ] {
        let refused = with_token(&dispatcher, "POST", "/job", wrong, "{}");
        assert_eq!(refused.error(), (401, "Unauthorized".into()));
        assert_eq!(refused.header("WWW-Authenticate"), Some("Bearer realm=\"k8s-job-dispatcher\""));
    }
    dispatcher.logged(" reason=Unauthorized message=\"the API server does not know the token");
}

/// A dispatcher that reviews tokens, and the token of a service account `caller`.
fn with_caller(namespace: &Namespace) -> (Dispatcher, String) {
    namespace.may_review();
    namespace.account("caller");
    let dispatcher = Dispatcher::for_namespace(namespace, &["--auth=token-review", "--public=metrics", WHO]);
    let caller = namespace.token_with("caller", None);
    (dispatcher, caller)
}

#[test]
fn results_are_cached_and_a_new_role_is_seen_soon() {
    let namespace = Namespace::new();
    let (dispatcher, caller) = with_caller(&namespace);
    let reviews = || reviews(&dispatcher);
    let code = || with_token(&dispatcher, "GET", "/job/none", &caller, "").code;
    assert_eq!(code(), 403);
    let before = reviews();
    assert_eq!([code(), code()], [403, 403]);
    assert_eq!(reviews(), before, "a cached answer is not asked for again");
    namespace.may_call("caller", &["get"]);
    eventually("the new Role to count", || (code() == 404).then_some(()));
    let before = reviews();
    assert_eq!((0..20).map(|_| code()).collect::<Vec<_>>(), [404; 20]);
    assert_eq!(reviews(), before, "a cached answer is not asked for again");
}

#[test]
fn many_requests_with_one_new_token_ask_once() {
    let namespace = Namespace::new();
    namespace.may_call("caller", &["get"]);
    let (dispatcher, caller) = with_caller(&namespace);
    let reviews = || reviews(&dispatcher);
    let mut lines: Vec<Line> = (0..200).map(|_| dispatcher.line()).collect();
    let text = request("GET", "/job/none", &format!("Authorization: Bearer {caller}\r\n"), "");
    lines.iter_mut().for_each(|line| line.send(&text));
    let codes: Vec<_> = lines.iter_mut().map(|line| line.receive().unwrap().code).collect();
    assert_eq!(codes, [404; 200]);
    assert_eq!(reviews(), 2.0, "one asks for all");
}

#[test]
fn strangers_are_asked_about_20_times_a_second_and_do_not_affect_callers_that_are_known() {
    let namespace = Namespace::new();
    namespace.may_call("caller", &["get"]);
    let (dispatcher, caller) = with_caller(&namespace);
    let good = || with_token(&dispatcher, "GET", "/job/none", &caller, "").code;
    assert_eq!(good(), 404);
    let start = Instant::now();
    let mut codes = Vec::new();
    for number in 0..400 {
        let reply = with_token(&dispatcher, "GET", "/job/none", &format!("stranger-{number}"), "");
        if reply.code == 503 {
            assert_eq!((reply.error().1, reply.header("Retry-After")), ("Overloaded".into(), Some("1")));
        }
        codes.push(reply.code);
        if number % 20 == 0 {
            assert_eq!(good(), 404, "a known caller is not affected");
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let asked = codes.iter().filter(|code| **code == 401).count();
    assert!(codes.iter().all(|code| [401, 503].contains(code)), "{codes:?}");
    assert!(asked >= 10 && asked as f64 <= 20.0 + 20.0 * seconds, "{asked} in {seconds} s");
    assert!(dispatcher.metric("authentications_total{means=\"token-review\",outcome=\"unavailable\"}").unwrap() >= 1.0);
}

#[test]
fn a_dispatcher_that_may_not_ask_says_so() {
    let namespace = Namespace::new();
    namespace.account("caller");
    let dispatcher = Dispatcher::for_namespace(&namespace, &["--auth=token-review", WHO]);
    dispatcher.logged("the dispatcher may not create tokenreviews.authentication.k8s.io");
    dispatcher.logged("the dispatcher may not create subjectaccessreviews.authorization.k8s.io");
    let reply = with_token(&dispatcher, "POST", "/job", &namespace.token_with("caller", None), "{}");
    assert_eq!(reply.error(), (502, "BadGateway".into()));
    let line = dispatcher.logged("callers cannot be checked; bind the ClusterRole system:auth-delegator");
    assert!(line.contains("ERROR"), "{line}");
}

#[test]
fn while_the_api_server_cannot_be_reached_unknown_callers_get_503() {
    let dispatcher = Dispatcher::start(&["--server=http://127.0.0.1:1", "--auth=token-review", WHO]);
    let reply = with_token(&dispatcher, "GET", "/job/a", "x", "");
    assert_eq!((reply.error(), reply.header("Retry-After")), ((503, "ServiceUnavailable".into()), Some("1")));
    dispatcher.logged("callers cannot be checked: ");
}

#[test]
fn slack_gets_200_without_a_body() {
    let namespace = Namespace::new();
    let secret = namespace.folder.0.join("slack");
    fs::write(&secret, "s").unwrap();
    let webhook = format!("/job/slack=slack:{}", secret.display());
    let filter = WHO.replace(".name", ".command");
    let dispatcher = Dispatcher::for_namespace(&namespace, &["--webhook", &webhook, "--accept=form", &filter]);
    dispatcher.logged("without --auth, only POSTs to /job/slack (slack) need a signature");
    let body = "command=deploy&text=%2Fx+y";
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let sign = |now: u64| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"s");
        let tag = ring::hmac::sign(&key, format!("v0:{now}:{body}").as_bytes());
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let form = "Content-Type: application/x-www-form-urlencoded\r\n";
        let signature = format!("X-Slack-Signature: v0={hex}\r\nX-Slack-Request-Timestamp: {now}\r\n");
        dispatcher.send(request("POST", "/job/slack", &format!("{form}{signature}"), body))
    };
    let reply = sign(now);
    assert_eq!((reply.code, reply.body.len(), reply.header("Content-Type")), (200, 0, None));
    assert_eq!(job(&namespace, "deploy")["metadata"]["annotations"]["k8s-job-dispatcher/caller"], "/job/slack");
    assert_eq!(sign(now).code, 200, "a repeated request");
    assert_eq!(sign(now - 301).code, 401, "it is replayed");
}

#[test]
fn the_same_request_of_another_caller_finds_the_first_ones_job() {
    let namespace = Namespace::new();
    let folder = Folder::new();
    ["first", "second"].iter().for_each(|name| fs::write(folder.0.join(name), format!("{name}-token")).unwrap());
    let filter = WHO.replace("who: ($REQUEST.caller | tojson), ", "");
    let dispatcher =
        Dispatcher::for_namespace(&namespace, &["--auth", &format!("tokens={}", folder.0.display()), &filter]);
    assert_eq!(with_token(&dispatcher, "POST", "/job", "first-token", "{}").code, 201);
    assert_eq!(with_token(&dispatcher, "POST", "/job", "second-token", "{}").code, 200);
    assert_eq!(job(&namespace, "a")["metadata"]["annotations"]["k8s-job-dispatcher/caller"], "first");
}

#[test]
fn what_is_wrong_is_said_at_the_start() {
    let folder = Folder::new();
    fs::write(folder.0.join("ci"), "\n").unwrap();
    let means = format!("tokens={}", folder.0.display());
    let said = |args: &[&str]| {
        let output = run(&[&["--check", "--dry-run=client", "."], args].concat(), &[]);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, text) = said(&["--auth", &means]);
    assert!(code == Some(1) && text.contains("ci` has an empty token in line 1"), "{text}");
    for (args, says) in [
        (&["--auth=token-review"][..], "--auth token-review needs the API server"),
        (&["--auth="][..], "--auth: \"\" has no value"),
        (&["--auth=token-review", "--auth-audience=,"], "--auth-audience: \",\" has no value"),
        (&["--webhook="], "--webhook: \"\" has no value"),
        (&["--allowed-host="], "--allowed-host: \"\" has no name"),
        (&["--auth=x"], "--auth: unknown value \"x\": expected tokens=FOLDER or token-review"),
        (&["--auth-audience=x"], "--auth-audience is for --auth token-review, which is not given"),
        (&["--public=docs"], "--public is for --auth, without which everything is public"),
        (&["--public=x"], "--public: \"x\" has the unknown value \"x\": expected docs or metrics"),
        (&["--accept=xml"], "--accept: \"xml\" has the unknown value \"xml\": expected form or text"),
        (&["--allowed-host=a:1"], "expected names such as example.com or *.example.com"),
        (&["--webhook=/x=github:/x"], "which is not a path of a POST"),
    ] {
        let (code, text) = said(args);
        assert!(code == Some(2) && text.contains(says), "{args:?} gave {text}");
    }
}

#[test]
fn bodies_that_senders_send() {
    let dispatcher =
        Dispatcher::start(&["--dry-run=client", "--accept=form,text", "{metadata: {name: \"a\"}, spec: {body: .}}"]);
    let posted = |media_type: &str, body: &str| {
        dispatcher.send(request("POST", "/job", &format!("Content-Type: {media_type}\r\n"), body))
    };
    let form = posted("application/x-www-form-urlencoded", "payload=%7B%22a%22%3A1%7D&x=1&x=2&%C3%A9=+");
    assert_eq!(form.json()["spec"]["body"], json!({"payload": "{\"a\":1}", "x": ["1", "2"], "é": " "}));
    assert_eq!(
        posted("text/plain; charset=UTF-8", "{\"Type\": \"Notification\"}").json()["spec"]["body"]["Type"],
        "Notification"
    );
    assert_eq!(posted("text/plain", "not JSON").error(), (400, "BadRequest".into()));
    assert_eq!(posted("application/x-www-form-urlencoded", "").json()["spec"]["body"], json!({}));
    assert_eq!(
        posted("application/x-www-form-urlencoded", &"a&".repeat(1001)).error(),
        (413, "RequestEntityTooLarge".into())
    );
    let long = format!("a={}", "x".repeat(600_000));
    assert_eq!(
        posted("application/x-www-form-urlencoded", &long).json()["spec"]["body"]["a"].as_str().unwrap().len(),
        600_000
    );
    let long = format!("a={}", "\u{1}".repeat(400_000)); // six bytes each in JSON
    assert_eq!(posted("application/x-www-form-urlencoded", &long).error(), (413, "RequestEntityTooLarge".into()));
    assert_eq!(posted("multipart/form-data; boundary=x", "").error(), (415, "UnsupportedMediaType".into()));
    let off = Dispatcher::start(&["--dry-run=client", "."]);
    for media_type in ["text/plain", "application/x-www-form-urlencoded"] {
        let reply = off.send(request("POST", "/job", &format!("Content-Type: {media_type}\r\n"), "a"));
        assert_eq!(reply.error(), (415, "UnsupportedMediaType".into()));
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains("--accept"));
    }
}

#[test]
fn names_of_the_host() {
    let send = |dispatcher: &Dispatcher, target: &str, host: &str| {
        dispatcher.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    };
    let filter = "{metadata: {name: \"a\"}, spec: {}}";
    let loopback = Dispatcher::start(&["--dry-run=client", "--allowed-host=jobs.example.com", filter]);
    for (host, code) in [
        ("localhost:8000", 200),
        ("127.0.0.2", 200),
        ("[::1]:80", 200),
        ("JOBS.example.com", 200),
        ("evil.example", 403),
    ] {
        assert_eq!(send(&loopback, "/openapi.json", host).code, code, "{host}");
        assert_eq!(send(&loopback, "/health/live", host).code, 200, "{host}: probes are exempt");
    }
    let refused = send(&loopback, "/docs", "evil.example");
    assert_eq!(refused.error(), (403, "HostNotAllowed".into()));
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("--allowed-host"));
    assert_eq!(loopback.send("GET /openapi.json HTTP/1.0\r\n\r\n").code, 200, "without Host");
    let all = Dispatcher::start(&["--dry-run=client", "--listen-address=0.0.0.0", filter]);
    assert_eq!(send(&all, "/openapi.json", "anything").code, 200);
    let restricted = Dispatcher::start(&[
        "--dry-run=client",
        "--listen-address=0.0.0.0",
        "--allowed-host",
        "*.svc,10.0.0.7",
        filter,
    ]);
    for (host, code) in [("a.jobs.svc:80", 200), ("10.0.0.7:8000", 200), ("localhost", 403), ("svc", 403)] {
        assert_eq!(send(&restricted, "/openapi.json", host).code, code, "{host}");
    }
}

/// While all calls hang, a token that is not known waits for no longer than its time.
#[test]
fn a_check_of_a_caller_ends_in_time() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap(); // it accepts, and never answers
    let server = format!("http://{}", listener.local_addr().unwrap());
    let dispatcher = Dispatcher::start(&["--server", &server, "--auth=token-review", "--request-timeout=1s", WHO]);
    let asked: Vec<_> = (0..3)
        .map(|number| {
            let mut line = dispatcher.line();
            line.send(request("GET", "/job/a", &format!("Authorization: Bearer t{}\r\n", number / 2), ""));
            line
        })
        .collect();
    for mut line in asked {
        let reply = line.receive().unwrap();
        assert_eq!(reply.error(), (503, "ServiceUnavailable".into()));
    }
}

/// All places are taken: what is for probes alone is refused with 503, whoever calls, and never waits.
#[test]
fn a_signed_webhook_is_refused_for_want_of_places_and_not_as_a_stranger() {
    let folder = Folder::new();
    fs::create_dir(folder.0.join("tokens")).unwrap();
    fs::write(folder.0.join("tokens/ci"), "a-token").unwrap();
    fs::write(folder.0.join("secret"), "s").unwrap();
    let means = format!("tokens={}", folder.0.join("tokens").display());
    let webhook = format!("/job/gitlab=gitlab:{}", folder.0.join("secret").display());
    let hangs = std::net::TcpListener::bind("127.0.0.1:0").unwrap(); // it accepts, and never answers
    let server = format!("http://{}", hangs.local_addr().unwrap());
    let args = [
        "--server",
        &server,
        "--request-timeout=3s",
        "--max-connections=2",
        "--auth",
        &means,
        "--webhook",
        &webhook,
        WHO,
    ];
    let dispatcher = Dispatcher::start(&args);
    let held = || {
        let mut line = dispatcher.line();
        line.send(request("POST", "/job", &format!("{JSON}Authorization: Bearer a-token\r\n"), "{}"));
        line
    };
    let held = [held(), held()];
    let signed = request("POST", "/job/gitlab", &format!("{JSON}X-Gitlab-Token: s\r\n"), "{}");
    let refused =
        eventually("all places to be taken", || Some(dispatcher.send(&signed)).filter(|reply| reply.code != 200));
    assert_eq!((refused.error(), refused.header("Retry-After")), ((503, "Overloaded".into()), Some("1")));
    assert_eq!(dispatcher.get("/health/live").code, 200);
    let wrong_name = format!("POST /job/gitlab HTTP/1.1\r\nHost: evil.example\r\n{JSON}Content-Length: 2\r\n\r\n{{}}");
    drop(held);
    let refused = eventually("a free place", || Some(dispatcher.send(&wrong_name)).filter(|reply| reply.code != 503));
    assert_eq!(refused.error(), (403, "HostNotAllowed".into()), "before it is asked who calls");
}

/// A burst of forms waits for memory, as JSON does.
#[test]
fn many_large_forms_wait_for_memory() {
    let dispatcher = Dispatcher::start(&[
        "--dry-run=client",
        "--accept=form",
        "{metadata: {name: \"a\"}, spec: {n: (.a | length)}}",
    ]);
    let body = format!("a={}", "%41".repeat(14_000));
    let text = request("POST", "/job", "Content-Type: application/x-www-form-urlencoded\r\n", &body);
    let mut lines: Vec<Line> = (0..100).map(|_| dispatcher.line()).collect();
    lines.iter_mut().for_each(|line| line.send(&text));
    for line in &mut lines {
        let reply = line.receive().unwrap();
        assert_eq!((reply.code, reply.json()["spec"]["n"].as_u64()), (200, Some(14_000)));
    }
}
