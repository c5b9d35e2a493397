//! The HTTP server, byte by byte.

use crate::support::dispatcher::{Dispatcher, command};
use crate::support::http::{JSON, Line, request};
use serde_json::json;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

const FILTER: &str = r#"{metadata: {name: "a"}, spec: {path: $PATH, request: $REQUEST, body: .}}"#;

fn start(args: &[&str]) -> Dispatcher {
    Dispatcher::start(&[&[FILTER, "--dry-run=client"], args].concat())
}

fn error(code: u16, reason: &str) -> (u16, String) {
    (code, reason.to_owned())
}

#[test]
fn a_filter_sees_the_request() {
    let dispatcher = start(&[]);
    let headers = format!(
        "{JSON}X-A: 1\r\nx-a: 2\r\nAuthorization: Bearer s\r\nCookie: s\r\nProxy-Authorization: s\r\nX-B: \u{e9}\r\n"
    );
    let reply = dispatcher.send(request("POST", "/job/r%C3%A9sum%c3%a9/b/?a=1&a=2&b=x+y%20z&c", &headers, "[1]"));
    let spec = reply.json()["spec"].clone();
    assert_eq!(spec["path"], "/job/résumé/b");
    assert_eq!(spec["body"], json!([1]));
    let want = json!({
        "method": "POST",
        "path": "/job/résumé/b",
        "query": {"a": "2", "b": "x y z", "c": ""},
        "query_string": "a=1&a=2&b=x+y%20z&c",
        "headers": {"host": "localhost", "content-type": "application/json", "x-a": "1, 2", "x-b": "é", "content-length": "3"},
    });
    assert_eq!(spec["request"], want);
    let mut bytes = request("POST", "/job", &format!("{JSON}X-B: ?\r\n"), "1").into_bytes();
    let at = bytes.iter().position(|byte| *byte == b'?').unwrap();
    bytes[at] = 0xff;
    assert_eq!(dispatcher.send(bytes).json()["spec"]["request"]["headers"]["x-b"], "\u{fffd}");
}

#[test]
fn every_answer_has_its_headers() {
    let dispatcher = start(&[]);
    let reply = dispatcher.send(request("POST", "/job", &format!("{JSON}X-Request-Id: my.id-1\r\n"), "1"));
    let header = |name| reply.header(name);
    assert_eq!(header("X-Request-Id"), Some("my.id-1"));
    assert_eq!((header("Cache-Control"), header("X-Content-Type-Options")), (Some("no-store"), Some("nosniff")));
    assert_eq!((header("Server"), header("Connection")), (Some("k8s-job-dispatcher"), None));
    assert_eq!(header("Content-Type"), Some("application/json"));
    assert!(header("Date").is_some() && header("Content-Length").is_some());
    let bad_id = dispatcher.send(request("GET", "/nowhere", "X-Request-Id: a\u{7f}\r\n", ""));
    assert_eq!(bad_id.code, 400);
    let bad_id = dispatcher.send(request("GET", "/nowhere", "X-Request-Id: a b\r\n", ""));
    assert_eq!((bad_id.code, bad_id.header("X-Request-Id").unwrap().len()), (404, 16));
}

#[test]
fn one_connection_serves_many_requests() {
    let dispatcher = start(&[]);
    let mut line = dispatcher.line();
    // pipelined, whole and in halves, with an empty line before one
    let post = request("POST", "/job", JSON, "[1]");
    let chunked = format!(
        "POST /job HTTP/1.1\r\nHost: localhost\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n1\r\n[\r\n2;x=y\r\n2]\r\n0\r\nT: v\r\n\r\n"
    );
    let all = format!("{post}\r\n{chunked}{}{post}", request("GET", "/health/live", "", ""));
    let (first, second) = all.split_at(all.len() / 2);
    line.send(first);
    line.send(second);
    for want in [Some(json!([1])), Some(json!([2])), None, Some(json!([1]))] {
        let reply = line.receive().unwrap();
        match want {
            Some(body) => assert_eq!(reply.json()["spec"]["body"], body),
            None => assert_eq!((reply.code, &reply.body[..]), (200, &b"ok"[..])),
        }
    }
    line.send(request("GET", "/health/live", "Connection: close\r\n", ""));
    let last = line.receive().unwrap();
    assert_eq!((last.code, last.header("Connection")), (200, Some("close")));
    assert!(line.is_closed());
}

