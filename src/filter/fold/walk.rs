//! The rules, term by term.

use super::Folder;
use super::scope::{Callee, Facts, Known, NOTHING, Part, Place, REQUEST, What};
use super::template::Template;
use crate::filter::syntax::{Term, array, each, parts, pipe, plain};
use crate::filter::value::Value;
use jaq_core::ValT;
use jaq_core::load::parse::{BinaryOp, Def, Pattern};
use jaq_core::ops::Math;
use jaq_core::path::{Opt, Part as Step};
use std::rc::Rc;

impl<'a> Folder<'a> {
    /// The term as it is at its place, folded. None: the program has too many terms, or one that is not understood.
    pub(super) fn walk(&mut self, term: Term<'a>, place: &Place<'a>) -> Option<Part<'a>> {
        self.terms += 1;
        if self.terms > super::MAX_TERMS {
            return None;
        }
        let input = place.input.depends();
        let leaf = |what, depends| Some(Part::new(what, Facts::CONSTANT.on(depends), place));
        match term {
            Term::Id => match place.input {
                Known::Constant(name) if !place.on_path => leaf(What::Constant(name), NOTHING),
                _ => leaf(What::Term(Term::Id), input),
            },
            Term::Var(name) => match place.variable(name) {
                Some((_, Known::Constant(name))) => leaf(What::Constant(name), NOTHING),
                Some((name, Known::No(depends))) => leaf(What::Term(Term::Var(name)), depends),
                None if name == "$ENV" => leaf(What::Constant(name), NOTHING),
                None => leaf(What::Term(Term::Var(name)), REQUEST),
            },
            Term::Str(..)
                if !place.on_path
                    && let Some(text) = plain(&term) =>
            {
                let constant = self.constant(Value::string(text));
                leaf(constant, NOTHING)
            }
            Term::Label(..) | Term::Break(_) => None,
            Term::Arr(Some(inner)) => self.array(*inner, place),
            Term::Obj(_) => self.object(term, place),
            Term::BinOp(left, BinaryOp::Pipe(pattern), right) => self.pipe(*left, pattern, *right, place),
            Term::Fold(kind, source, pattern, parts) => self.reduction(kind, *source, &pattern, parts, place),
            Term::TryCatch(tried, Some(caught)) => {
                let tried = self.walk(*tried, place)?;
                let (inner, depth) = place.within(tried.facts.depends);
                let caught = self.walk(*caught, &inner.on(Known::No(depth)))?;
                let facts = tried.facts.and(caught.facts.outside(depth));
                let shell = Term::TryCatch(Term::Id.into(), Some(Term::Id.into()));
                Some(self.compound(shell, vec![tried, caught], facts, place))
            }
            Term::IfThenElse(mut cases, Some(other)) => self.condition(cases.pop()?, *other, place),
            Term::Def(definitions, rest) => self.definitions(definitions, *rest, place),
            Term::Call(name, args) => self.call(name, args, place),
            term => self.other(term, place),
        }
    }

    /// Takes the parts of a term out of it and walks them.
    pub(super) fn walk_parts(&mut self, term: &mut Term<'a>, place: &Place<'a>) -> Option<Vec<Part<'a>>> {
        parts(term).into_iter().map(|part| self.walk(std::mem::take(part), place)).collect()
    }

    /// A term that looks at its parts where it stands itself.
    fn other(&mut self, mut term: Term<'a>, place: &Place<'a>) -> Option<Part<'a>> {
        use BinaryOp::{Alt, Assign, Comma, Math as Calculate, Update, UpdateAlt, UpdateMath};
        let is_update = matches!(term, Term::BinOp(_, Assign | Update | UpdateMath(_) | UpdateAlt, _));
        let input = place.input.depends();
        let (mut facts, mut walked) = (Facts::CONSTANT, Vec::new());
        let (is_path, binds) = (matches!(term, Term::Path(..)), matches!(term, Term::BinOp(_, Update, _)));
        for (number, part) in parts(&mut term).into_iter().enumerate() {
            let mut there = match number {
                0 => place.on_path(place.on_path || is_update),
                _ => place.on_path(place.on_path && !is_update && !is_path),
            };
            let mut depth = NOTHING;
            if binds && number == 1 {
                (there, depth) = there.within(input);
                there = there.on(Known::No(depth))
            }
            let part = self.walk(std::mem::take(part), &there)?;
            facts = facts.and(part.facts.outside(depth));
            walked.push(part)
        }
        facts.is_single &= match &term {
            Term::Recurse | Term::TryCatch(_, None) | Term::BinOp(_, Comma, _) => false,
            Term::Path(_, path) => path.0.iter().all(|step| {
                matches!(step, (Step::Index(_) | Step::Range(Some(_), _) | Step::Range(_, Some(_)), Opt::Essential))
            }),
            _ => !is_update,
        };
        if is_update || matches!(term, Term::Recurse) {
            facts = facts.on(input)
        }
        if !place.on_path && matches!(term, Term::BinOp(_, Alt | Calculate(Math::Add), _)) && facts.depends == REQUEST {
            let [left, right] = walked.try_into().ok()?;
            let (left, right) = (self.settle(left), self.settle(right));
            match (&term, &left.what) {
                (Term::BinOp(_, Alt, _), What::Constant(name)) if self.values[name].as_bool() => return Some(left),
                (Term::BinOp(_, Alt, _), What::Constant(_)) => return Some(right),
                (Term::BinOp(_, Alt, _), _) => (),
                _ => {
                    if let Some(sum) = self.sum(&left, &right) {
                        return Some(Part::new(What::Template(sum), facts, place));
                    }
                }
            }
            walked = vec![left, right]
        }
        Some(self.compound(term, walked, facts, place))
    }

    /// The term with these in the places of its parts, which become constants where they are and it is not.
    pub(super) fn compound(
        &mut self,
        mut term: Term<'a>,
        walked: Vec<Part<'a>>,
        facts: Facts,
        place: &Place<'a>,
    ) -> Part<'a> {
        for (place, part) in parts(&mut term).into_iter().zip(walked) {
            let part = if facts.depends == REQUEST { self.settle(part) } else { part };
            *place = self.term(part.what)
        }
        Part::new(What::Term(term), facts, place)
    }

    fn array(&mut self, inner: Term<'a>, place: &Place<'a>) -> Option<Part<'a>> {
        let (mut elements, mut rest) = (Vec::new(), inner);
        while let Term::BinOp(left, BinaryOp::Comma, right) = rest {
            elements.push(*right);
            rest = *left
        }
        elements.push(rest);
        let walked = elements.into_iter().rev().map(|element| self.walk(element, place));
        let walked = walked.collect::<Option<Vec<_>>>()?;
        let mut facts = Facts::of(&walked);
        if facts.is_single && facts.depends == REQUEST && !place.on_path {
            let members = walked.into_iter().map(|part| self.member(part)).collect();
            return Some(Part::new(What::Template(Template::Array(members)), facts, place));
        }
        facts.is_single = facts.is_pure; // an array is one output, however many its elements are
        let settle = facts.depends == REQUEST;
        let terms = walked.into_iter().map(|part| {
            let part = if settle { self.settle(part) } else { part };
            self.term(part.what)
        });
        let term = array(terms.collect());
        Some(Part::new(What::Term(term), facts, place))
    }

    fn object(&mut self, mut term: Term<'a>, place: &Place<'a>) -> Option<Part<'a>> {
        let all = self.walk_parts(&mut term, place)?;
        let facts = Facts::of(&all);
        if !facts.is_single || facts.depends != REQUEST || place.on_path {
            return Some(self.compound(term, all, facts, place));
        }
        let all: Vec<_> = all.into_iter().map(|part| self.settle(part)).collect();
        let mut keys = Vec::new();
        for part in all.iter().step_by(2) {
            match &part.what {
                What::Constant(name)
                    if let Value::String(key) = &self.values[name]
                        && !keys.contains(key) =>
                {
                    keys.push(key.clone())
                }
                _ => return Some(self.compound(term, all, facts, place)),
            }
        }
        let members = all.into_iter().skip(1).step_by(2).map(|part| self.member(part));
        let template = Template::Object(keys.into_iter().zip(members).collect());
        Some(Part::new(What::Template(template), facts, place))
    }

    fn pipe(
        &mut self,
        left: Term<'a>,
        pattern: Option<Pattern<&'a str>>,
        right: Term<'a>,
        place: &Place<'a>,
    ) -> Option<Part<'a>> {
        let left = self.walk(left, &if pattern.is_some() { place.on_path(false) } else { place.clone() })?;
        let left = self.settle(left);
        let (mut inner, depth) = place.within(left.facts.depends);
        let Some(pattern) = pattern else {
            let known = if let What::Constant(name) = left.what { Known::Constant(name) } else { Known::No(depth) };
            let right = self.walk(right, &inner.on(known))?;
            if let (What::Constant(_), What::Constant(_)) = (&left.what, &right.what) {
                return Some(Part::new(right.what, Facts::CONSTANT, place));
            }
            let facts = left.facts.and(right.facts.outside(depth));
            return Some(self.compound(pipe(Term::Id, None, Term::Id), vec![left, right], facts, place));
        };
        if let (Pattern::Var(name), What::Constant(constant)) = (&pattern, &left.what) {
            return self.walk(right, &place.clone().with_variable(name, constant, Known::Constant(constant)));
        }
        let pattern = self.pattern(&pattern, depth, &mut inner)?;
        let right = self.walk(right, &inner)?;
        Some(self.bind(left, pattern, right, depth, place))
    }

    /// `VALUE as PATTERN | BODY`.
    pub(super) fn bind(
        &mut self,
        value: Part<'a>,
        pattern: Pattern<&'a str>,
        body: Part<'a>,
        depth: usize,
        place: &Place<'a>,
    ) -> Part<'a> {
        let mut facts = value.facts.and(body.facts.outside(depth));
        facts.is_single &= matches!(pattern, Pattern::Var(_));
        self.compound(pipe(Term::Id, Some(pattern), Term::Id), vec![value, body], facts, place)
    }

    /// The pattern with new names, which `place` then knows. None: it has a key that is more than a string.
    fn pattern(&mut self, pattern: &Pattern<&'a str>, depth: usize, place: &mut Place<'a>) -> Option<Pattern<&'a str>> {
        Some(match pattern {
            Pattern::Var(name) => {
                let new_name = self.new_name("$__v");
                *place = place.clone().with_variable(name, new_name, Known::No(depth));
                Pattern::Var(new_name)
            }
            Pattern::Arr(all) => {
                Pattern::Arr(all.iter().map(|one| self.pattern(one, depth, place)).collect::<Option<_>>()?)
            }
            Pattern::Obj(pairs) => {
                let pair = |(key, part): &(Term<'a>, _)| {
                    plain(key)?;
                    Some((key.clone(), self.pattern(part, depth, place)?))
                };
                Pattern::Obj(pairs.iter().map(pair).collect::<Option<_>>()?)
            }
        })
    }

    /// `reduce` and `foreach`.
    fn reduction(
        &mut self,
        kind: &'a str,
        source: Term<'a>,
        pattern: &Pattern<&'a str>,
        mut rest: Vec<Term<'a>>,
        place: &Place<'a>,
    ) -> Option<Part<'a>> {
        let source = self.walk(source, &place.on_path(false))?;
        let init = self.walk(std::mem::take(rest.first_mut()?), place)?;
        let (inner, depth) = place.within(source.facts.depends.min(init.facts.depends));
        let mut inner = inner.on(Known::No(depth));
        let pattern = self.pattern(pattern, depth, &mut inner)?;
        let mut facts = init.facts.and(Facts { is_single: source.facts.is_pure, ..source.facts });
        facts.is_single &= kind == "reduce" && matches!(pattern, Pattern::Var(_));
        let mut all = vec![source, init];
        for update in &mut rest[1..] {
            let update = self.walk(std::mem::take(update), &inner)?;
            facts = facts.and(update.facts.outside(depth));
            all.push(update)
        }
        Some(self.compound(Term::Fold(kind, Term::Id.into(), pattern, rest), all, facts, place))
    }

    fn condition(
        &mut self,
        (condition, then): (Term<'a>, Term<'a>),
        other: Term<'a>,
        place: &Place<'a>,
    ) -> Option<Part<'a>> {
        let condition = self.walk(condition, &place.on_path(false))?;
        let condition = self.settle(condition);
        if let What::Constant(name) = condition.what {
            return self.walk(if self.values[name].as_bool() { then } else { other }, place);
        }
        let all = vec![condition, self.walk(then, place)?, self.walk(other, place)?];
        let facts = Facts::of(&all);
        let shell = Term::IfThenElse(vec![(Term::Id, Term::Id)], Some(Term::Id.into()));
        Some(self.compound(shell, all, facts, place))
    }

    /// Definitions are put in place where they are called. None: one is recursive, or a format, whose output may be no string.
    fn definitions(&mut self, definitions: Vec<Def<&'a str>>, rest: Term<'a>, place: &Place<'a>) -> Option<Part<'a>> {
        let mut place = place.clone();
        for mut definition in definitions {
            let (name, arity) = (definition.name, definition.args.len());
            let mut is_recursive = false;
            each(&mut definition.body, &mut |term| {
                is_recursive |= matches!(term, Term::Call(called, args) if (*called, args.len()) == (name, arity))
            });
            if is_recursive || name.starts_with('@') {
                return None;
            }
            let callee = Callee::Own(Rc::new(definition), place.variables.clone());
            place = place.with_function(name, arity, callee)
        }
        self.walk(rest, &place)
    }
}
