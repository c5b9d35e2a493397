//! Interprets the API server's responses. Pure: code, headers and body in, [`Outcome`] out.

use crate::manifest::{FINGERPRINT, MANAGED_BY, MANAGER, NONCE};
use crate::status::Cause;
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashMap;

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Created,
    Found(Box<Job>),
    Refused(Refusal),
    /// The API server could not be reached, or the connection broke before the whole response was received.
    Disconnected(String),
    /// No response in time.
    TimedOut(String),
    /// A response that does not fit the request.
    InvalidResponse(String),
}

/// The parts of a Job that we need.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Job {
    pub(crate) is_ours: bool,
    pub(crate) fingerprint: Option<String>,
    pub(crate) nonce: Option<String>,
    pub(crate) is_being_deleted: bool,
    /// As the API gives it.
    pub(crate) status: Value,
}

/// The API server refused a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) kind: RefusalKind,
    pub(crate) causes: Vec<Cause>,
    /// Seconds, as the server says.
    pub(crate) retry_after: Option<u32>,
    /// Code, reason and message, for the log: they may quote the manifest.
    pub(crate) said: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RefusalKind {
    NameTaken,
    /// A write conflict, as with a quota that is being updated; not "exists" (kubernetes/kubernetes#67761).
    Conflict,
    NoSuchJob,
    NoSuchNamespace,
    Invalid,
    TooLarge,
    /// An admission webhook or policy.
    Policy,
    Quota,
    NamespaceTerminating,
    /// RBAC, and admission plugins that are part of the cluster's set-up.
    NotAllowed,
    NotAuthenticated,
    /// Not processed: 429 and 503.
    Busy,
    /// 500: it may have been processed.
    Fault,
    /// 504: it may have been processed.
    Slow,
    Unexpected,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct StatusObject {
    kind: Option<String>,
    message: Option<String>,
    reason: Option<String>,
    details: Option<Details>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    kind: Option<String>,
    causes: Option<Vec<StatusCause>>,
    retry_after_seconds: Option<u32>,
}

#[derive(Deserialize)]
struct StatusCause {
    reason: Option<String>,
    field: Option<String>,
}

#[derive(Deserialize)]
struct JobObject {
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    status: Value,
}

#[derive(Deserialize)]
struct CreatedObject {
    kind: String,
    metadata: CreatedMetadata,
}

#[derive(Deserialize)]
struct CreatedMetadata {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    labels: Option<HashMap<String, String>>,
    annotations: Option<HashMap<String, String>>,
    deletion_timestamp: Option<String>,
}

/// What we look at of a Job that is too long to be held whole, as JSON.
pub(super) fn gist(job: impl std::io::Read) -> serde_json::Result<Vec<u8>> {
    #[derive(Deserialize, serde::Serialize)]
    struct Gist {
        kind: Value,
        metadata: GistMetadata,
        #[serde(default)]
        status: Value,
    }
    #[derive(Deserialize, serde::Serialize)]
    #[serde(default, rename_all = "camelCase")]
    #[derive(Default)]
    struct GistMetadata {
        name: Value,
        labels: Value,
        annotations: Value,
        deletion_timestamp: Value,
    }
    serde_json::to_vec(&serde_json::from_reader::<_, Gist>(job)?)
}

/// The outcome of a POST of the Job `name`.
pub(super) fn to_create(name: &str, code: u16, retry_after: Option<u32>, body: &[u8]) -> Outcome {
    if code != 201 {
        return refusal(code, retry_after, body);
    }
    match serde_json::from_slice::<CreatedObject>(body) {
        Ok(job) if job.kind == "Job" && job.metadata.name == name => Outcome::Created,
        Ok(other) => Outcome::InvalidResponse(format!("201 with {:?} {:?}", other.kind, other.metadata.name)),
        Err(error) => Outcome::InvalidResponse(format!("201 without a Job: {error}")),
    }
}

/// The outcome of a GET of the Job `name`.
pub(super) fn to_get(name: &str, code: u16, retry_after: Option<u32>, body: &[u8]) -> Outcome {
    if code != 200 {
        return refusal(code, retry_after, body);
    }
    match serde_json::from_slice::<JobObject>(body) {
        Ok(job) if job.kind == "Job" && job.metadata.name == name => {
            let text = |map: &Option<HashMap<String, String>>, key| map.as_ref().and_then(|map| map.get(key)).cloned();
            Outcome::Found(Box::new(Job {
                is_ours: text(&job.metadata.labels, MANAGED_BY).as_deref() == Some(MANAGER),
                fingerprint: text(&job.metadata.annotations, FINGERPRINT),
                nonce: text(&job.metadata.annotations, NONCE),
                is_being_deleted: job.metadata.deletion_timestamp.is_some(),
                status: if job.status.is_null() { Value::Object(serde_json::Map::new()) } else { job.status },
            }))
        }
        Ok(other) => Outcome::InvalidResponse(format!("200 with {:?} {:?}", other.kind, other.metadata.name)),
        Err(error) => Outcome::InvalidResponse(format!("200 without a Job: {error}")),
    }
}

/// The body is not always a Status: a 429 of API priority and fairness is plain text, and so are the answers of proxies.
fn refusal(code: u16, retry_after: Option<u32>, body: &[u8]) -> Outcome {
    const SHOWN: usize = 2048; // a message can quote a manifest whole
    let status = serde_json::from_slice::<StatusObject>(body).ok();
    let status = status.filter(|status| status.kind.as_deref() == Some("Status"));
    let is_status = status.is_some();
    let status = status.unwrap_or_default();
    let details = status.details.unwrap_or_default();
    let reason = status.reason.as_deref().unwrap_or_default();
    let message = match status.message {
        Some(message) => message,
        None => String::from_utf8_lossy(&body[..body.len().min(SHOWN)]).into_owned(),
    };
    let mut causes = Vec::new();
    for cause in details.causes.into_iter().flatten() {
        causes.push(Cause { field: cause.field, reason: cause.reason })
    }
    let has_cause = |wanted: &str| causes.iter().any(|cause| cause.reason.as_deref() == Some(wanted));
    let resource = details.kind.as_deref().unwrap_or_default();
    let kind = match code {
        400 | 422 => RefusalKind::Invalid,
        401 => RefusalKind::NotAuthenticated,
        403 if has_cause("NamespaceTerminating") => RefusalKind::NamespaceTerminating,
        403 => forbidden(&message),
        404 if is_status && resource == "namespaces" => RefusalKind::NoSuchNamespace,
        404 if is_status && reason == "NotFound" => RefusalKind::NoSuchJob,
        409 if reason == "Conflict" || is_status && !matches!(resource, "jobs" | "") => RefusalKind::Conflict,
        409 => RefusalKind::NameTaken,
        413 => RefusalKind::TooLarge,
        429 | 503 => RefusalKind::Busy,
        500 => RefusalKind::Fault,
        504 => RefusalKind::Slow,
        _ => RefusalKind::Unexpected,
    };
    if kind == RefusalKind::Invalid {
        causes.extend(causes_in(&message));
    }
    causes.dedup(); // they differ in their messages, which nobody sees
    let retry_after = retry_after.or(details.retry_after_seconds);
    let mut said = format!("{reason}: {message}");
    said.truncate(said.floor_char_boundary(SHOWN));
    Outcome::Refused(Refusal { kind, causes, retry_after, said: format!("{code} {said:?}") })
}

/// A 403 says only in words what it is about; the words are those of Kubernetes 1.20 to 1.37 (plugin/pkg/admission/resourcequota, apiserver/pkg/admission/plugin).
fn forbidden(message: &str) -> RefusalKind {
    if message.starts_with("admission webhook ") {
        return RefusalKind::Policy; // what it says itself may be anything
    }
    let said = message.split_once("forbidden: ").map_or(message, |(_, said)| said);
    let quota = ["exceeded quota:", "failed quota:", "insufficient quota to consume:", "status unknown for quota:"];
    if quota.iter().any(|words| said.starts_with(words)) {
        RefusalKind::Quota
    } else if said.starts_with("ValidatingAdmissionPolicy ") {
        RefusalKind::Policy
    } else {
        RefusalKind::NotAllowed
    }
}

/// Fields that a message names, where there are no causes: a value of a wrong type, and fields that the API does not know.
fn causes_in(message: &str) -> Vec<Cause> {
    const MOST: usize = 16;
    let mut causes = Vec::new();
    if let Some((_, rest)) = message.split_once("Go struct field ")
        && let Some((field, _)) = rest.split_once(" of type ")
        && let Some((_, path)) = field.split_once('.')
    {
        causes.push(Cause { field: Some(path.to_owned()), reason: Some("FieldValueTypeInvalid".to_owned()) });
    }
    for rest in message.split("unknown field \"").skip(1).take(MOST) {
        if let Some((field, _)) = rest.split_once('"') {
            causes.push(Cause { field: Some(field.to_owned()), reason: None });
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(code: u16, body: &str) -> Refusal {
        match to_create("a", code, None, body.as_bytes()) {
            Outcome::Refused(refusal) => refusal,
            other => panic!("{code} {body} gave {other:?}"),
        }
    }

    fn status(reason: &str, message: &str, details: Value) -> String {
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason, "message": message, "details": details})
            .to_string()
    }

    #[test]
    fn refusals_are_classified_by_code_reason_and_message() {
        let jobs = json!({"name": "a", "group": "batch", "kind": "jobs"});
        for (code, body, why) in [
            (409, status("AlreadyExists", "jobs.batch \"a\" already exists", jobs.clone()), RefusalKind::NameTaken),
            (
                409,
                status("AlreadyExists", "object is being deleted: jobs.batch \"a\" already exists", jobs.clone()),
                RefusalKind::NameTaken,
            ),
            (
                409,
                status(
                    "Conflict",
                    "Operation cannot be fulfilled on resourcequotas",
                    json!({"kind": "resourcequotas"}),
                ),
                RefusalKind::Conflict,
            ),
            (409, "conflict".to_owned(), RefusalKind::NameTaken),
            (
                403,
                status(
                    "Forbidden",
                    "jobs.batch \"q2\" is forbidden: exceeded quota: rq, requested: count/jobs.batch=1",
                    jobs.clone(),
                ),
                RefusalKind::Quota,
            ),
            (
                403,
                status("Forbidden", "jobs.batch \"q2\" is forbidden: status unknown for quota: rq", jobs.clone()),
                RefusalKind::Quota,
            ),
            (
                403,
                status(
                    "Forbidden",
                    "jobs.batch is forbidden: User \"system:serviceaccount:n:s\" cannot create resource \"jobs\" in API group \"batch\" in the namespace \"n\"",
                    jobs.clone(),
                ),
                RefusalKind::NotAllowed,
            ),
            (
                403,
                status("Forbidden", "admission webhook \"w.example.com\" denied the request: no", json!(null)),
                RefusalKind::Policy,
            ),
            (
                403,
                status(
                    "Forbidden",
                    "admission webhook \"w\" denied the request: x is forbidden: exceeded quota: y",
                    json!(null),
                ),
                RefusalKind::Policy,
            ),
            (
                403,
                status(
                    "Forbidden",
                    "jobs.batch \"a\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no",
                    jobs.clone(),
                ),
                RefusalKind::Policy,
            ),
            (
                403,
                status(
                    "Forbidden",
                    "jobs.batch \"a\" is forbidden: unable to create new content",
                    json!({"causes": [{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]}),
                ),
                RefusalKind::NamespaceTerminating,
            ),
            (
                404,
                status("NotFound", "namespaces \"n\" not found", json!({"name": "n", "kind": "namespaces"})),
                RefusalKind::NoSuchNamespace,
            ),
            (404, status("NotFound", "jobs.batch \"a\" not found", jobs), RefusalKind::NoSuchJob),
            (404, "404 page not found".to_owned(), RefusalKind::Unexpected),
            (401, status("Unauthorized", "Unauthorized", json!(null)), RefusalKind::NotAuthenticated),
            (413, status("RequestEntityTooLarge", "limit is 3145728", json!(null)), RefusalKind::TooLarge),
            (429, "Too many requests, please try again later.".to_owned(), RefusalKind::Busy),
            (500, status("InternalError", "x", json!({})), RefusalKind::Fault),
            (504, status("Timeout", "x", json!({})), RefusalKind::Slow),
            (200, "<html>".to_owned(), RefusalKind::Unexpected),
            (502, String::new(), RefusalKind::Unexpected),
            (302, String::new(), RefusalKind::Unexpected),
        ] {
            assert_eq!(refused(code, &body).kind, why, "{code} {body}");
        }
    }

    #[test]
    fn causes_come_from_details_or_from_the_message() {
        let field =
            |field: &str, reason: Option<&str>| Cause { field: Some(field.into()), reason: reason.map(str::to_owned) };
        let details = json!({"kind": "Job", "causes": [{"reason": "FieldValueRequired", "message": "secret", "field": "spec.template.spec.restartPolicy"}, {"message": "x"}]});
        let refusal = refused(422, &status("Invalid", "x", details));
        assert_eq!(
            refusal.causes,
            [
                field("spec.template.spec.restartPolicy", Some("FieldValueRequired")),
                Cause { field: None, reason: None }
            ]
        );
        let message = "Job in version \"v1\" cannot be handled as a Job: json: cannot unmarshal string into Go struct field JobSpec.spec.parallelism of type int32";
        assert_eq!(
            refused(400, &status("BadRequest", message, json!(null))).causes,
            [field("spec.parallelism", Some("FieldValueTypeInvalid"))]
        );
        let message = "Job in version \"v1\" cannot be handled as a Job: strict decoding error: unknown field \"spec.x\", unknown field \"y\"";
        assert_eq!(
            refused(400, &status("BadRequest", message, json!(null))).causes,
            [field("spec.x", None), field("y", None)]
        );
    }

    #[test]
    fn retry_after_comes_from_header_or_details() {
        let body = status("TooManyRequests", "x", json!({"retryAfterSeconds": 7}));
        assert_eq!(refused(429, &body).retry_after, Some(7));
        let Outcome::Refused(refusal) = to_create("a", 429, Some(3), body.as_bytes()) else { panic!("no refusal") };
        assert_eq!(refusal.retry_after, Some(3));
    }

    #[test]
    fn only_the_requested_job_is_accepted() {
        let job = |kind: &str, name: &str| {
            json!({"kind": kind, "metadata": {"name": name, "labels": {MANAGED_BY: MANAGER}, "annotations": {NONCE: "n", FINGERPRINT: "f"}, "deletionTimestamp": "t"}, "status": {"active": 1}}).to_string()
        };
        let found = Job {
            is_ours: true,
            fingerprint: Some("f".into()),
            nonce: Some("n".into()),
            is_being_deleted: true,
            status: json!({"active": 1}),
        };
        assert_eq!(to_get("a", 200, None, job("Job", "a").as_bytes()), Outcome::Found(Box::new(found)));
        let bare = br#"{"kind":"Job","metadata":{"name":"a"}}"#;
        assert_eq!(to_get("a", 200, None, bare), Outcome::Found(Box::new(Job { status: json!({}), ..Job::default() })));
        assert_eq!(to_create("a", 201, None, bare), Outcome::Created);
        for body in [job("JobList", "a"), job("Job", "b"), "<html>".to_owned(), String::new()] {
            assert!(matches!(to_get("a", 200, None, body.as_bytes()), Outcome::InvalidResponse(_)), "{body}");
            assert!(matches!(to_create("a", 201, None, body.as_bytes()), Outcome::InvalidResponse(_)), "{body}");
        }
    }
}
