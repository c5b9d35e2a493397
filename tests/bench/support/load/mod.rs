//! Hostile load, and the memory that it needs. `peaks` runs all of it against the binary; `memory.rs` runs a part of it against the image.
//!
//! LOAD_SEED repeats the bodies of a run; LOAD runs only scenarios whose name contains one of its parts, which `|` separates.

mod bodies;
mod client;
mod outcome;
pub(crate) mod process;
mod scenarios;
mod slow_api;
mod start;

pub(crate) use bodies::Rng;
pub(crate) use client::Client;
pub(crate) use scenarios::{Expect, Scenario, Traffic, scenarios};
pub(crate) use start::starts;

use super::container::Container;
use super::dispatcher::Dispatcher;
use super::http::{JSON, request};
use client::{CLOSED, NonReader, UNANSWERED, post};
use outcome::Outcome;
use process::Cgroup;
use slow_api::SlowApi;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

/// What the whole process may hold, in MiB.
pub(crate) const BOUND: f64 = 64.0;
/// No client begins a request later than this.
const TIME: Duration = Duration::from_secs(20);
/// How long clients go on, at least, while small requests are timed beside them.
const TIMED: Duration = Duration::from_secs(4);
/// How long a client pauses after 503 and after a closed connection.
const PAUSE: Duration = Duration::from_millis(200);
/// A 503 that comes sooner was not waited for.
const WAIT: Duration = Duration::from_secs(1);
const MAX_THREADS: usize = 256;
const STACK: usize = 256 << 10;
/// How often clients that do not read send, and how often memory is looked at.
const TICK: Duration = Duration::from_millis(50);
/// How often a small request is sent beside the load, and by how many clients, in turn.
const SMALL_EVERY: Duration = Duration::from_millis(20);
const SMALL_CLIENTS: u32 = 32;
/// Median of the small requests' times, in ms.
const MAX_SMALL: f64 = 50.0;

pub(crate) fn small_thread() -> thread::Builder {
    thread::Builder::new().stack_size(STACK)
}

/// A dispatcher under load.
pub(crate) trait Target {
    fn dispatcher(&mut self) -> &mut Dispatcher;
    /// The dispatcher's own pid.
    fn pid(&self) -> u32;
    /// The cgroup, if it is the dispatcher's own.
    fn cgroup(&self) -> Option<Cgroup> {
        None
    }
}

impl Target for Dispatcher {
    fn dispatcher(&mut self) -> &mut Dispatcher {
        self
    }
    fn pid(&self) -> u32 {
        self.pid()
    }
}

impl Target for Container {
    fn dispatcher(&mut self) -> &mut Dispatcher {
        &mut self.dispatcher
    }
    fn pid(&self) -> u32 {
        self.pid
    }
    fn cgroup(&self) -> Option<Cgroup> {
        Cgroup::of(self.pid)
    }
}

impl Scenario {
    /// Starts a dispatcher, puts it to the load, and returns it with what came of that.
    pub(crate) fn run<T: Target>(&self, start: impl FnOnce(&[&str]) -> T) -> (T, Outcome) {
        let api = self.api.map(|_| SlowApi::start());
        let server = match &api {
            Some(api) => [format!("--server={}", api.url()), "--namespace=default".to_owned()].to_vec(),
            None => vec!["--dry-run=client".to_owned()],
        };
        let args: Vec<&str> = server.iter().chain(&self.args).map(String::as_str).collect();
        let mut target = start(&args);
        let outcome = self.put_to(&mut target, api.as_ref());
        (target, outcome)
    }

