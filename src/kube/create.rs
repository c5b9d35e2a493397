//! Creates a Job.

use super::client::Client;
use super::failure::Failure;
use super::job::Job;
use super::request::{ApiRequest, Verb};
use std::time::{Duration, Instant};

/// What the API server gets less than we have at most: a network's round trip.
const MAX_MARGIN: Duration = Duration::from_millis(500);
const MIN_TIMEOUT: Duration = Duration::from_millis(1);

/// Whether a Job is stored, or only validated.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Create {
    Store,
    DryRun,
}

impl Client {
    /// Posts a Job of this name, which is a DNS-1123 label.
    pub(crate) fn create(
        &mut self,
        namespace: &str,
        name: &str,
        manifest: &[u8],
        how: Create,
        until: Instant,
    ) -> Result<Box<Job>, Failure> {
        let dry_run = if how == Create::DryRun { "&dryRun=All" } else { "" };
        let timeout = their_timeout(until.saturating_duration_since(Instant::now())).as_millis();
        let path = format!(
            "/apis/batch/v1/namespaces/{namespace}/jobs\
             ?fieldManager=k8s-job-dispatcher&fieldValidation=Strict&timeout={timeout}ms{dry_run}"
        );
        self.call(ApiRequest { verb: Verb::Create, path: &path, body: Some(manifest), until })?
            .expect(name, 201)?
            .job(name, false)
    }
}

/// The time that the API server is given: a little less than we have, so that it answers 504 rather than that we close the connection.
fn their_timeout(ours: Duration) -> Duration {
    (ours - (ours / 10).min(MAX_MARGIN)).max(MIN_TIMEOUT)
}
