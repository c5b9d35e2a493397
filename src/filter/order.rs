//! How values compare and contain each other: jq's order of types, numbers by size, text by code point, objects by their sorted keys first.

use super::meter::step;
use super::number::compare;
use super::value::{Error, List, Map, Text, Value, chars};
use jaq_core::ValR;
use std::cmp::Ordering;
use std::sync::Arc;

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        step(0);
        match (self, other) {
            (Value::Number(a), Value::Number(b)) => compare(a, b),
            (Value::String(a), Value::String(b)) => {
                step(a.len().min(b.len()) >> 8);
                a[..].cmp(&b[..])
            }
            (Value::Array(a), Value::Array(b)) => a[..].cmp(&b[..]),
            (Value::Object(a), Value::Object(b)) => {
                let (a, b) = (sorted(a), sorted(b));
                let keys = a.iter().map(|(key, _)| &key[..]).cmp(b.iter().map(|(key, _)| &key[..]));
                keys.then_with(|| a.iter().map(|(_, value)| value).cmp(b.iter().map(|(_, value)| value)))
            }
            _ => self.kind().0.cmp(&other.kind().0),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

/// Bytes of a text that are searched in one piece.
const WINDOW: usize = 1 << 16;

/// The pairs of an object, by key.
pub(super) fn sorted(map: &Map) -> Vec<(&Arc<Text>, &Value)> {
    step(map.len());
    let mut pairs: Vec<_> = map.iter().collect();
    match pairs.len() {
        // few take no time
        0..=1024 => pairs.sort_unstable_by(|a, b| a.0[..].cmp(&b.0[..])),
        _ => pairs.sort_unstable_by(|a, b| {
            step(0);
            a.0[..].cmp(&b.0[..])
        }),
    }
    pairs
}

impl Value {
    /// jq's `contains`.
    pub(super) fn contains(&self, other: &Value) -> bool {
        step(0);
        match (self, other) {
            (Value::String(a), Value::String(b)) => {
                step(a.len() >> 6);
                a.contains(&b[..])
            }
            (Value::Array(a), Value::Array(b)) => b.iter().all(|b| a.iter().any(|a| a.contains(b))),
            (Value::Object(a), Value::Object(b)) => b.iter().all(|(key, b)| a.get(key).is_some_and(|a| a.contains(b))),
            _ => self == other,
        }
    }

    /// jq's `indices`: where the other value stands in this one, in characters or elements.
    pub(super) fn indices(&self, other: &Value) -> ValR<Value> {
        let mut found = List::default();
        match (self, other) {
            (Value::String(text), Value::String(part)) => {
                let (mut at, mut characters) = (0, 0);
                while !part.is_empty() && at + part.len() <= text.len() {
                    let window = &text[at..text.ceil_char_boundary(at + part.len() + WINDOW)];
                    step(part.len() >> 5); // a search begins by reading what it looks for
                    let place = window.find(&part[..]);
                    let skipped = place.unwrap_or(text.floor_char_boundary(at + window.len() - part.len() + 1) - at);
                    step(skipped >> 5);
                    characters += chars(&text[at..at + skipped]);
                    at += skipped;
                    if place.is_some() {
                        found.push(characters.into());
                        at = text.ceil_char_boundary(at + 1);
                        characters += 1;
                    }
                }
            }
            (Value::Array(_), Value::Array(part)) if part.is_empty() => (),
            (Value::Array(list), Value::Array(part)) => {
                for (at, window) in list.windows(part.len()).enumerate() {
                    step(0);
                    if *window == part[..] {
                        found.push(at.into())
                    }
                }
            }
            (Value::Array(list), _) => {
                for (at, value) in list.iter().enumerate() {
                    if value == other {
                        found.push(at.into())
                    }
                }
            }
            (Value::Null(_), _) => return Ok(Value::default()),
            _ => return Err(Error::index(self.clone(), other.clone())),
        }
        Ok(found.into())
    }
}
