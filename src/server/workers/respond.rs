//! How an exchange gets its reply.

use super::{Worker, Workers};
use crate::account::Kind;
use crate::answered::{Answered, Record};
use crate::config::DryRun;
use crate::http::{Reply, Request};
use crate::route::Route;
use crate::server::access_log::{Line, name_of};
use crate::server::connection::Advanced;
use crate::server::exchange::{Exchange, Stage};
use crate::server::reply::{Frame, SMALL_BODY};
use crate::status::{Reason, Status};
use std::borrow::Cow;

/// Bytes of a reply that the kernel takes at once from a client that has read everything before.
const AT_ONCE: usize = 4 << 10;

impl Workers {
    fn frame(&self, id: String, request: &Request) -> Frame {
        Frame {
            id,
            is_head: request.is_head(),
            is_http_10: request.is_http_10,
            close: request.close || self.connections.shutdown.has_begun(),
        }
    }

    /// Logs and sends the reply, and continues with the connection.
    pub(super) fn reply(&self, worker: &mut Worker, exchange: &mut Exchange, answered: Answered) -> Advanced {
        let frame = self.frame(std::mem::take(&mut exchange.id), &exchange.request);
        let Answered { reply, mut record, memory } = self.with_memory(exchange, for_people(exchange, answered));
        record.waited = record.waited.max(exchange.arrived - exchange.received_at);
        Line {
            id: &frame.id,
            peer: exchange.connection.peer(),
            request: Some(&exchange.request),
            caller: exchange.caller.as_deref(),
            code: reply.code,
            took: Some(exchange.received_at.elapsed()),
            is_probe: exchange.route.as_ref().is_ok_and(Route::is_probe) && record.reason.is_none(),
            record: &record,
        }
        .count_and_write(name_of(&exchange.route));
        // what could not be read for this caller may be read for those that have more time
        let is_complete = reply.code == 200 && record.note.is_none();
        self.tell_others(exchange, is_complete.then_some(&reply.body));
        exchange.connection.queue_reply(reply, memory, &frame);
        exchange.end();
        match self.advance(worker, &mut exchange.connection, false) {
            Advanced::Wait(_) if exchange.connection.has_unreserved_output() => Advanced::Close,
            advanced => advanced,
        }
    }

    /// Reserves memory for a large reply until its client has read it. Without memory a reply that its client can take at once is sent
    /// nevertheless; 503 takes the place of others.
    fn with_memory(&self, exchange: &mut Exchange, answered: Answered) -> Answered {
        let Answered { mut reply, record, memory } = answered;
        let mut memory = memory.or(exchange.memory.take());
        let head: usize = reply.headers.iter().map(|(_, value)| value.len()).sum();
        let body = match &mut reply.body {
            Cow::Owned(body) if body.len() > SMALL_BODY => {
                body.shrink_to_fit();
                body.capacity()
            }
            _ => 0,
        };
        let bytes = body + if head > SMALL_BODY { head } else { 0 };
        if bytes == 0 {
            return Answered { reply, record, memory: None };
        }
        let kind = if matches!(exchange.route, Ok(Route::Metrics)) { Kind::Metrics } else { Kind::Answer };
        // usual answers do not queue behind long ones: they are sent as soon as they are there
        let has_memory = memory.as_mut().is_some_and(|memory| {
            memory.shrink(bytes);
            memory.try_become(kind, bytes) || memory.bytes() == bytes
        });
        if !has_memory {
            drop(memory.take());
            let account = &self.memory.account;
            memory = account.try_reserve(kind, bytes).or_else(|| self.make_room(kind, bytes))
        }
        if memory.is_none() && bytes > AT_ONCE {
            // what was done is not denied
            let is_done = match &exchange.route {
                Ok(Route::Dispatch(_)) => matches!(reply.code, 200 | 201),
                Ok(Route::Delete(_)) => reply.code == 202,
                _ => false,
            };
            if let (true, DryRun::None, Some(name)) = (is_done, self.server.config.dry_run, &record.job) {
                let body = format!("{{\"id\":\"{name}\"}}"); // a DNS-1123 label
                return Answered { reply: Reply { body: body.into_bytes().into(), ..reply }, record, memory };
            }
            let status = Status::new(Reason::Overloaded, "too many large replies are being sent");
            let Answered { reply, record: refused, .. } = Answered::refused(status);
            let Record { reason, message, .. } = refused;
            return Answered { reply, record: Record { reason, message, ..record }, memory };
        }
        Answered { reply, record, memory }
    }

    /// Answers what cannot go on: with the Job as far as it is known, else with an error.
    pub(super) fn reject(
        &self,
        worker: &mut Worker,
        exchange: &mut Exchange,
        reason: Reason,
        message: &str,
    ) -> Advanced {
        let status = Status::new(reason, message);
        let stage = match exchange.take_stage() {
            Stage::Look(look) => {
                let answered = self.final_answer_at_once(exchange, look, false);
                return self.reply(worker, exchange, answered);
            }
            stage => stage,
        };
        let work = if let Stage::Call(work) = &stage { Some(work) } else { None };
        let known = work.map(|work| work.failure(status.clone())).filter(|answered| answered.reply.code == 200);
        let answered = match (known, work.and_then(|work| work.tried())) {
            (Some(answered), _) => answered,
            (None, Some((job, tries))) => Answered::from(status.with_note(message)).about(job.to_owned(), tries),
            (None, None) => Answered::refused(status),
        };
        self.reply(worker, exchange, answered)
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
        let advanced = self.reject(worker, &mut exchange, reason, message);
        self.rearm_or_hand_over(exchange, advanced)
    }

    /// For a thread that serves nothing itself.
    pub(super) fn rearm_or_hand_over(&self, exchange: Box<Exchange>, advanced: Advanced) {
        if let Some(exchange) = self.rearm(exchange, advanced) {
            self.hand_over(exchange)
        }
    }
}

/// A success without its body, where the sender would show that to people.
fn for_people(exchange: &Exchange, answered: Answered) -> Answered {
    let is_shown = exchange.caller.as_ref().is_some_and(|caller| caller.is_shown_replies);
    let is_success = (200..300).contains(&answered.reply.code);
    if is_shown && is_success { Answered { reply: Reply::empty(200), ..answered } } else { answered }
}
