//! The access log: one line for each request that was answered, and for each connection that was rejected.

use crate::answered::Record;
use crate::http::Request;
use crate::metrics::METRICS;
use crate::route::Route;
use crate::status::Status;
use log::{debug, error, info, warn};
use std::fmt;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

const MAX_REQUEST_ID: usize = 64;

pub(super) struct Line<'a> {
    pub(super) id: &'a str,
    /// None if it cannot be read.
    pub(super) request: Option<&'a Request>,
    pub(super) code: u16,
    /// Since the whole request was received, if it was.
    pub(super) took: Option<Duration>,
    /// Of a probe that was answered: machines poll it.
    pub(super) is_probe: bool,
    pub(super) record: &'a Record,
}

impl Line<'_> {
    /// Logs a request and counts it, with the name of its route.
    pub(super) fn count_and_write(self, route: &'static str) {
        let Record { tries, waited, .. } = *self.record;
        METRICS.request(route, self.code, self.took.map(|took| took.saturating_sub(waited)));
        if tries > 1 {
            METRICS.retried(self.code, tries)
        }
        self.write()
    }

    pub(super) fn write(self) {
        let Line { id, code, .. } = self;
        if let Some(note) = &self.record.note {
            match code {
                500 | 502 => error!("{id} {code}: {note}"), // the operator must act
                _ => warn!("{id} {code}: {note}"),
            }
        }
        match self.is_probe {
            true => debug!("{self}"),
            false => info!("{self}"),
        }
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (method, path) = self.request.map_or(("-", "-"), |request| (request.method(), request.path()));
        let Record { job, refusal, tries, .. } = self.record;
        let (ms, job) = (self.took.unwrap_or_default().as_millis(), job.as_deref().unwrap_or("-"));
        write!(f, "{} {method} {path:?} {} {ms}ms {job}", self.id, self.code)?;
        if *tries > 1 {
            write!(f, " tries={tries}")?
        }
        match refusal {
            Some(message) => write!(f, " {message:?}"),
            None => Ok(()),
        }
    }
}

/// The name of a route in the metrics.
pub(super) fn name_of(route: &Result<Route, Status>) -> &'static str {
    route.as_ref().map_or("other", Route::name)
}

/// The caller's request id if it is valid, else a new one.
pub(super) fn request_id(theirs: Option<&[u8]>) -> String {
    let is_sane = |id: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(plain)
    };
    match theirs.and_then(|id| std::str::from_utf8(id).ok()).filter(|id| is_sane(id)) {
        Some(id) => id.to_owned(),
        None => {
            // a random start, then a counter: unique, without a system call for each
            static NEXT: LazyLock<AtomicU64> = LazyLock::new(|| AtomicU64::new(crate::random::random()));
            format!("{:016x}", NEXT.fetch_add(1, Relaxed))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_request_ids_are_kept() {
        for id in ["a", "A.b_c-9", &"x".repeat(64)] {
            assert_eq!(request_id(Some(id.as_bytes())), id);
        }
        for id in ["", "a b", "a\n", "é", &"x".repeat(65)] {
            assert_ne!(request_id(Some(id.as_bytes())), id);
        }
        assert_ne!(request_id(None), request_id(None));
        assert_eq!(request_id(None).len(), 16);
    }

    #[test]
    fn lines() {
        let bytes = b"POST /job/a\"".to_vec();
        let request =
            Request { method_len: 4, path: 5..bytes.len(), head_len: bytes.len(), bytes, ..Request::default() };
        let record = |job: Option<&str>, refusal: Option<&str>, tries| Record {
            job: job.map(str::to_owned),
            refusal: refusal.map(Into::into),
            tries,
            ..Record::default()
        };
        let took = Some(Duration::from_millis(7));
        for (request, took, record, want) in [
            (Some(&request), took, record(Some("a"), None, 1), r#"i POST "/job/a\"" 201 7ms a"#),
            (Some(&request), took, record(Some("a"), None, 3), r#"i POST "/job/a\"" 201 7ms a tries=3"#),
            (None, None, record(None, Some("too \"late\""), 0), r#"i - "-" 201 0ms - "too \"late\"""#),
        ] {
            let line = Line { id: "i", request, code: 201, took, is_probe: false, record: &record };
            assert_eq!(line.to_string(), want);
        }
    }
}
