//! The value type of filters: JSON with UTF-8 strings and string keys, whose size and depth are limited.

use super::meter::{Exceeded, MAX_DEPTH, MAX_NULL_DEPTH, Slice, check_memory, exceed, max_string, step};
use super::number::{calculated, float};
use jaq_json::Num;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

pub(super) type Error = jaq_core::Error<Value>;

/// A JSON value. Clones share what they hold; the meter is asked before something large is made.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// With the number of path steps since the last existing value, or [`MISSING`].
    Null(u32),
    Bool(bool),
    Number(Num),
    String(Arc<Text>),
    Array(Arc<List>),
    Object(Arc<Map>),
}

#[derive(Debug)]
pub(crate) struct Text {
    text: String,
}

#[derive(Debug)]
pub(crate) struct List {
    depth: u32,
    values: Vec<Value>,
}

type Index = indexmap::IndexMap<Arc<Text>, Value, foldhash::fast::RandomState>;

#[derive(Debug)]
pub(crate) struct Map {
    depth: u32,
    index: Index,
    /// What jaq holds in a path.
    _slice: Option<Slice>,
}

/// Bytes of a list's element.
const ELEMENT: usize = size_of::<Value>();
/// Bytes of an object's pair: hash, key and value; and two buckets of the table.
const PAIR: usize = 16 + ELEMENT + 2 * 9;

impl Clone for Text {
    fn clone(&self) -> Self {
        check_memory(self.text.len());
        step(self.text.len() >> 8);
        Text { text: self.text.clone() }
    }
}

impl Clone for List {
    fn clone(&self) -> Self {
        check_memory(ELEMENT * self.values.len());
        List { depth: self.depth, values: copied(self.values.iter()) }
    }
}

impl Clone for Map {
    fn clone(&self) -> Self {
        check_memory(PAIR * self.index.len());
        step(self.index.len() >> 2);
        Map { depth: self.depth, index: self.index.clone(), _slice: self._slice.clone() }
    }
}

impl Text {
    pub(super) fn new(text: impl Into<String>) -> Arc<Self> {
        let text = text.into();
        if text.len() > max_string() {
            exceed(Exceeded::Memory)
        }
        step(text.len() >> 8); // memory that is written takes time
        Arc::new(Text { text })
    }
    pub(super) fn push_str(&mut self, more: &str) {
        if self.text.len() + more.len() > max_string() {
            exceed(Exceeded::Memory)
        }
        step(more.len() >> 8);
        if self.text.capacity() - self.text.len() < more.len() {
            check_memory((2 * self.text.len()).max(self.text.len() + more.len()))
        }
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

/// Looks up a key without allocating a [`Text`].
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
        List { depth: 1, values: Vec::new() }
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
        step(0);
        if self.values.len() == self.values.capacity() {
            check_memory(2 * ELEMENT * self.values.len())
        }
        self.depth = deeper(self.depth, &value);
        self.values.push(stored(value))
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
        self.values[at] = stored(value)
    }
    pub(super) fn remove(&mut self, at: usize) {
        step(self.values.len() >> 6);
        self.values.remove(at);
    }
    pub(super) fn into_values(self) -> Vec<Value> {
        self.values
    }
    /// Elements that exist already, at less than one step each.
    pub(super) fn of<'a>(values: impl Iterator<Item = &'a Value>) -> Value {
        check_memory(ELEMENT * values.size_hint().0);
        let values = copied(values);
        let depth = values.iter().fold(1, deeper);
        List { depth, values }.into()
    }
}

/// Copies of elements, at less than one step each, and with a look at the limits now and then.
fn copied<'a>(values: impl Iterator<Item = &'a Value>) -> Vec<Value> {
    const PIECE: usize = 1 << 14;
    let mut copies = Vec::with_capacity(values.size_hint().0);
    for value in values {
        copies.push(value.clone());
        if copies.len() % PIECE == 0 {
            step(PIECE >> 3)
        }
    }
    step((copies.len() % PIECE) >> 3);
    copies
}

/// Charges for reading a key that is longer than keys are.
fn step_of_key(key: &str) {
    if key.len() > 256 {
        step(key.len() >> 8)
    }
}

impl Default for Map {
    fn default() -> Self {
        Map { depth: 1, index: Index::default(), _slice: None }
    }
}

impl Map {
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        step_of_key(key);
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
        step(0);
        step_of_key(&key);
        if self.index.len() == self.index.capacity() {
            check_memory(2 * PAIR * self.index.len())
        }
        self.index.insert(key, stored(value));
    }
    /// Takes the value of `key`, to put something else there.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        step_of_key(key);
        self.index.get_mut(&Key(key)).map(std::mem::take)
    }
    pub(super) fn remove(&mut self, key: &str) {
        step(self.index.len() >> 4);
        step_of_key(key);
        self.index.shift_remove(&Key(key));
    }
    pub(super) fn into_pairs(self) -> impl Iterator<Item = (Arc<Text>, Value)> {
        self.index.into_iter()
    }
}

/// The depth of a container of depth `depth` that takes in `child`.
fn deeper(depth: u32, child: &Value) -> u32 {
    let child = child.depth();
    if child < MAX_DEPTH { depth.max(child + 1) } else { exceed(Exceeded::Depth) }
}

/// The value as a container stores it: without a null's depth.
fn stored(value: Value) -> Value {
    if let Value::Null(_) = value { Value::default() } else { value }
}

/// Marks the null that stands for a missing value during an update. If the update returns it, nothing is stored: `{} | del(.a.b)` is `{}`.
const MISSING: u32 = u32::MAX;

/// The null that a path finds one step below another null.
pub(super) fn null_behind(depth: u32) -> Value {
    let depth = if depth == MISSING { 0 } else { depth };
    if depth < MAX_NULL_DEPTH { Value::Null(depth + 1) } else { exceed(Exceeded::Depth) }
}

/// Number of characters; counting costs steps.
pub(super) fn chars(text: &str) -> usize {
    step(text.len() >> 5);
    text.chars().count()
}

impl Value {
    pub(super) fn missing() -> Value {
        Value::Null(MISSING)
    }
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Value::Null(MISSING))
    }
    pub(super) fn string(text: impl Into<String>) -> Value {
        Value::String(Text::new(text))
    }
    /// Text from bytes of jaq's: invalid UTF-8 becomes U+FFFD.
    pub(super) fn utf8(bytes: &[u8]) -> Value {
        step(bytes.len() >> 6);
        Value::string(String::from_utf8_lossy(bytes))
    }
    /// The value as a container stores it: without a null's depth.
    pub(super) fn into_stored(self) -> Value {
        stored(self)
    }
    /// Arrays and objects within each other.
    pub(super) fn depth(&self) -> u32 {
        match self {
            Value::Array(list) => list.depth,
            Value::Object(map) => map.depth,
            _ => 0,
        }
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
        Value::Number(calculated(Num::from_integral(integer)))
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
        let mut map = Map { _slice: Some(Slice::new()), ..Map::default() };
        for (key, bound) in [("start", range.start), ("end", range.end)] {
            if let Some(bound) = bound {
                map.put(Text::new(key), bound)
            }
        }
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
