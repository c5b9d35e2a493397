//! What a real API server cannot be made to do on demand: lost responses, invalid bodies, 5xx.

use crate::support::dispatcher::{AS_IS, Dispatcher};
use crate::support::http::Reply;
use crate::support::scripted::{Act, Scripted, job, status};
use serde_json::{Value, json};
use std::thread;
use std::time::{Duration, Instant};

const BODY: &str = r#"{"metadata": {"name": "a"}, "spec": {}}"#;
const GENERATED: &str = r#"{"metadata": {"generateName": "a-"}, "spec": {}}"#;

fn start(server: &Scripted, args: &[&str]) -> Dispatcher {
    Dispatcher::start(&[&[AS_IS, "--server", &server.url, "--namespace=ns"], args].concat())
}

fn answer(code: u16, body: String) -> Act {
    Act::Answer(code, "", body)
}

fn created() -> Act {
    answer(201, job("a", json!({})))
}

fn taken() -> Act {
    answer(
        409,
        status(
            409,
            "AlreadyExists",
            "jobs.batch \"a\" already exists",
            json!({"name": "a", "group": "batch", "kind": "jobs"}),
        ),
    )
}

/// Posts to a dispatcher whose API server follows this script; all of it must be used.
fn post(acts: impl IntoIterator<Item = Act>) -> (Reply, Scripted) {
    let server = Scripted::start(acts);
    let reply = start(&server, &[]).post("/job", BODY);
    assert_eq!(server.left(), 0, "{:?}", server.seen());
    (reply, server)
}

#[test]
fn a_create_has_field_manager_and_validation() {
    let (reply, server) = post([created()]);
    assert_eq!(reply.code, 201);
    let seen = &server.seen()[0];
    let want = "/apis/batch/v1/namespaces/ns/jobs?fieldManager=k8s-job-dispatcher&fieldValidation=Strict";
    let (path, rest) = seen.target.split_once("&timeout=").unwrap();
    assert_eq!((seen.method.as_str(), path), ("POST", want));
    let timeout: u32 = rest.strip_suffix("ms").unwrap().parse().unwrap();
    assert!((14_000..14_501).contains(&timeout), "half a second less than our 15 s, not {timeout} ms");
    assert_eq!(seen.authorization, None, "no token goes to an http server");
    let sent: Value = serde_json::from_str(&seen.body).unwrap();
    assert_eq!(
        (&sent["apiVersion"], &sent["kind"], &sent["metadata"]["name"]),
        (&json!("batch/v1"), &json!("Job"), &json!("a"))
    );
    assert_eq!(
        sent["metadata"]["annotations"]["k8s-job-dispatcher/fingerprint"].as_str().unwrap().len(),
        "v2:".len() + 64
    );

    let server = Scripted::start([created()]);
    assert_eq!(start(&server, &["--dry-run=server"]).post("/job", BODY).code, 200);
    let target = &server.seen()[0].target;
    assert!(target.starts_with(want) && target.ends_with("ms&dryRun=All"), "{target}");
}

#[test]
fn after_a_lost_response_the_same_name_is_posted_again() {
    for lost in [
        Act::HangUp,
        Act::HalfAnswer,
        answer(500, status(500, "InternalError", "context deadline exceeded", json!({}))),
    ] {
        let (reply, server) = post([lost.clone(), created()]);
        assert_eq!(reply.code, 201, "{lost:?}");
        let seen = server.seen();
        assert_eq!(seen[0].body, seen[1].body, "the same name and nonce");
    }
}

#[test]
fn a_job_created_by_our_own_lost_attempt_is_201() {
    let (reply, server) = post([Act::HangUp, taken(), Act::JobAsPosted]);
    assert_eq!((reply.code, &reply.json()["id"]), (201, &json!("a")));
    let methods: Vec<_> = server.seen().into_iter().map(|seen| seen.method).collect();
    assert_eq!(methods, ["POST", "POST", "GET"]);
}

fn over_quota() -> Act {
    let message =
        "jobs.batch \"a\" is forbidden: exceeded quota: q, requested: count/jobs.batch=1, used: 1, limited: 1";
    answer(403, status(403, "Forbidden", message, json!({"name": "a", "group": "batch", "kind": "jobs"})))
}

fn not_found() -> Act {
    let details = json!({"name": "a", "group": "batch", "kind": "jobs"});
    answer(404, status(404, "NotFound", "jobs.batch \"a\" not found", details))
}

