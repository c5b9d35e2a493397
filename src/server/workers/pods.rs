//! Callers that have waited for the same Job: one of them requests its pods, and the others get the same answer.

use super::Workers;
use super::waiting::Looked;
use crate::dispatch::Work;
use crate::jobs::News;
use crate::kube::{Job, USUAL_ANSWER};
use crate::server::exchange::{Exchange, Stage, Waits};
use crate::server::look::{LEAST_QUESTION, Look};
use crate::server::shared::Key;
use std::sync::Arc;
use std::time::Instant;

impl Workers {
    /// Answers a caller that has waited for this Job, with its pods.
    pub(super) fn share(&self, mut exchange: Box<Exchange>, mut look: Box<Look>, job: Arc<Job>) -> Looked {
        if let Some(answer) = look.answer.take() {
            let bytes = answer.len();
            if bytes <= USUAL_ANSWER || exchange.memory.is_some() {
                return Looked::Answers(exchange, look.answer_as(&answer));
            }
            look.answer = Some(answer);
            look.answer_later(News::Is(job));
            exchange.stage = Stage::Look(look);
            return self.wait_for_answer(exchange, bytes);
        }
        // no longer than a call for this caller alone would take
        let (now, time) = (Instant::now(), self.server.config.request_timeout);
        look.end = look.end.min(now + time).max(now + LEAST_QUESTION);
        let (end, key) = (look.end, Key::Pods(job.uid.clone(), job.version));
        if self.shared.begin(&key, time) {
            exchange.reads_for = Some(key);
            exchange.stage = Stage::Call(Work::for_pods(*look.waiting, job).by(end));
            exchange.arrived = Instant::now();
            return Looked::Calls(exchange);
        }
        look.answer_later(News::Is(job));
        exchange.stage = Stage::Look(look);
        match self.connections.park(exchange, Waits::Pods, end, |slot| self.shared.join(&key, slot)) {
            None => Looked::Waits,
            Some(exchange) => Looked::Calls(exchange), // they were read meanwhile: it looks again
        }
    }

    /// Runs the exchanges that this one reads for, with the same answer. None: they read themselves.
    pub(super) fn tell_others(&self, exchange: &mut Exchange, answer: Option<&[u8]>) {
        self.asks_no_more(exchange);
        let Some(key) = exchange.reads_for.take() else { return };
        let others = self.shared.end(&key);
        let answer: Option<Arc<[u8]>> = answer.filter(|_| !others.is_empty()).map(Arc::from);
        for slot in others {
            if let Some(mut exchange) = self.connections.take(slot) {
                if let Stage::Look(look) = &mut exchange.stage {
                    look.answer = answer.clone()
                }
                self.hand_over(exchange)
            }
        }
    }
}
