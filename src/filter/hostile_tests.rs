//! Hostile filters: each tries to make one call, or many calls that look cheap, use more CPU time than the run may.
//!
//! A run may exceed its time limit by [`ALLOWED_EXCESS`]. The excess is the longest piece of work between two reads of the clock, so it does
//! not depend on the limit: the sweep over all natives uses a short limit. In a debug build a piece of work may take longer.

use super::*;
use cpu_time::ThreadTime;
use serde_json::json;
use std::collections::HashSet;

/// `--max-filter-time` by default.
const TIME: Duration = Duration::from_secs(2);
/// The time limit for cases that run by the hundred.
const SHORT_TIME: Duration = Duration::from_millis(200);
/// CPU time that a run may use beyond its limit.
const ALLOWED_EXCESS: Duration = Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 500 });
/// The same where a run is short. A piece of work takes at most 100 ms in a release build.
const ALLOWED_SHORT_EXCESS: Duration = Duration::from_millis(if cfg!(debug_assertions) { 500 } else { 250 });
/// How long before its caller's deadline a run starts, and by how much it may miss that.
const DEADLINE: Duration = Duration::from_millis(500);
const ALLOWED_DELAY: Duration = Duration::from_millis(250);
/// `--max-filter-memory` by default, and at most.
const DEFAULT_MEMORY: usize = 16 << 20;
const MAX_MEMORY: usize = 1 << 30;

