//! Errors as callers see them: one table of reasons and codes, and the JSON error body.

use crate::http::Reply;
use serde_json::{Value, json};

/// Machine-readable reason of an error; Kubernetes' own words where it has them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reason {
    BadRequest,
    Unauthorized,
    CrossOrigin,
    HostNotAllowed,
    NotPermitted,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    AlreadyExists,
    NotStarted,
    RequestEntityTooLarge,
    UriTooLong,
    UnsupportedMediaType,
    ExpectationFailed,
    FilterError,
    FilterLimit,
    Invalid,
    Forbidden,
    IdempotencyKeyReused,
    QuotaExceeded,
    RequestHeaderFieldsTooLarge,
    FilterOutput,
    InternalError,
    NotImplemented,
    BadGateway,
    ServiceUnavailable,
    Overloaded,
    ShuttingDown,
    Timeout,
    HttpVersionNotSupported,
}

impl Reason {
    pub(crate) const ALL: [Reason; 30] = [
        Reason::BadRequest,
        Reason::Unauthorized,
        Reason::CrossOrigin,
        Reason::HostNotAllowed,
        Reason::NotPermitted,
        Reason::NotFound,
        Reason::MethodNotAllowed,
        Reason::RequestTimeout,
        Reason::AlreadyExists,
        Reason::NotStarted,
        Reason::RequestEntityTooLarge,
        Reason::UriTooLong,
        Reason::UnsupportedMediaType,
        Reason::ExpectationFailed,
        Reason::FilterError,
        Reason::FilterLimit,
        Reason::Invalid,
        Reason::Forbidden,
        Reason::IdempotencyKeyReused,
        Reason::QuotaExceeded,
        Reason::RequestHeaderFieldsTooLarge,
        Reason::FilterOutput,
        Reason::InternalError,
        Reason::NotImplemented,
        Reason::BadGateway,
        Reason::ServiceUnavailable,
        Reason::Overloaded,
        Reason::ShuttingDown,
        Reason::Timeout,
        Reason::HttpVersionNotSupported,
    ];

    /// The HTTP code and the word on the wire. `docs/http.md` has this table; a test keeps them equal.
    pub(crate) fn code_and_word(self) -> (u16, &'static str) {
        match self {
            Reason::BadRequest => (400, "BadRequest"),
            Reason::Unauthorized => (401, "Unauthorized"),
            Reason::CrossOrigin => (403, "CrossOrigin"),
            Reason::HostNotAllowed => (403, "HostNotAllowed"),
            Reason::NotPermitted => (403, "Forbidden"),
            Reason::NotFound => (404, "NotFound"),
            Reason::MethodNotAllowed => (405, "MethodNotAllowed"),
            Reason::RequestTimeout => (408, "RequestTimeout"),
            Reason::AlreadyExists => (409, "AlreadyExists"),
            Reason::NotStarted => (409, "NotStarted"),
            Reason::RequestEntityTooLarge => (413, "RequestEntityTooLarge"),
            Reason::UriTooLong => (414, "URITooLong"),
            Reason::UnsupportedMediaType => (415, "UnsupportedMediaType"),
            Reason::ExpectationFailed => (417, "ExpectationFailed"),
            Reason::FilterError => (422, "FilterError"),
            Reason::FilterLimit => (422, "FilterLimit"),
            Reason::Invalid => (422, "Invalid"),
            Reason::Forbidden => (422, "Forbidden"),
            Reason::IdempotencyKeyReused => (422, "IdempotencyKeyReused"),
            Reason::QuotaExceeded => (429, "QuotaExceeded"),
            Reason::RequestHeaderFieldsTooLarge => (431, "RequestHeaderFieldsTooLarge"),
            Reason::FilterOutput => (500, "FilterOutput"),
            Reason::InternalError => (500, "InternalError"),
            Reason::NotImplemented => (501, "NotImplemented"),
            Reason::BadGateway => (502, "BadGateway"),
            Reason::ServiceUnavailable => (503, "ServiceUnavailable"),
            Reason::Overloaded => (503, "Overloaded"),
            Reason::ShuttingDown => (503, "ShuttingDown"),
            Reason::Timeout => (504, "Timeout"),
            Reason::HttpVersionNotSupported => (505, "HTTPVersionNotSupported"),
        }
    }
}

/// One invalid field.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Cause {
    /// Path of the field, as `spec.template.spec.containers[0].image`.
    pub(crate) field: Option<String>,
    /// What is wrong with it, as `FieldValueRequired`.
    pub(crate) reason: Option<String>,
}

