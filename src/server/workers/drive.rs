//! What a worker does with a ready connection: read, plan, call, reply, and wait for its next event.

use super::{Worker, Workers};
use crate::dispatch::{Begun, Creation, Dispatch, Plan, Progress, Work, internal_error};
use crate::filter::LARGE_RUN_STACK;
use crate::http::{Reply, Request};
use crate::route::Route;
use crate::server::admission::{Decision, Task};
use crate::server::connection::{Connection, Interest, Step};
use crate::server::large_runs::{LargeRun, Queued};
use crate::server::memory::SMALL;
use crate::server::output::SMALL_BODY;
use crate::server::reply::Frame;
use crate::server::serve::{admit, log_refusal, name_of, request_id};
use crate::server::slot::Slot;
use crate::status::{Reason, Status};
use log::error;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

impl Workers {
    pub(super) fn advance(&self, worker: &mut Worker, connection: &mut Connection, readable: bool) -> Step {
        let (enabled, is_reserved) = (self.server.config.enabled, connection.is_reserved());
        let admit = |request: &Request| admit(request, enabled, is_reserved);
        let step = connection.advance(&mut worker.scratch, readable, self.bounds(), &admit);
        match step {
            // its place is for the next probe
            Step::Serve(request) => Step::Serve(Request { close: request.close || is_reserved, ..request }),
            step => step,
        }
    }

    /// Handles a connection that became readable or writable.
    pub(super) fn on_ready(&self, worker: &mut Worker, slot: Slot) {
        // one who waits for a Job stays where a wake-up finds it, unless its client has left
        let stays = |connection: &Connection| {
            (connection.parked().is_some() && !connection.has_left()).then(|| connection.parked_interest())
        };
        if let Some(mut connection) = self.connections.take_unless(slot, stays) {
            if connection.parked().is_some() {
                self.leave(slot, connection)
            } else if self.end_wait(slot, &mut connection) && connection.is_reset() {
                self.connections.close(slot, connection)
            } else {
                // if it waited for memory, the event is from before that, and it waits again
                let step = self.advance(worker, &mut connection, true);
                self.drive(worker, slot, connection, step)
            }
        }
        self.grant_memory()
    }

    /// Handles a task that another thread has handed over.
    pub(super) fn on_woken(&self, worker: &mut Worker) {
        let (task, is_last) = {
            let mut handed_over = self.handed_over();
            (handed_over.pop_front(), handed_over.is_empty())
        };
        if !is_last {
            self.connections.wake_worker() // a wake-up is lost when too many are pending
        }
        if let Some(task) = task {
            self.run(worker, task)
        }
        self.grant_memory()
    }

    fn handed_over(&self) -> MutexGuard<'_, VecDeque<Task>> {
        self.handed_over.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a task to a worker.
    pub(super) fn hand_over(&self, task: Task) {
        self.handed_over().push_back(task);
        self.connections.wake_worker()
    }

    /// The oldest of the tasks handed over that `is_wanted`.
    pub(super) fn pop_handed_over_if(&self, is_wanted: impl Fn(&Task) -> bool) -> Option<Task> {
        let mut handed_over = self.handed_over();
        let place = handed_over.iter().position(is_wanted)?;
        handed_over.remove(place)
    }

    /// Gives released memory to the requests that have waited longest.
    pub(in crate::server) fn grant_memory(&self) {
        while let Some((slot, memory)) = self.memory.next_grant() {
            self.connections.grant(slot, memory)
        }
    }

    /// Waits for the next event of the connection, unless a whole request has been received on it.
    pub(super) fn rearm(&self, slot: Slot, mut connection: Box<Connection>, step: Step) -> Option<Task> {
        match step {
            Step::Wait(interest) => self.connections.put(slot, connection, interest),
            Step::WaitForMemory(bytes) => {
                connection.wait_for_memory();
                // first into the table, where a grant finds it, then into the queue
                self.connections.put(slot, connection, Interest::Nothing);
                self.memory.wait(slot.next(), bytes);
                self.grant_memory()
            }
            Step::Close => self.connections.close(slot, connection),
            Step::Serve(request) => return Some(Task::new(slot, connection, request, self.server.config.enabled)),
        }
        None
    }

    /// Serves a whole request, then waits for the connection's next event.
    fn drive(&self, worker: &mut Worker, slot: Slot, connection: Box<Connection>, step: Step) {
        if let Some(task) = self.rearm(slot, connection, step) {
            self.run(worker, task)
        }
    }

