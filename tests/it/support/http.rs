//! HTTP as bytes, so that a test controls exactly what is sent and sees exactly what is received.

use super::contract;
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(40);
/// Bytes of a request that are kept, to know what its answer should be.
const SEEN: usize = 64 << 10;

pub(crate) struct Line {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    /// What was sent since the last reply.
    sent: Vec<u8>,
}

#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {:?}", String::from_utf8_lossy(&self.body)))
    }
    /// Code and reason of an error, which must agree with each other.
    pub(crate) fn error(&self) -> (u16, String) {
        let json = self.json();
        assert_eq!(json["error"]["code"], self.code, "{json}");
        (self.code, json["error"]["reason"].as_str().unwrap_or_default().to_owned())
    }
}

impl Line {
    pub(crate) fn connect(address: impl ToSocketAddrs) -> Self {
        Line::of(TcpStream::connect(address).unwrap())
    }

    pub(crate) fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream.set_nodelay(true).unwrap();
        Line { stream, buffer: Vec::new(), sent: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let room = SEEN.saturating_sub(self.sent.len()).min(bytes.as_ref().len());
        self.sent.extend(&bytes.as_ref()[..room]);
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// The next reply; None when the line was closed before one came.
    pub(crate) fn receive(&mut self) -> Option<Reply> {
        self.receive_for("GET")
    }

    pub(crate) fn receive_for(&mut self, method: &str) -> Option<Reply> {
        let head_len = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill() {
                assert!(self.buffer.is_empty(), "half a reply: {:?}", String::from_utf8_lossy(&self.buffer));
                return None;
            }
        };
        let head = String::from_utf8(self.buffer.drain(..head_len).collect()).unwrap();
        let mut lines = head.lines();
        let first = lines.next().unwrap();
        let code = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
        let code = code.unwrap_or_else(|| panic!("no status line: {first:?}"));
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut reply = Reply { code, headers: lines.filter_map(header).collect(), body: Vec::new() };
        let length = reply.header("Content-Length").and_then(|length| length.parse().ok()).unwrap_or(0);
        if method != "HEAD" {
            while self.buffer.len() < length {
                assert!(self.fill(), "the body ends early");
            }
            reply.body = self.buffer.drain(..length).collect();
        }
        let sent = std::mem::take(&mut self.sent);
        if code != 100 {
            contract::check(asked(&String::from_utf8_lossy(&sent)), &reply);
        }
        Some(reply)
    }

    /// Whether the other side closes, without sending more.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.fill()
    }

    fn fill(&mut self) -> bool {
        let mut bytes = [0; 16384];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(read) => {
                self.buffer.extend(&bytes[..read]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing came: {error}"),
        }
    }
}

/// Method and target of what was sent, when it was one request.
fn asked(sent: &str) -> Option<(&str, &str)> {
    let mut words = sent.lines().next()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    (version.starts_with("HTTP/1.") && words.next().is_none() && sent.matches(" HTTP/1.").count() == 1)
        .then_some((method, target))
}

/// A request's text. `headers`: lines, each with its end.
pub(crate) fn request(method: &str, target: &str, headers: &str, body: &str) -> String {
    let length =
        if body.is_empty() && method != "POST" { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{headers}{length}\r\n{body}")
}

pub(crate) const JSON: &str = "Content-Type: application/json\r\n";
