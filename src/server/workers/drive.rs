//! What a worker does with a ready connection: read, plan, call, reply, and wait for its next event.

use super::admission::Admission;
use super::waiting::Looked;
use super::{Worker, Workers};
use crate::account::Kind;
use crate::dispatch::{Plan, Progress};
use crate::http::Request;
use crate::server::connection::{Advanced, Connection};
use crate::server::exchange::{Exchange, Stage, Then, Waits};
use crate::server::memory::SMALL;
use crate::server::slot::Slot;
use crate::status::{Reason, Status, internal_error};
use std::time::{Duration, Instant};

/// How long an exchange waits for a worker at least, though its time is over: its worker says what became of it.
const WORKER: Duration = Duration::from_secs(1);

impl Workers {
    pub(super) fn advance(&self, worker: &mut Worker, connection: &mut Connection, readable: bool) -> Advanced {
        let is_reserved = connection.is_reserved();
        let admit = |request: &Request| self.server.admit(request, is_reserved);
        let advanced = connection.advance(&mut worker.scratch, readable, self.bounds(), &admit);
        match advanced {
            // its place is for the next probe
            Advanced::Serve(request) => Advanced::Serve(Request { close: request.close || is_reserved, ..request }),
            advanced => advanced,
        }
    }

    /// Handles an exchange whose connection became readable or writable.
    pub(super) fn on_ready(&self, worker: &mut Worker, slot: Slot) {
        // one that does not wait for its client stays where a wake-up finds it, unless its client has left
        let stays = |exchange: &Exchange| match exchange.waits {
            Waits::Client(_) => None,
            Waits::Memory(_) if matches!(exchange.stage, Stage::Receive) => None,
            _ if exchange.connection.has_left() => None,
            waits => exchange.interest(waits),
        };
        if let Some(mut exchange) = self.connections.take_unless(slot, stays) {
            self.unqueue(&exchange);
            match exchange.waits {
                // if it waited for memory, the event is from before that, and it waits again
                Waits::Client(_) => self.drive(worker, exchange),
                Waits::Memory(_) if matches!(exchange.stage, Stage::Receive) && !exchange.connection.is_reset() => {
                    self.drive(worker, exchange)
                }
                _ => match exchange.on_client_left() {
                    Then::Close => {
                        self.tell_others(&mut exchange, None);
                        self.connections.close(exchange)
                    }
                    _ => self.hand_over(exchange),
                },
            }
        }
        self.grant_memory()
    }

    /// Drives an exchange that another thread has handed over.
    pub(super) fn on_woken(&self, worker: &mut Worker) {
        let mut exchange = None;
        while exchange.is_none()
            && let Some((slot, ())) = self.ready.pop_if(|()| Some(()))
        {
            exchange = self.connections.take(slot) // unless its wait is over
        }
        if self.ready.len() > 0 {
            self.connections.wake_worker() // a wake-up is lost when too many are pending
        }
        if let Some(exchange) = exchange {
            self.drive(worker, exchange)
        }
        self.grant_memory()
    }

    /// Leaves an exchange to a worker.
    pub(super) fn hand_over(&self, exchange: Box<Exchange>) {
        let deadline = match exchange.stage {
            Stage::Receive => exchange.connection.deadline(),
            _ => exchange.arrived + self.server.config.request_timeout,
        };
        let deadline = deadline.max(Instant::now() + WORKER);
        self.connections.park(exchange, Waits::Worker, deadline, |slot| {
            self.ready.push(slot, ());
            true
        });
        self.connections.wake_worker()
    }

    /// Waits for the next event of the connection, unless a whole request has been received on it.
    pub(super) fn rearm(&self, mut exchange: Box<Exchange>, advanced: Advanced) -> Option<Box<Exchange>> {
        let deadline = exchange.connection.deadline();
        match advanced {
            Advanced::Wait(interest) => {
                self.connections.park(exchange, Waits::Client(interest), deadline, |_| true);
            }
            Advanced::WaitForMemory(kind, bytes) => self.wait_for_memory(exchange, kind, bytes, deadline),
            Advanced::Close => self.connections.close(exchange),
            Advanced::Serve(request) => {
                exchange.begin(request, &self.server);
                return Some(exchange);
            }
        }
        None
    }

