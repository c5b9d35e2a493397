//! A filter gives the same with and without partial evaluation: every filter of the repository, and generated ones.
//!
//! `FOLD_SEED` and `FOLD_FILTERS` choose others: the first seed, and how many.

use crate::filter::tests::{limits, run};
use crate::filter::{Filter, Outcome, Source};
use std::path::PathBuf;

const BODIES: [&str; 12] = [
    r#"{"id":"a1","args":["Hello","world"],"a":1,"b":[1,2,3],"c":{"a":"x","b":null}}"#,
    r#"{"id":"A_b","phrase":"p","args":[],"a":"s","b":{"x":5},"c":[{"a":1},{"a":2}]}"#,
    r#"{"a":null,"b":false,"c":3.5}"#,
    r#"{"number":1042,"customer":"ACME","image":"i:1","spec":{"template":{"spec":{"containers":[{"image":"x"}]}}}}"#,
    "null",
    "[]",
    "[1,[2,{\"a\":3}],null]",
    "\"text\"",
    "5",
    "true",
    r#"{"id":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#,
    r#"{"action":"opened","repository":{"name":"r","full_name":"o/r"},"ref":"refs/heads/main","kind":"small","gpu":true}"#,
];

/// With and without, or None if it does not compile.
fn both(code: &str) -> Option<[Filter; 2]> {
    let source = Source { code, name: "<argument>", folder: None };
    match [true, false]
        .map(|folds| Filter::compile_with(source, limits(), &[&["a"], &["b", "c"], &["metadata", "name"]], folds))
    {
        [Ok(folded), Ok(plain)] => Some([folded, plain]),
        [Err(folded), Err(plain)] => {
            assert_eq!(folded, plain);
            None
        }
        [folded, plain] => panic!("{code}: {folded:?} but {plain:?}"),
    }
}

/// Returns whether anything was folded.
fn check(code: &str) -> bool {
    let Some([folded, plain]) = both(code) else { return false };
    for body in BODIES {
        let (want, got) = (run(&plain, body.as_bytes()), run(&folded, body.as_bytes()));
        // less is computed, so a limit may not be met
        if !matches!(want, Outcome::Limit(_)) {
            assert_eq!(want, got, "{code} on {body}");
        }
    }
    folded.layouts.is_some()
}

#[test]
fn the_example_of_the_rules_is_what_happens() {
    let rules = include_str!("walk.rs");
    let code: Vec<_> =
        rules.lines().skip_while(|line| *line != "//! ```jq").skip(1).take(2).map(|line| &line[4..]).collect();
    let code = code.join("\n");
    assert!(check(&code));
    let [folded, _] = both(&code).unwrap();
    let layouts: Vec<_> = folded.layouts.unwrap().iter().map(|layout| layout.shown()).collect();
    assert_eq!(layouts, [r#"{"image":_,"cpus":2,"args":["ac","bc"]}"#]);
    assert!(rules.contains(&layouts[0]));
}

#[test]
fn filters_of_the_repository_give_the_same() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src"), root.join("tests")];
    let (mut all, mut folded) = (0, 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path)
            } else if path.extension().is_some_and(|end| end == "jq") {
                folded += usize::from(check(&std::fs::read_to_string(&path).unwrap()));
                all += 1
            }
        }
    }
    assert!(all > 10 && folded * 2 > all, "{folded} of {all} filters were folded");
}

