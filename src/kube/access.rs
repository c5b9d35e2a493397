//! Asks whether the API server grants the dispatcher a right. Every account may ask (SelfSubjectAccessReview).

use super::client::Client;
use super::failure::Failure;
use super::request::{ApiRequest, Verb};
use super::response::ApiResponse;
use serde::Deserialize;
use serde_json::json;
use std::fmt;
use std::time::Instant;

const PATH: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// To do something with the resources of a kind in a namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Right {
    pub(crate) verb: &'static str,
    /// Empty for the core group.
    pub(crate) group: &'static str,
    pub(crate) resource: &'static str,
    /// Empty for the resource itself.
    pub(crate) subresource: &'static str,
}

impl Right {
    /// Whether the resource is in no namespace: reviews are not. In a namespace a RoleBinding would seem to grant them.
    pub(crate) fn is_of_cluster(&self) -> bool {
        self.group.ends_with(".k8s.io")
    }
}

/// As the API server writes it: `list jobs.batch`, `get pods/log`.
impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Right { verb, group, resource, subresource } = self;
        write!(f, "{verb} {resource}")?;
        for (before, part) in [('/', subresource), ('.', group)] {
            if !part.is_empty() {
                write!(f, "{before}{part}")?
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Review {
    status: ReviewStatus,
}

#[derive(Deserialize)]
struct ReviewStatus {
    allowed: bool,
}

impl Client {
    /// Whether the dispatcher has this right in a namespace, which need not exist. Calls even where several calls could not connect before, and
    /// does not count among those.
    pub(crate) fn may(&mut self, namespace: &str, right: Right, until: Instant) -> Result<bool, Failure> {
        let Right { verb, group, resource, subresource } = right;
        let namespace = if right.is_of_cluster() { "" } else { namespace };
        let attributes = json!({
            "namespace": namespace, "verb": verb, "group": group, "resource": resource, "subresource": subresource,
        });
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        });
        let body = body.to_string();
        let request = ApiRequest { verb: Verb::Review, path: PATH, body: Some(body.as_bytes()), until };
        allows(&self.call_uncounted(request)?.expect("", 201)?)
    }
}

/// Whether a review grants what was asked.
pub(super) fn allows(response: &ApiResponse) -> Result<bool, Failure> {
    let review: Review = serde_json::from_slice(&response.body).map_err(|error| response.broken(error, "a review"))?;
    Ok(review.status.allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_written_as_the_api_server_does() {
        let right = |verb, group, resource, subresource| Right { verb, group, resource, subresource }.to_string();
        assert_eq!(right("list", "batch", "jobs", ""), "list jobs.batch");
        assert_eq!(right("get", "", "pods", "log"), "get pods/log");
        assert_eq!(right("get", "batch", "jobs", "status"), "get jobs/status.batch");
    }
}
