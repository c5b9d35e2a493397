//! The state machine of one connection; never blocks on its client: bytes in, requests out; replies in, bytes out.

use super::access_log::{Line, Peer, name_of, request_id};
use super::chunked::Chunks;
use super::memory::Memory;
use super::parse::{self, MAX_HEAD, Scan};
use super::reply::Frame;
use super::send_buffer::SendBuffer;
use crate::account::{Kind, Reservation};
use crate::answered::Answered;
use crate::config::Enabled;
use crate::http::{Reply, Request};
use crate::route::route;
use crate::status::{Reason, Status};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// Absolute, from the first byte of a request, so that a slow client cannot extend it; likewise those below.
const HEAD: Duration = Duration::from_secs(10);
const BODY: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(30);
/// After an error reply, further input is discarded for this long and up to this many bytes: the client then sees the reply instead of a
/// reset.
const LINGER: Duration = Duration::from_secs(2);
const MAX_LINGER: usize = 1 << 20;
/// Replies in a row to one pipelining client before other connections are served.
const MAX_IN_A_ROW: u32 = 32;
/// Bytes read at first: most requests; of a larger one that waits for memory, no more is held.
const FIRST_READ: usize = 4 << 10;
/// Bytes of a body that count as progress of its client.
const PROGRESS: usize = 1 << 10;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a connection may use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds<'a> {
    pub(super) max_body: usize,
    pub(super) memory: &'a Memory,
    pub(super) enabled: Enabled,
    /// The head of a request is looked at before its body arrives.
    pub(super) admits_heads: bool,
    /// How long an idle connection is kept.
    pub(super) idle: Duration,
    /// How long a request waits for memory.
    pub(super) max_wait: Duration,
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Interest {
    Readable,
    Writable,
    /// That its client leaves.
    Hangup,
    /// Nothing that its client does, except to reset the connection.
    Nothing,
}

/// What has to be done next for a connection that was [advanced](Connection::advance).
#[derive(Debug)]
pub(super) enum Advanced {
    Wait(Interest),
    /// The rest of the request stays unread until so many bytes are granted.
    WaitForMemory(Kind, usize),
    Close,
    Serve(Request),
}

#[derive(Debug)]
enum Phase {
    /// Between requests.
    Idle,
    /// Part of a head was received; its length, once that is known.
    Head(Option<usize>),
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

/// What the input amounts to.
enum Parsed {
    Request(Request),
    Incomplete,
    NeedsMemory(Kind, usize),
}

/// Errors: the error that a request gets before its body is read, so that `Expect: 100-continue` saves the client its upload.
pub(super) type Admit<'a> = &'a dyn Fn(&Request) -> Result<(), Status>;

/// A connection that was accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: Peer,
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    peer: Peer,
    /// Bytes that were not parsed yet.
    input: Vec<u8>,
    /// Memory for the input, while the connection waits.
    input_memory: Option<Reservation>,
    scan: Scan,
    phase: Phase,
    output: SendBuffer,
    close_after_output: bool,
    in_a_row: u32,
    /// Whether the empty line that may precede the next request was skipped.
    has_skipped_line: bool,
    granted: Option<Reservation>,
    /// Bytes of the request's memory that are for a large run.
    for_run: usize,
    /// It has a place that is for probes.
    is_reserved: bool,
    /// Since when it waits for its client, or for memory.
    waits_since: Instant,
    deadline: Instant,
}

impl Connection {
    pub(super) fn new(accepted: Accepted, now: Instant, idle: Duration) -> Self {
        let Accepted { stream, peer } = accepted;
        Connection {
            stream,
            peer,
            input: Vec::new(),
            input_memory: None,
            scan: Scan::default(),
            phase: Phase::Idle,
            output: SendBuffer::default(),
            close_after_output: false,
            in_a_row: 0,
            has_skipped_line: false,
            granted: None,
            for_run: 0,
            is_reserved: false,
            waits_since: now,
            deadline: now + idle,
        }
    }

    /// For probes alone: all other places are taken.
    pub(super) fn reserved(accepted: Accepted, now: Instant, idle: Duration) -> Self {
        Connection { is_reserved: true, ..Connection::new(accepted, now, idle) }
    }

