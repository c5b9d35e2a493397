//! Natives that precede jaq's: for our value type, bounded versions of jaq's, and additions to jq (`cuid2`, `@sha1`, ...).

use super::data::Data;
use super::meter::{count_log_line, next_cuid, step};
use super::number::{self, float};
use super::parse::parse;
use super::regex;
use super::value::{Error, List, Map, Text, Value, chars};
use crate::hash::{hex, sha1, sha256};
use jaq_core::box_iter::box_once;
use jaq_core::native::{Filter as Native, Fun, bome, run, unary, v};
use jaq_core::{Bind, Cv, Exn, RunPtr, ValR, ValT, ValX, ValXs};
use jaq_json::Num;
use md5::Digest;
use std::sync::LazyLock;

/// Bytes of a line that `debug` and `stderr` write to the log, escapes included.
const MAX_LOGGED: usize = 1024;
/// Steps that a log line costs: writing one takes as long.
const LOG_STEPS: usize = 2000;
const CUID2_STEPS: usize = 100;

/// The environment, as `$ENV` and `env` show it: made once, shared by all runs. Invalid UTF-8 becomes U+FFFD.
pub(super) static ENVIRONMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut map = Map::default();
    for (name, value) in std::env::vars_os() {
        map.put(Text::new(name.to_string_lossy()), Value::string(value.to_string_lossy()))
    }
    map.into()
});

/// All natives, ours first: of natives with the same name jaq takes the first.
pub(super) fn all() -> impl Iterator<Item = Fun<Data>> {
    ours().into_iter().map(run::<Data>).chain(jaq_core::funs()).chain(jaq_std::funs())
}

/// Definitions of jaq's that are natives here: the same, at a tenth of the cost.
pub(super) const INSTEAD_OF_DEFINITIONS: [&str; 8] =
    ["isarray", "isboolean", "isnumber", "isobject", "isstring", "not", "tostring", "type"];

/// Natives that depend on more than input and arguments, or write to the log.
pub(super) const IMPURE: [&str; 7] =
    ["cuid2", "debug_empty", "halt", "localtime", "now", "stderr_empty", "strflocaltime"];
/// Natives that may give none or several outputs.
pub(super) const MANY: [&str; 10] =
    ["_parts", "first", "last", "limit", "max_by_or_empty", "min_by_or_empty", "path", "path_value", "range", "skip"];
/// Natives that run filters, on values that come from their input.
pub(super) const RUN_FILTERS: [&str; 10] = [
    "first",
    "group_by",
    "last",
    "limit",
    "max_by_or_empty",
    "min_by_or_empty",
    "path",
    "path_value",
    "skip",
    "sort_by",
];

