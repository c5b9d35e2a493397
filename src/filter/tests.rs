use super::*;
use serde_json::{Value as Json, json};
use std::time::Duration;

const MEMORY: usize = 16 << 20;

pub(super) fn limits() -> Limits {
    Limits { steps: MAX_STEPS, memory: MEMORY, time: Duration::from_secs(20), stack: MAX_STACK, output: MAX_OUTPUT }
}

fn compile(code: &str) -> Filter {
    Filter::compile(Source { code, name: "<argument>", folder: None }, limits(), &[])
        .unwrap_or_else(|errors| panic!("{errors}"))
}

/// Runs as the server does: small, and if that is not enough, large, each on a thread with just the stack that it needs.
pub(super) fn run(filter: &Filter, body: &[u8]) -> Outcome {
    run_until(filter, body, Instant::now() + Duration::from_secs(60)).0
}

/// The outcome, and whether it took a large run.
fn run_until(filter: &Filter, body: &[u8], wall_end: Instant) -> (Outcome, bool) {
    let on_thread = |stack, run: &(dyn Fn(&Input<'_>) -> SmallRun + Sync)| {
        let on_it = || {
            run(&Input {
                seed: None,
                body,
                path: "/job/x",
                request: &|| json!({"method": "POST"}),
                fingerprint: &|_| String::new(),
                wall_end,
            })
        };
        std::thread::scope(|scope| {
            std::thread::Builder::new().stack_size(stack).spawn_scoped(scope, on_it).unwrap().join().unwrap()
        })
    };
    match on_thread(SMALL_RUN_STACK, &|input| filter.run_small(input)) {
        SmallRun::Done(outcome, _) => (outcome, false),
        SmallRun::NeedsLargeRun { log_lines } => {
            let large_run = |input: &Input<'_>| {
                let (outcome, took) = filter.run_large(input, log_lines);
                SmallRun::Done(outcome, took)
            };
            match on_thread(LARGE_RUN_STACK, &large_run) {
                SmallRun::Done(outcome, _) => (outcome, true),
                SmallRun::NeedsLargeRun { .. } => unreachable!("a large run is done"),
            }
        }
    }
}

fn outcome(code: &str, body: &str) -> Outcome {
    run(&compile(code), body.as_bytes())
}

fn give(code: &str, body: &str, want: &str) {
    match outcome(code, body) {
        Outcome::Output { output, .. } => assert_eq!(String::from_utf8_lossy(&output.json), want, "{code} on {body}"),
        other => panic!("{code} on {body} gave {other:?}"),
    }
}

