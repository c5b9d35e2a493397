//! Parses and prints values as JSON. Parsing is strict (serde_json: UTF-8, no NaN, no comments) and metered.

use super::meter::{Exceeded, check_memory, exceed, max_string, step};
use super::number::{self, Literals};
use super::order::sorted;
use super::value::{List, Map, Text, Value};
use jaq_json::Num;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;

/// Arrays and objects within each other. serde_json's own bound is one less, and cannot be told from a body that ends early.
const MAX_NESTING: u32 = 128;
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
        read(json.as_bytes()).unwrap().to_output(usize::MAX, members).unwrap()
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

/// Reads one JSON text, and nothing behind it. A byte order mark in front is skipped (RFC 8259 8.1).
///
/// Errors: what is wrong, and where.
pub(super) fn read(json: &[u8]) -> Result<Value, String> {
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
    let error = match read_with(json, json) {
        Ok(value) => return Ok(value),
        Err(error) => error.to_string(),
    };
    if error.starts_with("number out of range") {
        // serde_json reads numbers as doubles; those that are larger are hidden from it
        check_memory(json.len());
        let mut hidden = json.to_vec();
        for range in Literals::new(json) {
            step(0);
            let literal = std::str::from_utf8(&json[range.clone()]).unwrap_or_default();
            let mantissa = literal.split(['e', 'E']).next().unwrap_or_default();
            if number::is_json(mantissa) && literal.parse::<f64>().is_ok_and(f64::is_infinite) {
                hidden[range.clone()].fill(b'0');
                hidden[range.start + 1] = b'.';
            }
        }
        return read_with(&hidden, json).map_err(|error| error.to_string());
    }
    Err(match error.strip_prefix("lone leading surrogate") {
        Some(place) => format!("half a surrogate pair (as \\ud800){place}"),
        None => error.replace("unexpected end of hex escape", "half a surrogate pair (as \\ud800)"),
    })
}

/// `original`: the text with the literals of the numbers.
fn read_with(json: &[u8], original: &[u8]) -> serde_json::Result<Value> {
    let numbers = Numbers { seen: Cell::new(0), literals: RefCell::new(Literals::new(original)) };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    deserializer.disable_recursion_limit(); // ours is in `Build`
    let value = Build { levels: MAX_NESTING, numbers: Some(&numbers) }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// The same value as ours; null for what is nested too deep.
pub(super) fn convert(json: serde_json::Value) -> Value {
    Build { levels: MAX_NESTING, numbers: None }.deserialize(json).unwrap_or_default()
}

/// The numbers of a text: serde_json shows them as doubles, their literals have the exact value.
struct Numbers<'j> {
    seen: Cell<usize>,
    literals: RefCell<Literals<'j>>,
}

impl Numbers<'_> {
    /// Counts a number. Returns its place among all.
    fn count(&self) -> usize {
        self.seen.replace(self.seen.get() + 1)
    }
}

/// Builds a value that may have so many levels more.
#[derive(Clone, Copy)]
struct Build<'j> {
    levels: u32,
    numbers: Option<&'j Numbers<'j>>,
}

impl<'j> Build<'j> {
    fn inner<E: serde::de::Error>(self) -> Result<Build<'j>, E> {
        let levels = self.levels.checked_sub(1);
        levels
            .map(|levels| Build { levels, ..self })
            .ok_or_else(|| E::custom(format!("nested deeper than {MAX_NESTING}")))
    }

    /// An integer of 64 bits.
    fn integer<E>(self, integer: isize) -> Result<Value, E> {
        if let Some(numbers) = self.numbers {
            numbers.count();
        }
        Ok(integer.into())
    }

    /// A number whose literal has more digits than serde_json keeps.
    fn exact<E: serde::de::Error>(self, rounded: f64) -> Result<Value, E> {
        let Some(numbers) = self.numbers else { return Ok(rounded.into()) };
        let number = numbers.count();
        number::parse(numbers.literals.borrow_mut().get(number)).map(Value::Number).map_err(E::custom)
    }
}

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        step(0);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::default())
    }
    fn visit_bool<E>(self, boolean: bool) -> Result<Value, E> {
        Ok(boolean.into())
    }
    fn visit_i64<E>(self, integer: i64) -> Result<Value, E> {
        self.integer(integer as isize)
    }
    fn visit_u64<E: serde::de::Error>(self, integer: u64) -> Result<Value, E> {
        match isize::try_from(integer) {
            Ok(integer) => self.integer(integer),
            Err(_) => self.exact(integer as f64),
        }
    }
    fn visit_f64<E: serde::de::Error>(self, rounded: f64) -> Result<Value, E> {
        self.exact(rounded)
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::string(text))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = List::default();
        while let Some(value) = elements.next_element_seed(self.inner()?)? {
            list.push(value)
        }
        Ok(list.into())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Value, A::Error> {
        let mut map = Map::default();
        while let Some(key) = pairs.next_key::<String>()? {
            map.put(Text::new(key), pairs.next_value_seed(self.inner()?)?)
        }
        Ok(map.into())
    }
}
