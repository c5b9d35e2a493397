//! Reads a Job.

use super::client::Client;
use super::failure::Failure;
use super::job::Job;
use super::request::{ApiRequest, Verb};
use std::time::Instant;

impl Client {
    /// Gets the Job of this name, which is a DNS-1123 label. `is_long`: there is memory for a [long answer](super::LONG_ANSWER).
    pub(crate) fn get(
        &mut self,
        namespace: &str,
        name: &str,
        is_long: bool,
        until: Instant,
    ) -> Result<Box<Job>, Failure> {
        let path = format!("/apis/batch/v1/namespaces/{namespace}/jobs/{name}");
        self.call(ApiRequest { verb: Verb::Get, path: &path, body: None, until })?.expect(name, 200)?.job(name, is_long)
    }
}
