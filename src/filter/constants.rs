//! Finds regexes in filter source that are constants and do not compile, so that a mistake shows at start. Pure.

use super::regex;
use super::rewrite::each_block;
use jaq_core::load::lex::{Lexer, StrPart, Tok, Token};
use std::collections::HashSet;

/// Definitions whose first argument is a regex, with the place of their flags among the arguments.
const TAKE_REGEX: [(&str, usize); 8] =
    [("test", 1), ("match", 1), ("capture", 1), ("scan", 1), ("splits", 1), ("sub", 2), ("gsub", 2), ("split", 1)];

/// Adds the names that `code` defines, which may hide those of [`TAKE_REGEX`].
pub(super) fn collect_defined(code: &str, defined: &mut HashSet<String>) {
    let tokens = Lexer::new(code).lex().unwrap_or_default();
    each_block(&tokens, &mut |block| {
        for window in block.windows(2) {
            if let [Token("def", _), Token(name, _)] = window {
                defined.insert((*name).to_owned());
            }
        }
    })
}

/// Calls `report` with each constant regex that does not compile, as it is in `code`, and why. `defined`: names that the program defines
/// itself.
pub(super) fn check_regexes<'c>(code: &'c str, defined: &HashSet<String>, report: &mut dyn FnMut(&'c str, String)) {
    let tokens = Lexer::new(code).lex().unwrap_or_default();
    each_block(&tokens, &mut |block| {
        for window in block.windows(2) {
            let [Token(name, Tok::Word), Token(text, Tok::Block(arguments))] = window else { continue };
            let Some((_, flags_at)) = TAKE_REGEX.iter().find(|(known, _)| known == name) else { continue };
            if !text.starts_with('(') || defined.contains(*name) {
                continue;
            }
            let arguments = match arguments.split_last() {
                Some((Token(")", _), arguments)) => arguments,
                _ => arguments,
            };
            let arguments: Vec<&[Token<&str>]> = arguments.split(|token| token.0 == ";").collect();
            if *name == "split" && arguments.len() == 1 {
                continue; // it takes text, not a regex
            }
            let Some((regex, place)) = arguments.first().and_then(|first| Some((constant(first)?, first.first()?.0)))
            else {
                continue;
            };
            let flags = match arguments.get(*flags_at) {
                None => Some(String::new()),
                Some([Token("null", Tok::Word)]) => Some(String::new()),
                Some(flags) => constant(flags),
            };
            if let Some(flags) = flags
                && let Err(why) = regex::check(&regex, &flags)
            {
                report(place, why)
            }
        }
    })
}

/// The text of a string without interpolation that stands alone.
fn constant(argument: &[Token<&str>]) -> Option<String> {
    let [Token(_, Tok::Str(parts))] = argument else { return None };
    let mut text = String::new();
    for part in parts {
        match part {
            StrPart::Str(piece) => text += piece,
            StrPart::Char(character) => text.push(*character),
            StrPart::Term(_) => return None,
        }
    }
    Some(text)
}
