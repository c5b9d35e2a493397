//! Access to values for jaq: index, slice, iterate, and update along paths. Null accepts any path, as in jq.

use super::meter::{check_memory, count_container_index, step};
use super::number::{self, float};
use super::value::{Error, List, Map, Value, chars, null_behind};
use jaq_core::box_iter::{BoxIter, box_once};
use jaq_core::path::Opt;
use jaq_core::val::Range as Slice;
use jaq_core::{ValR, ValX};
use jaq_json::Num;
use std::ops::Range;
use std::sync::Arc;

const ITERABLE: &str = "array or object";
/// Bytes that jaq's natives on strings make of one, at most (`@html` of a quote).
const MAX_ESCAPED: usize = 6;

/// Start and end of a slice of something with `len` elements.
fn bounds(slice: &Slice<&Value>, len: usize) -> Result<Range<usize>, Error> {
    let place = |bound: Option<&Value>, default, round: fn(f64) -> f64| match bound {
        None | Some(Value::Null(_)) => Ok(default),
        Some(Value::Number(n)) => Ok(Value::from(round(float(n))).place(len).unwrap_or(0).min(len)),
        Some(other) => Err(Error::typ(other.clone(), "slice bound")),
    };
    let start = place(slice.start, 0, f64::floor)?;
    let end = place(slice.end, len, f64::ceil)?;
    Ok(start..end.max(start))
}

fn substring(text: &str, at: Range<usize>) -> Value {
    let byte = |character| text.char_indices().nth(character).map_or(text.len(), |(byte, _)| byte);
    Value::string(&text[byte(at.start)..byte(at.end)])
}

impl jaq_core::ValT for Value {
    fn from_num(literal: &str) -> ValR<Self> {
        Ok(Value::Number(number::parse(literal).unwrap_or_else(|_| Num::from_dec_str(literal))))
    }

    fn from_map<I: IntoIterator<Item = (Self, Self)>>(pairs: I) -> ValR<Self> {
        let mut map = Map::default();
        for (key, value) in pairs {
            match key {
                Value::String(key) => map.put(key, value),
                key => return Err(Error::typ(key, "object key")),
            }
        }
        Ok(map.into())
    }