#[test]
fn cases_that_are_easy_to_get_wrong_give_the_same() {
    for code in [
        "def f(g): . as $x | g; 1 as $x | f($x)",
        "def f($x; g): $x | g; f(1, 2; f(3; . + 1))",
        "def f: 1; def g: f; def f: 2; [g, f]",
        "def f(f): f; f(.a?)",
        "def f($a; $b): [$a, $b]; [f((1, 2); (3, 4))]",
        "def f($a): def g: $a; g; [f(1), f(2)]",
        "def map(f): 5; map(1)",
        "def select(f): \"own\"; [.[]?] | map(select(true))",
        "def r($n): if $n > 3 then $n else r($n + 1) end; {a: r(0), b: r(.a? // 0)}",
        "def r(f): if f > 3 then . else 4 | r(.) end; [1 | r(.)]",
        "{a: error(\"x\"), b: error(\"y\")}",
        "{a: .b?, c: (.d // error(\"z\"))}",
        "{a: 1, a: .x?}, {a: .x?, b: 2, a: 3}",
        "{a: 1, b: error(\"first\")} + {a: error(\"second\")}",
        "{a: 1, b: .} + {a: 2, c: [.]}",
        "(\"x\" * 1000) as $x | {a: $x, b: [$x, .]}",
        "{a: .x?} + {a: 1}",
        "{a: .x?} + {a: error(\"lost\")}",
        "{a: (1, 2), b: .}",
        "[path(1)?, path(try error(\"x\") catch .)?, (try path(try error(\"x\") catch 1) catch .)]",
        "try path(\"a\" | ascii_upcase) catch .",
        "(1 as $x | 2) |= 5",
        "try ((if true then .a else .b end) |= 5) catch .",
        "first(1, error(\"x\"))",
        "[.[]? as [$x, {a: $y}] | {$x, $y}]",
        "label $out | (1, 2, break $out, 3)",
        "def f(g): label $out | (g, 9); label $out | f(1, break $out)",
        "[foreach (1, 2, 3) as $x (0; . + $x; [$x, .])]",
        "reduce (\"a\", \"b\") as $x (.; [., $x]) | {a: .}",
        "[limit(2; $ENV | keys_unsorted[])] | length",
        "\"a\" as $x | {$x, b: $x, \"c\\($x)\": 1, @base64 \"d\": 2, (\"e\", \"f\"): $x}",
        "{\"a\": 1, \"b\": [2, {c: .}], d: {e: {f: .a?}}}",
        "[{a: .}, {b: 1}, [.], [[]], {}]",
        "def f: def g: 3; g + 1; {a: f, b: (f | tostring)}",
        "$ENV.NOT_SET, $ENV.NOT_SET.a.b.c // 5, ($ENV | type)",
        "try ($ENV.NOT_SET | tonumber) catch .",
        "@json \"x\\(.)y\", @text \"\\(1 + 1)\", @base64 \"\\(\"a\")\"",
        "def @own: \"o\"; @own \"\\(1)\"",
        ".[1:2]?, .[$ENV.NOT_SET:1]?, .[(\"a\", \"b\")]?",
        "del(.a?), (.a? |= empty), ([paths] | length)",
        "1e1000?, 0.1 + 0.2, 12345678901234567890, -(5), -(.a? // 1)",
        "if (true, false) then 1 else 2 end",
        "(false, 1) // 2, (null // empty), (empty // 3)",
        "true and empty, (false or error(\"x\"))",
        "{a0:.,a1:.,a2:.,a3:.,a4:.,a5:.,a6:.,a7:.,a8:.,a9:.,b0:.,b1:.,b2:.,b3:.,b4:.,b5:.,b6:.,b7:{x:.},b8:[.,.],b9:1}",
        "[.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,1,2,[.]]",
        "{a:{b:[.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.,.]}}",
        "{metadata: {name: \"x\"}} | .metadata.name = \"y\" | .metadata.labels.a = \"b\"",
        "{a: {b: 1}} as $c | [$c | .a.b = 2], $c",
        "{a: {b: 1}, c: .} | .a.d = 1 | del(.a.b), .a",
        "[range(3)] | map(. * 2) | add",
        "now | type",
        "\"$REQUEST\" | length, $REQUEST.method",
        "input_line_number? // 1",
    ] {
        check(code);
    }
}

