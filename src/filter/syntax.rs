//! jaq's syntax tree: walking through it, and making terms.

use jaq_core::load::lex::{StrPart, Token};
use jaq_core::load::parse::{BinaryOp, Parser, Pattern};
use jaq_core::path::{Opt, Part as PathPart, Path};

pub(super) type Term<'a> = jaq_core::load::parse::Term<&'a str>;

/// A source as a [simplified] tree: the main program, or the definitions of a module, without its imports. None: it does not parse.
pub(super) fn tree<'s>(mut tokens: &[Token<&'s str>], is_main: bool) -> Option<Term<'s>> {
    let mut heads = ["module", "import", "include"].as_slice();
    while let Some(Token(head, _)) = tokens.first()
        && heads.contains(head)
    {
        // metadata are a term, and may have a semicolon of their own
        let mut ends = tokens.iter().enumerate().filter(|(_, token)| token.0 == ";").map(|(at, _)| &tokens[at + 1..]);
        let is_end = |rest: &&[Token<&'s str>]| {
            matches!(rest.first(), Some(Token("import" | "include", _))) || parsed(rest, is_main).is_some()
        };
        tokens = ends.find(is_end)?;
        heads = &["import", "include"]; // a module's own metadata stand first, and `module` may be a name behind them
    }
    parsed(tokens, is_main).map(simplified)
}

fn parsed<'s>(tokens: &[Token<&'s str>], is_main: bool) -> Option<Term<'s>> {
    match is_main {
        true => Parser::new(tokens).parse(|parser| parser.term()).ok(),
        false => Some(Term::Def(Parser::new(tokens).parse(|parser| parser.defs()).ok()?, Term::Id.into())),
    }
}

/// Calls `see` with the term and all terms within, keys of patterns included.
pub(super) fn each<'a>(term: &mut Term<'a>, see: &mut dyn FnMut(&Term<'a>)) {
    see(term);
    if let Term::BinOp(_, BinaryOp::Pipe(Some(pattern)), _) | Term::Fold(_, _, pattern, _) = term {
        each_key(pattern, see)
    }
    parts(term).into_iter().for_each(|part| each(part, see))
}

fn each_key<'a>(pattern: &mut Pattern<&'a str>, see: &mut dyn FnMut(&Term<'a>)) {
    match pattern {
        Pattern::Var(_) => (),
        Pattern::Arr(all) => all.iter_mut().for_each(|part| each_key(part, see)),
        Pattern::Obj(pairs) => pairs.iter_mut().for_each(|(key, part)| {
            each(key, see);
            each_key(part, see)
        }),
    }
}

/// The terms right within, in the order of the source. Keys of patterns are not among them.
pub(super) fn parts<'t, 'a>(term: &'t mut Term<'a>) -> Vec<&'t mut Term<'a>> {
    match term {
        Term::Id | Term::Recurse | Term::Num(_) | Term::Var(_) | Term::Break(_) | Term::Arr(None) => Vec::new(),
        Term::Str(_, parts) => {
            let terms = parts.iter_mut().filter_map(|part| match part {
                StrPart::Term(term) => Some(term),
                StrPart::Str(_) | StrPart::Char(_) => None,
            });
            terms.collect()
        }
        Term::Arr(Some(inner)) | Term::Neg(inner) | Term::Label(_, inner) => vec![inner],
        Term::Obj(pairs) => pairs.iter_mut().flat_map(|(key, value)| std::iter::once(key).chain(value)).collect(),
        Term::BinOp(left, _, right) => vec![left, right],
        Term::Fold(_, source, _, parts) => std::iter::once(&mut **source).chain(parts).collect(),
        Term::TryCatch(tried, caught) => std::iter::once(tried).chain(caught).map(|part| &mut **part).collect(),
        Term::IfThenElse(cases, other) => {
            let cases = cases.iter_mut().flat_map(|(condition, then)| [condition, then]);
            cases.chain(other.as_deref_mut()).collect()
        }
        Term::Def(definitions, rest) => {
            definitions.iter_mut().map(|definition| &mut definition.body).chain([&mut **rest]).collect()
        }
        Term::Call(_, args) => args.iter_mut().collect(),
        Term::Path(from, path) => {
            let inner = path.0.iter_mut().flat_map(|(part, _)| match part {
                PathPart::Index(at) => vec![at],
                PathPart::Range(start, end) => start.iter_mut().chain(end).collect(),
            });
            std::iter::once(&mut **from).chain(inner).collect()
        }
    }
}

