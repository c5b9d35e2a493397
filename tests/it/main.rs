//! Tests of the real binary against the real API server. Table of contents below.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so

mod support;

/// What the process holds for large Jobs and slow clients, and that others are served meanwhile.
mod auth;
mod bounds;
/// The Helm chart, and the YAML for users without Helm.
mod chart;
/// Options, exit codes, messages.
mod cli;
/// `GET /openapi.json`, and that it is true.
mod contract;
/// What callers hold does not make others wait or fail.
mod crowd;
/// Delete Jobs.
mod delete;
/// Create Jobs and get their status.
mod dispatch;
/// The page for people. Partly run by `tests/page`, in a browser.
mod docs;
/// The HTTP server: parsing, limits, deadlines.
mod edge;
/// That what is reported of Jobs is true, whatever the watch does.
mod evidence;
/// Every failure, with its code and reason.
mod failure;
/// Idempotency keys.
mod idempotency;
/// The image, as a kubelet runs it. Run by `tests/image`.
mod image;
/// Kueue in front of Jobs. Run by `cargo test --test it -- --ignored kueue::`.
mod kueue;
/// Pages of Jobs.
mod list;
/// The log, incident by incident.
mod log;
/// Responses that are lost, late or invalid.
mod lost;
/// Hostile load in 64 MiB. Run by `tests/image`.
mod memory;
/// Metrics and alerts. Partly run by `tests/metrics`.
mod metrics;
/// Pods of Jobs, and their logs.
mod pods;
/// The recipes in `deploy/recipes`.
mod policy;
mod recipes;
/// Retries, and calls that are not made.
mod retry;
/// What must not be logged or returned.
mod secrets;
mod senders;
/// SIGTERM and SIGINT.
mod shutdown;
/// Consistency of help, documentation and code.
mod tidy;
/// Callers that wait for the end of a Job, and the watch that wakes them.
mod waiting;
/// Admission webhooks and policies that deny, fail or warn.
mod webhooks;
