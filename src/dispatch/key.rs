//! The idempotency key of a request: where the filter gives no name, all requests with one key have one Job
//! (draft-ietf-httpapi-idempotency-key-header).

use crate::http::Request;
use crate::status::{Reason, Status};
use log::warn;
use sha2::{Digest, Sha256};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Characters of a key.
const MAX_KEY: usize = 255;
/// A CloudEvent's id is unique within its source (CloudEvents 1.0, `id`).
const CE_ID: &str = "ce-id";
const CE_SOURCE: &str = "ce-source";

/// A hash of the request's key; None without one. `others`: names in lower case of headers that are keys too, the first that is there
/// counts. An `Idempotency-Key` counts before them.
///
/// Errors: 400 for an `Idempotency-Key` that is none.
pub(super) fn hash_of_key(request: &Request, others: &[String]) -> Result<Option<u64>, Status> {
    if let Some(key) = single(request, IDEMPOTENCY_KEY).map_err(bad_request)? {
        let key = unquoted(key).and_then(check).map_err(bad_request)?;
        return Ok(Some(hash(&[IDEMPOTENCY_KEY, &key])));
    }
    for name in others {
        match other_key(request, name) {
            Ok(Some(key)) => return Ok(Some(key)),
            Ok(None) => (),
            Err(why) => warn!("{name} is no idempotency key: it {why}"),
        }
    }
    Ok(None)
}

fn other_key(request: &Request, name: &str) -> Result<Option<u64>, &'static str> {
    let Some(id) = single(request, name)? else { return Ok(None) };
    let id = check(id.to_owned())?;
    if name != CE_ID {
        return Ok(Some(hash(&[name, &id])));
    }
    match single(request, CE_SOURCE)? {
        Some(source) => Ok(Some(hash(&[name, &check(source.to_owned())?, &id]))),
        None => Err("comes without ce-source"),
    }
}

fn bad_request(why: &str) -> Status {
    Status::new(Reason::BadRequest, format!("the header Idempotency-Key {why}"))
}

/// The value of a header; repeated ones have to be equal.
fn single<'r>(request: &'r Request, name: &str) -> Result<Option<&'r str>, &'static str> {
    let mut values = request.headers().filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let Some(first) = values.next() else { return Ok(None) };
    if values.any(|value| value != first) {
        return Err("is there twice, with two values");
    }
    std::str::from_utf8(first).map(Some).map_err(|_| NOT_PRINTABLE)
}

const NOT_PRINTABLE: &str = "has characters other than printable ASCII";

/// `"k"`, a string of structured fields, is `k` (RFC 8941 3.3.3); so is `k` without quotes, which many clients send.
fn unquoted(value: &str) -> Result<String, &'static str> {
    const UNFINISHED: &str = "begins with a quote, but is no quoted string";
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

fn hash(parts: &[&str]) -> u64 {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0])
    }
    let digest: [u8; 32] = hash.finalize().into();
    u64::from_be_bytes(*digest.first_chunk().expect("a digest has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(headers: &[(&str, &[u8])]) -> Result<Option<u64>, String> {
        let others = ["x-github-delivery", "ce-id"].map(str::to_owned);
        hash_of_key(&Request::of(headers), &others).map_err(|status| status.message)
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
            (b"\"k", "is no quoted string"),
            (b"\"k\"; a=b", "is no quoted string"),
            (b"a\tb", "printable ASCII"),
            ("é".as_bytes(), "printable ASCII"),
        ];
        for (value, says) in cases {
            let message = key(&[("Idempotency-Key", value)]).unwrap_err();
            assert!(message.contains(says), "{value:?} gave {message}");
        }
        assert!(key(&[("idempotency-key", b"a"), ("idempotency-key", b"b")]).unwrap_err().contains("twice"));
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
