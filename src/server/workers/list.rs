//! Pages of Jobs: made one at a time, by one worker. The others wait in a queue, without a thread, until it is their turn and the Jobs are known.

use super::admission::Admission;
use super::{Worker, Workers};
use crate::dispatch::{MAX_PAGE, no_page};
use crate::jobs::NoPage;
use crate::server::exchange::{Exchange, Stage, Waits};
use crate::server::parse::MAX_HEAD;
use crate::server::serve::Listed;
use crate::status::Reason;
use std::time::Duration;

/// How long a list waits until the Jobs are known.
const TIME: Duration = Duration::from_secs(2);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

impl Workers {
    /// Answers a request for a page of Jobs, then those that are queued.
    pub(super) fn list(&self, worker: &mut Worker, exchange: Box<Exchange>) {
        self.want_watch();
        let admission = match exchange.stage {
            Stage::List { has_turn: true } => Admission::Admitted(exchange),
            _ => self.enter(&self.lists, exchange, Waits::Turn, self.server.config.request_timeout, false),
        };
        let mut next = match admission {
            Admission::Admitted(exchange) => Some(exchange),
            Admission::Queued => None,
            Admission::Rejected(exchange) => {
                return self.reject_and_rearm(worker, exchange, Reason::Overloaded, "too many requests are queued");
            }
        };
        while let Some(mut exchange) = next {
            exchange.stage = Stage::List { has_turn: true };
            let mut exchange = match self.acquire_answer(exchange, MAX_PAGE + MAX_HEAD) {
                Admission::Admitted(exchange) => exchange,
                Admission::Queued => return,
                // that passes the turn on
                Admission::Rejected(exchange) => {
                    return self.reject_and_rearm(
                        worker,
                        exchange,
                        Reason::Overloaded,
                        "too many requests wait for memory",
                    );
                }
            };
            match self.page(&exchange) {
                None => {
                    exchange.memory = None;
                    return self.pause(exchange, PAUSE);
                }
                Some(Listed::Answer(answered)) => {
                    let advanced = self.reply(worker, &mut exchange, answered);
                    self.rearm_or_hand_over(exchange, advanced)
                }
                Some(Listed::Asks(work)) => {
                    // others have their turn, and the memory, meanwhile
                    exchange.memory = None;
                    exchange.stage = Stage::Call(work);
                    self.hand_over(exchange)
                }
            }
            next = self.next_of(&self.lists)
        }
    }

    /// Passes the turn on of one that is rejected.
    pub(super) fn give_up_turn(&self) {
        if let Some(mut next) = self.next_of(&self.lists) {
            next.stage = Stage::List { has_turn: true };
            self.hand_over(next)
        }
    }

    /// A page of Jobs; None if they are not known at the moment, and there is time to wait for them.
    fn page(&self, exchange: &Exchange) -> Option<Listed> {
        let has_time = exchange.arrived.elapsed() < TIME && !self.connections.shutdown.is_announced();
        match self.server.list(&exchange.id, &exchange.request, exchange.reasons.as_deref()) {
            None if has_time => None,
            None => Some(Listed::Answer(no_page(NoPage::NotNow).into())),
            listed => listed,
        }
    }
}
