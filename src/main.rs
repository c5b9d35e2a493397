//! HTTP in, Kubernetes Job out, with one jq filter as the whole configuration.

mod account;
mod alloc;
mod answered;
mod auth;
mod cli;
mod config;
mod dispatch;
mod docs;
mod filter;
mod form;
mod hash;
mod hosts;
mod http;
mod jobs;
mod kube;
mod logger;
mod manifest;
mod metrics;
mod random;
mod route;
mod second;
mod server;
mod status;
mod trace;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// Exit code: something failed.
const FAILED: u8 = 1;
/// Exit code: a bad option or variable.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let args = match cli::parse(std::env::args_os().skip(1)) {
        cli::Command::Run(args) => args,
        cli::Command::Help => return print(cli::HELP),
        cli::Command::Version => return print(concat!("k8s-job-dispatcher ", env!("CARGO_PKG_VERSION"), "\n")),
    };
    let config = match config::load(&args, &|name| std::env::var_os(name)) {
        Ok(config) => config,
        Err(problems) => {
            let code = if problems.usage.is_empty() { FAILED } else { USAGE };
            return fail(code, &[problems.usage, problems.failed].concat());
        }
    };
    logger::start(config.log.level, config.log.format);
    if config.check_only {
        config.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        return ExitCode::SUCCESS;
    }
    match server::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(FAILED, &[problem]),
    }
}

/// Prints to standard output; a closed pipe is not an error.
fn print(text: &str) -> ExitCode {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

/// Prints each problem to standard error. Filter errors begin with their file, so that editors can jump there.
fn fail(code: u8, problems: &[String]) -> ExitCode {
    for problem in problems {
        match problem.strip_suffix('\n') {
            Some(of_filter) => eprintln!("{of_filter}"),
            None => eprintln!("k8s-job-dispatcher: {problem}"),
        }
    }
    if code == USAGE {
        eprintln!("k8s-job-dispatcher: see --help");
    }
    ExitCode::from(code)
}
