//! How deep filter source nests. jaq lexes, parses and compiles by recursion, up to several kilobytes of stack a level; so a source that
//! nests too deep is rejected before jaq sees it. Pure, and without recursion.

/// Levels of brackets, strings with interpolation, definitions, conditionals and prefixes. Written programs have a dozen.
pub(super) const MAX_NESTING: usize = 200;

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
    /// `as` and `label`: up to the end of the pipe.
    Binding,
}

/// Where `source` nests deeper than [`MAX_NESTING`], as a byte offset.
pub(super) fn too_deep(source: &str) -> Option<usize> {
    let bytes = source.as_bytes();
    let mut open: Vec<Open> = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        if open.len() > MAX_NESTING {
            return Some(at);
        }
        let rest = &bytes[at..];
        if open.last() == Some(&Open::Text) {
            match rest {
                [b'\\', b'(', ..] => {
                    open.push(Open::Interpolation);
                    at += 2
                }
                [b'\\', ..] => at += 2,
                [b'"', ..] => {
                    open.pop();
                    end_term(&mut open);
                    at += 1
                }
                _ => at += 1,
            }
            continue;
        }
        match rest[0] {
            b'#' => at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()),
            b'"' => {
                open.push(Open::Text);
                at += 1
            }
            b'(' | b'[' | b'{' => {
                open.push(Open::Bracket);
                at += 1
            }
            b')' | b']' | b'}' => {
                // whatever was left open within ends here
                while open.pop().is_some_and(|inner| !matches!(inner, Open::Bracket | Open::Interpolation)) {}
                end_term(&mut open);
                at += 1
            }
            b';' => {
                end_pipe(&mut open);
                if open.last() == Some(&Open::Definition) {
                    open.pop();
                }
                at += 1
            }
            b',' => {
                end_pipe(&mut open);
                at += 1
            }
            b'-' => {
                open.push(Open::Prefix);
                at += 1
            }
            byte if byte.is_ascii_alphabetic() || byte == b'_' || byte == b'$' || byte == b'@' || byte == b'.' => {
                let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_$@.:".contains(byte);
                let length = rest.iter().position(|byte| !is_word(byte)).unwrap_or(rest.len());
                match &rest[..length] {
                    b"def" => open.push(Open::Definition),
                    b"if" => open.push(Open::Condition),
                    b"then" | b"elif" | b"else" => end_pipe(&mut open),
                    b"end" => {
                        end_pipe(&mut open);
                        if open.last() == Some(&Open::Condition) {
                            open.pop();
                        }
                        end_term(&mut open)
                    }
                    b"reduce" | b"foreach" | b"try" => open.push(Open::Prefix),
                    b"label" | b"as" => open.push(Open::Binding),
                    _ => end_term(&mut open),
                }
                at += length
            }
            byte => {
                if byte.is_ascii_digit() {
                    end_term(&mut open)
                }
                at += 1
            }
        }
    }
    None
}

fn end_term(open: &mut Vec<Open>) {
    while open.last() == Some(&Open::Prefix) {
        open.pop();
    }
}

fn end_pipe(open: &mut Vec<Open>) {
    while matches!(open.last(), Some(Open::Prefix | Open::Binding)) {
        open.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nests_without_end_is_found() {
        for piece in [
            "(",
            "[",
            "{a:",
            "\"\\(",
            "def f: ",
            "if . then ",
            "try ",
            "reduce . as $x (",
            "-",
            ". as $x | ",
            "label $x | ",
        ] {
            let deep = piece.repeat(MAX_NESTING + 2);
            assert!(too_deep(&deep).is_some(), "{piece}");
            assert_eq!(too_deep(&piece.repeat(50)), None, "{piece}");
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
            "try .a | ",
            "try error(\"x\") catch . | ",
            "{as: 1} | ",
            "{if: 1, def: 2} | ",
            ".if | .def | ",
            "if . then 1 elif . then 2 else 3 end | ",
            ". // ",
            "reduce .[] as $x (0; . + $x), ",
        ] {
            assert_eq!(too_deep(&piece.repeat(1000)), None, "{piece}");
        }
    }
}