    fn key_values(self) -> BoxIter<'static, Result<(Self, Self), Error>> {
        match self {
            Value::Array(list) => Box::new((0..list.len()).map(move |at| {
                step(0);
                Ok((at.into(), list[at].clone()))
            })),
            Value::Object(map) => Box::new((0..map.len()).filter_map(move |at| {
                step(0);
                map.at(at).map(|(key, value)| Ok((Value::String(key.clone()), value.clone())))
            })),
            other => box_once(Err(Error::typ(other, ITERABLE))),
        }
    }

    fn values(self) -> BoxIter<'static, ValR<Self>> {
        Box::new(self.key_values().map(|pair| pair.map(|(_, value)| value)))
    }

    fn index(self, index: &Self) -> ValR<Self> {
        step(0);
        Ok(match (&self, index) {
            (Value::Null(depth), Value::Null(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
                null_behind(*depth)
            }
            (Value::Object(map), Value::String(key)) => map.get(key).cloned().unwrap_or_default(),
            (Value::Array(list), Value::Number(_)) => {
                index.place(list.len()).and_then(|at| list.get(at)).cloned().unwrap_or_default()
            }
            (Value::Array(_) | Value::String(_), Value::Object(slice)) => {
                count_container_index();
                return self.range(slice.get("start")..slice.get("end"));
            }
            (Value::Array(_), Value::Array(_)) => {
                count_container_index();
                return self.indices(index);
            }
            _ => return Err(Error::index(self, index.clone())),
        })
    }

    fn range(self, slice: Slice<&Self>) -> ValR<Self> {
        Ok(match &self {
            Value::Null(depth) => null_behind(*depth),
            Value::Array(list) => List::of(list[bounds(&slice, list.len())?].iter()),
            Value::String(text) => substring(text, bounds(&slice, chars(text))?),
            _ => return Err(Error::typ(self, "array or string")),
        })
    }

    fn map_values<'a, I: Iterator<Item = ValX<'a, Self>>>(self, opt: Opt, f: impl Fn(Self) -> I) -> ValX<'a, Self> {
        step(0);
        match self {
            Value::Array(list) => Arc::unwrap_or_clone(list).into_values().into_iter().flat_map(f).collect(),
            Value::Object(old) => {
                let mut map = Map::default();
                for (key, value) in Arc::unwrap_or_clone(old).into_pairs() {
                    if let Some(value) = f(value).next() {
                        map.put(key, value?)
                    }
                }
                Ok(map.into())
            }
            other => opt.fail(other, |other| Error::typ(other, ITERABLE).into()),
        }
    }

    fn map_index<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        index: &Self,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        step(0);
        let null = matches!(self, Value::Null(_)).then(|| self.clone());
        match (self, index) {
            (value @ (Value::Array(_) | Value::Null(_)), Value::Object(slice)) => {
                value.map_range(slice.get("start")..slice.get("end"), opt, f)
            }
            (value @ (Value::Object(_) | Value::Null(_)), Value::String(key)) => {
                let mut object = if let Value::Object(object) = value { object } else { Arc::default() };
                let map = Arc::make_mut(&mut object);
                let before = map.take(key);
                let was_there = before.is_some();
                match f(before.unwrap_or_else(Value::missing)).next().transpose()? {
                    Some(after) if was_there || !after.is_missing() => map.put(key.clone(), after),
                    None if was_there => map.remove(key),
                    Some(_) | None => return Ok(null.unwrap_or(Value::Object(object))),
                }
                Ok(Value::Object(object))
            }
            (value @ (Value::Array(_) | Value::Null(_)), Value::Number(_)) => {
                let mut array = if let Value::Array(array) = value { array } else { Arc::default() };
                let Some(at) = index.place(array.len()) else {
                    let message = format_args!("index {index} out of bounds");
                    return opt.fail(Value::Array(array), |_| Error::str(message).into());
                };
                let list = Arc::make_mut(&mut array);
                let before = list.take(at);
                let was_there = before.is_some();
                match f(before.unwrap_or_else(Value::missing)).next().transpose()? {
                    Some(after) if was_there || !after.is_missing() => list.put(at, after),
                    None if was_there => list.remove(at),
                    Some(_) | None => return Ok(null.unwrap_or(Value::Array(array))),
                }
                Ok(Value::Array(array))
            }
            (other, _) => opt.fail(other, |other| Error::index(other, index.clone()).into()),
        }
    }

    fn map_range<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        slice: Slice<&Self>,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        step(0);
        let null = matches!(self, Value::Null(_)).then(|| self.clone());
        let list = match self {
            Value::Array(list) => list,
            Value::Null(_) => Arc::default(),
            other => return opt.fail(other, |other| Error::typ(other, "array").into()),
        };
        let at = match bounds(&slice, list.len()) {
            Ok(at) => at,
            Err(error) => return opt.fail(Value::Array(list), |_| error.into()),
        };
        let after = match f(List::of(list[at.clone()].iter())).next().transpose()? {
            Some(Value::Array(after)) => after,
            Some(other) => return Err(Error::typ(other, "array").into()),
            None => match null {
                Some(null) => return Ok(null), // nothing of nothing was deleted
                None => Arc::default(),
            },
        };
        Ok(List::of(list[..at.start].iter().chain(after.iter()).chain(&list[at.end..])))
    }

    fn as_bool(&self) -> bool {
        !matches!(self, Value::Null(_) | Value::Bool(false))
    }

    fn into_string(self) -> Self {
        if let Value::String(_) = self { self } else { self.to_json() }
    }
}

impl jaq_std::ValT for Value {
    fn into_seq<S: FromIterator<Self>>(self) -> Result<S, Self> {
        match self {
            Value::Array(list) => {
                step(list.len() >> 2);
                check_memory(2 * size_of::<Value>() * list.len());
                Ok(Arc::unwrap_or_clone(list).into_values().into_iter().collect())
            }
            other => Err(other),
        }
    }
    fn is_int(&self) -> bool {
        matches!(self, Value::Number(Num::Int(_)))
    }
    fn as_isize(&self) -> Option<isize> {
        if let Value::Number(Num::Int(integer)) = self { Some(*integer) } else { None }
    }
    fn as_f64(&self) -> Option<f64> {
        if let Value::Number(number) = self { Some(float(number)) } else { None }
    }
    fn is_utf8_str(&self) -> bool {
        matches!(self, Value::String(_))
    }
    fn as_bytes(&self) -> Option<&[u8]> {
        let Value::String(text) = self else { return None };
        step(text.len() >> 5);
        check_memory(MAX_ESCAPED * text.len());
        Some(text.as_bytes())
    }
    fn as_sub_str(&self, part: &[u8]) -> Self {
        Value::utf8(part)
    }
    fn from_utf8_bytes(bytes: impl AsRef<[u8]> + Send + 'static) -> Self {
        Value::utf8(bytes.as_ref())
    }
}