    /// Drives an exchange, and the requests that its client has pipelined, until it has to wait.
    pub(super) fn drive(&self, worker: &mut Worker, exchange: Box<Exchange>) {
        let mut next = Some(exchange);
        while let Some(mut exchange) = next {
            let looked = match exchange.stage {
                Stage::Receive => {
                    let advanced = self.advance(worker, &mut exchange.connection, true);
                    next = self.rearm(exchange, advanced);
                    continue;
                }
                Stage::LargeRun(_) => return self.queue_large_run(worker, exchange),
                Stage::Refused(_) => match exchange.take_stage() {
                    Stage::Refused(status) => Looked::Answers(exchange, (*status).into()),
                    _ => Looked::Answers(exchange, internal_error().into()),
                },
                Stage::Review(token) if exchange.reads_for.is_none() => self.who_calls(exchange, token),
                Stage::Form => self.convert_form(exchange),
                Stage::Answer => {
                    exchange.request.drop_body();
                    exchange.request.reservation = None;
                    let (gauges, is_stopping) = (|| self.gauges(), self.connections.shutdown.is_announced());
                    let Exchange { id, route, request, .. } = &*exchange;
                    let answered = self.server.answer(id, route, request, &mut worker.client, is_stopping, &gauges);
                    Looked::Answers(exchange, answered)
                }
                Stage::List { .. } => return self.list(worker, exchange),
                Stage::Plan if exchange.reads() => self.look_up(exchange),
                Stage::Look(_) => self.look_again(exchange),
                Stage::Review(_) | Stage::Plan | Stage::Call(_) => match self.acquire_call(exchange) {
                    Admission::Admitted(exchange) => return self.dispatch(worker, exchange),
                    Admission::Queued => return,
                    Admission::Rejected(mut full) => {
                        let advanced =
                            self.reject(worker, &mut full, Reason::Overloaded, "too many requests are queued");
                        next = self.rearm(full, advanced);
                        continue;
                    }
                },
            };
            next = match looked {
                Looked::Answers(mut exchange, answered) => {
                    let advanced = self.reply(worker, &mut exchange, answered);
                    self.rearm(exchange, advanced)
                }
                Looked::Calls(exchange) => Some(exchange),
                Looked::Waits => None,
            }
        }
    }

    /// What it takes to call: memory for a long answer, then a permit; or a place in the queue for them.
    fn acquire_call(&self, exchange: Box<Exchange>) -> Admission {
        let bytes = if let Stage::Call(work) = &exchange.stage { work.answer_bytes() } else { 0 };
        let exchange = match self.acquire_answer(exchange, bytes) {
            Admission::Admitted(exchange) => exchange,
            other => return other,
        };
        let timeout = self.server.config.request_timeout;
        let is_urgent = exchange.has_begun(); // few at once, for which the retry budget has a bound
        self.enter(&self.permits, exchange, Waits::Permit, timeout, is_urgent)
    }

    /// What an exchange that has a permit does.
    fn planned(&self, exchange: &mut Exchange, until: Instant) -> Result<Plan, Status> {
        match exchange.take_stage() {
            Stage::Call(work) => Ok(Plan::Ready(work)),
            Stage::Receive
            | Stage::Review(_)
            | Stage::Refused(_)
            | Stage::Form
            | Stage::Answer
            | Stage::List { .. }
            | Stage::LargeRun(_)
            | Stage::Look(_) => {
                Err(internal_error()) // these make no calls, or their own
            }
            Stage::Plan if Instant::now() > until => {
                Err(Status::new(Reason::Overloaded, "too many requests were queued before this one"))
            }
            Stage::Plan => {
                let Exchange { id, route, request, caller, .. } = exchange;
                self.server.plan(id, route, request, caller.as_deref(), until)
            }
        }
    }

