//! Interprets the API server's responses. Pure: code, headers and body in, [`Outcome`] out.

use super::bound::{Bounded, LONG, TooLong, within};
use super::job::{Job, JobObject};
use super::log::{self, Log};
use super::pods::Pods;
use crate::account::Reservation;
use crate::status::Cause;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::io::{BufReader, Cursor, Read};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Seconds. A server that wants more wait than this is wrong about its clock, or hostile.
const MAX_RETRY_AFTER: u64 = 300;

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Created(Box<Job>),
    Found(Box<Job>),
    /// It is being deleted, or is gone already.
    Deleted,
    /// Of the Job.
    Pods(Box<Pods>),
    /// Of a container.
    Log(Arc<Log>),
    /// What the Job says of itself is longer than there is room for. A POST was processed.
    TooLong,
    Refused(Refusal),
    /// No connection could be made, so nothing was sent.
    Unreachable(String),
    /// No connection could be made for several calls before, so this one was not made.
    NotCalled,
    /// The connection broke before the whole response was received.
    Disconnected(String),
    /// No response in time.
    TimedOut(String),
    /// A response that does not fit the request, or is too long, as with hundreds of warnings; the request may have been processed.
    InvalidResponse(String),
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
    /// The Job to be deleted has another UID than the one that was meant.
    AnotherUid,
    NoSuchJob,
    NoSuchNamespace,
    Invalid,
    TooLarge,
    /// An admission webhook or policy denied the Job.
    Policy,
    /// An admission webhook denied the Job with a code that says that it fails itself.
    WebhookFault,
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
    /// 410: what a list or a watch refers to is too old.
    Gone,
    Unexpected,
}

/// A response of which only the body is still to be interpreted.
pub(super) struct Answer<R> {
    pub(super) code: u16,
    /// Seconds, from the header.
    pub(super) retry_after: Option<u32>,
    /// The body, or its beginning.
    pub(super) body: Vec<u8>,
    /// The rest of a body that is too long to be held whole.
    pub(super) rest: Option<R>,
    /// The response does not say where its body ends, so that a broken connection looks like the end.
    pub(super) is_unbounded: bool,
    /// What it means that the rest cannot be read.
    pub(super) read_error: Box<dyn Fn(std::io::Error) -> Outcome>,
}

impl<R: Read> Answer<R> {
    /// Why the body is not `what` it should be.
    fn broken(&self, error: serde_json::Error, what: &str) -> Outcome {
        if error.is_io() {
            (self.read_error)(error.into())
        } else if error.is_eof() && self.is_unbounded {
            Outcome::Disconnected(format!("the response ends early: {error}"))
        } else {
            Outcome::InvalidResponse(format!("{} without {what}: {error}", self.code))
        }
    }

    /// The outcome of a POST of the Job `name`.
    pub(super) fn outcome_of_create(self, name: &str) -> Outcome {
        self.outcome(name, 201, false, Outcome::Created)
    }

    /// The outcome of a GET of the Job `name`. `is_long`: there is memory for a long answer.
    pub(super) fn outcome_of_get(self, name: &str, is_long: bool) -> Outcome {
        self.outcome(name, 200, is_long, Outcome::Found)
    }

    /// The outcome of a DELETE of the Job `name`. The answer has the Job, or a Status.
    pub(super) fn outcome_of_delete(self, name: &str) -> Outcome {
        if matches!(self.code, 200 | 202) {
            return Outcome::Deleted;
        }
        match refusal(name, self.code, self.retry_after, &self.body) {
            Outcome::Refused(refusal) if self.code == 409 && is_about_uid(&refusal.said) => {
                Outcome::Refused(Refusal { kind: RefusalKind::AnotherUid, ..refusal })
            }
            outcome => outcome,
        }
    }

    /// The outcome of a list of pods, those of the Job of this uid, with those `before` them.
    pub(super) fn outcome_of_pods(mut self, uid: &str, before: Pods) -> Outcome {
        if self.code != 200 {
            return self.outcome_of_list();
        }
        let read = before.read(&mut self.whole_body(), uid);
        match read {
            Ok(pods) => Outcome::Pods(Box::new(pods)),
            Err(error) => self.broken(error, "a list of pods"),
        }
    }

