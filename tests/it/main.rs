//! Tests of the real binary against the real API server. Table of contents below.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so

mod support;

/// The Helm chart, and the YAML for who has no Helm.
mod chart;
/// Options, exit codes, messages.
mod cli;
/// What `GET /openapi.json` says, and that it is true.
mod contract;
/// Create a Job, see it there, ask for its status.
mod dispatch;
/// The page for people. Partly run by `tests/page`, in a browser.
mod docs;
/// What is HTTP, what is not, and who waits.
mod edge;
/// Every way in which it can go wrong, with the code and reason that the contract promises.
mod failure;
/// The image, as a kubelet runs it. Run by `tests/image`.
mod image;
/// A real queue in front of Jobs. Run by `cargo test --test it -- --ignored kueue::`.
mod kueue;
/// Answers that are lost, late or odd.
mod lost;
/// What is counted and timed. Partly run by `tests/metrics`.
mod metrics;
/// What `deploy/recipes` says about concurrency.
mod recipes;
/// What must not be seen.
mod secrets;
/// SIGTERM and SIGINT.
mod shutdown;
/// What must agree.
mod tidy;
