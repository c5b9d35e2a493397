//! Prints values as JSON.

use super::meter::{Exceeded, check_memory, exceed, max_string, step};
use super::number;
use super::order::sorted;
use super::value::{Text, Value};
use jaq_json::Num;
use std::fmt;
use std::ops::Range;

/// Bytes of an ordinary output, so that its text need not grow.
const ORDINARY: usize = 2 << 10;
/// Why a value cannot be written as JSON.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unwritable {
    TooLong,
    NotFinite,
}

impl fmt::Display for Unwritable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unwritable::TooLong => "it is too long",
            Unwritable::NotFinite => "it holds a number that JSON cannot write (NaN or an infinity)",
        })
    }
}

/// An output as strict JSON.
#[derive(Debug, PartialEq)]
pub(crate) struct Output {
    pub(crate) json: Vec<u8>,
    /// The places of the members that were asked for.
    pub(crate) found: Vec<Option<Member>>,
}

impl Output {
    pub(super) fn with_capacity(capacity: usize, members: &[&[&str]]) -> Self {
        check_memory(capacity);
        Output { json: Vec::with_capacity(capacity), found: vec![None; members.len()] }
    }
}

#[cfg(test)]
impl Output {
    /// The output of a filter that gives this.
    pub(crate) fn of(json: &str, members: &[&[&str]]) -> Self {
        super::parse::parse(json.as_bytes()).unwrap().to_output(usize::MAX, members).unwrap()
    }
}

/// A member of an object in JSON text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Member {
    /// With its key.
    pub(crate) whole: Range<usize>,
    pub(crate) value: Range<usize>,
}

#[derive(Clone, Copy)]
pub(super) struct Form {
    /// Maximum length in bytes.
    pub(super) max: usize,
    /// NaN and infinities are an error, else null as in jq.
    pub(super) strict: bool,
    /// Keys in order, so that equal values have equal texts.
    pub(super) sorted: bool,
}

impl Value {
    /// Strict JSON of at most `max` bytes.
    pub(super) fn to_strict_json(&self, max: usize) -> Result<Vec<u8>, Unwritable> {
        let mut out = Vec::new();
        self.write(&mut out, Form { max, strict: true, sorted: false }).map(|()| out)
    }

    /// The same, with the places of these members. A member is a path of at least one key.
    pub(super) fn to_output(&self, max: usize, members: &[&[&str]]) -> Result<Output, Unwritable> {
        let mut output = Output::with_capacity(ORDINARY.min(max), members);
        let form = Form { max, strict: true, sorted: false };
        self.write_and_find(&mut output, form, 0, &|_| true, members)?;
        Ok(output)
    }

    /// `on_path`: whether the path of a member leads to this value, which is `level` keys deep.
    pub(super) fn write_and_find(
        &self,
        output: &mut Output,
        form: Form,
        level: usize,
        on_path: &dyn Fn(usize) -> bool,
        members: &[&[&str]],
    ) -> Result<(), Unwritable> {
        let Value::Object(map) = self else { return self.write(&mut output.json, form) };
        step(0);
        output.json.push(b'{');
        for (at, (key, value)) in map.iter().enumerate() {
            if at > 0 {
                output.json.push(b',')
            }
            let start = output.json.len();
            quote(key, &mut output.json, form.max);
            output.json.push(b':');
            let here = output.json.len();
            let leads_on = |number: usize| on_path(number) && members[number].get(level) == Some(&&key[..]);
            match (0..members.len()).any(|number| leads_on(number) && members[number].len() > level + 1) {
                true => value.write_and_find(output, form, level + 1, &leads_on, members)?,
                false => value.write(&mut output.json, form)?,
            }
            let end = output.json.len();
            if let Some(number) =
                (0..members.len()).find(|number| leads_on(*number) && members[*number].len() == level + 1)
            {
                output.found[number] = Some(Member { whole: start..end, value: here..end })
            }
        }
        output.json.push(b'}');
        if output.json.len() > form.max { Err(Unwritable::TooLong) } else { Ok(()) }
    }

