//! Rewrites filter source where jaq would recurse or hold memory without evaluating a term, and so escape the meter.
//!
//! jaq makes tail calls in constant stack, but one that passes a filter lengthens a chain of closures, which jaq drops by recursion.
//! So calls that pass something to definitions that take filters, `f(g)`, become `(f(g)|.)`: no tail calls, they meet the stack's
//! floor instead. So do the projections of `foreach`: what a tail call there leaves behind is not freed before the end.

use jaq_core::load::lex::{Lexer, StrPart, Tok, Token};
use jaq_core::load::span;
use std::borrow::Cow;
use std::collections::HashSet;

/// jaq runs along a path (`.a.b.c`) by recursion that evaluates no term.
const MAX_PATH_PARTS: usize = 256;

/// Names of definitions that take filters, in all sources of a program.
pub(super) type Names = HashSet<String>;

/// Adds the definitions of `code` that take filters.
pub(super) fn collect_names(code: &str, names: &mut Names) {
    let tokens = Lexer::new(code).lex().unwrap_or_default();
    each_block(&tokens, &mut |block| {
        for window in block.windows(3) {
            if let [Token("def", _), Token(name, _), Token(_, Tok::Block(parameters))] = window
                && parameters.iter().any(|parameter| matches!(parameter.1, Tok::Word))
            {
                names.insert((*name).to_owned());
            }
        }
    })
}

/// The rewritten source. Code that does not lex comes back as it is: the compiler says what is wrong with it.
///
/// Errors: a path of too many parts.
pub(super) fn rewrite<'c>(code: &'c str, names: &Names) -> Result<Cow<'c, str>, String> {
    let tokens = Lexer::new(code).lex().unwrap_or_default();
    if longest_path(&tokens) > MAX_PATH_PARTS {
        return Err(format!("a path of more than {MAX_PATH_PARTS} parts"));
    }
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
        return Ok(Cow::Borrowed(code));
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
    Ok(Cow::Owned(rewritten))
}

/// Calls `see` with the tokens of every nesting level.
pub(super) fn each_block<'t, 's>(tokens: &'t [Token<&'s str>], see: &mut dyn FnMut(&'t [Token<&'s str>])) {
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

fn longest_path(tokens: &[Token<&str>]) -> usize {
    let mut longest = 0;
    each_block(tokens, &mut |block| {
        let mut length = 0;
        for token in block {
            length = if token.0.starts_with(['.', '?', '[', '"']) { length + 1 } else { 0 };
            longest = longest.max(length);
        }
    });
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(code: &str) -> String {
        let mut names = Names::new();
        collect_names(code, &mut names);
        rewrite(code, &names).unwrap().into_owned()
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
        let names = Names::from(["f".to_owned()]);
        assert_eq!(rewrite("m::f(.a)", &names).unwrap(), "(m::f(.a)|.)");
    }

    #[test]
    fn a_path_has_a_maximum_length() {
        assert_eq!(rewritten(&".a".repeat(200)), ".a".repeat(200));
        assert!(rewrite(&".a".repeat(300), &Names::new()).is_err());
    }
}
