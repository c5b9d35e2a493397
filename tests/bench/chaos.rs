//! Chaos: callers that retry, replicas, API servers, connections, quotas and tokens fail at random; then callers and Jobs are compared. Run by
//! `tests/chaos`. Arguments: `--seed N`, `--requests N`.

#![allow(clippy::unwrap_used)] // a failure ends the program

#[path = "../it/support/mod.rs"]
mod support;

use std::process::ExitCode;

const REQUESTS: usize = 10_000;
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
    println!(
        "seed {seed}: tests/chaos --seed {seed} --requests {requests} does the same again, as far as threads allow"
    );
    let wrong = support::chaos::run(seed, requests);
    wrong.iter().take(MOST).for_each(|line| println!("WRONG: {line}"));
    println!("{} wrong", wrong.len());
    if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
