//! Filters that need much memory before the first request.

use super::process;
use super::{BOUND, Outcome};
use crate::support::component::Process;
use crate::support::dispatcher::command;
use std::io::{BufRead, BufReader};
use std::thread;
use std::time::{Duration, Instant};

const SIZE: usize = 64_000;
const TIMEOUT: Duration = Duration::from_secs(20);
/// The memory is looked at this often.
const LOOK: Duration = Duration::from_millis(1);

/// Starts until the memory of one was seen.
const MAX_TRIES: usize = 20;

/// Name, what is repeated, the middle, what is repeated behind it, the end, whether it must be refused.
const FILTERS: [(&str, &str, &str, &str, &str, bool); 13] = [
    ("def f: def f:", "def f: ", "1", "; f", "", true),
    ("def f:def f:", "def f:", "1", ";f", "", true),
    ("[[[[", "[", "1", "]", "", true),
    ("[[[[ without an end", "[", "", "", "", true),
    ("((((", "(", "1", ")", "", true),
    ("{a: {a:", "{a: ", "1", "}", "", true),
    ("if if", "if . then ", "1", " else 1 end", "", true),
    (r#""\("\("#, r#""\("#, "1", r#")""#, "", true),
    ("reduce reduce", "reduce . as $x (0; ", "1", ")", "", true),
    (". as $x | . as $x |", ". as $x | ", "$x", "", "", true),
    ("1 + 1 +", "1 + ", "1", "", "", true),
    ("8,000 tokens", "1 +             ", "1", "", "", false),
    ("comments", "# text\n", ".", "", "", false),
];

/// Starts the dispatcher with each, and returns what came of it.
pub(crate) fn starts() -> Vec<Outcome> {
    FILTERS
        .iter()
        .map(|&(name, open, middle, close, end, is_refused)| {
            let filter = text(open, middle, close, end);
            let mut outcome = start(name, &filter, is_refused);
            for _ in 0..MAX_TRIES {
                if outcome.peak.is_none() {
                    outcome = start(name, &filter, is_refused) // it ended before it was looked at
                }
            }
            outcome.check_peak(BOUND);
            outcome
        })
        .collect()
}

fn text(open: &str, middle: &str, close: &str, end: &str) -> String {
    let times = SIZE / (open.len() + close.len());
    [&open.repeat(times), middle, &close.repeat(times), end].concat()
}

fn start(name: &str, filter: &str, must_be_refused: bool) -> Outcome {
    let begin = Instant::now();
    let mut process = Process::start(&mut command(&["--port=0", "--dry-run=client", filter]));
    let pid = process.0.id();
    let stderr = BufReader::new(process.0.stderr.take().unwrap());
    // until it listens, or its end
    let log = thread::spawn(move || {
        let mut log = String::new();
        for line in stderr.lines().map_while(Result::ok) {
            log.push_str(&line);
            log.push('\n');
            if line.contains("listening on") {
                break;
            }
        }
        log
    });
    let mut outcome = Outcome::new(format!("start: {name}"));
    while !log.is_finished() && begin.elapsed() < TIMEOUT {
        outcome.peak = process::peak(pid).or(outcome.peak);
        match outcome.peak {
            Some(_) => thread::sleep(LOOK),
            None => thread::yield_now(), // it may end within a millisecond
        }
    }
    outcome.took = begin.elapsed();
    if !log.is_finished() {
        outcome.fault("neither started nor refused in 20 s");
        return outcome; // which kills it, and so ends the thread
    }
    outcome.peak = process::peak(pid).or(outcome.peak);
    let log = log.join().unwrap();
    if log.contains("listening on") {
        outcome.count("started");
        if must_be_refused {
            outcome.fault("it was not refused");
        }
    } else {
        let status = process.0.wait().unwrap();
        outcome.count(&status.to_string());
        if status.code() != Some(1) {
            outcome.fault(&format!("it ended with {status}"));
        }
        if !log.contains("<argument>:") {
            outcome.fault("no line says where");
        }
    }
    outcome
}
