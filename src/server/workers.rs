//! The worker threads: each takes a ready connection, serves its whole request, and puts it back.
//!
//! Threads block on the API server only. The core threads (four a core) always run; a ready connection waits for the next of them,
//! which costs no context switch. Only when none has been idle for a tick are extra threads spawned, a few at a time: up to one for
//! each call that may be in flight, one for the readiness check, and one that never calls, so that it answers `/health/live` while
//! every call hangs.

use super::admission::{Admission, Decision, MAX_IN_FLIGHT, Task};
use super::connection::{Bounds, Connection, Interest, SMALL, Step};
use super::connections::{Connections, Slot};
use super::reply::Frame;
use super::serve::{Server, admit, log_refusal, request_id};
use crate::filter::THREAD_STACK;
use crate::http::Request;
use crate::kube::Client;
use crate::metrics::Gauges;
use crate::status::{Reason, Status};
use log::warn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Bytes of unanswered requests, of all connections together: partly received, queued, or in flight. A container has 64 MiB.
const MAX_BUFFERED: usize = 24 << 20;
const TICK: Duration = Duration::from_millis(1);
/// Threads spawned per tick: each brings a TLS handshake of about a millisecond.
const PER_TICK: usize = 4;
/// Ticks without need after which the scaler sleeps.
const QUIET_TICKS: u32 = 64;
/// How long an extra thread stays idle before it ends, while calls are slow.
const LINGER: Duration = Duration::from_secs(10);
const SCRATCH: usize = 32 << 10;

#[derive(Debug)]
pub(super) struct Workers {
    pub(super) server: Server,
    pub(super) connections: Connections,
    core_threads: usize,
    /// Running threads.
    threads: AtomicUsize,
    /// Threads that wait for a ready connection.
    idle: AtomicUsize,
    /// How often a thread has come back to wait.
    iterations: AtomicU64,
    /// Moving average of how long a dispatch waits for the API server, in microseconds.
    average: AtomicU64,
    admission: Admission,
    scaler: OnceLock<Thread>,
    scaler_sleeps: AtomicBool,
    /// Connections are closed after their replies.
    pub(super) is_draining: AtomicBool,
}

/// What one thread owns.
struct Worker {
    client: Option<Client>,
    scratch: Vec<u8>,
}

