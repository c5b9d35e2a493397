//! Callers that wait for the end of a Job: their connections are parked like idle ones, until the watch wakes them, their time is over, or
//! they leave. Then a worker [looks](Look::again) at the Job again.

use super::admission::Admission;
use super::{Worker, Workers};
use crate::account::Kind;
use crate::answered::Answered;
use crate::dispatch::{AnswerOrWait, Plan, Waiting, Work};
use crate::jobs::{Host, News};
use crate::kube::{Job, LONG_ANSWER};
use crate::metrics::METRICS;
use crate::random::random;
use crate::server::exchange::{Exchange, Stage, Waits};
use crate::server::look::{Facts, Look, Seen};
use crate::server::slot::Slot;
use crate::status::{Reason, Status, internal_error};
use log::error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// After a panic.
const AGAIN: Duration = Duration::from_secs(1);
/// TLS, and Jobs as they are parsed.
const STACK: usize = 256 << 10;

/// Bytes of an answer beside the Job's text.
const BESIDE: usize = 1 << 10;

/// The answer where there is no memory for a long one.
fn without_memory(look: Option<Box<Look>>) -> Answered {
    match look {
        Some(look) if !look.waiting.is_lookup() => look.waiting.answer_bare(), // the Job was created
        _ => Status::new(Reason::Overloaded, "too many requests wait for memory").into(),
    }
}

/// How an exchange continues after a look at its Job.
pub(super) enum Looked {
    Answers(Box<Exchange>, Answered),
    /// It is run again: it has to call the API server, or has memory for its answer.
    Calls(Box<Exchange>),
    /// It is parked.
    Waits,
}

