//! How a call to the API server can fail, whatever it was for.

use crate::status::Cause;
use std::fmt;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Failure {
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
    /// An admission webhook could not be called, or did not respond in time. Nothing was stored.
    WebhookUnreachable,
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

/// For the log.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::TooLong => f.write_str("the Job's status is long"),
            Failure::Refused(refusal) => f.write_str(&refusal.said),
            Failure::NotCalled => f.write_str("no call was made, because several calls in a row could not connect"),
            Failure::Unreachable(why)
            | Failure::Disconnected(why)
            | Failure::TimedOut(why)
            | Failure::InvalidResponse(why) => f.write_str(why),
        }
    }
}
