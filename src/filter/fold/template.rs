//! Objects and arrays of which a part is the same for all requests.

use super::Folder;
use super::scope::{Part, What};
use crate::filter::layout::Layout;
use crate::filter::syntax::{Term, array, literal, parts, pipe};
use crate::filter::value::{Text, Value};
use jaq_core::load::parse::BinaryOp;
use std::sync::Arc;

pub(super) type Template<'a> = crate::filter::layout::Template<Term<'a>>;

/// Stands for a template until it is known whether it is an output of the program.
const TEMPLATE: &str = "__template";

impl<'a> Folder<'a> {
    /// The part as a member of a template.
    pub(super) fn member(&mut self, part: Part<'a>) -> Template<'a> {
        match self.settle(part).what {
            What::Constant(name) => Template::Constant(self.values[name].clone()),
            What::Template(template) => template,
            What::Term(Term::Num(digits)) if let Ok(integer) = digits.parse::<isize>() => {
                Template::Constant(integer.into())
            }
            What::Term(term) => Template::Hole(term),
        }
    }

    /// `{…} + {…}` as one object. None: it would not mean the same, or they are no objects.
    pub(super) fn sum(&self, left: &Part<'a>, right: &Part<'a>) -> Option<Template<'a>> {
        let mut pairs = self.pairs(left)?;
        for (key, member) in self.pairs(right)? {
            match pairs.iter_mut().find(|(known, _)| *known == key) {
                None => pairs.push((key, member)),
                Some((_, place @ Template::Constant(_))) if let Template::Constant(_) = member => *place = member,
                Some(_) => return None, // an error would be lost, or come before another
            }
        }
        Some(Template::Object(pairs))
    }

    fn pairs(&self, part: &Part<'a>) -> Option<Vec<(Arc<Text>, Template<'a>)>> {
        match &part.what {
            What::Template(Template::Object(pairs)) => Some(pairs.clone()),
            What::Constant(name) if let Value::Object(map) = &self.values[name] => {
                Some(map.iter().map(|(key, value)| (key.clone(), Template::Constant(value.clone()))).collect())
            }
            _ => None,
        }
    }

    pub(super) fn keep(&mut self, template: Template<'a>) -> Term<'a> {
        self.templates.push(template);
        Term::Call(TEMPLATE, vec![Term::Num(self.arena.alloc((self.templates.len() - 1).to_string()))])
    }

    fn kept(&self, term: &Term<'a>) -> Option<Template<'a>> {
        match term {
            Term::Call(TEMPLATE, number) if let [Term::Num(number)] = &number[..] => {
                self.templates.get(number.parse::<usize>().ok()?).cloned()
            }
            _ => None,
        }
    }

    /// The term, each output as `[LAYOUT, VALUE, ...]`, or as `[OUTPUT]` where there is no layout.
    pub(super) fn laid_out(&mut self, term: Term<'a>, members: &[&[&str]]) -> Term<'a> {
        match term {
            Term::BinOp(left, BinaryOp::Pipe(pattern), right) => {
                pipe(self.spelled_out(*left), pattern, self.laid_out(*right, members))
            }
            Term::IfThenElse(cases, other) => {
                let case = |(condition, then)| (self.spelled_out(condition), self.laid_out(then, members));
                let cases = cases.into_iter().map(case).collect();
                Term::IfThenElse(cases, other.map(|other| self.laid_out(*other, members).into()))
            }
            term => match self.kept(&term).and_then(|template| Layout::new(template, members)) {
                Some((layout, holes)) if !holes.is_empty() => {
                    let number = Term::Num(self.arena.alloc(self.layouts.len().to_string()));
                    self.layouts.push(layout);
                    let holes = holes.into_iter().map(|hole| self.spelled_out(hole));
                    array([number].into_iter().chain(holes).collect())
                }
                _ => pipe(self.spelled_out(term), None, array(vec![Term::Id])),
            },
        }
    }

    /// The term with its templates as jaq makes them.
    fn spelled_out(&mut self, mut term: Term<'a>) -> Term<'a> {
        if let Some(template) = self.kept(&term) {
            return self.made(template);
        }
        parts(&mut term).into_iter().for_each(|part| *part = self.spelled_out(std::mem::take(part)));
        term
    }

    fn made(&mut self, template: Template<'a>) -> Term<'a> {
        match template {
            Template::Constant(value) => {
                let constant = self.constant(value);
                self.term(constant)
            }
            Template::Hole(term) => self.spelled_out(term),
            Template::Object(pairs) => {
                let pair = |(key, member): (Arc<Text>, _)| {
                    (literal(self.arena.alloc(key.to_string())), Some(self.made(member)))
                };
                Term::Obj(pairs.into_iter().map(pair).collect())
            }
            Template::Array(members) => array(members.into_iter().map(|member| self.made(member)).collect()),
        }
    }
}
