//! Calls: definitions are put in place, natives are judged by the tables below.

use super::Folder;
use super::scope::{Callee, Facts, Function, Known, Link, NOTHING, Part, Place, REQUEST, Variable, What};
use crate::filter::syntax::{Term, each};
use jaq_core::load::parse::{Def, Pattern};
use std::rc::Rc;

/// Natives that depend on more than input and arguments, or write to the log.
const IMPURE: [&str; 7] = ["cuid2", "debug_empty", "halt", "localtime", "now", "stderr_empty", "strflocaltime"];
/// Natives that may give none or several outputs.
const MANY: [&str; 10] =
    ["_parts", "first", "last", "limit", "max_by_or_empty", "min_by_or_empty", "path", "path_value", "range", "skip"];
/// Natives that run filters, on values that come from their input.
const RUN_FILTERS: [&str; 10] = [
    "first",
    "group_by",
    "last",
    "limit",
    "max_by_or_empty",
    "min_by_or_empty",
    "path",
    "path_value",
    "skip",
    "sort_by",
];

impl<'a> Folder<'a> {
    pub(super) fn call(&mut self, name: &'a str, args: Vec<Term<'a>>, place: &Place<'a>) -> Option<Part<'a>> {
        let Some(function) = place.function(name, args.len()).cloned() else { return self.native(name, args, place) };
        match &function.callee {
            Callee::Argument(term, there) => {
                let (functions, variables) = (there.functions.clone(), there.variables.clone());
                self.walk(Term::clone(term), &Place { functions, variables, ..place.clone() })
            }
            Callee::Own(definition, variables) => self.in_place(definition, &function, variables.clone(), args, place),
            Callee::Jaq(definition) if !place.on_path && self.may_move(definition, &function) => {
                self.in_place(definition, &function, None, args, place)
            }
            Callee::Jaq(_) => self.opaque(name, args, place),
        }
    }

    /// The body of a definition, where it is called.
    fn in_place(
        &mut self,
        definition: &Def<&'a str>,
        function: &Function<'a>,
        variables: Link<Variable<'a>>,
        args: Vec<Term<'a>>,
        place: &Place<'a>,
    ) -> Option<Part<'a>> {
        let mut inner = Place { functions: function.outer.clone(), variables, ..place.clone() };
        let mut bindings = Vec::new();
        for (parameter, arg) in definition.args.iter().zip(args) {
            if !parameter.starts_with('$') {
                inner = inner.with_function(parameter, 0, Callee::Argument(Rc::new(arg), place.clone()));
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
    fn may_move(&self, definition: &Def<&'a str>, function: &Function<'a>) -> bool {
        let there = Place { functions: function.outer.clone(), ..self.main.clone() };
        let mut may_move = true;
        each(&mut definition.body.clone(), &mut |term| {
            let (name, arity) = match term {
                Term::Call(name, args) => (*name, args.len()),
                Term::Def(..) => return may_move = false, // recursive, all of them
                _ => return,
            };
            let at = |place: &Place<'a>| place.function(name, arity).map(Rc::as_ptr);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::natives;

    #[test]
    fn all_natives_are_judged() {
        let mut names: Vec<_> = natives::all().map(|(name, args, _)| format!("{name}/{}", args.len())).collect();
        names.sort();
        names.dedup();
        for name in IMPURE.iter().chain(&MANY).chain(&RUN_FILTERS) {
            assert!(names.iter().any(|known| known.split('/').next() == Some(name)), "there is no native {name}");
        }
        for (name, args, _) in natives::all() {
            let runs_filters = args.iter().any(|arg| matches!(arg, jaq_core::Bind::Fun(_)));
            assert!(!runs_filters || RUN_FILTERS.contains(&name), "{name} runs filters");
        }
        // a new one is added here after it was looked up whether it belongs into a table above
        assert_eq!(names.join(" "), include_str!("natives.txt").trim());
    }
}
