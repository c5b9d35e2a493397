//! The rules, term by term. An example, which a test holds to:
//!
//! ```jq
//! def image(name): "registry" + "/" + name;
//! {image: image(.tool), cpus: ("2" | tonumber), args: [("a", "b") | . + "c"]}
//! ```
//!
//! | term | depends on | becomes |
//! |---|---|---|
//! | `"registry" + "/"` | nothing | `"registry/"`: it is run, gives one output, and is a constant from here on |
//! | `.tool` | the request, because its input `.` is the body there | itself |
//! | `image(.tool)` | the request, through `.tool` | the body of `image`, where `name` is `.tool` as it was written: `"registry/" + .tool` |
//! | `"2" \| tonumber` | nothing, because the input of `tonumber` is a constant | `2` |
//! | `("a", "b")` | nothing | itself: it gives two outputs, and a constant is one |
//! | `. + "c"` | its input, a value at depth 1: no constant, but no request either | itself |
//! | `("a", "b") \| . + "c"` | nothing: outside of the pipe no value at depth 1 is left ([`Facts::outside`]) | itself, because it still gives two outputs |
//! | `[("a", "b") \| . + "c"]` | nothing, and an array is one output | `["ac", "bc"]` |
//! | `{image: ...}` | the request | the template `{"image":_,"cpus":2,"args":["ac","bc"]}`, and the term for `_` |

use super::Folder;
use super::scope::{Facts, Known, Meaning, NOTHING, Part, Place, REQUEST, What};
use crate::filter::syntax::{Term, array, each, elements, parts, pipe, plain, variables};
use crate::filter::value::Value;
use jaq_core::ValT;
use jaq_core::load::parse::{BinaryOp, Def, Pattern};
use jaq_core::path::{Opt, Part as PathPart};
use std::rc::Rc;

impl<'a> Folder<'a> {
    /// The term as it is at its place, folded. None: the program has too many terms, or one that is not understood.
    pub(super) fn walk(&mut self, mut term: Term<'a>, place: &Place<'a>) -> Option<Part<'a>> {
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
            // `{"\(f)"}`
            Term::Obj(ref pairs) if pairs.iter().any(|(_, value)| value.is_none()) => None,
            Term::Arr(Some(inner)) => self.array(*inner, place),
            Term::Obj(_) => {
                let all = self.walk_parts(&mut term, place)?;
                let facts = Facts::of(&all);
                let object = self.compound(term, all, facts, place);
                Some(self.template(object))
            }
            Term::BinOp(left, BinaryOp::Pipe(pattern), right) => self.pipe(*left, pattern, *right, place),
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

    /// A term that looks at its parts where it stands itself; but the second of some, and the third of `reduce` and `foreach`, look at
    /// what those before them give.
    fn other(&mut self, mut term: Term<'a>, place: &Place<'a>) -> Option<Part<'a>> {
        use BinaryOp::{Assign, Comma, Update, UpdateAlt, UpdateMath};
        let is_update = matches!(term, Term::BinOp(_, Assign | Update | UpdateMath(_) | UpdateAlt, _));
        let (is_fold, is_path) = (matches!(term, Term::Fold(..)), matches!(term, Term::Path(..)));
        let inside = match term {
            Term::BinOp(_, Update, _) | Term::TryCatch(_, Some(_)) => 1,
            Term::Fold(..) => 2,
            _ => usize::MAX,
        };
        let mut pattern = match &mut term {
            Term::Fold(_, _, pattern, _) => Some(std::mem::replace(pattern, Pattern::Arr(Vec::new()))),
            _ => None,
        };
        let input = place.input.depends();
        let (mut within, mut depth) = (place.clone(), NOTHING);
        let (mut facts, mut walked) = (Facts::CONSTANT, Vec::new());
        for (number, part) in parts(&mut term).into_iter().enumerate() {
            if number == inside {
                (within, depth) = within.within(if is_fold { facts.depends } else { facts.depends.min(input) });
                within.input = Known::No(depth);
                if let Some(pattern) = &mut pattern {
                    self.pattern(pattern, depth, &mut within)?
                }
            }
            let on_path = match number {
                0 => (place.on_path && !is_fold) || is_update,
                _ => place.on_path && !is_update && !is_path,
            };
            let part = self.walk(std::mem::take(part), &within.on_path(on_path))?;
            // of a source of `reduce` the number of outputs does not count
            let is_single = part.facts.is_single || (is_fold && number == 0 && part.facts.is_pure);
            facts = facts.and(Facts { is_single, ..part.facts.outside(depth) });
            walked.push(part)
        }
        if let (Term::Fold(_, _, place, _), Some(pattern)) = (&mut term, pattern) {
            *place = pattern
        }
        facts.is_single &= match &term {
            Term::Recurse | Term::TryCatch(_, None) | Term::BinOp(_, Comma, _) => false,
            Term::Fold(kind, _, pattern, _) => *kind == "reduce" && matches!(pattern, Pattern::Var(_)),
            Term::Path(_, path) => path.0.iter().all(|part| {
                matches!(
                    part,
                    (PathPart::Index(_) | PathPart::Range(Some(_), _) | PathPart::Range(_, Some(_)), Opt::Essential)
                )
            }),
            _ => !is_update,
        };
        if is_update || matches!(term, Term::Recurse) {
            facts = facts.on(input)
        }
        let sum = self.compound(term, walked, facts, place);
        Some(self.sum(sum))
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
            *place = self.as_term(part, facts)
        }
        Part::new(What::Term(term), facts, place)
    }

    fn as_term(&mut self, part: Part<'a>, around: Facts) -> Term<'a> {
        let part = if around.depends == REQUEST { self.settle(part) } else { part };
        self.term(part.what)
    }

    /// Each element has a place in a template of its own; any other array is one output, however many its elements are.
    fn array(&mut self, inner: Term<'a>, place: &Place<'a>) -> Option<Part<'a>> {
        let walked = elements(inner).into_iter().map(|element| self.walk(element, place));
        let walked = walked.collect::<Option<Vec<_>>>()?;
        let facts = Facts::of(&walked);
        let terms = walked.into_iter().map(|part| self.as_term(part, facts));
        let array = Part::new(What::Term(array(terms.collect())), facts, place);
        let array = self.template(array);
        Some(Part { facts: Facts { is_single: facts.is_pure, ..facts }, ..array })
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
        let Some(mut pattern) = pattern else {
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
        self.pattern(&mut pattern, depth, &mut inner)?;
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

    /// Gives the variables of a pattern new names, which `place` then knows. None: it has a key that is more than a string.
    fn pattern(&mut self, pattern: &mut Pattern<&'a str>, depth: usize, place: &mut Place<'a>) -> Option<()> {
        for variable in variables(pattern)? {
            let new_name = self.new_name("$__v");
            let name = std::mem::replace(variable, new_name);
            *place = place.clone().with_variable(name, new_name, Known::No(depth))
        }
        Some(())
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
            place = place.with(name, arity, Meaning::Own(Rc::new(definition)))
        }
        self.walk(rest, &place)
    }
}
