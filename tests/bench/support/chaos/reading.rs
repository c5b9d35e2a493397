//! Callers that read, wait, list and delete, through two replicas of the dispatcher, while the watch and the Jobs meet everything that happens
//! to them; then all answers are compared with the history that a recorder has kept.

mod callers;
mod changes;
mod check;
mod faults;
mod front;
mod history;
mod recorder;

use super::super::dispatcher::Dispatcher;
use super::super::namespace::Namespace;
use super::Counts;
use super::proxy::Proxy;
use callers::Callers;
use changes::Changes;
use check::{Answer, Says, Wrong, check};
use faults::Faults;
use front::Front;
use history::{SLACK, seconds};
use recorder::{Clock, Recorder};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

const REPLICAS: usize = 2;
/// Of each kind of wrong answers, at the beginning.
const SOME: usize = 4;
/// At the end the recorder sees what has been done.
const LAST_LOOK: Duration = Duration::from_secs(3);
/// What a run of this many answers must have met.
const LARGE: usize = 5_000;
const MET: [&str; 20] = [
    "GET 200",
    "GET 404",
    "GET with wait 200",
    "GET with wait 404",
    "POST 201",
    "POST with wait 201",
    "DELETE 202",
    "page 200",
    "the watch was cut",
    "connections were frozen",
    "an API server was silenced",
    "lists and watches were answered 410",
    "lists and watches were answered 429",
    "lists and watches were answered 504",
    "streaming lists were answered 504",
    "etcd was restored",
    "a label was removed",
    "a Job was deleted",
    "a Job was made again",
    "a Job with a TTL was gone",
];

/// What the threads share.
pub(crate) struct Shared {
    clock: Clock,
    answers: Mutex<Vec<Answer>>,
    counts: Mutex<Counts>,
    /// Names of Jobs, in the order of their creation.
    names: Mutex<Vec<String>>,
    /// Enough was answered.
    is_over: AtomicBool,
}

impl Shared {
    fn count(&self, what: impl Into<String>) {
        *self.counts.lock().unwrap().entry(what.into()).or_default() += 1
    }
}

/// Runs it. Prints what happened. Returns all that is wrong.
pub(crate) fn run(seed: u64, wanted: usize) -> Vec<String> {
    let namespace = Namespace::with(serde_json::json!({}), &["create", "get", "list", "watch", "delete"]);
    namespace.cluster.needs_controller_manager();
    namespace.allow_too(&[("", "pods", "list")]);
    let cluster = namespace.cluster;
    let clock = Clock(Instant::now());
    let recorder = Recorder::start(clock, cluster.admin.clone(), &namespace.jobs());
    let servers = [0, 1].map(|_| cluster.another_api_server());
    let targets: Vec<SocketAddr> =
        servers.iter().map(|server| server.url.trim_start_matches("https://").parse().unwrap()).collect();
    let front = Front::start(targets[1], &cluster.ca_pem, &servers[1].admin_with(&cluster.ca_pem), &namespace.jobs());
    // the first replica is behind a balancer, the second behind the front
    let proxies = [Proxy::start(targets, seed, false), Proxy::start(vec![front.address], seed, false)];
    let replicas = [
        replica(&namespace, &proxies[0], &cluster.ca_pem, "list,delete"),
        replica(&namespace, &proxies[1], &front.pem, "list,delete,pods"),
    ];
    let shared = Arc::new(Shared {
        clock,
        answers: Mutex::default(),
        counts: Mutex::default(),
        names: Mutex::default(),
        is_over: AtomicBool::new(false),
    });
    let changes = Changes::new(&shared, &namespace, seed);
    changes.make_those_that_stay();
    let mut faults = Faults {
        shared: &shared,
        recorder: &recorder,
        cluster,
        servers,
        proxies,
        front,
        spans: Vec::new(),
        wrong: Vec::new(),
        renew: &|| super::write(&namespace.folder.0.join("token"), &namespace.token()),
    };
    let callers = Callers { shared: &shared, addresses: [replicas[0].address, replicas[1].address], seed };
    thread::scope(|scope| {
        scope.spawn(|| changes.go_on());
        callers.start(scope);
        faults.play(seed, wanted, &changes);
        shared.is_over.store(true, Relaxed)
    });
    thread::sleep(LAST_LOOK);
    let history = recorder.history.lock().unwrap().clone();
    let answers = shared.answers.lock().unwrap().clone();
    changes.note_expired(&history);
    let found = check(&history, &faults.spans, &answers);
    found.iter().for_each(|one| shared.count(format!("WRONG: {}", one.kind)));
    let mut wrong = some_of_each(found);
    wrong.append(&mut faults.wrong);
    wrong.extend(too_quiet(&shared, wanted, &answers));
    let lag = recorder.lag(&changes.answered.lock().unwrap());
    if lag > SLACK {
        wrong.push(format!("the recorder was {lag} ms late: the machine is too slow for this to prove anything"))
    }
    if !wrong.is_empty() {
        keep_logs(&replicas, clock)
    }
    print(&shared, answers.len(), faults.front.injected(), lag);
    wrong
}

fn replica(namespace: &Namespace, proxy: &Proxy, ca_pem: &str, enabled: &str) -> Dispatcher {
    let ca = namespace.folder.write(&format!("ca-of-{}", proxy.address.port()), ca_pem);
    let url = format!("https://{}", proxy.address);
    let mut command = Dispatcher::command_for(namespace, &url, &[".", "--log-level=debug", "--enable", enabled]);
    // the last one counts
    command.arg("--certificate-authority").arg(ca);
    Dispatcher::start_command(command)
}

/// In words, with some of each kind at the beginning.
fn some_of_each(found: Vec<Wrong>) -> Vec<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let (some, others): (Vec<_>, Vec<_>) = found.into_iter().partition(|one| {
        let count = counts.entry(one.kind).or_default();
        *count += 1;
        *count <= SOME
    });
    some.into_iter().chain(others).map(|one| format!("{}: {}", one.kind, one.words)).collect()
}

/// What should have happened, and did not.
fn too_quiet(shared: &Shared, wanted: usize, answers: &[Answer]) -> Vec<String> {
    let counts = shared.counts.lock().unwrap();
    let missing = MET.iter().filter(|what| wanted >= LARGE && !counts.contains_key(**what));
    let mut wrong: Vec<_> = missing.map(|what| format!("there was no {what:?}: it was too quiet")).collect();
    let silent = answers.iter().filter(|answer| answer.says == Says::Nothing).count();
    if silent * 2 > answers.len() {
        wrong.push(format!("{silent} of {} answers say nothing: it was too quiet", answers.len()))
    }
    wrong
}

/// Their times are those of the clock.
fn keep_logs(replicas: &[Dispatcher], clock: Clock) {
    let begin = SystemTime::now() - clock.0.elapsed();
    let begin = begin.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64() % 60.0;
    println!("0.000 was at second {begin:.3} of a minute");
    for (number, replica) in replicas.iter().enumerate() {
        let path = std::env::temp_dir().join(format!("chaos-replica-{number}.log"));
        std::fs::write(&path, replica.log().join("\n")).unwrap();
        println!("the log of replica {number} is {}", path.display())
    }
}

fn print(shared: &Shared, answers: usize, injected: usize, lag: u64) {
    println!(
        "{answers} answers in {} s; {injected} lists and watches were answered with errors; the recorder was at most {lag} ms late",
        seconds(shared.clock.now())
    );
    for (what, count) in &*shared.counts.lock().unwrap() {
        println!("{count:>8} {what}");
    }
}
