//! Measures a dispatcher, and fails if a figure exceeds its limit. Run by `tests/measure`; with the argument `load`, only the hostile
//! load, with `strangers` only callers with bad tokens.

#![allow(clippy::unwrap_used)] // a failure ends the program

#[path = "../it/support/mod.rs"]
mod support;

use std::cell::Cell;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::component::Process;
use support::dispatcher::{Dispatcher, binary, command};
use support::http::{JSON, request};
use support::load::Client;
use support::namespace::Namespace;
use support::{Folder, PATIENCE};

const MAX_SIZE: f64 = 4.75; // MB
const MAX_START: f64 = 20.0; // ms
const MAX_IDLE: f64 = 6.0; // MB, with the code for TLS, which the check of access at start has used
const MAX_AFTER_LOAD: f64 = 16.0; // MB
const STARTS: usize = 21;
const POSTS: usize = 10_000;
const LINES: usize = 64;
const BODY: &str = r#"{"id": "measure", "args": ["Hello", "world", 1, 2, 3]}"#;
const WRK: Duration = Duration::from_secs(3);
/// Requests with tokens that are nobody's, each with another.
const STRANGERS: usize = 10_000;
/// Connections of good callers, and as many of strangers.
const EACH: usize = 16;
/// Good callers keep half their rate.
const MAX_SLOWER: f64 = 2.0;
/// Linux counts the time of a process in these.
const CLOCK_TICK: Duration = Duration::from_millis(10);

/// A figure and its bound.
struct Figures {
    are_good: bool,
}

impl Figures {
    fn print(&mut self, what: &str, value: f64, unit: &str, bound: Option<f64>) {
        let is_good = bound.is_none_or(|bound| value <= bound);
        let bound = bound.map(|bound| format!("(at most {bound} {unit})")).unwrap_or_default();
        println!("{what:<58} {value:>9.2} {unit:<8} {bound}{}", if is_good { "" } else { " TOO MUCH" });
        self.are_good &= is_good;
    }
}