    pub(super) fn is_reserved(&self) -> bool {
        self.is_reserved
    }
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
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
        matches!(self.phase, Phase::Head(_) | Phase::Body(..))
    }
    /// Whether it may be closed while it waits for its client: nothing was received that is not answered.
    pub(super) fn is_evictable(&self) -> bool {
        let has_next_request = matches!(self.phase, Phase::Idle) && !matches!(self.input[..], [] | [b'\r']);
        let is_lingering = matches!(self.phase, Phase::Linger(_));
        self.output.is_pending() || is_lingering || self.granted.is_none() && !has_next_request && !self.has_unread()
    }
    /// Whether there is unread input.
    pub(super) fn has_unread(&self) -> bool {
        matches!(recv(&self.stream, &mut [0; 1][..], RecvFlags::DONTWAIT | RecvFlags::PEEK), Ok((_, 1)))
    }

    /// Makes progress until the client has to act, memory is missing, or a whole request was received. `readable`: there may be input.
    pub(super) fn advance(
        &mut self,
        scratch: &mut [u8],
        mut readable: bool,
        bounds: Bounds<'_>,
        admit: Admit<'_>,
    ) -> Advanced {
        loop {
            match self.flush(bounds.idle) {
                Ok(true) => (),
                Ok(false) => return Advanced::Wait(Interest::Writable),
                Err(_) => return Advanced::Close,
            }
            if self.close_after_output && !matches!(self.phase, Phase::Linger(_)) {
                if self.stream.shutdown(Shutdown::Write).is_err() {
                    return Advanced::Close;
                }
                self.begin_phase(Phase::Linger(0), LINGER);
                self.forget_input();
                readable = true;
            }
            if self.in_a_row >= MAX_IN_A_ROW {
                self.in_a_row = 0;
                return Advanced::Wait(Interest::Writable); // at once, but behind others
            }
            match self.parse_request(bounds, admit) {
                Ok(Parsed::Request(mut request)) => {
                    if !self.hold_input(bounds) {
                        self.forget_input(); // the client repeats what it has pipelined, for the reply says that we close
                        request.close = true
                    }
                    return Advanced::Serve(request);
                }
                Ok(Parsed::Incomplete) if self.output.is_pending() => continue,
                Ok(Parsed::Incomplete) => (),
                Ok(Parsed::NeedsMemory(kind, bytes)) => {
                    if bounds.memory.may_wait() && self.park_input(bounds.memory) {
                        self.waits_since = Instant::now();
                        self.deadline = self.waits_since + bounds.max_wait;
                        return Advanced::WaitForMemory(kind, bytes);
                    }
                    self.refuse(Status::new(Reason::Overloaded, "too many requests wait for memory"), bounds.enabled);
                    continue;
                }
                Err(status) => {
                    self.refuse(status, bounds.enabled);
                    continue;
                }
            }
            if !readable {
                if self.hold_input(bounds) {
                    self.in_a_row = 0;
                    return Advanced::Wait(Interest::Readable);
                }
                self.refuse(Status::new(Reason::Overloaded, "too many requests are incomplete"), bounds.enabled);
                continue;
            }
            match self.receive(scratch) {
                Ok(more) => readable = more,
                Err(()) => return Advanced::Close,
            }
        }
    }

    /// Reads once. Returns whether there may be more to read.
    ///
    /// Errors: the connection is closed, or its client has sent too much after an error.
    fn receive(&mut self, scratch: &mut [u8]) -> Result<bool, ()> {
        let most = self.most_input().min(scratch.len());
        let received = match recv(&self.stream, &mut scratch[..most], RecvFlags::DONTWAIT) {
            Ok((_, received)) if received > 0 => received,
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => return Ok(true),
            Ok(_) | Err(_) => return Err(()),
        };
        if let Phase::Linger(discarded) = &mut self.phase {
            *discarded += received;
            if *discarded > MAX_LINGER {
                return Err(());
            }
        } else {
            self.input.extend_from_slice(&scratch[..received]);
            if matches!(self.phase, Phase::Body(..)) && received >= PROGRESS {
                self.waits_since = Instant::now()
            }
        }
        Ok(received == most)
    }

    /// Bytes to read next, so that no more than a head, or the rest of a body, is held without a reservation.
    fn most_input(&self) -> usize {
        match &self.phase {
            Phase::Idle | Phase::Head(_) if self.input.len() < FIRST_READ => FIRST_READ - self.input.len(),
            Phase::Idle | Phase::Head(_) => (MAX_HEAD + 1).saturating_sub(self.input.len()).max(1),
            Phase::Body(_, Awaited::Bytes(left)) => *left,
            Phase::Body(_, Awaited::Chunks(_)) | Phase::Linger(_) => usize::MAX,
        }
    }

    /// Reserves memory for the input, for as long as the connection waits. Returns false if there is none.
    fn hold_input(&mut self, bounds: Bounds<'_>) -> bool {
        if matches!(self.input[..], [] | [b'\r']) {
            self.input.shrink_to_fit();
            self.input_memory = None;
            return true;
        }
        self.input.shrink_to_fit();
        bounds.memory.try_become(&mut self.input_memory, Kind::Small, self.input.capacity())
    }

    /// Keeps what was received as parked memory, before it waits for more. Returns false if there is none.
    fn park_input(&mut self, memory: &Memory) -> bool {
        self.input.shrink_to_fit();
        if let Phase::Body(request, _) = &mut self.phase {
            let bytes = request.held_bytes();
            if !memory.try_become(&mut request.reservation, Kind::Parked, bytes) {
                return false;
            }
        }
        memory.try_become(&mut self.input_memory, Kind::Parked, self.input.capacity())
    }

    fn forget_input(&mut self) {
        self.input = Vec::new();
        (self.input_memory, self.granted) = (None, None)
    }

    /// Queues the reply to the request that was served. `memory`: for a large body.
    pub(super) fn queue_reply(&mut self, reply: Reply, memory: Option<Reservation>, frame: &Frame) {
        self.output.push_reply(reply, memory, frame);
        self.close_after_output |= frame.close;
        self.in_a_row += 1;
        self.waits_since = Instant::now();
        self.deadline = self.waits_since + ANSWER;
    }

    /// The deadline has passed, or the body [is too slow](Connection::is_slow). Returns false if no reply can be sent.
    pub(super) fn expire(&mut self, enabled: Enabled) -> bool {
        let status = match &self.phase {
            _ if !self.output.is_empty() => return false,
            Phase::Idle | Phase::Linger(_) => return false,
            Phase::Head(_) => Status::new(Reason::RequestTimeout, format!("the head did not arrive within {HEAD:?}")),
            Phase::Body(..) if Instant::now() < self.deadline => {
                Status::new(Reason::RequestTimeout, "the body arrives too slowly while others wait for memory")
            }
            Phase::Body(..) => Status::new(Reason::RequestTimeout, format!("the body did not arrive within {BODY:?}")),
        };
        self.refuse(status, enabled);
        true
    }

    /// Answers with an error, and closes. `enabled`: the routes that there are.
    pub(super) fn refuse(&mut self, status: Status, enabled: Enabled) {
        let (id, is_head) = match &self.phase {
            Phase::Body(request, _) => (request.header("x-request-id"), request.is_head()),
            Phase::Head(_) => (parse::request_id(&self.input), self.input.starts_with(b"HEAD ")),
            Phase::Idle | Phase::Linger(_) => (None, false),
        };
        let frame = Frame { id: request_id(id), is_head, is_http_10: false, close: true };
        let request = if let Phase::Body(request, _) = &self.phase { Some(request) } else { None };
        let name = request.map_or("other", |request| name_of(&route(request, enabled)));
        let Answered { reply, record, .. } = Answered::refused(status);
        let (code, peer) = (reply.code, &self.peer);
        let line =
            Line { id: &frame.id, peer, request, caller: None, code, took: None, is_probe: false, record: &record };
        line.count_and_write(name);
        self.phase = Phase::Idle;
        self.forget_input();
        self.queue_reply(reply, None, &frame);
    }

    /// Begins a phase with an absolute deadline, however slowly input arrives.
    fn begin_phase(&mut self, phase: Phase, time: Duration) {
        self.phase = phase;
        self.waits_since = Instant::now();
        self.deadline = self.waits_since + time;
    }

    /// Sends pending output. Returns false if the client does not accept more now.
    fn flush(&mut self, idle: Duration) -> Result<bool, Errno> {
        if self.output.is_empty() {
            return Ok(true);
        }
        let before = self.output.sent();
        if !self.output.send(&self.stream)? {
            if self.output.sent() > before {
                self.waits_since = Instant::now()
            }
            return Ok(false);
        }
        self.output.clear();
        if matches!(self.phase, Phase::Idle) {
            self.has_skipped_line = false;
            self.begin_phase(Phase::Idle, idle)
        }
        Ok(true)
    }
}

mod hangup;
mod memory;
mod request;

#[cfg(test)]
mod tests;
