//! The idempotency key of a request: where the filter gives no name, all requests with one key have one Job
//! (draft-ietf-httpapi-idempotency-key-header).

use super::prefer::is_structured_event;
use crate::hash::{Sha256, hex};
use crate::http::Request;
use crate::status::{Reason, Status};
use log::warn;
use serde::Deserialize;
use std::borrow::Cow;

const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Characters of a key.
const MAX_KEY: usize = 255;
/// Bytes of an id or source in the body.
const MAX_MEMBER: usize = 1 << 10;
/// A CloudEvent's id is unique within its source (CloudEvents 1.0, `id`).
const CE_ID: &str = "ce-id";
const CE_SOURCE: &str = "ce-source";

/// Of the definition of what is hashed here and in the fingerprint: Jobs of another one are not compared.
pub(super) const VERSION: &str = "v2";

/// The key of a request: a hash of its value, its name, and the path and query that it belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Key {
    digest: [u8; 32],
    /// It is the id of a delivery, which decides alone: senders count attempts in the body, and send one event to several paths.
    is_delivery: bool,
}

impl Key {
    /// For the random part of a name.
    pub(super) fn suffix(&self) -> u64 {
        u64::from_be_bytes(*self.digest.first_chunk().expect("a digest has 32 bytes"))
    }

    /// For what else is random in a run of the filter.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The value of the Job's annotation; None if the key does not decide alone.
    pub(super) fn delivery(&self) -> Option<String> {
        self.is_delivery.then(|| format!("{VERSION}:{}", hex(&self.digest)))
    }
}

/// The request's key, for this decoded path; None without one. `others`: headers that hold ids of deliveries, the first that is there counts; each
/// is one name or several joined names in lower case. An `Idempotency-Key` counts before them.
///
/// Errors: 400 for an `Idempotency-Key` that is none.
pub(super) fn key(request: &Request, path: &str, others: &[Vec<String>]) -> Result<Option<Key>, Status> {
    let hashed = |parts: &[&str], is_delivery| {
        let scope = [VERSION, path, request.query()];
        Key { digest: hash(scope.iter().chain(parts)), is_delivery }
    };
    if let Some(key) = single(request, IDEMPOTENCY_KEY).map_err(bad_request)? {
        let key = unquoted(key).and_then(check).map_err(bad_request)?;
        return Ok(Some(hashed(&[IDEMPOTENCY_KEY, &key], false)));
    }
    for names in others {
        match delivery(request, names) {
            Ok(Some(parts)) => {
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                return Ok(Some(hashed(&parts, true)));
            }
            Ok(None) => (),
            Err(why) => warn!("{} is ignored as idempotency key: {why}", names.join("+")),
        }
    }
    Ok(None)
}

/// The names and values that make the id of a delivery; None without the first of them.
fn delivery(request: &Request, names: &[String]) -> Result<Option<Vec<String>>, String> {
    let event = structured_event(request);
    let mut parts = Vec::new();
    for name in names {
        // an id is unique within its source
        let source = if name == CE_ID { Some(CE_SOURCE) } else { None };
        for name in [&name[..]].into_iter().chain(source) {
            let value = match (&event, name) {
                (Some(event), CE_ID) => event.id.as_deref().map(str::to_owned),
                (Some(event), CE_SOURCE) => event.source.as_deref().map(str::to_owned),
                _ => single(request, name).map_err(|why| format!("{name} {why}"))?.map(str::to_owned),
            };
            match value {
                None if parts.is_empty() => return Ok(None),
                None => return Err(format!("{name} is missing")),
                Some(value) => {
                    parts.push(name.to_owned());
                    let checked = if event.is_some() { check_member(value) } else { check(value) };
                    parts.push(checked.map_err(|why| format!("{name} {why}"))?)
                }
            }
        }
    }
    Ok(Some(parts))
}

/// What identifies a CloudEvent in structured mode.
#[derive(Deserialize)]
struct CloudEvent<'b> {
    #[serde(borrow, default)]
    id: Option<Cow<'b, str>>,
    #[serde(borrow, default)]
    source: Option<Cow<'b, str>>,
}

