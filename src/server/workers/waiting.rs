//! Callers who wait for the end of a Job: their connections stand where idle ones do, until the watch wakes them, their time is over, or
//! they leave.

use super::{Worker, Workers};
use crate::dispatch::{Plan, Progress, Waiting, random};
use crate::http::Reply;
use crate::jobs::News;
use crate::kube::Job;
use crate::route::Route;
use crate::server::admission::Task;
use crate::server::connection::{Connection, Parked};
use crate::server::connections::Slot;
use crate::server::memory::Ticket;
use crate::status::{Reason, Status};
use log::error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

/// After a panic.
const AGAIN: Duration = Duration::from_secs(1);
/// TLS, and Jobs as they are parsed.
const STACK: usize = 256 << 10;

impl Workers {
    /// Answers a lookup from what the watch tells; None if it needs a call, for which it is planned then.
    pub(super) fn answer_known(&self, task: &mut Task) -> Option<Progress> {
        if matches!(task.route, Ok(Route::Job(_) | Route::Log(_) | Route::List)) {
            self.want_watch()
        }
        if !matches!(task.route, Ok(Route::Job(_) | Route::Log(_))) || task.planned.is_some() {
            return None;
        }
        let work = match self.server.plan(&task.route, &task.request, self.until(task)) {
            Ok(Plan::Ready(work)) => work,
            Ok(Plan::NeedsLargeRun(_)) => return None, // a lookup runs no filter
            Err(status) => return Some(status.into()),
        };
        match work.lookup_name().and_then(|name| self.server.jobs.known(name)) {
            Some(job) => match work.found(&job, self.server.config.enabled.pods) {
                Ok(progress) => return Some(progress),
                Err(work) => task.planned = Some(work),
            },
            None => task.planned = Some(work),
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
            let wake = |(slot, ticket), news| workers.wake(slot, ticket, news);
            let (jobs, namespace) = (&workers.server.jobs, &workers.server.config.namespace);
            loop {
                // ureq's resolver panics when the system has no more threads
                let _ = catch_unwind(AssertUnwindSafe(|| jobs.follow(&server, namespace, &wake, &random)));
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
    pub(super) fn wait(&self, mut task: Task, waiting: Box<Waiting>) -> Option<(Task, Reply)> {
        if self.server.is_stopping.load(Relaxed) {
            task.request.close = true;
            return Some((task, waiting.reply_at_once().with_header("Retry-After", "1")));
        }
        let until = task.arrived + waiting.time();
        if until <= Instant::now() {
            if self.asks_for_pods(&waiting) {
                task.planned = Some(waiting.ask_for_pods(None));
                self.hand_over(task);
                return None;
            }
            return Some((task, waiting.reply(None)));
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
        let (name, seen, ticket) = (waiting.name().to_owned(), waiting.seen(), self.memory.ticket());
        let Task { slot, mut connection, route, arrived, request: whole, .. } = task;
        drop(whole);
        let since = Instant::now();
        let jobs = &self.server.jobs;
        jobs.register(&name, &seen, (slot, ticket));
        connection.park(Box::new(Parked { waiting, request, route, arrived, since, ticket, _memory: memory }), until);
        let interest = connection.parked_interest();
        self.connections.put(slot, connection, interest);
        if let Some(news) = jobs.look(&name, &seen, &(slot, ticket)) {
            jobs.leave(&name, &(slot, ticket));
            self.wake(slot, ticket, news)
        }
        if self.server.is_stopping.load(Relaxed) {
            self.answer_waiting() // those who came meanwhile
        }
        self.wake_expirer();
        None
    }

    /// Tells one who waits.
    fn wake(&self, slot: Slot, ticket: Ticket, news: News) {
        let is_it = |connection: &Connection| connection.parked().is_some_and(|parked| parked.ticket == ticket);
        let Some(mut connection) = self.connections.take_if(slot, is_it) else { return };
        let Some(parked) = connection.unpark() else { return };
        match news {
            News::Last(job) => self.tell(slot, connection, *parked, Some(&job)),
            News::Unknown if parked.waiting.is_lookup() => self.look_up(slot, connection, *parked),
            News::Unknown => self.tell(slot, connection, *parked, None),
        }
    }

    /// Answers one who waits by a call: nothing else knows how the Job is now. What is left of its time it goes on waiting, unless the watch
    /// knows all Jobs, and not this one.
    fn look_up(&self, slot: Slot, connection: Box<Connection>, parked: Parked) {
        let Parked { waiting, request, route, arrived, .. } = parked;
        let left = match self.server.jobs.knows_all() {
            true => Duration::ZERO,
            false => (arrived + waiting.time()).saturating_duration_since(Instant::now()),
        };
        let planned = Some(waiting.look_up(left));
        self.hand_over(Task { slot, connection, request, route, arrived: Instant::now(), planned })
    }

    /// Whether the answer has pods. When the dispatcher stops there is no time for them.
    fn asks_for_pods(&self, waiting: &Waiting) -> bool {
        self.server.config.enabled.pods && waiting.is_lookup() && !self.server.is_stopping.load(Relaxed)
    }

    fn tell(&self, slot: Slot, connection: Box<Connection>, parked: Parked, job: Option<&Arc<Job>>) {
        let Parked { waiting, mut request, route, arrived, since, .. } = parked;
        let is_stopping = self.server.is_stopping.load(Relaxed);
        if self.asks_for_pods(&waiting) {
            let planned = Some(waiting.ask_for_pods(job));
            return self.hand_over(Task { slot, connection, request, route, arrived: Instant::now(), planned });
        }
        let mut reply = waiting.reply(job.map(|job| &**job));
        if is_stopping {
            request.close = true;
            reply = reply.with_header("Retry-After", "1")
        }
        let mut task = Task { slot, connection, request, route, arrived, planned: None };
        let mut worker = Worker::without_client();
        let step = self.reply(&mut worker, &mut task, Reply { waited: since.elapsed(), ..reply });
        let Task { slot, connection, request, .. } = task;
        drop(request);
        self.rearm_or_hand_over(slot, connection, step)
    }

    /// Answers one who waits with what is known now.
    pub(super) fn answer_parked(&self, slot: Slot, mut connection: Box<Connection>) {
        let Some(parked) = connection.unpark() else { return self.connections.close(slot, connection) };
        let (jobs, name) = (&self.server.jobs, parked.waiting.name());
        jobs.leave(name, &(slot, parked.ticket));
        let newest = jobs.newest(name);
        if parked.waiting.is_lookup() && !jobs.is_live() && !self.server.is_stopping.load(Relaxed) {
            return self.look_up(slot, connection, *parked);
        }
        self.tell(slot, connection, *parked, newest.as_ref())
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
            self.server.jobs.leave(parked.waiting.name(), &(slot, parked.ticket));
        }
        self.connections.close(slot, connection)
    }
}
