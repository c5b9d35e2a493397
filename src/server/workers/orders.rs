//! Everything that can happen to an exchange, in every order, by the product's own functions: one thread plays the client, the workers, the
//! API server and the clock, with real sockets. What is given to an exchange (a permit, memory, news of its Job) arrives later, when it may be
//! too late. After each event every slot is in the one queue of what its exchange waits for; at the end each request whose client has stayed
//! has one answer, and nothing is held.

use super::*;
use crate::account::{Kind, Reservation};
use crate::filter::LARGE_RUN_STACK;
use crate::jobs::{Host, News};
use crate::kube::{Job, JobState, Situation};
use crate::server::access_log::Peer;
use crate::server::connection::Accepted;
use crate::server::connections::RESERVED;
use crate::server::exchange::Waits;
use crate::server::serve::Server;
use crate::server::slot::Slot;
use crate::{cli, config};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// What happens.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Event {
    /// The client connects, and sends half of its request.
    Begins,
    /// The client sends the other half.
    Sends,
    Leaves,
    /// A worker does one thing, if there is one.
    Works,
    /// A call of another request has ended, and its permit is on its way to the next.
    PermitIsFree,
    /// A large run of another request has ended.
    RunIsFree,
    /// Another request has given its memory back, which is on its way to the next.
    MemoryIsFree,
    /// The watch reports the end of the Job, and news is on its way.
    JobEnds,
    /// The oldest of what is on its way arrives.
    Arrives,
    Deadline,
    Stops,
}

use Event::*;

/// What is on its way to a slot.
enum Gift {
    Permit(Slot),
    Memory(Slot, Reservation),
    News(Slot, News),
}

const POST: &str = "POST /job HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: ";
/// In a request that is about a Job with a long text.
const LONG_JOB: &str = "X: long";
/// More than a small request.
const LARGE: usize = 20_000;

fn post(id: usize) -> String {
    let body = format!("{{\"metadata\": {{\"name\": \"a\", \"x\": \"{}\"}}, \"spec\": {{}}}}", "x".repeat(id));
    format!("{POST}{}\r\n\r\n{body}", body.len())
}

/// `is_long`: an answer with it has to wait for memory.
fn job(version: u64, state: JobState, is_long: bool) -> Job {
    let message = is_long.then(|| "x".repeat(100_000).into());
    let situation = Situation { state, message, ..Situation::default() };
    let uid = format!("uid-{}", version / 2);
    Job { name: "a".into(), uid: uid.into(), version, situation, is_ours: true, ..Job::default() }
}

/// The product without its threads.
struct World {
    workers: Arc<Workers>,
    worker: Worker,
    listener: TcpListener,
    version: u64,
}

/// One order.
struct Run<'w> {
    world: &'w mut World,
    request: String,
    client: Option<TcpStream>,
    has_sent: usize,
    has_left: bool,
    has_ended: bool,
    is_timed_out: bool,
    /// Permits of other requests, and their memory.
    permits: usize,
    memory: Vec<Reservation>,
    gifts: VecDeque<Gift>,
    wrongs: Vec<String>,
}

/// Where news wait until they arrive.
struct Post(RefCell<Vec<(Slot, News)>>);

impl Host<Slot> for Post {
    fn wake(&self, slot: Slot, news: News) {
        self.0.borrow_mut().push((slot, news))
    }
    fn start_asking(&self) {}
}

impl World {
    fn new() -> Self {
        let argv = ["--dry-run=client", "."].map(OsString::from);
        let cli::Command::Run(args) = cli::parse(argv) else { panic!("our own arguments are good") };
        let config = config::load(&args, &|_| None).unwrap_or_else(|problems| panic!("{problems:?}"));
        let connections = Connections::new(2, Duration::from_secs(75)).unwrap();
        World {
            workers: Workers::new(Server::new(config), connections),
            worker: Worker::without_client(),
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
            version: 2,
        }
    }

