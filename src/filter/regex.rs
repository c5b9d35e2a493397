//! OWNS the regex engine: caches compiled regexes for all runs, and bounds the cost of each search to a fraction of a second.

use super::data::Data;
use super::meter::{Exceeded, check_memory, check_steps, exceed, look_at_clocks, step};
use super::value::{Error, List, Map, Text, Value, chars};
use jaq_core::native::bome;
use jaq_core::{Cv, Exn, ValR, ValT, ValXs};
use regex_bites::bytes::{Captures, Regex, RegexBuilder};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex};

/// Flags of a regex: each of the eight once, and then some.
const MAX_FLAGS: usize = 16;
/// Bytes of a regex's source.
const MAX_SOURCE: usize = 4096;
/// Bytes of the regexes in the cache, with the tables of their searches. Ordinary filters have a dozen of some kilobytes; only filters that
/// build regexes from bodies have more.
const MAX_CACHED: usize = 1 << 20;
/// Bytes of one regex in the cache, and of one at all.
const MAX_CACHED_WEIGHT: usize = 1 << 16;
const MAX_WEIGHT: usize = 1 << 20;
/// Size limits to try, as powers of two: the smallest that suffices shows how large the regex is.
const SIZE_BITS: Range<u32> = 9..18;
/// A compiled regex takes at least this many bytes per state.
const BYTES_PER_STATE: usize = 32;
/// State visits per step of the meter.
const VISITS_PER_STEP_LOG: usize = 5;
/// Steps that one search may take in the worst case: a tenth of a second, for a search cannot be interrupted. With a short regex that is a text of
/// half a megabyte.
const MAX_SEARCH: usize = 750_000;
/// Steps of a search that are not worth a look at the clock: some microseconds.
const SHORT_SEARCH: usize = 64;

struct CompiledRegex {
    regex: Regex,
    /// State visits per byte of the text, at most.
    cost: usize,
}

#[derive(Default)]
struct Cache {
    regexes: HashMap<String, Arc<CompiledRegex>>,
    weight: usize,
}

static CACHE: LazyLock<Mutex<Cache>> = LazyLock::new(Mutex::default);

fn cache() -> std::sync::MutexGuard<'static, Cache> {
    CACHE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Whether `source` compiles.
///
/// Errors: why not.
pub(super) fn check(source: &str, flags: &str) -> Result<(), String> {
    compile(source, flags).map(|_| ())
}

/// Compiles `source`, or takes it from the cache.
fn compile(source: &str, flags: &str) -> Result<Arc<CompiledRegex>, String> {
    if flags.len() > MAX_FLAGS {
        return Err(format!("more than {MAX_FLAGS} regex flags"));
    }
    if let Some(unknown) = flags.chars().find(|flag| !"gnimslxp".contains(*flag)) {
        return Err(format!("{unknown:?} is not a regex flag"));
    }
    if source.len() > MAX_SOURCE {
        return Err(format!("regex longer than {MAX_SOURCE} bytes"));
    }
    let key = format!("{flags}/{source}");
    if let Some(compiled) = cache().regexes.get(&key) {
        return Ok(compiled.clone());
    }
    step(16 * source.len());
    let groups = 1 + source.matches('(').count();
    for size in SIZE_BITS.map(|bits| 1usize << bits) {
        let states = size / BYTES_PER_STATE;
        // with the two tables of capture positions that a search needs, and the regex then keeps
        let weight = size + states * groups * 32 + key.len();
        if weight > MAX_WEIGHT {
            break;
        }
        check_memory(weight);
        match build(source, flags, size) {
            Ok(regex) => {
                let compiled = Arc::new(CompiledRegex { regex, cost: states * (2 + groups) });
                if weight <= MAX_CACHED_WEIGHT {
                    let mut cache = cache();
                    if cache.weight + weight > MAX_CACHED {
                        *cache = Cache::default()
                    }
                    cache.weight += weight;
                    cache.regexes.insert(key, compiled.clone());
                }
                return Ok(compiled);
            }
            Err(error) if error.to_string().contains("size limit") => step(states),
            Err(error) => return Err(format!("invalid regex: {error}")),
        }
    }
    Err("regex too large".into())
}

fn build(source: &str, flags: &str, size: usize) -> Result<Regex, regex_bites::Error> {
    let has = |flag| flags.contains(flag);
    RegexBuilder::new(source)
        .case_insensitive(has('i'))
        .multi_line(has('m') || has('p'))
        .dot_matches_new_line(has('s') || has('p'))
        .swap_greed(has('l'))
        .ignore_whitespace(has('x'))
        .size_limit(size)
        .build()
}

impl CompiledRegex {
    fn search<'t>(&self, text: &'t str, at: usize) -> Option<Captures<'t>> {
        let steps = |bytes: usize| bytes.saturating_mul(self.cost) >> VISITS_PER_STEP_LOG;
        let most = steps((text.len() + 1).checked_sub(at)?);
        if most > MAX_SEARCH {
            exceed(Exceeded::Steps)
        }
        if most <= SHORT_SEARCH {
            step(most);
            return self.regex.captures_at(text.as_bytes(), at);
        }
        // the engine may read all of the text, however short the match is: then only the clock knows
        check_steps(most);
        look_at_clocks();
        let found = self.regex.captures_at(text.as_bytes(), at);
        look_at_clocks();
        let read = found.as_ref().and_then(|captures| captures.get(0)).map(|whole| whole.end() - at);
        step(read.map_or(most, steps));
        found
    }
}

