//! Reads the API server's responses: code, headers and body in, a Job or a [`Failure`] out. Pure.

use super::bound::{Bounded, LONG, TooLong, within};
use super::failure::{Failure, Refusal};
use super::job::{Job, JobObject};
use super::refusal::refusal;
use serde::Deserialize;
use std::io::{BufReader, Cursor, ErrorKind, Read};
use ureq::BodyReader;

/// A response of which only the body is still to be interpreted.
pub(super) struct ApiResponse<R = BodyReader<'static>> {
    pub(super) code: u16,
    /// Seconds, from the header.
    pub(super) retry_after: Option<u32>,
    /// The body, or its beginning.
    pub(super) body: Vec<u8>,
    /// The rest of a body that is too long to be held whole.
    pub(super) rest: Option<R>,
    /// The response does not say where its body ends, so that a broken connection looks like the end.
    pub(super) is_unbounded: bool,
    /// Of a response that rejects the token: where that comes from.
    pub(super) token_source: Option<String>,
    /// What it means that the rest cannot be read.
    pub(super) read_error: Box<dyn Fn(std::io::Error) -> Failure>,
}

impl<R: Read> ApiResponse<R> {
    /// Why the body is not `what` it should be.
    pub(super) fn broken(&self, error: serde_json::Error, what: &str) -> Failure {
        if error.io_error_kind() == Some(ErrorKind::FileTooLarge) {
            Failure::InvalidResponse(format!("{} with {what} of which {error}", self.code))
        } else if error.is_io() {
            (self.read_error)(error.into())
        } else if error.is_eof() && self.is_unbounded {
            Failure::Disconnected(format!("the response ends early: {error}"))
        } else {
            Failure::InvalidResponse(format!("{} without {what}: {error}", self.code))
        }
    }

    /// The response, if it has this code. `name`: of the Job that it is about; empty where there is none.
    ///
    /// Errors: the refusal.
    pub(super) fn expect(self, name: &str, code: u16) -> Result<Self, Failure> {
        if self.code == code { Ok(self) } else { Err(Failure::Refused(self.refusal(name))) }
    }

    /// Why the request was refused. `name`: likewise.
    pub(super) fn refusal(&self, name: &str) -> Refusal {
        let mut refusal = refusal(name, self.code, self.retry_after, &self.body);
        if let Some(source) = &self.token_source {
            refusal.said += &format!("; {source}")
        }
        refusal
    }

    pub(super) fn whole_body(&mut self) -> Box<dyn Read + '_> {
        let body = Cursor::new(std::mem::take(&mut self.body));
        match self.rest.take() {
            None => Box::new(body),
            Some(rest) => Box::new(Bounded(body.chain(BufReader::new(rest)))),
        }
    }

    /// The Job of this name. `is_long`: there is memory for a [long answer](super::LONG_ANSWER).
    pub(super) fn job(mut self, name: &str, is_long: bool) -> Result<Box<Job>, Failure> {
        let code = self.code;
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
            Err(TooLong) if !is_long => return Err(Failure::TooLong),
            Err(TooLong) => {
                return Err(Failure::InvalidResponse(format!("{code} with a status of more than {LONG} bytes")));
            }
        };
        let object = object.map_err(|error| self.broken(error, "a Job"))?;
        let (kind, its_name) = (object.kind.text(), object.metadata.name.text());
        if kind != Some("Job") || its_name != Some(name) {
            let (kind, name) = (kind.unwrap_or_default(), its_name.unwrap_or_default());
            return Err(Failure::InvalidResponse(format!("{code} with {kind:?} {name:?}")));
        }
        let job = object.job();
        job.map(Box::new).map_err(|error| Failure::InvalidResponse(format!("{code} with an odd status: {error}")))
    }
}

