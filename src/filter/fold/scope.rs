//! What names mean at a place of the program, and what is known of a term there.

use crate::filter::syntax::{Term, simplified};
use jaq_core::load::parse::Def;
use std::rc::Rc;

/// What a term depends on, as a number: the request or chance; a value that is only known while a term around it runs, at this depth of
/// such values (1 is the outermost); or nothing but constants. Of two terms together, the least counts.
pub(super) type Depends = usize;
pub(super) const REQUEST: Depends = 0;
pub(super) const NOTHING: Depends = usize::MAX;

#[derive(Clone, Copy)]
pub(super) struct Facts {
    pub(super) depends: Depends,
    /// It gives one output or an error, whatever its input, and is pure.
    pub(super) is_single: bool,
    /// It writes nothing to the log.
    pub(super) is_pure: bool,
}

impl Facts {
    pub(super) const CONSTANT: Facts = Facts { depends: NOTHING, is_single: true, is_pure: true };
    /// Of what is not understood.
    pub(super) const UNKNOWN: Facts = Facts { depends: REQUEST, is_single: false, is_pure: false };

    pub(super) fn of(parts: &[Part<'_>]) -> Facts {
        parts.iter().fold(Facts::CONSTANT, |facts, part| facts.and(part.facts))
    }
    pub(super) fn and(self, other: Facts) -> Facts {
        let is_single = self.is_single && other.is_single;
        Facts { depends: self.depends.min(other.depends), is_single, is_pure: self.is_pure && other.is_pure }
    }
    pub(super) fn on(self, depends: Depends) -> Facts {
        Facts { depends: self.depends.min(depends), ..self }
    }
    /// Outside of the term that gives the value of this depth.
    pub(super) fn outside(self, depth: Depends) -> Facts {
        let is_inside = depth != REQUEST && self.depends >= depth;
        Facts { depends: if is_inside { NOTHING } else { self.depends }, ..self }
    }
}

pub(super) enum What<'a> {
    /// The variable of this name.
    Constant(&'a str),
    Term(Term<'a>),
}

/// A term after folding.
pub(super) struct Part<'a> {
    pub(super) what: What<'a>,
    pub(super) facts: Facts,
    /// The constant that is its input.
    pub(super) input: Option<&'a str>,
    pub(super) on_path: bool,
}

impl<'a> Part<'a> {
    pub(super) fn new(what: What<'a>, facts: Facts, place: &Place<'a>) -> Self {
        let input = if let Known::Constant(input) = place.input { Some(input) } else { None };
        Part { what, facts, input, on_path: place.on_path }
    }
}

/// The value of an input or of a variable.
#[derive(Clone, Copy)]
pub(super) enum Known<'a> {
    Constant(&'a str),
    No(Depends),
}

impl Known<'_> {
    pub(super) fn depends(self) -> Depends {
        if let Known::No(depends) = self { depends } else { NOTHING }
    }
}

/// What a name means; for a filter that is an argument, where it was written.
pub(super) enum Meaning<'a> {
    /// A definition of jaq's, or of ours behind it.
    Jaq(Rc<Def<&'a str>>),
    /// A definition of the program.
    Own(Rc<Def<&'a str>>),
    Argument(Rc<Term<'a>>, Names<'a>),
    /// A variable, and its new name.
    Variable(&'a str, Known<'a>),
}

/// The last of a list that places share.
pub(super) type Names<'a> = Option<Rc<Name<'a>>>;

pub(super) struct Name<'a> {
    name: &'a str,
    arity: usize,
    pub(super) meaning: Meaning<'a>,
    pub(super) outer: Names<'a>,
}

/// Where a term stands.
#[derive(Clone)]
pub(super) struct Place<'a> {
    pub(super) names: Names<'a>,
    pub(super) input: Known<'a>,
    /// How many values are around that are known only at run time, but do not depend on the request.
    pub(super) depth: Depends,
    /// Whether jaq may follow a path through it.
    pub(super) on_path: bool,
}

impl<'a> Place<'a> {
    /// The place of a main program behind these definitions.
    pub(super) fn of_main(definitions: &[Def<&'static str>]) -> Self {
        let place = Place { names: None, input: Known::No(REQUEST), depth: 0, on_path: false };
        definitions.iter().fold(place, |place, definition| {
            let (name, arity) = (definition.name, definition.args.len());
            let body = simplified(definition.body.clone());
            place.with(name, arity, Meaning::Jaq(Rc::new(Def { body, ..definition.clone() })))
        })
    }
    pub(super) fn with(mut self, name: &'a str, arity: usize, meaning: Meaning<'a>) -> Self {
        self.names = Some(Rc::new(Name { name, arity, meaning, outer: self.names.take() }));
        self
    }
    pub(super) fn with_variable(self, name: &'a str, new_name: &'a str, known: Known<'a>) -> Self {
        self.with(name, 0, Meaning::Variable(new_name, known))
    }
    pub(super) fn find(&self, name: &str, arity: usize) -> Option<&Rc<Name<'a>>> {
        let all = std::iter::successors(self.names.as_ref(), |one| one.outer.as_ref());
        { all }.find(|one| one.name == name && one.arity == arity)
    }
    pub(super) fn variable(&self, name: &str) -> Option<(&'a str, Known<'a>)> {
        let Meaning::Variable(new_name, known) = self.find(name, 0)?.meaning else { return None };
        Some((new_name, known))
    }
    pub(super) fn on(&self, input: Known<'a>) -> Self {
        Place { input, ..self.clone() }
    }
    pub(super) fn on_path(&self, on_path: bool) -> Self {
        Place { on_path, ..self.clone() }
    }
    /// Within a term whose value is not known and depends so; with the depth of that value.
    pub(super) fn within(&self, depends: Depends) -> (Self, Depends) {
        let depth = if depends == REQUEST { REQUEST } else { self.depth + 1 };
        (Place { depth: self.depth.max(depth), ..self.clone() }, depth)
    }
}
