//! OWNS hifijson: parses JSON strictly (RFC 8259: UTF-8, no NaN, no comments) and metered. Numbers keep their literals' exact values.

use super::meter::step;
use super::number;
use super::value::{List, Map, Text, Value};
use hifijson::num::LexWrite;
use hifijson::str::{Error as StringError, LexAlloc};
use hifijson::token::{Expect, Lex};
use hifijson::{SliceLexer, escape, num};
use jaq_json::Num;
use std::fmt;
use std::sync::Arc;

/// Arrays and objects within each other.
const MAX_NESTING: u32 = 128;

/// Why a text is not JSON, or not JSON that we take.
#[derive(Debug)]
enum Malformed {
    Expected(Expect),
    /// What begins no value.
    NoValue,
    /// An object ends early, where another key or its end has to be.
    NoKey,
    String(StringError),
    /// A number lacks a digit.
    Digit,
    /// Why a number is not supported.
    Number(String),
    TooDeep,
}

/// Where in an object.
enum InObject {
    /// Between its members.
    Object(Expect),
    Within(Malformed),
}

impl From<Expect> for InObject {
    fn from(what: Expect) -> Self {
        InObject::Object(what)
    }
}

impl From<Malformed> for InObject {
    fn from(error: Malformed) -> Self {
        InObject::Within(error)
    }
}

impl From<Expect> for Malformed {
    fn from(what: Expect) -> Self {
        Malformed::Expected(what)
    }
}

impl From<StringError> for Malformed {
    fn from(error: StringError) -> Self {
        Malformed::String(error)
    }
}

impl From<num::Error> for Malformed {
    fn from(num::Error::ExpectedDigit: num::Error) -> Self {
        Malformed::Digit
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use escape::Error::{ExpectedLowSurrogate, InvalidChar};
        f.write_str(match self {
            Malformed::Expected(Expect::Value) | Malformed::NoValue => "expected a value",
            Malformed::Expected(Expect::ValueOrEnd) => "expected a value or the end of the array",
            Malformed::NoKey => "expected a key in double quotes or the end of the object",
            Malformed::Expected(Expect::CommaOrEnd) => "expected a comma or the end of the array or object",
            Malformed::Expected(Expect::String) => "expected a key in double quotes",
            Malformed::Expected(Expect::Colon) => "expected a colon",
            Malformed::Expected(Expect::Eof) => "unexpected text after the value",
            Malformed::String(StringError::Escape(InvalidChar(_) | ExpectedLowSurrogate)) => {
                "half a surrogate pair (such as \\ud800)"
            }
            Malformed::String(StringError::Escape(_)) => "invalid escape sequence",
            Malformed::String(StringError::Control) => "control character in a string",
            Malformed::String(StringError::Eof) => "unterminated string",
            Malformed::String(StringError::Utf8(_)) => "invalid UTF-8",
            Malformed::Digit => "expected a digit",
            Malformed::Number(why) => why,
            Malformed::TooDeep => return write!(f, "nested deeper than {MAX_NESTING}"),
        })
    }
}

/// Reads one JSON text, and nothing behind it. A byte order mark in front is skipped (RFC 8259 8.1).
///
/// Errors: what is wrong, and where: the line, and the byte in it.
pub(super) fn parse(json: &[u8]) -> Result<Value, String> {
    let json = json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json);
    let mut lexer = SliceLexer::new(json);
    let parsed = lexer.exactly_one(Lex::ws_peek, |next, lexer| value(next, lexer, MAX_NESTING));
    parsed.map_err(|error| {
        let read = json.len() - lexer.as_slice().len();
        let bad = match &error {
            Malformed::Expected(_) | Malformed::NoKey | Malformed::Digit | Malformed::TooDeep => read,
            Malformed::String(StringError::Eof | StringError::Escape(escape::Error::Eof)) => read,
            Malformed::String(StringError::Utf8(_)) => {
                std::str::from_utf8(json).map_or_else(|error| error.valid_up_to(), |_| read)
            }
            Malformed::NoValue | Malformed::String(_) | Malformed::Number(_) => read - 1,
        };
        let before = &json[..bad];
        let mut line = before.split(|byte| *byte == b'\n');
        let (row, column) = (line.clone().count(), line.next_back().unwrap_or_default().len() + 1);
        match json.get(bad) {
            None => format!("{error}, but the text ends at line {row} column {column}"),
            Some(_) => format!("{error}, at line {row} column {column}"),
        }
    })
}

/// `next`: the first byte of the value. `levels`: arrays and objects that it may still have within each other.
fn value(next: u8, lexer: &mut SliceLexer<'_>, levels: u32) -> Result<Value, Malformed> {
    step(0);
    match next {
        b'"' => Ok(Value::String(string(lexer)?)),
        b'-' | b'0'..=b'9' => {
            let (literal, _) = lexer.num_string().validated()?;
            number::parse(literal).map(Value::Number).map_err(Malformed::Number)
        }
        b'[' => {
            let levels = levels.checked_sub(1).ok_or(Malformed::TooDeep)?;
            let mut list = List::default();
            lexer.discarded().seq(b']', Lex::ws_peek, |next, lexer| {
                list.push(value(next, lexer, levels)?);
                Ok::<_, Malformed>(())
            })?;
            Ok(list.into())
        }
        b'{' => {
            let levels = levels.checked_sub(1).ok_or(Malformed::TooDeep)?;
            let mut map = Map::default();
            let members = lexer.discarded().seq(b'}', Lex::ws_peek, |next, lexer| {
                let key = if next == b'"' { string(lexer)? } else { Err(Malformed::from(Expect::String))? };
                lexer.expect(Lex::ws_peek, b':').ok_or(Malformed::from(Expect::Colon))?;
                let next = lexer.ws_peek().ok_or(Malformed::from(Expect::Value))?;
                map.put(key, value(next, lexer, levels)?);
                Ok::<_, InObject>(())
            });
            match members {
                Ok(()) => Ok(map.into()),
                Err(InObject::Within(error)) => Err(error),
                Err(InObject::Object(Expect::CommaOrEnd)) => Err(Expect::CommaOrEnd.into()),
                Err(InObject::Object(_)) => Err(Malformed::NoKey),
            }
        }
        _ => Ok(lexer.null_or_bool().ok_or(Malformed::NoValue)?.map_or_else(Value::default, Value::from)),
    }
}

/// `lexer` is at the opening quote.
fn string(lexer: &mut SliceLexer<'_>) -> Result<Arc<Text>, Malformed> {
    let mut text = lexer.discarded().str_string()?.into_owned();
    text.shrink_to_fit(); // where escapes have made it grow
    Ok(Text::new(text))
}

/// The same value as ours.
pub(super) fn convert(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::default(),
        Json::Bool(boolean) => boolean.into(),
        Json::Number(number) => Value::Number(number::parse(&number.to_string()).unwrap_or(Num::Float(f64::NAN))),
        Json::String(text) => Value::String(Text::new(text)),
        Json::Array(elements) => {
            let mut list = List::default();
            elements.into_iter().for_each(|element| list.push(convert(element)));
            list.into()
        }
        Json::Object(members) => {
            let mut map = Map::default();
            members.into_iter().for_each(|(key, member)| map.put(Text::new(key), convert(member)));
            map.into()
        }
    }
}
