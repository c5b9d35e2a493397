//! The outputs of a folded program as layouts and what fills them.

use super::layout::{Layout, Template};
use super::syntax::{Term, array, elements, parts, pipe, plain};
use super::value::{Text, Value};
use jaq_core::load::Arena;
use jaq_core::load::parse::BinaryOp;
use std::collections::HashMap;

/// Marks an object or array whose members give one output each, in the order of the source, whatever they are.
pub(super) const TEMPLATE: &str = "__template";

/// Changes programs so that each output is `[LAYOUT, VALUE, ...]`, or `[OUTPUT]` where there is no layout.
pub(super) struct Outputs<'a, 'f> {
    pub(super) arena: &'a Arena,
    /// Of the variables that are constant.
    pub(super) constants: &'f HashMap<&'a str, Value>,
    /// Whose places in an output are wanted, as paths of keys.
    pub(super) members: &'f [&'f [&'f str]],
    pub(super) layouts: Vec<Layout>,
}

impl<'a> Outputs<'a, '_> {
    pub(super) fn laid_out(&mut self, term: Term<'a>) -> Term<'a> {
        match term {
            Term::BinOp(left, BinaryOp::Pipe(pattern), right) => {
                pipe(spelled_out(*left), pattern, self.laid_out(*right))
            }
            Term::IfThenElse(cases, other) => {
                let case = |(condition, then)| (spelled_out(condition), self.laid_out(then));
                let cases = cases.into_iter().map(case).collect();
                Term::IfThenElse(cases, other.map(|other| self.laid_out(*other).into()))
            }
            Term::Call(TEMPLATE, _)
                if let Some((layout, holes)) = Layout::new(self.template(&term), self.members)
                    && !holes.is_empty() =>
            {
                let number = Term::Num(self.arena.alloc(self.layouts.len().to_string()));
                self.layouts.push(layout);
                array([number].into_iter().chain(holes.into_iter().map(spelled_out)).collect())
            }
            term => pipe(spelled_out(term), None, array(vec![Term::Id])),
        }
    }

    fn template(&self, term: &Term<'a>) -> Template<Term<'a>> {
        match term {
            Term::Call(TEMPLATE, inner) => match &inner[0] {
                Term::Obj(pairs) => {
                    let pair =
                        |(key, value): &(_, Option<_>)| Some((Text::new(plain(key)?), self.template(value.as_ref()?)));
                    Template::Object(pairs.iter().filter_map(pair).collect())
                }
                Term::Arr(Some(inner)) => {
                    let elements = elements(Term::clone(inner));
                    Template::Array(elements.iter().map(|element| self.template(element)).collect())
                }
                other => self.template(other),
            },
            Term::Var(name) if let Some(value) = self.constants.get(name) => Template::Constant(value.clone()),
            Term::Num(digits) if let Ok(integer) = digits.parse::<isize>() => Template::Constant(integer.into()),
            term => match plain(term) {
                Some(text) => Template::Constant(Value::string(text)),
                None => Template::Hole(term.clone()),
            },
        }
    }
}

/// The term without marks.
fn spelled_out(mut term: Term<'_>) -> Term<'_> {
    if let Term::Call(TEMPLATE, inner) = &mut term {
        term = inner.remove(0)
    }
    parts(&mut term).into_iter().for_each(|part| *part = spelled_out(std::mem::take(part)));
    term
}