    /// Runs a task, and those that its client has pipelined.
    fn run(&self, worker: &mut Worker, task: Task) {
        let mut next = Some(task);
        while let Some(mut task) = next {
            let known = self.answer_known(&mut task);
            let step = if let Some(progress) = known {
                let reply = match progress {
                    Progress::Done(reply) => reply,
                    Progress::Wait(waiting) => match self.wait(task, waiting) {
                        Some((back, reply)) => {
                            task = back;
                            reply
                        }
                        None => return,
                    },
                    Progress::Pause(..) => internal_error().into(), // nothing is called
                };
                self.reply(worker, &mut task, reply)
            } else if task.is_dispatch() {
                match self.admission.admit(task) {
                    Decision::Admitted(task) => return self.dispatch(worker, task),
                    Decision::Queued => return,
                    Decision::Rejected(full) => task = full,
                }
                self.reject(worker, &mut task, Reason::Overloaded, "too many requests are queued")
            } else {
                // it is answered at once
                task.request.forget_body();
                task.request.reservation = None;
                let gauges = || self.gauges();
                let answer =
                    |worker: &mut Worker| self.server.answer(&task.route, &task.request, &mut worker.client, &gauges);
                let reply = match task.route {
                    Ok(Route::List) => return self.list(worker, task),
                    _ => answer(worker),
                };
                self.reply(worker, &mut task, reply)
            };
            let Task { slot, connection, request, .. } = task;
            drop(request);
            next = self.rearm(slot, connection, step);
        }
    }

    /// Serves one admitted request, then the queued ones, oldest first; releases the permit when the queue is empty.
    fn dispatch(&self, worker: &mut Worker, task: Task) {
        let mut next = Some(task);
        while let Some(mut task) = next {
            let until = self.until(&task);
            let planned = match task.planned.take() {
                Some(work) => Ok(Plan::Ready(work)),
                None if Instant::now() > until => {
                    Err(Status::new(Reason::Overloaded, "too many requests were queued before this one"))
                }
                None => self.server.plan(&task.route, &task.request, until),
            };
            let reply = match planned {
                Err(status) => status.into(),
                Ok(Plan::Ready(work)) => {
                    self.grant_memory(); // what the request did not need
                    let progress = self.server.perform(work, &mut worker.client, until);
                    worker.client.iter_mut().for_each(|client| self.fastest.note(client.take_waited()));
                    match progress {
                        Progress::Done(reply) => reply,
                        Progress::Wait(waiting) => match self.wait(task, waiting) {
                            Some((back, reply)) => {
                                task = back;
                                reply
                            }
                            None => {
                                next = self.admission.next(None);
                                continue;
                            }
                        },
                        Progress::Pause(work, pause) => {
                            task.planned = Some(work);
                            self.later.push(Instant::now() + pause, task);
                            next = self.admission.next(None);
                            continue;
                        }
                    }
                }
                Ok(Plan::NeedsLargeRun(begun)) => {
                    self.queue_large_run(worker, LargeRun { task, begun });
                    next = self.admission.next(None);
                    continue;
                }
            };
            // the reply is sent before the permit is passed on
            let step = self.reply(worker, &mut task, reply);
            let Task { slot, connection, request, .. } = task;
            drop(request);
            let mut again = self.rearm(slot, connection, step);
            self.grant_memory();
            if let Some(other) = again.take_if(|task| !task.is_dispatch()) {
                self.hand_over(other) // it needs no permit
            }
            next = self.admission.next(again);
        }
    }

    /// When the answer to a task has to be there.
    pub(super) fn until(&self, task: &Task) -> Instant {
        let until = task.arrived + self.server.config.request_timeout;
        let until = task.planned.as_ref().and_then(|work| work.until()).map_or(until, |end| until.min(end));
        self.calls_end.get().map_or(until, |end| until.min(*end))
    }

    /// Queues a large run, and starts the thread for it if there is none.
    fn queue_large_run(&self, worker: &mut Worker, run: LargeRun) {
        match self.large_runs.push(run) {
            Queued::Waits => (),
            Queued::Rejected(task) => {
                self.reject_and_rearm(worker, *task, Reason::Overloaded, "too many large requests")
            }
            Queued::NeedsThread => {
                let Some(workers) = self.this.upgrade() else { return };
                let thread = thread::Builder::new().name("large-run".into()).stack_size(LARGE_RUN_STACK);
                if let Err(cause) = thread.spawn(move || workers.do_large_runs()) {
                    error!("cannot start a thread: {cause}");
                    while let Some(LargeRun { task, .. }) = self.large_runs.next() {
                        self.reject_and_rearm(worker, task, Reason::Overloaded, "no thread is available")
                    }
                }
            }
        }
    }