fn main() -> ExitCode {
    let mut figures = Figures { are_good: true };
    let is_only = |what: &str| std::env::args().any(|arg| arg == what);
    if is_only("strangers") {
        strangers(&mut figures)
    } else if !is_only("load") {
        ordinary(&mut figures)
    }
    if !is_only("strangers") {
        support::load::peaks(|what, value, unit, bound| figures.print(what, value, unit, bound))
    }
    if figures.are_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn ordinary(figures: &mut Figures) {
    let size = std::fs::metadata(binary()).unwrap().len();
    figures.print("binary", size as f64 / 1e6, "MB", Some(MAX_SIZE));
    figures.print("start to first reply, median", start(), "ms", Some(MAX_START));
    against_the_api_server(figures);
    dry_run(figures);
    strangers(figures);
}

/// A request with a token.
type Ask<'a> = &'a (dyn Fn(&str) -> String + Sync);

/// How much slower good callers are while strangers try tokens.
fn strangers(figures: &mut Figures) {
    let folder = Folder::new();
    std::fs::create_dir(folder.0.join("tokens")).unwrap();
    std::fs::write(folder.0.join("tokens/ci"), "a-token-of-a-good-caller").unwrap();
    let means = format!("tokens={}", folder.0.join("tokens").display());
    let dispatcher = Dispatcher::start(&["--dry-run=client", "--auth", &means]);
    let post = |token: &str| request("POST", "/job", &format!("{JSON}Authorization: Bearer {token}\r\n"), BODY);
    let (slower, during) = with_strangers(&dispatcher, "a-token-of-a-good-caller", &post, &[401]);
    figures.print("good callers' time with 10,000 bad tokens of files", slower, "times", Some(MAX_SLOWER));
    figures.print("  while they share the processor with them", during, "times", None);

    let namespace = Namespace::new();
    namespace.may_review();
    namespace.may_call("dispatcher", &["create", "get"]);
    let dispatcher = Dispatcher::for_namespace(&namespace, &["--auth=token-review"]);
    // a Job in the cache: the machine's cores are not spent on calls of good callers
    let token = namespace.token();
    let created = dispatcher.send(request("POST", "/job", &format!("{JSON}Authorization: Bearer {token}\r\n"), BODY));
    let target = format!("/job/{}", created.json()["id"].as_str().unwrap());
    let get = |token: &str| request("GET", &target, &format!("Authorization: Bearer {token}\r\n"), "");
    let (slower, during) = with_strangers(&dispatcher, &token, &get, &[401, 503]);
    figures.print("the same where the API server knows the tokens", slower, "times", Some(MAX_SLOWER));
    figures.print("  while they share the processor with them", during, "times", None);
}

/// How much slower in the time after strangers began, and while they were there. `ask`: the request with a token. `codes`: what strangers may
/// get.
fn with_strangers(dispatcher: &Dispatcher, token: &str, ask: Ask<'_>, codes: &[u16]) -> (f64, f64) {
    let (good, answered, is_over) = (ask(token), AtomicUsize::new(0), AtomicBool::new(false));
    let left = AtomicUsize::new(STRANGERS);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..EACH {
            scope.spawn(|| {
                let mut client = Client::new(dispatcher.address);
                while !is_over.load(Ordering::Relaxed) {
                    assert!(begin.elapsed() < 10 * PATIENCE, "the load takes too long");
                    assert_eq!(client.ask(good.as_bytes()).unwrap().code, 200, "a good caller");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        std::thread::sleep(WRK / 6); // connections are made
        let rate = |until: &dyn Fn()| {
            let (before, begin) = (answered.load(Ordering::Relaxed), Instant::now());
            until();
            (answered.load(Ordering::Relaxed) - before) as f64 / begin.elapsed().as_secs_f64()
        };
        let alone = rate(&|| std::thread::sleep(WRK));
        // they come at once, as fast as the machine lets them; the rate is that of the same time as before
        let (during, together) = std::thread::scope(|scope| {
            let strangers: Vec<_> =
                (0..EACH).map(|_| scope.spawn(|| be_strangers(dispatcher, &left, ask, codes))).collect();
            let during = Cell::new(0.0);
            let together = rate(&|| {
                let begin = Instant::now();
                during.set(rate(&|| {
                    while strangers.iter().any(|stranger| !stranger.is_finished()) {
                        std::thread::sleep(CLOCK_TICK)
                    }
                }));
                std::thread::sleep(WRK.saturating_sub(begin.elapsed()))
            });
            (during.get(), together)
        });
        is_over.store(true, Ordering::Relaxed);
        (alone / together, alone / during)
    })
}

fn be_strangers(dispatcher: &Dispatcher, left: &AtomicUsize, ask: Ask<'_>, codes: &[u16]) {
    let mut client = Client::new(dispatcher.address);
    while let Ok(number) = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
        let code = client.ask(ask(&format!("stranger-{number}")).as_bytes()).unwrap().code;
        assert!(codes.contains(&code), "a stranger got {code}");
    }
}

fn start() -> f64 {
    let mut times: Vec<f64> = (0..STARTS)
        .map(|_| {
            let begin = Instant::now();
            let mut process = Process::start(&mut command(&["--port=0", "--dry-run=client"]));
            let mut line = String::new();
            let mut stderr = std::io::BufReader::new(process.0.stderr.take().unwrap());
            std::io::BufRead::read_line(&mut stderr, &mut line).unwrap();
            let address = line.trim().rsplit(' ').next().unwrap();
            let mut connection = support::http::Line::connect(address);
            connection.send(request("GET", "/health/live", "", ""));
            assert_eq!(connection.receive().unwrap().code, 200);
            begin.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[STARTS / 2]
}

/// Megabytes of a line of `/proc/PID/status`.
fn memory(dispatcher: &Dispatcher, line: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", dispatcher.pid())).unwrap();
    let kilobytes = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    kilobytes.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0 / 1e6
}

fn against_the_api_server(figures: &mut Figures) {
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &["--dry-run=server"]);
    figures.print("memory at rest", memory(&dispatcher, "VmRSS:"), "MB", Some(MAX_IDLE));
    figures.print("  of which is not the program's file", memory(&dispatcher, "RssAnon:"), "MB", None);
    let text = request("POST", "/job", JSON, BODY);
    let left = AtomicUsize::new(POSTS);
    let failed = AtomicUsize::new(0);
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..LINES {
            scope.spawn(|| {
                let mut line = dispatcher.line();
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    line.send(&text);
                    let code = line.receive().unwrap().code;
                    failed.fetch_add(usize::from(code != 200), Ordering::Relaxed);
                    assert!(begin.elapsed() < 10 * PATIENCE, "the load takes too long");
                }
            });
        }
    });
    let took = begin.elapsed().as_secs_f64();
    figures.print(
        "memory after 10,000 POSTs with --dry-run=server",
        memory(&dispatcher, "VmRSS:"),
        "MB",
        Some(MAX_AFTER_LOAD),
    );
    figures.print("  and at its highest", memory(&dispatcher, "VmHWM:"), "MB", None);
    figures.print("  of them answered with something else than 200", failed.into_inner() as f64, "", Some(0.0));
    figures.print("  rate, mostly the API server's", POSTS as f64 / took, "/s", None);
}

/// User and system time.
fn cpu(dispatcher: &Dispatcher) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", dispatcher.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u32 = fields[11..13].iter().map(|ticks| ticks.parse::<u32>().unwrap()).sum();
    CLOCK_TICK * ticks
}

fn dry_run(figures: &mut Figures) {
    let folder = Folder::new();
    let body = BODY.replace('"', "\\\"");
    let script = folder.write(
        "post.lua",
        &format!(
            "wrk.method = \"POST\"\nwrk.body = \"{body}\"\nwrk.headers[\"Content-Type\"] = \"application/json\"\n"
        ),
    );
    for (what, args) in [("default filter", &[][..]), ("the filter `.spec = {}`", &[".spec = {}"][..])] {
        let dispatcher = Dispatcher::start(&[&["--dry-run=client"], args].concat());
        for connections in [1, 16, 64, 256] {
            let before = cpu(&dispatcher);
            let output = Command::new("wrk")
                .args(["-t1", "-c", &connections.to_string(), "-d", &format!("{}s", WRK.as_secs()), "-s"])
                .arg(&script)
                .arg(format!("http://{}/job", dispatcher.address))
                .output()
                .unwrap_or_else(|error| panic!("cannot run wrk: {error}"));
            let spent = cpu(&dispatcher) - before;
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(!text.contains("Non-2xx"), "{text}");
            let requests: f64 = text.split(" requests in").next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
            let rate: f64 =
                text.split("Requests/sec:").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
            figures.print(&format!("--dry-run=client, {what}, {connections} connections"), rate, "/s", None);
            figures.print("  CPU per request", spent.as_secs_f64() * 1e6 / requests, "us", None);
        }
    }
}
