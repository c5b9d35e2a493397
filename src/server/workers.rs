//! The threads: each takes a connection to which something has happened, serves its whole request, and puts it back.
//!
//! Threads block on the API server only. A few (four a core) are always there; a ready connection waits for the next of them, which
//! costs no context switch, and while the API server is quick nobody else is woken. Only when nobody has been free for a tick are
//! more let in, a few at a time: up to one for each call that may be in flight, one that asks whether the API server is ready, and one
//! that never calls, so that it answers `/health/live` when every call hangs.

use super::connection::{Bounds, Connection, Interest, SMALL, Step};
use super::lobby::{Lobby, Slot};
use super::reply::Frame;
use super::serve::{Server, admit, log_refusal, request_id};
use super::tasks::{Admitted, MAX_IN_HAND, Task, Tasks};
use crate::filter::THREAD_STACK;
use crate::http::Request;
use crate::kube::Client;
use crate::metrics::Now;
use crate::status::{Reason, Status};
use log::warn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Bytes of requests without an answer, all connections together: those that are not whole, wait, or are in hand. A container has 64 MiB.
const MAX_HELD: usize = 24 << 20;
const TICK: Duration = Duration::from_millis(1);
/// Threads let in per tick: each brings a TLS handshake of about a millisecond.
const PER_TICK: usize = 4;
/// Ticks without need after which the ticker goes to sleep.
const QUIET_TICKS: u32 = 64;
/// So long a thread beyond the few stays when calls are slow and it has nothing to do.
const LINGER: Duration = Duration::from_secs(10);
const SCRATCH: usize = 32 << 10;

#[derive(Debug)]
pub(super) struct Crew {
    pub(super) server: Server,
    pub(super) lobby: Lobby,
    few: usize,
    /// Threads there are.
    threads: AtomicUsize,
    /// Threads that wait for a connection.
    standing: AtomicUsize,
    /// How often one came back to wait.
    came_back: AtomicU64,
    /// Moving average of what a dispatch waits for the API server, in microseconds.
    average: AtomicU64,
    tasks: Tasks,
    ticker: OnceLock<Thread>,
    ticker_sleeps: AtomicBool,
    /// Connections are closed behind their replies.
    pub(super) is_draining: AtomicBool,
}

/// What a thread has for itself.
struct Kit {
    client: Option<Client>,
    scratch: Vec<u8>,
}

