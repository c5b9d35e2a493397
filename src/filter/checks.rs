//! Finds mistakes in a filter's syntax that show at start instead of at the first request that meets them: constant regexes that do not
//! compile, and paths that are too long. Pure.

use super::regex;
use super::syntax::{Term, each, plain};
use jaq_core::load::lex::StrPart;
use jaq_core::load::span;
use std::collections::HashSet;

/// jaq runs along a path (`.a.b.c`) by recursion that evaluates no term.
const MAX_PATH_PARTS: usize = 256;

/// Definitions whose first argument is a regex, with the place of their flags among the arguments.
const TAKE_REGEX: [(&str, usize); 8] =
    [("test", 1), ("match", 1), ("capture", 1), ("scan", 1), ("splits", 1), ("sub", 2), ("gsub", 2), ("split", 1)];

/// Errors: a path of too many parts.
pub(super) fn check_paths(tree: &mut Term<'_>) -> Result<(), String> {
    let mut longest = 0;
    each(tree, &mut |term| {
        if let Term::Path(_, path) = term {
            longest = longest.max(path.0.len())
        }
    });
    if longest > MAX_PATH_PARTS { Err(format!("a path of more than {MAX_PATH_PARTS} parts")) } else { Ok(()) }
}

/// Calls `report` with each constant regex that does not compile, as it is in `code`, and why. `defined`: names that the program defines
/// itself, which may hide those of [`TAKE_REGEX`].
pub(super) fn check_regexes<'c>(
    code: &'c str,
    tree: &mut Term<'c>,
    defined: &HashSet<&str>,
    report: &mut dyn FnMut(&'c str, String),
) {
    each(tree, &mut |term| {
        let Term::Call(name, args) = term else { return };
        let Some((_, flags_at)) = TAKE_REGEX.iter().find(|(known, _)| known == name) else { return };
        // split with one argument takes text
        if defined.contains(*name) || *name == "split" && args.len() == 1 {
            return;
        }
        let flags = match args.get(*flags_at) {
            None | Some(Term::Call("null", _)) => Some(String::new()),
            Some(flags) => plain(flags),
        };
        if let (Some(regex @ Term::Str(_, parts)), Some(flags)) = (args.first(), flags)
            && let Some(text) = plain(regex)
            && let Err(why) = regex::check(&text, &flags)
        {
            let place = match parts.first() {
                Some(StrPart::Str(piece)) => &code[span(code, piece).start - 1..], // with its quote
                _ => name,
            };
            report(place, why)
        }
    })
}
