//! What a caller prefers of our answer (RFC 7240).

use crate::config::duration;
use crate::http::{Request, pairs};
use crate::kube::Job;
use crate::status::{Reason, Status};
use std::time::Duration;

/// Characters of a duration in a query, and digits in a row, as OpenAPI says: longer ones are mistakes.
const MAX_TEXT: usize = 40;
const MAX_DIGITS: usize = 9;

/// Whether the answer to a POST that succeeds has a body.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Body {
    #[default]
    Whole,
    /// `Prefer: return=minimal`.
    Minimal,
    /// The request is a CloudEvent. Knative treats a response body that is not an event as a failure and redelivers.
    NoneForEvent,
}

pub(super) fn body(request: &Request) -> Body {
    if preference(request, "return").is_some_and(|value| value.eq_ignore_ascii_case("minimal")) {
        Body::Minimal
    } else if request.header("ce-specversion").is_some() || is_structured_event(request) {
        Body::NoneForEvent
    } else {
        Body::Whole
    }
}

/// Whether the request is a CloudEvent in structured mode (CloudEvents HTTP binding 3.2).
pub(super) fn is_structured_event(request: &Request) -> bool {
    let media_type = request.header("content-type").unwrap_or_default();
    let media_type = media_type.split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"application/cloudevents+json")
}

/// How long a caller waits for the end of a Job.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Wait {
    pub(crate) time: Duration,
    /// Seconds, if it is a preference: the answer says that it is followed.
    pub(crate) preferred: Option<u64>,
}

impl Wait {
    /// Whether the Job is waited for as it is now.
    pub(super) fn goes_on(self, job: &Job) -> bool {
        !job.situation.state.is_final() && !self.time.is_zero()
    }
}

/// Up to `max`; zero switches waiting off. `reads_query`: a `wait` in the query counts, and comes before the preference.
///
/// Errors: 400 for a `wait` in the query that is not a duration. A preference that makes no sense is ignored (RFC 7240 2).
pub(super) fn wait(request: &Request, max: Duration, reads_query: bool) -> Result<Option<Wait>, Status> {
    if max.is_zero() {
        return Ok(None);
    }
    let asked =
        if reads_query { pairs(request.query().as_bytes()).filter(|(name, _)| name == "wait").last() } else { None };
    if let Some((_, text)) = asked {
        let is_short =
            text.len() <= MAX_TEXT && text.split(|c: char| !c.is_ascii_digit()).all(|run| run.len() <= MAX_DIGITS);
        let time = duration(&text).filter(|_| is_short).ok_or_else(|| {
            Status::new(Reason::BadRequest, format!("wait={text:.40} is not a duration like 30s, 500ms or 1m30s"))
        })?;
        return Ok(Some(Wait { time: time.min(max), preferred: None }));
    }
    // whole seconds, in which the answer names it
    let asked = preference(request, "wait").and_then(duration);
    Ok(asked.map(|time| {
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        let time = Duration::from_secs(seconds).min(max);
        Wait { time, preferred: Some(time.as_secs()) }
    }))
}

/// The value of a preference, without quotes. Of several the first counts (RFC 7240 2).
fn preference<'r>(request: &'r Request, wanted: &str) -> Option<&'r str> {
    let values = request.values("prefer").filter_map(|value| std::str::from_utf8(value).ok());
    let mut preferences = values.flat_map(|value| split(value, ',')).filter_map(|one| split(one, ';').next());
    preferences.find_map(|preference| {
        let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
        name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"'))
    })
}

/// The parts between the separators that are in no quoted string.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |character| {
        let is_end = character == separator && !is_quoted;
        is_quoted ^= character == '"' && !is_escaped;
        is_escaped = is_quoted && character == '\\' && !is_escaped;
        is_end
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_preference_of_a_name_counts() {
        for (headers, want) in [
            (&[("Prefer", "return=minimal")][..], Body::Minimal),
            (&[("prefer", "respond-async, wait=10 , Return = \"minimal\" ; a=b")], Body::Minimal),
            (&[("Prefer", "wait=5"), ("Prefer", "return=minimal")], Body::Minimal),
            (&[("Prefer", "return=representation, return=minimal")], Body::Whole),
            (&[("Prefer", r#"a="x,\"return=minimal", b"#)], Body::Whole),
            (&[("Prefer", "a; return=minimal")], Body::Whole),
            (&[("Prefer", "return")], Body::Whole),
            (&[("Ce-Specversion", "1.0")], Body::NoneForEvent),
            (&[("Content-Type", "Application/CloudEvents+json ; charset=utf-8")], Body::NoneForEvent),
            (&[("Content-Type", "application/json")], Body::Whole),
            (&[], Body::Whole),
        ] {
            assert_eq!(body(&Request::of(headers)), want, "{headers:?}");
        }
    }

    #[test]
    fn a_caller_waits_as_long_as_it_may() {
        let max = Duration::from_secs(60);
        let by_header = |value: &str| wait(&Request::of(&[("Prefer", value)]), max, true).unwrap();
        let preferred = |seconds| Some(Wait { time: Duration::from_secs(seconds), preferred: Some(seconds) });
        assert_eq!(by_header("return=minimal, wait=10"), preferred(10));
        assert_eq!(["wait=600", "wait=60s", "wait=\"1m\"", "wait=9999999999"].map(by_header), [preferred(60); 4]);
        assert_eq!(["wait=6500ms", "wait=7s"].map(by_header), [preferred(7); 2]);
        assert_eq!(["wait", "wait=-1", "wait=soon", "waits=1"].map(by_header), [None; 4]);
        let by_query = |query: &str, reads_query| {
            let mut request = Request::of(&[("Prefer", "wait=7")]);
            request.query = request.bytes.len()..request.bytes.len() + query.len();
            request.bytes.extend_from_slice(query.as_bytes());
            wait(&request, max, reads_query).map(|wait| wait.map(|wait| wait.time.as_millis()))
        };
        assert_eq!(by_query("x=1&wait=1m30s", true), Ok(Some(60_000)));
        assert_eq!(by_query("wait=1&wait=500ms", true), Ok(Some(500)));
        assert_eq!(by_query("wait=1", false), Ok(Some(7_000)), "the query of a POST is the filter's");
        for bad in ["wait=soon", "wait=0000000001", &format!("wait={}", "1s".repeat(21))] {
            assert_eq!(by_query(bad, true).unwrap_err().code(), 400, "{bad}");
        }
        assert_eq!(by_query(&format!("wait={}", "1s".repeat(20)), true), Ok(Some(20_000)));
        assert_eq!(wait(&Request::of(&[("Prefer", "wait=7")]), Duration::ZERO, true), Ok(None));
    }
}