    /// The outcome of a request for a log. `memory`: for its text.
    pub(super) fn outcome_of_log(mut self, memory: Reservation) -> Outcome {
        if self.code != 200 {
            return self.outcome_of_list();
        }
        let read = log::read(&mut self.whole_body(), memory);
        match read {
            Ok(log) => Outcome::Log(Arc::new(log)),
            Err(error) => (self.read_error)(error),
        }
    }

    fn whole_body(&mut self) -> Box<dyn Read + '_> {
        let body = Cursor::new(std::mem::take(&mut self.body));
        match self.rest.take() {
            None => Box::new(body),
            Some(rest) => Box::new(Bounded(body.chain(BufReader::new(rest)))),
        }
    }

    /// The outcome of a list or a watch that was refused.
    pub(super) fn outcome_of_list(self) -> Outcome {
        refusal("", self.code, self.retry_after, &self.body)
    }

    /// `success`: the code that comes with the Job.
    fn outcome(mut self, name: &str, success: u16, is_long: bool, told: fn(Box<Job>) -> Outcome) -> Outcome {
        if self.code != success {
            return refusal(name, self.code, self.retry_after, &self.body);
        }
        let object: Result<serde_json::Result<JobObject>, TooLong> = within(is_long, || match self.rest {
            None => serde_json::from_slice(&self.body),
            Some(_) => {
                let mut body = self.whole_body();
                let mut json = deserializer(&mut body);
                JobObject::deserialize(&mut json).and_then(|object| json.end().map(|()| object))
            }
        });
        let object = match object {
            Ok(object) => object,
            Err(TooLong) if !is_long => return Outcome::TooLong,
            Err(TooLong) => {
                return Outcome::InvalidResponse(format!("{success} with a status of more than {LONG} bytes"));
            }
        };
        match object {
            Ok(object) if object.kind.text() == Some("Job") && object.metadata.name.text() == Some(name) => {
                match object.job() {
                    Ok(job) => told(Box::new(job)),
                    Err(error) => Outcome::InvalidResponse(format!("{success} with an odd status: {error}")),
                }
            }
            Ok(other) => Outcome::InvalidResponse(format!(
                "{success} with {:?} {:?}",
                other.kind.text().unwrap_or_default(),
                other.metadata.name.text().unwrap_or_default()
            )),
            Err(error) => self.broken(error, "a Job"),
        }
    }
}

/// For all that is read as it comes: one type, because each has some forty kilobytes of code.
pub(super) fn deserializer(json: &mut dyn Read) -> serde_json::Deserializer<serde_json::de::IoRead<&mut dyn Read>> {
    serde_json::Deserializer::from_reader(json)
}

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

/// Kubernetes' Status. What has an unexpected type counts as absent: an error is better told by its code alone than not at all.
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

/// The body is not always a Status: a 429 of API priority and fairness is plain text, and so are the answers of proxies. Nor is it always
/// whole: see [`cut_message`].
fn refusal(name: &str, code: u16, retry_after: Option<u32>, body: &[u8]) -> Outcome {
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
        (None, 500) => RefusalKind::Fault,
        (None, 504) => RefusalKind::Slow,
        (None, _) => RefusalKind::Unexpected,
    };
    if kind == RefusalKind::Invalid {
        causes.extend(causes_in(&message));
    }
    causes.dedup(); // they differ in their messages, which nobody sees
    let retry_after = retry_after.or(details.retry_after_seconds.map(bounded));
    let mut said = format!("{reason}: {message}");
    said.truncate(said.floor_char_boundary(MAX_MESSAGE));
    Outcome::Refused(Refusal { kind, causes, retry_after, said: format!("{code} {said:?}") })
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

/// Whether the precondition of a deletion was not met (apiserver/pkg/storage and registry/generic of Kubernetes 1.20 to 1.37).
fn is_about_uid(message: &str) -> bool {
    message.contains("the UID in the precondition") || message.contains("Precondition failed: UID in precondition")
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
