//! Interprets what the API server says when it refuses a request. Pure.

use super::failure::{Refusal, RefusalKind};
use crate::status::Cause;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::time::{Duration, SystemTime};

/// Seconds. A server that wants more wait than this is wrong about its clock, or hostile.
const MAX_RETRY_AFTER: u64 = 300;

/// Seconds from a `Retry-After` header, which has seconds or a date (RFC 9110 10.2.3).
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<u32> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(bounded(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    let wait = date.duration_since(now).unwrap_or(Duration::ZERO);
    Some(bounded(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)))
}

fn bounded(seconds: u64) -> u32 {
    seconds.clamp(1, MAX_RETRY_AFTER) as u32
}

/// Kubernetes' Status. What has an unexpected type counts as absent: an error with its code alone is better than none.
#[derive(Deserialize, Default)]
#[serde(default)]
struct StatusObject {
    #[serde(deserialize_with = "lenient")]
    kind: Option<String>,
    #[serde(deserialize_with = "lenient")]
    message: Option<String>,
    #[serde(deserialize_with = "lenient")]
    reason: Option<String>,
    #[serde(deserialize_with = "lenient")]
    details: Option<Details>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    #[serde(deserialize_with = "lenient")]
    kind: Option<String>,
    #[serde(deserialize_with = "lenient")]
    causes: Option<Vec<Lenient<StatusCause>>>,
    #[serde(deserialize_with = "lenient")]
    retry_after_seconds: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StatusCause {
    #[serde(deserialize_with = "lenient")]
    reason: Option<String>,
    #[serde(deserialize_with = "lenient")]
    field: Option<String>,
}

/// An element of a list; None for a value of another type.
struct Lenient<T>(Option<T>);

impl<'de, T: DeserializeOwned> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        lenient(deserializer).map(Lenient)
    }
}

/// None for a value of another type.
fn lenient<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    Ok(serde_json::from_str(raw.get()).ok())
}

/// Bytes of a message that are looked at and logged; it can quote a manifest whole.
const MAX_MESSAGE: usize = 2048;

/// Why the API server refused a request about the Job `name`. `retry_after`: seconds, from the header.
///
/// The body is not always a Status: a 429 of API priority and fairness is plain text, and so are the answers of proxies. Nor is it always
/// whole: see [`cut_message`].
pub(super) fn refusal(name: &str, code: u16, retry_after: Option<u32>, body: &[u8]) -> Refusal {
    let status = serde_json::from_slice::<StatusObject>(body).ok();
    let status = status.filter(|status| status.kind.as_deref() == Some("Status"));
    let is_status = status.is_some();
    let status = status.unwrap_or_default();
    let details = status.details.unwrap_or_default();
    let reason = status.reason.as_deref().unwrap_or_default();
    let message = match status.message {
        Some(message) => message,
        None => cut_message(body)
            .unwrap_or_else(|| String::from_utf8_lossy(&body[..body.len().min(MAX_MESSAGE)]).into_owned()),
    };
    let mut causes = Vec::new();
    for cause in details.causes.into_iter().flatten().filter_map(|cause| cause.0) {
        if cause.field.is_some() || cause.reason.is_some() {
            causes.push(Cause { field: cause.field, reason: cause.reason })
        }
    }
    let has_cause = |wanted: &str| causes.iter().any(|cause| cause.reason.as_deref() == Some(wanted));
    let resource = details.kind.as_deref().unwrap_or_default();
    let kind = match (denial(name, code, &message), code) {
        (Some(kind), _) => kind,
        (None, 400 | 422) => RefusalKind::Invalid,
        (None, 401) => RefusalKind::NotAuthenticated,
        (None, 403) if has_cause("NamespaceTerminating") => RefusalKind::NamespaceTerminating,
        (None, 403) if is_over_quota(name, &message) => RefusalKind::Quota,
        (None, 403) => RefusalKind::NotAllowed,
        (None, 404) if is_status && resource == "namespaces" => RefusalKind::NoSuchNamespace,
        (None, 404) if is_status && reason == "NotFound" => RefusalKind::NoSuchJob,
        (None, 409) if reason == "Conflict" || is_status && !matches!(resource, "jobs" | "") => RefusalKind::Conflict,
        (None, 409) => RefusalKind::NameTaken,
        (None, 410) => RefusalKind::Gone,
        (None, 413) => RefusalKind::TooLarge,
        (None, 429 | 503) => RefusalKind::Busy,
        (None, 500) if is_webhook_unreachable(&message) => RefusalKind::WebhookUnreachable,
        (None, 500) => RefusalKind::Fault,
        (None, 504) => RefusalKind::Slow,
        (None, _) => RefusalKind::Unexpected,
    };
    if kind == RefusalKind::Invalid {
        causes.extend(causes_in(&message));
    }
    causes.dedup(); // they differ in their messages, which nobody sees
    let retry_after = retry_after.or(details.retry_after_seconds.map(bounded));
    let mut said = if reason.is_empty() { message } else { format!("{reason}: {message}") };
    said.truncate(said.floor_char_boundary(MAX_MESSAGE));
    Refusal { kind, causes, retry_after, said: format!("{code} {said:?}") }
}

