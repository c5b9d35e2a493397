//! Turns the form of a request into JSON, once it is known who sends it.

use super::Workers;
use super::waiting::Looked;
use crate::account::Kind;
use crate::form::Form;
use crate::http::Request;
use crate::server::exchange::{Exchange, Stage};
use crate::server::memory::SMALL;
use crate::status::{Reason, Status};

/// What comes of a form.
enum Converted {
    /// The bytes of the request, with JSON in place of the form.
    Json(Vec<u8>),
    /// So many bytes are needed first.
    NeedsMemory(Kind, usize),
}

impl Workers {
    /// Puts JSON in place of the form, as soon as there is memory for both.
    #[inline(never)] // it is rare
    pub(super) fn convert_form(&self, mut exchange: Box<Exchange>) -> Looked {
        let memory = exchange.request.reservation.as_ref().map_or(0, |memory| memory.bytes());
        let request = &mut exchange.request;
        let converted = match converted(request, memory, self.server.config.max_body_bytes) {
            Ok(Converted::NeedsMemory(kind, bytes))
                if self.memory.try_become(&mut request.reservation, kind, bytes) =>
            {
                converted(request, bytes, self.server.config.max_body_bytes)
            }
            converted => converted,
        };
        match converted {
            Err(status) => Looked::Answers(exchange, status.into()),
            Ok(Converted::Json(bytes)) => {
                request.bytes = bytes;
                request.shrink_memory(0);
                exchange.stage = Stage::Plan;
                Looked::Calls(exchange)
            }
            Ok(Converted::NeedsMemory(kind, bytes)) => {
                let held = request.held_bytes();
                if !self.memory.may_wait() || !self.memory.try_become(&mut request.reservation, Kind::Parked, held) {
                    let status = Status::new(Reason::Overloaded, "too many requests wait for memory");
                    return Looked::Answers(exchange, status.into());
                }
                let deadline = exchange.arrived + self.server.config.request_timeout / 2;
                self.wait_for_memory(exchange, kind, bytes, deadline);
                Looked::Waits
            }
        }
    }
}

/// `memory`: bytes that the request has. `most`: bytes of the largest body.
///
/// Errors: 413 if form and JSON together are larger than a body may be.
fn converted(request: &Request, memory: usize, most: usize) -> Result<Converted, Status> {
    let form = Form::of(request.body())?;
    let length = form.json_len();
    if request.body().len() + length > most {
        let message = format!("the form and the JSON made of it have more than {most} bytes; see --max-body-bytes");
        return Err(Status::new(Reason::RequestEntityTooLarge, message));
    }
    let needed = request.held_bytes() + form.held_bytes() + request.head_len + length;
    if needed > memory {
        return Ok(Converted::NeedsMemory(if needed <= SMALL { Kind::Small } else { Kind::Large }, needed));
    }
    let mut bytes = Vec::with_capacity(request.head_len + length);
    bytes.extend_from_slice(&request.bytes[..request.head_len]);
    let _ = form.write(&mut bytes); // writing to memory does not fail
    Ok(Converted::Json(bytes))
}