    /// Does large runs until there are none left. The tasks then go back to the workers, who call the API server.
    fn do_large_runs(&self) {
        let mut worker = Worker::without_client();
        while let Some(LargeRun { mut task, begun }) = self.large_runs.next() {
            match self.do_large_run(&task, begun) {
                Ok(work) => {
                    task.planned = Some(work);
                    task.request.forget_body();
                    self.hand_over(task)
                }
                Err(status) => {
                    let step = self.reply(&mut worker, &mut task, status.into());
                    let Task { slot, connection, request, .. } = task;
                    drop(request);
                    self.rearm_or_hand_over(slot, connection, step)
                }
            }
            self.grant_memory()
        }
    }

    fn do_large_run(&self, task: &Task, begun: Begun) -> Result<Box<Work>, Status> {
        let config = &self.server.config;
        let until = task.arrived + config.request_timeout;
        // a task that has waited longer would have no time left for the API server
        let start_by = until - config.request_timeout / 2;
        let late = || Status::new(Reason::Overloaded, "too many large requests were queued before this one");
        if Instant::now() > start_by {
            return Err(late());
        }
        let memory = self.large_runs.reserve_output(config.filter.max_output(), start_by);
        let mut memory = memory.ok_or_else(late)?;
        let wall_end = until.min(Instant::now() + config.request_timeout / 2);
        let mut work = self.server.plan_large(&task.route, &task.request, begun, wall_end)?;
        if let Dispatch::Create(Creation { manifest, .. }) = &mut work.dispatch {
            memory.shrink(manifest.json.capacity());
            manifest.reservation = Some(memory)
        }
        Ok(work)
    }

    fn frame(&self, request: &Request) -> Frame {
        Frame {
            id: request_id(request.header("x-request-id")),
            is_head: request.method() == "HEAD",
            is_http_10: request.is_http_10,
            close: request.close || self.is_draining.load(Relaxed),
        }
    }

    /// Logs and sends the reply to a task.
    pub(super) fn reply(&self, worker: &mut Worker, task: &mut Task, reply: Reply) -> Step {
        let frame = self.frame(&task.request);
        let reply = self.with_memory(reply);
        self.server.log(task, &frame, &reply);
        task.connection.reply(reply, &frame);
        self.advance(worker, &mut task.connection, false)
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

    pub(super) fn reject(&self, worker: &mut Worker, task: &mut Task, reason: Reason, message: &str) -> Step {
        let frame = self.frame(&task.request);
        let status = Status::new(reason, message);
        let known = task.planned.as_ref().map(|work| work.failure(status.clone()));
        if let Some(reply) = known.filter(|reply| reply.code == 200) {
            return self.reply(worker, task, reply);
        }
        match task.planned.as_ref().and_then(|work| work.tried()) {
            None => {
                let took = Some(task.arrived.elapsed());
                log_refusal(&frame, Some(&task.request), name_of(&task.route), &status, took);
                task.connection.reply(status.into(), &frame)
            }
            Some((job, tries)) => {
                let reply = Reply { job: Some(job.to_owned()), tries, note: Some(message.to_owned()), ..status.into() };
                self.server.log(task, &frame, &reply);
                task.connection.reply(reply, &frame)
            }
        }
        self.advance(worker, &mut task.connection, false)
    }

    /// For a thread that serves nothing itself.
    pub(super) fn reject_and_rearm(&self, worker: &mut Worker, mut task: Task, reason: Reason, message: &str) {
        if task.has_turn {
            self.give_up_turn()
        }
        let step = self.reject(worker, &mut task, reason, message);
        let Task { slot, connection, request, .. } = task;
        drop(request);
        self.rearm_or_hand_over(slot, connection, step)
    }
}

impl Request {
    /// Frees the memory of a large body that is needed no longer.
    fn forget_body(&mut self) {
        if self.bytes.len() > SMALL {
            self.bytes.truncate(self.head_len);
            self.bytes.shrink_to_fit();
            if let Some(memory) = &mut self.reservation {
                memory.shrink(self.head_len + self.bytes.capacity())
            }
        }
    }
}
