//! Text of an output of which only some values change: the rest is JSON already. A program after partial evaluation gives such values.

use super::json::{Form, Member, Output, Unwritable, quote};
use super::meter::{Exceeded, MAX_DEPTH, exceed, step};
use super::value::{Text, Value};
use std::sync::Arc;

/// Arrays and objects that a layout has within each other; written filters have a dozen.
const MAX_LEVELS: usize = 100;

/// An output: what is the same for all requests, and what they compute.
#[derive(Clone)]
pub(super) enum Template<T> {
    Constant(Value),
    Hole(T),
    Object(Vec<(Arc<Text>, Template<T>)>),
    Array(Vec<Template<T>>),
}

/// The text around the values.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// One more than there are values.
    pieces: Vec<Vec<u8>>,
    holes: Vec<Hole>,
    /// Start, start of the value, and end of each member whose place is wanted.
    members: Vec<Option<[Position; 3]>>,
}

#[derive(Debug)]
struct Hole {
    /// Arrays and objects around it.
    depth: usize,
    /// Keys around it on the way to these members.
    level: usize,
    members: Vec<usize>,
}

/// A place behind the start of a piece.
#[derive(Clone, Copy, Debug)]
struct Position {
    piece: usize,
    offset: usize,
}

impl Layout {
    /// The layout of a template, and what fills its holes, in order. `members`: whose places are wanted, as paths of keys. None: it nests
    /// too deep, or has a number that JSON cannot write.
    pub(super) fn new<T>(template: Template<T>, members: &[&[&str]]) -> Option<(Self, Vec<T>)> {
        let mut layout = Layout { pieces: vec![Vec::new()], members: vec![None; members.len()], ..Layout::default() };
        let mut holes = Vec::new();
        layout.add(template, 0, 0, &Vec::from_iter(0..members.len()), members, &mut holes)?;
        Some((layout, holes))
    }

    /// With `_` in place of each value.
    #[cfg(test)]
    pub(super) fn shown(&self) -> String {
        String::from_utf8(self.pieces.join(&b'_')).unwrap()
    }

    fn piece(&mut self) -> &mut Vec<u8> {
        self.pieces.last_mut().expect("there is a piece")
    }

    fn position(&self) -> Position {
        Position { piece: self.pieces.len() - 1, offset: self.pieces.last().map_or(0, Vec::len) }
    }

    /// `level`: keys around the template on the way to the members `near`.
    fn add<T>(
        &mut self,
        template: Template<T>,
        depth: usize,
        level: usize,
        near: &[usize],
        members: &[&[&str]],
        holes: &mut Vec<T>,
    ) -> Option<()> {
        let pairs = match template {
            Template::Constant(Value::Object(map)) if !near.is_empty() => {
                map.iter().map(|(key, value)| (key.clone(), Template::Constant(value.clone()))).collect()
            }
            Template::Constant(value) => {
                self.piece().extend(value.to_strict_json(usize::MAX).ok()?);
                return Some(());
            }
            Template::Hole(hole) => {
                holes.push(hole);
                self.holes.push(Hole { depth, level, members: near.to_vec() });
                self.pieces.push(Vec::new());
                return Some(());
            }
            Template::Array(elements) => {
                self.piece().push(b'[');
                for (number, element) in elements.into_iter().enumerate() {
                    if number > 0 {
                        self.piece().push(b',')
                    }
                    self.add(element, depth + 1, level, &[], members, holes)?
                }
                self.piece().push(b']');
                return Some(());
            }
            Template::Object(pairs) => pairs,
        };
        if depth > MAX_LEVELS {
            return None;
        }
        self.piece().push(b'{');
        for (number, (key, value)) in pairs.into_iter().enumerate() {
            if number > 0 {
                self.piece().push(b',')
            }
            let start = self.position();
            quote(&key, self.piece(), usize::MAX);
            self.piece().push(b':');
            let value_start = self.position();
            let near: Vec<_> = near.iter().copied().filter(|one| members[*one].get(level) == Some(&&key[..])).collect();
            let beyond: Vec<_> = near.iter().copied().filter(|one| members[*one].len() > level + 1).collect();
            self.add(value, depth + 1, level + 1, &beyond, members, holes)?;
            if let Some(member) = near.iter().find(|one| members[**one].len() == level + 1) {
                self.members[*member] = Some([start, value_start, self.position()])
            }
        }
        self.piece().push(b'}');
        Some(())
    }

    /// The output with these values, of at most `max` bytes.
    pub(super) fn fill(&self, values: &[Value], max: usize, members: &[&[&str]]) -> Result<Output, Unwritable> {
        let length: usize = self.pieces.iter().map(Vec::len).sum();
        let mut output = Output::with_capacity((length + 512).min(max), members);
        let form = Form { max, strict: true, sorted: false };
        let mut starts = Vec::with_capacity(self.pieces.len());
        for (number, piece) in self.pieces.iter().enumerate() {
            starts.push(output.json.len());
            step(piece.len() >> 6);
            output.json.extend_from_slice(piece);
            let (Some(hole), Some(value)) = (self.holes.get(number), values.get(number)) else { break };
            if hole.depth + value.depth() as usize > MAX_DEPTH as usize {
                exceed(Exceeded::Depth)
            }
            match hole.members.is_empty() {
                true => value.write(&mut output.json, form)?,
                false => {
                    value.write_and_find(&mut output, form, hole.level, &|one| hole.members.contains(&one), members)?
                }
            }
        }
        if output.json.len() > max {
            return Err(Unwritable::TooLong);
        }
        let at = |position: Position| starts[position.piece] + position.offset;
        for (found, member) in output.found.iter_mut().zip(&self.members) {
            if let Some([start, value, end]) = *member {
                *found = Some(Member { whole: at(start)..at(end), value: at(value)..at(end) })
            }
        }
        Ok(output)
    }
}
