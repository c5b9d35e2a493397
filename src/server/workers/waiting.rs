//! Callers who wait for the end of a Job: their connections stand where idle ones do, until the watch wakes them, their time is over, or
//! they leave.

use super::{Worker, Workers};
use crate::dispatch::{Plan, Progress, Waiting, random};
use crate::http::Reply;
use crate::jobs::{Host, News};
use crate::kube::Job;
use crate::metrics::METRICS;
use crate::route::Route;
use crate::server::admission::Task;
use crate::server::connection::{Connection, Parked};
use crate::server::slot::Slot;
use crate::status::{Reason, Status};
use log::error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// After a panic.
const AGAIN: Duration = Duration::from_secs(1);
/// How long before the end of a wait a Job is asked for while no watch tells of it, so that the answer leaves in time; or a quarter of the wait.
const QUESTION: Duration = Duration::from_secs(2);
/// How long it is asked for at least: the watch may have ended in the last moment. Also how long before the end a call is made while the watch
/// goes on: for pods, or for a Job that is being deleted.
const LEAST_QUESTION: Duration = Duration::from_millis(500);
/// TLS, and Jobs as they are parsed.
const STACK: usize = 256 << 10;

impl Workers {
    /// Answers a lookup from what is known; None if it needs a call, for which it is planned then.
    pub(super) fn answer_known(&self, task: &mut Task) -> Option<Progress> {
        if !matches!(task.route, Ok(Route::Job(_) | Route::Log(_))) || task.planned.is_some() {
            return None;
        }
        self.want_watch();
        let work = match self.server.plan(&task.route, &task.request, self.until(task)) {
            Ok(Plan::Ready(work)) => work,
            Ok(Plan::NeedsLargeRun(_)) => return None, // a lookup runs no filter
            Err(status) => return Some(status.into()),
        };
        let name = work.lookup_name()?.to_owned();
        let known = &self.server.jobs.known;
        match known.now(&name) {
            Some(job) => match work.found(&job, self.server.config.enabled.pods) {
                Ok(progress) => return Some(progress),
                Err(work) => task.planned = Some(work),
            },
            None => task.planned = Some(work.or_ended(known.last(&name), self.server.config.enabled.pods)),
        }
        None
    }

    /// Starts the watch when somebody asks for a Job for the first time.
    pub(in crate::server) fn want_watch(&self) {
        let Some(server) = &self.server.config.api_server else { return };
        if !self.server.jobs.want() {
            return;
        }
        let (Some(workers), server) = (self.this.upgrade(), server.clone()) else { return };
        let follow = move || {
            let (jobs, config) = (&workers.server.jobs, &workers.server.config);
            loop {
                // ureq's resolver panics when the system has no more threads
                let follow = || jobs.follow(&server, &config.namespace, config.watch, &*workers, &random);
                let _ = catch_unwind(AssertUnwindSafe(follow));
                jobs.lose();
                thread::sleep(AGAIN)
            }
        };
        if let Err(cause) = thread::Builder::new().name("watch".into()).stack_size(STACK).spawn(follow) {
            error!("cannot start a thread: {cause}");
            self.server.jobs.want_no_more()
        }
    }

    /// Lets a task wait. Returns it with its reply if it is answered at once.
    pub(super) fn wait(&self, mut task: Task, mut waiting: Box<Waiting>) -> Option<(Task, Reply)> {
        if self.server.is_stopping.load(Relaxed) {
            task.request.close = true;
            self.note_pods(&mut waiting);
            return Some((task, waiting.reply_at_once().with_header("Retry-After", "1")));
        }
        let until = task.arrived + waiting.time();
        if until <= Instant::now() {
            let job = waiting.seen().clone();
            if self.asks_for_pods(&waiting) {
                task.planned = Some(waiting.ask_for_pods(job));
                self.hand_over(task);
                return None;
            }
            return Some((task, waiting.reply(&job)));
        }
        self.want_watch();
        let request = task.request.head_for_log();
        let memory = self.waiting_memory.try_reserve(waiting.size() + request.bytes.len());
        let is_full = self.server.jobs.waiters() >= self.connections.capacity().div_ceil(2);
        let Some(memory) = memory.filter(|_| !is_full) else {
            let reply = match waiting.is_lookup() {
                true => Status::new(Reason::Overloaded, "too many callers wait for Jobs").into(),
                false => waiting.reply_at_once(), // the Job is there
            };
            return Some((task, reply));
        };
        let Task { slot, connection, route, arrived, request: whole, .. } = task;
        drop(whole);
        let since = Instant::now();
        let parked = Parked { waiting, request, route, arrived, since, asks: false, _memory: memory };
        self.park(slot, connection, parked, false);
        if self.server.is_stopping.load(Relaxed) {
            self.answer_waiting() // those who came meanwhile
        }
        self.wake_expirer();
        None
    }

