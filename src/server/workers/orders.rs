//! Everything that can happen to an exchange, in every order, by the product's own functions: one thread plays the client, the workers, the
//! API server and the clock, with real sockets. Afterwards each request whose client has stayed has one answer, and nothing is held.

use super::*;
use crate::filter::LARGE_RUN_STACK;
use crate::kube::{Job, Situation, State};
use crate::server::exchange::{Shutdown, on_deadline};
use crate::server::serve::Server;
use crate::{cli, config};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpListener;

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
    /// A call of another request has ended.
    PermitIsFree,
    /// A large run of another request has ended.
    RunIsFree,
    /// Another request has given its memory back.
    MemoryIsFree,
    JobEnds,
    Deadline,
    Stops,
}

use Event::*;

const POST: &str = "POST /job HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: ";
/// More than a small request.
const LARGE: usize = 20_000;

fn post(id: usize) -> String {
    let body = format!("{{\"metadata\": {{\"name\": \"a\", \"x\": \"{}\"}}, \"spec\": {{}}}}", "x".repeat(id));
    format!("{POST}{}\r\n\r\n{body}", body.len())
}

fn job(version: u64, state: State) -> Job {
    let situation = Situation { state, ..Situation::default() };
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
    /// Permits of other requests, and their memory.
    permits: usize,
    memory: Option<crate::budget::Reservation>,
    is_timed_out: bool,
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
        workers.server.jobs.is_told(job(self.version, State::Running), &*workers);
        assert!(workers.large_runs.permits.try_acquire());
        let permits = (0..MAX_IN_FLIGHT).filter(|_| workers.permits.try_acquire()).count();
        let memory = events.contains(&MemoryIsFree).then(|| workers.memory.try_reserve_large(4 << 20)).flatten();
        let mut run = Run {
            world: self,
            request: request.to_owned(),
            client: None,
            has_sent: 0,
            has_left: false,
            permits,
            memory,
            is_timed_out: false,
        };
        events.iter().for_each(|event| run.happens(*event));
        run.end()
    }
}

