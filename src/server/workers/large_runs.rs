//! Large runs of the filter, one at a time, by a thread that exists while there is one.

use super::admission::Admission;
use super::{Worker, Workers};
use crate::account::Kind;
use crate::dispatch::{Begun, Creation, Dispatch, Work};
use crate::filter::LARGE_RUN_STACK;
use crate::server::exchange::{Exchange, Stage, Waits};
use crate::status::{Reason, Status, internal_error};
use log::error;
use std::thread;
use std::time::Instant;

impl Workers {
    /// Queues a large run once there is memory for it, and starts the thread if there is none.
    pub(super) fn queue_large_run(&self, worker: &mut Worker, mut exchange: Box<Exchange>) {
        // one that has waited longer would have no time left for the API server
        let time = self.server.config.request_timeout / 2;
        let bytes = exchange.request.held_bytes();
        let memory = &mut exchange.request.reservation;
        if !self.memory.try_become(memory, Kind::Large, bytes + self.memory.for_run) {
            if !self.memory.try_become(memory, Kind::Parked, bytes) {
                return self.reject_and_rearm(
                    worker,
                    exchange,
                    Reason::Overloaded,
                    "too many requests wait for memory",
                );
            }
            let deadline = exchange.arrived + time;
            return self.wait_for_memory(exchange, Kind::Large, bytes + self.memory.for_run, deadline);
        }
        let exchange = match self.enter(&self.large_runs, exchange, Waits::LargeRun, time, false) {
            Admission::Admitted(exchange) => exchange,
            Admission::Queued => return,
            Admission::Rejected(exchange) => {
                return self.reject_and_rearm(worker, exchange, Reason::Overloaded, "too many large requests");
            }
        };
        // the thread finds it in the queue
        let deadline = exchange.arrived + time;
        self.connections.park(exchange, Waits::LargeRun, deadline, |slot| {
            self.large_runs.queue_behind(slot);
            true
        });
        let Some(workers) = self.this.upgrade() else { return };
        let thread = thread::Builder::new().name("large-run".into()).stack_size(LARGE_RUN_STACK);
        if let Err(cause) = thread.spawn(move || workers.do_large_runs()) {
            error!("cannot start a thread: {cause}");
            while let Some(exchange) = self.next_of(&self.large_runs) {
                self.reject_and_rearm(worker, exchange, Reason::Overloaded, "no thread is available")
            }
        }
    }

    /// Does large runs until there are none left. The exchanges then go back to the workers, who call the API server.
    pub(super) fn do_large_runs(&self) {
        let mut worker = Worker::without_client();
        while let Some(mut exchange) = self.next_of(&self.large_runs) {
            let done = match exchange.take_stage() {
                Stage::LargeRun(begun) => self.do_large_run(&mut exchange, begun),
                _ => Err(internal_error()),
            };
            match done {
                Ok(work) => {
                    exchange.stage = Stage::Call(work);
                    self.hand_over(exchange)
                }
                Err(status) => {
                    let advanced = self.reply(&mut worker, &mut exchange, status.into());
                    self.rearm_or_hand_over(exchange, advanced)
                }
            }
            self.grant_memory()
        }
    }

    /// What comes of a large run keeps the memory of its request, without the body.
    fn do_large_run(&self, exchange: &mut Exchange, begun: Begun) -> Result<Box<Work>, Status> {
        let config = &self.server.config;
        let until = self.until(exchange);
        if Instant::now() > until - config.request_timeout / 2 {
            return Err(Status::new(Reason::Overloaded, "too many large requests were queued before this one"));
        }
        let wall_end = until.min(Instant::now() + config.request_timeout / 2);
        let mut work = {
            let Exchange { id, route, request, caller, .. } = &*exchange;
            self.server.plan_large(id, route, request, caller.as_deref(), begun, wall_end)?
        };
        let request = &mut exchange.request;
        request.drop_body();
        if let Dispatch::Create(Creation { manifest, .. }) = &mut work.dispatch {
            manifest.json.shrink_to_fit();
            request.shrink_memory(manifest.json.capacity());
            manifest.reservation = request.reservation.take()
        }
        request.shrink_memory(0);
        Ok(work)
    }
}