/// How a case is repeated.
#[derive(Clone, Copy)]
enum Repeat {
    /// The filter as it is.
    Once,
    /// The filter runs on the body again and again, so only a limit can end it.
    Forever,
    /// As `Forever`, on strings and objects that the filter must make because no body is that large.
    Making(&'static str),
}
use Repeat::{Forever, Making, Once};

type Case = (&'static str, Repeat, &'static str, fn() -> String);
/// The same, made at run time.
type OwnedCase = (String, Repeat, String, fn() -> String);

fn null() -> String {
    "null".into()
}
fn text(unit: &str, times: usize) -> String {
    json!(unit.repeat(times)).to_string()
}
fn letters() -> String {
    text("a", 1_000_000)
}
fn two_million_letters() -> String {
    text("a", 2_000_000)
}
fn spaces() -> String {
    text(" ", 2_000_000)
}
fn quotes() -> String {
    text("'", 300_000)
}
fn two_byte_letters() -> String {
    text("é", 900_000)
}
fn controls() -> String {
    text("\u{1}", 330_000)
}
fn flags() -> String {
    text("g", 2_000_000)
}
/// A number that lies between two doubles, with as many digits as numbers may have; reading it as a double is slow.
fn decimal(last: char) -> String {
    let digits = "22250738585072016308".repeat(50);
    format!("2.{}{last}e-308", &digits[..998])
}
fn decimals() -> String {
    format!("[{},{}]", decimal('1'), decimal('2'))
}
fn many_decimals() -> String {
    format!("[{}1]", (decimal('1') + ",").repeat(1900))
}
fn text_of_decimals() -> String {
    json!(many_decimals()).to_string()
}
fn object_of(pairs: usize) -> String {
    // the order of the keys is not their sorted order
    let key = |number: usize| format!("\"{:x}\":1", (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24);
    format!("{{{}}}", (0..pairs).map(key).collect::<Vec<_>>().join(","))
}
fn object() -> String {
    object_of(50_000)
}
fn huge_object() -> String {
    object_of(1_500_000)
}
fn huge_list() -> String {
    format!("[{}1]", "[],".repeat(8_000_000))
}
fn numbers() -> String {
    format!("[0.5,1.7e308,5e-324,9998.5,9999,-9999,1e17,{}]", decimal('1'))
}

const REGEXES: &[Case] = &[
    ("splits, the longest branch fails", Once, r#"[splits("a.*z|a")] | length"#, letters),
    ("gsub, the longest branch fails", Once, r#"gsub("a.*z|a"; "b") | length"#, letters),
    ("scan, the longest branch fails", Once, r#"[scan("a.*z|a")] | length"#, letters),
    ("match, the longest branch fails", Once, r#"[match("a.*z|a"; "g")] | length"#, letters),
    ("capture, the longest branch fails", Once, r#"[capture("(?<x>a.*z|a)"; "g")] | length"#, letters),
    ("test skips empty matches", Once, r#"test("a*z|"; "gn")"#, letters),
    ("splits at empty matches", Once, r#"[splits("z*.*z|")] | length"#, letters),
    ("empty matches between two-byte letters", Once, r#"[match("é*z|"; "g")] | length"#, two_byte_letters),
    ("many groups", Once, r#"[match("(a)(a)(a)(a)(a)(a)(a)(a).*z|a"; "g")] | length"#, letters),
    ("named groups", Once, r#"gsub("(?<x>a)(?<y>a.*z)?"; "\(.x)") | length"#, letters),
    ("ignoring case", Once, r#"[scan("[^é]*z|\\w"; "i")] | length"#, letters),
    ("one search that fails", Forever, r#"test("a*a*a*z")"#, two_million_letters),
    ("counted repetition", Forever, r#"test("a{60}z")"#, || text("a", 330_000)),
    ("large counted repetition", Forever, r#"try test("a{900}z") catch 1"#, || text("a", 20_000)),
    ("optional letters", Forever, r#"test("(?:a?){8}z")"#, letters),
    ("large class", Forever, r#"test("[^z]{30}z")"#, || text("a", 600_000)),
    ("test, the longest branch fails", Forever, r#"test("a.*z|a")"#, letters),
    ("sub, the longest branch fails", Forever, r#"sub("a.*z|a"; "b") | length"#, letters),
    ("flags of two million letters", Forever, r#". as $f | "a" | try test("a"; $f) catch 1"#, flags),
    ("regexes that are not in the cache", Once, r#"last(range(1e18) as $i | "a" | test("(?:a{900}|\($i))"))"#, null),
    (
        "large regexes that do not compile",
        Once,
        r#"last(range(1e18) as $i | "a" | try test("(?:[a-z_.é-ü]{900}){900}\($i)") catch 1)"#,
        null,
    ),
    (
        "long regexes that are not in the cache",
        Once,
        r#"("[a-z]" * 800) as $r | last(range(1e18) as $i | "a" | try test($r + "\($i)") catch 1)"#,
        null,
    ),
];

const VALUES: &[Case] = &[
    ("+ of strings", Forever, ".[:1000000] + .[1000000:] | length", two_million_letters),
    ("* of a string", Forever, ". * 2 | length", letters),
    ("/ of a string, never found", Forever, r#". / "b" | length"#, two_million_letters),
    ("/ by a long string", Forever, r#". as $s | "a" / $s"#, two_million_letters),
    ("/ by a string that nearly matches", Forever, r#". / ("a" * 1000 + "b") | length"#, two_million_letters),
    ("/ into letters", Forever, r#".[:50000] / "" | length"#, letters),
    ("== of strings", Forever, ". as $a | .[1:] == $a[:-1]", two_million_letters),
    ("slice of a string", Forever, ".[400000:] | length", two_byte_letters),
    ("interpolation", Forever, r#""\(.)" | length"#, two_million_letters),
    ("+ of arrays", Making("[range(1e5)]"), ". + . | length", null),
    ("- of arrays", Making("[range(2e5)]"), "(. - [], [] - .) | length", null),
    ("slice of an array", Making("[range(2e5)]"), ".[1:] | length", null),
    ("update of an array", Making("[range(2e5)]"), ".[0] = 9 | length", null),
    ("update of a slice", Making("[range(2e5)]"), ".[1:2] |= [3] | length", null),
    ("deletion in an array", Making("[range(2e5)]"), "del(.[0]) | length", null),
    ("== of arrays", Making("[range(2e5)]"), ". == .", null),
    ("== of values that share their parts", Making("reduce range(60) as $i (1; [., .])"), ". == .", null),
    ("+ of objects", Forever, ". + . | length", || object_of(10_000)),
    ("* of objects", Forever, ". * . | length", || object_of(10_000)),
    ("== of objects", Forever, ". == .", object),
    ("update of an object", Forever, ".a = 1 | length", || object_of(10_000)),
    ("object with a long key", Forever, "{(.): 1} | length", two_million_letters),
    ("lookup of a long key", Making("{(\"k\" * 2000000): 1}"), ".[\"k\" * 2000000]", null),
    ("lookups of one long key", Making("(\"k\" * 2000000) as $k | [$k, {($k): 1}]"), ".[0] as $k | .[1][$k]", null),
    (
        "update of a long key",
        Making("(\"k\" * 2000000) as $k | [$k, {($k): 1}]"),
        ".[0] as $k | .[1] | .[$k] = 2",
        null,
    ),
    ("+ of long keys", Making("{(\"k\" * 2000000): 1}"), "(. + .) | length", null),
    ("* of long keys", Making("{(\"k\" * 2000000): 1}"), "(. * .) | length", null),
    (
        "== of long numbers",
        Making(". as $d | [[range(1e5) | $d[0]], [range(1e5) | $d[0] | tojson | fromjson]]"),
        ".[0] == .[1]",
        decimals,
    ),
    (
        "== of equal long numbers",
        Making(". as $d | ($d[0] | tojson | fromjson) as $e | [[range(1e5) | $d[0]], [range(1e5) | $e]]"),
        ".[0] == .[1]",
        decimals,
    ),
    ("+ of long numbers", Forever, ".[0] + .[1]", decimals),
    ("% of floats", Forever, ".[1] % .[2]", numbers),
    ("index by a long number", Forever, ".[.[0]]", decimals),
    ("a body of long numbers", Forever, "length", many_decimals),
    ("join", Making("[range(2e4) | tostring]"), "join(\",\") | length", null),
    ("flatten", Making("[range(1e5)]"), "flatten | length", null),
    ("transpose", Making("[[range(1e4)], [range(1e4)]]"), "transpose | length", null),
    ("walk", Making("[range(1e4)]"), "walk(.) | length", null),
    ("combinations", Making("[[range(300)], [range(300)]]"), "last(combinations)", null),
    ("unique", Making("[range(1e5)]"), "unique | length", null),
    ("unique of long numbers", Making(". as $d | [range(1e4) | $d[]]"), "unique | length", decimals),
    ("@sh of an array", Making("[range(1e4)]"), "@sh | length", null),
];

/// Cases for natives that need more than numbers: native, case. Definitions of jaq's and ours that only call a native are not repeated.
const NATIVES: &[Case] = &[
    ("@md5/0", Forever, "@md5", two_million_letters),
    ("@sha1/0", Forever, "@sha1", two_million_letters),
    ("@sha256/0", Forever, "@sha256", two_million_letters),
    ("_brief/0", Forever, "_brief", two_million_letters),
    ("_parts/2", Forever, r#"last(_parts("a"; "g"))"#, letters),
    ("_test/2", Forever, r#"_test("b"; "")"#, letters),
    ("_tonumber/0", Forever, "try _tonumber catch 1", || text("1", 2_000_000)),
    ("ascii_downcase/0", Forever, "ascii_downcase | length", two_million_letters),
    ("ascii_upcase/0", Forever, "ascii_upcase | length", two_million_letters),
    ("bsearch/1", Making("[range(2e5)]"), "bsearch(3.5)", null),
    ("contains/1", Forever, r#"contains("a" * 1000 + "b")"#, two_million_letters),
    (
        "contains/1",
        Making("(\"k\" * 2000000) as $k | {($k): 1} as $o | [range(1e5) | $o]"),
        "contains([.[0] | map_values(2)])",
        null,
    ),
    ("decode_base64/0", Forever, "decode_base64 | length", || text("/", 600_000)),
    ("decode_uri/0", Forever, "decode_uri | length", || text("%FF", 300_000)),
    ("encode_base64/0", Forever, "encode_base64 | length", letters),
    ("encode_uri/0", Forever, "encode_uri | length", quotes),
    ("endswith/1", Forever, ". as $s | endswith($s)", two_million_letters),
    ("env/0", Forever, "env", null),
    ("error_empty/0", Forever, "try error_empty catch length", two_million_letters),
    ("escape_html/0", Forever, "escape_html | length", quotes),
    ("escape_html/0", Forever, "escape_html", || text("<", 1)),
    ("escape_sh/0", Forever, "escape_sh | length", quotes),
    ("explode/0", Forever, ".[:100000] | explode | length", letters),
    ("first/1", Making("[range(1e5)]"), "first(.[])", null),
    ("fromdateiso8601/0", Forever, "try fromdateiso8601 catch 1", two_million_letters),
    ("fromdateiso8601/0", Forever, "try _fromdateiso8601 catch 1", || text("\u{1}", 300_000)),
    ("fromjson/0", Forever, "try fromjson catch 1", spaces),
    ("fromjson/0", Forever, "fromjson | length", text_of_decimals),
    ("group_by/1", Making("[range(5e4)]"), "group_by(-.) | length", null),
    ("has/1", Making("(\"k\" * 2000000) as $k | [$k, {($k): 1}]"), ".[0] as $k | .[1] | has($k)", null),
    ("implode/0", Making("[range(1e5) | 233]"), "implode | length", null),
    ("indices/1", Forever, r#"indices("b")"#, two_million_letters),
    ("indices/1", Forever, r#"indices("a" * 1000 + "b")"#, two_million_letters),
    ("indices/1", Forever, r#". as $s | "a" | indices($s)"#, two_million_letters),
    ("indices/1", Forever, r#"indices("a" * 1000000) | length"#, two_million_letters),
    ("indices/1", Making(". as $d | [range(1e5) | $d[0]]"), "indices(.[0]) | length", decimals),
    ("isarray/0", Forever, "isarray", letters),
    ("isboolean/0", Forever, "isboolean", letters),
    ("isnumber/0", Forever, "isnumber", letters),
    ("isobject/0", Forever, "isobject", letters),
    ("isstring/0", Forever, "isstring", letters),
    ("key_values/0", Making("[range(2e4)]"), "key_values | length", null),
    ("keys_unsorted/0", Forever, "keys_unsorted | length", object),
    ("last/1", Forever, "last(range(1e18))", null),
    ("length/0", Forever, "length", two_byte_letters),
    ("limit/2", Making("[range(1e5)]"), "last(limit(1e5; .[]))", null),
    ("localtime/0", Forever, "1e9 | localtime", null),
    ("gmtime/0", Forever, "1e9 | gmtime", null),
    ("ltrim/0", Forever, "ltrim", spaces),
    ("ltrimstr/1", Forever, ". as $s | ltrimstr($s)", two_million_letters),
    ("matches/2", Forever, r#"matches("a.*z|a"; "g") | length"#, letters),
    ("max_by_or_empty/1", Making("[range(5e4)]"), "max_by_or_empty(-.)", null),
    ("min_by_or_empty/1", Making("[range(5e4)]"), "min_by_or_empty(-.)", null),
    ("mktime/0", Making("[range(1e5)]"), "try mktime catch 1", null),
    ("not/0", Forever, "not", letters),
    ("path/1", Making("[range(1e5)]"), "last(path(..))", null),
    ("path_value/1", Making("[range(1e5)]"), "last(path_value(..))", null),
    ("range/3", Forever, ".[0] as $d | last(range(0; $d; 0))", decimals),
    ("range/3", Forever, r#". as $s | last(limit(1000; range(""; $s; $s[:1000]))) | length"#, letters),
    ("reverse/0", Making("[range(1e5)]"), "reverse | length", null),
    ("rtrim/0", Forever, "rtrim", spaces),
    ("rtrimstr/1", Forever, ". as $s | rtrimstr($s)", two_million_letters),
    ("skip/2", Making("[range(1e5)]"), "last(skip(99999; .[]))", null),
    ("sort/0", Making("[range(1e5) | -(. * 7919 % 300007)]"), "sort | length", null),
    ("sort/0", Making(". as $d | [range(3e4) | $d[]]"), "sort | length", decimals),
    ("sort_by/1", Making("[range(5e4)]"), "sort_by(-.) | length", null),
    ("split_/2", Forever, r#"split_("a.*z|a"; "g") | length"#, letters),
    ("split_matches/2", Forever, r#"split_matches("a.*z|a"; "g") | length"#, letters),
    ("startswith/1", Forever, ". as $s | startswith($s)", two_million_letters),
    ("strflocaltime/1", Forever, r#"1e9 | strflocaltime("%c" * 120)"#, null),
    ("strftime/1", Forever, r#"1e9 | strftime("%255Y" * 50) | length"#, null),
    ("strptime/1", Forever, r#"try _strptime("%n%n%Y") catch 1"#, spaces),
    ("strptime/1", Forever, r#"try _strptime("%Q") catch 1"#, two_million_letters),
    ("strptime/1", Forever, r#"try _strptime("%Y") catch 1"#, controls),
    ("tojson/0", Forever, "tojson | length", controls),
    ("tojson/0", Making("[range(1e4) | 1.7e308]"), ".[:1000] | tojson | length", null),
    ("tojson/0", Making("reduce range(60) as $i (1; [., .])"), "tojson", null),
    ("tostring/0", Forever, "[.] | tostring | length", letters),
    ("trim/0", Forever, "trim", spaces),
    ("type/0", Forever, "type", letters),
    ("unescape_html/0", Forever, "unescape_html | length", || text("&lt;", 400_000)),
    ("unescape_html/0", Forever, "unescape_html", || text("&", 1)),
    ("utf8bytelength/0", Forever, "utf8bytelength", two_million_letters),
    ("halt/1", Once, "halt(1)", null), // ends the run
    ("debug_empty/0", Forever, "(debug_empty, 1)", two_million_letters),
    ("stderr_empty/0", Forever, "(stderr_empty, 1)", two_million_letters),
    ("cuid2/0", Forever, "cuid2", null),
    ("now/0", Forever, "now", null),
];

/// Cases with a body of up to 25 MiB, and strings of up to a seventh of the memory.
const LARGE: &[Case] = &[
    ("flags", Making(r#""g" * 140000000"#), r#". as $f | "a" | test("a"; $f)"#, null),
    ("indices, never found", Making(r#""a" * 140000000"#), r#"indices("b")"#, null),
    ("indices in a short string", Making(r#""a" * 140000000"#), r#". as $s | "a" | indices($s)"#, null),
    ("/ by a long string", Making(r#""a" * 140000000"#), r#". as $s | "a" / $s"#, null),
    ("/ of a string, never found", Making(r#""a" * 140000000"#), r#". / "b" | length"#, null),
    ("a long key", Making(r#"("a" * 140000000) as $k | [$k, {($k): 1}]"#), ".[0] as $k | .[1][$k]", null),
    ("@html", Making(r#""'" * 140000000"#), "@html | length", null),
    ("@htmld", Making(r#""&lt;" * 35000000"#), "@htmld | length", null),
    ("@sh", Making(r#""'" * 140000000"#), "@sh | length", null),
    ("@uri", Making(r#""'" * 140000000"#), "@uri | length", null),
    ("@urid", Making(r#""%FF" * 45000000"#), "@urid | length", null),
    ("@base64", Making(r#""/" * 140000000"#), "@base64 | length", null),
    ("@base64d", Making(r#""/" * 140000000"#), "@base64d | length", null),
    ("@md5", Making(r#""/" * 140000000"#), "@md5", null),
    ("@sha1", Making(r#""/" * 140000000"#), "@sha1", null),
    ("@sha256", Making(r#""/" * 140000000"#), "@sha256", null),
    ("trim", Making(r#"" " * 140000000"#), "trim", null),
    ("rtrim", Making(r#"" " * 140000000"#), "rtrim", null),
    ("tojson", Making(r#""\u0001" * 140000000"#), "tojson", null),
    ("fromjson", Making(r#"" " * 140000000"#), "try fromjson catch 1", null),
    ("strptime", Making(r#"" " * 140000000"#), r#"try _strptime("%n%Y") catch 1"#, null),
    ("ascii_downcase", Making(r#""A" * 140000000"#), "ascii_downcase | length", null),
    ("slice of a string", Making(r#""a" * 140000000"#), ".[1000000:] | length", null),
    ("slice of an array", Making(r#"reduce range(5) as $i ([range(3e5) | "a"]; . + .)"#), ".[1:] | length", null),
    ("- of arrays", Making(r#"reduce range(5) as $i ([range(3e5) | "a"]; . + .)"#), ". - [] | length", null),
    ("[] - array", Making(r#"reduce range(5) as $i ([range(3e5) | "a"]; . + .)"#), "[] - . | length", null),
    (
        "deletion in an array",
        Making(r#"reduce range(5) as $i ([range(3e5) | "a"]; . + .)"#),
        "del(.[0]) | length",
        null,
    ),
    ("many keys", Forever, ". == .", huge_object),
    ("many values", Forever, "def f: f; f", huge_list),
];

fn filter_of(repeat: Repeat, filter: &str) -> String {
    match repeat {
        Once => filter.into(),
        Forever => format!(". as $in | last(range(1e18) | $in | {filter})"),
        Making(made) => format!("({made}) as $in | last(range(1e18) | $in | {filter})"),
    }
}

/// The outcome of a large run with its CPU time and wall-clock time.
fn measured(code: &str, body: &[u8], memory: usize, time: Duration, wall: Duration) -> (Outcome, Duration, Duration) {
    let limits = Limits { steps: MAX_STEPS, memory, time, stack: MAX_STACK, output: MAX_OUTPUT };
    let filter = Filter::compile(Source { code, name: "<argument>", folder: None }, limits, &[])
        .unwrap_or_else(|errors| panic!("{errors}"));
    let large_run = || {
        let (cpu, begin) = (ThreadTime::now(), Instant::now());
        let input = Input {
            seed: None,
            body,
            path: "/job/x",
            request: &|| json!({"method": "POST"}),
            fingerprint: &|canonical| crate::hash::hex(&crate::hash::sha256(canonical)),
            wall_end: begin + wall,
        };
        let (outcome, _) = filter.run_large(&input, 0);
        (outcome, cpu.elapsed(), begin.elapsed())
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new().stack_size(LARGE_RUN_STACK).spawn_scoped(scope, large_run).unwrap().join().unwrap()
    })
}

/// Runs all cases, and reports all that used too much CPU time or did not end as they should.
fn check(cases: impl Iterator<Item = OwnedCase>, memory: usize, time: Duration, allowed_excess: Duration) {
    let mut failures = Vec::new();
    let mut count = 0;
    for (name, repeat, filter, body) in cases {
        let (outcome, cpu, _) =
            measured(&filter_of(repeat, &filter), body().as_bytes(), memory, time, Duration::from_secs(10));
        count += 1;
        let may_end_so = matches!(
            (&outcome, repeat),
            (Outcome::Limit(_) | Outcome::BodyTooLarge, _) | (Outcome::Output { .. } | Outcome::Nothing, Once)
        );
        if !may_end_so || cpu > time + allowed_excess {
            let mut outcome = format!("{outcome:?}");
            outcome.truncate(outcome.floor_char_boundary(200));
            failures.push(format!("{:8.2} s of CPU, {name} ({filter}): {outcome}", cpu.as_secs_f64()))
        }
    }
    assert!(count > 0, "there are no cases");
    assert!(failures.is_empty(), "with a limit of {time:?}:\n{}", failures.join("\n"));
}

fn owned(cases: &[Case]) -> impl Iterator<Item = OwnedCase> + '_ {
    cases.iter().map(|(name, repeat, filter, body)| ((*name).into(), *repeat, (*filter).into(), *body))
}

/// Cases for all natives: those of the table, and for each that is not in it a loop over numbers that are hard to calculate with.
fn cases_for_natives() -> Vec<OwnedCase> {
    let in_table: HashSet<_> = NATIVES.iter().map(|case| case.0).collect();
    let rest = include_str!("fold/natives.txt").split_whitespace().filter(|native| !in_table.contains(native));
    let numeric = rest.map(|native| {
        let (name, arity) = native.rsplit_once('/').expect("natives are listed with their arity");
        let arguments = match arity {
            "0" => "",
            "1" => "($b)",
            "2" => "($a; $b)",
            "3" => "($a; $b; $a)",
            _ => panic!("{native} needs a hostile filter"),
        };
        let filter = format!(".[] as $a | $in[] as $b | $a | try {name}{arguments} catch 1");
        (native.to_owned(), Forever, filter, numbers as fn() -> String)
    });
    let table = NATIVES.iter().map(|(name, repeat, filter, body)| ((*name).into(), *repeat, (*filter).into(), *body));
    table.chain(numeric).collect()
}

#[test]
fn the_table_names_natives_that_exist() {
    let known: HashSet<_> = include_str!("fold/natives.txt").split_whitespace().collect();
    for (native, ..) in NATIVES {
        assert!(known.contains(native), "there is no native {native}")
    }
}

#[test]
fn hostile_regexes_end_in_time() {
    check(owned(REGEXES), DEFAULT_MEMORY, TIME, ALLOWED_EXCESS)
}

#[test]
fn hostile_calls_of_every_native_end_in_time() {
    check(cases_for_natives().into_iter(), DEFAULT_MEMORY, SHORT_TIME, ALLOWED_SHORT_EXCESS)
}

#[test]
fn hostile_operations_on_values_end_in_time() {
    check(owned(VALUES), DEFAULT_MEMORY, SHORT_TIME, ALLOWED_SHORT_EXCESS)
}

#[test]
fn hostile_filters_with_a_gibibyte_of_memory_end_in_time() {
    check(owned(LARGE), MAX_MEMORY, TIME, ALLOWED_EXCESS)
}

/// One case per kind of work: what the caller can wait is kept, even if the run may use more CPU time.
#[test]
fn a_run_ends_when_its_caller_cannot_wait_longer() {
    type Kind = (&'static str, usize, fn() -> String);
    const KINDS: &[Kind] = &[
        // the clock is read after a number of steps: a few steps in front decide how much work is done until then
        (r#". as $s | last(range(1)) | $s | [splits("a.*z|a")] | length"#, DEFAULT_MEMORY, letters),
        (r#". as $s | last(range(300)) | $s | [splits("a.*z|a")] | length"#, DEFAULT_MEMORY, letters),
        (r#". as $s | last(range(600)) | $s | [splits("a.*z|a")] | length"#, DEFAULT_MEMORY, letters),
        (r#". as $s | last(range(900)) | $s | [splits("a.*z|a")] | length"#, DEFAULT_MEMORY, letters),
        (r#"[splits("z*.*z|")] | length"#, DEFAULT_MEMORY, letters),
        (r#"last(range(1e18) as $i | "a" | test("(?:a{900}|\($i))"))"#, DEFAULT_MEMORY, null),
        (r#". as $f | last(range(1e18) | "a" | try test("a"; $f) catch 1)"#, DEFAULT_MEMORY, flags),
        (r#". as $in | last(range(1e18) | $in | indices("b"))"#, DEFAULT_MEMORY, two_million_letters),
        (r#". as $in | last(range(1e18) | "a" / $in)"#, DEFAULT_MEMORY, two_million_letters),
        (". as $k | {($k): 1} as $o | last(range(1e18) | $o[$k])", DEFAULT_MEMORY, two_million_letters),
        (". as $in | last(range(1e18) | $in == $in)", DEFAULT_MEMORY, object),
        (". as $in | last(range(1e18) | $in[0] < $in[1])", DEFAULT_MEMORY, decimals),
        (". as $s | last(range(1e18) | $s | fromjson)", DEFAULT_MEMORY, text_of_decimals),
        (". as $s | last(range(1e18) | $s | @sha256)", DEFAULT_MEMORY, two_million_letters),
        ("def f: f; f", DEFAULT_MEMORY, null),
        (r#"("'" * 140000000) as $s | last(range(1e18) | $s | @html)"#, MAX_MEMORY, null),
        ("def f: f; f", MAX_MEMORY, huge_object),
        ("def f: f; f", MAX_MEMORY, huge_list),
    ];
    let mut failures = Vec::new();
    for (filter, memory, body) in KINDS {
        let body = body();
        // up to three attempts: on a busy machine the thread may not run when its time is over
        let mut attempts = (0..3).map(|_| measured(filter, body.as_bytes(), *memory, TIME, DEADLINE));
        let is_in_time = |(_, _, wall): &(Outcome, Duration, Duration)| *wall <= DEADLINE + ALLOWED_DELAY;
        let Some((outcome, _, wall)) = attempts.find(is_in_time) else {
            failures.push(format!("later than {:?}: {filter}", DEADLINE + ALLOWED_DELAY));
            continue;
        };
        // one that ends by its steps or its memory ends earlier
        let may_end_so = matches!(outcome, Outcome::TooLate | Outcome::Limit(_) | Outcome::BodyTooLarge);
        if !may_end_so {
            failures.push(format!("{:8.2} s, {filter}: {outcome:?}", wall.as_secs_f64()))
        }
    }
    assert!(failures.is_empty(), "with {DEADLINE:?} left:\n{}", failures.join("\n"));
}
