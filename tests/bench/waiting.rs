//! Measures waiting callers, with many Jobs, on the real API server, and fails if a figure exceeds its limit. Run by `tests/measure`.

#![allow(clippy::unwrap_used)] // a failure ends the program

#[path = "../it/support/mod.rs"]
mod support;

use serde_json::{Value, json};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use support::component::Process;
use support::dispatcher::Dispatcher;
use support::http::{Line, request};
use support::namespace::Namespace;
use support::{PATIENCE, eventually};

const JOBS: usize = 10_000;
const WAITERS: usize = 1_000;
/// Jobs whose end is timed.
const ENDS: usize = 40;
const WRITERS: usize = 16;
/// Beside what the dispatcher needs without Jobs and waiters.
const MAX_MORE: f64 = 32.0; // MB
const MAX_LATE: f64 = 100.0; // ms
const MIN_RATE: f64 = 2.0;
const WRK: &str = "3s";

fn job(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "k8s-job-dispatcher"}, "annotations": {
            "k8s-job-dispatcher/fingerprint": "f".repeat(64), "k8s-job-dispatcher/nonce": "0".repeat(32),
        }},
        "spec": {"suspend": true, "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "job", "image": "busybox", "args": ["Hello", "world"]}],
        }}},
    })
}

fn name(number: usize) -> String {
    format!("job-{number}")
}

/// Megabytes, or a number, of a line of `/proc/PID/status`.
fn status(dispatcher: &Dispatcher, line: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", dispatcher.pid())).unwrap();
    let value = status.lines().find_map(|text| text.strip_prefix(line)).unwrap().trim().to_owned();
    match value.strip_suffix(" kB") {
        Some(kilobytes) => kilobytes.parse::<f64>().unwrap() * 1024.0 / 1e6,
        None => value.parse().unwrap(),
    }
}

fn metric(dispatcher: &Dispatcher, name: &str) -> f64 {
    let text = String::from_utf8(dispatcher.get("/metrics").body).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("k8s_job_dispatcher_")?.strip_prefix(name));
    line.map_or(0.0, |value| value.trim().parse().unwrap())
}

fn create_jobs(namespace: &Namespace) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Relaxed);
                    if number >= JOBS {
                        return;
                    }
                    namespace.admin().create(&namespace.jobs(), job(&name(number)));
                }
            });
        }
    });
}