    /// Canonical JSON, for comparing: sorted keys, no white space. `length`: about how many bytes that will be.
    pub(super) fn to_canonical_json(&self, length: usize) -> Vec<u8> {
        check_memory(length);
        let mut out = Vec::with_capacity(length);
        // not too long: it holds nothing that was not in a body, and a body is bounded
        let _ = self.write(&mut out, Form { max: usize::MAX, strict: false, sorted: true });
        out
    }

    /// jq's `tojson`.
    pub(super) fn to_json(&self) -> Value {
        let mut out = Vec::new();
        if self.write(&mut out, Form { max: max_string(), strict: false, sorted: false }).is_err() {
            exceed(Exceeded::Memory)
        }
        Value::string(String::from_utf8(out).unwrap_or_default())
    }

    /// The JSON text of the value, cut behind `max` characters.
    pub(super) fn brief(&self, max: usize) -> String {
        let mut out = Vec::new();
        let whole = self.write(&mut out, Form { max: 4 * max, strict: false, sorted: false }).is_ok();
        let text = String::from_utf8_lossy(&out);
        match text.char_indices().nth(max) {
            None if whole => text.into_owned(),
            cut => format!("{}...", &text[..cut.map_or(text.len(), |(at, _)| at)]),
        }
    }

    /// The JSON text of the value, cut to at most `max` bytes.
    pub(super) fn cut(&self, max: usize) -> String {
        const DOTS: &str = "...";
        let mut out = Vec::new();
        let whole = self.write(&mut out, Form { max, strict: false, sorted: false }).is_ok();
        let text = String::from_utf8_lossy(&out);
        if whole { text.into_owned() } else { format!("{}{DOTS}", &text[..text.floor_char_boundary(max - DOTS.len())]) }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>, form: Form) -> Result<(), Unwritable> {
        step(0);
        match self {
            Value::Null(_) => out.extend(b"null"),
            Value::Bool(false) => out.extend(b"false"),
            Value::Bool(true) => out.extend(b"true"),
            Value::Number(Num::Float(float)) if !float.is_finite() && form.strict => return Err(Unwritable::NotFinite),
            Value::Number(Num::Float(float)) if !float.is_finite() => out.extend(b"null"),
            Value::Number(number) => number::write(number, form.sorted, out),
            Value::String(text) => quote(text, out, form.max),
            Value::Array(list) => {
                out.push(b'[');
                for (at, value) in list.iter().enumerate() {
                    if at > 0 {
                        out.push(b',')
                    }
                    value.write(out, form)?
                }
                out.push(b']')
            }
            Value::Object(map) => {
                out.push(b'{');
                let mut first = true;
                let mut pair = |(key, value): (&std::sync::Arc<Text>, &Value)| {
                    if !std::mem::take(&mut first) {
                        out.push(b',')
                    }
                    quote(key, out, form.max);
                    out.push(b':');
                    value.write(out, form)
                };
                if form.sorted {
                    sorted(map).into_iter().try_for_each(pair)?
                } else {
                    map.iter().try_for_each(&mut pair)?
                }
                out.push(b'}')
            }
        }
        if out.len() > form.max { Err(Unwritable::TooLong) } else { Ok(()) }
    }
}

/// Bytes of a string that is written whole, however little room there is.
const SHORT: usize = 64;

/// Writes a JSON string, but not much more than fits into `max` bytes.
pub(super) fn quote(text: &str, out: &mut Vec<u8>, max: usize) {
    step(text.len() >> 6);
    let needs_escape = |byte: &u8| *byte < b' ' || *byte == b'"' || *byte == b'\\';
    if text.len() <= SHORT && !text.as_bytes().iter().any(needs_escape) {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    check_memory(text.len());
    let room = max.saturating_sub(out.len()).saturating_add(4).min(text.len());
    serde_json::to_writer(out, &text[..text.floor_char_boundary(room)]).expect("writing to memory does not fail")
}