/// The beginning of the message of a Status that is too long to be read whole.
fn cut_message(body: &[u8]) -> Option<String> {
    const BEGINNING: &[u8] = br#"{"kind":"Status","#;
    const MESSAGE: &[u8] = br#""message":""#;
    let body = &body[..body.len().min(MAX_MESSAGE)];
    let at = body.strip_prefix(BEGINNING)?.windows(MESSAGE.len()).position(|window| window == MESSAGE)?;
    let text = String::from_utf8_lossy(&body[BEGINNING.len() + at + MESSAGE.len()..]);
    // quotes are what the words of a denial have
    Some(text.replace("\\\"", "\""))
}

/// What the API server says about the Job `name`, behind the words that every refusal of its admission chain begins with.
fn forbidden<'m>(name: &str, message: &'m str) -> Option<&'m str> {
    message.strip_prefix("jobs.batch \"")?.strip_prefix(name)?.strip_prefix("\" is forbidden: ")
}

/// A denial by an admission webhook or policy. It is known only by the words at the start of the message: it may choose any code, and messages
/// quote manifests (apiserver/pkg/admission/plugin of Kubernetes 1.20 to 1.37).
fn denial(name: &str, code: u16, message: &str) -> Option<RefusalKind> {
    if message.starts_with("admission webhook \"") {
        // frameworks for webhooks answer so when they fail themselves
        let is_fault = matches!(code, 429 | 500 | 503 | 504);
        Some(if is_fault { RefusalKind::WebhookFault } else { RefusalKind::Policy })
    } else {
        let is_mutating = message.starts_with("policy '") && message.contains("' denied request: ");
        let is_validating =
            || forbidden(name, message).is_some_and(|said| said.starts_with("ValidatingAdmissionPolicy '"));
        (is_mutating || is_validating()).then_some(RefusalKind::Policy)
    }
}

/// An admission webhook could not be called, and its failurePolicy is Fail. These are the words of the API server
/// (apiserver/pkg/admission/plugin/webhook of Kubernetes 1.20 to 1.37), which quote nothing of the webhook's.
fn is_webhook_unreachable(message: &str) -> bool {
    message.starts_with("Internal error occurred: failed calling webhook \"")
}

/// The words of the quota's admission plugin, of Kubernetes 1.20 to 1.37 (plugin/pkg/admission/resourcequota).
fn is_over_quota(name: &str, message: &str) -> bool {
    let quota = ["exceeded quota:", "failed quota:", "insufficient quota to consume:", "status unknown for quota:"];
    forbidden(name, message).is_some_and(|said| quota.iter().any(|words| said.starts_with(words)))
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
mod tests;
