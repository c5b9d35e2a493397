use crate::dispatch::manifest;
use crate::support::dispatcher::Dispatcher;
use crate::support::kubelet::ending;
use crate::support::logs::Logs;
use crate::support::namespace::Namespace;
use crate::support::path;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;

#[test]
fn the_page_loads_only_from_the_dispatcher_and_is_at_its_paths() {
    let dispatcher = Dispatcher::start(&["--dry-run=client", ". # a<b>c"]);
    let page = dispatcher.get("/docs");
    let html = String::from_utf8(page.body.clone()).unwrap();
    assert_eq!((page.code, page.header("Content-Type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("Content-Security-Policy").unwrap();
    for part in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    ] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(html.contains("<dt>Filter</dt><dd>&lt;argument&gt; ("), "{html}");
    assert!(html.contains("Namespace <strong>default</strong>, API server <strong>none (dry run)</strong>"), "{html}");
    assert!(
        !html.contains("hello&quot;") && !html.contains("\"hello\", \"args\""),
        "an example is for the default filter: {html}"
    );
    let default = Dispatcher::start(&["--dry-run=client"]).get("/docs").body;
    assert!(String::from_utf8(default).unwrap().contains("{\"id\": \"hello\", \"args\""));
    assert!(!html.contains("a<b>c") && !html.contains("{settings}"), "{html}");
    for (asset, media_type) in
        [("/docs.js", "text/javascript; charset=utf-8"), ("/docs.css", "text/css; charset=utf-8")]
    {
        let reply = dispatcher.get(asset);
        assert_eq!((reply.code, reply.header("Content-Type")), (200, Some(media_type)));
        assert!(html.contains(&format!("\"{}\"", &asset[1..])), "the page does not use {asset}");
    }
    // relative, so that a path prefix survives
    for (from, to) in [("/", "docs"), ("/docs/", "../docs")] {
        let reply = dispatcher.get(from);
        assert_eq!((reply.code, reply.header("Location")), (307, Some(to)), "{from}");
    }
}

#[test]
fn the_page_can_be_disabled() {
    let dispatcher = Dispatcher::start(&["--dry-run=client", "--docs=false"]);
    for path in ["/", "/docs", "/docs/", "/docs.js", "/docs.css"] {
        assert_eq!(dispatcher.get(path).error(), (404, "NotFound".into()), "{path}");
        assert_eq!(dispatcher.post(path, "{}").error(), (404, "NotFound".into()), "{path}");
    }
    assert_eq!(dispatcher.get("/openapi.json").code, 200);
}

#[test]
#[ignore = "tests/page installs a browser and runs this"]
fn a_person_sends_a_request_and_sees_its_job_end() {
    let namespace = Namespace::new();
    namespace.cluster.needs_controller_manager();
    let filter = ending(&namespace, "src/default.jq", Duration::from_secs(3));
    let dispatcher = Dispatcher::for_namespace(&namespace, &["--from-file", filter.to_str().unwrap()]);
    let operators = namespace_with(9);
    let logs = Logs::new(&operators);
    logs.write("a line of the log\n".repeat(30));
    let filter = ending(&operators, "src/default.jq", Duration::from_secs(6));
    let text = std::fs::read_to_string(&filter).unwrap();
    let node = format!("{text}\n| .spec.template.spec.nodeName = {:?}", logs.node);
    let filter = operators.folder.write("node.jq", &node);
    let args = ["--enable=delete,list,logs,pods", "--from-file", filter.to_str().unwrap()];
    let operator = Dispatcher::for_namespace(&operators, &args);
    let ended = operator.post("/job", r#"{"id": "tenth"}"#);
    assert_eq!(ended.code, 201);
    let thousand = namespace_with(1000);
    let many = Dispatcher::for_namespace(&thousand, &["--enable=list"]);
    let address = |dispatcher: &Dispatcher| format!("http://{}", dispatcher.address);
    let output = Command::new("node")
        .arg(path("tests/page.mjs"))
        .args([&dispatcher, &operator, &many].map(address))
        .arg(std::env::var("SCREENSHOTS").expect("SCREENSHOTS names a folder: run tests/page"))
        .output()
        .unwrap_or_else(|error| panic!("cannot run node: {error}"));
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{said}");
}

/// A namespace with so many suspended Jobs of a dispatcher, in which all that can be enabled is permitted.
fn namespace_with(jobs: usize) -> Namespace {
    let namespace = Namespace::with(json!({}), &["create", "get", "list", "watch", "delete"]);
    namespace.allow_too(&[("", "pods", "list"), ("", "pods/log", "get")]);
    for number in 0..jobs {
        let mut job: Value = serde_json::from_str(&manifest(json!({}), json!({}))).unwrap();
        job["metadata"] = json!({"name": format!("report-{number:04}"), "labels": {"app.kubernetes.io/managed-by": "k8s-job-dispatcher"}});
        job["spec"]["suspend"] = json!(true);
        job["spec"]["managedBy"] = json!("tests.example/nobody"); // so that the Job controller is not busy with them
        namespace.admin().create(&namespace.jobs(), job);
    }
    namespace
}
