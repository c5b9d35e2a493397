//! How an exchange gets its reply.

use super::{Worker, Workers};
use crate::http::{Reply, Request};
use crate::server::connection::Step;
use crate::server::exchange::{Exchange, Stage};
use crate::server::memory::SMALL;
use crate::server::output::SMALL_BODY;
use crate::server::reply::Frame;
use crate::server::serve::{log_refusal, name_of, request_id};
use crate::status::{Reason, Status};
use std::borrow::Cow;

impl Workers {
    fn frame(&self, request: &Request) -> Frame {
        Frame {
            id: request_id(request.header("x-request-id")),
            is_head: request.method() == "HEAD",
            is_http_10: request.is_http_10,
            close: request.close || self.connections.shutdown.has_begun(),
        }
    }

    /// Logs and sends the reply, and continues with the connection.
    pub(super) fn reply(&self, worker: &mut Worker, exchange: &mut Exchange, reply: Reply) -> Step {
        let frame = self.frame(&exchange.request);
        let reply = self.with_memory(reply);
        self.server.log(exchange, &frame, &reply);
        self.send(worker, exchange, reply, &frame)
    }

    fn send(&self, worker: &mut Worker, exchange: &mut Exchange, reply: Reply, frame: &Frame) -> Step {
        exchange.connection.reply(reply, frame);
        exchange.end();
        self.advance(worker, &mut exchange.connection, false)
    }

    /// Reserves memory for a large body until its client has read it; without memory, 503 takes the reply's place.
    fn with_memory(&self, mut reply: Reply) -> Reply {
        if let Cow::Owned(body) = &mut reply.body
            && body.len() > SMALL_BODY
            && reply.reservation.is_none()
        {
            body.shrink_to_fit();
            match self.large_runs.try_reserve_reply(body.capacity()) {
                Some(memory) => reply.reservation = Some(memory),
                None => {
                    let status = Status::new(Reason::Overloaded, "too many large replies are being sent");
                    return Reply { job: reply.job, note: reply.note, ..status.into() };
                }
            }
        }
        reply
    }

    /// Answers what cannot go on: with the Job as far as it is known, else with an error.
    pub(super) fn reject(&self, worker: &mut Worker, exchange: &mut Exchange, reason: Reason, message: &str) -> Step {
        let status = Status::new(reason, message);
        let stage = match exchange.take_stage() {
            Stage::Look(look) => {
                let reply = self.told_at_once(exchange, look, false);
                return self.reply(worker, exchange, reply);
            }
            stage => stage,
        };
        let work = if let Stage::Call(work) = &stage { Some(work) } else { None };
        let known = work.map(|work| work.failure(status.clone())).filter(|reply| reply.code == 200);
        let reply = match (known, work.and_then(|work| work.tried())) {
            (Some(reply), _) => reply,
            (None, Some((job, tries))) => {
                Reply { job: Some(job.to_owned()), tries, note: Some(message.to_owned()), ..status.into() }
            }
            (None, None) => {
                let frame = self.frame(&exchange.request);
                let took = Some(exchange.arrived.elapsed());
                log_refusal(&frame, Some(&exchange.request), name_of(&exchange.route), &status, took);
                return self.send(worker, exchange, status.into(), &frame);
            }
        };
        self.reply(worker, exchange, reply)
    }

    /// For a thread that serves nothing itself.
    pub(super) fn reject_and_rearm(
        &self,
        worker: &mut Worker,
        mut exchange: Box<Exchange>,
        reason: Reason,
        message: &str,
    ) {
        if let Stage::List { has_turn: true } = exchange.stage {
            self.give_up_turn()
        }
        let step = self.reject(worker, &mut exchange, reason, message);
        self.rearm_or_hand_over(exchange, step)
    }

    /// For a thread that serves nothing itself.
    pub(super) fn rearm_or_hand_over(&self, exchange: Box<Exchange>, step: Step) {
        if let Some(exchange) = self.rearm(exchange, step) {
            self.hand_over(exchange)
        }
    }
}

impl Request {
    /// Frees the memory of a large body that is needed no longer.
    pub(super) fn forget_body(&mut self) {
        if self.bytes.len() > SMALL {
            self.bytes.truncate(self.head_len);
            self.bytes.shrink_to_fit();
            if let Some(memory) = &mut self.reservation {
                memory.shrink(self.head_len + self.bytes.capacity())
            }
        }
    }
}
