//! The value that filters work on: JSON, where every text is UTF-8, every key is text, and size and depth are known to the meter.

use super::meter::{Held, MAX_DEPTH, MAX_HOPS, NODE, Stop, max_string, stop, tick};
use jaq_json::Num;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

pub(super) type Error = jaq_core::Error<Value>;

/// A JSON value. Clones share what they hold; the meter is charged when something is made and refunded when it is dropped.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// With the number of steps of the path that led here from a value that is there.
    Null(u32),
    Bool(bool),
    Number(Num),
    String(Arc<Text>),
    Array(Arc<List>),
    Object(Arc<Map>),
}

#[derive(Clone, Debug)]
pub(crate) struct Text {
    held: Held,
    text: String,
}

#[derive(Clone, Debug)]
pub(crate) struct List {
    held: Held,
    depth: u32,
    values: Vec<Value>,
}

type Index = indexmap::IndexMap<Arc<Text>, Value, foldhash::fast::RandomState>;

#[derive(Clone, Debug)]
pub(crate) struct Map {
    held: Held,
    depth: u32,
    index: Index,
}

impl Text {
    pub(super) fn new(text: impl Into<String>) -> Arc<Self> {
        let text = text.into();
        if text.len() > max_string() {
            stop(Stop::Memory)
        }
        Arc::new(Text { held: Held::new(NODE + text.len()), text })
    }
    pub(super) fn push_str(&mut self, more: &str) {
        if self.text.len() + more.len() > max_string() {
            stop(Stop::Memory)
        }
        self.held.grow(more.len());
        self.text.push_str(more)
    }
}

impl std::ops::Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        &self.text
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state)
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Text {}

/// Looks a key up without making a [`Text`] of it.
struct Key<'a>(&'a str);

impl Hash for Key<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state)
    }
}

impl indexmap::Equivalent<Arc<Text>> for Key<'_> {
    fn equivalent(&self, key: &Arc<Text>) -> bool {
        self.0 == key.text
    }
}

impl Default for List {
    fn default() -> Self {
        List { held: Held::new(NODE), depth: 1, values: Vec::new() }
    }
}

impl std::ops::Deref for List {
    type Target = [Value];
    fn deref(&self) -> &[Value] {
        &self.values
    }
}

impl List {
    pub(super) fn push(&mut self, value: Value) {
        self.held.grow(NODE);
        self.depth = deeper(self.depth, &value);
        self.values.push(fresh(value))
    }
    /// Takes what stands at `at`, to put something else there.
    pub(super) fn take(&mut self, at: usize) -> Option<Value> {
        self.values.get_mut(at).map(std::mem::take)
    }
    /// Puts `value` at `at`, after nulls where the list is shorter.
    pub(super) fn put(&mut self, at: usize, value: Value) {
        while self.values.len() <= at {
            self.push(Value::default())
        }
        self.depth = deeper(self.depth, &value);
        self.values[at] = fresh(value)
    }
    pub(super) fn remove(&mut self, at: usize) {
        tick(self.values.len() >> 6);
        self.values.remove(at);
        self.held.shrink(NODE)
    }
    /// The elements, and what stays charged for them until it is dropped.
    pub(super) fn into_parts(self) -> (Held, Vec<Value>) {
        (self.held, self.values)
    }
    /// Elements that exist already, at less than one step each.
    pub(super) fn of<'a>(values: impl Iterator<Item = &'a Value>) -> Value {
        let values: Vec<Value> = values.cloned().collect();
        tick(values.len() >> 3);
        let depth = values.iter().fold(1, deeper);
        List { held: Held::new(NODE * (1 + values.len())), depth, values }.into()
    }
}

impl Default for Map {
    fn default() -> Self {
        Map { held: Held::new(2 * NODE), depth: 1, index: Index::default() }
    }
}

impl Map {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(&Key(key))
    }
    pub(super) fn at(&self, place: usize) -> Option<(&Arc<Text>, &Value)> {
        self.index.get_index(place)
    }
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<Text>, &Value)> {
        self.index.iter()
    }
    pub(super) fn put(&mut self, key: Arc<Text>, value: Value) {
        self.depth = deeper(self.depth, &value);
        if self.index.insert(key, fresh(value)).is_none() {
            self.held.grow(2 * NODE)
        }
    }
    /// Takes the value of `key`, to put something else there.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.index.get_mut(&Key(key)).map(std::mem::take)
    }
    pub(super) fn remove(&mut self, key: &str) {
        tick(self.index.len() >> 4);
        if self.index.shift_remove(&Key(key)).is_some() {
            self.held.shrink(2 * NODE)
        }
    }
    /// The pairs, and what stays charged for them until it is dropped.
    pub(super) fn into_parts(self) -> (Held, impl Iterator<Item = (Arc<Text>, Value)>) {
        (self.held, self.index.into_iter())
    }
    /// Charges more for it, where jaq holds something beside it.
    pub(super) fn weigh_down(&mut self, bytes: usize) {
        self.held.grow(bytes)
    }
}

