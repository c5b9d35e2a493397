//! The worker threads: each takes a ready connection, serves its whole request, and puts it back (`workers/drive.rs`).
//!
//! Threads block on the API server only, so extra ones run only while it is slow (`workers/scaler.rs`): up to one for each call that may be
//! in flight, one for the readiness check, and one that never calls, so that it answers `/health/live` while every call hangs. An extra
//! thread that is not needed rests, with its connection to the API server, and ends after ten seconds.

mod admission;
mod drive;
mod expiry;
mod forms;
mod large_runs;
mod list;
mod memory;
mod pods;
mod respond;
mod resting;
mod reviews;
mod scaler;
mod waiting;

use super::connection::{Accepted, Bounds};
use super::connections::{Connections, Next};
use super::exchange::Exchange;
use super::memory::Memory;
use super::permits::Permits;
use super::queue::Queue;
use super::serve::Server;
use super::shared::Shared;
use super::texts::Texts;
use crate::account::Kind;
use crate::filter::SMALL_RUN_STACK;
use crate::kube::Client;
use crate::metrics::Gauges;
use crate::random::random;
use log::warn;
use resting::Resting;
use scaler::{Decision, Fastest, Scaler, TICK};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Dispatches in flight, so also API calls in flight. With 5 ms a call that is what two cores can serve, and more than an API server
/// creates; and each needs a thread with a TLS connection, a quarter of a megabyte at most.
pub(super) const MAX_IN_FLIGHT: usize = 56;
/// Requests that wait for a permit to call; and for a large run.
const MAX_QUEUE: usize = 1024;
/// Threads spawned per tick: each brings a TLS handshake of about a millisecond.
const PER_TICK: usize = 4;
/// How long an extra thread stays without anything to do.
const LINGER: Duration = Duration::from_secs(10);
const SCRATCH: usize = 8 << 10;
/// After a thread could not be started.
const BACK_OFF: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Workers {
    pub(super) server: Server,
    pub(super) connections: Connections,
    memory: Memory,
    texts: Texts,
    /// Lists of pods that several callers ask for.
    shared: Shared,
    /// For calls.
    permits: Permits,
    /// For large runs of the filter, one at a time, by a thread that exists while there is one. What waits for it holds neither a worker
    /// thread nor a permit for calls, so that small requests pass.
    large_runs: Permits,
    /// For the next worker that is woken.
    ready: Queue,
    /// For pages of Jobs: there is one. It is also held while the one whose turn it is waits until the Jobs are known.
    lists: Permits,
    /// When connections were last visited to make room for answers.
    made_room: Mutex<Option<Instant>>,
    core_threads: usize,
    /// Running threads.
    threads: AtomicUsize,
    /// Threads that wait for a ready connection.
    idle: AtomicUsize,
    /// How often a thread has come back to wait.
    iterations: AtomicU64,
    fastest: Fastest,
    resting: Resting,
    scaler: OnceLock<Thread>,
    scaler_sleeps: AtomicBool,
    /// For threads that it starts.
    this: Weak<Workers>,
}

/// What one thread owns.
struct Worker {
    client: Option<Client>,
    scratch: Vec<u8>,
}

impl Worker {
    /// For a thread that does not call the API server.
    fn without_client() -> Self {
        Worker { client: None, scratch: vec![0; SCRATCH] }
    }
}