#[test]
fn what_is_constant_is_a_constant() {
    for (code, folds) in [
        ("{a: ($ENV.PATH | length), b: 1}", Some((1, 0))),
        ("{a: .x, b: {c: [1, 2, \"z\"]}}", Some((0, 1))),
        ("def f($n): $ENV[$n] // \"d\"; {a: f(\"NOT_SET\"), b: .}", Some((0, 1))),
        ("if $ENV.NOT_SET then .a else {b: .} end", Some((0, 1))),
        ("if . then {a: .} else {b: .} end | {c: .}", Some((0, 1))),
        (". as $x | if $x then {a: $x} else {b: .} end", Some((0, 2))),
        ("now", Some((0, 0))),
        ("@base64 \"\\(1 + 1)\" | {a: ., b: $PATH}", Some((0, 1))),
        (".a", Some((0, 0))),
        ("def r: if . then 1 else r end; r", None),
        ("label $out | 1", None),
    ] {
        let [folded, _] = both(code).unwrap();
        let found = folded.layouts.map(|layouts| (folded.constants.len(), layouts.len()));
        assert_eq!(found, folds, "{code}");
    }
}

#[test]
fn a_request_is_described_only_for_filters_that_use_it() {
    for (code, wants) in [("# $REQUEST\n{a: 1}", false), ("{a: $REQUEST.path}", true), ("\"$REQUEST\"", false)] {
        for filter in both(code).unwrap() {
            assert_eq!(filter.wants_request, wants, "{code}")
        }
    }
}

/// A generator of filters: xorshift, so that a seed gives the same filter everywhere.
struct Generator(u64);

