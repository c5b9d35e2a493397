//! Our request and reply: plain data, no I/O.

use crate::account::Reservation;
use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Range;

/// The caller's trace (W3C Trace Context).
pub(crate) const TRACE_PARENT: &str = "traceparent";

const JSON: &str = "application/json";
const FORWARDED_FOR: &str = "x-forwarded-for";

/// A request with a valid head; the parser rejects all others. The body follows the head in the same buffer.
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// Head, then body (decoded, if it was chunked).
    pub(crate) bytes: Vec<u8>,
    /// Bytes of the method, with which the head begins. (A range would make this larger than what is moved without a call.)
    pub(crate) method_len: usize,
    /// Path as sent: percent-encoded ASCII.
    pub(crate) path: Range<usize>,
    /// Query as sent, without the question mark.
    pub(crate) query: Range<usize>,
    /// Name and value of each header, values trimmed.
    pub(crate) headers: Vec<(Range<usize>, Range<usize>)>,
    /// Where the body starts.
    pub(crate) head_len: usize,
    /// HTTP/1.0: the reply says so when the connection stays open.
    pub(crate) is_http_10: bool,
    /// The connection is closed after the reply.
    pub(crate) close: bool,
    /// Memory for its bytes.
    pub(crate) reservation: Option<Reservation>,
}

impl Request {
    /// What the log and the head of the reply need of it.
    pub(crate) fn head_for_log(&self) -> Self {
        let mut bytes = Vec::new();
        let mut put = |part: &[u8]| {
            bytes.extend_from_slice(part);
            bytes.len() - part.len()..bytes.len()
        };
        let (method, path) = (put(self.method().as_bytes()), put(self.path().as_bytes()));
        // two, so that a trace that is ambiguous stays so
        let traces = self.values(TRACE_PARENT).take(2).map(|trace| (put(TRACE_PARENT.as_bytes()), put(trace)));
        let mut headers: Vec<_> = traces.collect();
        if let Some(address) = self.forwarded_for() {
            headers.push((put(FORWARDED_FOR.as_bytes()), put(address.as_bytes())))
        }
        bytes.shrink_to_fit();
        Request {
            head_len: bytes.len(),
            bytes,
            method_len: method.len(),
            path,
            headers,
            is_http_10: self.is_http_10,
            close: self.close,
            ..Request::default()
        }
    }
    /// Bytes that it holds.
    pub(crate) fn held_bytes(&self) -> usize {
        self.head_len + self.bytes.capacity()
    }

    /// Frees the body, which is needed no longer.
    pub(crate) fn drop_body(&mut self) {
        if self.bytes.len() > self.head_len {
            self.bytes.truncate(self.head_len);
            self.bytes.shrink_to_fit()
        }
    }

    /// Releases what exceeds the bytes that it holds, and `more`.
    pub(crate) fn shrink_memory(&mut self, more: usize) {
        let held = self.held_bytes() + more;
        self.reservation.iter_mut().for_each(|memory| memory.shrink(held))
    }

    fn text(&self, at: &Range<usize>) -> &str {
        std::str::from_utf8(&self.bytes[at.clone()]).unwrap_or_default() // the parser lets only ASCII through
    }
    pub(crate) fn method(&self) -> &str {
        self.text(&(0..self.method_len))
    }
    pub(crate) fn is_head(&self) -> bool {
        self.bytes[..self.method_len] == *b"HEAD"
    }
    pub(crate) fn path(&self) -> &str {
        match self.text(&self.path) {
            "" => "/", // a target in absolute form without a path (RFC 9112 3.2.2)
            path => path,
        }
    }
    pub(crate) fn query(&self) -> &str {
        self.text(&self.query)
    }
    pub(crate) fn body(&self) -> &[u8] {
        &self.bytes[self.head_len..]
    }
    /// The first address in `X-Forwarded-For`, which is whatever the client or the first proxy has written, without a port. None if it is no
    /// address.
    pub(crate) fn forwarded_for(&self) -> Option<&str> {
        let all = std::str::from_utf8(self.header(FORWARDED_FOR)?).ok()?;
        let first = all.split(',').next()?.trim();
        let address = match first.strip_prefix('[') {
            Some(rest) => rest.split(']').next()?,
            None if first.matches(':').count() == 1 => first.split(':').next()?,
            None => first,
        };
        address.parse::<IpAddr>().is_ok().then_some(address)
    }
    /// Whether the head announces a body.
    pub(crate) fn announces_body(&self) -> bool {
        self.header("transfer-encoding").is_some() || self.header("content-length").is_some_and(|length| length != b"0")
    }
    /// With these headers only.
    #[cfg(test)]
    pub(crate) fn of<V: AsRef<[u8]>>(headers: &[(&str, V)]) -> Self {
        let mut request = Request::default();
        for (name, value) in headers {
            let mut put = |bytes: &[u8]| {
                let start = request.bytes.len();
                request.bytes.extend_from_slice(bytes);
                start..start + bytes.len()
            };
            let header = (put(name.as_bytes()), put(value.as_ref()));
            request.headers.push(header)
        }
        request.head_len = request.bytes.len();
        request
    }
    /// All headers in their order, names as sent.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (self.text(name), &self.bytes[value.clone()]))
    }
    /// The values of all headers of this name, in any case.
    pub(crate) fn values<'r>(&'r self, wanted: &'r str) -> impl Iterator<Item = &'r [u8]> {
        // most names differ in length already
        let is_wanted = |name: &Range<usize>| {
            name.len() == wanted.len() && self.bytes[name.clone()].eq_ignore_ascii_case(wanted.as_bytes())
        };
        self.headers.iter().filter(move |(name, _)| is_wanted(name)).map(|(_, value)| &self.bytes[value.clone()])
    }
    /// The first header of this name, in any case.
    pub(crate) fn header<'r>(&'r self, wanted: &'r str) -> Option<&'r [u8]> {
        self.values(wanted).next()
    }
}

