//! A request's answer: the reply, and what goes with it and is not sent.

use crate::account::Reservation;
use crate::http::Reply;
use crate::status::{Reason, Status};
use log::{Level, log_enabled};
use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct Answered {
    pub(crate) reply: Reply,
    pub(crate) record: Record,
    /// For a large body, until it is sent.
    pub(crate) memory: Option<Reservation>,
}

/// What log and metrics have of an answer, beside the request and the reply.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Name of the Job.
    pub(crate) job: Option<String>,
    /// Details for the operator that a caller must not see.
    pub(crate) note: Option<String>,
    /// Of an error.
    pub(crate) reason: Option<Reason>,
    /// What the caller was told of an error, where it is logged: at debug, because it may quote the request; and always if the request was
    /// refused before it was served, for that is ours. Of one whose caller may not: why, in the same line, for there may be many.
    pub(crate) message: Option<Box<str>>,
    /// How many tries a dispatch took; 0 for other requests.
    pub(crate) tries: u32,
    /// How long the caller chose to wait.
    pub(crate) waited: Duration,
}

impl Answered {
    /// For a request that is refused before it is served.
    pub(crate) fn refused(status: Status) -> Self {
        let message = status.message.as_str().into();
        let mut answered = Answered::from(status);
        answered.record.message.get_or_insert(message);
        answered
    }

    /// For the Job of this name, after so many tries.
    pub(crate) fn about(self, job: String, tries: u32) -> Self {
        Answered { record: Record { job: Some(job), tries, ..self.record }, ..self }
    }

    pub(crate) fn with_header(self, name: &'static str, value: impl Into<String>) -> Self {
        Answered { reply: self.reply.with_header(name, value), ..self }
    }
}

impl From<Reply> for Answered {
    fn from(reply: Reply) -> Self {
        Answered { reply, ..Answered::default() }
    }
}

impl From<Status> for Answered {
    fn from(mut status: Status) -> Self {
        let (note, message) = match (status.note.take(), status.reason) {
            (Some(why), Reason::Unauthorized | Reason::NotPermitted) => (None, Some(why.into())),
            (note, _) => (note, log_enabled!(Level::Debug).then(|| status.message.as_str().into())),
        };
        let record = Record { note, reason: Some(status.reason), message, ..Record::default() };
        Answered { record, ..Reply::from(status).into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_not_sent() {
        let answered = Answered::from(Status::new(Reason::InternalError, "internal error").with_note("secret"));
        let Record { note, reason, message, .. } = answered.record;
        assert_eq!((note.as_deref(), reason, message), (Some("secret"), Some(Reason::InternalError), None));
        assert!(!String::from_utf8_lossy(&answered.reply.body).contains("secret"));
        let refused = Answered::refused(Status::new(Reason::Overloaded, "later"));
        assert_eq!((refused.reply.code, refused.record.message.as_deref()), (503, Some("later")));
    }
}
