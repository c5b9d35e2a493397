//! Deletes a Job with its pods.

use super::Create;
use super::answer::Outcome;
use super::client::{Call, Client, Verb};
use std::time::Instant;

impl Client {
    /// Deletes the Job of this name, if it has this uid. Its pods are deleted after it: by default they would stay (kubernetes#104080).
    pub(crate) fn delete(&mut self, namespace: &str, name: &str, uid: &str, how: Create, until: Instant) -> Outcome {
        let path = format!("/apis/batch/v1/namespaces/{namespace}/jobs/{name}");
        // the API server reads no options from the query when there is a body
        let dry_run: &[&str] = if how == Create::DryRun { &["All"] } else { &[] };
        let options = serde_json::json!({
            "dryRun": dry_run,
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background", "preconditions": {"uid": uid},
        });
        let body = options.to_string();
        match self.call(Call { verb: Verb::Delete, path: &path, body: Some(body.as_bytes()), until }) {
            Ok(answer) => answer.outcome_of_delete(name),
            Err(outcome) => outcome,
        }
    }
}