    /// Lets a connection wait for the end of its Job. `was_found`: a call has just found the Job.
    fn park(&self, slot: Slot, connection: Box<Connection>, parked: Parked, was_found: bool) {
        let until = parked.end() - (parked.waiting.time() / 4).min(QUESTION);
        self.put_back(slot, connection, parked, until, was_found)
    }

    /// Puts a connection where a wake-up finds it, then looks whether it has missed one.
    fn put_back(&self, slot: Slot, mut connection: Box<Connection>, parked: Parked, until: Instant, was_found: bool) {
        let (seen, waiter) = (parked.waiting.seen().clone(), slot.next());
        let jobs = &self.server.jobs;
        jobs.register(&seen, waiter);
        connection.park(Box::new(parked), until);
        let interest = connection.parked_interest();
        self.connections.put(slot, connection, interest);
        if let Some(news) = jobs.look(&seen, &waiter, was_found, self) {
            jobs.leave(&seen.name, &waiter);
            self.wake(waiter, news)
        }
    }

    /// An answer with the Job alone says that its pods are missing, where they belong to it.
    fn note_pods(&self, waiting: &mut Waiting) {
        if self.server.config.enabled.pods && waiting.is_lookup() {
            waiting.lack_pods()
        }
    }

    /// Whether the answer has pods. When the dispatcher stops there is no time for them.
    fn asks_for_pods(&self, waiting: &Waiting) -> bool {
        self.server.config.enabled.pods && waiting.is_lookup() && !self.server.is_stopping.load(Relaxed)
    }

    /// Answers one who has waited, with the Job as it is now.
    fn answer_with(&self, slot: Slot, connection: Box<Connection>, parked: Parked, job: Arc<Job>) {
        if self.asks_for_pods(&parked.waiting) {
            let end = parked.end().max(Instant::now() + LEAST_QUESTION);
            let Parked { waiting, request, route, .. } = parked;
            let planned = Some(waiting.ask_for_pods(job).by(end));
            return self.hand_over(Task {
                slot,
                connection,
                request,
                route,
                arrived: Instant::now(),
                planned,
                has_turn: false,
            });
        }
        self.answer(slot, connection, parked, |waiting| waiting.reply(&job))
    }

    fn answer(&self, slot: Slot, connection: Box<Connection>, parked: Parked, reply: impl FnOnce(Waiting) -> Reply) {
        let Parked { mut waiting, mut request, route, arrived, since, .. } = parked;
        self.note_pods(&mut waiting);
        let mut reply = reply(*waiting);
        if self.server.is_stopping.load(Relaxed) {
            request.close = true;
            reply = reply.with_header("Retry-After", "1")
        }
        let mut task = Task { slot, connection, request, route, arrived, planned: None, has_turn: false };
        let mut worker = Worker::without_client();
        let step = self.reply(&mut worker, &mut task, Reply { waited: since.elapsed(), ..reply });
        let Task { slot, connection, request, .. } = task;
        drop(request);
        self.rearm_or_hand_over(slot, connection, step)
    }

    /// The time of one who waits is over, or nearly so. Answers with the Job as it is; where that is not known, asks for it first.
    pub(super) fn end_wait_of(&self, slot: Slot, mut connection: Box<Connection>) {
        let Some(mut parked) = connection.unpark() else { return self.connections.close(slot, connection) };
        let (now, end, known) = (Instant::now(), parked.end(), &self.server.jobs.known);
        let name = parked.waiting.name().to_owned();
        let is_known = known.now(&name).is_some_and(|job| parked.waiting.is_about(&job));
        let call = if known.is_current() { LEAST_QUESTION } else { QUESTION };
        // what takes a call begins before the end, so that the answer leaves in time
        let over = match !is_known || self.asks_for_pods(&parked.waiting) {
            true => end - (parked.waiting.time() / 4).min(call),
            false => end,
        };
        if parked.asks || is_known && now >= over {
            connection.park(parked, now);
            return self.answer_parked(slot, connection);
        }
        // news that came for this wait just now have found nobody
        let has_missed = !self.server.jobs.leave(&name, &slot);
        parked.asks = now >= over;
        let (asks, until) = (parked.asks || has_missed, if parked.asks { end.max(now + LEAST_QUESTION) } else { over });
        self.put_back(slot, connection, *parked, until, false);
        if asks {
            self.server.jobs.ask_for(&name, &slot.next(), until, self)
        }
    }

