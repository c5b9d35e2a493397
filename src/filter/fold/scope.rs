//! What names mean at a place of the program, and what is known of a term there.

use super::template::Template;
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
    Template(Template<'a>),
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

pub(super) enum Callee<'a> {
    /// A definition of jaq's, or of ours behind it.
    Jaq(Rc<Def<&'a str>>),
    /// A definition of the program, and the variables around it.
    Own(Rc<Def<&'a str>>, Link<Variable<'a>>),
    /// A filter that is an argument, and its place.
    Argument(Rc<Term<'a>>, Place<'a>),
}

/// The last of a list that places share.
pub(super) type Link<T> = Option<Rc<T>>;

pub(super) struct Function<'a> {
    name: &'a str,
    arity: usize,
    pub(super) callee: Callee<'a>,
    pub(super) outer: Link<Function<'a>>,
}

pub(super) struct Variable<'a> {
    name: &'a str,
    new_name: &'a str,
    known: Known<'a>,
    outer: Link<Variable<'a>>,
}

/// Where a term stands.
#[derive(Clone)]
pub(super) struct Place<'a> {
    pub(super) functions: Link<Function<'a>>,
    pub(super) variables: Link<Variable<'a>>,
    pub(super) input: Known<'a>,
    /// How many values are around that are known only at run time, but do not depend on the request.
    pub(super) depth: Depends,
    /// Whether jaq may follow a path through it.
    pub(super) on_path: bool,
}

impl<'a> Place<'a> {
    /// The place of a main program behind these definitions.
    pub(super) fn of_main(definitions: &[Def<&'static str>]) -> Self {
        let place = Place { functions: None, variables: None, input: Known::No(REQUEST), depth: 0, on_path: false };
        definitions.iter().fold(place, |place, definition| {
            let (name, arity) = (definition.name, definition.args.len());
            let body = simplified(definition.body.clone());
            place.with_function(name, arity, Callee::Jaq(Rc::new(Def { body, ..definition.clone() })))
        })
    }
    pub(super) fn with_function(mut self, name: &'a str, arity: usize, callee: Callee<'a>) -> Self {
        self.functions = Some(Rc::new(Function { name, arity, callee, outer: self.functions.take() }));
        self
    }
    pub(super) fn with_variable(mut self, name: &'a str, new_name: &'a str, known: Known<'a>) -> Self {
        self.variables = Some(Rc::new(Variable { name, new_name, known, outer: self.variables.take() }));
        self
    }
    pub(super) fn function(&self, name: &str, arity: usize) -> Option<&Rc<Function<'a>>> {
        let all = std::iter::successors(self.functions.as_ref(), |function| function.outer.as_ref());
        { all }.find(|function| function.name == name && function.arity == arity)
    }
    pub(super) fn variable(&self, name: &str) -> Option<(&'a str, Known<'a>)> {
        let all = std::iter::successors(self.variables.as_ref(), |variable| variable.outer.as_ref());
        { all }.find(|variable| variable.name == name).map(|variable| (variable.new_name, variable.known))
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
