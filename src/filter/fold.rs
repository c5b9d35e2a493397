//! Partial evaluation at start: what a filter computes from constants and the environment alone is computed once, not for each request.
//!
//! The main program comes as jaq's syntax tree and leaves as one, which jaq compiles as a definition behind its own. A program runs as it
//! is written if it uses modules, labels or recursive definitions, or if it is too large.
//!
//! | rule | why it is sound | instructions of a request without it: default filter, `tests/peers/filter.jq` |
//! |---|---|---|
//! | none left out | | 126,000, 65,000 |
//! | A call of a definition becomes its body (`call.rs`). | Variables get new names, filters that are arguments keep the meaning of their own place, `$x` becomes `ARGUMENT as $x`. | 768,000, 928,000 |
//! | A term that depends on nothing but literals and `$ENV` becomes its value ([`Folder::settle`]). | It is run once, under the meter: exactly one output and no error. Natives that are impure depend on the request, by definition. | 699,000, 858,000 |
//! | `if CONSTANT`, `CONSTANT as $x`, `CONSTANT \| f` become what they lead to (`walk.rs`). | jaq runs the condition first, and once. | the same: it pays where the environment chooses between terms of the request |
//! | An output that is an object or array becomes a layout (`template.rs`, `outputs.rs`), if each member gives one output: its constant part is text. | The members run in the same order, and the first error is the error. | 227,000, 143,000 |
//! | A sum of objects becomes one object (`template.rs`). | No key twice, or both times a constant. | 181,000, 65,000 |
//!
//! Paths (`f` in `path(f)` and in `f = x`) stay as they are. Two differences are wanted: a run that a limit would have ended may end well;
//! and in `{a: error, b: f}` jaq runs `f` before the error counts, here it is not run.

mod call;
mod scope;
mod template;
mod walk;

use super::layout::Layout;
use super::natives::ENVIRONMENT;
use super::outputs::{Outputs, TEMPLATE};
use super::syntax::{Term, each, literal, pipe, simplified};
use super::trial::value_of;
use super::value::Value;
use jaq_core::load::Arena;
use jaq_core::load::lex::Lexer;
use jaq_core::load::parse::{Def, Parser};
use scope::{NOTHING, Part, Place, What};
use std::collections::HashMap;

/// Terms that are looked at, copies included: a program that is larger runs as it is. Written programs have some thousand.
const MAX_TERMS: usize = 20_000;
/// Steps that all constants of a program may take together, so that a start takes a few milliseconds; and half of their bytes.
const MAX_STEPS: u64 = 1 << 17;
/// Bytes of a text that is a literal again at each place where it is used.
const MAX_LITERAL: usize = 256;
/// Terms that are tried without success; each attempt takes some 30 microseconds.
const MAX_FAILURES: usize = 32;
/// Beginnings of names that are made here; a program that has them runs as it is.
const RESERVED: [&str; 3] = ["$__", TEMPLATE, "__main"];

/// A program after partial evaluation.
pub(super) struct Folded<'a> {
    pub(super) main: Term<'a>,
    /// Variables that the program uses, with their values.
    pub(super) constants: Vec<(&'a str, Value)>,
    /// Each output is `[LAYOUT, VALUE, ...]`, or `[OUTPUT]`.
    pub(super) layouts: Vec<Layout>,
    pub(super) wants_request: bool,
}

struct Folder<'a> {
    arena: &'a Arena,
    main: Place<'a>,
    /// Of the constants.
    values: HashMap<&'a str, Value>,
    terms: usize,
    steps: u64,
    failures: usize,
    names: usize,
}

/// Folds the main program `code`, whose definitions beside its own are `prelude`. `members`: of outputs, whose places are wanted. None: it
/// runs as it is written.
pub(super) fn fold<'a>(
    code: &'a str,
    prelude: &[Def<&'static str>],
    members: &[&[&str]],
    arena: &'a Arena,
) -> Option<Folded<'a>> {
    if RESERVED.iter().any(|name| code.contains(name)) {
        return None;
    }
    let tokens = Lexer::new(code).lex().ok()?;
    let main = Parser::new(&tokens).parse(|parser| parser.term()).ok()?;
    let mut folder = Folder {
        arena,
        main: Place::of_main(prelude),
        values: HashMap::from([("$ENV", ENVIRONMENT.clone())]),
        terms: 0,
        steps: 0,
        failures: 0,
        names: 0,
    };
    let main = folder.walk(simplified(main), &folder.main.clone())?;
    let main = folder.settle(main);
    let main = folder.term(main.what);
    let mut outputs = Outputs { arena, constants: &folder.values, members, layouts: Vec::new() };
    let mut main = outputs.laid_out(main);
    let (mut constants, mut wants_request) = (Vec::new(), false);
    each(&mut main, &mut |term| {
        if let Term::Var(name) = term {
            wants_request |= *name == "$REQUEST";
            if *name != "$ENV" && !constants.iter().any(|(known, _)| known == name) {
                constants.extend(folder.values.get(name).map(|value| (*name, value.clone())))
            }
        }
    });
    Some(Folded { main, constants, layouts: outputs.layouts, wants_request })
}

impl<'a> Folder<'a> {
    /// A name that nothing else has.
    fn new_name(&mut self, kind: &str) -> &'a str {
        self.names += 1;
        self.arena.alloc(format!("{kind}{}", self.names))
    }

    fn constant(&mut self, value: Value) -> What<'a> {
        let name = self.new_name("$__c");
        self.values.insert(name, value);
        What::Constant(name)
    }

    /// The part as a constant, if it is one and was none.
    fn settle(&mut self, part: Part<'a>) -> Part<'a> {
        let What::Term(term) = &part.what else { return part };
        let is_integer = matches!(term, Term::Num(digits) if digits.parse::<isize>().is_ok());
        let is_over = self.failures >= MAX_FAILURES || self.steps >= MAX_STEPS;
        if part.facts.depends != NOTHING || part.on_path || is_integer || is_over {
            return part;
        }
        let program = match part.input {
            None => term.clone(),
            Some(input) => pipe(Term::Var(input), None, term.clone()),
        };
        let (value, steps) = value_of(program, &self.values);
        self.steps += steps;
        self.failures += usize::from(value.is_none());
        match value {
            Some(value) => Part { what: self.constant(value), ..part },
            None => part,
        }
    }

    fn term(&mut self, what: What<'a>) -> Term<'a> {
        match what {
            What::Term(term) => term,
            // a run makes all variables, and looks for one from the last to the first: for short text a literal costs less
            What::Constant(name) => match &self.values[name] {
                Value::String(text) if text.len() <= MAX_LITERAL => literal(self.arena.alloc(text.to_string())),
                _ => Term::Var(name),
            },
        }
    }
}

#[cfg(test)]
mod tests;
