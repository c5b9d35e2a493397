//! Deletes a Job with its pods.

use super::client::Client;
use super::create::Create;
use super::failure::{Failure, Refusal, RefusalKind};
use super::request::{ApiRequest, Verb};
use super::response::ApiResponse;
use std::io::Read;
use std::time::Instant;

impl Client {
    /// Deletes the Job of this name, if it has this uid. Its pods are deleted after it: by default they would stay (kubernetes#104080).
    pub(crate) fn delete(
        &mut self,
        namespace: &str,
        name: &str,
        uid: &str,
        how: Create,
        until: Instant,
    ) -> Result<(), Failure> {
        let path = format!("/apis/batch/v1/namespaces/{namespace}/jobs/{name}");
        // the API server reads no options from the query when there is a body
        let dry_run: &[&str] = if how == Create::DryRun { &["All"] } else { &[] };
        let options = serde_json::json!({
            "dryRun": dry_run,
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background", "preconditions": {"uid": uid},
        });
        let body = options.to_string();
        deleted(self.call(ApiRequest { verb: Verb::Delete, path: &path, body: Some(body.as_bytes()), until })?, name)
    }
}

/// What became of it. The response has the Job, or a Status.
fn deleted<R: Read>(response: ApiResponse<R>, name: &str) -> Result<(), Failure> {
    if matches!(response.code, 200 | 202) {
        return Ok(());
    }
    let refusal = response.refusal(name);
    let kind = if response.code == 409 && is_about_uid(&refusal.said) { RefusalKind::AnotherUid } else { refusal.kind };
    Err(Failure::Refused(Refusal { kind, ..refusal }))
}

/// Whether the precondition of a deletion was not met (apiserver/pkg/storage and registry/generic of Kubernetes 1.20 to 1.37).
fn is_about_uid(message: &str) -> bool {
    message.contains("the UID in the precondition") || message.contains("Precondition failed: UID in precondition")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_deletion_that_meets_another_job_differs_from_other_conflicts() {
        let kind = |message: &str| {
            let details = json!({"name": "a", "group": "batch", "kind": "jobs"});
            let status = json!({"kind": "Status", "reason": "Conflict", "message": message, "details": details});
            let response = crate::kube::response::tests::response(409, status.to_string());
            let Err(Failure::Refused(refusal)) = deleted(response, "a") else { panic!("{message}") };
            refusal.kind
        };
        let cannot = "Operation cannot be fulfilled on jobs.batch \"a\": ";
        for why in [
            "Precondition failed: UID in precondition: u, UID in object meta: v",
            "the UID in the precondition (u) does not match the UID in record (v). The object might have been deleted and then recreated",
        ] {
            assert_eq!(kind(&format!("{cannot}{why}")), RefusalKind::AnotherUid);
        }
        assert_eq!(kind(&format!("{cannot}the object has been modified")), RefusalKind::Conflict);
    }
}
