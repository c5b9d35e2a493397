//! OWNS httparse. Pure: bytes to a head, or the error. Stricter than HTTP requires where leniency has let two parsers disagree
//! about where a request ends (request smuggling); RFC 9112 allows each of these errors.

use crate::http::Request;
use crate::status::{Reason, Status};
use std::mem::MaybeUninit;

/// As most proxies: longer URLs do not travel.
const MAX_REQUEST_LINE: usize = 8 << 10;
/// Request line and headers.
pub(super) const MAX_HEAD: usize = 16 << 10;
const MAX_HEADERS: usize = 64;

/// How the body ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
}

/// A parsed head.
#[derive(Debug)]
pub(super) struct Head {
    /// Without the head's bytes, which the caller moves in.
    pub(super) request: Request,
    pub(super) framing: Framing,
    /// `Expect: 100-continue`.
    pub(super) expects_continue: bool,
}

pub(super) fn bad_request(what: &str) -> Status {
    Status::new(Reason::BadRequest, format!("malformed request: {what}"))
}

pub(super) fn body_too_large(max: usize) -> Status {
    Status::new(Reason::RequestEntityTooLarge, format!("the body is larger than {max} bytes"))
}

fn line_too_long() -> Status {
    Status::new(Reason::UriTooLong, format!("the request line is longer than {MAX_REQUEST_LINE} bytes"))
}

fn head_too_large() -> Status {
    let message =
        format!("request line and headers are larger than {MAX_HEAD} bytes, or more than {MAX_HEADERS} headers");
    Status::new(Reason::RequestHeaderFieldsTooLarge, message)
}

/// Finds the end of a head as bytes arrive; visits each byte once, however slowly they arrive.
#[derive(Debug, Default)]
pub(super) struct Scan {
    scanned: usize,
    /// Whether the request line has ended.
    has_line: bool,
}

impl Scan {
    /// The length of the head at the start of `bytes`, once it is complete.
    ///
    /// Errors: a line that does not end in CR LF, and what is too long.
    pub(super) fn head_len(&mut self, bytes: &[u8]) -> Result<Option<usize>, Status> {
        if self.scanned == 0 && bytes.first().is_some_and(|first| !first.is_ascii_alphabetic()) {
            return Err(bad_request("it does not begin with a method")); // no need to wait for the end of a TLS handshake
        }
        while let Some(found) = bytes[self.scanned..].iter().position(|byte| *byte == b'\n') {
            let at = self.scanned + found;
            self.scanned = at + 1;
            if at == 0 || bytes[at - 1] != b'\r' {
                return Err(bad_request("a line ends without a carriage return"));
            }
            if !self.has_line && at + 1 > MAX_REQUEST_LINE {
                return Err(line_too_long());
            }
            self.has_line = true;
            if at + 1 > MAX_HEAD {
                return Err(head_too_large());
            }
            if bytes[..=at].ends_with(b"\r\n\r\n") {
                return Ok(Some(at + 1));
            }
        }
        self.scanned = bytes.len();
        match self.has_line {
            false if bytes.len() > MAX_REQUEST_LINE => Err(line_too_long()),
            true if bytes.len() > MAX_HEAD => Err(head_too_large()),
            _ => Ok(None),
        }
    }
}

/// Parses a complete head, as [`Scan`] found it.
pub(super) fn head(bytes: &[u8], max_body: usize) -> Result<Head, Status> {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete(len)) if len == bytes.len() => (),
        Ok(_) => return Err(bad_request("an empty line where none may be")),
        Err(httparse::Error::TooManyHeaders) => return Err(head_too_large()),
        Err(httparse::Error::Version) => return Err(wrong_version(bytes)),
        Err(error) => return Err(bad_request(&error.to_string())),
    }
    let place = |part: &[u8]| {
        let start = part.as_ptr().addr() - bytes.as_ptr().addr();
        start..start + part.len()
    };
    let is_http_10 = parsed.version == Some(0);
    let target = parsed.path.unwrap_or_default();
    let mut fields = Fields::default();
    let mut request = Request {
        method_len: parsed.method.unwrap_or_default().len(), // it begins there
        headers: Vec::with_capacity(parsed.headers.len()),
        head_len: bytes.len(),
        is_http_10,
        ..Request::default()
    };
    for header in parsed.headers.iter() {
        let value = header.value.trim_ascii();
        fields.note(header.name, value)?;
        request.headers.push((place(header.name.as_bytes()), place(value)));
    }
    let (path, query) = split_target(target, fields.host)?;
    (request.path, request.query) = (place(path.as_bytes()), place(query.as_bytes()));
    request.close = fields.close || is_http_10 && !fields.keep_alive;
    if fields.hosts > 1 || fields.hosts == 0 && !is_http_10 {
        return Err(bad_request("there must be one Host"));
    }
    let framing = match (fields.length, fields.is_chunked) {
        (Some(_), true) => return Err(bad_request("both Content-Length and Transfer-Encoding")),
        (None, true) if is_http_10 => return Err(bad_request("Transfer-Encoding in HTTP/1.0")),
        (None, true) => Framing::Chunked,
        (Some(length), false) if length > max_body => return Err(body_too_large(max_body)),
        (length, false) => Framing::Length(length.unwrap_or(0)),
    };
    Ok(Head { request, framing, expects_continue: fields.expects_continue && !is_http_10 })
}