    /// Answers one who waits now, with the Job as it is if that is known, and with what is known else: its time is over, the dispatcher stops, or its
    /// place is needed.
    fn answer_parked(&self, slot: Slot, mut connection: Box<Connection>) {
        let Some(parked) = connection.unpark() else { return self.connections.close(slot, connection) };
        let jobs = &self.server.jobs;
        let name = parked.waiting.name().to_owned();
        jobs.leave(&name, &slot);
        match jobs.known.now(&name).filter(|job| parked.waiting.is_about(job)) {
            Some(job) => self.answer_with(slot, connection, *parked, job),
            None => self.answer_unconfirmed(slot, connection, *parked),
        }
    }

    /// Answers the one who has waited longest, and closes its connection, to have its place. Returns whether there was one.
    pub(in crate::server) fn evict_waiter(&self) -> bool {
        let Some((slot, mut connection)) = self.connections.take_oldest_waiter() else { return false };
        let Some(parked) = connection.unpark() else { return false };
        METRICS.connection_evicted();
        let Parked { mut waiting, mut request, route, arrived, since, .. } = *parked;
        self.note_pods(&mut waiting);
        let known = &self.server.jobs.known;
        self.server.jobs.leave(waiting.name(), &slot);
        let reply = match known.now(waiting.name()).filter(|job| waiting.is_about(job)) {
            Some(job) => waiting.reply(&job),
            None => {
                let last = known.last(waiting.name());
                waiting.reply_unconfirmed(last, since.elapsed())
            }
        };
        request.close = true;
        let mut task = Task { slot, connection, request, route, arrived, planned: None, has_turn: false };
        let reply = Reply { waited: since.elapsed(), ..reply.with_header("Retry-After", "1") };
        // what its client does not take at once is lost
        self.reply(&mut Worker::without_client(), &mut task, reply);
        self.connections.close(slot, task.connection);
        true
    }

    /// Answers with what is known, and how old it is.
    fn answer_unconfirmed(&self, slot: Slot, connection: Box<Connection>, parked: Parked) {
        let (last, waited) = (self.server.jobs.known.last(parked.waiting.name()), parked.since.elapsed());
        self.answer(slot, connection, parked, |waiting| waiting.reply_unconfirmed(last, waited))
    }

    /// Answers all who wait, because the dispatcher stops.
    pub(in crate::server) fn answer_waiting(&self) {
        if self.server.jobs.waiters() > 0 {
            let is_parked = |connection: &Connection| connection.parked().is_some();
            self.connections.take_each(is_parked, |slot, connection| self.answer_parked(slot, connection))
        }
    }

    /// The client of a waiting connection has left.
    pub(super) fn leave(&self, slot: Slot, mut connection: Box<Connection>) {
        if let Some(parked) = connection.unpark() {
            self.server.jobs.leave(parked.waiting.name(), &slot);
        }
        self.connections.close(slot, connection)
    }
}

impl Host<Slot> for Workers {
    fn wake(&self, slot: Slot, news: News) {
        let Some(mut connection) = self.connections.take(slot) else { return };
        let Some(mut parked) = connection.unpark() else { return self.connections.close(slot, connection) };
        match news {
            News::Is(job) if parked.waiting.is_about(&job) => {
                if job.situation.state.is_final() || parked.asks {
                    self.answer_with(slot, connection, *parked, job)
                } else {
                    parked.waiting.see(job);
                    self.park(slot, connection, *parked, true)
                }
            }
            News::Is(_) | News::Gone => self.answer(slot, connection, *parked, Waiting::reply_gone),
            News::Unknown => self.answer_unconfirmed(slot, connection, *parked),
        }
    }

    fn start_asking(&self) {
        let (Some(workers), Some(server)) = (self.this.upgrade(), &self.server.config.api_server) else { return };
        let server = server.clone();
        let ask = move || {
            let (jobs, namespace) = (&workers.server.jobs, &workers.server.config.namespace);
            if catch_unwind(AssertUnwindSafe(|| jobs.answer(&server, namespace, &*workers))).is_err() {
                jobs.ask_nothing(&*workers)
            }
        };
        if let Err(cause) = thread::Builder::new().name("ask".into()).stack_size(STACK).spawn(ask) {
            error!("cannot start a thread: {cause}");
            self.server.jobs.ask_nothing(self)
        }
    }
}
