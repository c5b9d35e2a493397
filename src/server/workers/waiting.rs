//! Callers who wait for the end of a Job: their connections stand where idle ones do, until the watch wakes them, their time is over, or
//! they leave.

use super::{Worker, Workers};
use crate::dispatch::{Plan, Progress, Waiting, random};
use crate::http::Reply;
use crate::jobs::{Host, News};
use crate::kube::Job;
use crate::metrics::METRICS;
use crate::route::Route;
use crate::server::exchange::{Exchange, Look, Shutdown, Stage, Waits};
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
    pub(super) fn answer_known(&self, exchange: &mut Exchange) -> Option<Progress> {
        if !matches!((&exchange.route, &exchange.stage), (Ok(Route::Job(_) | Route::Log(_)), Stage::Plan)) {
            return None;
        }
        self.want_watch();
        let work = match self.server.plan(&exchange.route, &exchange.request, self.until(exchange)) {
            Ok(Plan::Ready(work)) => work,
            Ok(Plan::NeedsLargeRun(_)) => return None, // a lookup runs no filter
            Err(status) => return Some(status.into()),
        };
        let name = work.lookup_name()?.to_owned();
        let known = &self.server.jobs.known;
        let work = match known.now(&name) {
            Some(job) => match work.found(&job, self.server.config.enabled.pods) {
                Ok(progress) => return Some(progress),
                Err(work) => work,
            },
            None => work.or_ended(known.last(&name), self.server.config.enabled.pods),
        };
        exchange.stage = Stage::Call(work);
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

    /// Lets an exchange wait. Returns it with its reply if it is answered at once.
    pub(super) fn wait(
        &self,
        mut exchange: Box<Exchange>,
        mut waiting: Box<Waiting>,
    ) -> Option<(Box<Exchange>, Reply)> {
        if self.server.is_stopping.load(Relaxed) {
            exchange.request.close = true;
            self.note_pods(&mut waiting);
            return Some((exchange, waiting.reply_at_once().with_header("Retry-After", "1")));
        }
        if exchange.arrived + waiting.time() <= Instant::now() {
            let job = waiting.seen().clone();
            if self.asks_for_pods(&waiting) {
                exchange.stage = Stage::Call(waiting.ask_for_pods(job));
                self.hand_over(exchange);
                return None;
            }
            return Some((exchange, waiting.reply(&job)));
        }
        self.want_watch();
        let request = exchange.request.head_for_log();
        let memory = self.waiting_memory.try_reserve(waiting.size() + request.bytes.len());
        let is_full = self.server.jobs.waiters() >= self.connections.capacity().div_ceil(2);
        let Some(memory) = memory.filter(|_| !is_full) else {
            let reply = match waiting.is_lookup() {
                true => Status::new(Reason::Overloaded, "too many callers wait for Jobs").into(),
                false => waiting.reply_at_once(), // the Job is there
            };
            return Some((exchange, reply));
        };
        exchange.request = request;
        self.park(exchange, Look { waiting, since: Instant::now(), asks: false, _memory: memory }, false);
        if self.server.is_stopping.load(Relaxed) {
            self.shut_down(Shutdown::IsAnnounced) // it came meanwhile
        }
        None
    }

    /// Lets an exchange wait for the end of its Job. `was_found`: a call has just found the Job.
    fn park(&self, exchange: Box<Exchange>, look: Look, was_found: bool) {
        let time = look.waiting.time();
        let until = exchange.arrived + time - (time / 4).min(QUESTION);
        let version = look.waiting.seen().version;
        self.put_back(exchange, look, version, until, was_found);
    }

    /// Puts an exchange where a wake-up finds it, then looks whether its Job has ended meanwhile. Returns its slot.
    /// `version`: as [`Jobs::register`](crate::jobs::Jobs::register) has it.
    fn put_back(&self, mut exchange: Box<Exchange>, look: Look, version: u64, until: Instant, was_found: bool) -> Slot {
        let (seen, jobs, mut slot) = (look.waiting.seen().clone(), &self.server.jobs, exchange.slot);
        exchange.stage = Stage::Look(look);
        self.connections.park(exchange, Waits::Job, until, |waiter| {
            slot = waiter;
            jobs.register(&seen, version, waiter);
            true
        });
        if let Some(news) = jobs.look(&seen, &slot, was_found, self)
            && jobs.leave(&seen.name, &slot)
        {
            self.wake(slot, news)
        }
        slot
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
    fn answer_with(&self, mut exchange: Box<Exchange>, look: Look, job: Arc<Job>) {
        if self.asks_for_pods(&look.waiting) {
            let end = (exchange.arrived + look.waiting.time()).max(Instant::now() + LEAST_QUESTION);
            exchange.stage = Stage::Call(look.waiting.ask_for_pods(job).by(end));
            exchange.arrived = Instant::now();
            return self.hand_over(exchange);
        }
        self.answer(exchange, look, |waiting| waiting.reply(&job))
    }

    fn answer(&self, mut exchange: Box<Exchange>, look: Look, reply: impl FnOnce(Waiting) -> Reply) {
        let Look { mut waiting, since, .. } = look;
        self.note_pods(&mut waiting);
        let mut reply = reply(*waiting);
        if self.server.is_stopping.load(Relaxed) {
            exchange.request.close = true;
            reply = reply.with_header("Retry-After", "1")
        }
        let mut worker = Worker::without_client();
        let step = self.reply(&mut worker, &mut exchange, Reply { waited: since.elapsed(), ..reply });
        self.rearm_or_hand_over(exchange, step)
    }

    /// The time of one who waits is over, or nearly so. Answers with the Job as it is; where that is not known, asks for it first. `has_missed`:
    /// news that came for it just now have found nobody.
    pub(super) fn end_wait_of(&self, mut exchange: Box<Exchange>, has_missed: bool) {
        let Stage::Look(mut look) = exchange.take_stage() else { return self.connections.close(exchange) };
        let (now, time, known) = (Instant::now(), look.waiting.time(), &self.server.jobs.known);
        let (end, name) = (exchange.arrived + time, look.waiting.name().to_owned());
        let is_known = known.now(&name).is_some_and(|job| look.waiting.is_about(&job));
        let call = if known.is_current() { LEAST_QUESTION } else { QUESTION };
        // what takes a call begins before the end, so that the answer leaves in time
        let over = match !is_known || self.asks_for_pods(&look.waiting) {
            true => end - (time / 4).min(call),
            false => end,
        };
        if look.asks || is_known && now >= over {
            return self.answer_now(exchange, look);
        }
        look.asks = now >= over;
        let until = if look.asks { end.max(now + LEAST_QUESTION) } else { over };
        let asks = look.asks || has_missed;
        let slot = self.put_back(exchange, look, 0, until, false); // its version may be of another history by now
        if asks {
            self.server.jobs.ask_for(&name, &slot, until, self)
        }
    }

    /// Answers one who waits now, with the Job as it is if that is known, and with what is known else: its time is over, the dispatcher stops, or its
    /// place is needed.
    pub(super) fn answer_now(&self, exchange: Box<Exchange>, look: Look) {
        let known = &self.server.jobs.known;
        match known.now(look.waiting.name()).filter(|job| look.waiting.is_about(job)) {
            Some(job) => self.answer_with(exchange, look, job),
            None => self.answer_unconfirmed(exchange, look),
        }
    }

    /// Answers the one who has waited longest, and closes its connection, to have its place. Returns whether there was one.
    pub(in crate::server) fn evict_waiter(&self) -> bool {
        let Some(mut exchange) = self.connections.take_oldest_waiter() else { return false };
        self.unqueue(&exchange);
        METRICS.connection_evicted();
        if let Stage::Look(Look { mut waiting, since, .. }) = exchange.take_stage() {
            self.note_pods(&mut waiting);
            let known = &self.server.jobs.known;
            let reply = match known.now(waiting.name()).filter(|job| waiting.is_about(job)) {
                Some(job) => waiting.reply(&job),
                None => {
                    let last = known.last(waiting.name());
                    waiting.reply_unconfirmed(last, since.elapsed())
                }
            };
            exchange.request.close = true;
            let reply = Reply { waited: since.elapsed(), ..reply.with_header("Retry-After", "1") };
            // what its client does not take at once is lost
            self.reply(&mut Worker::without_client(), &mut exchange, reply);
        }
        self.connections.close(exchange);
        true
    }

    /// Answers with what is known, and how old it is.
    fn answer_unconfirmed(&self, exchange: Box<Exchange>, look: Look) {
        let (last, waited) = (self.server.jobs.known.last(look.waiting.name()), look.since.elapsed());
        self.answer(exchange, look, |waiting| waiting.reply_unconfirmed(last, waited))
    }
}

impl Host<Slot> for Workers {
    fn wake(&self, slot: Slot, news: News) {
        let Some(mut exchange) = self.connections.take(slot) else { return };
        let Stage::Look(mut look) = exchange.take_stage() else { return self.connections.close(exchange) };
        match news {
            News::Is(job) if look.waiting.is_about(&job) => {
                if job.situation.state.is_final() || look.asks {
                    self.answer_with(exchange, look, job)
                } else {
                    look.waiting.see(job);
                    self.park(exchange, look, true)
                }
            }
            News::Is(_) | News::Gone => self.answer(exchange, look, Waiting::reply_gone),
            News::Unknown => self.answer_unconfirmed(exchange, look),
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
