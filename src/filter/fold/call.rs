//! Calls: definitions are put in place, natives are judged by the tables beside them.

use super::Folder;
use super::scope::{Facts, Known, Meaning, NOTHING, Names, Part, Place, REQUEST, What};
use crate::filter::natives::{IMPURE, MANY, RUN_FILTERS};
use crate::filter::syntax::{Term, each};
use jaq_core::load::parse::{Def, Pattern};
use std::rc::Rc;

impl<'a> Folder<'a> {
    pub(super) fn call(&mut self, name: &'a str, args: Vec<Term<'a>>, place: &Place<'a>) -> Option<Part<'a>> {
        let Some(found) = place.find(name, args.len()).cloned() else { return self.native(name, args, place) };
        match &found.meaning {
            Meaning::Argument(term, names) => {
                self.walk(Term::clone(term), &Place { names: names.clone(), ..place.clone() })
            }
            Meaning::Own(definition) => self.in_place(definition, &found.outer, args, place),
            Meaning::Jaq(definition) if !place.on_path && self.may_move(definition, &found.outer) => {
                self.in_place(definition, &found.outer, args, place)
            }
            Meaning::Jaq(_) | Meaning::Variable(..) => self.opaque(name, args, place),
        }
    }

    /// The body of a definition, where it is called. `outer`: what names mean in it, except its parameters.
    fn in_place(
        &mut self,
        definition: &Def<&'a str>,
        outer: &Names<'a>,
        args: Vec<Term<'a>>,
        place: &Place<'a>,
    ) -> Option<Part<'a>> {
        let mut inner = Place { names: outer.clone(), ..place.clone() };
        let mut bindings = Vec::new();
        for (parameter, arg) in definition.args.iter().zip(args) {
            if !parameter.starts_with('$') {
                inner = inner.with(parameter, 0, Meaning::Argument(Rc::new(arg), place.names.clone()));
                continue;
            }
            let value = self.walk(arg, &place.on_path(false))?;
            let value = self.settle(value);
            inner = match &value.what {
                What::Constant(name) => inner.with_variable(parameter, name, Known::Constant(name)),
                What::Term(Term::Var(name)) => inner.with_variable(parameter, name, Known::No(value.facts.depends)),
                _ => {
                    let (inner, depth) = inner.within(value.facts.depends);
                    let name = self.new_name("$__v");
                    bindings.push((value, name, depth));
                    inner.with_variable(parameter, name, Known::No(depth))
                }
            }
        }
        let mut body = self.walk(definition.body.clone(), &inner)?;
        for (value, name, depth) in bindings.into_iter().rev() {
            body = self.bind(value, Pattern::Var(name), body, depth, place)
        }
        Some(body)
    }

    /// Whether a definition of jaq's is not recursive, and the names in its body mean the same to the program.
    fn may_move(&self, definition: &Def<&'a str>, outer: &Names<'a>) -> bool {
        let there = Place { names: outer.clone(), ..self.main.clone() };
        let mut may_move = true;
        each(&mut definition.body.clone(), &mut |term| {
            let (name, arity) = match term {
                Term::Call(name, args) => (*name, args.len()),
                Term::Def(..) => return may_move = false, // recursive, all of them
                _ => return,
            };
            let at = |place: &Place<'a>| place.find(name, arity).map(Rc::as_ptr);
            may_move &= at(&self.main) == at(&there) && (name, arity) != (definition.name, definition.args.len())
        });
        may_move
    }

    /// A call of something that is not understood.
    fn opaque(&mut self, name: &'a str, args: Vec<Term<'a>>, place: &Place<'a>) -> Option<Part<'a>> {
        let there = place.on(Known::No(REQUEST)).on_path(true);
        let mut call = Term::Call(name, args);
        let parts = self.walk_parts(&mut call, &there)?;
        Some(self.compound(call, parts, Facts::UNKNOWN, place))
    }

    fn native(&mut self, name: &'a str, args: Vec<Term<'a>>, place: &Place<'a>) -> Option<Part<'a>> {
        if IMPURE.contains(&name) {
            return self.opaque(name, args, place);
        }
        let input = if name == "env" { NOTHING } else { place.input.depends() };
        let runs_filters = RUN_FILTERS.contains(&name);
        let (mut there, mut depth) = (place.clone(), NOTHING);
        if runs_filters {
            (there, depth) = place.within(input);
            there = there.on(Known::No(depth));
            there.on_path |= name.starts_with("path")
        }
        let mut call = Term::Call(name, args);
        let parts = self.walk_parts(&mut call, &there)?;
        let mut facts = Facts::of(&parts).outside(depth).on(input);
        facts.is_single = !MANY.contains(&name) && if runs_filters { facts.is_pure } else { facts.is_single };
        Some(self.compound(call, parts, facts, place))
    }
}