/// For all that is read as it comes: one type, because each has some forty kilobytes of code.
pub(super) fn deserializer(json: &mut dyn Read) -> serde_json::Deserializer<serde_json::de::IoRead<&mut dyn Read>> {
    serde_json::Deserializer::from_reader(json)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::kube::{JobState, RefusalKind, Situation};
    use crate::manifest::{FINGERPRINT, MANAGED_BY, MANAGER, NONCE};
    use serde_json::json;
    use serde_json::value::RawValue;

    fn status_of(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    pub(in crate::kube) fn response(code: u16, body: impl Into<Vec<u8>>) -> ApiResponse<&'static [u8]> {
        let read_error = Box::new(|error: std::io::Error| Failure::Disconnected(error.to_string()));
        ApiResponse {
            code,
            retry_after: None,
            body: body.into(),
            rest: None,
            is_unbounded: false,
            token_source: None,
            read_error,
        }
    }

    fn named() -> Box<Job> {
        Box::new(Job { name: "a".into(), ..Job::default() })
    }

    #[test]
    fn only_the_requested_job_is_accepted() {
        let job = |kind: &str, name: &str| {
            json!({"kind": kind, "metadata": {"name": name, "labels": {MANAGED_BY: MANAGER}, "annotations": {NONCE: "n", FINGERPRINT: "f"}, "deletionTimestamp": "t"}, "status": {"active": 1}}).to_string()
        };
        let found = Job {
            name: "a".into(),
            is_ours: true,
            fingerprint: Some("f".into()),
            nonce: Some("n".into()),
            is_being_deleted: true,
            situation: Situation { state: JobState::Deleting, ..Situation::default() },
            status: status_of(r#"{"active":1}"#),
            ..Job::default()
        };
        assert_eq!(response(200, job("Job", "a")).job("a", false), Ok(Box::new(found)));
        let bare = br#"{"kind":"Job","metadata":{"name":"a"}}"#;
        assert_eq!(response(200, bare).job("a", false), Ok(named()));
        assert_eq!(response(201, bare).job("a", false), Ok(named()));
        for body in [job("JobList", "a"), job("Job", "b"), "<html>".to_owned(), String::new()] {
            assert!(matches!(response(200, &*body).job("a", false), Err(Failure::InvalidResponse(_))), "{body}");
            assert!(matches!(response(201, &*body).job("a", false), Err(Failure::InvalidResponse(_))), "{body}");
        }
    }

    #[test]
    fn a_body_of_unknown_length_that_ends_early_is_a_broken_connection() {
        let unbounded = |body: &str| ApiResponse { is_unbounded: true, ..response(201, body) };
        let whole = r#"{"kind":"Job","metadata":{"name":"a"}}"#;
        assert_eq!(unbounded(whole).job("a", false), Ok(named()));
        for body in ["", "{", &whole[..20], &whole[..whole.len() - 1]] {
            assert!(matches!(unbounded(body).job("a", false), Err(Failure::Disconnected(_))), "{body}");
            let get = ApiResponse { code: 200, ..unbounded(body) };
            assert!(matches!(get.job("a", false), Err(Failure::Disconnected(_))), "{body}");
            if body.len() < whole.len() - 1 {
                assert!(matches!(response(201, body).job("a", false), Err(Failure::InvalidResponse(_))), "{body}");
            }
        }
        assert!(matches!(unbounded("<html>").job("a", false), Err(Failure::InvalidResponse(_))));
    }

    #[test]
    fn a_long_job_is_read_without_being_held() {
        let large = json!({"kind": "Job", "metadata": {"name": "a", "managedFields": "x".repeat(100_000)}, "status": {"active": 1}}).to_string();
        let (start, rest) = large.as_bytes().split_at(60_000);
        let job = ApiResponse { rest: Some(rest), ..response(200, start) }.job("a", false);
        let situation = Situation { state: JobState::Running, ..Situation::default() };
        let running = Job { situation, status: status_of(r#"{"active":1}"#), ..*named() };
        assert_eq!(job, Ok(Box::new(running)));
        assert!(ApiResponse { rest: Some(&rest[1..]), ..response(200, start) }.job("a", false).is_ok());
        assert!(matches!(
            ApiResponse { rest: Some(&rest[..9]), ..response(200, start) }.job("a", false),
            Err(Failure::InvalidResponse(_))
        ));
    }

    #[test]
    fn another_code_is_a_refusal() {
        assert!(response(201, "{}").expect("a", 201).is_ok());
        let Err(Failure::Refused(refusal)) =
            (ApiResponse { retry_after: Some(3), ..response(429, "x") }).expect("a", 201)
        else {
            panic!("no refusal")
        };
        assert_eq!((refusal.kind, refusal.retry_after), (RefusalKind::Busy, Some(3)));
        let over = json!({"kind": "Status", "message": "jobs.batch \"a\" is forbidden: exceeded quota: q"}).to_string();
        let Err(Failure::Refused(refusal)) = response(403, over).expect("a", 201) else { panic!("no refusal") };
        assert_eq!(refusal.kind, RefusalKind::Quota, "it is about this Job");
    }
}
