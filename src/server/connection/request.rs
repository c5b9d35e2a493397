//! From a connection's input to a whole request.

use super::{Admit, Awaited, BODY, Bounds, CONTINUE, Connection, HEAD, Parsed, Phase};
use crate::account::Kind;
use crate::filter::MAX_SMALL_BODY;
use crate::route::route;
use crate::server::chunked::Chunks;
use crate::server::memory::SMALL;
use crate::server::parse::{self, Framing, Scan};
use crate::status::Status;

/// Bytes reserved at first for a body of unknown length.
const CHUNKED: usize = 1 << 10;

impl Connection {
    /// A whole request from the input, if there is one.
    ///
    /// Errors: the error for a malformed or oversized request.
    pub(super) fn parse_request(&mut self, bounds: Bounds<'_>, admit: Admit<'_>) -> Result<Parsed, Status> {
        if let Phase::Idle = self.phase {
            if !self.has_skipped_line && self.input.starts_with(b"\r\n") {
                self.input.drain(..2); // one empty line before a request is skipped (RFC 9112 2.2)
                self.has_skipped_line = true;
            }
            if matches!(self.input[..], [] | [b'\r']) {
                return Ok(Parsed::Incomplete);
            }
            self.scan = Scan::default();
            self.begin_phase(Phase::Head(None), HEAD);
        }
        if let Phase::Head(known) = self.phase {
            let length = match known {
                Some(length) => length,
                None => {
                    let Some(length) = self.scan.head_len(&self.input)? else { return Ok(Parsed::Incomplete) };
                    self.phase = Phase::Head(Some(length));
                    length
                }
            };
            if let Some((kind, needed)) = self.take_head(length, bounds, admit)? {
                return Ok(Parsed::NeedsMemory(kind, needed));
            }
        }
        self.take_body(bounds)
    }

    /// Parses the head, and reserves memory for the whole request. Returns the bytes that are missing, and their kind, if they are.
    fn take_head(
        &mut self,
        length: usize,
        bounds: Bounds<'_>,
        admit: Admit<'_>,
    ) -> Result<Option<(Kind, usize)>, Status> {
        let parse::Head { mut request, framing, expects_continue } =
            parse::head(&self.input[..length], bounds.max_body)?;
        let body_len = match framing {
            Framing::Length(body) => body,
            Framing::Chunked => 0,
        };
        let here = self.input.len().min(length + body_len);
        let has_body = self.input.len() > length;
        let sends_continue = expects_continue && !has_body && framing != Framing::Length(0);
        let is_part = framing == Framing::Chunked || here < length + body_len;
        if sends_continue || is_part && bounds.admits_heads {
            request.bytes = self.input[..length].to_vec();
            if let Err(status) = admit(&request) {
                self.phase = Phase::Body(request, Awaited::Bytes(0)); // so that its refusal is logged with what it was
                return Err(status);
            }
        }
        // The head counts twice: as text, and for the parsed path and header fields. Without a length, memory for a very small body;
        // `take_body` reserves more.
        self.for_run = for_run(body_len, bounds);
        let needed = 2 * length + if framing == Framing::Chunked { CHUNKED } else { body_len } + self.for_run;
        let kind = if needed <= SMALL { Kind::Small } else { Kind::Large };
        let granted = self.granted.take().filter(|memory| memory.bytes() >= needed);
        let memory = granted.or_else(|| bounds.memory.try_reserve(kind, needed));
        if memory.is_none() {
            request.bytes = self.input[..length].to_vec();
            // without a body, and no dispatch: it is answered at once, so that `/health/live` does not depend on what others hold
            if framing != Framing::Length(0) || route(&request, bounds.enabled).is_ok_and(|route| route.is_dispatch()) {
                return Ok(Some((kind, needed)));
            }
        }
        request.reservation = memory;
        request.bytes = std::mem::take(&mut self.input);
        self.input = request.bytes.split_off(here);
        self.input_memory = None;
        let awaited = match framing {
            Framing::Length(body) => Awaited::Bytes(length + body - here),
            Framing::Chunked => Awaited::Chunks(Chunks::default()),
        };
        self.begin_phase(Phase::Body(request, awaited), BODY);
        if sends_continue {
            self.output.push(CONTINUE);
        }
        Ok(None)
    }

    fn take_body(&mut self, bounds: Bounds<'_>) -> Result<Parsed, Status> {
        let Phase::Body(request, awaited) = &mut self.phase else { return Ok(Parsed::Incomplete) };
        let is_whole = match awaited {
            Awaited::Bytes(left) => {
                let here = self.input.len().min(*left);
                if request.bytes.capacity() - request.bytes.len() < here {
                    let more = request.bytes.len().clamp(here, *left); // twice as much, but not more than will arrive
                    request.bytes.reserve_exact(more)
                }
                request.bytes.extend(self.input.drain(..here));
                *left -= here;
                *left == 0
            }
            Awaited::Chunks(chunks) => {
                let head = request.head_len;
                let most = head + bounds.max_body;
                let reserved = request.reservation.as_ref().map_or(0, |memory| memory.bytes());
                let needed = (request.bytes.len() + self.input.len()).min(most);
                if let Some(memory) = self.granted.take() {
                    request.reservation = Some(memory)
                } else if head + needed > reserved {
                    let memory = &mut request.reservation;
                    let more = (head + 2 * needed).min(SMALL);
                    if head + needed > SMALL || !bounds.memory.try_become(memory, Kind::Small, more) {
                        // its length is unknown: the largest body is reserved at once, for nothing waits to grow
                        self.for_run = for_run(bounds.max_body, bounds);
                        let most = head + most + self.for_run;
                        if !bounds.memory.try_become(memory, Kind::Large, most) {
                            return Ok(Parsed::NeedsMemory(Kind::Large, most));
                        }
                    }
                }
                if request.bytes.capacity() < needed {
                    let doubled = (2 * request.bytes.len()).clamp(needed, most.max(needed));
                    request.bytes.reserve_exact(doubled - request.bytes.len())
                }
                let progress = chunks.decode(&self.input, &mut request.bytes, bounds.max_body)?;
                self.input.drain(..progress.consumed);
                progress.is_whole
            }
        };
        if !is_whole {
            return Ok(Parsed::Incomplete);
        }
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Body(mut request, _) => {
                request.shrink_memory(for_run(request.body().len(), bounds));
                Ok(Parsed::Request(request))
            }
            _ => Ok(Parsed::Incomplete),
        }
    }
}

/// Bytes that a large run may add to a request with a body of so many bytes. Of a smaller one it is not known before whether it needs one.
fn for_run(body: usize, bounds: Bounds<'_>) -> usize {
    if body > MAX_SMALL_BODY { bounds.memory.for_run } else { 0 }
}