/// The same with fewer forms: `{a, $x}` is `{a: .a, x: $x}`, `@f "\(g)"` is `"\(g | @f)"`, and each `if` has one condition and an `else`.
pub(super) fn simplified(mut term: Term<'_>) -> Term<'_> {
    match &mut term {
        Term::Obj(pairs) => pairs.iter_mut().for_each(|(key, value)| {
            match key {
                Term::Var(name) if value.is_none() => {
                    let name = &name[1..];
                    *value = Some(std::mem::replace(key, literal(name)))
                }
                key if value.is_none() && plain(key).is_some() => {
                    let path = Path(vec![(PathPart::Index(key.clone()), Opt::Essential)]);
                    *value = Some(Term::Path(Term::Id.into(), path))
                }
                _ => (), // nor a copy of a key that is more than a string: such keys nest
            }
        }),
        Term::IfThenElse(cases, other) => {
            let mut last = other.take().map_or(Term::Id, |other| *other);
            for case in cases.drain(1..).rev() {
                last = Term::IfThenElse(vec![case], Some(last.into()))
            }
            *other = Some(last.into())
        }
        Term::Str(format, parts) => {
            let format = format.take();
            for part in parts {
                if let (StrPart::Term(term), Some(format)) = (part, format) {
                    *term = pipe(std::mem::take(term), None, Term::Call(format, Vec::new()))
                }
            }
        }
        _ => (),
    }
    parts(&mut term).into_iter().for_each(|part| *part = simplified(std::mem::take(part)));
    term
}

pub(super) fn literal(text: &str) -> Term<'_> {
    Term::Str(None, vec![StrPart::Str(text)])
}

pub(super) fn array(elements: Vec<Term<'_>>) -> Term<'_> {
    let elements = elements.into_iter().reduce(|left, right| Term::BinOp(left.into(), BinaryOp::Comma, right.into()));
    Term::Arr(elements.map(Box::new))
}

/// The terms between the commas of an array.
pub(super) fn elements(inner: Term<'_>) -> Vec<Term<'_>> {
    let (mut elements, mut rest) = (Vec::new(), inner);
    while let Term::BinOp(left, BinaryOp::Comma, right) = rest {
        elements.push(*right);
        rest = *left
    }
    elements.push(rest);
    elements.reverse();
    elements
}

pub(super) fn pipe<'a>(left: Term<'a>, pattern: Option<Pattern<&'a str>>, right: Term<'a>) -> Term<'a> {
    Term::BinOp(left.into(), BinaryOp::Pipe(pattern), right.into())
}

/// The variables of a pattern. None: it has a key that is more than a string.
pub(super) fn variables<'p, 'a>(pattern: &'p mut Pattern<&'a str>) -> Option<Vec<&'p mut &'a str>> {
    let inner: Vec<_> = match pattern {
        Pattern::Var(name) => return Some(vec![name]),
        Pattern::Arr(all) => all.iter_mut().map(variables).collect::<Option<_>>()?,
        Pattern::Obj(pairs) => {
            let pair = |(key, part): &'p mut (Term<'a>, _)| plain(key).and_then(|_| variables(part));
            pairs.iter_mut().map(pair).collect::<Option<_>>()?
        }
    };
    Some(inner.into_iter().flatten().collect())
}

/// The text of a string without terms in it.
pub(super) fn plain(term: &Term<'_>) -> Option<String> {
    let Term::Str(None, parts) = term else { return None };
    let text = |part: &StrPart<&str, Term<'_>>| match part {
        StrPart::Str(piece) => Some((*piece).to_owned()),
        StrPart::Char(character) => Some(character.to_string()),
        StrPart::Term(_) => None,
    };
    parts.iter().map(text).collect()
}
