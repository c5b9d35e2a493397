use crate::dispatch::manifest;
use crate::support::dispatcher::{AS_IS, Dispatcher};
use crate::support::http::{JSON, request};
use crate::support::namespace::Namespace;
use serde_json::json;

/// A whole dispatch at the level that says most: token, body, manifest and environment appear in no line and no reply.
#[test]
fn no_secret_is_logged_or_returned_at_any_level() {
    let namespace = Namespace::new();
    let mut command = Dispatcher::command_for(&namespace, &namespace.cluster.url, &[AS_IS, "--log-level=trace"]);
    command.env("AN_OPERATORS_SECRET", "env-marker").env("RUST_LOG", "trace");
    let dispatcher = Dispatcher::start_command(command);
    let token = std::fs::read_to_string(namespace.folder.0.join("token")).unwrap();
    let body = manifest(json!({"name": "a", "annotations": {"x": "body-marker"}}), json!({}));
    let mut replies = String::new();
    for body in
        [body.as_str(), &body, "{\"spec\": {\"parallelism\": \"body-marker\"}}", "\"body-marker\"", "{\"body-marker"]
    {
        let headers = format!("{JSON}Authorization: Bearer header-marker\r\n");
        let reply = dispatcher.send(request("POST", "/job?q=query-marker", &headers, body));
        replies += &String::from_utf8_lossy(&reply.body);
    }
    replies += &String::from_utf8_lossy(&dispatcher.get("/job/a").body);
    let log = dispatcher.log().join("\n");
    assert!(log.contains("POST \"/job\" 201"), "{log}");
    for secret in [token.trim(), "env-marker", "header-marker", "query-marker"] {
        assert!(!log.contains(secret) && !replies.contains(secret), "{secret} in\n{log}\n{replies}");
    }
    assert!(!replies.contains("body-marker"), "{replies}");
    // the API server's own words, which are for the operator, may quote the manifest; nothing else does
    let quoted = log.lines().filter(|line| {
        line.contains("body-marker") && !line.contains("422 \"Invalid") && !line.contains("400 \"BadRequest")
    });
    assert_eq!(quoted.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn callers_cannot_add_log_lines() {
    let dispatcher = Dispatcher::start(&[
        "debug | stderr | error(\"x\\n2026 ERROR forged\")",
        "--dry-run=client",
        "--log-level=debug",
    ]);
    dispatcher.post("/job", "\"a\\n2026 ERROR forged\\u001b[31m\"");
    dispatcher.send(request("GET", "/job/%0a2026%20ERROR%20forged", "X-Request-Id: forged!\r\n", ""));
    dispatcher.logged("GET \"/job/%0a");
    let log = dispatcher.log();
    assert!(log.iter().all(|line| line.starts_with("20") && line.contains("Z ")), "{log:?}");
    assert!(log.iter().all(|line| !line.contains('\u{1b}')), "{log:?}");
    assert!(log.iter().filter(|line| line.contains("filter says")).count() == 2, "{log:?}");
}

#[test]
fn a_debug_line_is_cut() {
    let dispatcher = Dispatcher::start(&["debug | {spec: {}}", "--dry-run=client", "--log-level=debug"]);
    dispatcher.post("/job", &format!("\"{}\"", "x".repeat(100_000)));
    assert!(dispatcher.logged("filter says").len() < 1200);
}
