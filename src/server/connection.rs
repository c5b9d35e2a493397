//! The state machine of one connection; never blocks on its client: bytes in, requests out; replies in, bytes out.

use super::chunked::Chunks;
use super::parse::{self, Framing, Scan};
use super::reply::{Frame, print};
use super::serve::{log_refusal, request_id};
use crate::http::{Reply, Request};
use crate::status::{Reason, Status};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// Longer than the 60 s of nginx and of cloud balancers, so that they close first: closing first races with the peer's next request.
const IDLE: Duration = Duration::from_secs(75);
/// Absolute, from the first byte of a request, so that a slow client cannot extend it; likewise those below.
const HEAD: Duration = Duration::from_secs(10);
const BODY: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(30);
/// After an error reply, further input is discarded for this long and up to this many bytes: the client then sees the reply instead of a reset.
const LINGER: Duration = Duration::from_secs(2);
const MAX_LINGER: usize = 1 << 20;
/// Replies in a row to one pipelining client before other connections are served.
const MAX_IN_A_ROW: u32 = 32;
/// Requests up to this size are always accepted: a dozen slow uploads must not block all other clients.
pub(super) const SMALL: usize = 16 << 10;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a connection may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) max_body: usize,
    /// Bytes that this connection may hold while it waits for the rest of a request.
    pub(super) available_bytes: usize,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Interest {
    Readable,
    Writable,
}

#[derive(Debug)]
pub(super) enum Step {
    Wait(Interest),
    Close,
    Serve(Request),
}

#[derive(Debug)]
enum Phase {
    /// Between requests.
    Idle,
    /// Part of a head was received.
    Head,
    /// The head was parsed; part of the body is missing. The request holds what was received of the body.
    Body(Request, Awaited),
    /// Everything was answered, and the writing side is closed; the number of bytes discarded since.
    Linger(usize),
}

#[derive(Debug)]
enum Awaited {
    Bytes(usize),
    Chunks(Chunks),
}

/// Errors: the error that a request gets before its body is read, so that `Expect: 100-continue` saves the client its upload.
pub(super) type Admit<'a> = &'a dyn Fn(&Request) -> Result<(), Status>;