impl Workers {
    /// Answers a lookup from what is known, or plans the call that it needs.
    pub(super) fn look_up(&self, mut exchange: Box<Exchange>) -> Looked {
        self.want_watch();
        let with_pods = self.server.config.enabled.pods;
        let Exchange { id, route, request, .. } = &*exchange;
        let work = match self.server.plan(id, route, request, None, self.until(&exchange)) {
            Ok(Plan::Ready(work)) => work,
            Ok(Plan::NeedsLargeRun(_)) => return Looked::Answers(exchange, internal_error().into()), // it runs no filter
            Err(status) => return Looked::Answers(exchange, status.into()),
        };
        let known = &self.server.jobs.known;
        let name = work.name();
        let work = match known.now(name) {
            Some(job) if job.is_long() && exchange.memory.is_none() => {
                return self.wait_for_answer(exchange, job.answer_bytes());
            }
            Some(job) => match work.found(&job, with_pods) {
                Ok(AnswerOrWait::Answer(answered)) => return Looked::Answers(exchange, answered),
                Ok(AnswerOrWait::Wait(waiting)) => return self.wait_for_job(exchange, waiting),
                Err(work) => work,
            },
            None => {
                let last = known.last(name);
                work.or_ended(last, with_pods)
            }
        };
        exchange.stage = Stage::Call(work);
        Looked::Calls(exchange)
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

    /// Lets an exchange wait, unless it is answered at once.
    pub(super) fn wait_for_job(&self, mut exchange: Box<Exchange>, mut waiting: Box<Waiting>) -> Looked {
        if self.connections.shutdown.is_announced() {
            exchange.request.close = true;
            self.note_pods(&mut waiting);
            return Looked::Answers(exchange, waiting.answer_at_once().with_header("Retry-After", "1"));
        }
        let is_over = exchange.arrived + waiting.time() <= Instant::now();
        if is_over && !waiting.seen().is_long() {
            let job = waiting.seen().clone();
            if self.asks_for_pods(&waiting) {
                exchange.stage = Stage::Call(Work::for_pods(*waiting, job));
                return Looked::Calls(exchange);
            }
            return Looked::Answers(exchange, waiting.answer(&job));
        }
        self.want_watch();
        let request = exchange.request.head_for_log();
        // callers that wait for the same Job share it
        let seen = waiting.seen();
        let is_shared = |job: &Arc<Job>| job.uid == seen.uid && job.version >= seen.version;
        if let Some(known) = self.server.jobs.known.now(waiting.name()).filter(is_shared) {
            waiting.see(known)
        }
        let account = &self.memory.account;
        let memory = account.try_reserve(Kind::Parked, waiting.size() + request.held_bytes());
        let text = self.texts.reserve(waiting.seen(), account);
        let is_full = self.server.jobs.waiters() >= self.connections.capacity().div_ceil(2);
        let Some((memory, text)) = memory.zip(text).filter(|_| !is_full) else {
            let answered = match waiting.is_lookup() {
                true => Status::new(Reason::Overloaded, "too many callers wait for Jobs").into(),
                false => waiting.answer_at_once(), // the Job is there
            };
            return Looked::Answers(exchange, answered);
        };
        exchange.request = request;
        let look = Box::new(Look::new(waiting, exchange.arrived, memory, text));
        let seen = if is_over { Seen::Job(look.waiting.seen().clone()) } else { look.begin(false) };
        self.go_on_after(exchange, look, seen)
    }

    /// Looks at the Job again for a caller that was woken, or whose time is over.
    pub(super) fn look_again(&self, mut exchange: Box<Exchange>) -> Looked {
        let Stage::Look(mut look) = exchange.take_stage() else {
            return Looked::Answers(exchange, internal_error().into());
        };
        let seen = look.again(self.facts(&look, self.connections.shutdown.is_announced()));
        self.go_on_after(exchange, look, seen)
    }

    fn facts(&self, look: &Look, must_end: bool) -> Facts {
        let known = &self.server.jobs.known;
        Facts {
            now: Instant::now(),
            job: known.now(look.waiting.name()),
            is_current: known.is_current(),
            with_pods: self.asks_for_pods(&look.waiting),
            must_end,
        }
    }

    fn go_on_after(&self, mut exchange: Box<Exchange>, mut look: Box<Look>, seen: Seen) -> Looked {
        match seen {
            Seen::Nothing { until, version, asks, was_found } => {
                exchange.memory = None; // others wait for it
                match self.texts.reserve(look.waiting.seen(), &self.memory.account) {
                    Some(text) => look.text = text,
                    None => {
                        let job = look.waiting.seen().clone();
                        return self.go_on_after(exchange, look, Seen::Job(job)); // there is no room to wait on
                    }
                }
                self.park(exchange, look, until, version, asks, was_found);
                Looked::Waits
            }
            Seen::Job(job) if self.asks_for_pods(&look.waiting) && !look.lacks_pods => self.share(exchange, look, job),
            Seen::Job(job) if job.is_long() && exchange.memory.is_none() => {
                let bytes = job.answer_bytes();
                match self.texts.reserve(&job, &self.memory.account) {
                    Some(text) => look.text = text,
                    None => return Looked::Answers(exchange, without_memory(Some(look))),
                }
                look.answer_later(News::Is(job));
                exchange.stage = Stage::Look(look);
                self.wait_for_answer(exchange, bytes)
            }
            Seen::Unconfirmed if look.waiting.seen().is_long() && exchange.memory.is_none() => {
                let bytes = look.waiting.seen().answer_bytes();
                look.answer_later(News::Unknown);
                exchange.stage = Stage::Look(look);
                self.wait_for_answer(exchange, bytes)
            }
            seen => {
                let is_over = self.connections.shutdown.is_announced();
                let answered = self.final_answer(&mut exchange, *look, &seen, is_over);
                Looked::Answers(exchange, answered)
            }
        }
    }

    /// Lets an exchange wait until there is memory for a long answer with so many bytes of text; then it is run again.
    pub(super) fn wait_for_answer(&self, exchange: Box<Exchange>, bytes: usize) -> Looked {
        match self.acquire_answer(exchange, (bytes + BESIDE).min(LONG_ANSWER)) {
            Admission::Admitted(exchange) => Looked::Calls(exchange),
            Admission::Queued => Looked::Waits,
            Admission::Rejected(mut exchange) => {
                let look = if let Stage::Look(look) = exchange.take_stage() { Some(look) } else { None };
                Looked::Answers(exchange, without_memory(look))
            }
        }
    }

    /// Puts an exchange where a wake-up finds it, then looks whether its Job has ended meanwhile.
    fn park(
        &self,
        mut exchange: Box<Exchange>,
        look: Box<Look>,
        until: Instant,
        version: u64,
        asks: bool,
        was_found: bool,
    ) {
        let (job, jobs, mut slot) = (look.waiting.seen().clone(), &self.server.jobs, exchange.slot);
        exchange.stage = Stage::Look(look);
        self.connections.park(exchange, Waits::Job, until, |waiter| {
            slot = waiter;
            jobs.register(&job, version, waiter);
            true
        });
        if let Some(news) = jobs.look(&job, &slot, was_found, self)
            && jobs.leave(&job.name, &slot)
        {
            self.wake(slot, news)
        } else if asks {
            jobs.ask_for(&job.name, &slot, until, self)
        }
    }

    /// The answer for a caller whose wait is over. `is_over`: the dispatcher stops, or needs its slot.
    fn final_answer(&self, exchange: &mut Exchange, mut look: Look, seen: &Seen, is_over: bool) -> Answered {
        self.note_pods(&mut look.waiting);
        let last = match seen {
            Seen::Unconfirmed => self.server.jobs.known.last(look.waiting.name()),
            Seen::Job(_) | Seen::Gone | Seen::Nothing { .. } => None,
        };
        let answered = look.answer(seen, last);
        if !is_over {
            return answered;
        }
        exchange.request.close = true;
        answered.with_header("Retry-After", "1")
    }

    /// The same at once, without its pods.
    pub(super) fn final_answer_at_once(&self, exchange: &mut Exchange, mut look: Box<Look>, is_over: bool) -> Answered {
        let seen = look.again(self.facts(&look, true));
        self.final_answer(exchange, *look, &seen, is_over)
    }

    /// An answer with the Job alone says that its pods are missing, where they belong to it.
    fn note_pods(&self, waiting: &mut Waiting) {
        if self.server.config.enabled.pods && waiting.is_lookup() {
            waiting.lack_pods()
        }
    }

    /// Whether the answer has pods. When the dispatcher stops there is no time for them.
    fn asks_for_pods(&self, waiting: &Waiting) -> bool {
        self.server.config.enabled.pods && waiting.is_lookup() && !self.connections.shutdown.is_announced()
    }

    /// Answers the caller that has waited longest, and closes its connection, to free its slot. Returns whether there was one.
    pub(in crate::server) fn evict_waiter(&self) -> bool {
        let Some(mut exchange) = self.connections.take_oldest_waiter() else { return false };
        self.unqueue(&exchange);
        METRICS.connection_evicted();
        if let Stage::Look(look) = exchange.take_stage() {
            let answered = self.final_answer_at_once(&mut exchange, look, true);
            // what its client does not take at once is lost
            self.reply(&mut Worker::without_client(), &mut exchange, answered);
        }
        self.connections.close(exchange);
        true
    }
}

impl Host<Slot> for Workers {
    fn wake(&self, slot: Slot, news: News) {
        let Some(mut exchange) = self.connections.take(slot) else { return };
        if let Stage::Look(look) = &mut exchange.stage {
            look.news = Some(news)
        }
        self.hand_over(exchange)
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
