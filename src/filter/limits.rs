//! Limits of filter source: how deep it nests, and how many tokens it has. jaq lexes, parses and compiles by recursion, with up to several
//! kilobytes of stack a level, and with about two kilobytes of memory a token; so a source beyond the limits is rejected before jaq sees
//! it. Pure, and without recursion.

/// Levels of brackets, strings with interpolation, definitions, conditionals and prefixes. Written programs have a dozen.
const MAX_NESTING: usize = 200;
/// Tokens of all sources of a program together: names, numbers, strings, and each character of an operator. The default filter
/// has five hundred.
const MAX_TOKENS: usize = 8192;

/// What is open at some place of the source.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Open {
    Bracket,
    /// A string, from its quote on.
    Text,
    /// `\(` in a string.
    Interpolation,
    /// `def`, up to its `;`.
    Definition,
    /// `if`, up to its `end`.
    Condition,
    /// `reduce`, `foreach`, `try`, `-`: up to the end of the term behind it.
    Prefix,
}

/// The tokens of a program's sources so far.
#[derive(Debug, Default)]
pub(super) struct Tokens(usize);

impl Tokens {
    /// Adds a source. Errors: the byte offset at which a limit is exceeded, and which one.
    pub(super) fn add(&mut self, source: &str) -> Result<(), (usize, String)> {
        let mut open: Vec<Open> = Vec::new();
        let mut at = 0;
        while at < source.len() {
            let (length, is_token) = step(source.as_bytes(), at, &mut open);
            self.0 += usize::from(is_token);
            if open.len() > MAX_NESTING {
                return Err((at, format!("nested deeper than {MAX_NESTING}")));
            }
            if self.0 > MAX_TOKENS {
                return Err((at, format!("the filter and its modules have more than {MAX_TOKENS} tokens")));
            }
            at += length
        }
        Ok(())
    }
}

/// Reads what is at `at`, and keeps `open` up to date. Returns its length, and whether it is a token.
fn step(source: &[u8], at: usize, open: &mut Vec<Open>) -> (usize, bool) {
    let rest = &source[at..];
    if open.last() == Some(&Open::Text) {
        return match rest {
            [b'\\', b'(', ..] => {
                open.push(Open::Interpolation);
                (2, true)
            }
            [b'\\', ..] => (2, true),
            [b'"', ..] => {
                open.pop();
                end_term(open);
                (1, false)
            }
            _ => (1, false),
        };
    }
    let run = |is_part: fn(&u8) -> bool| rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
    match rest[0] {
        b'#' => return (run(|byte| *byte != b'\n'), false),
        byte if byte.is_ascii_whitespace() => return (1, false),
        byte if byte.is_ascii_digit() => {
            end_term(open);
            return (run(u8::is_ascii_digit), true);
        }
        byte if byte.is_ascii_alphabetic() || byte == b'_' => {
            let length = run(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
            // `.if`, `$if`, `@if` and `{if: 1}` are names
            let is_name = at > 0 && b".$@".contains(&source[at - 1])
                || rest[length..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
            on_word(if is_name { b"" } else { &rest[..length] }, open);
            return (length, true);
        }
        b'"' => open.push(Open::Text),
        b'(' | b'[' | b'{' => open.push(Open::Bracket),
        b')' | b']' | b'}' => {
            // whatever was left open within ends here
            while open.pop().is_some_and(|inner| !matches!(inner, Open::Bracket | Open::Interpolation)) {}
            end_term(open)
        }
        b';' => {
            end_term(open);
            close(open, Open::Definition)
        }
        b',' | b'.' => end_term(open),
        b'-' => open.push(Open::Prefix),
        _ => (),
    }
    (1, true)
}

fn on_word(word: &[u8], open: &mut Vec<Open>) {
    match word {
        b"def" => open.push(Open::Definition),
        b"if" => open.push(Open::Condition),
        b"reduce" | b"foreach" | b"try" => open.push(Open::Prefix),
        b"end" => {
            end_term(open);
            close(open, Open::Condition);
            end_term(open)
        }
        _ => end_term(open),
    }
}

fn end_term(open: &mut Vec<Open>) {
    while open.last() == Some(&Open::Prefix) {
        open.pop();
    }
}

fn close(open: &mut Vec<Open>, what: Open) {
    if open.last() == Some(&what) {
        open.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nests_without_end_is_found() {
        for piece in
            ["(", "[", "{a:", "\"\\(", "def f: ", "if . then ", "try ", "reduce . as $x (", "-", "def f:", "if.then("]
        {
            let (_, why) = Tokens::default().add(&piece.repeat(MAX_NESTING + 2)).unwrap_err();
            assert_eq!(why, "nested deeper than 200", "{piece}");
            assert_eq!(Tokens::default().add(&piece.repeat(50)), Ok(()), "{piece}");
        }
    }

    #[test]
    fn what_follows_each_other_does_not_nest() {
        for piece in [
            "def f: 1;\n",
            "(1), ",
            "[1, [2]], ",
            "if . then 1 else 2 end, ",
            "try error(1) catch ., ",
            "\"a\\(1)b\" , ",
            "\"(((\" , ",
            "\"\\\\\" , \"\\\"(\" , ",
            "# ((((\n",
            "-1, ",
            "1 - -1 - ",
            ". as $x | ",
            "label $x | ",
            "if 1then 2else 3end, ",
            "try .a | ",
            "try error(\"x\") catch . | ",
            "{as: 1} | ",
            "{if: 1, def: 2} | ",
            ".if | .def | ",
            "if . then 1 elif . then 2 else 3 end | ",
            ". // ",
            "reduce .[] as $x (0; . + $x), ",
        ] {
            assert_eq!(Tokens::default().add(&piece.repeat(300)), Ok(()), "{piece}");
        }
    }

    #[test]
    fn the_tokens_of_all_sources_count() {
        let mut tokens = Tokens::default();
        for (source, count) in [(" # a comment\n", 0), ("abc_1", 1), (".a | 12", 4), (r#""text" "a\n\(1)""#, 6)] {
            let before = tokens.0;
            tokens.add(source).unwrap();
            assert_eq!(tokens.0 - before, count, "{source}");
        }
        tokens.0 = MAX_TOKENS - 3;
        let (at, why) = tokens.add(". , . , .").unwrap_err();
        assert_eq!((at, &why[..]), (6, "the filter and its modules have more than 8192 tokens"));
    }
}