#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// Bytes that were not parsed yet.
    input: Vec<u8>,
    scan: Scan,
    phase: Phase,
    output: Vec<u8>,
    sent: usize,
    close_after_output: bool,
    in_a_row: u32,
    /// Whether the empty line that may precede the next request was skipped.
    has_skipped_line: bool,
    /// When the current phase began.
    waits_since: Instant,
    deadline: Instant,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, now: Instant) -> Self {
        Connection {
            stream,
            input: Vec::new(),
            scan: Scan::default(),
            phase: Phase::Idle,
            output: Vec::new(),
            sent: 0,
            close_after_output: false,
            in_a_row: 0,
            has_skipped_line: false,
            waits_since: now,
            deadline: now + IDLE,
        }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }
    pub(super) fn waits_since(&self) -> Instant {
        self.waits_since
    }
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }
    /// Whether it is between requests, with nothing to send.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle) && matches!(self.input[..], [] | [b'\r']) && self.output.is_empty()
    }
    /// Whether part of a request was received.
    pub(super) fn is_unfinished(&self) -> bool {
        matches!(self.phase, Phase::Head | Phase::Body(..))
    }
    /// Whether it waits for its client, not for us.
    pub(super) fn is_evictable(&self) -> bool {
        (self.is_unfinished() || self.input.is_empty()) && !self.has_unread()
    }
    /// Whether there is unread input.
    pub(super) fn has_unread(&self) -> bool {
        matches!(recv(&self.stream, &mut [0; 1][..], RecvFlags::DONTWAIT | RecvFlags::PEEK), Ok((_, 1)))
    }
    /// Bytes reserved_bytes for an unfinished request.
    pub(super) fn reserved_bytes(&self) -> usize {
        let request = if let Phase::Body(request, _) = &self.phase { request.bytes.capacity() } else { 0 };
        self.input.capacity() + request
    }

    /// Makes progress until the client has to act, or a whole request was received. `readable`: there may be input.
    pub(super) fn advance(&mut self, scratch: &mut [u8], mut readable: bool, bounds: Bounds, admit: Admit<'_>) -> Step {
        loop {
            match self.flush() {
                Ok(true) => (),
                Ok(false) => return Step::Wait(Interest::Writable),
                Err(_) => return Step::Close,
            }
            if self.close_after_output && !matches!(self.phase, Phase::Linger(_)) {
                if self.stream.shutdown(Shutdown::Write).is_err() {
                    return Step::Close;
                }
                self.begin_phase(Phase::Linger(0), LINGER);
                self.input = Vec::new();
                readable = true;
            }
            if self.in_a_row >= MAX_IN_A_ROW {
                self.in_a_row = 0;
                return Step::Wait(Interest::Writable); // at once, but behind others
            }
            match self.parse_request(bounds.max_body, admit) {
                Ok(Some(request)) => return Step::Serve(request),
                Ok(None) if self.sent < self.output.len() => continue,
                Ok(None) => (),
                Err(status) => {
                    self.refuse(status);
                    continue;
                }
            }
            if !readable {
                if self.input.is_empty() {
                    self.input = Vec::new(); // an idle connection keeps no buffer
                }
                if self.is_unfinished() && self.reserved_bytes() > bounds.available_bytes.max(SMALL) {
                    self.refuse(Status::new(Reason::Overloaded, "too many bytes of unfinished requests"));
                    continue;
                }
                return self.wait();
            }
            match recv(&self.stream, &mut *scratch, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Step::Close,
                Ok((_, received)) => {
                    readable = received == scratch.len();
                    if let Phase::Linger(thrown_away) = &mut self.phase {
                        *thrown_away += received;
                        if *thrown_away > MAX_LINGER {
                            return Step::Close;
                        }
                    } else {
                        self.input.extend_from_slice(&scratch[..received]);
                    }
                }
                Err(Errno::AGAIN) => readable = false,
                Err(Errno::INTR) => (),
                Err(_) => return Step::Close,
            }
        }
    }

    /// Queues the reply to the request that was served.
    pub(super) fn reply(&mut self, reply: &Reply, frame: &Frame) {
        print(&mut self.output, reply, frame);
        self.close_after_output |= frame.close;
        self.in_a_row += 1;
        self.deadline = Instant::now() + ANSWER;
    }

    /// The deadline has passed. Returns false if no reply can be sent.
    pub(super) fn expire(&mut self) -> bool {
        let missing = match &self.phase {
            _ if !self.output.is_empty() => return false,
            Phase::Idle | Phase::Linger(_) => return false,
            Phase::Head => format!("the head did not come within {HEAD:?}"),
            Phase::Body(..) => format!("the body did not come within {BODY:?}"),
        };
        self.refuse(Status::new(Reason::RequestTimeout, missing));
        true
    }

    /// Answers with an error, and closes.
    pub(super) fn refuse(&mut self, status: Status) {
        let (id, is_head) = match &self.phase {
            Phase::Body(request, _) => (request.header("x-request-id"), request.method() == "HEAD"),
            Phase::Head => (parse::request_id(&self.input), self.input.starts_with(b"HEAD ")),
            Phase::Idle | Phase::Linger(_) => (None, false),
        };
        let frame = Frame { id: request_id(id), is_head, is_http_10: false, close: true };
        let request = if let Phase::Body(request, _) = &self.phase { Some(request) } else { None };
        log_refusal(&frame, request, &status, None);
        self.phase = Phase::Idle;
        self.input = Vec::new();
        self.reply(&status.into(), &frame);
    }

    /// Begins a phase with an absolute deadline, however slowly input arrives.
    fn begin_phase(&mut self, phase: Phase, time: Duration) {
        self.phase = phase;
        self.waits_since = Instant::now();
        self.deadline = self.waits_since + time;
    }

    fn wait(&mut self) -> Step {
        self.in_a_row = 0;
        Step::Wait(Interest::Readable)
    }

    /// Sends pending output. Returns false if the client does not accept more now.
    fn flush(&mut self) -> Result<bool, Errno> {
        while self.sent < self.output.len() {
            match send(&self.stream, &self.output[self.sent..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => self.sent += sent,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => (),
                Err(error) => return Err(error),
            }
        }
        if !std::mem::take(&mut self.output).is_empty() && matches!(self.phase, Phase::Idle) {
            self.has_skipped_line = false;
            self.begin_phase(Phase::Idle, IDLE)
        }
        self.sent = 0;
        Ok(true)
    }

    /// A whole request from the input, if there is one.
    fn parse_request(&mut self, max_body: usize, admit: Admit<'_>) -> Result<Option<Request>, Status> {
        if let Phase::Idle = self.phase {
            if !self.has_skipped_line && self.input.starts_with(b"\r\n") {
                self.input.drain(..2); // one empty line before a request is skipped (RFC 9112 2.2)
                self.has_skipped_line = true;
            }
            if matches!(self.input[..], [] | [b'\r']) {
                return Ok(None);
            }
            self.scan = Scan::default();
            self.begin_phase(Phase::Head, HEAD);
        }
        if let Phase::Head = self.phase {
            let Some(length) = self.scan.head_len(&self.input)? else { return Ok(None) };
            self.take_head(length, max_body, admit)?;
        }
        self.take_body(max_body)
    }

    fn take_head(&mut self, length: usize, max_body: usize, admit: Admit<'_>) -> Result<(), Status> {
        let parse::Head { mut request, framing, expects_continue } = parse::head(&self.input[..length], max_body)?;
        request.bytes = std::mem::take(&mut self.input);
        let body_len = match framing {
            Framing::Length(body) => body,
            Framing::Chunked => 0,
        };
        let here = request.bytes.len().min(length + body_len);
        self.input = request.bytes.split_off(here);
        let has_body = here > length || !self.input.is_empty();
        let awaited = match framing {
            Framing::Length(body) => Awaited::Bytes(length + body - here),
            Framing::Chunked => Awaited::Chunks(Chunks::default()),
        };
        self.begin_phase(Phase::Body(request, awaited), BODY);
        if let Phase::Body(request, _) = &self.phase
            && expects_continue
            && !has_body
            && framing != Framing::Length(0)
        {
            admit(request)?;
            self.output.extend(CONTINUE);
        }
        Ok(())
    }

    fn take_body(&mut self, max_body: usize) -> Result<Option<Request>, Status> {
        let Phase::Body(request, awaited) = &mut self.phase else { return Ok(None) };
        let is_whole = match awaited {
            Awaited::Bytes(left) => {
                let here = self.input.len().min(*left);
                request.bytes.extend(self.input.drain(..here));
                *left -= here;
                *left == 0
            }
            Awaited::Chunks(chunks) => {
                let progress = chunks.decode(&self.input, &mut request.bytes, max_body)?;
                self.input.drain(..progress.consumed);
                progress.is_whole
            }
        };
        if !is_whole {
            return Ok(None);
        }
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Body(request, _) => Ok(Some(request)),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests;