/// None if it is not such an event; the filter's run says what is wrong with its body.
fn structured_event(request: &Request) -> Option<CloudEvent<'_>> {
    if is_structured_event(request) { serde_json::from_slice(request.body()).ok() } else { None }
}

fn bad_request(why: &str) -> Status {
    Status::new(Reason::BadRequest, format!("the header Idempotency-Key {why}"))
}

/// The value of a header; repeated ones have to be equal.
fn single<'r>(request: &'r Request, name: &'r str) -> Result<Option<&'r str>, &'static str> {
    let mut values = request.values(name);
    let Some(first) = values.next() else { return Ok(None) };
    if values.any(|value| value != first) {
        return Err("is repeated with different values");
    }
    std::str::from_utf8(first).map(Some).map_err(|_| NOT_PRINTABLE)
}

const NOT_PRINTABLE: &str = "has characters other than printable ASCII";

/// `"k"`, a string of structured fields, is `k` (RFC 8941 3.3.3); so is `k` without quotes, which many clients send.
fn unquoted(value: &str) -> Result<String, &'static str> {
    const UNFINISHED: &str = "begins with a quote but is not a quoted string";
    let Some(quoted) = value.strip_prefix('"') else { return Ok(value.to_owned()) };
    let mut key = String::new();
    let mut characters = quoted.chars();
    loop {
        match characters.next().ok_or(UNFINISHED)? {
            '"' if characters.as_str().is_empty() => return Ok(key),
            '"' => return Err(UNFINISHED),
            '\\' => match characters.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => return Err(UNFINISHED),
            },
            other => key.push(other),
        }
    }
}

fn check(key: String) -> Result<String, &'static str> {
    match key.len() {
        0 => Err("is empty"),
        1..=MAX_KEY if key.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => Ok(key),
        1..=MAX_KEY => Err(NOT_PRINTABLE),
        _ => Err("has more than 255 characters"),
    }
}

/// A member of a structured event has any characters.
fn check_member(text: String) -> Result<String, &'static str> {
    match text.len() {
        0 => Err("is empty"),
        1..=MAX_MEMBER => Ok(text),
        _ => Err("has more than 1 KiB"),
    }
}