#[test]
fn many_pipelined_requests_are_answered_in_order() {
    const MANY: usize = 2000;
    let dispatcher = start(&[]);
    let mut line = dispatcher.line();
    let mut sender = line.stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        for number in 0..MANY {
            sender.write_all(request("POST", "/job", JSON, &number.to_string()).as_bytes()).unwrap();
        }
    });
    for number in 0..MANY {
        assert_eq!(line.receive().unwrap().json()["spec"]["body"], number);
    }
    sending.join().unwrap();
}

#[test]
fn a_request_sent_byte_by_byte_is_served() {
    let dispatcher = start(&[]);
    let mut line = dispatcher.line();
    for byte in request("POST", "/job", JSON, "[1]").bytes() {
        line.send([byte]);
    }
    assert_eq!(line.receive().unwrap().json()["spec"]["body"], json!([1]));
}

#[test]
fn http_1_0_closes_unless_keep_alive_is_requested() {
    let dispatcher = start(&[]);
    let mut line = dispatcher.line();
    line.send("GET /health/live HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let reply = line.receive().unwrap();
    assert_eq!((reply.code, reply.header("Connection")), (200, Some("keep-alive")));
    line.send("GET /health/live HTTP/1.0\r\n\r\n");
    assert_eq!(line.receive().unwrap().header("Connection"), Some("close"));
    assert!(line.is_closed());
}

#[test]
fn expect_continue() {
    let dispatcher = start(&[]);
    let mut line = dispatcher.line();
    let head = |target: &str, headers: &str| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    line.send(head("/job", JSON));
    assert_eq!(line.receive().unwrap().code, 100);
    line.send("[1]");
    assert_eq!(line.receive().unwrap().json()["spec"]["body"], json!([1]));
    line.send(format!("{}[2]", head("/job", JSON)));
    assert_eq!(
        line.receive().unwrap().json()["spec"]["body"],
        json!([2]),
        "a client that has sent the body needs no 100"
    );
    for (target, headers, code) in [("/nowhere", JSON, 404), ("/job", "", 415), ("/health/live", "", 405)] {
        let mut line = dispatcher.line();
        line.send(head(target, headers));
        let reply = line.receive().unwrap();
        assert_eq!((reply.code, reply.header("Connection")), (code, Some("close")), "{target}");
        assert!(line.is_closed());
    }
}

#[test]
fn upgrade_requests_are_answered_as_http_1() {
    let dispatcher = start(&[]);
    let headers = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    assert_eq!(dispatcher.send(request("GET", "/health/live", headers, "")).code, 200);
    assert_eq!(dispatcher.send("GET http://localhost/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").code, 200);
    let root = dispatcher.send("GET http://localhost HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!((root.code, root.header("Location")), (307, Some("docs")), "a target without a path is /");
}

#[test]
fn malformed_requests_are_answered_and_closed() {
    let dispatcher = start(&["--max-body-bytes=1000"]);
    let long = |length: usize| "x".repeat(length);
    for (bytes, code, reason) in [
        ("GET / HTTP/1.1\nHost: localhost\n\n".to_owned(), 400, "BadRequest"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c\r\n\r\n".to_owned(), 400, "BadRequest"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "BadRequest"),
        ("\x16\x03\x01\x02".to_owned(), 400, "BadRequest"),
        (request("GET", &format!("/{}", long(9000)), "", ""), 414, "URITooLong"),
        (request("GET", "/", &format!("A: {}\r\n", long(17_000)), ""), 431, "RequestHeaderFieldsTooLarge"),
        (request("GET", "/", &"A: b\r\n".repeat(65), ""), 431, "RequestHeaderFieldsTooLarge"),
        (request("POST", "/job", JSON, &long(1001)), 413, "RequestEntityTooLarge"),
        (
            format!("POST /job HTTP/1.1\r\nHost: localhost\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n3e9\r\n"),
            413,
            "RequestEntityTooLarge",
        ),
        (format!("POST /job HTTP/1.1\r\nHost: localhost\r\n{JSON}Transfer-Encoding: gzip\r\n\r\n"), 400, "BadRequest"),
        (
            format!("POST /job HTTP/1.1\r\nHost: localhost\r\n{JSON}Transfer-Encoding: gzip, chunked\r\n\r\n"),
            501,
            "NotImplemented",
        ),
        (
            format!("POST /job HTTP/1.1\r\nHost: localhost\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n3 \r\n[1]\r\n"),
            400,
            "BadRequest",
        ),
        (
            format!(
                "POST /job HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
            ),
            400,
            "BadRequest",
        ),
        ("GET / HTTP/2.0\r\nHost: localhost\r\n\r\n".to_owned(), 505, "HTTPVersionNotSupported"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505, "HTTPVersionNotSupported"),
        (request("GET", "/", "Expect: a miracle\r\n", ""), 417, "ExpectationFailed"),
    ] {
        let mut line = dispatcher.line();
        line.send(&bytes);
        let reply = line.receive().unwrap();
        assert_eq!(reply.error(), error(code, reason), "{:?}", &bytes[..bytes.len().min(200)]);
        assert_eq!(reply.header("Connection"), Some("close"));
        assert!(line.is_closed());
    }
    assert_eq!(dispatcher.get("/health/live").code, 200);
}

#[test]
fn an_error_has_the_callers_request_id() {
    let dispatcher = start(&["--max-body-bytes=10"]);
    for headers in
        ["Content-Length: 11\r\n", "Transfer-Encoding: chunked\r\n", "Content-Length: 5\r\nExpect: 100-continue\r\n"]
    {
        let mut line = dispatcher.line();
        line.send(format!("POST /nowhere HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: mine\r\n{headers}\r\nb\r\n"));
        let reply = line.receive().unwrap();
        assert_eq!(reply.header("X-Request-Id"), Some("mine"), "{headers}");
    }
    let mut line = dispatcher.line();
    line.send("HEAD /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(line.receive_for("HEAD").unwrap().code, 404);
    assert!(line.is_closed(), "a HEAD has no body");
}

#[test]
fn only_one_empty_line_is_skipped() {
    let dispatcher = start(&[]);
    let text = request("GET", "/health/live", "", "");
    assert_eq!(dispatcher.send(format!("\r\n{text}")).code, 200);
    assert_eq!(dispatcher.send(format!("\r\n\r\n{text}")).code, 400);
    let mut line = dispatcher.line();
    for _ in 0..3 {
        line.send(format!("\r\n{text}"));
        assert_eq!(line.receive().unwrap().code, 200, "one before each");
    }
}

#[test]
fn a_connection_with_a_whole_request_is_not_evicted() {
    // each run takes a while, so that requests wait unread
    let slow = "[range(200000)] | {metadata: {name: \"a\"}, spec: {}}";
    let dispatcher = Dispatcher::start(&[slow, "--dry-run=client", "--max-connections=32"]);
    let mut first: Vec<Line> = (0..32).map(|_| dispatcher.line()).collect();
    first.iter_mut().for_each(|line| line.send(request("POST", "/job", JSON, "1")));
    let mut second: Vec<Line> = (0..20).map(|_| dispatcher.line()).collect();
    second.iter_mut().for_each(|line| line.send(request("POST", "/job", JSON, "1")));
    for line in &mut first {
        assert_eq!(line.receive().expect("an answer").code, 200);
    }
    for line in &mut second {
        let code = line.receive().expect("an answer").code;
        assert!([200, 503].contains(&code), "{code}");
    }
}

#[test]
fn idle_connections_of_every_kind_are_evicted_for_new_ones() {
    const MANY: usize = 64;
    let dispatcher = start(&[&format!("--max-connections={MANY}")]);
    let pipelined = request("GET", "/openapi.json", "", "").repeat(200);
    for kind in ["\r", "\r\n", "GET", "GET / HTTP/1.1\r\nHost: localhost\r\n", &pipelined] {
        let held: Vec<Line> = (0..MANY)
            .map(|_| {
                let line = dispatcher.line();
                line.stream.set_nonblocking(true).unwrap();
                let _ = (&line.stream).write(kind.as_bytes()); // it may be evicted already, or not read
                line
            })
            .collect();
        // what they have sent is read first
        crate::support::eventually("a new connection to be served", || {
            (dispatcher.get("/health/live").code == 200).then_some(())
        });
        for _ in 0..20 {
            assert_eq!(
                dispatcher.get("/health/live").code,
                200,
                "beside {MANY} times {:?}",
                &kind[..kind.len().min(40)]
            );
        }
        drop(held);
    }
}

#[test]
fn an_idle_connection_is_kept_for_the_idle_timeout() {
    let dispatcher = start(&["--idle-timeout=1s"]);
    let mut line = dispatcher.line();
    line.send(request("GET", "/health/live", "", ""));
    assert_eq!(line.receive().unwrap().code, 200);
    let begin = Instant::now();
    assert!(line.is_closed());
    let took = begin.elapsed();
    assert!(took > Duration::from_millis(800) && took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn media_types_and_encodings() {
    let dispatcher = start(&[]);
    let post = |headers: &str, body: &str| dispatcher.send(request("POST", "/job", headers, body));
    for headers in ["Content-Encoding: identity\r\n", "Content-Encoding:\r\n", "Content-Encoding: Identity, \r\n"] {
        assert_eq!(post(&format!("{JSON}{headers}"), "1").code, 200, "{headers}");
    }
    for headers in ["Content-Encoding: gzip\r\n", "Content-Encoding: identity\r\nContent-Encoding: br\r\n"] {
        assert_eq!(post(&format!("{JSON}{headers}"), "1").error(), error(415, "UnsupportedMediaType"), "{headers}");
    }
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for (headers, body, hint) in [
        ("", "1", "the Content-Type is missing"),
        (form, "a=1", "forms are not accepted"),
        ("Content-Type: multipart/form-data; boundary=x\r\n", "--x", "multipart forms are not supported"),
        ("Content-Type: text/plain\r\n", "1", "see --accept"),
        (form, r#"{"id": 1}"#, "the body looks like JSON"), // as curl -d sends it
        ("Content-Type: text/xml\r\n", "<a/>", "only JSON is supported"),
    ] {
        let reply = post(headers, body);
        assert_eq!(reply.error(), error(415, "UnsupportedMediaType"));
        let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains(hint), "{headers:?} gives {message}");
    }
}

#[test]
fn numbers_keep_their_value() {
    let dispatcher = start(&[]);
    let fingerprint = |body: &str| {
        let manifest = dispatcher.post("/job", body);
        let text = String::from_utf8(manifest.body).unwrap();
        assert!(text.contains(&format!("\"body\":{body}")), "{body} became {text}");
        text.split("fingerprint\":\"").nth(1).unwrap()[..64].to_owned()
    };
    let order = |number: &str| fingerprint(&format!(r#"{{"order":{number}}}"#));
    assert_ne!(order("12345678901234567890"), order("12345678901234567891"));
    assert_ne!(order("0.1"), order("0.10000000000000000000001"));
    for (body, says) in [
        ("[1e400]", "the number 1e400 exceeds the range of a double"),
        (&"9".repeat(1001), "has more than 1000 digits"),
    ] {
        let reply = dispatcher.post("/job", body);
        assert_eq!(reply.error(), error(400, "BadRequest"));
        assert!(reply.json()["error"]["message"].as_str().unwrap().contains(says), "{}", reply.json());
    }
    let default = Dispatcher::start(&["--dry-run=client"]);
    let manifest = default.post("/job", r#"{"id": 18446744073709551615, "args": [18446744073709551615]}"#).json();
    assert_eq!(manifest["metadata"]["name"], "demo-job-18446744073709551615");
    let args = &manifest["spec"]["template"]["spec"]["containers"][0]["args"];
    assert_eq!(*args, json!(["18446744073709551615"]));
}

#[test]
fn a_large_run_logs_once() {
    let filter =
        r#"("seen" | stderr) as $x | ([range(30000)] | length) as $n | {metadata: {name: "a"}, spec: {n: $n}}"#;
    let dispatcher = Dispatcher::start(&[filter, "--dry-run=client"]);
    assert_eq!(dispatcher.post("/job", "1").json()["spec"]["n"], 30000);
    assert_eq!(dispatcher.log().iter().filter(|line| line.contains("filter says")).count(), 1);
}

#[test]
fn a_rejected_upload_gets_a_reply_and_no_reset() {
    let dispatcher = start(&["--max-body-bytes=1000"]);
    let mut line = dispatcher.line();
    let body = "x".repeat(900_000);
    line.send(format!("POST /job HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: {}\r\n\r\n", body.len()));
    line.send(&body); // all of it, before looking
    assert_eq!(line.receive().unwrap().code, 413);
    assert!(line.is_closed());
}

#[test]
fn methods_and_paths() {
    let dispatcher = start(&[]);
    for (method, target, code, allow) in [
        ("GET", "/job", 405, Some("POST")),
        ("DELETE", "/job/a", 405, Some("GET, HEAD, POST")),
        ("OPTIONS", "/job/a/b", 405, Some("POST")),
        ("PUT", "/health/live", 405, Some("GET, HEAD")),
        ("get", "/health/live", 405, Some("GET, HEAD")),
        ("POST", "/", 404, None),
        ("POST", "/job/%2fa", 404, None),
        ("POST", "/job/../a", 404, None),
        ("POST", "/job//a", 404, None),
        ("GET", "/job/%zz", 400, None),
    ] {
        let reply = dispatcher.send(request(method, target, JSON, "1"));
        assert_eq!((reply.code, reply.header("Allow")), (code, allow), "{method} {target}");
    }
    assert_eq!(dispatcher.post("/job///?x", "1").code, 200);
    assert_eq!(dispatcher.get("/health/live/?x=1").code, 200);
}

#[test]
fn deadlines_are_absolute() {
    let dispatcher = start(&[]);
    let mut dripping = dispatcher.line();
    let begin = Instant::now();
    dripping.stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut sender = dripping.stream.try_clone().unwrap();
    std::thread::spawn(move || {
        // a header that never ends
        let _ = sender.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nA: ");
        while sender.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    dripping.stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let reply = dripping.receive().unwrap();
    assert_eq!(reply.error(), error(408, "RequestTimeout"));
    let took = begin.elapsed();
    assert!(took > Duration::from_secs(9) && took < Duration::from_secs(13), "{took:?}");
}

#[test]
fn at_the_connection_limit_a_waiting_connection_is_evicted() {
    let dispatcher = start(&["--max-connections=8"]);
    let mut old: Vec<Line> = (0..8).map(|_| dispatcher.line()).collect();
    for line in &mut old {
        line.send(request("GET", "/health/live", "", ""));
        assert_eq!(line.receive().unwrap().code, 200);
    }
    for _ in 0..20 {
        assert_eq!(dispatcher.get("/health/live").code, 200, "a newcomer is served");
    }
    let closed = old.iter_mut().filter(|line| {
        line.stream.set_nonblocking(true).unwrap();
        matches!((&line.stream).read(&mut [0; 1]), Ok(0))
    });
    let closed = closed.count();
    assert!((1..=8).contains(&closed), "{closed} of 8 were evicted");
}

#[test]
fn more_waiting_clients_than_threads_delay_nobody() {
    let dispatcher = start(&[]);
    let mut idle: Vec<Line> = (0..500).map(|_| dispatcher.line()).collect();
    for (number, line) in idle.iter_mut().enumerate() {
        match number % 3 {
            0 => line.send("POST /job HTTP/1.1\r\nHost: localhost\r\n"),
            1 => line.send(format!("POST /job HTTP/1.1\r\nHost: localhost\r\n{JSON}Content-Length: 10\r\n\r\n[1")),
            _ => (),
        }
    }
    let begin = Instant::now();
    for _ in 0..50 {
        assert_eq!(dispatcher.post("/job", "1").code, 200);
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    idle[1].send(",2,3,45]");
    assert_eq!(idle[1].receive().unwrap().json()["spec"]["body"], json!([1, 2, 3, 45]));
}

#[test]
fn a_half_closed_connection_is_answered() {
    let dispatcher = start(&[]);
    let mut line = dispatcher.line();
    line.send(request("POST", "/job", JSON, "1"));
    line.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(line.receive().unwrap().code, 200);
    assert!(line.is_closed());
}

#[test]
fn ipv6_and_ipv4_are_listened_to_at_once() {
    let dispatcher = start(&["--listen-address=all"]);
    let port = dispatcher.address.port();
    for address in ["127.0.0.1", "::1"] {
        let mut line = Line::connect((address, port));
        line.send(request("GET", "/health/live", "", ""));
        assert_eq!(line.receive().unwrap().code, 200, "{address}");
    }
    let only = start(&["--listen-address=::1"]);
    let mut line = Line::connect(("::1", only.address.port()));
    line.send(request("GET", "/health/live", "", ""));
    assert_eq!(line.receive().unwrap().code, 200);
}

#[test]
fn a_port_in_use_is_named() {
    let dispatcher = start(&[]);
    let port = dispatcher.address.port().to_string();
    let output = command(&[".", "--dry-run=client", "--port", &port]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        text,
        format!("k8s-job-dispatcher: cannot listen on 127.0.0.1 port {port}: Address already in use (os error 98)\n")
    );
}
