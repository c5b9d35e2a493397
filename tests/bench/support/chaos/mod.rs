//! Callers that retry, through two replicas of the dispatcher, while everything behind and between them fails.

mod kind;
mod ledger;
mod proxy;
pub(crate) mod reading;

use super::cluster::ApiServer;
use super::dispatcher::Dispatcher;
use super::load::{Client, Rng};
use super::namespace::Namespace;
use kind::{DELIVERIES, FILTER, Kind, REQUEST, message};
use ledger::{Heard, Made, compare};
use proxy::Proxy;
use rustix::process::Signal;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

const CALLERS: usize = 64;
/// One request of this many is sent by two callers at once.
const TWICE: usize = 8;
/// After this time everything is left in peace.
const CHAOS: Duration = Duration::from_secs(20 * 60);
/// How long a caller repeats a request when all is in peace again.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bad things that happen.
const CARDS: usize = 11;
const REPLICAS: usize = 2;

const CALLS: &str = "k8s_job_dispatcher_api_requests_total{verb=\"";
/// What a run of this many requests must have met.
const LARGE: usize = 5_000;
const TROUBLE: [&str; 6] = [
    "API server: create 409",
    "API server: create 429",
    "API server: create 403",
    "API server: create 504",
    "API server: create none",
    "closed",
];

/// What happened, by name.
type Counts = BTreeMap<String, usize>;

struct Chaos {
    seed: u64,
    requests: usize,
    next: AtomicUsize,
    is_over: AtomicBool,
    addresses: RwLock<[SocketAddr; REPLICAS]>,
    heard: Mutex<Vec<Heard>>,
    counts: Mutex<Counts>,
    begin: Instant,
}

/// Runs it. Prints what happened. Returns all that is wrong.
pub(crate) fn run(seed: u64, requests: usize) -> Vec<String> {
    let namespace = Namespace::new();
    let cluster = namespace.cluster;
    // of two, one has few slots and little time
    let small =
        ["--enable-priority-and-fairness=false", "--max-requests-inflight=2", "--max-mutating-requests-inflight=2"];
    let mut servers = [cluster.api_server_with(&[], &cluster.ca_pem), {
        let flags: Vec<_> = small.iter().chain(&["--request-timeout=200ms"]).map(|flag| flag.to_string()).collect();
        cluster.api_server_with(&flags, &cluster.ca_pem)
    }];
    let targets: Vec<SocketAddr> =
        servers.iter().map(|server| server.url.trim_start_matches("https://").parse().unwrap()).collect();
    let proxies = [0, 1].map(|number| Proxy::start(targets.clone(), seed ^ number, true));
    let files = Files::new(&namespace);
    let start = |number: usize| replica(&namespace, &proxies[number], &files);
    let mut replicas = [0, 1].map(start);
    let chaos = Chaos {
        seed,
        requests,
        next: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
        addresses: RwLock::new([replicas[0].address, replicas[1].address]),
        heard: Mutex::default(),
        counts: Mutex::default(),
        begin: Instant::now(),
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|number| {
                let chaos = &chaos;
                scope.spawn(move || chaos.call(number))
            })
            .collect();
        let mut rng = Rng::new(seed);
        let mut cards = Vec::new();
        while callers.iter().any(|caller| !caller.is_finished()) {
            thread::sleep(Duration::from_millis(100 + rng.below(900) as u64));
            if chaos.begin.elapsed() < CHAOS && !chaos.is_over.load(Relaxed) {
                let card = draw(&mut cards, &mut rng);
                chaos.disturb(card, &mut rng, &namespace, &mut servers, &proxies, &mut replicas, &files, &start);
            }
        }
    });
    let made = made(&namespace);
    replicas.iter().for_each(|replica| chaos.note(replica));
    let mut wrong = compare(requests, &chaos.heard.lock().unwrap(), &made);
    let counts = chaos.counts.lock().unwrap();
    let missing = TROUBLE.iter().filter(|what| requests >= LARGE && !counts.contains_key(**what));
    wrong.extend(missing.map(|what| format!("there was no {what:?}: it was too quiet")));
    println!(
        "{} Jobs for {requests} requests in {:.0?}, {} connections cut",
        made.len(),
        chaos.begin.elapsed(),
        proxies[0].cuts() + proxies[1].cuts()
    );
    for (what, count) in &*counts {
        println!("{count:>8} {what}");
    }
    wrong
}