    fn put_to(&self, target: &mut impl Target, api: Option<&SlowApi>) -> Outcome {
        raise_descriptor_limit();
        let (address, pid, cgroup) = (target.dispatcher().address, target.pid(), target.cgroup());
        let mut outcome = Outcome::new(self.name.clone());
        let requests = match &self.traffic {
            Traffic::Requests { bodies, is_chunked, .. } => alone(address, bodies, *is_chunked),
            Traffic::NeverRead { .. } => Vec::new(),
        };
        if self.expect == Expect::Served && requests.iter().any(|request| request.alone != "200") {
            outcome.fault("not served alone");
        }
        if let Some(api) = api {
            api.set_delay(self.api.unwrap_or_default());
        }
        let sockets = process::sockets();
        let (is_over, begin) = (AtomicBool::new(false), Instant::now());
        thread::scope(|scope| {
            let is_over = &is_over;
            let watch = small_thread().spawn_scoped(scope, move || watch(pid, cgroup.as_ref(), is_over)).unwrap();
            let small: Vec<_> = (0..if self.is_timed { SMALL_CLIENTS } else { 0 })
                .map(|n| small_thread().spawn_scoped(scope, move || small_requests(address, n, is_over)).unwrap())
                .collect();
            match &self.traffic {
                Traffic::Requests { each, .. } => self.send_requests(address, &requests, *each, &mut outcome),
                Traffic::NeverRead { text, step, time } => {
                    self.send_without_reading(address, text, *step, *time, &mut outcome)
                }
            }
            outcome.took = begin.elapsed();
            is_over.store(true, Relaxed);
            small.into_iter().for_each(|small| outcome.add(small.join().unwrap()));
            let most = watch.join().unwrap();
            (outcome.peak, outcome.cgroup) = (most.peak, most.cgroup);
            outcome.sockets = (most.sockets - sockets).max(0.0);
            if most.has_kills {
                outcome.fault("the cgroup killed a process");
            }
        });
        outcome.small.sort_by(f64::total_cmp);
        outcome.check_peak(BOUND);
        self.check(target.dispatcher(), &mut outcome);
        outcome
    }

    fn send_requests(&self, address: SocketAddr, requests: &[Request], each: usize, outcome: &mut Outcome) {
        assert!(self.connections <= MAX_THREADS, "too many threads");
        let barrier = Barrier::new(self.connections);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..self.connections)
                .map(|n| {
                    let barrier = &barrier;
                    let load = move || {
                        let (mut client, mut outcome) = (Client::new(address), Outcome::new(String::new()));
                        barrier.wait();
                        let begin = Instant::now();
                        let goes_on = |turn: &usize| {
                            let took = begin.elapsed();
                            took < TIME && (*turn < each || self.is_timed && took < TIMED)
                        };
                        for turn in (0..).take_while(goes_on) {
                            let request = &requests[(n + turn * self.connections) % requests.len()];
                            self.ask(&mut client, request, &mut outcome);
                        }
                        outcome
                    };
                    small_thread().spawn_scoped(scope, load).unwrap()
                })
                .collect();
            clients.into_iter().for_each(|client| outcome.add(client.join().unwrap()));
        });
    }

    fn ask(&self, client: &mut Client, request: &Request, outcome: &mut Outcome) {
        let begin = Instant::now();
        let reply = match client.ask(&request.text) {
            Ok(reply) => reply,
            Err(what) => {
                thread::sleep(PAUSE);
                return outcome.count(what);
            }
        };
        let code = reply.code.to_string();
        outcome.count(&code);
        if reply.code == 503 {
            if reply.header("Retry-After").is_none() {
                outcome.fault("503 without Retry-After");
            }
            if self.expect == Expect::Served && begin.elapsed() < WAIT {
                outcome.fault("503 at once");
            }
            thread::sleep(PAUSE);
        } else if success(reply.code) != request.alone {
            outcome.fault(&format!("{code} where alone it is {}", request.alone));
        }
        if reply.code >= 400 && !reply.body.starts_with(br#"{"error":"#) {
            outcome.fault("an error without a body");
        }
    }

    fn send_without_reading(
        &self,
        address: SocketAddr,
        text: &[u8],
        step: usize,
        time: Duration,
        outcome: &mut Outcome,
    ) {
        let mut clients: Vec<NonReader> = (0..self.connections).map(|_| NonReader::connect(address)).collect();
        let end = Instant::now() + time;
        while Instant::now() < end {
            clients.iter_mut().for_each(|client| client.send(text, step));
            thread::sleep(TICK);
        }
        clients.into_iter().for_each(|client| outcome.count(&client.outcome(end)));
    }

    /// Adds the faults that show in the end.
    fn check(&self, dispatcher: &mut Dispatcher, outcome: &mut Outcome) {
        let allowed = |what: &str| match self.expect {
            _ if ["small 200", "small 201", "small 503"].contains(&what) => true,
            Expect::Served => ["200", "201", "503"].contains(&what),
            Expect::Only(codes) => {
                what == CLOSED || what == UNANSWERED || codes.iter().any(|code| code.to_string() == what)
            }
        };
        let others: Vec<String> = outcome.codes.keys().filter(|what| !allowed(what)).cloned().collect();
        others.iter().for_each(|what| outcome.fault(&format!("unexpected: {what}")));
        if !dispatcher.is_running() {
            return outcome.fault("the process ended");
        }
        let address = dispatcher.address;
        let lives = || Client::new(address).ask(request("GET", "/health/live", "", "").as_bytes());
        let end = Instant::now() + super::PATIENCE;
        while !lives().is_ok_and(|reply| matches!(reply.code, 200 | 204)) {
            if !dispatcher.is_running() {
                return outcome.fault("the process ended");
            }
            if Instant::now() > end {
                outcome.fault("it does not answer any more");
                break;
            }
            thread::sleep(TICK);
        }
        if dispatcher.log().iter().any(|line| line.contains("panicked")) {
            outcome.fault("a panic is in the log");
        }
    }
}