#[test]
fn ordinary_filters_behave_as_in_jq() {
    for (code, body, want) in [
        (".", r#"{"b":1,"a":[1,2.5,"x",null,true]}"#, r#"{"b":1,"a":[1,2.5,"x",null,true]}"#),
        (". + 1", "299.0", "300"),
        (". * 1.0", "300", "300"),
        (".a.b.c = 1", "{}", r#"{"a":{"b":{"c":1}}}"#),
        (".[2] = 1", "[]", "[null,null,1]"),
        (".x += 1", "null", r#"{"x":1}"#),
        (".a // 5", "{}", "5"),
        ("[.[] | tostring]", r#"[1,1.5,"a",[1]]"#, r#"["1","1.5","a","[1]"]"#),
        ("to_entries", r#"{"a":1}"#, r#"[{"key":"a","value":1}]"#),
        ("with_entries(.value += 1)", r#"{"a":1}"#, r#"{"a":2}"#),
        ("del(.a)", r#"{"a":1,"b":2,"c":3}"#, r#"{"b":2,"c":3}"#),
        ("del(.[0])", "[1,2]", "[2]"),
        ("del(.[0,1])", "[1,2,3]", "[3]"),
        ("del(.[] | select(. > 1))", "[1,2,3]", "[1]"),
        ("del(.[1:])", "[1,2,3]", "[1]"),
        ("delpaths([paths(. == null)])", "[null,1,null,2]", "[1,2]"),
        ("del(.a.b, .c[0].d)", r#"{"c":[]}"#, r#"{"c":[]}"#),
        ("del(.a.b)", r#"{"a":null}"#, r#"{"a":null}"#),
        ("del(.[0:1])", "null", "null"),
        ("(.a.b | strings) |= ascii_downcase", r#"{"a":{}}"#, r#"{"a":{}}"#),
        ("(.a | select(.)) = 5", "{}", "{}"),
        ("(.. | .image? | strings) |= \"x\" + .", r#"{"a":[{"image":"i"},"s"]}"#, r#"{"a":[{"image":"xi"},"s"]}"#),
        (".a = null", "{}", r#"{"a":null}"#),
        (".a |= empty", r#"{"a":1,"b":2}"#, r#"{"b":2}"#),
        (".a[1].b = 1", "{}", r#"{"a":[null,{"b":1}]}"#),
        (r#"capture("(?<a>a)?(?<b>x)")"#, r#""xyz""#, r#"{"a":null,"b":"x"}"#),
        (
            r#"[match("(a)?(x)").captures[] | [.offset, .string, .name]]"#,
            r#""xyz""#,
            r#"[[-1,null,null],[0,"x",null]]"#,
        ),
        (r#"[scan("(z)?(a)")]"#, r#""xay""#, r#"[[null,"a"]]"#),
        (r#"[scan("a.")]"#, r#""abac""#, r#"["ab","ac"]"#),
        (r#"[test("B"; null), test(["B", "i"]), test("b")]"#, r#""abc""#, "[false,true,true]"),
        (r#"map(tonumber)"#, r#"["08", "+5", ".5", "1e3", "-0.25", 7]"#, "[8,5,0.5,1000,-0.25,7]"),
        (".", "[1.5e-300,4e-26,0.1,1e21]", "[1.5e-300,4e-26,0.1,1000000000000000000000]"),
        (".[1:]", "[1,2,3]", "[2,3]"),
        (".[1:3]", r#""äöüß""#, r#""öü""#),
        (".[:1] = [9, 9]", "[1,2]", "[9,9,2]"),
        ("sort_by(.a) | map(.a)", r#"[{"a":2},{"a":1}]"#, "[1,2]"),
        ("group_by(. % 2)", "[1,2,3]", "[[2],[1,3]]"),
        ("[min, max]", "[2,1,3]", "[1,3]"),
        ("unique", "[2,1,2]", "[1,2]"),
        ("[splits(\", *\")]", r#""a, b,c""#, r#"["a","b","c"]"#),
        (r#"sub("(?<x>b)"; "\(.x)!")"#, r#""abcb""#, r#""ab!cb""#),
        (r#"gsub("[^a-z]"; "-")"#, r#""aBc1""#, r#""a-c-""#),
        (r#"[match("(?<x>b)c"; "g") | .captures[0].name]"#, r#""abcbc""#, r#"["x","x"]"#),
        (r#"test("B"; "i")"#, r#""abc""#, "true"),
        ("indices(1)", "[0,1,1]", "[1,2]"),
        (r#"indices("ä")"#, r#""xäxä""#, "[1,3]"),
        (r#"contains({a: ["b"]})"#, r#"{"a":["abc"],"c":1}"#, "true"),
        ("{a: 1} * {a: {b: 2}}", "null", r#"{"a":{"b":2}}"#),
        ("[1,2,1] - [1]", "null", "[2]"),
        (r#""ab" * 2"#, "null", r#""abab""#),
        (r#""a,b" / ",""#, "null", r#"["a","b"]"#),
        ("6 / 4", "null", "1.5"),
        ("6 / 3", "null", "2"),
        ("9007199254740993", "null", "9007199254740993"),
        ("@base64", r#""a""#, r#""YQ==""#),
        ("@md5", r#""abc""#, r#""900150983cd24fb0d6963f7d28e17f72""#),
        ("@sha1", r#""abc""#, r#""a9993e364706816aba3e25717850c26c9cd0d89d""#),
        ("@sha256", r#""abc""#, r#""ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad""#),
        (r#"@sha1 "x\(.)""#, r#""abc""#, r#""xa9993e364706816aba3e25717850c26c9cd0d89d""#),
        ("cuid2 | length", "null", "24"),
        ("$PATH", "null", r#""/job/x""#),
        ("$REQUEST.method", "null", r#""POST""#),
        ("$ENV == env", "null", "true"),
        ("$ENV.PATH | type", "null", r#""string""#),
        ("fromdate", r#""2015-03-05T23:51:47Z""#, "1425599507"),
        ("try error(\"x\") catch .", "null", r#""x""#),
        ("[limit(3; repeat(1))]", "null", "[1,1,1]"),
        ("reduce .[] as $x (0; . + $x)", "[1,2,3]", "6"),
        ("[foreach .[] as $x (0; . + $x; [$x, .])]", "[1,2]", "[[1,1],[2,3]]"),
        ("def f(g): g; f(.a)", r#"{"a":1}"#, "1"),
        ("[paths]", r#"{"a":[1]}"#, r#"[["a"],["a",0]]"#),
        ("tojson", r#"{"a":1.0}"#, r#""{\"a\":1}""#),
        ("fromjson", r#""[1]""#, "[1]"),
        ("ascii_downcase", r#""AB""#, r#""ab""#),
    ] {
        give(code, body, want);
    }
}

#[test]
fn ways_to_end() {
    let error = |message: &str, details: Option<Json>| Outcome::Error { message: message.into(), details };
    for (code, want) in [
        ("empty", Outcome::Nothing),
        ("halt", Outcome::Nothing),
        ("halt_error", Outcome::Nothing),
        ("1, 2", Outcome::Many),
        ("nan", Outcome::Unwritable(Unwritable::NotFinite)),
        ("[infinite]", Outcome::Unwritable(Unwritable::NotFinite)),
        ("error(\"x\")", error("x", None)),
        ("error({a: 1})", error("{\"a\":1}", Some(json!({"a": 1})))),
        ("error(null)", error("null", None)),
        ("error(5)", error("5", Some(json!(5)))),
        ("{(1): 2}", error("cannot use number (1) as object key", None)),
        ("\"a secret that is long\" | .x", error("cannot index string (\"a secret t...) with string (\"x\")", None)),
        ("1, error(\"x\")", error("x", None)),
        ("\"0x1f\" | tonumber", error("string (\"0x1f\") cannot be parsed as a number", None)),
        ("[1234567890123456] | implode", error("array ([1234567890...) cannot be imploded", None)),
        ("[range(1e4)] | tojson | error", Outcome::Error { message: String::new(), details: None }),
    ] {
        match (outcome(code, "null"), want) {
            (Outcome::Error { message, .. }, Outcome::Error { message: want, .. }) if want.is_empty() => {
                assert_eq!(message.len(), MAX_MESSAGE, "{code}")
            }
            (got, want) => assert_eq!(got, want, "{code}"),
        }
    }
    let Outcome::Error { message, details } = outcome("[range(1e4)] | error", "null") else { panic!("no error") };
    assert!(message.len() <= MAX_MESSAGE && details == Some(message.into()));
    let Outcome::Error { message, .. } = outcome("{a: (\"é\" * 2000)} | error", "null") else { panic!("no error") };
    assert!(message.len() <= MAX_MESSAGE && message.ends_with("..."));
}

#[test]
fn bodies_are_strict_json() {
    for body in ["", "[1", "{'a':1}", "nan", "NaN", "01", "+1", "[1,]", "# x\n1", "\"\\ud800\"", "1 2", "1e1000"] {
        assert!(matches!(outcome(".", body), Outcome::BadBody(_)), "{body}");
    }
    assert!(matches!(run(&compile("."), b"\"\xff\""), Outcome::BadBody(_)));
    let nested = |levels| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    give("length", &nested(128), "1");
    let zeros = "0".repeat(400);
    assert!(matches!(outcome(".", &format!("[1{zeros}, 01{zeros}]")), Outcome::BadBody(_)));
    let Outcome::BadBody(why) = outcome(".", &nested(129)) else { panic!("too deep") };
    assert_eq!(why, "nested deeper than 128, at line 1 column 129");
    let deep = "[".repeat(200_000);
    assert!(matches!(outcome(".", &deep), Outcome::BadBody(_)));
    give(".", r#"{"a":1,"a":2}"#, r#"{"a":2}"#);
}

#[test]
fn what_is_wrong_with_a_body_is_said_with_its_place() {
    for (body, want) in [
        ("", "expected a value, but the text ends at line 1 column 1"),
        (" [1,\n 2,]", "expected a value, at line 2 column 4"),
        ("[1", "expected a comma or the end of the array or object, but the text ends at line 1 column 3"),
        ("[1 2]", "expected a comma or the end of the array or object, at line 1 column 4"),
        ("{'a':1}", "expected a key in double quotes, at line 1 column 2"),
        ("{\"a\":1,}", "expected a key in double quotes, at line 1 column 8"),
        ("{\"a\" 1}", "expected a colon, at line 1 column 6"),
        ("{\"a\":", "expected a value, but the text ends at line 1 column 6"),
        ("[", "expected a value or the end of the array, but the text ends at line 1 column 2"),
        ("{", "expected a key in double quotes or the end of the object, but the text ends at line 1 column 2"),
        (
            "{\"a\":1, ",
            "expected a key in double quotes or the end of the object, but the text ends at line 1 column 9",
        ),
        ("{\"a\":[}", "expected a value, at line 1 column 7"),
        ("nul", "expected a value, at line 1 column 1"),
        ("1 2", "unexpected text after the value, at line 1 column 3"),
        ("01", "unexpected text after the value, at line 1 column 2"),
        ("[1.]", "expected a digit, at line 1 column 4"),
        ("-", "expected a digit, but the text ends at line 1 column 2"),
        ("\"a", "unterminated string, but the text ends at line 1 column 3"),
        ("\"a\tb\"", "control character in a string, at line 1 column 3"),
        (r#""a\x""#, "invalid escape sequence, at line 1 column 4"),
    ] {
        assert_eq!(outcome(".", body), Outcome::BadBody(want.into()), "{body}");
    }
    let got = run(&compile("."), b"[1,\n\"ab\xff\"]");
    assert_eq!(got, Outcome::BadBody("invalid UTF-8, at line 2 column 4".into()));
}

#[test]
fn a_byte_order_mark_is_skipped_and_half_a_surrogate_pair_is_named() {
    give(".", "\u{feff}[1]", "[1]");
    for body in [r#""\ud800""#, r#""\ud800x""#, r#""\ud800\u0041""#, r#""\udc00""#, r#"{"\ud800": 1}"#] {
        let Outcome::BadBody(why) = outcome(".", body) else { panic!("{body} is accepted") };
        assert!(why.contains("half a surrogate pair") && why.contains("column"), "{body} gives {why}");
    }
}

#[test]
fn numbers_that_are_passed_on_keep_their_value() {
    let long = "7".repeat(1000);
    for (code, body, want) in [
        (".", "18446744073709551615", "18446744073709551615"),
        (".", &long, &long),
        (".[0]", "[12345678901234567891, 1.5, 1]", "12345678901234567891"),
        (
            "map(tostring)",
            "[12345678901234567891, 1e30, 0.5]",
            r#"["12345678901234567891","1000000000000000000000000000000","0.5"]"#,
        ),
        (".a.b", r#"{"1": 2, "a": {"b": 0.30000000000000000000004}}"#, "0.30000000000000000000004"),
        (". + 1", "12345678901234567890", "12345678901234567000"),
        ("-.", "5", "-5"),
        ("12345678901234567891", "null", "12345678901234567891"),
        ("tojson | fromjson", "12345678901234567891", "12345678901234567891"),
        ("tonumber", r#""12345678901234567891""#, "12345678901234567891"),
        (". == 12345678901234567890", "12345678901234567891", "false"),
        (
            "unique",
            "[12345678901234567891, 12345678901234567890, 12345678901234567891.0]",
            "[12345678901234567890,12345678901234567891]",
        ),
        ("sort", "[1e400000000000000000000, 2]".replace("1e400000000000000000000", "3").as_str(), "[2,3]"),
        ("floor", "0.99999999999999999999999", "1"),
        ("length", "-12345678901234567891", "12345678901234567000"),
        ("[floor == ., round == ., ceil == .]", "1e23", "[true,true,true]"),
        ("[floor, ceil, round]", "-2.5", "[-3,-2,-3]"),
        (".[.i]", r#"{"i": 12345678901234567891}"#, "null"),
    ] {
        if code == ".[.i]" {
            assert!(matches!(outcome(code, body), Outcome::Error { .. }));
            continue;
        }
        give(code, body, want);
    }
    for (body, why) in [
        ("[1e400]", "the number 1e400 exceeds the range of a double, at line 1 column 6"),
        (&format!("1{long}"), "the number 17777777777777777777... has more than 1000 digits"),
    ] {
        let Outcome::BadBody(text) = outcome(".", body) else { panic!("{body} is accepted") };
        assert!(text.starts_with(why) && text.contains(" at line "), "{text}");
    }
}

#[test]
fn equal_bodies_are_equal_in_canonical_form() {
    let canonical = |body: &str| String::from_utf8(parse(body.as_bytes()).unwrap().to_canonical_json(0)).unwrap();
    let want = r#"{"a":[1,{"x":2,"y":3}],"b":"ä"}"#;
    assert_eq!(canonical(want), want);
    assert_eq!(canonical("{ \"b\" : \"\\u00e4\", \"a\" : [1.0, {\"y\":3,\"x\":2}] }"), want);
    assert_eq!(canonical("12345678901234567890123"), "12345678901234567890123");
    assert_ne!(canonical("12345678901234567890"), canonical("12345678901234567891"));
}

#[test]
fn hostile_filters_and_bodies_end() {
    let small = Limits { steps: 300_000, ..limits() };
    for (code, limit) in [
        ("def f: f; f", Exceeded::Steps),
        ("last(range(1e18))", Exceeded::Steps),
        ("repeat(empty)", Exceeded::Steps),
        ("until(false; .)", Exceeded::Steps),
        ("[recurse(.)]", Exceeded::Memory),
        ("[repeat(1)]", Exceeded::Memory),
        ("[range(1e9)]", Exceeded::Memory),
        ("def f: 1 + f; f", Exceeded::Stack),
        ("def f: [f]; f", Exceeded::Stack),
        ("def f: f | f; f", Exceeded::Stack),
        ("def f: try f catch f; f", Exceeded::Stack),
        ("def f(g): f(g | g); f(.)", Exceeded::Stack),
        ("[] | path(def f: .[{}] | f; f)", Exceeded::Memory),
        ("\"a\" | path(reduce range(160000) as $i (.; .[{}])) | length", Exceeded::Memory),
        ("[range(40000)] | . as $x | def f: .[] |= ($x | f); f", Exceeded::Memory),
        ("def f(g): f(g + 1); f(.)", Exceeded::Stack),
        ("reduce range(1e6) as $i (null; [.])", Exceeded::Depth),
        ("\"x\" * 9223372036854775807", Exceeded::Memory),
        ("reduce range(60) as $i (\"x\"; . + .)", Exceeded::Memory),
        ("reduce range(30) as $i (1; [., .]) | tojson", Exceeded::Memory),
        ("(\"ab\" * 20000) | [range(1000)] | map(\"\\(.)\" * 100000)", Exceeded::Memory),
        ("try (def f: f; f) catch 1", Exceeded::Steps),
    ] {
        let source = Source { code, name: "<argument>", folder: None };
        let got = run(&Filter::compile(source, small, &[]).unwrap(), b"null");
        let is_either = matches!(got, Outcome::Limit(Exceeded::Steps | Exceeded::Memory))
            && matches!(limit, Exceeded::Steps | Exceeded::Memory);
        assert!(got == Outcome::Limit(limit) || is_either, "{code} gave {got:?}");
    }
    assert!(matches!(outcome("(\"[\" * 100000) | fromjson", "null"), Outcome::Error { .. }));
    assert!(matches!(outcome("1 | jn(2000000000; 1)", "null"), Outcome::Error { .. }));
    assert_eq!(outcome("reduce range(40) as $i (3; . * .)", "null"), Outcome::Unwritable(Unwritable::NotFinite));
    let many_small = format!("[{}1]", "{},".repeat(600_000));
    assert_eq!(outcome("1", &many_small), Outcome::BodyTooLarge);
    let path = format!("[\"e\"{}]", ",[]".repeat(140_000));
    let got = outcome("path(getpath(.p)) | length", &format!("{{\"e\": [], \"p\": {path}}}"));
    assert_eq!(got, Outcome::Limit(Exceeded::Memory));
    give("1", "2", "1"); // the thread lives on
}

#[test]
fn time_is_a_limit() {
    let short = Limits { time: Duration::from_millis(20), ..limits() };
    let source = Source { code: "def f: f; f", name: "<argument>", folder: None };
    assert_eq!(run(&Filter::compile(source, short, &[]).unwrap(), b"null"), Outcome::Limit(Exceeded::Time));
}

#[test]
fn the_time_limit_is_the_runs_own_cpu_time() {
    let later = Limits { time: Duration::from_secs(20), ..limits() };
    let source = Source { code: "def f: f; f", name: "<argument>", folder: None };
    let filter = Filter::compile(source, later, &[]).unwrap();
    let (outcome, _) = run_until(&filter, b"null", Instant::now() + Duration::from_millis(20));
    assert_eq!(outcome, Outcome::TooLate, "the machine is to blame, not the run");
}

#[test]
fn a_run_that_needs_more_than_a_small_one_starts_again() {
    let is_large = |code: &str, body: &str| {
        let (outcome, is_large) = run_until(&compile(code), body.as_bytes(), Instant::now() + Duration::from_secs(60));
        assert!(matches!(outcome, Outcome::Output { .. }), "{code} gave {outcome:?}");
        is_large
    };
    assert!(!is_large(".", "[1]"));
    let many = format!("[{}1]", "1,".repeat(40_000));
    for (code, body) in [
        ("[range(20000)] | length", "1"),                           // memory
        ("last(range(1e6))", "1"),                                  // steps
        (r#"("x" * (. * 100000)) | length"#, "1"),                  // a string
        (r#"("x" * 20000) | [., .]"#, "1"),                         // output
        ("def f: if . < 60 then . + 1 | 1 + f else . end; f", "1"), // stack
        ("length", &many),                                          // body
    ] {
        assert!(is_large(code, body), "{code}");
    }
    assert!(!is_large("(error(1))?, 1", "1"));
}

#[test]
fn all_errors_of_a_source_are_reported_together() {
    let errors = |code: &str| Filter::compile(Source { code, name: "x.jq", folder: None }, limits(), &[]).unwrap_err();
    assert_eq!(
        errors("nope |\n  $what"),
        "x.jq:1:1: undefined filter nope\nnope |\n^\nx.jq:2:3: undefined variable $what\n  $what\n  ^\n"
    );
    assert_eq!(errors(". as [$a"), "x.jq:1:9: expected closing bracket, found the end\n. as [$a\n        ^\n");
    assert_eq!(errors("1 +\n\t%"), "x.jq:2:2: expected term, found \"%\"\n %\n ^\n");
    assert_eq!(errors("input"), "x.jq:1:1: undefined filter input\ninput\n^\n");
    assert!(errors("import \"x\" as $d; .").contains("cannot load x: data cannot be imported"));
    assert!(errors("include \"x\"; .").contains("cannot load x: there are no modules without --from-file"));
    assert!(errors(&" ".repeat(70_000)).contains("longer than 65536 bytes"));
    assert!(errors(&".a".repeat(300)).contains("a path of more than 256 parts"));
    give(&".a".repeat(200), "null", "null");
    Filter::compile(Source { code: &"(".repeat(60_000), name: "x.jq", folder: None }, limits(), &[]).unwrap_err();
}

#[test]
fn keys_of_patterns_and_what_stands_behind_metadata_count() {
    for code in [
        ". as {($REQUEST.method): $x} | $x",
        ". as {\"\\($REQUEST.method)\": $x} | $x",
        "reduce . as {($REQUEST.method): $x} (0; $x)",
        "module {a: 1}; .[$REQUEST.method]",
        "module def x: 1; {a: x}; .[$REQUEST.method]",
        "{\"\\($REQUEST.method)\"} | .POST",
    ] {
        give(code, r#"{"POST": 5}"#, "5");
    }
    let errors = |code: &str| Filter::compile(Source { code, name: "x.jq", folder: None }, limits(), &[]).unwrap_err();
    assert!(errors(&format!(". as {{({}): $x}} | $x", ".a".repeat(300))).contains("a path of more than 256 parts"));
    assert!(errors(r#". as {(test("(")): $x} | $x"#).contains("invalid regex"));
    assert_eq!(
        outcome(". as {(def f(g): f(g + 1); f(.)): $x} | $x", "null"),
        Outcome::Limit(Exceeded::Stack),
        "the call is rewritten"
    );
}

#[test]
fn keys_that_nest_compile_without_delay() {
    let nested = (0..60).fold("\"a\"".to_owned(), |key, _| format!("{{\"\\({key} | length)\"}}"));
    compile(&nested);
}

#[test]
fn constant_regexes_that_do_not_compile_are_found_at_start() {
    let compiled = |code: &str| Filter::compile(Source { code, name: "x.jq", folder: None }, limits(), &[]);
    let text = compiled("1 |\n  test(\"(a\")").unwrap_err();
    assert!(text.starts_with("x.jq:2:8: invalid regex: ") && text.ends_with("\n  test(\"(a\")\n       ^\n"), "{text}");
    assert!(compiled(r#"1 | test("\\d(")"#).unwrap_err().starts_with("x.jq:1:5: invalid regex: "));
    for bad in [
        r#"match("a"; "q")"#,
        r#"[.[] | capture("(?<n>a")]"#,
        r#"sub("[";"x")"#,
        r#"gsub("a";"x";"q")"#,
        r#"split("(";null)"#,
        r#"{a: scan("*")}"#,
        r#""\(splits("("))""#,
        r#"def f: test("("); 1"#,
    ] {
        assert!(compiled(bad).is_err(), "{bad}");
    }
    for good in [
        r#"test("(a)")"#,
        r#"split("(")"#,
        r#"test("\(.x)(")"#,
        r#"test(.re)"#,
        r#"def test(f): f; test("(")"#,
        r#"test("("; .flags)"#,
        r#"gsub("a"; "(")"#,
    ] {
        assert!(compiled(good).is_ok(), "{good}");
    }
    let Outcome::Error { message, .. } = outcome("test(.)", r#""(""#) else { panic!("no error") };
    assert!(message.starts_with("invalid regex"), "{message}");
}

#[test]
fn source_that_nests_too_deep_is_rejected() {
    for piece in ["(", "[", "def f: ", "\"\\(", "if . then "] {
        let text = Filter::compile(Source { code: &piece.repeat(5000), name: "x.jq", folder: None }, limits(), &[])
            .unwrap_err();
        assert!(text.starts_with("x.jq:1:") && text.contains("nested deeper than 200"), "{piece}: {text}");
    }
}

#[test]
fn modules_come_from_the_filters_folder_only() {
    let folder = std::env::temp_dir().join(format!("modules-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("inner/sub")).unwrap();
    let inner = folder.join("inner");
    std::fs::write(folder.join("outside.jq"), "def x: 1;").unwrap();
    std::fs::write(inner.join("a.jq"), "include \"sub/b\"; def a: b + 1; def loop(g): loop(g | g);").unwrap();
    std::fs::write(inner.join("sub/b.jq"), "import \"c\" as c; def b: c::c;").unwrap();
    std::fs::write(inner.join("sub/c.jq"), "def c: 1;").unwrap();
    std::fs::write(inner.join("bad.jq"), "def c: nope;").unwrap();
    std::os::unix::fs::symlink("../outside.jq", inner.join("link.jq")).unwrap();
    let compile = |code: &str| Filter::compile(Source { code, name: "main.jq", folder: Some(&inner) }, limits(), &[]);
    let filter = compile("include \"a\"; a").unwrap();
    assert!(matches!(run(&filter, b"1"), Outcome::Output { output, .. } if output.json == b"2"));
    let filter = compile("import \"a\" as m; m::loop(.)").unwrap();
    assert_eq!(run(&filter, b"1"), Outcome::Limit(Exceeded::Stack));
    for head in ["import \"sub/c\" as c; ", "include \"sub/c\"; ", "import \"sub/c\" as c; include \"sub/c\"; "] {
        let filter =
            compile(&format!("module {{a: 1}}; {}include \"a\"; .[$REQUEST.method] + a", head.repeat(5))).unwrap();
        assert!(
            matches!(run(&filter, br#"{"POST": 5}"#), Outcome::Output { output, .. } if output.json == b"7"),
            "{head}"
        );
    }
    for (code, says) in [
        ("include \"../outside\"; x", "outside of the filter's folder"),
        ("include \"link\"; x", "outside of the filter's folder"),
        ("include \"/etc/passwd\"; x", "the path of a module is relative"),
        ("include \"missing\"; x", "file not found"),
        ("include \"bad\"; c", "bad.jq:1:8: undefined filter nope"),
    ] {
        let errors = compile(code).unwrap_err();
        assert!(errors.contains(says), "{code} gave {errors}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}
