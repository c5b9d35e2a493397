//! OWNS tiny_http: turns the head of our reply into the bytes on the wire.
//!
//! tiny_http prints a head for each kind of reply once per thread. Each reply copies it, with its own date, id and headers put in. Two
//! lines are ours: tiny_http drops `Connection`, without which a proxy takes our closing for a fault, and it gives a 204 a
//! `Content-Length`, which RFC 9110 8.6 forbids.

use crate::http::Reply;
use crate::second::Second;
use httpdate::HttpDate;
use std::cell::RefCell;
use std::time::SystemTime;
use tiny_http::{HTTPVersion, Header, Response, StatusCode};

/// Bytes of a body up to which it is copied behind its head, and needs no reservation: every connection may have as much.
pub(super) const SMALL_BODY: usize = 1 << 10;
/// What stands in a printed head where each reply has its own.
const OWN: &str = "@";
/// The line that ends a printed head.
const LENGTH_LINE: &str = "Content-Length: 0\r\n\r\n";
/// Bytes of an ordinary head.
const ORDINARY: usize = 320;
/// Kinds of replies that a thread keeps: there are some twenty.
const MAX_KINDS: usize = 32;

/// The properties of a request that its reply depends on.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) id: String,
    pub(super) is_head: bool,
    pub(super) is_http_10: bool,
    /// The connection is closed after the reply.
    pub(super) close: bool,
}

/// The printed head of a kind of reply, up to its own headers.
struct PrintedHead {
    code: u16,
    /// None: without a body.
    content_type: Option<&'static str>,
    /// What is before the date, between date and id, and behind the id.
    parts: [Vec<u8>; 3],
}

impl PrintedHead {
    fn new(code: u16, content_type: Option<&'static str>) -> Self {
        let header = |name: &str, value: &str| Header::from_bytes(name, value).expect("headers of ours are ASCII");
        let mut headers = vec![header("Date", OWN), header("Server", "k8s-job-dispatcher")];
        headers.extend(content_type.map(|content_type| header("Content-Type", content_type)));
        headers.push(header("X-Request-Id", OWN));
        headers.push(header("Cache-Control", "no-store"));
        headers.push(header("X-Content-Type-Options", "nosniff"));
        let response = Response::new(StatusCode(code), headers, std::io::empty(), Some(0), None);
        let (mut printed, only_head) = (Vec::new(), true);
        response
            .raw_print(&mut printed, HTTPVersion(1, 1), &[], only_head, None)
            .expect("writing to memory does not fail");
        let printed = String::from_utf8(printed).expect("headers of ours are ASCII");
        let mut parts =
            printed.split(OWN).map(|part| part.strip_suffix(LENGTH_LINE).unwrap_or(part).as_bytes().to_vec());
        let mut part = || parts.next().unwrap_or_default();
        PrintedHead { code, content_type, parts: [part(), part(), part()] }
    }
}

thread_local! {
    static HEADS: RefCell<Vec<PrintedHead>> = const { RefCell::new(Vec::new()) };
    static DATE: RefCell<Second> = const { RefCell::new(Second::new()) };
}

/// Appends the head of a reply to `out`.
pub(super) fn print(out: &mut Vec<u8>, reply: &Reply, frame: &Frame) {
    out.reserve(ORDINARY + reply.body.len().min(SMALL_BODY));
    let content_type = (!reply.content_type.is_empty()).then_some(reply.content_type);
    HEADS.with_borrow_mut(|heads| {
        let known = heads.iter().position(|head| head.code == reply.code && head.content_type == content_type);
        let number = known.unwrap_or_else(|| {
            heads.truncate(MAX_KINDS - 1);
            heads.push(PrintedHead::new(reply.code, content_type));
            heads.len() - 1
        });
        let [before, between, behind] = &heads[number].parts;
        out.extend_from_slice(before);
        let now = SystemTime::now();
        DATE.with_borrow_mut(|date| {
            out.extend_from_slice(date.text(now, || HttpDate::from(now).to_string()).as_bytes())
        });
        out.extend_from_slice(between);
        out.extend_from_slice(frame.id.as_bytes());
        out.extend_from_slice(behind);
    });
    let mut add = |parts: &[&str]| parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    for (name, value) in &reply.headers {
        add(&[name, ": ", value, "\r\n"])
    }
    if reply.code != 204 {
        add(&["Content-Length: ", &reply.body.len().to_string(), "\r\n"])
    }
    match frame {
        Frame { close: true, .. } => add(&["Connection: close\r\n"]),
        Frame { is_http_10: true, .. } => add(&["Connection: keep-alive\r\n"]),
        _ => (),
    }
    add(&["\r\n"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::{Reason, Status};

    fn printed(reply: &Reply, is_head: bool, is_http_10: bool, close: bool) -> String {
        let mut out = b"before".to_vec();
        print(&mut out, reply, &Frame { id: "i".into(), is_head, is_http_10, close });
        let text = String::from_utf8(out).unwrap();
        let text = text.strip_prefix("before").unwrap();
        // the date is today's
        text.lines()
            .map(|line| if line.starts_with("Date: ") { "Date: D" } else { line })
            .collect::<Vec<_>>()
            .join("\n")
    }

    const COMMON: &str = "X-Request-Id: i\nCache-Control: no-store\nX-Content-Type-Options: nosniff";

    #[test]
    fn a_reply_with_a_body() {
        let reply = Reply::json(201, b"{}".to_vec()).with_header("Location", "/job/a");
        let want = format!(
            "HTTP/1.1 201 Created\nDate: D\nServer: k8s-job-dispatcher\nContent-Type: application/json\n{COMMON}\nLocation: /job/a\nContent-Length: 2\n"
        );
        assert_eq!(printed(&reply, false, false, false), want);
        assert_eq!(printed(&reply, true, false, false), want, "HEAD has the head of GET");
        assert!(printed(&reply, false, false, true).ends_with("Content-Length: 2\nConnection: close\n"));
        assert!(printed(&reply, false, true, false).ends_with("Content-Length: 2\nConnection: keep-alive\n"));
    }

    #[test]
    fn no_content_has_no_length() {
        let want = format!("HTTP/1.1 204 No Content\nDate: D\nServer: k8s-job-dispatcher\n{COMMON}\n");
        assert_eq!(printed(&Reply::empty(204), false, false, false), want);
        assert_eq!(printed(&Reply::empty(204), false, false, true), format!("{want}Connection: close\n"));
    }

    #[test]
    fn large_replies_are_not_chunked() {
        let text = printed(&Reply::json(200, vec![b'x'; 100_000]), false, false, false);
        assert!(text.contains("Content-Length: 100000") && !text.contains("Transfer-Encoding"));
    }

    #[test]
    fn errors_have_their_headers() {
        let reply = Reply::from(Status { allow: Some("POST"), ..Status::new(Reason::Overloaded, "m") });
        let text = printed(&reply, false, false, true);
        assert!(text.contains("\nRetry-After: 1\nAllow: POST\n"), "{text}");
    }
}