fn ours() -> [Native<RunPtr<Data>>; 36] {
    let two_values = || [Bind::Var(()), Bind::Var(())].into();
    let one_filter = || [Bind::Fun(())].into();
    [
        ("env", v(0), |_| bome(Ok(ENVIRONMENT.clone()))),
        ("isarray", v(0), |cv| bome(Ok(matches!(cv.1, Value::Array(_)).into()))),
        ("isboolean", v(0), |cv| bome(Ok(matches!(cv.1, Value::Bool(_)).into()))),
        ("isnumber", v(0), |cv| bome(Ok(matches!(cv.1, Value::Number(_)).into()))),
        ("isobject", v(0), |cv| bome(Ok(matches!(cv.1, Value::Object(_)).into()))),
        ("isstring", v(0), |cv| bome(Ok(matches!(cv.1, Value::String(_)).into()))),
        ("not", v(0), |cv| bome(Ok((!cv.1.as_bool()).into()))),
        ("tostring", v(0), |cv| bome(Ok(cv.1.into_string()))),
        ("type", v(0), |cv| bome(Ok(Value::string(cv.1.kind().1)))),
        ("_test", two_values(), |cv| bome(regex::test(cv))),
        ("length", v(0), |cv| bome(length(cv.1))),
        ("floor", v(0), |cv| bome(whole(cv.1, f64::floor))),
        ("round", v(0), |cv| bome(whole(cv.1, f64::round))),
        ("ceil", v(0), |cv| bome(whole(cv.1, f64::ceil))),
        ("has", v(1), |cv| unary(cv, has)),
        ("contains", v(1), |cv| unary(cv, |value, other| Ok(value.contains(&other).into()))),
        ("indices", v(1), |cv| unary(cv, |value, other| value.indices(&other))),
        ("bsearch", v(1), |cv| unary(cv, bsearch)),
        ("sort_by", one_filter(), |cv| {
            box_once(sorted(cv).map(|pairs| pairs.into_iter().map(|(_, value)| value).collect()))
        }),
        ("group_by", one_filter(), |cv| box_once(sorted(cv).map(groups))),
        ("min_by_or_empty", one_filter(), |cv| one(sorted(cv).map(|pairs| pairs.into_iter().next()))),
        ("max_by_or_empty", one_filter(), |cv| one(sorted(cv).map(|mut pairs| pairs.pop()))),
        ("tojson", v(0), |cv| bome(Ok(cv.1.to_json()))),
        ("fromjson", v(0), |cv| bome(fromjson(&cv.1))),
        ("matches", two_values(), |cv| bome(regex::collected(false, true, cv))),
        ("split_matches", two_values(), |cv| bome(regex::collected(true, true, cv))),
        ("split_", two_values(), |cv| bome(regex::collected(true, false, cv))),
        ("_parts", two_values(), regex::parts),
        ("_tonumber", v(0), |cv| bome(tonumber(cv.1))),
        ("_brief", v(0), |cv| bome(Ok(Value::string(cv.1.to_string())))),
        ("debug_empty", v(0), |cv| logged(log::Level::Debug, &cv.1)),
        ("stderr_empty", v(0), |cv| logged(log::Level::Error, &cv.1)),
        ("cuid2", v(0), |_| {
            step(CUID2_STEPS);
            bome(Ok(match next_cuid() {
                Some((seed, number)) => Value::string(derived_cuid(&seed, number)),
                None => Value::string(cuid2::create_id()),
            }))
        }),
        ("@md5", v(0), |cv| bome(digest(cv.1, |text| hex(&md5::Md5::digest(text))))),
        ("@sha1", v(0), |cv| bome(digest(cv.1, |text| hex(&sha1(text))))),
        ("@sha256", v(0), |cv| bome(digest(cv.1, |text| hex(&sha256(text))))),
    ]
}

fn length(value: Value) -> ValR<Value> {
    match &value {
        Value::Null(_) => Ok(0usize.into()),
        Value::Number(number) if float(number) < 0.0 => -value,
        Value::Number(_) => Ok(value),
        Value::String(text) => Ok(chars(text).into()),
        Value::Array(list) => Ok(list.len().into()),
        Value::Object(map) => Ok(map.len().into()),
        Value::Bool(_) => Err(Error::str(format_args!("{value} has no length"))),
    }
}

fn whole(value: Value, round: fn(f64) -> f64) -> ValR<Value> {
    match &value {
        Value::Number(Num::Int(_)) => Ok(value),
        Value::Number(number) => Ok(Value::Number(number::whole(round(float(number))))),
        _ => Err(Error::typ(value, "number")),
    }
}

fn has(value: Value, key: Value) -> ValR<Value> {
    match (&value, &key) {
        (Value::Object(map), Value::String(key)) => Ok(map.get(key).is_some().into()),
        (Value::Array(list), Value::Number(_)) => Ok(key.place(list.len()).is_some_and(|at| at < list.len()).into()),
        _ => Err(Error::index(value, key)),
    }
}

fn bsearch(value: Value, wanted: Value) -> ValR<Value> {
    let Value::Array(list) = &value else { return Err(Error::typ(value, "array")) };
    Ok(list.binary_search(&wanted).map_or_else(|at| -1 - at as isize, |at| at as isize).into())
}

fn fromjson(value: &Value) -> ValR<Value> {
    let Value::String(text) = value else { return Err(Error::typ(value.clone(), "string")) };
    step(text.len() >> 6);
    parse(text.as_bytes()).map_err(|error| Error::str(format_args!("{value} is not JSON: {error}")))
}

/// Digits with a sign, a fraction, an exponent, as C reads them; no words.
fn tonumber(value: Value) -> ValR<Value> {
    let text = match &value {
        Value::Number(_) => return Ok(value),
        Value::String(text) => text,
        _ => return Err(Error::str(format_args!("{value} cannot be parsed as a number"))),
    };
    step(text.len());
    let is_plain = |byte: u8| byte.is_ascii_digit() || b"+-.eE".contains(&byte);
    let number = text.bytes().all(is_plain).then(|| number::parse(text).ok()).flatten().map(Value::Number);
    number.ok_or_else(|| Error::str(format_args!("{value} cannot be parsed as a number")))
}

