//! Chunked bodies (RFC 9112 7.1), decoded as they arrive. Pure.

use super::parse::{bad_request, body_too_large};
use crate::status::{Reason, Status};

/// A chunk's size and its extensions, which are rare.
const MAX_CHUNK_LINE: usize = 256;
const MAX_TRAILERS: usize = 4 << 10;
const MAX_TRAILER_FIELDS: usize = 16;
/// Bytes of framing that need no data, and framing per byte of data beyond: chunks of one byte have five.
const FREE_FRAMING: usize = 16 << 10;
const FRAMING_PER_BYTE: usize = 8;

#[derive(Debug, Default)]
enum Awaited {
    #[default]
    Size,
    Data(usize),
    DataEnd,
    Trailers,
}

#[derive(Debug, Default)]
pub(super) struct Chunks {
    awaited: Awaited,
    framing: usize,
    data: usize,
}

/// What one call has decoded.
#[derive(Debug, PartialEq)]
pub(super) struct Decoded {
    /// Bytes of the input that were consumed.
    pub(super) consumed: usize,
    pub(super) is_whole: bool,
}

impl Chunks {
    /// Appends the data in `input` to `body`.
    ///
    /// Errors: 400 for invalid chunks, 413 for more than `max` bytes of data, 431 for too many trailers.
    pub(super) fn decode(&mut self, input: &[u8], body: &mut Vec<u8>, max: usize) -> Result<Decoded, Status> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            let partial = Ok(Decoded { consumed: at, is_whole: false });
            match self.awaited {
                Awaited::Size => {
                    let Some((line, size)) = size(rest)? else { return partial };
                    if size > max - self.data {
                        return Err(body_too_large(max));
                    }
                    at += line;
                    self.frame(line)?;
                    self.awaited = if size == 0 { Awaited::Trailers } else { Awaited::Data(size) };
                }
                Awaited::Data(left) => {
                    let here = left.min(rest.len());
                    body.extend_from_slice(&rest[..here]);
                    self.data += here;
                    at += here;
                    if here < left {
                        self.awaited = Awaited::Data(left - here);
                        return Ok(Decoded { consumed: at, is_whole: false });
                    }
                    self.awaited = Awaited::DataEnd;
                }
                Awaited::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        at += 2;
                        self.frame(2)?;
                        self.awaited = Awaited::Size;
                    }
                    [] | [b'\r'] => return partial,
                    _ => return Err(bad_request("a chunk is longer than its size")),
                },
                Awaited::Trailers => {
                    let Some(length) = trailers(rest)? else { return partial };
                    return Ok(Decoded { consumed: at + length, is_whole: true });
                }
            }
        }
    }

    fn frame(&mut self, bytes: usize) -> Result<(), Status> {
        self.framing += bytes;
        if self.framing > FREE_FRAMING + FRAMING_PER_BYTE * self.data {
            return Err(bad_request("the chunks carry more framing than data"));
        }
        Ok(())
    }
}

/// Length of the line with a chunk's size, and the size.
fn size(rest: &[u8]) -> Result<Option<(usize, usize)>, Status> {
    let wrong = || bad_request("a chunk does not begin with its size");
    let Some(end) = rest.iter().take(MAX_CHUNK_LINE).position(|byte| *byte == b'\n') else {
        return if rest.len() < MAX_CHUNK_LINE { Ok(None) } else { Err(wrong()) };
    };
    let line = rest[..end].strip_suffix(b"\r").ok_or_else(wrong)?;
    if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
        return Err(wrong());
    }
    // spaces may stand before an extension, not before the end of the line
    let digits = match line.iter().position(|byte| *byte == b';') {
        Some(extension) => line[..extension].trim_ascii_end(),
        None => line,
    };
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(wrong());
    }
    let digits = std::str::from_utf8(digits).unwrap_or_default();
    Ok(Some((end + 1, usize::from_str_radix(digits, 16).map_err(|_| wrong())?)))
}

