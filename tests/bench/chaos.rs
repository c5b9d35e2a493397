//! Chaos: callers that retry, replicas, API servers, connections, quotas and tokens fail at random; then callers and Jobs are compared. And
//! for callers that read and wait: the watch is cut, silenced and refused, Jobs change, etcd is restored; then answers and the history of the Jobs
//! are compared. Run by `tests/chaos`. Arguments: `writers` or `readers`, else both; `--seed N`, `--requests N`, `--answers N`.

#![allow(clippy::unwrap_used)] // a failure ends the program

#[path = "../it/support/mod.rs"]
mod support;

use std::process::ExitCode;

const REQUESTS: usize = 10_000;
const ANSWERS: usize = 10_000;
/// Lines that are printed of what is wrong.
const MOST: usize = 50;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let number = |name: &str| {
        let value = args.iter().skip_while(|arg| *arg != name).nth(1);
        value.map(|value| value.parse::<u64>().unwrap_or_else(|_| panic!("{name} is not followed by a number")))
    };
    let seed = number("--seed").unwrap_or_else(|| std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into());
    let requests = number("--requests").map_or(REQUESTS, |requests| requests as usize);
    let answers = number("--answers").map_or(ANSWERS, |answers| answers as usize);
    let is_asked = |part: &str| {
        !["writers", "readers"].iter().any(|one| args.iter().any(|arg| arg == one))
            || args.iter().any(|arg| arg == part)
    };
    let mut wrong = Vec::new();
    if is_asked("writers") {
        println!(
            "seed {seed}: tests/chaos writers --seed {seed} --requests {requests} does the same again, as far as threads allow"
        );
        wrong.extend(support::chaos::run(seed, requests))
    }
    if is_asked("readers") {
        println!(
            "seed {seed}: tests/chaos readers --seed {seed} --answers {answers} does the same again, as far as threads allow"
        );
        wrong.extend(support::chaos::reading::run(seed, answers))
    }
    wrong.iter().take(MOST).for_each(|line| println!("WRONG: {line}"));
    println!("{} wrong", wrong.len());
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