/// The elements of the input with what the argument gives for them, sorted by that.
fn sorted<'a>(mut cv: Cv<'a, Data>) -> Result<Vec<(Value, Value)>, Exn<'a, Value>> {
    let (by, context) = cv.0.pop_fun();
    let Value::Array(list) = cv.1 else { return Err(Error::typ(cv.1, "array").into()) };
    let pair = |value: &Value| {
        let key = by.run((context.clone(), value.clone())).collect::<ValX<Value>>()?;
        Ok((key, value.clone()))
    };
    let mut pairs = list.iter().map(pair).collect::<Result<Vec<_>, Exn<'a, Value>>>()?;
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(pairs)
}

fn groups(pairs: Vec<(Value, Value)>) -> Value {
    pairs.chunk_by(|a, b| a.0 == b.0).map(|group| List::of(group.iter().map(|(_, value)| value))).collect()
}

fn one<'a>(pair: Result<Option<(Value, Value)>, Exn<'a, Value>>) -> ValXs<'a, Value> {
    Box::new(pair.transpose().map(|pair| pair.map(|(_, value)| value)).into_iter())
}

/// The only way for a body to reach the log, and only if the filter asks for it. `{:?}` escapes.
fn logged<'a>(level: log::Level, value: &Value) -> ValXs<'a, Value> {
    step(LOG_STEPS);
    if log::log_enabled!(level) && count_log_line() {
        let line = format!("{:?}", value.cut(MAX_LOGGED));
        log::log!(level, "filter says {}", &line[..line.floor_char_boundary(MAX_LOGGED)]);
    }
    Box::new(std::iter::empty())
}

/// In the form of a cuid2: 24 characters, the first of which is a letter. The other 23 have 118 of the digest's bits.
fn derived_cuid(seed: &[u8; 32], number: u64) -> String {
    const DIGITS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let digest = sha256(&[&seed[..], &number.to_be_bytes()].concat());
    let (high, low) = digest.split_first_chunk::<16>().expect("a digest has 32 bytes");
    let mut number = u128::from_be_bytes(*high);
    let mut id = String::from(char::from(DIGITS[usize::from(low[0]) % 26]));
    for _ in 1..24 {
        id.push(char::from(DIGITS[(number % 36) as usize]));
        number /= 36
    }
    id
}

/// Hexadecimal digest of the input as text.
fn digest(value: Value, of: fn(&[u8]) -> String) -> ValR<Value> {
    let Value::String(text) = value.into_string() else { return Ok(Value::default()) };
    step(text.len() >> 4);
    Ok(Value::string(of(text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_cuid_has_the_form_of_a_random_one() {
        let ids: Vec<_> = (0..1000).map(|number| derived_cuid(&[7; 32], number)).collect();
        for id in &ids {
            let is_digit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            assert!(id.len() == 24 && id.bytes().all(is_digit) && id.as_bytes()[0].is_ascii_lowercase(), "{id}");
        }
        assert_eq!(ids[3], derived_cuid(&[7; 32], 3));
        assert_ne!(ids[3], derived_cuid(&[8; 32], 3));
        assert_eq!(ids.iter().collect::<std::collections::HashSet<_>>().len(), 1000);
        assert_eq!(cuid2::create_id().len(), 24);
    }

    #[test]
    fn all_natives_are_judged() {
        let mut names: Vec<_> = all().map(|(name, args, _)| format!("{name}/{}", args.len())).collect();
        names.sort();
        names.dedup();
        for name in IMPURE.iter().chain(&MANY).chain(&RUN_FILTERS) {
            assert!(names.iter().any(|known| known.split('/').next() == Some(name)), "there is no native {name}");
        }
        for (name, args, _) in all() {
            let runs_filters = args.iter().any(|arg| matches!(arg, Bind::Fun(_)));
            assert!(!runs_filters || RUN_FILTERS.contains(&name), "{name} runs filters");
        }
        // a new one is added here after it was looked up whether it belongs into a table above
        assert_eq!(names.join(" "), include_str!("fold/natives.txt").trim());
    }
}
