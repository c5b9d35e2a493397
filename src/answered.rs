//! A request's answer: the reply, and what goes with it and is not sent.

use crate::account::Reservation;
use crate::http::Reply;
use crate::status::Status;
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
    /// The status that the caller gets, if the request was refused before it was served.
    pub(crate) refusal: Option<Box<str>>,
    /// How many tries a dispatch took; 0 for other requests.
    pub(crate) tries: u32,
    /// How long the caller chose to wait.
    pub(crate) waited: Duration,
}

impl Answered {
    /// For a request that is refused before it is served.
    pub(crate) fn refused(status: Status) -> Self {
        let refusal = Some(status.message.as_str().into());
        let answered = Answered::from(status);
        Answered { record: Record { refusal, ..answered.record }, ..answered }
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
        let record = Record { note: status.note.take(), ..Record::default() };
        Answered { record, ..Reply::from(status).into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Reason;

    #[test]
    fn a_note_is_not_sent() {
        let answered = Answered::from(Status::new(Reason::InternalError, "internal error").with_note("secret"));
        assert_eq!(answered.record.note.as_deref(), Some("secret"));
        assert!(!String::from_utf8_lossy(&answered.reply.body).contains("secret"));
        let refused = Answered::refused(Status::new(Reason::Overloaded, "later"));
        assert_eq!((refused.reply.code, refused.record.refusal.as_deref()), (503, Some("later")));
    }
}