impl Workers {
    pub(super) fn new(server: Server, connections: Connections) -> Arc<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Workers {
            server,
            connections,
            core_threads: (4 * cores).min(MAX_IN_FLIGHT),
            threads: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            iterations: AtomicU64::new(0),
            average: AtomicU64::new(0),
            admission: Admission::default(),
            scaler: OnceLock::new(),
            scaler_sleeps: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
        })
    }

    /// Starts the core threads, and the scaler that spawns more.
    pub(super) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        for _ in 0..self.core_threads {
            self.spawn_worker(true)?;
        }
        let workers = self.clone();
        let scaler = thread::Builder::new().name("scaler".into()).spawn(move || workers.scale())?;
        let _ = self.scaler.set(scaler.thread().clone());
        Ok(())
    }

    fn spawn_worker(self: &Arc<Self>, stays: bool) -> std::io::Result<()> {
        let number = self.threads.fetch_add(1, Relaxed);
        let workers = self.clone();
        let thread = thread::Builder::new().name(format!("worker-{number}")).stack_size(THREAD_STACK);
        let started = thread.spawn(move || workers.work(stays));
        if started.is_err() {
            self.threads.fetch_sub(1, Relaxed);
        }
        started.map(|_| ())
    }

    fn work(&self, stays: bool) {
        let mut worker = Worker { client: self.server.client(), scratch: vec![0; SCRATCH] };
        loop {
            let timeout = match stays {
                true => None,
                false if self.calls_are_slow() => Some(LINGER),
                false => Some(Duration::ZERO),
            };
            self.iterations.fetch_add(1, Relaxed);
            self.idle.fetch_add(1, SeqCst);
            let next = self.connections.next(timeout);
            let is_last = self.idle.fetch_sub(1, SeqCst) == 1;
            if is_last
                && self.scaler_sleeps.swap(false, SeqCst)
                && let Some(scaler) = self.scaler.get()
            {
                scaler.unpark() // no thread is idle now
            }
            match next {
                Some(slot) => self.on_ready(&mut worker, slot),
                None if stays => (), // a signal
                None => break,
            }
        }
        self.threads.fetch_sub(1, Relaxed);
    }

    fn calls_are_slow(&self) -> bool {
        self.average.load(Relaxed) > TICK.as_micros() as u64
    }

    /// Spawns more threads when none has been idle for a tick and a connection is ready.
    fn scale(self: &Arc<Self>) {
        let mut quiet = 0;
        let mut before = 0;
        loop {
            if quiet > QUIET_TICKS {
                self.scaler_sleeps.store(true, SeqCst);
                while self.idle.load(SeqCst) > 0 && self.scaler_sleeps.load(SeqCst) {
                    thread::park()
                }
                self.scaler_sleeps.store(false, SeqCst);
                quiet = 0;
            }
            thread::sleep(TICK);
            if self.idle.load(SeqCst) > 0 {
                quiet += 1;
                continue;
            }
            quiet = 0;
            let now = self.iterations.load(Relaxed);
            let is_stuck = now == std::mem::replace(&mut before, now);
            if (is_stuck || self.calls_are_slow()) && self.connections.has_next() {
                for _ in 0..PER_TICK {
                    if self.threads.load(Relaxed) >= MAX_IN_FLIGHT + 2 {
                        break;
                    }
                    if let Err(error) = self.spawn_worker(false) {
                        warn!("cannot start a thread: {error}");
                        break;
                    }
                }
            }
        }
    }

    /// Bytes that further requests may reserve.
    fn available_bytes(&self) -> usize {
        MAX_BUFFERED.max(2 * self.server.config.max_body_bytes).saturating_sub(self.connections.reserved_bytes())
    }

    fn reserve(&self, task: &mut Task) {
        task.reserved_bytes = task.request.bytes.capacity();
        self.connections.reserve(task.reserved_bytes)
    }

    fn advance(&self, worker: &mut Worker, connection: &mut Connection, readable: bool) -> Step {
        let bounds = Bounds { max_body: self.server.config.max_body_bytes, available_bytes: self.available_bytes() };
        connection.advance(&mut worker.scratch, readable, bounds, &admit)
    }

    /// Handles a connection that became readable or writable.
    fn on_ready(&self, worker: &mut Worker, slot: Slot) {
        if let Some(mut connection) = self.connections.take(slot) {
            let step = self.advance(worker, &mut connection, true);
            self.drive(worker, slot, connection, step)
        }
    }

    /// Waits for the next event of the connection, unless a whole request has been received on it.
    fn rearm(&self, slot: Slot, connection: Box<Connection>, step: Step) -> Option<Task> {
        match step {
            Step::Wait(interest) => self.connections.put(slot, connection, interest),
            Step::Close => self.connections.close(slot, connection),
            Step::Serve(request) => return Some(Task::new(slot, connection, request)),
        }
        None
    }

    /// Serves each whole request, then waits for the connection's next event.
    fn drive(&self, worker: &mut Worker, slot: Slot, connection: Box<Connection>, step: Step) {
        let mut next = self.rearm(slot, connection, step);
        while let Some(mut task) = next {
            let step = if task.is_dispatch() {
                match self.admit(task) {
                    Decision::Admitted(task) => return self.dispatch(worker, task),
                    Decision::Queued => return,
                    Decision::Rejected(full) => task = full,
                }
                self.reject(worker, &mut task, Reason::Overloaded, "too many requests wait already")
            } else {
                self.serve(worker, &mut task)
            };
            next = self.rearm(task.slot, task.connection, step);
        }
    }

    /// Reserves the bytes of an admitted request until it is answered.
    fn admit(&self, mut task: Task) -> Decision {
        if task.request.bytes.capacity() > self.available_bytes().max(SMALL) {
            return Decision::Rejected(task);
        }
        self.reserve(&mut task);
        match self.admission.admit(task) {
            Decision::Rejected(mut task) => {
                self.connections.release(std::mem::take(&mut task.reserved_bytes));
                Decision::Rejected(task)
            }
            admitted => admitted,
        }
    }

    /// Serves one admitted request, then the queued ones, oldest first; releases the permit when the queue is empty.
    fn dispatch(&self, worker: &mut Worker, mut task: Task) {
        loop {
            let is_late = task.arrived.elapsed() > self.server.config.request_timeout;
            let step = match is_late {
                true => self.reject(worker, &mut task, Reason::Overloaded, "too many requests waited before this one"),
                false => self.serve(worker, &mut task),
            };
            // the reply is sent before the permit is passed on
            self.connections.release(task.reserved_bytes);
            let mut again = self.rearm(task.slot, task.connection, step);
            if let Some(pipelined) = &mut again {
                self.reserve(pipelined) // small: it came with the one before
            }
            match self.admission.next(again) {
                Some(next) => task = next,
                None => return,
            }
        }
    }

    fn frame(&self, request: &Request) -> Frame {
        Frame {
            id: request_id(request.header("x-request-id")),
            is_head: request.method() == "HEAD",
            is_http_10: request.is_http_10,
            close: request.close || self.is_draining.load(Relaxed),
        }
    }

    fn serve(&self, worker: &mut Worker, task: &mut Task) -> Step {
        let mut frame = self.frame(&task.request);
        let now = || self.now();
        let reply = self.server.serve(&task.route, &task.request, &frame, &mut worker.client, task.arrived, &now);
        if task.is_dispatch()
            && let Some(client) = &mut worker.client
        {
            let (before, waited) = (self.average.load(Relaxed), client.take_waited().as_micros() as u64);
            self.average.store((15 * before + waited) / 16, Relaxed);
        }
        frame.close |= self.is_draining.load(Relaxed);
        task.connection.reply(&reply, &frame);
        self.advance(worker, &mut task.connection, false)
    }

    fn now(&self) -> Gauges {
        let (all, waiting) = (self.connections.len(), self.connections.waiting());
        let (dispatches_in_flight, dispatches_queued) = self.admission.count();
        Gauges {
            connections_waiting: waiting,
            connections_working: all.saturating_sub(waiting),
            dispatches_in_flight,
            dispatches_queued,
            unfinished_bytes: self.connections.reserved_bytes(),
        }
    }

    fn reject(&self, worker: &mut Worker, task: &mut Task, reason: Reason, message: &str) -> Step {
        let frame = self.frame(&task.request);
        let status = Status::new(reason, message);
        log_refusal(&frame, Some(&task.request), &status, Some(task.arrived.elapsed()));
        task.connection.reply(&status.into(), &frame);
        self.advance(worker, &mut task.connection, false)
    }

    /// Ends what has passed its deadline; called periodically.
    pub(super) fn expire_overdue(&self) {
        let mut worker = Worker { client: None, scratch: vec![0; SCRATCH] };
        let now = Instant::now();
        let is_draining = self.is_draining.load(Relaxed);
        let is_over = |connection: &Connection| connection.deadline() < now || is_draining && connection.is_idle();
        self.connections.take_each(is_over, |slot, mut connection| {
            if connection.deadline() < now {
                match connection.expire() {
                    true => {
                        let step = self.advance(&mut worker, &mut connection, false);
                        self.put_or_close(slot, connection, step)
                    }
                    false => self.connections.close(slot, connection),
                }
            } else if connection.has_unread() {
                self.connections.put(slot, connection, Interest::Readable) // a request that came in time
            } else {
                self.connections.close(slot, connection)
            }
        });
        self.reject_overdue(
            &mut worker,
            |task| task.arrived + self.server.config.request_timeout < now,
            Reason::Overloaded,
        )
    }

    /// Rejects partly received requests during shutdown.
    pub(super) fn reject_unfinished(&self) {
        let mut worker = Worker { client: None, scratch: vec![0; SCRATCH] };
        self.connections.take_each(Connection::is_unfinished, |slot, mut connection| {
            connection.refuse(Status::new(Reason::ShuttingDown, "the request did not come before the end"));
            let step = self.advance(&mut worker, &mut connection, false);
            self.put_or_close(slot, connection, step)
        });
    }

    /// Rejects what is still queued when the time for shutdown is over.
    pub(super) fn reject_queued(&self) {
        let mut worker = Worker { client: None, scratch: vec![0; SCRATCH] };
        self.reject_overdue(&mut worker, |_| true, Reason::ShuttingDown)
    }

    fn reject_overdue(&self, worker: &mut Worker, is_late: impl Fn(&Task) -> bool, reason: Reason) {
        while let Some(mut task) = self.admission.pop_if(&is_late) {
            self.connections.release(task.reserved_bytes);
            let step = self.reject(worker, &mut task, reason, "waited too long for its turn");
            self.put_or_close(task.slot, task.connection, step)
        }
    }

    /// For a thread that serves nothing: what a pipelining client has sent behind a rejected request is rejected too.
    fn put_or_close(&self, slot: Slot, connection: Box<Connection>, step: Step) {
        if let Some(mut task) = self.rearm(slot, connection, step) {
            task.connection.refuse(Status::new(Reason::Overloaded, "too many requests wait already"));
            self.connections.put(slot, task.connection, Interest::Writable)
        }
    }
}
