//! Callers whose tokens the API server is asked about: one request asks, and those with the same token wait for it.

use super::waiting::Looked;
use super::{Worker, Workers};
use crate::auth::Verdict;
use crate::hash::Digest;
use crate::server::exchange::{Exchange, Stage, Waits};
use crate::server::serve::purpose;
use crate::server::shared::Key;
use crate::status::{Reason, Status};
use std::time::{Duration, Instant};

/// For both questions together: after that, others ask.
const TIME: Duration = Duration::from_secs(5);

impl Workers {
    /// Decides who calls, if that is known by now; else lets an exchange ask, or wait for another that does.
    #[inline(never)] // it is rare
    pub(super) fn who_calls(&self, mut exchange: Box<Exchange>, token: Digest) -> Looked {
        let auth = &self.server.config.auth;
        let has_waited = !matches!(exchange.waits, Waits::Client(_)); // else it was looked up a moment ago
        if has_waited {
            let verdict = auth.check(purpose(&exchange.route), &exchange.request);
            if !matches!(verdict, Verdict::Ask(_)) {
                exchange.judge(verdict, self.server.config.accept.form);
                return Looked::Calls(exchange);
            }
        }
        let key = Key::Caller(token);
        if self.shared.begin(&key, TIME) {
            exchange.reads_for = Some(key);
            return match auth.begin_asking(&token) {
                Ok(()) => Looked::Calls(exchange),
                Err(status) => {
                    self.tell_followers(&mut exchange, Some(&status));
                    Looked::Answers(exchange, status.into())
                }
            };
        }
        // one token must not fill all places
        if self.shared.waiting() >= self.connections.capacity().div_ceil(2) {
            return Looked::Answers(
                exchange,
                Status::new(Reason::Overloaded, "too many callers are being checked").into(),
            );
        }
        match self.connections.park(exchange, Waits::Caller, Instant::now() + TIME, |slot| self.shared.join(&key, slot))
        {
            None => Looked::Waits,
            Some(exchange) => Looked::Calls(exchange), // it was asked meanwhile
        }
    }

    /// Asks the API server, for an exchange that has a permit to call.
    #[inline(never)] // likewise
    pub(super) fn ask_who_calls(&self, worker: &mut Worker, exchange: &mut Exchange, until: Instant) {
        let until = until.min(Instant::now() + TIME);
        let Exchange { id, route, request, .. } = &*exchange;
        let verdict = self.server.review(id, route, request, &mut worker.client, until);
        worker.client.iter_mut().for_each(|client| self.fastest.note(client.take_waited()));
        // what the API server could not say, it cannot say to the others; an answer they find
        let failed = if let Verdict::Refused(status) = &verdict {
            Some(status).filter(|status| status.code() >= 500)
        } else {
            None
        };
        self.tell_followers(exchange, failed);
        exchange.judge(verdict, self.server.config.accept.form)
    }

    /// Runs the exchanges that wait for what this one has asked. `failed`: what they are answered; None: they look themselves.
    fn tell_followers(&self, exchange: &mut Exchange, failed: Option<&Status>) {
        let Some(key) = exchange.reads_for.take() else { return };
        self.server.config.auth.has_asked();
        for slot in self.shared.end(&key) {
            if let Some(mut follower) = self.connections.take(slot) {
                if let Some(status) = failed {
                    follower.stage = Stage::Refused(Box::new(status.clone()))
                }
                self.hand_over(follower)
            }
        }
    }

    /// An exchange that was to ask is answered without that.
    pub(super) fn asks_no_more(&self, exchange: &mut Exchange) {
        if let Some(Key::Caller(_)) = exchange.reads_for {
            self.tell_followers(exchange, None)
        }
    }
}