/// What the replicas read while they run.
struct Files {
    token: PathBuf,
    ca: PathBuf,
}

impl Files {
    fn new(namespace: &Namespace) -> Self {
        let path = |name: &str| namespace.folder.0.join(name);
        let files = Files { token: path("token-of-the-replicas"), ca: path("ca-of-the-replicas") };
        write(&files.token, &namespace.token());
        write(&files.ca, &namespace.cluster.ca_pem);
        files
    }
}

fn replica(namespace: &Namespace, proxy: &Proxy, files: &Files) -> Dispatcher {
    let url = format!("https://{}", proxy.address);
    let mut command = Dispatcher::command_for(namespace, &url, &[FILTER, DELIVERIES]);
    command.arg("--token-file").arg(&files.token).arg("--certificate-authority").arg(&files.ca);
    Dispatcher::start_command(command)
}

/// Half written, gone or whole for a while, and whole at the end.
fn swap(path: &Path, text: &str, rng: &mut Rng) {
    match rng.below(3) {
        0 => std::fs::write(path, &text[..text.len() / 2]).unwrap(),
        1 => std::fs::remove_file(path).unwrap(),
        _ => write(path, text),
    }
    thread::sleep(Duration::from_millis(rng.below(300) as u64));
    write(path, text);
}

/// As the kubelet does: whole, at once.
fn write(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// So that each happens in a short run too, they come in a random order, and again when all have been.
fn draw(cards: &mut Vec<usize>, rng: &mut Rng) -> usize {
    if cards.is_empty() {
        cards.extend(0..CARDS)
    }
    cards.swap_remove(rng.below(cards.len()))
}

/// Until the first of them is ready. The second answers 429 to its own start too, so it may not be for long.
fn wait(servers: &[ApiServer; 2]) {
    servers[0].wait()
}

fn made(namespace: &Namespace) -> Vec<Made> {
    let mut made = Vec::new();
    let mut token = String::new();
    loop {
        let (_, list) = namespace.admin().get(&format!("{}?limit=1000&continue={token}", namespace.jobs()));
        for job in list["items"].as_array().unwrap() {
            let request = job["metadata"]["annotations"][REQUEST].as_str().and_then(|text| text.parse().ok());
            made.push(Made { job: job["metadata"]["name"].as_str().unwrap().to_owned(), request })
        }
        match list["metadata"]["continue"].as_str() {
            Some(next) if !next.is_empty() => token = next.to_owned(),
            _ => return made,
        }
    }
}

impl Chaos {
    fn count(&self, what: impl Into<String>) {
        *self.counts.lock().unwrap().entry(what.into()).or_default() += 1
    }

    /// Adds what a replica has had from the API servers.
    fn note(&self, replica: &Dispatcher) {
        let Ok(reply) = Client::new(replica.address).ask(super::http::request("GET", "/metrics", "", "").as_bytes())
        else {
            return;
        };
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        for line in text.lines() {
            let Some((labels, count)) = line.strip_prefix(CALLS).and_then(|rest| rest.split_once("\"} ")) else {
                continue;
            };
            let what = format!("API server: {}", labels.replace("\",code=\"", " "));
            *self.counts.lock().unwrap().entry(what).or_default() += count.parse::<usize>().unwrap()
        }
    }

    /// One caller: takes request after request, and repeats each until it gets a Job.
    fn call(&self, number: usize) {
        let mut rng = Rng::new(self.seed.wrapping_add(number as u64 + 1));
        loop {
            let turn = self.next.fetch_add(1, Relaxed);
            // those that are sent twice have two turns
            let request = turn - turn.div_ceil(TWICE).min(turn);
            if turn % TWICE == 1 && !Kind::of(request).is_repeatable() {
                continue; // each time makes a Job
            }
            if request >= self.requests {
                return self.is_over.store(true, Relaxed);
            }
            self.send(request, &mut rng);
        }
    }

    fn send(&self, request: usize, rng: &mut Rng) {
        let begin = Instant::now();
        let mut pause = Duration::from_millis(20);
        for attempt in 0.. {
            let address = self.addresses.read().unwrap()[rng.below(REPLICAS)];
            let (what, retry_after) = match Client::new(address).ask(message(request, attempt).as_bytes()) {
                Ok(reply) if matches!(reply.code, 200 | 201) => {
                    self.count(reply.code.to_string());
                    let job = reply.json()["id"].as_str().unwrap().to_owned();
                    return self.heard.lock().unwrap().push(Heard { request, job: Some(job) });
                }
                Ok(reply) => {
                    let (code, reason) = reply.error();
                    let retry_after = reply.header("Retry-After").and_then(|seconds| seconds.parse().ok());
                    if code < 500 && retry_after.is_none() {
                        self.count(format!("{code} {reason}, which is final"));
                        return;
                    }
                    (format!("{code} {reason}"), retry_after)
                }
                Err(why) => (why.to_owned(), None),
            };
            self.count(what);
            if !Kind::of(request).is_repeatable() {
                return self.heard.lock().unwrap().push(Heard { request, job: None });
            }
            if begin.elapsed() > CHAOS + PATIENCE {
                return;
            }
            let jitter = Duration::from_millis(rng.below(1 + pause.as_millis() as usize) as u64);
            thread::sleep(jitter + Duration::from_secs(retry_after.unwrap_or(0).min(2)));
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Does one bad thing, of [`CARDS`].
    #[expect(clippy::too_many_arguments)]
    fn disturb(
        &self,
        card: usize,
        rng: &mut Rng,
        namespace: &Namespace,
        servers: &mut [ApiServer; 2],
        proxies: &[Proxy; 2],
        replicas: &mut [Dispatcher; REPLICAS],
        files: &Files,
        start: &dyn Fn(usize) -> Dispatcher,
    ) {
        let quota = format!("/api/v1/namespaces/{}/resourcequotas", namespace.name);
        match card {
            0 => {
                let number = rng.below(2);
                match rng.below(2) {
                    0 => servers[number].kill(),
                    _ => servers[number].stop(),
                }
                servers[number].launch_again();
                wait(servers);
                self.count("an API server was ended and started");
            }
            1 => {
                servers.iter_mut().for_each(ApiServer::kill);
                thread::sleep(Duration::from_millis(rng.below(2000) as u64));
                servers.iter_mut().for_each(ApiServer::launch_again);
                wait(servers);
                self.count("both API servers were killed and started");
            }
            2 | 3 => {
                proxies[rng.below(2)].cut_all();
                self.count("all connections of a replica were cut");
            }
            4 | 5 => {
                let names = ["first", "second"];
                for name in names {
                    let hard = json!({"count/jobs.batch": if rng.below(2) == 0 { "0" } else { "1000000" }});
                    let object = json!({"metadata": {"name": name}, "spec": {"hard": hard}});
                    namespace.admin().try_call("POST", &quota, Some(&object));
                }
                thread::sleep(Duration::from_millis(rng.below(1500) as u64));
                for name in names {
                    namespace.admin().try_call("DELETE", &format!("{quota}/{name}"), None);
                }
                self.count("quotas came and went");
            }
            6 => {
                swap(&files.token, &namespace.token(), rng);
                swap(&files.ca, &namespace.cluster.ca_pem, rng);
                self.count("the token was rotated, and the CA's file swapped");
            }
            7 | 8 => {
                // half a second is longer than the second API server lets a request take
                namespace.cluster.stall_etcd(Duration::from_millis(500 + rng.below(500) as u64));
                self.count("etcd was held up");
            }
            9 => {
                let number = rng.below(REPLICAS);
                self.note(&replicas[number]);
                replicas[number] = start(number); // which kills the old one
                self.addresses.write().unwrap()[number] = replicas[number].address;
                self.count("a replica was killed and started");
            }
            _ => {
                let number = rng.below(REPLICAS);
                self.note(&replicas[number]);
                replicas[number].signal(Signal::TERM);
                let next = start(number);
                self.addresses.write().unwrap()[number] = next.address;
                std::mem::replace(&mut replicas[number], next).wait();
                self.count("a replica was replaced in order");
            }
        }
    }
}