/// The depth of a container of depth `depth` that takes in `child`.
fn deeper(depth: u32, child: &Value) -> u32 {
    let child = match child {
        Value::Array(list) => list.depth,
        Value::Object(map) => map.depth,
        _ => 0,
    };
    if child < MAX_DEPTH { depth.max(child + 1) } else { stop(Stop::Depth) }
}

/// No path goes through what is put into something new.
fn fresh(value: Value) -> Value {
    if let Value::Null(_) = value { Value::default() } else { value }
}

/// Mark of the null that an update is shown where there is nothing. If it comes back, nothing was put there, and nothing is:
/// `{} | del(.a.b)` is `{}`.
const ABSENT: u32 = u32::MAX;

/// The null that a path finds one step behind another null.
pub(super) fn hop(hops: u32) -> Value {
    let hops = if hops == ABSENT { 0 } else { hops };
    if hops < MAX_HOPS { Value::Null(hops + 1) } else { stop(Stop::Depth) }
}

/// Characters of a text; counting takes time.
pub(super) fn chars(text: &str) -> usize {
    tick(text.len() >> 5);
    text.chars().count()
}

/// Integers of 64 bits and floats: what grows beyond becomes a float, as in jq.
pub(super) fn number(number: Num) -> Value {
    Value::Number(match number {
        Num::Int(_) | Num::Float(_) => number,
        big => big + Num::Float(0.0),
    })
}

pub(super) fn float(number: &Num) -> f64 {
    match number {
        Num::Int(integer) => *integer as f64,
        Num::Float(float) => *float,
        Num::BigInt(_) | Num::Dec(_) => f64::NAN, // never made: see `number`
    }
}

impl Value {
    pub(super) fn absent() -> Value {
        Value::Null(ABSENT)
    }
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Value::Null(ABSENT))
    }
    pub(super) fn string(text: impl Into<String>) -> Value {
        Value::String(Text::new(text))
    }
    /// Text from bytes of jaq's: what is no UTF-8 becomes U+FFFD.
    pub(super) fn utf8(bytes: &[u8]) -> Value {
        tick(bytes.len() >> 6);
        Value::string(String::from_utf8_lossy(bytes))
    }
    /// jq's order of types, and the name of this one.
    pub(super) fn kind(&self) -> (u8, &'static str) {
        match self {
            Value::Null(_) => (0, "null"),
            Value::Bool(false) => (1, "boolean"),
            Value::Bool(true) => (2, "boolean"),
            Value::Number(_) => (3, "number"),
            Value::String(_) => (4, "string"),
            Value::Array(_) => (5, "array"),
            Value::Object(_) => (6, "object"),
        }
    }
    /// Where an index points in something of length `len`; it may be behind its end. None: before its start, or not a number.
    pub(super) fn place(&self, len: usize) -> Option<usize> {
        let index = match self {
            Value::Number(Num::Int(index)) => *index,
            Value::Number(number) if float(number).is_nan() => return None,
            Value::Number(number) => float(number).floor() as isize,
            _ => return None,
        };
        if index < 0 { len.checked_sub(index.unsigned_abs()) } else { Some(index as usize) }
    }
}

impl Default for Value {
    fn default() -> Self {
        Value::Null(0)
    }
}

impl From<bool> for Value {
    fn from(boolean: bool) -> Self {
        Value::Bool(boolean)
    }
}

impl From<isize> for Value {
    fn from(integer: isize) -> Self {
        Value::Number(Num::Int(integer))
    }
}

impl From<usize> for Value {
    fn from(integer: usize) -> Self {
        number(Num::from_integral(integer))
    }
}

impl From<f64> for Value {
    fn from(float: f64) -> Self {
        Value::Number(Num::Float(float))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::string(text)
    }
}

impl From<List> for Value {
    fn from(list: List) -> Self {
        Value::Array(Arc::new(list))
    }
}

impl From<Map> for Value {
    fn from(map: Map) -> Self {
        Value::Object(Arc::new(map))
    }
}

/// jaq makes this for slices in paths only (`.[1:2] |= f`).
impl From<jaq_core::val::Range<Value>> for Value {
    fn from(range: jaq_core::val::Range<Value>) -> Self {
        let mut map = Map::default();
        for (key, bound) in [("start", range.start), ("end", range.end)] {
            if let Some(bound) = bound {
                map.put(Text::new(key), bound)
            }
        }
        map.weigh_down(7 * max_string() / MAX_HOPS as usize);
        map.into()
    }
}

impl FromIterator<Value> for Value {
    fn from_iter<I: IntoIterator<Item = Value>>(values: I) -> Self {
        let mut list = List::default();
        values.into_iter().for_each(|value| list.push(value));
        list.into()
    }
}

/// The type and at most eleven characters, as jq's error texts show a value. jaq builds all its messages with this.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.kind().1, self.brief(11))
    }
}
