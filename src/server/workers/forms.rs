//! Turns the form of a request into JSON, once it is known who sends it.

use super::Workers;
use crate::account::{Kind, Reservation};
use crate::form::Form;
use crate::http::Request;
use crate::route::{Route, is_form};
use crate::server::exchange::Exchange;
use crate::server::memory::SMALL;
use crate::status::{Reason, Status};

impl Workers {
    /// Errors: 413 if form and JSON together are larger than a body may be; 503 without memory for both.
    pub(super) fn convert_form(&self, exchange: &mut Exchange) -> Result<(), Status> {
        let Exchange { request, route, .. } = exchange;
        if !self.server.config.accept.form || !matches!(route, Ok(Route::Dispatch(_))) || !is_form(request) {
            return Ok(());
        }
        let mut memory = request.reservation.take();
        let converted = self.converted(request, &mut memory);
        request.reservation = memory;
        request.bytes = converted?;
        request.shrink_memory(0);
        Ok(())
    }

    /// The bytes of the request, with JSON in place of the form. `memory`: of the request.
    fn converted(&self, request: &Request, memory: &mut Option<Reservation>) -> Result<Vec<u8>, Status> {
        let form = Form::of(request.body())?;
        let (length, most) = (form.json_len(), self.server.config.max_body_bytes);
        if request.body().len() + length > most {
            let message = format!("the form and the JSON made of it have more than {most} bytes; see --max-body-bytes");
            return Err(Status::new(Reason::RequestEntityTooLarge, message));
        }
        let needed = request.held_bytes() + form.held_bytes() + request.head_len + length;
        let kind = if needed <= SMALL { Kind::Small } else { Kind::Large };
        if !self.memory.try_become(memory, kind, needed) {
            return Err(Status::new(Reason::Overloaded, "too many requests wait for memory"));
        }
        let mut bytes = Vec::with_capacity(request.head_len + length);
        bytes.extend_from_slice(&request.bytes[..request.head_len]);
        let _ = form.write(&mut bytes); // writing to memory does not fail
        Ok(bytes)
    }
}