#[test]
fn a_refusal_after_a_lost_response_does_not_hide_the_job() {
    let denied =
        || answer(403, status(403, "Forbidden", "admission webhook \"w\" denied the request: no", json!(null)));
    for refusal in [over_quota(), denied(), Act::Answer(429, "Retry-After: 60\r\n", "Too many requests".into())] {
        let (reply, _) = post([Act::HangUp, refusal.clone(), Act::JobAsPosted]);
        assert_eq!((reply.code, &reply.json()["id"]), (201, &json!("a")), "{refusal:?}");
    }
    let (reply, _) = post([Act::HangUp, denied(), not_found()]);
    assert_eq!(reply.error(), (422, "Forbidden".into()), "there is no Job");
    let (reply, _) = post([over_quota(), not_found()]);
    assert_eq!((reply.error(), reply.header("Retry-After")), ((429, "QuotaExceeded".into()), Some("10")));
}

#[test]
fn a_job_whose_response_has_too_long_a_head_is_found() {
    let many = Box::leak("Warning: 299 - \"x\"\r\n".repeat(300).into_boxed_str());
    let long = Box::leak(format!("Warning: 299 - \"{}\"\r\n", "警".repeat(20_000)).into_boxed_str());
    for warnings in [&*many, &*long] {
        let (reply, _) = post([Act::Answer(201, warnings, job("a", json!({}))), Act::JobAsPosted]);
        assert_eq!((reply.code, &reply.json()["id"]), (201, &json!("a")));
    }
}

#[test]
fn warnings_in_any_script_are_read() {
    let warning = format!("Warning: 299 - \"{}\"\r\n", "警告".repeat(1000));
    let warnings = Box::leak(warning.repeat(5).into_boxed_str());
    assert!(warnings.len() > 30_000);
    let (reply, _) = post([Act::Answer(201, warnings, job("a", json!({})))]);
    assert_eq!(reply.code, 201);
}

