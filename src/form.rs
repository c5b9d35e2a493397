//! Forms as JSON (`--accept form`): an object of strings, with an array where a name is repeated.

use crate::http::pairs;
use crate::status::{Reason, Status};
use foldhash::fast::RandomState;
use indexmap::IndexSet;
use serde_json::ser::to_writer;
use std::borrow::Cow;
use std::io::{self, Write};

/// Fields of a form, as PHP limits them. Each takes memory beside its text.
const MAX_FIELDS: usize = 1000;
/// Bytes of their names, which are held while the JSON is written.
const MAX_NAMES: usize = 64 << 10;

/// Bytes of a field beside its text.
const FIELD: usize = 96;

/// A form, with its fields grouped by their names.
pub(crate) struct Form<'f> {
    /// In the order in which they first occur.
    names: IndexSet<Cow<'f, str>, RandomState>,
    names_len: usize,
    /// Each with the place of its name, in the order of those.
    fields: Vec<(usize, &'f [u8])>,
}

impl<'f> Form<'f> {
    /// Errors: 413 for too many fields.
    pub(crate) fn of(text: &'f [u8]) -> Result<Self, Status> {
        let mut form = Form { names: IndexSet::default(), names_len: 0, fields: Vec::new() };
        for field in text.split(|byte| *byte == b'&').filter(|field| !field.is_empty()) {
            let (name, _) = pairs(field).next().unwrap_or_default();
            form.names_len += name.len();
            if form.fields.len() == MAX_FIELDS || form.names_len > MAX_NAMES {
                let message =
                    format!("the form has more than {MAX_FIELDS} fields, or names of more than {MAX_NAMES} bytes");
                return Err(Status::new(Reason::RequestEntityTooLarge, message));
            }
            let (place, _) = form.names.insert_full(name);
            form.fields.push((place, field))
        }
        form.fields.sort_by_key(|(place, _)| *place); // stable
        Ok(form)
    }

    /// Bytes that it holds beside its text.
    pub(crate) fn held_bytes(&self) -> usize {
        self.names_len + self.fields.len() * FIELD
    }

    /// Bytes of its JSON.
    pub(crate) fn json_len(&self) -> usize {
        let mut length = Length(0);
        let _ = self.write(&mut length); // it does not fail
        length.0
    }

    /// Writes the JSON.
    pub(crate) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(b"{")?;
        for (number, fields) in self.fields.chunk_by(|one, next| one.0 == next.0).enumerate() {
            if number > 0 {
                out.write_all(b",")?
            }
            to_writer(&mut *out, &self.names[number])?;
            out.write_all(if fields.len() > 1 { b":[" } else { b":" })?;
            for (number, (_, field)) in fields.iter().enumerate() {
                if number > 0 {
                    out.write_all(b",")?
                }
                to_writer(&mut *out, &pairs(field).next().unwrap_or_default().1)?
            }
            if fields.len() > 1 {
                out.write_all(b"]")?
            }
        }
        out.write_all(b"}")
    }
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

    #[test]
    fn fields_become_strings_and_repeated_ones_arrays() {
        for (form, want) in [
            ("", "{}"),
            ("&&", "{}"),
            ("a=1&b=x+y%26&c", r#"{"a":"1","b":"x y&","c":""}"#),
            ("a=1&b=2&a=3&%61=", r#"{"a":["1","3",""],"b":"2"}"#),
            ("a=%22%00%ff%zz\"", r#"{"a":"\"\u0000\ufffd%zz\""}"#),
            ("=x&a==", r#"{"":"x","a":"="}"#),
            ("payload=%7B%22ref%22%3A%22main%22%7D", r#"{"payload":"{\"ref\":\"main\"}"}"#),
        ] {
            let read = Form::of(form.as_bytes()).unwrap();
            let mut json = Vec::new();
            read.write(&mut json).unwrap();
            let want = want.replace("\\ufffd", "\u{fffd}");
            assert_eq!(String::from_utf8_lossy(&json), want, "{form}");
            assert_eq!(read.json_len(), json.len(), "{form}");
        }
    }

    #[test]
    fn the_number_of_fields_is_bounded() {
        let fields = |number: usize| vec!["a=1"; number].join("&");
        assert!(Form::of(fields(MAX_FIELDS).as_bytes()).is_ok());
        assert!(Form::of(fields(MAX_FIELDS + 1).as_bytes()).is_err_and(|status| status.code() == 413));
    }
}
