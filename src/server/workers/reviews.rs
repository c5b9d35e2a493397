//! Callers whose tokens the API server is asked about: one request asks, and those with the same token wait for it.

use super::waiting::Looked;
use super::{Worker, Workers};
use crate::auth::Verdict;
use crate::hash::Digest;
use crate::server::exchange::{Exchange, Waits};
use crate::server::serve::purpose;
use crate::server::shared::Key;
use std::time::{Duration, Instant};

/// For both questions together: after that, others ask.
const TIME: Duration = Duration::from_secs(5);

impl Workers {
    /// Decides who calls, if that is known by now; else lets an exchange ask, or wait for another that does.
    pub(super) fn who_calls(&self, mut exchange: Box<Exchange>, token: Digest) -> Looked {
        let auth = &self.server.config.auth;
        let verdict = auth.check(purpose(&exchange.route), &exchange.request);
        if !matches!(verdict, Verdict::Ask(_)) {
            exchange.judge(verdict);
            return Looked::Calls(exchange);
        }
        if let Err(status) = auth.may_ask(&token) {
            return Looked::Answers(exchange, status.into());
        }
        let key = Key::Caller(token);
        if self.shared.begin(&key, TIME) {
            exchange.reads_for = Some(key);
            return Looked::Calls(exchange);
        }
        match self.connections.park(exchange, Waits::Caller, Instant::now() + TIME, |slot| self.shared.join(&key, slot))
        {
            None => Looked::Waits,
            Some(exchange) => Looked::Calls(exchange), // it was asked meanwhile
        }
    }

    /// Asks the API server, for an exchange that has a permit to call.
    pub(super) fn ask_who_calls(&self, worker: &mut Worker, exchange: &mut Exchange, until: Instant) {
        let until = until.min(Instant::now() + TIME);
        let Exchange { id, route, request, .. } = &*exchange;
        let verdict = self.server.review(id, route, request, &mut worker.client, until);
        worker.client.iter_mut().for_each(|client| self.fastest.note(client.take_waited()));
        exchange.judge(verdict);
        self.tell_others(exchange, None)
    }
}