impl Generator {
    fn number(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.number(of.len() as u64) as usize]
    }
    fn path(&mut self, depth: u32) -> String {
        let inner = self.term(depth.saturating_sub(1));
        match self.number(9) {
            0 => format!(".[{inner}]?"),
            1 => format!("(.c | select({inner}))"),
            2 => format!("({inner} as $x | .a)"),
            _ => self
                .pick(&[
                    ".a",
                    ".b[]?",
                    ".c.a",
                    "(.a, .c)",
                    "first(.a, .b)",
                    "p",
                    "(if .a then .a else .c end)",
                    "q(.c)",
                    "try error(1) catch .",
                    "h(1)",
                    "(.. | numbers)",
                    ".spec.template",
                    "r(.a)",
                    "getpath([\"a\"])",
                ])
                .into(),
        }
    }
    fn term(&mut self, depth: u32) -> String {
        if depth == 0 {
            return self
                .pick(&[
                    ".",
                    ".a",
                    "1",
                    "\"s\"",
                    "null",
                    "$ENV.HOME",
                    "$ENV.NONE",
                    "$PATH",
                    "$x",
                    "$y",
                    "[]",
                    "{}",
                    "true",
                    ".b",
                    ".c",
                    "2.5",
                    "k",
                    "env.HOME",
                    "\"a\\u0041\\n\"",
                    "[1,2]",
                    "{\"a\": 5}",
                    "empty",
                    "$ENV[\"HOME\"]",
                    "$REQUEST.method",
                    "false",
                ])
                .into();
        }
        let (a, b, c) = (self.term(depth - 1), self.term(depth - 1), self.term(depth - 1));
        let p = self.path(depth);
        const RARE: [&str; 2] = ["(label $out | A | ., break $out)", "(def r: if . == 3 then A else 3 | r end; B | r)"];
        const SHAPES: [&str; 68] = [
            "A // B",
            "(A, B)",
            "(A | B)",
            "(A as $x | B)",
            "if A then B else C end",
            "try (A) catch (B)",
            "(A)?",
            "{a: (A), b: (B)}",
            "{a: (A), \"b\": [(B), (C)], c: {d: (A)}}",
            "{((A) | tostring): (B)}",
            "[A]",
            "[(A), (B), (C)]",
            "(A + B)",
            "(A - B)",
            "(A == B)",
            "(A and B)",
            "((A) or (B))",
            "\"x\\(A)y\\(B)\"",
            "@base64 \"\\(A)\"",
            "f(A)",
            "g(A; B)",
            "[.[]? | A]",
            "reduce (A) as $x (B; . + $x)",
            "[foreach (A) as $y (B; $y; [., C])]",
            "first(A, B)",
            "[limit(2; A, B, C)]",
            "error(A)",
            "(P = B)",
            "(P |= B)",
            "(P += B)",
            "(P //= B)",
            "del(P)",
            "[path(P)]",
            "(A | map(B)?)",
            "(A | select(B))",
            "(A | tostring)",
            "(A | type)",
            "(A | length)",
            "(A | tojson)",
            "(try ($ENV.HOME | A | tonumber) catch B)",
            "[$ENV | to_entries[] | select(.key | startswith(\"H\")) | {name: .key, value: (A)}]",
            "(A | with_entries(.value = (B))?)",
            "(A | test(\"[a-z]+\")?)",
            "(A | gsub(\"[a-z]\"; B)?)",
            "(def w: A; def v($z): $z, B; v(w))",
            "(A as [$x, $y] | B)",
            "(A as {a: $x, \"b\": $y} | B)",
            "(A | .[B:2]?)",
            "(A | not)",
            "(A | isobject, isstring)",
            "any(A; B)",
            "(A | sort_by(B)?)",
            "({a: (A)} + {b: 1} + (B | objects))",
            "({a: (A)} + if B then {} else {c: 2} end)",
            "-(A)",
            "(A | @sha1)",
            "(s(A; \"d\") | B)",
            "{a: (A), a: (B), $x}",
            "(A | walk(B))",
            "(A | ltrimstr(\"s\") | ascii_upcase?)",
            "(A | recurse(if type == \"array\" then .[] else empty end))",
            "[A | paths]",
            "(A | [splits(\"b\")?])",
            "(A | if . == 1 then B elif . then C end)",
            "{a: [(A), {b: (B)}]} + {c: (C)}",
            "[range(3) | A]",
            "(A | until(true; B))",
            "(A | capture(\"(?<x>[a-z])\")?)",
        ];
        let shape = if self.number(60) == 0 { self.pick(&RARE) } else { self.pick(&SHAPES) };
        let mut filter = String::new();
        for (at, piece) in shape.char_indices() {
            let before = shape[..at].chars().next_back().unwrap_or(' ');
            match piece {
                'A' if !before.is_alphanumeric() => filter += &a,
                'B' => filter += &b,
                'C' => filter += &c,
                'P' => filter += &p,
                other => filter.push(other),
            }
        }
        filter
    }
}

#[test]
fn generated_filters_give_the_same() {
    let setting = |name, default| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (seed, filters): (u64, u64) = (setting("FOLD_SEED", 1), setting("FOLD_FILTERS", 60));
    let (mut compiled, mut folded) = (0, 0);
    for seed in seed..seed + filters {
        let mut generator = Generator(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        generator.number(2);
        let (a, b, c, d) = (generator.term(2), generator.term(1), generator.term(1), generator.term(3));
        let code = format!(
            "null as $x | \"yy\" as $y | def k: {b}; def p: .a | {c}; def q(f): f; def h($n): .c; \
             def r(f): if f == 7 then {{}} else f end; \
             def s($name; $default): $ENV[$name]? | if . == null or . == \"\" then $default else . end; \
             def f($x): [$x, {b}]; def g($x; f): [{c}, f, $x]; {{a: ({a}), d: [{d}], e: [.b[]?]}}"
        );
        let code = code.replacen("then {}", if seed % 8 == 0 { "then r(1)" } else { "then 1" }, 1);
        if std::env::var_os("FOLD_SHOW").is_some() {
            println!("{seed}: {code}")
        }
        let is_folded = check(&code);
        folded += u64::from(is_folded);
        compiled += 1;
    }
    assert!(folded * 3 > compiled, "{folded} of {compiled} were folded");
}