impl Workers {
    pub(super) fn new(server: Server, connections: Connections) -> Arc<Self> {
        Arc::new_cyclic(|this| Workers {
            memory: Memory::new(
                server.config.max_body_bytes,
                server.config.filter.max_output(),
                connections.capacity(),
            ),
            texts: Texts::default(),
            shared: Shared::default(),
            server,
            connections,
            permits: Permits::new(MAX_IN_FLIGHT, MAX_QUEUE),
            large_runs: Permits::new(1, MAX_QUEUE),
            ready: Queue::default(),
            lists: Permits::new(1, usize::MAX), // no more than connections
            made_room: Mutex::default(),
            core_threads: (4 * cores()).min(MAX_IN_FLIGHT),
            threads: AtomicUsize::new(0),
            idle: AtomicUsize::new(0),
            iterations: AtomicU64::new(0),
            fastest: Fastest::default(),
            resting: Resting::default(),
            scaler: OnceLock::new(),
            scaler_sleeps: AtomicBool::new(false),
            this: this.clone(),
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
        let thread = thread::Builder::new().name(format!("worker-{number}")).stack_size(SMALL_RUN_STACK);
        let started = thread.spawn(move || workers.work(stays));
        if started.is_err() {
            self.threads.fetch_sub(1, Relaxed);
        }
        started.map(|_| ())
    }

    fn work(&self, stays: bool) {
        let mut worker = Worker { client: self.server.client(), scratch: vec![0; SCRATCH] };
        loop {
            let timeout = if stays { None } else { Some(LINGER) };
            self.iterations.fetch_add(1, Relaxed);
            self.idle.fetch_add(1, SeqCst);
            let next = self.connections.next_ready(timeout);
            let is_last = self.idle.fetch_sub(1, SeqCst) == 1;
            if is_last
                && self.scaler_sleeps.swap(false, SeqCst)
                && let Some(scaler) = self.scaler.get()
            {
                scaler.unpark() // no thread is idle now
            }
            match next {
                Some(Next::Ready(slot)) => self.on_ready(&mut worker, slot),
                Some(Next::Woken) => self.on_woken(&mut worker),
                None if stays => (), // a signal
                None => break,
            }
            if !stays && !self.fastest.is_slow() && !self.resting.rest(LINGER) {
                break;
            }
        }
        self.threads.fetch_sub(1, Relaxed);
    }

    /// Finds a place for a new connection.
    /// Returns one that had to make way and has had no answer yet.
    ///
    /// Errors: the connection, if there is no place.
    pub(super) fn insert(&self, accepted: Accepted) -> Result<Option<Box<Exchange>>, Accepted> {
        let inserted = self.connections.insert(accepted, random()).or_else(|accepted| match self.evict_waiter() {
            true => self.connections.insert(accepted, random()),
            false => Err(accepted),
        });
        match inserted {
            Ok(()) => Ok(None),
            Err(accepted) => {
                let replaced = self.connections.insert_reserved(accepted)?;
                replaced.iter().for_each(|exchange| _ = self.unqueue(exchange));
                Ok(replaced.filter(|exchange| exchange.connection.is_idle()))
            }
        }
    }

    /// Lets threads in, for ever.
    fn scale(self: &Arc<Self>) {
        let mut scaler = Scaler::default();
        loop {
            thread::sleep(TICK);
            let (is_idle, iterations) = (self.idle.load(SeqCst) > 0, self.iterations.load(Relaxed));
            match scaler.tick(is_idle, iterations, &self.fastest, || self.connections.has_next()) {
                Decision::Nothing => (),
                Decision::LetIn => self.let_in(),
                Decision::Sleep => {
                    self.scaler_sleeps.store(true, SeqCst);
                    while self.idle.load(SeqCst) > 0 && self.scaler_sleeps.load(SeqCst) {
                        thread::park()
                    }
                    self.scaler_sleeps.store(false, SeqCst)
                }
            }
        }
    }

    fn let_in(self: &Arc<Self>) {
        for _ in 0..PER_TICK {
            if self.resting.wake_one() {
                continue;
            }
            if self.threads.load(Relaxed) >= MAX_IN_FLIGHT + 2 {
                break;
            }
            if let Err(error) = self.spawn_worker(false) {
                warn!("cannot start a thread: {error}");
                thread::sleep(BACK_OFF);
                break;
            }
        }
    }

    fn bounds(&self) -> Bounds<'_> {
        let config = &self.server.config;
        Bounds {
            max_body: config.max_body_bytes,
            memory: &self.memory,
            enabled: config.enabled,
            admits_heads: config.auth.is_on(),
            idle: config.idle_timeout,
            max_wait: config.request_timeout / 2,
        }
    }

    fn gauges(&self) -> Gauges {
        let (all, (waiting, queued)) = (self.connections.len(), self.connections.waiting());
        Gauges {
            connections_waiting: waiting,
            connections_working: all.saturating_sub(waiting),
            dispatches_in_flight: self.permits.used(),
            dispatches_queued: queued,
            reserved_bytes: Kind::ALL.map(Kind::name).into_iter().zip(self.memory.account.reserved_bytes()).collect(),
            jobs: self.server.jobs.known.count().map(|(state, number)| (state.name(), number)).collect(),
            cached_bytes: self.server.jobs.known.cached_bytes(),
            waiters: self.server.jobs.waiters(),
            watch_silence: self.server.jobs.known.silence(),
        }
    }
}

/// Cores of this machine; a test build can pretend others.
fn cores() -> usize {
    #[cfg(feature = "pretend-cores")]
    if let Some(cores) = std::env::var("PRETEND_CORES").ok().and_then(|cores| cores.parse().ok()) {
        return cores;
    }
    thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod orders;