    /// What is wrong after these events; an empty text if nothing is.
    fn run(&mut self, request: &str, events: &[Event]) -> String {
        let workers = self.workers.clone();
        self.version += 2;
        let is_long = request.contains(LONG_JOB);
        workers.server.jobs.is_reported(job(self.version, JobState::Running, is_long), &*workers);
        assert!(workers.large_runs.try_acquire());
        let permits = (0..MAX_IN_FLIGHT).filter(|_| workers.permits.try_acquire()).count();
        let mut memory = Vec::new();
        if events.contains(&MemoryIsFree) {
            for bytes in [1 << 20, 1 << 10, 1] {
                for kind in [Kind::Large, Kind::Answer] {
                    memory.extend(std::iter::from_fn(|| workers.memory.try_reserve(kind, bytes)))
                }
            }
        }
        let mut run = Run {
            world: self,
            request: request.to_owned(),
            client: None,
            has_sent: 0,
            has_left: false,
            has_ended: false,
            is_timed_out: false,
            permits,
            memory,
            gifts: VecDeque::new(),
            wrongs: Vec::new(),
        };
        for event in events {
            run.happens(*event);
            run.end_overdue();
            run.check(*event)
        }
        run.end();
        run.wrongs.join("; ")
    }
}

impl Run<'_> {
    fn happens(&mut self, event: Event) {
        let workers = self.world.workers.clone();
        match event {
            Begins => {
                let client = TcpStream::connect(self.world.listener.local_addr().unwrap()).unwrap();
                client.set_nodelay(true).unwrap();
                self.client = Some(client);
                let (stream, address) = self.world.listener.accept().unwrap();
                stream.set_nodelay(true).unwrap();
                let accepted = Accepted { stream, peer: Peer::new(address.ip(), false) };
                assert!(workers.insert(accepted).is_ok_and(|replaced| replaced.is_none()));
                self.send(self.request.len() / 2)
            }
            Sends => self.send(self.request.len()),
            Leaves => {
                self.has_left = true;
                self.client = None
            }
            Works => _ = self.works(),
            PermitIsFree if self.permits > 0 => {
                self.permits -= 1;
                self.gifts.extend(workers.permits.pass_on().map(Gift::Permit))
            }
            PermitIsFree => (),
            RunIsFree => {
                workers.do_large_runs();
                assert!(workers.large_runs.try_acquire(), "it is the only one")
            }
            MemoryIsFree => {
                self.memory.clear();
                self.gifts.extend(workers.memory.next_grant().map(|(slot, memory)| Gift::Memory(slot, memory)))
            }
            JobEnds => {
                self.has_ended = true;
                let post = Post(RefCell::default());
                workers.server.jobs.is_reported(
                    job(self.world.version + 1, JobState::Succeeded, self.request.contains(LONG_JOB)),
                    &post,
                );
                self.gifts.extend(post.0.into_inner().into_iter().map(|(slot, news)| Gift::News(slot, news)))
            }
            Arrives => match self.gifts.pop_front() {
                Some(Gift::Permit(slot)) => {
                    if let Some(exchange) = workers.take_or_next(&workers.permits, slot) {
                        workers.dispatch(&mut self.world.worker, exchange)
                    }
                }
                Some(Gift::Memory(slot, memory)) => {
                    workers.grant(slot, memory);
                    workers.grant_memory()
                }
                Some(Gift::News(slot, news)) => workers.wake(slot, news),
                None => (),
            },
            Deadline => {
                self.is_timed_out = true;
                workers.connections.take_each(|_| true, |exchange| workers.end_now(exchange))
            }
            Stops => {
                workers.connections.shutdown.begin();
                workers.connections.shorten()
            }
        }
    }

    /// Ends what is overdue in a shutdown.
    fn end_overdue(&self) {
        let workers = &self.world.workers;
        if workers.connections.shutdown.is_announced() {
            (0..(workers.connections.capacity() + RESERVED) as u32).for_each(|index| workers.end_overdue(index))
        }
    }

    fn send(&mut self, to: usize) {
        if let Some(client) = &mut self.client
            && self.has_sent < to
        {
            let _ = client.write_all(&self.request.as_bytes()[self.has_sent..to]); // it may have been answered, and closed
            self.has_sent = to
        }
    }

    /// Returns whether there was something to do.
    fn works(&mut self) -> bool {
        let workers = self.world.workers.clone();
        let next = workers.connections.next_ready(Some(Duration::ZERO));
        match next {
            Some(Next::Ready(slot)) => workers.on_ready(&mut self.world.worker, slot),
            Some(Next::Woken) => workers.on_woken(&mut self.world.worker),
            None => (),
        }
        next.is_some()
    }

    fn must(&mut self, holds: bool, otherwise: impl Into<String>) {
        if !holds {
            self.wrongs.push(otherwise.into())
        }
    }

    /// Whether the queues have the slots of parked exchanges, except those to which something is on its way.
    fn check(&mut self, event: Event) {
        let workers = self.world.workers.clone();
        let gifts = |is_it: fn(&Gift) -> bool| self.gifts.iter().filter(|gift| is_it(gift)).count();
        let permits = gifts(|gift| matches!(gift, Gift::Permit(_)));
        let memory = gifts(|gift| matches!(gift, Gift::Memory(..)));
        let news = gifts(|gift| matches!(gift, Gift::News(..)));
        for (waits, queued, given) in [
            (Waits::Permit, workers.permits.queued(), permits),
            (Waits::LargeRun, workers.large_runs.queued(), 0),
            (Waits::Memory(Kind::Large), workers.memory.queued_for(Kind::Large), memory),
            (Waits::Memory(Kind::Answer), workers.memory.queued_for(Kind::Answer), memory),
            (Waits::Worker, workers.ready.len(), 0),
            (Waits::Job, workers.server.jobs.waiters(), news),
        ] {
            let parked = workers.connections.count(waits);
            let is_right = queued <= parked && parked <= queued + given;
            self.must(is_right, format!("after {event:?} {parked} are parked for {waits:?}, and {queued} queued"))
        }
        let is_stopping = workers.connections.shutdown.is_announced();
        let waiting = workers.connections.count(Waits::Job);
        self.must(!is_stopping || waiting == 0, format!("after {event:?} {waiting} wait for a Job in a shutdown"))
    }

    /// Lets everything end, and looks what is left.
    fn end(&mut self) {
        let workers = self.world.workers.clone();
        self.happens(MemoryIsFree);
        while self.permits > 0 || !self.gifts.is_empty() {
            while self.works() {}
            self.happens(RunIsFree);
            self.happens(PermitIsFree);
            self.happens(Arrives)
        }
        if !self.has_ended {
            self.happens(JobEnds);
            self.happens(Arrives)
        }
        while self.works() {}
        workers.do_large_runs();
        let answers = self.answers();
        self.client = None; // the connection is closed, or was
        while self.works() {}
        let is_whole = self.has_sent == self.request.len() && !self.has_left;
        // one of which nothing was read at its deadline is closed
        let least = usize::from(is_whole && !self.is_timed_out);
        self.must((least..=1).contains(&answers), format!("{answers} answers"));
        let mut parked = Vec::new();
        workers.connections.take_each(|_| true, |exchange| parked.push(exchange));
        for exchange in parked {
            self.must(false, format!("one is parked for {:?}", exchange.waits));
            workers.unqueue(&exchange);
            workers.connections.close(exchange)
        }
        let open = workers.connections.len();
        self.must(open == 0, format!("{open} connections are open"));
        for (permits, what) in [(&workers.permits, "a call"), (&workers.large_runs, "a large run")] {
            self.must(permits.used() == 0, format!("{} permits for {what} are held", permits.used()));
            self.must(permits.queued() == 0, format!("a slot waits for {what}"));
        }
        let held = workers.memory.account.reserved_bytes();
        self.must(held == [0; 5], format!("these bytes are held: {held:?}"));
        self.must(!workers.memory.is_short(), "a slot waits for memory");
        self.must(workers.server.jobs.waiters() == 0, "a slot waits for a Job");
        self.must(workers.ready.len() == 0, "a slot waits for a worker")
    }

    /// How many the client has received.
    fn answers(&mut self) -> usize {
        let Some(client) = &mut self.client else { return 0 };
        let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
        client.set_nonblocking(true).unwrap();
        while let Ok(bytes @ 1..) = client.read(&mut buffer) {
            text.extend_from_slice(&buffer[..bytes])
        }
        String::from_utf8_lossy(&text).matches("HTTP/1.1 ").count()
    }
}

mod scenes;
