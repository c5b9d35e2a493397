//! What a request asks for.

use super::log::LogQuery;
use super::prefer::{Body, Wait};
use crate::kube::JobKey;
use crate::manifest::Manifest;

/// What a request asks for, decided.
#[derive(Debug)]
pub(crate) enum Dispatch {
    /// Create this Job and return its name.
    Create(Creation),
    /// The filter has no output for this request: do nothing.
    Nothing,
    /// Get the Job of this name, which is a DNS-1123 label.
    Lookup(String, Option<Wait>),
    /// Read a log of the Job of this name, which is a DNS-1123 label.
    Log(String, LogQuery),
    /// Find out why the pods of these Jobs wait.
    PodReasons(Vec<JobKey>),
    /// Delete the Job of this name, which is a DNS-1123 label.
    Delete(String),
}

/// A Job to create, and how to answer.
#[derive(Debug)]
pub(crate) struct Creation {
    pub(crate) manifest: Manifest,
    pub(super) fingerprint: String,
    pub(super) nonce: String,
    pub(super) delivery: Option<String>,
    /// Slashes of the request's path, for the reply's `Location`.
    pub(super) depth: usize,
    pub(super) body: Body,
    pub(super) wait: Option<Wait>,
}
