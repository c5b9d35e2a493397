//! Clients that survive whatever the dispatcher does with their connection.

use crate::support::http::{JSON, Reply};
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Longer than any of the dispatcher's own deadlines.
const TIMEOUT: Duration = Duration::from_secs(40);
/// A receive buffer that the kernel does not enlarge.
const SMALL_BUFFER: usize = 4 << 10;
/// How much of a body a chunk holds.
const CHUNK: usize = 3_000;

/// How many requests had which outcome: a code, or what happened instead of an answer.
pub(crate) type Codes = BTreeMap<String, usize>;

/// The connection was closed without an answer.
pub(crate) const CLOSED: &str = "closed";
/// Neither an answer nor the connection's end, for longer than any deadline.
pub(crate) const SILENT: &str = "silent";
/// Not answered when the load ended.
pub(crate) const UNANSWERED: &str = "unanswered";

/// A `POST /job` with this body, whole or in chunks.
pub(crate) fn post(body: &str, is_chunked: bool) -> Vec<u8> {
    if !is_chunked {
        return crate::support::http::request("POST", "/job", JSON, body).into_bytes();
    }
    let mut text =
        format!("POST /job HTTP/1.1\r\nHost: localhost\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in body.as_bytes().chunks(CHUNK) {
        write!(text, "{:x}\r\n", chunk.len()).unwrap();
        text.extend(chunk);
        text.extend(b"\r\n");
    }
    text.extend(b"0\r\n\r\n");
    text
}

/// A client that sends a request and waits for its answer, then sends the next.
pub(crate) struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Client { address, stream: None }
    }

    /// The answer, or what happened instead. Connects if there is no connection.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<Reply, &'static str> {
        let result = self.try_ask(request);
        let goes_on = matches!(&result, Ok(reply) if reply.header("Connection") != Some("close"));
        if !goes_on {
            self.stream = None;
        }
        result.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => SILENT,
            _ => CLOSED,
        })
    }

    fn try_ask(&mut self, request: &[u8]) -> std::io::Result<Reply> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect_timeout(&self.address, TIMEOUT)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        let mut stream = self.stream.insert(stream);
        // an answer may come while we send, as 413 does; what counts is whether we get to read it
        let sent = stream.write_all(request);
        if sent.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            return Err(sent.unwrap_err());
        }
        let reply = read(&mut stream);
        if sent.is_err() {
            self.stream = None;
        }
        reply
    }
}

fn read(stream: &mut impl Read) -> std::io::Result<Reply> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        fill(stream, &mut bytes)?;
    };
    let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
    let headers = text.lines().skip(1).filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut reply = Reply { code: code(&bytes).ok_or(ErrorKind::InvalidData)?, headers, body: Vec::new() };
    let length = reply.header("Content-Length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while bytes.len() < head + length {
        fill(stream, &mut bytes)?;
    }
    reply.body = bytes.split_off(head);
    Ok(reply)
}

fn fill(stream: &mut impl Read, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    let mut buffer = [0; 16 << 10];
    match stream.read(&mut buffer)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        read => {
            bytes.extend(&buffer[..read]);
            Ok(())
        }
    }
}

/// The code of an answer that begins like this.
fn code(bytes: &[u8]) -> Option<u16> {
    let code = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    std::str::from_utf8(code).ok()?.parse().ok()
}

/// A client that sends what it has, bit by bit, and does not read before the end.
pub(crate) struct NonReader {
    stream: Option<TcpStream>,
    sent: usize,
}

impl NonReader {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let connect = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_recv_buffer_size(SMALL_BUFFER)?;
            socket.connect_timeout(&address.into(), Duration::from_secs(5))?;
            socket.set_nonblocking(true)?;
            std::io::Result::Ok(TcpStream::from(socket))
        };
        NonReader { stream: connect().ok(), sent: 0 }
    }

    /// Sends up to `most` further bytes of `text`, as far as the kernel takes them.
    pub(crate) fn send(&mut self, text: &[u8], most: usize) {
        let Some(stream) = &mut self.stream else { return };
        let rest = &text[self.sent..text.len().min(self.sent.saturating_add(most))];
        if !rest.is_empty() {
            // after a reset there may still be an answer to read: the end decides
            self.sent += stream.write(rest).unwrap_or(0);
        }
    }

    /// What came of it, after having waited until `end`.
    pub(crate) fn outcome(self, end: Instant) -> String {
        let Some(stream) = self.stream else { return CLOSED.to_owned() };
        let mut bytes = [0; 12];
        loop {
            match stream.peek(&mut bytes) {
                Ok(0) => return CLOSED.to_owned(),
                Ok(read) if read == bytes.len() => {
                    return code(&bytes).map_or_else(|| "no HTTP".to_owned(), |code| code.to_string());
                }
                Err(error) if error.kind() != ErrorKind::WouldBlock => return CLOSED.to_owned(),
                _ if Instant::now() >= end => return UNANSWERED.to_owned(),
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}
