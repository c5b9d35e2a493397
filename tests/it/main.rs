//! Tests of the real binary against the real API server. Table of contents below.

#![allow(clippy::unwrap_used)] // a test that cannot go on says so

mod support;

/// Create a Job, see it there, ask for its status.
mod dispatch;