fn end(namespace: &Namespace, name: &str) -> Instant {
    let condition = |name: &str| json!({"type": name, "status": "True", "reason": "R", "message": "m"});
    let status = json!({"status": {
        "startTime": "2026-01-01T00:00:00Z", "conditions": [condition("FailureTarget"), condition("Failed")],
    }});
    let (code, answer) = namespace.admin().patch(&format!("{}/{name}/status", namespace.jobs()), status);
    assert_eq!(code, 200, "{answer}");
    Instant::now()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Milliseconds from the answer that a Job has ended until a caller, or kubectl, knows.
fn lateness(namespace: &Namespace, waiters: &mut [(String, Line)]) -> [f64; 2] {
    let (mut ours, mut kubectls) = (Vec::new(), Vec::new());
    for (name, line) in waiters {
        let mut kubectl = namespace.cluster.kubectl();
        kubectl.args(["--namespace", &namespace.name, "wait", "--for=condition=Failed", "--timeout=60s"]);
        kubectl.arg(format!("job/{name}")).stdout(Stdio::null());
        let mut kubectl = Process::start(&mut kubectl);
        // until it watches, as its cache of the API's kinds is cold
        thread::sleep(Duration::from_millis(700));
        let (begin, kubectl_ended, line_ended) = thread::scope(|scope| {
            let kubectl = scope.spawn(|| {
                assert!(kubectl.0.wait().unwrap().success());
                Instant::now()
            });
            let line = scope.spawn(|| {
                assert_eq!(line.receive().unwrap().json()["state"], "failed");
                Instant::now()
            });
            (end(namespace, name), kubectl.join().unwrap(), line.join().unwrap())
        });
        let late = |ended: Instant| ended.saturating_duration_since(begin).as_secs_f64() * 1e3;
        ours.push(late(line_ended));
        kubectls.push(late(kubectl_ended));
    }
    [median(ours), median(kubectls)]
}

/// Requests a second.
fn rate(dispatcher: &Dispatcher, target: &str) -> f64 {
    let url = format!("http://{}{target}", dispatcher.address);
    let output = Command::new("wrk").args(["-t2", "-c64", &format!("-d{WRK}"), &url]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("Non-2xx"), "{text}");
    let line = text.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    line.unwrap_or_else(|| panic!("{text}")).trim().parse().unwrap()
}

fn main() -> ExitCode {
    let mut is_good = true;
    let mut print = |what: &str, value: f64, unit: &str, bound: Option<(f64, f64)>| {
        let fits = bound.is_none_or(|(least, most)| (least..=most).contains(&value));
        println!("{what:<58} {value:>9.2} {unit:<8} {}", if fits { "" } else { "OUT OF BOUNDS" });
        is_good &= fits;
    };
    let namespace = Namespace::new();
    let dispatcher = Dispatcher::for_namespace(&namespace, &["--max-connections=2048"]);
    assert_eq!(dispatcher.get("/job/none").code, 404); // begins the watch
    eventually("the watch", || (metric(&dispatcher, "watch_silence_seconds") > 0.0).then_some(()));
    let (memory, threads) = (status(&dispatcher, "VmRSS:"), status(&dispatcher, "Threads:"));
    print("memory with a watch and no Jobs", memory, "MB", None);

    let begin = Instant::now();
    create_jobs(&namespace);
    print("Jobs created by others", JOBS as f64 / begin.elapsed().as_secs_f64(), "/s", None);
    eventually("all Jobs to be known", || {
        (metric(&dispatcher, "jobs{state=\"suspended\"}") == JOBS as f64).then_some(())
    });
    print("  their bytes as counted", metric(&dispatcher, "jobs_cache_bytes") / 1e6, "MB", None);
    print("  memory with 10,000 Jobs", status(&dispatcher, "VmRSS:"), "MB", None);
    let mut waiters: Vec<(String, Line)> = (0..WAITERS)
        .map(|number| {
            let mut line = dispatcher.line();
            line.send(request("GET", &format!("/job/{}?wait=5m", name(number)), "", ""));
            (name(number), line)
        })
        .collect();
    eventually("all callers to wait", || (metric(&dispatcher, "waiters") == WAITERS as f64).then_some(()));
    let more = status(&dispatcher, "VmRSS:") - memory;
    print("  1,000 callers that wait: memory, more than without", more, "MB", Some((0.0, MAX_MORE)));
    // those that were started while a thousand came together end after ten seconds
    let end = Instant::now() + PATIENCE;
    while status(&dispatcher, "Threads:") > threads && Instant::now() < end {
        thread::sleep(Duration::from_millis(100))
    }
    let more = status(&dispatcher, "Threads:") - threads;
    print("  and threads, more than without", more, "", Some((-100.0, 0.0)));

    let [ours, kubectl] = lateness(&namespace, &mut waiters[..ENDS]);
    print("a Job's end reaches a caller after, median", ours, "ms", Some((0.0, MAX_LATE)));
    print("  and kubectl wait", kubectl, "ms", None);
    drop(waiters);
    eventually("disconnected callers to be noticed", || (metric(&dispatcher, "waiters") == 0.0).then_some(()));

    let known = rate(&dispatcher, "/job/job-9999");
    let other = Namespace::with(json!({}), &["create", "get"]);
    other.admin().create(&other.jobs(), job("one"));
    let without = Dispatcher::for_namespace(&other, &[]);
    let called = rate(&without, "/job/one");
    print("GET of a known Job, 64 connections", known, "/s", None);
    print("  of one that needs a call", called, "/s", None);
    print("  ratio", known / called, "", Some((MIN_RATE, f64::MAX)));
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