/// A request, and the code that it gets when there is no other.
struct Request {
    text: Vec<u8>,
    alone: String,
}

/// Sends the requests one after the other.
fn alone(address: SocketAddr, bodies: &[String], is_chunked: bool) -> Vec<Request> {
    let mut client = Client::new(address);
    let requests = bodies.iter().map(|body| {
        let text = post(body, is_chunked);
        let alone = client.ask(&text).map_or_else(str::to_owned, |reply| success(reply.code));
        Request { text, alone }
    });
    requests.collect()
}

/// The code; 201 counts as 200, since the same request again gets that.
fn success(code: u16) -> String {
    if code == 201 { 200 } else { code }.to_string()
}

/// The highest values that were seen.
#[derive(Default)]
struct Most {
    peak: Option<f64>,
    cgroup: Option<f64>,
    sockets: f64,
    has_kills: bool,
}

/// Looks at the process, its cgroup and all sockets until it is over.
fn watch(pid: u32, cgroup: Option<&Cgroup>, is_over: &AtomicBool) -> Most {
    let mut most = Most::default();
    loop {
        let was_over = is_over.load(Relaxed);
        most.peak = process::peak(pid).or(most.peak);
        most.cgroup = cgroup.and_then(Cgroup::peak).or(most.cgroup);
        most.has_kills |= cgroup.and_then(Cgroup::kills).is_some_and(|kills| kills > 0);
        most.sockets = most.sockets.max(process::sockets());
        if was_over {
            return most;
        }
        thread::sleep(TICK);
    }
}

/// Sends a small request whenever it is this client's turn, unless it still waits for the last answer.
fn small_requests(address: SocketAddr, turn: u32, is_over: &AtomicBool) -> Outcome {
    let (mut client, mut outcome) = (Client::new(address), Outcome::new(String::new()));
    let text = request("POST", "/job", JSON, r#"{"id":"x"}"#);
    let mut next = Instant::now() + SMALL_EVERY * turn;
    while !is_over.load(Relaxed) {
        thread::sleep(next.saturating_duration_since(Instant::now()));
        let begin = Instant::now();
        match client.ask(text.as_bytes()) {
            Ok(reply) => outcome.count(&format!("small {}", reply.code)),
            Err(what) => outcome.count(&format!("small {what}")),
        }
        outcome.small.push(begin.elapsed().as_secs_f64() * 1e3);
        while next <= Instant::now() {
            next += SMALL_EVERY * SMALL_CLIENTS;
        }
    }
    outcome
}

/// As many connections as the system allows.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Whether LOAD asks for this scenario.
pub(crate) fn is_wanted(name: &str) -> bool {
    std::env::var("LOAD").map_or(true, |wanted| wanted.split('|').any(|part| name.contains(part)))
}

/// Runs every scenario against the binary, prints what came of each, and calls `print` with name, value, unit and bound of each figure.
pub(crate) fn peaks(mut print: impl FnMut(&str, f64, &str, Option<f64>)) {
    let seed = Rng::seed();
    println!("hostile load, LOAD_SEED={seed}");
    let loads = scenarios(seed).into_iter().filter(|scenario| is_wanted(&scenario.name));
    let outcomes = loads.map(|scenario| scenario.run(Dispatcher::start).1);
    let starts = std::iter::once_with(starts).flatten().filter(|outcome| is_wanted(&outcome.name));
    for outcome in outcomes.chain(starts) {
        print(&outcome.name, outcome.peak.unwrap_or(f64::INFINITY), "MiB", Some(BOUND));
        println!("  {outcome}");
        if !outcome.faults.is_empty() {
            print("  faults", outcome.faults.values().sum::<usize>() as f64, "", Some(0.0));
        }
        if let (Some(median), Some(most)) = (outcome.small(0.5), outcome.small(0.99)) {
            print("  small requests beside it, median", median, "ms", Some(MAX_SMALL));
            print("  p99", most, "ms", None);
        }
        print("  sockets, both ends", outcome.sockets, "MiB", None);
    }
}