/// The `X-Request-Id` of a head that is answered with an error, if it can be read.
pub(super) fn request_id(bytes: &[u8]) -> Option<&[u8]> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed.parse(bytes).ok()?;
    parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case("x-request-id")).map(|header| header.value)
}

/// httparse accepts 1.0 and 1.1; this distinguishes other versions from text that is not a version.
fn wrong_version(head: &[u8]) -> Status {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    let is_version = matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit());
    if is_version && line.iter().filter(|byte| **byte == b' ').count() == 2 {
        Status::new(Reason::HttpVersionNotSupported, "only HTTP/1.0 and HTTP/1.1 are supported")
    } else {
        bad_request("the request line does not end in an HTTP version")
    }
}

/// What the headers say about the request's framing and the connection.
#[derive(Default)]
struct Fields<'a> {
    length: Option<usize>,
    is_chunked: bool,
    hosts: usize,
    host: Option<&'a [u8]>,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
}

impl<'a> Fields<'a> {
    fn note(&mut self, name: &str, value: &'a [u8]) -> Result<(), Status> {
        let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
        if is("content-length") {
            if self.length.is_some() || value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                return Err(bad_request("Content-Length must be given once, as a number"));
            }
            // more digits than fit are too large for any limit
            self.length =
                Some(std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok()).unwrap_or(usize::MAX));
        } else if is("transfer-encoding") {
            if self.is_chunked {
                return Err(bad_request("Transfer-Encoding is repeated"));
            }
            check_transfer_encoding(value)?;
            self.is_chunked = true;
        } else if is("host") {
            if value.iter().any(|byte| !byte.is_ascii_graphic() || b"/?#@,\\\"<>".contains(byte)) {
                return Err(bad_request("Host is not a host"));
            }
            self.hosts += 1;
            self.host = Some(value);
        } else if is("connection") {
            for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                self.close |= token.eq_ignore_ascii_case(b"close");
                self.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if is("expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Status::new(Reason::ExpectationFailed, "the only supported expectation is 100-continue"));
            }
            self.expects_continue = true;
        }
        Ok(())
    }
}

/// Errors: 400 if the last coding is not `chunked`, because then the body's end is unknown (RFC 9112 6.3); 501 for a coding before it.
fn check_transfer_encoding(value: &[u8]) -> Result<(), Status> {
    let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|coding| !coding.is_empty());
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    match (codings.next_back(), codings.next()) {
        (Some(last), None) if is_chunked(last) => Ok(()),
        (Some(last), Some(first)) if is_chunked(last) && !is_chunked(first) && !codings.any(is_chunked) => {
            Err(Status::new(Reason::NotImplemented, "the only supported transfer coding is chunked"))
        }
        (Some(last), Some(_)) if is_chunked(last) => Err(bad_request("the transfer coding chunked is applied twice")),
        _ => Err(bad_request("the last transfer coding is not chunked")),
    }
}

/// Path and query of a target in origin form, or in absolute form, as clients send it to proxies; then its host must be the Host.
fn split_target<'t>(target: &'t str, host: Option<&[u8]>) -> Result<(&'t str, &'t str), Status> {
    if !target.is_ascii() || target.contains('#') {
        return Err(bad_request("the target has characters that must be percent-encoded"));
    }
    let scheme_end = ["http://", "https://"].into_iter().find_map(|scheme| {
        let start = target.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(scheme.len())
    });
    let local = match scheme_end {
        Some(start) => {
            let scheme_is_https = start == "https://".len();
            let rest = &target[start..];
            let (authority, local) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            let port: &[u8] = if scheme_is_https { b":443" } else { b":80" };
            let without_port = |host: &[u8]| host.strip_suffix(port).unwrap_or(host).to_ascii_lowercase();
            if host.is_some_and(|host| without_port(authority.as_bytes()) != without_port(host)) {
                return Err(bad_request("the target and Host name different hosts"));
            }
            local
        }
        None if target.starts_with('/') || target == "*" => target,
        None => return Err(bad_request("the request target is not a path")),
    };
    Ok(local.split_once('?').unwrap_or((local, &local[local.len()..])))
}

#[cfg(test)]
mod tests;