/// Of the parts, so that different ones never hash the same bytes.
fn hash<'p>(parts: impl Iterator<Item = &'p &'p str>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part)
    }
    hash.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &[&str]) -> Vec<Vec<String>> {
        text.iter().map(|names| names.split('+').map(str::to_owned).collect()).collect()
    }

    fn key_of(request: &Request, path: &str) -> Result<Option<Key>, String> {
        let others = names(&["x-github-delivery+x-github-hook-id", "x-github-delivery", "ce-id"]);
        super::key(request, path, &others).map_err(|status| status.message)
    }

    fn key(headers: &[(&str, &[u8])]) -> Result<Option<Key>, String> {
        key_of(&Request::of(headers), "/job")
    }

    #[test]
    fn a_key_belongs_to_path_and_query() {
        for header in ["Idempotency-Key", "X-GitHub-Delivery"] {
            let of = |path: &str, query: &str| {
                let mut request = Request::of(&[(header, "k")]);
                request.query = request.bytes.len()..request.bytes.len() + query.len();
                request.bytes.extend_from_slice(query.as_bytes());
                key_of(&request, path).unwrap().unwrap()
            };
            assert_eq!(of("/job/build", "a=1"), of("/job/build", "a=1"));
            assert_ne!(of("/job/build", ""), of("/job/scan", ""));
            assert_ne!(of("/job/build", "a=1"), of("/job/build", "a=2"));
            assert_eq!(
                of("/job", "").delivery().is_some(),
                header != "Idempotency-Key",
                "only a delivery decides alone"
            );
        }
    }

    #[test]
    fn a_structured_event_is_known_by_its_id_and_source() {
        let of = |media_type: &str, body: &str| {
            let mut request = Request::of(&[("Content-Type", media_type)]);
            request.head_len = request.bytes.len();
            request.bytes.extend_from_slice(body.as_bytes());
            key_of(&request, "/job").unwrap()
        };
        const STRUCTURED: &str = "application/cloudevents+json; charset=utf-8";
        let binary = key(&[("ce-id", b"1"), ("ce-source", b"/s")]).unwrap();
        assert_eq!(of(STRUCTURED, r#"{"data": {"id": 2}, "source": "/s", "id": "1"}"#), binary);
        assert_ne!(of(STRUCTURED, r#"{"source": "/t", "id": "1"}"#), binary);
        assert!(of(STRUCTURED, r#"{"source": "/s", "id": "é\n"}"#).is_some());
        assert_eq!(of("application/json", r#"{"source": "/s", "id": "1"}"#), None);
        for odd in [r#"{"id": "1"}"#, r#"{"source": "/s"}"#, r#"{"id": 1, "source": "/s"}"#, "[", "7"] {
            assert_eq!(of(STRUCTURED, odd), None, "{odd}");
        }
    }

    #[test]
    fn joined_headers_are_one_key() {
        let hook = |id: &'static [u8]| key(&[("X-GitHub-Delivery", b"d"), ("X-GitHub-Hook-ID", id)]).unwrap();
        assert_eq!(hook(b"1"), hook(b"1"));
        assert_ne!(hook(b"1"), hook(b"2"), "two hooks of one repository");
        let alone = key(&[("X-GitHub-Delivery", b"d")]).unwrap();
        assert!(alone.is_some() && alone != hook(b"1"), "the next in the list counts");
    }

    #[test]
    fn a_quoted_key_is_the_same_key() {
        let of = |value: &str| key(&[("Idempotency-Key", value.as_bytes())]);
        assert!(of("k").unwrap().is_some());
        assert_eq!(of("k"), of("\"k\""));
        assert_eq!(of("a\"b\\c"), of(r#""a\"b\\c""#));
        assert_ne!(of("k"), of("K"));
        assert_eq!(of("k"), key(&[("idempotency-key", b"k"), ("IDEMPOTENCY-KEY", b"k")]));
    }

    #[test]
    fn what_cannot_be_a_key_is_named() {
        let long = "x".repeat(256);
        let cases: [(&[u8], &str); 7] = [
            (b"", "is empty"),
            (b"\"\"", "is empty"),
            (long.as_bytes(), "has more than 255 characters"),
            (b"\"k", "is not a quoted string"),
            (b"\"k\"; a=b", "is not a quoted string"),
            (b"a\tb", "printable ASCII"),
            ("é".as_bytes(), "printable ASCII"),
        ];
        for (value, says) in cases {
            let message = key(&[("Idempotency-Key", value)]).unwrap_err();
            assert!(message.contains(says), "{value:?} gave {message}");
        }
        assert!(key(&[("idempotency-key", b"a"), ("idempotency-key", b"b")]).unwrap_err().contains("repeated"));
        assert!(key(&[("idempotency-key", "x".repeat(255).as_bytes())]).unwrap().is_some());
    }

    #[test]
    fn other_headers_count_in_their_order_and_bad_ones_are_ignored() {
        let github = ("X-GitHub-Delivery", &b"d"[..]);
        assert_eq!(key(&[]), Ok(None));
        assert_eq!(key(&[("webhook-id", b"w")]), Ok(None), "not one of the operator's");
        let of_github = key(&[github]);
        assert!(of_github.as_ref().unwrap().is_some());
        assert_eq!(of_github, key(&[("ce-id", b"1"), ("ce-source", b"/s"), github]));
        assert_ne!(of_github, key(&[("idempotency-key", b"d"), github]));
        let event =
            |id: &'static str, source: &'static str| key(&[("ce-id", id.as_bytes()), ("ce-source", source.as_bytes())]);
        assert_ne!(event("1", "/a"), event("1", "/b"));
        assert_eq!(key(&[("ce-id", b"1")]), Ok(None), "no source");
        assert_eq!(key(&[("x-github-delivery", b""), ("ce-id", b"1"), ("ce-source", b"/a")]), event("1", "/a"));
    }
}