impl Run<'_> {
    fn workers(&self) -> Arc<Workers> {
        self.world.workers.clone()
    }

    fn happens(&mut self, event: Event) {
        let workers = self.workers();
        match event {
            Begins => {
                let client = TcpStream::connect(self.world.listener.local_addr().unwrap()).unwrap();
                client.set_nodelay(true).unwrap();
                self.client = Some(client);
                let stream = self.world.listener.accept().unwrap().0;
                stream.set_nodelay(true).unwrap();
                assert!(workers.insert(stream).is_ok_and(|replaced| replaced.is_none()));
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
                if let Some(exchange) = workers.next_of(&workers.permits) {
                    workers.dispatch(&mut self.world.worker, exchange)
                }
            }
            PermitIsFree => (),
            RunIsFree => {
                workers.do_large_runs();
                assert!(workers.large_runs.permits.try_acquire(), "it is the only one")
            }
            MemoryIsFree => {
                self.memory = None;
                workers.grant_memory()
            }
            JobEnds => {
                let version = self.world.version + 1;
                workers.server.jobs.is_told(job(version, State::Succeeded), &*workers)
            }
            Deadline => {
                self.is_timed_out = true;
                workers.connections.take_each(
                    |_| true,
                    |exchange| {
                        let then = on_deadline(exchange.waits);
                        workers.end(exchange, then)
                    },
                )
            }
            Stops => {
                workers.server.is_stopping.store(true, Relaxed);
                workers.is_draining.store(true, Relaxed);
                workers.shut_down(Shutdown::Begins)
            }
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
        let workers = self.workers();
        let next = workers.connections.next(Some(Duration::ZERO));
        match next {
            Some(Next::Ready(slot)) => workers.on_ready(&mut self.world.worker, slot),
            Some(Next::Woken) => workers.on_woken(&mut self.world.worker),
            None => (),
        }
        next.is_some()
    }

    /// Lets everything end, and looks what is left.
    fn end(mut self) -> String {
        let workers = self.workers();
        self.happens(MemoryIsFree);
        while self.permits > 0 {
            while self.works() {}
            self.happens(RunIsFree);
            self.happens(PermitIsFree)
        }
        self.happens(JobEnds);
        while self.works() {}
        workers.do_large_runs();
        let answers = self.answers();
        self.client = None; // the connection is closed, or was
        while self.works() {}
        let is_whole = self.has_sent == self.request.len() && !self.has_left;
        let mut wrongs = Vec::new();
        let mut must = |holds: bool, otherwise: String| {
            if !holds {
                wrongs.push(otherwise)
            }
        };
        // one of which nothing was read at its deadline is closed
        let least = usize::from(is_whole && !self.is_timed_out);
        must((least..=1).contains(&answers), format!("{answers} answers"));
        workers.connections.take_each(
            |_| true,
            |exchange| {
                must(false, format!("one is parked for {:?}", exchange.waits));
                workers.connections.close(exchange)
            },
        );
        must(workers.connections.len() == 0, format!("{} connections are left", workers.connections.len()));
        for (permits, what) in [(&workers.permits, "a call"), (&workers.large_runs.permits, "a large run")] {
            must(permits.used() == 0, format!("{} permits for {what} are held", permits.used()));
            must(!permits.is_contended(), format!("a slot waits for {what}"));
        }
        must(workers.memory.reserved_bytes() == 0, format!("{} bytes are held", workers.memory.reserved_bytes()));
        must(!workers.memory.is_short(), "a slot waits for memory".to_owned());
        must(workers.server.jobs.waiters() == 0, format!("{} wait for a Job", workers.server.jobs.waiters()));
        must(workers.ready().is_empty(), "a slot waits for a worker".to_owned());
        workers.server.is_stopping.store(false, Relaxed);
        workers.is_draining.store(false, Relaxed);
        wrongs.join("; ")
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

/// All orders of these events, in which those of each list keep theirs.
fn orders(lists: &[&[Event]]) -> Vec<Vec<Event>> {
    if lists.iter().all(|list| list.is_empty()) {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (number, list) in lists.iter().enumerate() {
        if let [first, rest @ ..] = list {
            let mut others = lists.to_vec();
            others[number] = rest;
            all.extend(orders(&others).into_iter().map(|order| [&[*first], &order[..]].concat()))
        }
    }
    all
}

/// Plays all orders of each of these. Returns how many there are.
fn play(request: &str, scenes: &[&[&[Event]]]) -> usize {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(LARGE_RUN_STACK);
        thread.spawn_scoped(scope, || play_all(request, scenes)).unwrap().join().unwrap()
    })
}

fn play_all(request: &str, scenes: &[&[&[Event]]]) -> usize {
    let mut world = World::new();
    let mut wrongs: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    let mut number = 0;
    for order in scenes.iter().flat_map(|scene| orders(scene)) {
        number += 1;
        let wrong = world.run(request, &order);
        if !wrong.is_empty() {
            wrongs.entry(wrong).or_insert(order);
        }
    }
    assert!(wrongs.is_empty(), "{wrongs:#?}");
    number
}

const CLIENT: &[Event] = &[Begins, Sends];
const WORK: &[Event] = &[Works, Works, Works];

#[test]
fn a_small_request_has_one_answer_in_every_order() {
    let scenes: &[&[&[Event]]] = &[
        &[CLIENT, WORK, &[PermitIsFree], &[Stops]],
        &[CLIENT, WORK, &[PermitIsFree, PermitIsFree], &[Deadline]],
        &[&[Begins, Sends, Leaves], WORK, &[PermitIsFree]],
    ];
    assert!(play(&post(1), scenes) > 800);
}

#[test]
fn a_large_request_has_one_answer_in_every_order() {
    let scenes: &[&[&[Event]]] = &[
        &[CLIENT, WORK, &[MemoryIsFree, PermitIsFree, RunIsFree]],
        &[CLIENT, WORK, &[MemoryIsFree], &[Deadline]],
        &[CLIENT, WORK, &[MemoryIsFree], &[Stops]],
        &[&[Begins, Sends], &[Works, Works], &[PermitIsFree, RunIsFree], &[Deadline]],
        &[&[Begins, Sends, Leaves], WORK, &[MemoryIsFree]],
    ];
    assert!(play(&post(LARGE), scenes) > 800);
}

#[test]
fn a_caller_that_waits_has_one_answer_in_every_order() {
    let request = "GET /job/a?wait=20s HTTP/1.1\r\nHost: h\r\n\r\n";
    let scenes: &[&[&[Event]]] = &[
        &[CLIENT, WORK, &[JobEnds], &[Deadline]],
        &[CLIENT, WORK, &[JobEnds], &[Stops]],
        &[&[Begins, Sends, Leaves], WORK, &[JobEnds]],
    ];
    assert!(play(request, scenes) > 800);
}