/// The text before a match, and the match with its groups (none at the end of the text).
type Piece = (Range<usize>, Vec<Option<Range<usize>>>);

struct Pieces {
    text: Arc<Text>,
    compiled: Arc<CompiledRegex>,
    global: bool,
    skip_empty: bool,
    /// Where the next search starts; beyond the text: nowhere.
    at: usize,
    last_end: Option<usize>,
    done: bool,
}

impl Pieces {
    /// From the arguments `(re; flags)` and the input.
    fn new(cv: &mut Cv<'_, Data>) -> Result<Self, Error> {
        let (flags, re) = (cv.0.pop_var(), cv.0.pop_var());
        // jq also takes [re, flags] for re
        let (re, flags) = match &re {
            Value::Array(both) if !both.is_empty() && both.len() <= 2 => {
                (both[0].clone(), both.get(1).cloned().unwrap_or_default())
            }
            _ => (re, flags),
        };
        let flags = if let Value::Null(_) = flags { Value::string("") } else { flags };
        let (Value::String(text), Value::String(source), Value::String(flags)) = (&cv.1, &re, &flags) else {
            return Err(Error::str(format_args!("cannot match {} with {re} and flags {flags}", cv.1)));
        };
        Ok(Pieces {
            text: text.clone(),
            compiled: compile(source, flags).map_err(Error::str)?,
            global: flags.contains('g'),
            skip_empty: flags.contains('n'),
            at: 0,
            last_end: None,
            done: false,
        })
    }
}

impl Iterator for Pieces {
    type Item = Piece;
    fn next(&mut self) -> Option<Piece> {
        while !self.done {
            let before = self.last_end.unwrap_or(0);
            let captures = self.compiled.search(&self.text, self.at);
            let Some((captures, whole)) = captures.and_then(|c| c.get(0).map(|m| m.range()).map(|m| (c, m))) else {
                self.done = true;
                return Some((before..self.text.len(), Vec::new()));
            };
            self.at = whole.end;
            if whole.is_empty() {
                let at_end = whole.end >= self.text.len();
                self.at = self.text.ceil_char_boundary(whole.end + 1) + usize::from(at_end);
                if self.skip_empty || self.last_end == Some(whole.end) {
                    continue;
                }
            }
            if !self.global {
                self.at = usize::MAX
            }
            self.last_end = Some(whole.end);
            let groups = captures.iter().map(|group| group.map(|group| group.range())).collect();
            return Some((before..whole.start, groups));
        }
        None
    }
}

/// jaq's `matches`, `split_` and `split_matches`: all texts between matches, all matches, or both in turn.
pub(super) fn collected(gaps: bool, matches: bool, mut cv: Cv<'_, Data>) -> ValR<Value> {
    let pieces = Pieces::new(&mut cv)?;
    let (text, compiled) = (pieces.text.clone(), pieces.compiled.clone());
    let mut all = List::default();
    let (mut at, mut offset) = (0, 0); // the same place, in bytes and in characters
    for (gap, groups) in pieces {
        if gaps {
            all.push(Value::string(&text[gap]))
        }
        let Some(Some(whole)) = groups.first().cloned() else { break };
        offset += chars(&text[at..whole.start]);
        at = whole.start;
        if matches {
            let mut list = List::default();
            for (number, (group, name)) in groups.into_iter().zip(compiled.regex.capture_names()).enumerate() {
                let mut map = Map::default();
                match group {
                    Some(group) => {
                        let before = chars(&text[at.min(group.start)..group.start]);
                        map.put(Text::new("offset"), (offset + before).into());
                        map.put(Text::new("length"), chars(&text[group.clone()]).into());
                        map.put(Text::new("string"), Value::string(&text[group]));
                    }
                    None => {
                        map.put(Text::new("offset"), (-1isize).into());
                        map.put(Text::new("length"), 0usize.into());
                        map.put(Text::new("string"), Value::default());
                    }
                }
                if number > 0 {
                    map.put(Text::new("name"), name.map_or(Value::default(), Value::string))
                }
                list.push(map.into())
            }
            all.push(list.into())
        }
    }
    Ok(all.into())
}

/// `_test`: whether there is a match.
pub(super) fn test(mut cv: Cv<'_, Data>) -> ValR<Value> {
    let mut pieces = Pieces::new(&mut cv)?;
    Ok(pieces.any(|(_, groups)| !groups.is_empty()).into())
}

/// `_parts`, for `sub`: text between matches, and for each match an object of its named groups. One at a time, so that `sub` holds none.
pub(super) fn parts<'a>(mut cv: Cv<'a, Data>) -> ValXs<'a, Value> {
    let pieces = match Pieces::new(&mut cv) {
        Ok(pieces) => pieces,
        Err(error) => return bome(Err(error)),
    };
    let (text, compiled) = (pieces.text.clone(), pieces.compiled.clone());
    Box::new(pieces.flat_map(move |(gap, groups)| {
        let value =
            |group: &Option<Range<usize>>| group.clone().map_or(Value::default(), |at| Value::string(&text[at]));
        let named = compiled.regex.capture_names().zip(&groups);
        let named = named.filter_map(|(name, group)| Some((Value::string(name?), value(group))));
        let found = (!groups.is_empty()).then(|| Value::from_map(named).map_err(Exn::from));
        [Ok(Value::string(&text[gap]))].into_iter().chain(found)
    }))
}
