use super::*;

const MAX_BODY: usize = 1000;

fn parsed(text: &str) -> Result<Head, u16> {
    let bytes = text.as_bytes();
    let code = |status: Status| status.code();
    let len = Scan::default().head_len(bytes).map_err(code)?.expect("a whole head");
    let mut head = head(&bytes[..len], MAX_BODY).map_err(code)?;
    head.request.bytes = bytes[..len].to_vec();
    Ok(head)
}

fn get(lines: &str) -> Result<Head, u16> {
    parsed(&format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n"))
}

#[test]
fn a_request_is_parsed() {
    let head =
        parsed("POST /job/a%20b?x=1&y HTTP/1.1\r\nhost: h:80\r\nContent-Length: 12\r\nX-A:  b c \r\n\r\n").unwrap();
    let request = &head.request;
    assert_eq!((request.method(), request.path(), request.query()), ("POST", "/job/a%20b", "x=1&y"));
    assert_eq!(request.header("x-a"), Some(&b"b c"[..]));
    assert_eq!(request.headers().map(|(name, _)| name).collect::<Vec<_>>(), ["host", "Content-Length", "X-A"]);
    assert_eq!((head.framing, request.close, head.expects_continue), (Framing::Length(12), false, false));
}

#[test]
fn targets() {
    let split = |target: &str| {
        let head = parsed(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"))?;
        Ok::<_, u16>((head.request.path().to_owned(), head.request.query().to_owned()))
    };
    let ok = |path: &str, query: &str| Ok((path.to_owned(), query.to_owned()));
    assert_eq!(split("/a?b?c"), ok("/a", "b?c"));
    assert_eq!(split("*"), ok("*", ""));
    assert_eq!(split("http://h/a?b"), ok("/a", "b"));
    assert_eq!(split("HTTP://H:80"), ok("/", ""));
    assert_eq!(split("http://h?b"), ok("/", "b"));
    assert_eq!(split("https://h:443/a"), ok("/a", ""));
    let without_host = parsed("GET http://h/a HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(without_host.request.path(), "/a");
    for bad in ["http://other/a", "http://h:443/", "/a#b", "/ä", "a", "h:80", "/a b", "ftp://h/"] {
        assert_eq!(split(bad), Err(400), "{bad}");
    }
}

#[test]
fn framing() {
    let framing = |lines| get(lines).map(|head| head.framing);
    assert_eq!(framing(""), Ok(Framing::Length(0)));
    assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Ok(Framing::Chunked));
    for (lines, code) in [
        ("Content-Length: 1\r\nContent-Length: 1\r\n", 400),
        ("Content-Length: 5, 5\r\n", 400),
        ("Content-Length: +5\r\n", 400),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: abc\r\n", 400),
        ("Content-Length:\r\n", 400),
        ("Content-Length: 1001\r\n", 413),
        ("Content-Length: 99999999999999999999999\r\n", 413),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: gzip , deflate,Chunked\r\n", 501),
        ("Transfer-Encoding: identity\r\n", 400),
        ("Transfer-Encoding: xchunked\r\n", 400),
        ("Transfer-Encoding: chunked;q=1\r\n", 400),
        ("Transfer-Encoding: chunked, gzip\r\n", 400),
        ("Transfer-Encoding: chunked, chunked\r\n", 400),
        ("Transfer-Encoding: chunked, gzip, chunked\r\n", 400),
        ("Transfer-Encoding:\r\n", 400),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Expect: 200-ok\r\n", 417),
    ] {
        assert_eq!(framing(lines).unwrap_err(), code, "{lines:?}");
    }
    assert_eq!(parsed("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap_err(), 400);
}

#[test]
fn hosts() {
    assert!(parsed("GET / HTTP/1.0\r\n\r\n").is_ok());
    assert!(parsed("GET / HTTP/1.1\r\nHost:\r\n\r\n").is_ok());
    for bad in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
    ] {
        assert_eq!(parsed(bad).unwrap_err(), 400, "{bad:?}");
    }
}

#[test]
fn connections_stay_open_or_not() {
    for (version, connection, closes) in [
        ("1.1", "", false),
        ("1.1", "Connection: close\r\n", true),
        ("1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n", false),
        ("1.1", "Connection: x, CLOSE\r\n", true),
        ("1.0", "", true),
        ("1.0", "Connection: keep-alive\r\n", false),
    ] {
        let head = parsed(&format!("GET / HTTP/{version}\r\nHost: h\r\n{connection}\r\n")).unwrap();
        assert_eq!(head.request.close, closes, "{version} {connection:?}");
    }
    assert!(get("Expect: 100-Continue\r\n").unwrap().expects_continue);
}

#[test]
fn malformed_heads() {
    for (text, code) in [
        ("GET / HTTP/1.1\nHost: h\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nA: b\0c\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\n A: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nA : b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\nA\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: h\r\n: b\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET / x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET /\r\n\r\n", 400),
        ("GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400),
        ("GET / FTP/1.1\r\nHost: h\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\n", 505),
        ("GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505),
        ("\x16\x03\x01\r\n\r\n", 400),
        (" GET / HTTP/1.1\r\n\r\n", 400),
    ] {
        assert_eq!(parsed(text).unwrap_err(), code, "{text:?}");
    }
}

#[test]
fn sizes() {
    let scan = |text: &str| Scan::default().head_len(text.as_bytes()).map_err(|status| status.code());
    let line = |length: usize| format!("GET /{} HTTP/1.1\r\n", "x".repeat(length - "GET / HTTP/1.1\r\n".len()));
    assert_eq!(scan(&line(MAX_REQUEST_LINE)), Ok(None));
    assert_eq!(scan(&line(MAX_REQUEST_LINE + 1)), Err(414));
    assert_eq!(scan(&format!("GET /{}", "x".repeat(MAX_REQUEST_LINE))), Err(414));
    let rest = MAX_HEAD - "GET / HTTP/1.1\r\nA: \r\n\r\n".len();
    assert_eq!(scan(&format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(rest))), Ok(Some(MAX_HEAD)));
    assert_eq!(scan(&format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(rest + 1))), Err(431));
    assert_eq!(scan(&format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(MAX_HEAD))), Err(431));
    let many = |count: usize| get(&"A: b\r\n".repeat(count - 1)).map(|head| head.request.headers.len());
    assert_eq!(many(MAX_HEADERS), Ok(MAX_HEADERS));
    assert_eq!(many(MAX_HEADERS + 1), Err(431));
}

#[test]
fn a_head_that_arrives_slowly_ends_at_its_last_byte() {
    let text = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut scan = Scan::default();
    for end in 1..text.len() {
        assert_eq!(scan.head_len(&text[..end]).unwrap(), None, "{end}");
    }
    assert_eq!(scan.head_len(text).unwrap(), Some(text.len()));
}