/// Length of the trailers, which are ignored, and the empty line after them.
fn trailers(rest: &[u8]) -> Result<Option<usize>, Status> {
    if rest.starts_with(b"\r\n") {
        return Ok(Some(2));
    }
    let too_large = || Status::new(Reason::RequestHeaderFieldsTooLarge, "the trailers are too large");
    let within = &rest[..rest.len().min(MAX_TRAILERS)];
    let Some(end) = within.windows(4).position(|window| window == b"\r\n\r\n") else {
        return if rest.len() < MAX_TRAILERS { Ok(None) } else { Err(too_large()) };
    };
    let trailers = &rest[..end + 4];
    let has_bare_newline = trailers.split(|byte| *byte == b'\n').rev().skip(1).any(|line| !line.ends_with(b"\r"));
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    match httparse::parse_headers(trailers, &mut fields) {
        Ok(httparse::Status::Complete((length, _))) if length == trailers.len() && !has_bare_newline => {
            Ok(Some(length))
        }
        Err(httparse::Error::TooManyHeaders) => Err(too_large()),
        _ => Err(bad_request("malformed trailers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 100;

    fn decoded(input: &str) -> Result<(String, Decoded), u16> {
        let (mut chunks, mut body) = (Chunks::default(), Vec::new());
        let decoded = chunks.decode(input.as_bytes(), &mut body, MAX).map_err(|status| status.code())?;
        Ok((String::from_utf8(body).unwrap(), decoded))
    }

    #[test]
    fn whole_bodies() {
        for (input, body) in [
            ("0\r\n\r\n", ""),
            ("3\r\nabc\r\n0\r\n\r\n", "abc"),
            ("3 \t;x=y\r\nabc\r\n0\r\n\r\n", "abc"),
            ("3;x=y\r\nabc\r\n00A\r\n0123456789\r\n0\r\nT: v\r\n\r\n", "abc0123456789"),
        ] {
            let want = Decoded { consumed: input.len(), is_whole: true };
            assert_eq!(decoded(input), Ok((body.to_owned(), want)), "{input:?}");
            let (text, got) = decoded(&format!("{input}GET /")).unwrap();
            assert_eq!((text.as_str(), got.consumed), (body, input.len()), "what follows is left alone");
        }
    }

    #[test]
    fn bodies_that_arrive_slowly() {
        let input = b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nT: v\r\n\r\n";
        let (mut chunks, mut body, mut buffer) = (Chunks::default(), Vec::new(), Vec::new());
        let mut is_whole = false;
        for byte in input {
            assert!(!is_whole);
            buffer.push(*byte);
            let decoded = chunks.decode(&buffer, &mut body, MAX).unwrap();
            buffer.drain(..decoded.consumed);
            is_whole = decoded.is_whole;
        }
        assert!(is_whole && buffer.is_empty());
        assert_eq!(body, b"abc0123456789");
    }

    #[test]
    fn refusals() {
        let long_extension = format!("1;{}\r\n", "x".repeat(300));
        let many_trailers = format!("0\r\n{}\r\n", "T: v\r\n".repeat(20));
        let long_trailers = format!("0\r\nT: {}", "x".repeat(5000));
        for (input, code) in [
            ("3 \r\nabc\r\n", 400),
            ("3\t\r\nabc\r\n", 400),
            (" 3\r\nabc\r\n", 400),
            ("3 x\r\nabc\r\n", 400),
            (";x\r\n", 400),
            ("+3\r\n", 400),
            ("0x3\r\n", 400),
            ("x\r\n", 400),
            ("-1\r\n", 400),
            ("\r\n", 400),
            ("3\nabc\r\n", 400),
            ("3\r\nabcd\r\n", 400),
            ("3\r\nabc\n", 400),
            ("1;\u{1}\r\nx\r\n", 400),
            ("0\r\nT: v\n\r\n\r\n", 400),
            ("0\r\nno header\r\n\r\n", 400),
            ("65\r\n", 413),
            ("ffffffffffffffff\r\n", 413),
            ("fffffffffffffffff\r\n", 400),
            (&long_extension, 400),
            (&many_trailers, 431),
            (&long_trailers, 431),
        ] {
            assert_eq!(decoded(input).unwrap_err(), code, "{input:?}");
        }
    }

    #[test]
    fn framing_is_bounded_by_data() {
        let mut chunks = Chunks::default();
        let one = b"1\r\nx\r\n".repeat(10_000);
        assert!(chunks.decode(&one, &mut Vec::new(), usize::MAX).is_ok());
        let padded = [b"1;".as_slice(), &[b'x'; 200], b"\r\nx\r\n"].concat().repeat(1000);
        assert_eq!(chunks.decode(&padded, &mut Vec::new(), usize::MAX).unwrap_err().code(), 400);
    }
}