    /// Serves an exchange that has a permit, then the queued ones, oldest first; releases the permit when the queue is empty.
    pub(super) fn dispatch(&self, worker: &mut Worker, exchange: Box<Exchange>) {
        let mut next = Some(exchange);
        while let Some(mut exchange) = next {
            let until = self.until(&exchange);
            if let Stage::Review(_) = exchange.stage {
                self.ask_who_calls(worker, &mut exchange, until);
                next = self.keep_or_pass_on(exchange);
                continue;
            }
            let answered = match self.planned(&mut exchange, until) {
                Err(status) => status.into(),
                Ok(Plan::Ready(mut work)) => {
                    if exchange.request.bytes.len() > SMALL {
                        exchange.request.drop_body();
                        exchange.request.shrink_memory(0)
                    }
                    self.grant_memory(); // what the request did not need
                    work.give(exchange.memory.take());
                    let progress =
                        self.server.perform(&exchange.id, work, &mut worker.client, &self.memory.account, until);
                    worker.client.iter_mut().for_each(|client| self.fastest.note(client.take_waited()));
                    match progress {
                        Progress::Done(answered) => answered,
                        Progress::Wait(waiting) => match self.wait_for_job(exchange, waiting) {
                            Looked::Answers(back, answered) => {
                                exchange = back;
                                answered
                            }
                            Looked::Calls(exchange) => {
                                next = self.keep_or_pass_on(exchange);
                                continue;
                            }
                            Looked::Waits => {
                                next = self.next_of(&self.permits);
                                continue;
                            }
                        },
                        Progress::Pause(work, pause) => {
                            exchange.stage = Stage::Call(work);
                            self.pause(exchange, pause);
                            next = self.next_of(&self.permits);
                            continue;
                        }
                        Progress::Reasons(reasons) => {
                            exchange.reasons = Some(reasons);
                            exchange.stage = Stage::List { has_turn: false };
                            next = self.pass_on(exchange);
                            continue;
                        }
                        Progress::Long(work) => {
                            exchange.stage = Stage::Call(work);
                            next = self.pass_on(exchange); // to wait for memory without a permit
                            continue;
                        }
                    }
                }
                Ok(Plan::NeedsLargeRun(begun)) => {
                    exchange.stage = Stage::LargeRun(begun);
                    self.queue_large_run(worker, exchange);
                    next = self.next_of(&self.permits);
                    continue;
                }
            };
            // the reply is sent before the permit is passed on
            let advanced = self.reply(worker, &mut exchange, answered);
            let again = self.rearm(exchange, advanced);
            self.grant_memory();
            next = self.next_or_again(again)
        }
    }

    /// For the holder of a permit: an exchange that needs one goes on with it.
    fn keep_or_pass_on(&self, exchange: Box<Exchange>) -> Option<Box<Exchange>> {
        if exchange.needs_permit() { Some(exchange) } else { self.pass_on(exchange) }
    }

    /// Leaves an exchange to a worker, and its permit to the next exchange, which is returned.
    fn pass_on(&self, exchange: Box<Exchange>) -> Option<Box<Exchange>> {
        self.hand_over(exchange);
        self.next_of(&self.permits)
    }

    /// For the holder of a permit: the next exchange, with `again`, its client's next request, as the newest.
    fn next_or_again(&self, again: Option<Box<Exchange>>) -> Option<Box<Exchange>> {
        match again {
            None => self.next_of(&self.permits),
            Some(again) if !again.needs_permit() => {
                self.hand_over(again);
                self.next_of(&self.permits)
            }
            Some(again) if self.permits.queued() > 0 => {
                let deadline = again.arrived + self.server.config.request_timeout;
                self.connections.park(again, Waits::Permit, deadline, |slot| {
                    self.permits.queue_behind(slot);
                    true
                });
                self.next_of(&self.permits)
            }
            again => again,
        }
    }

    /// Lets an exchange go on after a pause.
    pub(super) fn pause(&self, mut exchange: Box<Exchange>, pause: Duration) {
        exchange.request.drop_body();
        let held = exchange.request.held_bytes();
        self.memory.try_become(&mut exchange.request.reservation, Kind::Parked, held); // if not, the pause is short
        self.connections.park(exchange, Waits::Time, Instant::now() + pause, |_| true);
    }

    /// When the answer to an exchange has to be there.
    pub(super) fn until(&self, exchange: &Exchange) -> Instant {
        let until = exchange.arrived + self.server.config.request_timeout;
        let end = if let Stage::Call(work) = &exchange.stage { work.until() } else { None };
        let until = end.map_or(until, |end| until.min(end));
        self.connections.shutdown.calls_end().map_or(until, |end| until.min(end))
    }
}