impl Crew {
    pub(super) fn new(server: Server, lobby: Lobby) -> Arc<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Crew {
            server,
            lobby,
            few: (4 * cores).min(MAX_IN_HAND),
            threads: AtomicUsize::new(0),
            standing: AtomicUsize::new(0),
            came_back: AtomicU64::new(0),
            average: AtomicU64::new(0),
            tasks: Tasks::default(),
            ticker: OnceLock::new(),
            ticker_sleeps: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
        })
    }

    /// Starts the few threads, and the ticker that lets more in.
    pub(super) fn start(self: &Arc<Self>) -> std::io::Result<()> {
        for _ in 0..self.few {
            self.let_in(true)?;
        }
        let crew = self.clone();
        let ticker = thread::Builder::new().name("ticker".into()).spawn(move || crew.tick())?;
        let _ = self.ticker.set(ticker.thread().clone());
        Ok(())
    }

    fn let_in(self: &Arc<Self>, stays: bool) -> std::io::Result<()> {
        let number = self.threads.fetch_add(1, Relaxed);
        let crew = self.clone();
        let thread = thread::Builder::new().name(format!("worker-{number}")).stack_size(THREAD_STACK);
        let started = thread.spawn(move || crew.work(stays));
        if started.is_err() {
            self.threads.fetch_sub(1, Relaxed);
        }
        started.map(|_| ())
    }

    fn work(&self, stays: bool) {
        let mut kit = Kit { client: self.server.client(), scratch: vec![0; SCRATCH] };
        loop {
            let timeout = match stays {
                true => None,
                false if self.calls_are_slow() => Some(LINGER),
                false => Some(Duration::ZERO),
            };
            self.came_back.fetch_add(1, Relaxed);
            self.standing.fetch_add(1, SeqCst);
            let next = self.lobby.next(timeout);
            let is_last = self.standing.fetch_sub(1, SeqCst) == 1;
            if is_last
                && self.ticker_sleeps.swap(false, SeqCst)
                && let Some(ticker) = self.ticker.get()
            {
                ticker.unpark() // nobody waits at the door now
            }
            match next {
                Some(slot) => self.attend(&mut kit, slot),
                None if stays => (), // a signal
                None => break,
            }
        }
        self.threads.fetch_sub(1, Relaxed);
    }

    fn calls_are_slow(&self) -> bool {
        self.average.load(Relaxed) > TICK.as_micros() as u64
    }

    /// Lets more threads in when nobody has been free for a tick and somebody waits.
    fn tick(self: &Arc<Self>) {
        let mut quiet = 0;
        let mut before = 0;
        loop {
            if quiet > QUIET_TICKS {
                self.ticker_sleeps.store(true, SeqCst);
                while self.standing.load(SeqCst) > 0 && self.ticker_sleeps.load(SeqCst) {
                    thread::park()
                }
                self.ticker_sleeps.store(false, SeqCst);
                quiet = 0;
            }
            thread::sleep(TICK);
            if self.standing.load(SeqCst) > 0 {
                quiet += 1;
                continue;
            }
            quiet = 0;
            let now = self.came_back.load(Relaxed);
            let is_stuck = now == std::mem::replace(&mut before, now);
            if (is_stuck || self.calls_are_slow()) && self.lobby.has_next() {
                for _ in 0..PER_TICK {
                    if self.threads.load(Relaxed) >= MAX_IN_HAND + 2 {
                        break;
                    }
                    if let Err(error) = self.let_in(false) {
                        warn!("cannot start a thread: {error}");
                        break;
                    }
                }
            }
        }
    }

    /// Bytes that more requests may hold.
    fn room(&self) -> usize {
        MAX_HELD.max(2 * self.server.config.max_body_bytes).saturating_sub(self.lobby.held())
    }

    fn hold(&self, task: &mut Task) {
        task.held = task.request.bytes.capacity();
        self.lobby.hold(task.held)
    }

    fn advance(&self, kit: &mut Kit, connection: &mut Connection, readable: bool) -> Step {
        let bounds = Bounds { max_body: self.server.config.max_body_bytes, room: self.room() };
        connection.advance(&mut kit.scratch, readable, bounds, &admit)
    }

    /// Something has happened to a connection.
    fn attend(&self, kit: &mut Kit, slot: Slot) {
        if let Some(mut connection) = self.lobby.take(slot) {
            let step = self.advance(kit, &mut connection, true);
            self.settle(kit, slot, connection, step)
        }
    }

    /// Puts the connection back, unless a whole request has come on it.
    fn park(&self, slot: Slot, connection: Box<Connection>, step: Step) -> Option<Task> {
        match step {
            Step::Wait(interest) => self.lobby.put(slot, connection, interest),
            Step::Close => self.lobby.close(slot, connection),
            Step::Serve(request) => return Some(Task::new(slot, connection, request)),
        }
        None
    }

    /// Serves what is whole, and puts the connection back.
    fn settle(&self, kit: &mut Kit, slot: Slot, connection: Box<Connection>, step: Step) {
        let mut next = self.park(slot, connection, step);
        while let Some(mut task) = next {
            let step = if task.is_dispatch() {
                match self.admit(task) {
                    Admitted::Now(task) => return self.dispatch(kit, task),
                    Admitted::Later => return,
                    Admitted::Never(full) => task = full,
                }
                self.turn_away(kit, &mut task, Reason::Overloaded, "too many requests wait already")
            } else {
                self.serve(kit, &mut task)
            };
            next = self.park(task.slot, task.connection, step);
        }
    }

    /// Counts the bytes of what is admitted, until it is answered.
    fn admit(&self, mut task: Task) -> Admitted {
        if task.request.bytes.capacity() > self.room().max(SMALL) {
            return Admitted::Never(task);
        }
        self.hold(&mut task);
        match self.tasks.admit(task) {
            Admitted::Never(mut task) => {
                self.lobby.release(std::mem::take(&mut task.held));
                Admitted::Never(task)
            }
            admitted => admitted,
        }
    }

    /// Has a place among those in hand: serves, and goes on with whoever has waited longest, else gives the place back.
    fn dispatch(&self, kit: &mut Kit, mut task: Task) {
        loop {
            let is_late = task.arrived.elapsed() > self.server.config.request_timeout;
            let step = match is_late {
                true => self.turn_away(kit, &mut task, Reason::Overloaded, "too many requests waited before this one"),
                false => self.serve(kit, &mut task),
            };
            // the reply is on its way; only then the place is handed on
            self.lobby.release(task.held);
            let mut again = self.park(task.slot, task.connection, step);
            if let Some(pipelined) = &mut again {
                self.hold(pipelined) // small: it came with the one before
            }
            match self.tasks.next(again) {
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

    fn serve(&self, kit: &mut Kit, task: &mut Task) -> Step {
        let mut frame = self.frame(&task.request);
        let now = || self.now();
        let reply = self.server.serve(&task.route, &task.request, &frame, &mut kit.client, task.arrived, &now);
        if task.is_dispatch()
            && let Some(client) = &mut kit.client
        {
            let (before, waited) = (self.average.load(Relaxed), client.take_waited().as_micros() as u64);
            self.average.store((15 * before + waited) / 16, Relaxed);
        }
        frame.close |= self.is_draining.load(Relaxed);
        task.connection.reply(&reply, &frame);
        self.advance(kit, &mut task.connection, false)
    }

    fn now(&self) -> Now {
        let (all, waiting) = (self.lobby.len(), self.lobby.waiting());
        let (dispatches_in_hand, dispatches_queued) = self.tasks.count();
        Now {
            connections_waiting: waiting,
            connections_working: all.saturating_sub(waiting),
            dispatches_in_hand,
            dispatches_queued,
            unfinished_bytes: self.lobby.held(),
        }
    }

    fn turn_away(&self, kit: &mut Kit, task: &mut Task, reason: Reason, message: &str) -> Step {
        let frame = self.frame(&task.request);
        let status = Status::new(reason, message);
        log_refusal(&frame, Some(&task.request), &status, Some(task.arrived.elapsed()));
        task.connection.reply(&status.into(), &frame);
        self.advance(kit, &mut task.connection, false)
    }

    /// Ends what has waited too long: called every now and then.
    pub(super) fn sweep(&self) {
        let mut kit = Kit { client: None, scratch: vec![0; SCRATCH] };
        let now = Instant::now();
        let is_draining = self.is_draining.load(Relaxed);
        let is_over = |connection: &Connection| connection.deadline() < now || is_draining && connection.is_idle();
        self.lobby.take_each(is_over, |slot, mut connection| {
            if connection.deadline() < now {
                match connection.expire() {
                    true => {
                        let step = self.advance(&mut kit, &mut connection, false);
                        self.put_or_close(slot, connection, step)
                    }
                    false => self.lobby.close(slot, connection),
                }
            } else if connection.has_unread() {
                self.lobby.put(slot, connection, Interest::Readable) // a request that came in time
            } else {
                self.lobby.close(slot, connection)
            }
        });
        self.turn_late_ones_away(
            &mut kit,
            |task| task.arrived + self.server.config.request_timeout < now,
            Reason::Overloaded,
        )
    }

    /// Whose request is not whole yet, when we stop.
    pub(super) fn turn_unfinished_away(&self) {
        let mut kit = Kit { client: None, scratch: vec![0; SCRATCH] };
        self.lobby.take_each(Connection::is_unfinished, |slot, mut connection| {
            connection.refuse(Status::new(Reason::ShuttingDown, "the request did not come before the end"));
            let step = self.advance(&mut kit, &mut connection, false);
            self.put_or_close(slot, connection, step)
        });
    }

    /// Who is still in the queue when the time to shut down is over.
    pub(super) fn turn_queued_away(&self) {
        let mut kit = Kit { client: None, scratch: vec![0; SCRATCH] };
        self.turn_late_ones_away(&mut kit, |_| true, Reason::ShuttingDown)
    }

    fn turn_late_ones_away(&self, kit: &mut Kit, is_late: impl Fn(&Task) -> bool, reason: Reason) {
        while let Some(mut task) = self.tasks.pop_if(&is_late) {
            self.lobby.release(task.held);
            let step = self.turn_away(kit, &mut task, reason, "waited too long for its turn");
            self.put_or_close(task.slot, task.connection, step)
        }
    }

    /// For a thread that serves nothing: what a pipelining client has sent behind a request that was turned away, is too.
    fn put_or_close(&self, slot: Slot, connection: Box<Connection>, step: Step) {
        if let Some(mut task) = self.park(slot, connection, step) {
            task.connection.refuse(Status::new(Reason::Overloaded, "too many requests wait already"));
            self.lobby.put(slot, task.connection, Interest::Writable)
        }
    }
}
