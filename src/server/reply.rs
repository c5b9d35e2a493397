//! OWNS tiny_http: turns the head of our reply into the bytes on the wire.
//!
//! tiny_http prints the head; two lines of it are corrected here: it drops `Connection`, without which a proxy takes our closing for a
//! fault, and it gives a 204 a `Content-Length`, which RFC 9110 8.6 forbids.

use crate::http::Reply;
use tiny_http::{HTTPVersion, Header, Response, StatusCode};

const LENGTH_OF_NOTHING: &[u8] = b"Content-Length: 0\r\n\r\n";
const END: &[u8] = b"\r\n";

/// The properties of a request that its reply depends on.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) id: String,
    pub(super) is_head: bool,
    pub(super) is_http_10: bool,
    /// The connection is closed after the reply.
    pub(super) close: bool,
}

fn header(name: &str, value: &str) -> Header {
    Header::from_bytes(name, value).expect("headers of ours are ASCII")
}

/// Appends the head of a reply to `out`.
pub(super) fn print(out: &mut Vec<u8>, reply: &Reply, frame: &Frame) {
    let mut headers = Vec::with_capacity(6 + reply.headers.len());
    headers.push(header("Server", "k8s-job-dispatcher"));
    if !reply.body.is_empty() {
        headers.push(header("Content-Type", reply.content_type));
    }
    headers.push(header("X-Request-Id", &frame.id));
    headers.push(header("Cache-Control", "no-store"));
    headers.push(header("X-Content-Type-Options", "nosniff"));
    headers.extend(reply.headers.iter().map(|(name, value)| header(name, value)));

    let response = Response::new(StatusCode(reply.code), headers, std::io::empty(), Some(reply.body.len()), None);
    let only_head = true;
    response
        .with_chunked_threshold(usize::MAX)
        .raw_print(&mut *out, HTTPVersion(1, 1), &[], only_head, None)
        .expect("writing to memory does not fail");
    if reply.code == 204 && out.ends_with(LENGTH_OF_NOTHING) {
        out.truncate(out.len() - LENGTH_OF_NOTHING.len());
        out.extend(END);
    }
    let connection = match frame {
        Frame { close: true, .. } => Some("close"),
        Frame { is_http_10: true, .. } => Some("keep-alive"),
        _ => None,
    };
    if let Some(connection) = connection {
        out.truncate(out.len() - END.len());
        out.extend(format!("Connection: {connection}\r\n\r\n").as_bytes());
    }
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