/// An error as the caller sees it. Named after Kubernetes' object with the same purpose.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Status {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    pub(crate) causes: Vec<Cause>,
    pub(crate) details: Option<Value>,
    /// Seconds after which a retry may succeed.
    pub(crate) retry_after: Option<u32>,
    /// The methods that the path supports, for 405.
    pub(crate) allow: Option<&'static str>,
    /// How to authenticate, for 401 (RFC 9110 11.6.1).
    pub(crate) challenges: &'static [&'static str],
    /// For the log only: it may quote a manifest, and a manifest may hold secrets.
    pub(crate) note: Option<String>,
}

impl Status {
    pub(crate) fn new(reason: Reason, message: impl Into<String>) -> Self {
        let retry_after = match reason {
            Reason::Overloaded | Reason::ShuttingDown => Some(1),
            _ => None,
        };
        let message = message.into();
        Status {
            reason,
            message,
            causes: Vec::new(),
            details: None,
            retry_after,
            allow: None,
            challenges: &[],
            note: None,
        }
    }
    pub(crate) fn with_cause(mut self, field: &str, reason: &str) -> Self {
        self.causes.push(Cause { field: Some(field.to_owned()), reason: Some(reason.to_owned()) });
        self
    }
    pub(crate) fn with_retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }
    pub(crate) fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }
    pub(crate) fn code(&self) -> u16 {
        self.reason.code_and_word().0
    }

    fn body(&self) -> Vec<u8> {
        let (code, word) = self.reason.code_and_word();
        let mut error = json!({"code": code, "reason": word, "message": self.message});
        if !self.causes.is_empty() {
            let cause = |cause: &Cause| {
                let mut object = serde_json::Map::new();
                for (key, text) in [("field", &cause.field), ("reason", &cause.reason)] {
                    if let Some(text) = text {
                        object.insert(key.to_owned(), text.clone().into());
                    }
                }
                Value::Object(object)
            };
            error["causes"] = self.causes.iter().map(cause).collect();
        }
        if let Some(details) = &self.details {
            error["details"] = details.clone();
        }
        json!({ "error": error }).to_string().into_bytes()
    }
}

/// A defect of ours. The panic hook has logged where; the panic's message may quote a body.
pub(crate) fn internal_error() -> Status {
    Status::new(Reason::InternalError, "internal error").with_note("a defect of the dispatcher")
}

impl From<Status> for Reply {
    fn from(status: Status) -> Self {
        let mut reply = Reply::json(status.code(), status.body());
        if let Some(seconds) = status.retry_after {
            reply = reply.with_header("Retry-After", seconds.to_string());
        }
        if let Some(methods) = status.allow {
            reply = reply.with_header("Allow", methods);
        }
        for challenge in status.challenges {
            reply = reply.with_header("WWW-Authenticate", *challenge);
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_reasons_are_listed_in_their_order() {
        assert!(Reason::ALL.iter().enumerate().all(|(place, reason)| *reason as usize == place));
        assert_eq!(Reason::ALL.last(), Some(&Reason::HttpVersionNotSupported));
    }

    #[test]
    fn causes_and_details_are_optional() {
        let reply = Reply::from(Status::new(Reason::NotFound, "no such path"));
        let body = br#"{"error":{"code":404,"reason":"NotFound","message":"no such path"}}"#;
        assert_eq!((reply.code, &*reply.body, reply.headers.len()), (404, &body[..], 0));

        let mut status = Status::new(Reason::Invalid, "m").with_cause("metadata.name", "FieldValueInvalid");
        status.causes.push(Cause { field: None, reason: Some("FieldValueRequired".into()) });
        status.details = Some(json!([1]));
        let body = r#"{"error":{"code":422,"reason":"Invalid","message":"m","causes":[{"field":"metadata.name","reason":"FieldValueInvalid"},{"reason":"FieldValueRequired"}],"details":[1]}}"#;
        assert_eq!(String::from_utf8(Reply::from(status).body.into_owned()).unwrap(), body);
    }

    #[test]
    fn a_note_is_not_in_the_body() {
        let reply = Reply::from(Status::new(Reason::BadGateway, "m").with_note("secret").with_retry_after(3));
        assert_eq!(reply.headers, [("Retry-After", "3".to_owned())]);
        assert!(!String::from_utf8(reply.body.into_owned()).unwrap().contains("secret"));
    }
}