#[test]
fn a_response_of_unknown_length_that_ends_early_is_a_lost_one() {
    let (reply, server) = post([Act::Unbounded(r#"{"kind":"Job","metadata":{"na"#.into()), created()]);
    assert_eq!(reply.code, 201);
    assert_eq!(server.seen()[0].body, server.seen()[1].body);
    assert_eq!(post([Act::Unbounded(job("a", json!({})))]).0.code, 201, "whole");
}

#[test]
fn a_get_that_is_refused_oddly_is_a_bad_gateway() {
    for (code, reason) in [(400, "BadRequest"), (422, "Invalid"), (413, "RequestEntityTooLarge")] {
        let server = Scripted::start([answer(code, status(code, reason, "x", json!({})))]);
        assert_eq!(start(&server, &[]).get("/job/a").error(), (502, "BadGateway".into()), "{code}");
    }
    let server = Scripted::start([over_quota()]);
    assert_eq!(start(&server, &[]).get("/job/a").error(), (502, "BadGateway".into()));
}

#[test]
fn the_fifth_failure_is_final() {
    let conflict = || {
        let message = "Operation cannot be fulfilled on resourcequotas \"q\": the object has been modified";
        answer(409, status(409, "Conflict", message, json!({"name": "q", "kind": "resourcequotas"})))
    };
    let fault = || answer(500, status(500, "InternalError", "please try again", json!({})));
    let busy = || answer(503, status(503, "ServiceUnavailable", "apiserver is shutting down", json!({})));
    let many = || Act::Answer(429, "", "Too many requests, please try again later.".into());
    let slow = || answer(504, status(504, "Timeout", "request did not complete", json!({})));
    thread::scope(|scope| {
        for (act, is_read, code, reason, retry_after) in [
            (Act::HangUp, true, 502, "BadGateway", None),
            (Act::HalfAnswer, true, 502, "BadGateway", None),
            (conflict(), false, 503, "ServiceUnavailable", Some("1")),
            (fault(), true, 503, "ServiceUnavailable", Some("1")),
            (busy(), false, 503, "ServiceUnavailable", Some("1")),
            (many(), false, 503, "ServiceUnavailable", Some("1")),
            (slow(), true, 504, "Timeout", None),
        ] {
            scope.spawn(move || {
                let acts = || std::iter::repeat_n(act.clone(), 5).chain(is_read.then(not_found));
                let (reply, server) = post(acts());
                assert_eq!(reply.error(), (code, reason.to_owned()), "{act:?}");
                assert_eq!(reply.header("Retry-After"), retry_after, "{act:?}");
                let posts: Vec<_> = server.seen().into_iter().filter(|seen| seen.method == "POST").collect();
                assert_eq!(posts.len(), 5, "{act:?}");
                assert!(posts.iter().all(|seen| seen.body == posts[0].body), "the same name and nonce");

                // and any before it is followed by another try
                let (reply, _) = post(std::iter::repeat_n(act.clone(), 4).chain([created()]));
                assert_eq!(reply.code, 201, "{act:?}");
            });
        }
    });
}

#[test]
fn retry_after_is_waited_for_if_the_time_allows() {
    for headers in ["Retry-After: 1\r\n", "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n"] {
        let begin = Instant::now();
        let (reply, _) = post([Act::Answer(429, headers, "Too many requests".into()), created()]);
        assert_eq!(reply.code, 201);
        assert!(begin.elapsed() >= Duration::from_secs(1), "{headers:?}");
    }
    let asks = status(500, "ServerTimeout", "please try again", json!({"retryAfterSeconds": 60}));
    for (acts, retry_after) in [
        (vec![Act::Answer(429, "Retry-After: 60\r\n", String::new())], "60"),
        (vec![Act::Answer(503, "Retry-After: Sat, 06 Nov 2094 08:49:37 GMT\r\n", String::new())], "300"),
        (vec![answer(500, asks), not_found()], "60"),
    ] {
        let begin = Instant::now();
        let (reply, _) = post(acts);
        assert_eq!((reply.error().0, reply.header("Retry-After")), (503, Some(retry_after)));
        assert!(begin.elapsed() < Duration::from_secs(10), "there is no time to wait for that");
    }
}

#[test]
fn other_failures_are_final() {
    for (acts, code, reason, retry_after) in [
        (vec![answer(401, status(401, "Unauthorized", "Unauthorized", json!(null)))], 502, "BadGateway", None),
        (
            vec![answer(413, status(413, "RequestEntityTooLarge", "limit is 3145728", json!({})))],
            413,
            "RequestEntityTooLarge",
            None,
        ),
        (
            vec![answer(403, status(403, "Forbidden", "admission webhook \"w\" denied the request: no", json!(null)))],
            422,
            "Forbidden",
            None,
        ),
        (vec![answer(406, String::new())], 502, "BadGateway", None),
        (vec![answer(302, String::new())], 502, "BadGateway", None),
        (vec![answer(200, "<html>sign in</html>".into())], 502, "BadGateway", None),
        (vec![answer(201, "<html>sign in</html>".into()), not_found()], 502, "BadGateway", None),
        (vec![answer(201, job("b", json!({}))), not_found()], 502, "BadGateway", None),
        (vec![answer(404, "404 page not found\n".into())], 502, "BadGateway", None),
        (vec![taken(), answer(200, "{}".into())], 502, "BadGateway", None),
        (vec![taken(), answer(409, "conflict".into())], 502, "BadGateway", None),
        (vec![taken(), answer(200, job("a", json!({})))], 409, "AlreadyExists", None),
    ] {
        let (reply, server) = post(acts.clone());
        assert_eq!(reply.error(), (code, reason.to_owned()), "{acts:?}");
        assert_eq!(reply.header("Retry-After"), retry_after, "{acts:?}");
        assert_eq!(server.seen().len(), acts.len(), "{acts:?}");
    }
}

#[test]
fn a_conflict_is_resolved_by_a_retry() {
    let conflict =
        answer(409, status(409, "Conflict", "Operation cannot be fulfilled", json!({"kind": "resourcequotas"})));
    assert_eq!(post([conflict, created()]).0.code, 201);
}

#[test]
fn a_name_that_was_drawn_again_stays_in_a_retry() {
    let server = Scripted::start([taken(), Act::JobAsAsked(json!({})), Act::HangUp, taken(), Act::JobAsPosted]);
    assert_eq!(start(&server, &[]).post("/job", GENERATED).code, 201);
    assert_eq!(server.left(), 0);
    let posts: Vec<_> = server.seen().into_iter().filter(|seen| seen.method == "POST").map(|seen| seen.body).collect();
    assert_eq!(posts.len(), 3);
    assert!(posts[0] != posts[1] && posts[1] == posts[2], "the second name is kept");
}

#[test]
fn a_taken_random_name_is_replaced_up_to_three_times() {
    let theirs = || Act::JobAsAsked(json!({}));
    let draws = (0..4).flat_map(|_| [taken(), theirs()]);
    let server = Scripted::start(draws);
    assert_eq!(start(&server, &[]).post("/job", GENERATED).error(), (409, "AlreadyExists".into()));
    assert_eq!(server.left(), 0);
    let posts = server.seen().into_iter().filter(|seen| seen.method == "POST");
    let mut names: Vec<_> =
        posts.map(|seen| serde_json::from_str::<Value>(&seen.body).unwrap()["metadata"]["name"].clone()).collect();
    names.dedup();
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn no_answer_in_time_is_a_timeout() {
    let server = Scripted::start([Act::Silence, Act::Silence]);
    let dispatcher = start(&server, &["--request-timeout=300ms"]);
    let begin = Instant::now();
    assert_eq!(dispatcher.post("/job", BODY).error(), (504, "Timeout".into()));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(dispatcher.get("/job/a").error(), (504, "Timeout".into()));
    assert_eq!(server.seen().len(), 2);
}

#[test]
fn a_slow_response_times_out() {
    let server = Scripted::start([Act::Drip(Duration::from_millis(400)), Act::Drip(Duration::from_millis(400))]);
    let dispatcher = start(&server, &["--request-timeout=1s"]);
    let begin = Instant::now();
    assert_eq!(dispatcher.post("/job", BODY).error(), (504, "Timeout".into()));
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[test]
fn warnings_of_the_api_server_are_logged() {
    let server =
        Scripted::start([Act::Answer(201, "Warning: 299 - \"would violate PodSecurity\"\r\n", job("a", json!({})))]);
    let dispatcher = start(&server, &[]);
    assert_eq!(dispatcher.post("/job", BODY).code, 201);
    assert!(dispatcher.logged("would violate PodSecurity").contains("WARN"));
}

#[test]
fn responses_are_read_up_to_a_limit() {
    let warnings = Box::leak(
        "Warning: 299 - \"a warning that is rather long, as those of admission plugins are\"\r\n"
            .repeat(90)
            .into_boxed_str(),
    );
    let large = |size: usize| job("a", json!({"large": "x".repeat(size)}));
    let server = Scripted::start([
        Act::Answer(201, warnings, job("a", json!({}))),
        answer(201, large(9 << 20)),
        answer(201, large(11 << 20)),
        answer(200, large(11 << 20)),
        answer(200, large(11 << 20)),
    ]);
    let dispatcher = start(&server, &[]);
    for _ in 0..2 {
        assert_eq!(dispatcher.post("/job", BODY).code, 201);
    }
    // etcd stores no Job as large
    assert_eq!(dispatcher.post("/job", BODY).error(), (502, "BadGateway".into()));
    assert_eq!(dispatcher.get("/job/a").error(), (502, "BadGateway".into()));
}

#[test]
fn readiness_is_checked_at_most_once_a_second() {
    let server = Scripted::start([answer(403, String::new())]);
    let dispatcher = start(&server, &[]);
    for _ in 0..20 {
        assert_eq!(dispatcher.get("/health/ready").code, 200);
    }
    assert_eq!(server.seen().iter().filter(|seen| seen.target == "/readyz").count(), 1);
}

#[test]
fn large_manifests_that_wait_for_an_answer_have_a_limit() {
    const MANY: usize = 16;
    let server = Scripted::start(vec![Act::Silence; MANY]);
    let dispatcher =
        Dispatcher::start(&["{spec: {x: .}}", "--server", &server.url, "--namespace=ns", "--request-timeout=3s"]);
    let body = format!("\"{}\"", "x".repeat(900_000));
    let text = crate::support::http::request("POST", "/job", crate::support::http::JSON, &body);
    let mut codes: Vec<u16> = std::thread::scope(|scope| {
        let posting: Vec<_> = (0..MANY).map(|_| scope.spawn(|| dispatcher.send(&text).error())).collect();
        posting.into_iter().map(|posting| posting.join().unwrap().0).collect()
    });
    codes.sort();
    codes.dedup();
    assert_eq!(codes, [503, 504], "some hang in a call, and the others get a Retry-After");
    assert_eq!(dispatcher.get("/health/live").code, 200);
}

#[test]
fn live_answers_while_every_call_hangs() {
    const MANY: usize = 200;
    const CAP: usize = 56;
    let server = Scripted::start(vec![Act::Silence; MANY]);
    let dispatcher = start(&server, &["--request-timeout=20s"]);
    let mut lines: Vec<_> = (0..MANY).map(|_| dispatcher.line()).collect();
    for line in &mut lines {
        line.send(crate::support::http::request("POST", "/job", crate::support::http::JSON, BODY));
    }
    crate::support::eventually("calls up to the cap", || (server.seen().len() >= CAP).then_some(()));
    let begin = Instant::now();
    assert_eq!(dispatcher.get("/health/live").code, 200);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(server.seen().len(), CAP, "no more calls than the cap");
}
