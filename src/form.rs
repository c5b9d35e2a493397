//! Forms as JSON (`--accept form`): an object of strings, with an array where a name is repeated. Values are written as they are read, so that
//! a form takes no memory but for the names of its fields.

use crate::http::pairs;
use crate::status::{Reason, Status};
use serde_json::Value;
use std::borrow::Cow;
use std::io::{self, Write};

/// Fields of a form, as PHP limits them. Each takes memory beside its text.
const MAX_FIELDS: usize = 1000;
/// Bytes of their names as sent, which are held while the JSON is written.
const MAX_NAMES: usize = 32 << 10;
/// Bytes that a name may become of one that was sent: U+FFFD.
const PER_BYTE: usize = 3;
/// Bytes of a field beside its text.
const FIELD: usize = 96;
/// Bytes of a value that are decoded at a time.
const PART: usize = 1 << 10;

/// A form, with its fields grouped by their names.
pub(crate) struct Form<'f> {
    /// In the order in which they first occur.
    names: Vec<Cow<'f, str>>,
    names_len: usize,
    /// The value of each, with the place of its name, in the order of those.
    fields: Vec<(usize, &'f [u8])>,
}

impl<'f> Form<'f> {
    /// Errors: 413 for too many fields.
    pub(crate) fn of(text: &'f [u8]) -> Result<Self, Status> {
        let mut form = Form { names: Vec::new(), names_len: 0, fields: Vec::new() };
        for field in text.split(|byte| *byte == b'&').filter(|field| !field.is_empty()) {
            let (name, value) = match field.iter().position(|byte| *byte == b'=') {
                Some(equals) => (&field[..equals], &field[equals + 1..]),
                None => (field, &[][..]),
            };
            form.names_len += name.len();
            if form.fields.len() == MAX_FIELDS || form.names_len > MAX_NAMES {
                let message =
                    format!("the form has more than {MAX_FIELDS} fields, or names of more than {MAX_NAMES} bytes");
                return Err(Status::new(Reason::RequestEntityTooLarge, message));
            }
            let name = pairs(name).next().unwrap_or_default().0;
            let known = form.names.iter().position(|known| *known == name); // there are few
            let place = known.unwrap_or(form.names.len());
            if known.is_none() {
                form.names.push(name)
            }
            let at = form.fields.partition_point(|(before, _)| *before <= place);
            form.fields.insert(at, (place, value))
        }
        Ok(form)
    }

    /// Bytes that it holds beside its text, and while it is written.
    pub(crate) fn held_bytes(&self) -> usize {
        PER_BYTE * self.names_len + self.fields.len() * FIELD + 8 * PART
    }

    /// Bytes of its JSON.
    pub(crate) fn json_len(&self) -> usize {
        let mut length = Length(0);
        let _ = self.write(&mut length); // it does not fail
        length.0
    }

    /// Writes the JSON.
    pub(crate) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(b"{")?;
        for (number, fields) in self.fields.chunk_by(|one, next| one.0 == next.0).enumerate() {
            if number > 0 {
                out.write_all(b",")?
            }
            out.write_all(Value::from(&*self.names[number]).to_string().as_bytes())?;
            out.write_all(if fields.len() > 1 { b":[" } else { b":" })?;
            for (number, (_, value)) in fields.iter().enumerate() {
                if number > 0 {
                    out.write_all(b",")?
                }
                write_value(out, value)?
            }
            if fields.len() > 1 {
                out.write_all(b"]")?
            }
        }
        out.write_all(b"}")
    }
}

/// Writes a value as a string, part by part.
fn write_value(out: &mut dyn Write, value: &[u8]) -> io::Result<()> {
    let mut bytes = value.iter();
    let mut decoded = std::iter::from_fn(|| match bytes.next()? {
        b'+' => Some(b' '),
        b'%' => {
            let digit = |at: usize| char::from(*bytes.as_slice().get(at)?).to_digit(16);
            let byte = digit(0).zip(digit(1)).map(|(high, low)| (high * 16 + low) as u8);
            if byte.is_some() {
                bytes.nth(1);
            }
            Some(byte.unwrap_or(b'%'))
        }
        byte => Some(*byte),
    });
    let mut part = Vec::with_capacity(PART);
    out.write_all(b"\"")?;
    loop {
        part.extend(decoded.by_ref().take(PART - part.len()));
        let is_last = part.len() < PART;
        // a character may go on in the next part
        let whole = if is_last { part.len() } else { part.len() - begun(&part) };
        if whole > 0 {
            let json = Value::from(String::from_utf8_lossy(&part[..whole])).to_string();
            out.write_all(&json.as_bytes()[1..json.len() - 1])?
        }
        part.drain(..whole);
        if is_last {
            return out.write_all(b"\"");
        }
    }
}

/// Bytes at the end that may be the beginning of a character.
fn begun(bytes: &[u8]) -> usize {
    let last = &bytes[bytes.len().saturating_sub(3)..];
    let start = last.iter().rposition(|byte| *byte >= 0b1100_0000);
    start.map_or(0, |start| last.len() - start)
}

/// Counts what is written.
struct Length(usize);

impl Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(form: &[u8]) -> String {
        let read = Form::of(form).unwrap();
        let mut json = Vec::new();
        read.write(&mut json).unwrap();
        assert_eq!(read.json_len(), json.len());
        String::from_utf8(json).unwrap()
    }

    #[test]
    fn fields_become_strings_and_repeated_ones_arrays() {
        for (form, want) in [
            ("", "{}"),
            ("&&", "{}"),
            ("a=1&b=x+y%26&c", r#"{"a":"1","b":"x y&","c":""}"#),
            ("a=1&b=2&a=3&%61=", r#"{"a":["1","3",""],"b":"2"}"#),
            ("a=%22%00%zz%2%\"", r#"{"a":"\"\u0000%zz%2%\""}"#),
            ("=x&a==", r#"{"":"x","a":"="}"#),
            ("payload=%7B%22ref%22%3A%22main%22%7D", r#"{"payload":"{\"ref\":\"main\"}"}"#),
        ] {
            assert_eq!(json(form.as_bytes()), want, "{form}");
        }
    }

    /// As the crate decodes it, wherever the parts begin.
    #[test]
    fn values_are_decoded_as_forms_are() {
        let pieces: [&[u8]; 9] =
            [b"a", b"+", b"%", b"%e2%82%ac", "€".as_bytes(), b"\xff", b"%f0%9f", "\u{1f600}".as_bytes(), b"%2B"];
        for seed in 0..2000u64 {
            let (mut value, mut state) = (vec![b'x'; (seed % 7) as usize], seed * 2 + 1);
            while value.len() < PART + 40 * (seed as usize % 100) {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let count = if seed % 3 == 0 { 1 } else { 40 };
                (0..count).for_each(|_| value.extend_from_slice(pieces[(state >> 33) as usize % pieces.len()]))
            }
            let form = [b"a=", &value[..]].concat();
            let want = pairs(&form).next().unwrap().1.into_owned();
            assert_eq!(json(&form), serde_json::json!({"a": want}).to_string(), "{seed}");
        }
    }

    #[test]
    fn the_number_of_fields_is_bounded() {
        let fields = |number: usize| vec!["a=1"; number].join("&");
        assert!(Form::of(fields(MAX_FIELDS).as_bytes()).is_ok());
        assert!(Form::of(fields(MAX_FIELDS + 1).as_bytes()).is_err_and(|status| status.code() == 413));
        assert!(Form::of(&[b'a'; MAX_NAMES + 1]).is_err_and(|status| status.code() == 413));
    }
}
