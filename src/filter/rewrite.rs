//! Rewrites filter source where jaq would recurse or hold memory without evaluating a term, and so escape the meter.
//!
//! jaq makes tail calls in constant stack, but one that passes a filter lengthens a chain of closures, which jaq drops by recursion.
//! So calls that pass something to definitions that take filters, `f(g)`, become `(f(g)|.)`: no tail calls, they meet the stack's
//! floor instead. So do the projections of `foreach`: what a tail call there leaves behind is not freed before the end.

use super::syntax::{Term, each};
use jaq_core::load::lex::{Lexer, StrPart, Tok, Token};
use jaq_core::load::span;
use std::borrow::Cow;
use std::collections::HashSet;

/// Names of definitions that take filters, in all sources of a program.
pub(super) type Names<'c> = HashSet<&'c str>;

/// Adds the definitions of a program that take filters.
pub(super) fn collect_names<'c>(tree: &mut Term<'c>, names: &mut Names<'c>) {
    each(tree, &mut |term| {
        if let Term::Def(definitions, _) = term {
            let take_filters = definitions.iter().filter(|def| def.args.iter().any(|arg| !arg.starts_with('$')));
            names.extend(take_filters.map(|def| def.name))
        }
    })
}

/// The rewritten source. Code that does not lex comes back as it is: the compiler says what is wrong with it.
pub(super) fn rewrite<'c>(code: &'c str, names: &Names<'_>) -> Cow<'c, str> {
    let tokens = Lexer::new(code).lex().unwrap_or_default();
    let mut insertions = Vec::new();
    each_block(&tokens, &mut |block| {
        for at in 1..block.len() {
            let Token(text, Tok::Block(inner)) = &block[at] else { continue };
            if !text.starts_with('(') {
                continue;
            }
            let before = |distance: usize| at.checked_sub(distance).and_then(|at| block.get(at));
            if let Some(Token(name, Tok::Word | Tok::Fmt)) = before(1) {
                let is_definition = before(2).is_some_and(|token| token.0 == "def");
                let last = name.rsplit("::").next().unwrap_or(name);
                if names.contains(last) && !is_definition {
                    insertions.push((span(code, name).start, "("));
                    insertions.push((span(code, text).end, "|.)"));
                }
            }
            // foreach SOURCE as $x (INIT; UPDATE; PROJECTION)
            let separators: Vec<_> = inner.iter().filter(|token| token.0 == ";").collect();
            if before(2).is_some_and(|token| token.0 == "as") && separators.len() == 2 {
                insertions.push((span(code, separators[1].0).end, "("));
                insertions.push((span(code, text).end - 1, "|.)"));
            }
        }
    });
    if insertions.is_empty() {
        return Cow::Borrowed(code);
    }
    insertions.sort_by_key(|(at, _)| *at);
    let mut rewritten = String::with_capacity(code.len() + 3 * insertions.len());
    let mut from = 0;
    for (at, text) in insertions {
        rewritten += &code[from..at];
        rewritten += text;
        from = at;
    }
    rewritten += &code[from..];
    Cow::Owned(rewritten)
}

/// Calls `see` with the tokens of every nesting level.
fn each_block<'t, 's>(tokens: &'t [Token<&'s str>], see: &mut dyn FnMut(&'t [Token<&'s str>])) {
    see(tokens);
    for token in tokens {
        match &token.1 {
            Tok::Block(inner) => each_block(inner, see),
            Tok::Str(parts) => {
                for part in parts {
                    if let StrPart::Term(term) = part {
                        each_block(std::slice::from_ref(term), see)
                    }
                }
            }
            _ => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::syntax::tree;
    use super::*;

    fn rewritten(code: &str) -> String {
        let mut names = Names::new();
        let tokens = Lexer::new(code).lex().unwrap();
        collect_names(&mut tree(&tokens, true).unwrap(), &mut names);
        rewrite(code, &names).into_owned()
    }

    #[test]
    fn calls_that_pass_filters_are_no_tail_calls() {
        assert_eq!(rewritten("def f(g): f(g); f(.)"), "def f(g): (f(g)|.); (f(.)|.)");
        assert_eq!(rewritten("def f($x): f($x); f(1)"), "def f($x): f($x); f(1)");
        assert_eq!(rewritten(r#"def f(g): g; "\(f(.))""#), r#"def f(g): g; "\((f(.)|.))""#);
        assert_eq!(rewritten("foreach .[] as $x (0; .+$x; .)"), "foreach .[] as $x (0; .+$x;( .|.))");
    }

    #[test]
    fn a_call_into_a_module_counts() {
        let names = Names::from(["f"]);
        assert_eq!(rewrite("m::f(.a)", &names), "(m::f(.a)|.)");
    }
}
