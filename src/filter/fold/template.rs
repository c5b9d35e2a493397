//! Objects and arrays of which a part is the same for all requests.

use super::Folder;
use super::scope::{Part, REQUEST, What};
use crate::filter::outputs::TEMPLATE;
use crate::filter::syntax::{Term, literal, plain};
use crate::filter::value::{Text, Value};
use jaq_core::load::parse::BinaryOp;
use jaq_core::ops::Math;

type Pairs<'a> = Vec<(Term<'a>, Option<Term<'a>>)>;

impl<'a> Folder<'a> {
    /// Marks the part if it can be a template: its keys are constant, and each once.
    pub(super) fn template(&self, mut part: Part<'a>) -> Part<'a> {
        let What::Term(term) = &mut part.what else { return part };
        let mut keys = Vec::new();
        let is_template = match term {
            Term::Obj(pairs) => pairs.iter().all(|(key, _)| {
                let key = plain(key);
                let is_new = key.is_some() && !keys.contains(&key);
                keys.push(key);
                is_new
            }),
            _ => true,
        };
        if is_template && part.facts.is_single && part.facts.depends == REQUEST && !part.on_path {
            *term = Term::Call(TEMPLATE, vec![std::mem::take(term)])
        }
        part
    }

    /// The part, as one object if it is `{…} + {…}` and that means the same.
    pub(super) fn sum(&mut self, mut part: Part<'a>) -> Part<'a> {
        if part.facts.depends == REQUEST
            && !part.on_path
            && let What::Term(term) = &mut part.what
            && let Term::BinOp(left, BinaryOp::Math(Math::Add), right) = term
            && let Some(pairs) = self.pairs_of_sum(left, right)
        {
            *term = Term::Call(TEMPLATE, vec![Term::Obj(pairs)])
        }
        part
    }

    fn pairs_of_sum(&mut self, left: &Term<'a>, right: &Term<'a>) -> Option<Pairs<'a>> {
        let (mut pairs, more) = (self.pairs(left)?, self.pairs(right)?);
        for (key, member) in more {
            let is_constant = |member: &_| match member {
                Term::Var(name) => self.values.contains_key(name),
                member => matches!(member, Term::Num(_)) || plain(member).is_some(),
            };
            match pairs.iter_mut().find(|(known, _)| plain(known) == plain(&key)) {
                None => pairs.push((key, member)),
                Some((_, old)) if old.iter().chain(&member).all(is_constant) => *old = member,
                Some(_) => return None, // an error would be lost, or come before another
            }
        }
        Some(pairs)
    }

    fn pairs(&mut self, term: &Term<'a>) -> Option<Pairs<'a>> {
        match term {
            Term::Call(TEMPLATE, object) if let [Term::Obj(pairs)] = &object[..] => Some(pairs.clone()),
            Term::Var(name) if let Some(Value::Object(map)) = self.values.get(name).cloned() => {
                let pair = |(key, value): (&std::sync::Arc<Text>, &Value)| {
                    let constant = self.constant(value.clone());
                    (literal(self.arena.alloc(key.to_string())), Some(self.term(constant)))
                };
                Some(map.iter().map(pair).collect())
            }
            _ => None,
        }
    }
}