/// A reply of ours.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    /// Empty for none.
    pub(crate) body: Cow<'static, [u8]>,
    /// The body's media type.
    pub(crate) content_type: &'static str,
    /// Headers beside those that every reply has. Names and values are ours, never a caller's text.
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Reply {
    pub(crate) fn empty(code: u16) -> Self {
        Reply { code, ..Reply::default() }
    }
    pub(crate) fn json(code: u16, body: impl Into<Cow<'static, [u8]>>) -> Self {
        Reply { code, body: body.into(), content_type: JSON, ..Reply::default() }
    }
    pub(crate) fn text(content_type: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Self {
        Reply { code: 200, body: body.into(), content_type, ..Reply::default() }
    }
    pub(crate) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// Percent-decodes once. Returns None for an invalid escape.
pub(crate) fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            decoded.push((high * 16 + low) as u8);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}

/// The names and values of a query or a form (WHATWG URL, application/x-www-form-urlencoded): `+` is a space, invalid escapes stay as they
/// are, bytes that are not UTF-8 become U+FFFD.
pub(crate) fn pairs(text: &[u8]) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    form_urlencoded::parse(text)
}

/// Whether this is the name of a header (RFC 9110 5.6.2, token).
pub(crate) fn is_header_name(name: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token)
}

/// The media type of a `Content-Type`, without its parameters.
pub(crate) fn media_type(content_type: &[u8]) -> &[u8] {
    content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

/// Whether a `Content-Type` says JSON: `application/json` or `application/*+json`, in any case, whatever its parameters.
pub(crate) fn is_json(content_type: &[u8]) -> bool {
    let Some((head, subtype)) = media_type(content_type).split_at_checked("application/".len()) else { return false };
    let suffix = subtype.len().checked_sub("+json".len()).map(|at| &subtype[at..]);
    head.eq_ignore_ascii_case(b"application/")
        && (subtype.eq_ignore_ascii_case(b"json")
            || subtype.len() > "+json".len() && suffix.is_some_and(|end| end.eq_ignore_ascii_case(b"+json")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types() {
        for yes in [
            "application/json",
            "APPLICATION/JSON; charset=utf-8",
            "application/cloudevents+json",
            "application/json ;x",
        ] {
            assert!(is_json(yes.as_bytes()), "{yes}");
        }
        for no in [
            "",
            "text/plain",
            "application/jsonx",
            "application/+json",
            "application/",
            "text/json",
            "xapplication/json",
        ] {
            assert!(!is_json(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn queries() {
        let pairs = |query: &'static str| pairs(query.as_bytes()).collect::<Vec<_>>();
        let pair = |name: &'static str, value: &'static str| (name.into(), value.into());
        assert_eq!(pairs(""), []);
        assert_eq!(
            pairs("a=b+c&&d&e=%C3%A9=&f=%zz"),
            [pair("a", "b c"), pair("d", ""), pair("e", "é="), pair("f", "%zz")]
        );
        assert_eq!(pairs("a=%ff"), [pair("a", "\u{fffd}")]);
    }

    #[test]
    fn the_first_address_of_those_that_forwarded() {
        for (value, want) in [
            ("203.0.113.7", Some("203.0.113.7")),
            (" 203.0.113.7:5000 , 10.0.0.1", Some("203.0.113.7")),
            ("2001:db8::1,x", Some("2001:db8::1")),
            ("[2001:db8::1]:443", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("unknown, 10.0.0.1", None),
            ("a=b reason=x", None),
            ("", None),
        ] {
            let request = Request::of(&[("X-Forwarded-For", value)]);
            assert_eq!(request.forwarded_for(), want, "{value}");
            assert_eq!(request.head_for_log().forwarded_for(), want, "{value}");
        }
        assert_eq!(Request::of::<&str>(&[]).forwarded_for(), None);
    }

    #[test]
    fn escapes() {
        assert_eq!(percent_decoded("a%2Fb%2f"), Some(b"a/b/".to_vec()));
        for bad in ["%", "%2", "%2g", "%+1"] {
            assert_eq!(percent_decoded(bad), None, "{bad}");
        }
    }
}
