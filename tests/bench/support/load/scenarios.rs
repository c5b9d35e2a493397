//! The scenarios of hostile load.

use super::bodies::{Rng, all_shapes, keys, ones, ordinary, regexes};
use std::time::Duration;

/// What the connections do.
pub(crate) enum Traffic {
    /// Each sends so many requests, one after the other, and reads the answers.
    Requests { bodies: Vec<String>, each: usize, is_chunked: bool },
    /// Each sends this text, so many bytes a time, and reads nothing for so long.
    NeverRead { text: Vec<u8>, step: usize, time: Duration },
}

/// The allowed results.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Expect {
    /// What is answered with 200 or 201 alone is so in company, or gets 503 with `Retry-After` after it has waited.
    Served,
    /// One of these codes, or the connection is closed.
    Only(&'static [u16]),
}

pub(crate) struct Scenario {
    pub(crate) name: String,
    /// The dispatcher's arguments, except the API server.
    pub(crate) args: Vec<String>,
    /// How long the API server takes for each Job; None: `--dry-run=client`.
    pub(crate) api: Option<Duration>,
    pub(crate) connections: usize,
    pub(crate) traffic: Traffic,
    pub(crate) expect: Expect,
    /// Whether small requests are sent beside it, to see how long they take.
    pub(crate) is_timed: bool,
    /// Whether the image runs it, which has two minutes for all.
    pub(crate) is_for_image: bool,
}

/// A Job's spec is an object.
const AS_SPEC: &str = "{spec: {body: .}}";
const HOSTILE: Expect = Expect::Only(&[200, 413, 422, 503]);
const HOSTILE_SLOW: Expect = Expect::Only(&[200, 201, 413, 422, 500, 503]);
/// A manifest of over 1 MiB is the filter's fault, so 500.
const LARGE: Expect = Expect::Only(&[200, 413, 422, 500, 503]);

/// Keeps every hundredth of many strings of one size, `n` bytes in all, then continues with the next size.
const FRAGMENTING: &str = r#".n as $n | {spec: {a: reduce (8, 24, 48, 100, 200, 400, 700, 1200, 2000) as $size ([];
  ("x" * $size) as $fill | . + [[range($n / ($size + 64) | floor) | "\(.)\($fill)"] | .[range(0; length; 100)]]) | length}}"#;

/// Filters that need much, whatever the body, with the allowed codes.
const FILTERS: [(&str, &str, Expect); 10] = [
    ("output of 14,000 numbers", "{spec: {a: [range(14000)]}}", Expect::Only(&[200, 503])),
    ("output of 0.9 MB", r#"{spec: {a: ("x" * 900000)}}"#, Expect::Only(&[200, 503])),
    ("count of all values", "{spec: {a: [..] | length}}", HOSTILE),
    ("endless recursion", "def f: 1 + f; {spec: {a: f}}", HOSTILE),
    ("endless list", "{spec: {a: [repeat(1)]}}", HOSTILE),
    ("300,000 objects", "{spec: {a: [range(300000) | {a: .}] | length}}", HOSTILE),
    ("fragmenting, 9 times 10 MB", FRAGMENTING, HOSTILE),
    ("fragmenting, 9 times 1 MB", FRAGMENTING, Expect::Only(&[200, 503])),
    ("first of a billion", "(if range(1e9) then . else . end) |= limit(1; .) | {spec: {a: .}}", HOSTILE),
    (
        "regexes from bodies",
        r#"{spec: {a: [(.args? // [])[] | tostring as $regex | try ("abcdefg" | test($regex)) catch false] | length}}"#,
        HOSTILE,
    ),
];

/// Of these, the ones that the image runs.
const IN_IMAGE: [&str; 5] =
    ["output of 0.9 MB", "count of all values", "300,000 objects", "fragmenting, 9 times 10 MB", "regexes from bodies"];

/// All of them. The seed decides about the bodies.
pub(crate) fn scenarios(seed: u64) -> Vec<Scenario> {
    let mut all = valid();
    all.extend(slow());
    all.extend(hostile(&mut Rng::new(seed)));
    all.extend(filters(&mut Rng::new(seed)));
    all.extend(never_read());
    all
}

impl Scenario {
    fn new(name: String, args: &[&str], connections: usize, traffic: Traffic, expect: Expect) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Scenario { name, args, api: None, connections, traffic, expect, is_timed: false, is_for_image: false }
    }

    fn behind_api(self, delay: Duration) -> Self {
        Scenario { api: Some(delay), ..self }
    }

    fn timed(self) -> Self {
        Scenario { is_timed: true, ..self }
    }

    fn for_image(self, is_for_image: bool) -> Self {
        Scenario { is_for_image, ..self }
    }
}

fn requests(bodies: Vec<String>, each: usize) -> Traffic {
    Traffic::Requests { bodies, each, is_chunked: false }
}

/// Valid requests, which must be served.
fn valid() -> Vec<Scenario> {
    let loads = [
        ("200 KB of args, default filter", &[][..], ones(100_000)),
        ("300 KB of numbers, pass-through", &[AS_SPEC][..], ones(150_000)),
        ("520 KB of numbers, pass-through", &[AS_SPEC][..], ones(260_000)),
        ("520 KB of texts, pass-through", &[AS_SPEC][..], ordinary(520_000)),
    ];
    let mut scenarios = Vec::new();
    for (what, args, body) in loads {
        for connections in [1, 8] {
            let name = format!("valid: {what}, {connections}");
            let scenario = Scenario::new(name, args, connections, requests(vec![body.clone()], 6), Expect::Served);
            scenarios.push(scenario.for_image(connections == 8));
        }
    }
    scenarios
}

/// 200 KB of args, and an API server that is slow.
fn slow() -> impl Iterator<Item = Scenario> {
    let load = |connections, delay| {
        let seconds = Duration::as_secs(&delay);
        let name = format!("slow API server, {seconds} s: 200 KB, {connections}");
        Scenario::new(name, &[], connections, requests(vec![ones(100_000)], 1), Expect::Only(&[200, 201, 503]))
            .behind_api(delay)
    };
    let long = Duration::from_secs(10);
    [load(4, long), load(60, long), load(256, long), load(256, Duration::from_secs(1)).for_image(true)].into_iter()
}

fn hostile(rng: &mut Rng) -> Vec<Scenario> {
    let served = Expect::Only(&[200, 503]);
    let args = |connections| {
        let name = format!("200 KB of args, default filter, {connections}");
        Scenario::new(name, &[], connections, requests(vec![ones(100_000)], 1), served)
    };
    let large = |connections| {
        let name = format!("2 MB, pass-through, {connections}");
        Scenario::new(name, &[AS_SPEC], connections, requests(vec![ordinary(2_000_000)], 2), LARGE)
    };
    let mut scenarios = vec![args(4), args(60), args(256).timed(), large(1), large(8), large(60)];
    for (what, args) in [("default filter", &[][..]), ("pass-through", &[AS_SPEC][..])] {
        for connections in [16, 256] {
            let name = format!("all shapes, {what}, {connections}");
            let each = if connections == 16 { 7 } else { 1 };
            let scenario = Scenario::new(name, args, connections, requests(all_shapes(56, rng), each), LARGE);
            scenarios.push(scenario.timed().for_image(connections == 256));
        }
    }
    let all = requests(vec![keys(60_000)], 2);
    scenarios.push(Scenario::new("60,000 keys, default filter, 16".to_owned(), &[], 16, all, HOSTILE));
    let chunked = Traffic::Requests { bodies: all_shapes(28, rng), each: 2, is_chunked: true };
    scenarios.push(Scenario::new("all shapes in chunks, pass-through, 60".to_owned(), &[AS_SPEC], 60, chunked, LARGE));
    let slow = requests(all_shapes(28, rng), 1);
    let slow = Scenario::new("slow API server, 1 s: all shapes, 256".to_owned(), &[], 256, slow, HOSTILE_SLOW);
    scenarios.push(slow.behind_api(Duration::from_secs(1)));
    scenarios
}

fn filters(rng: &mut Rng) -> Vec<Scenario> {
    let mut scenarios = Vec::new();
    for (what, filter, expect) in FILTERS {
        for connections in [60, 256] {
            let bodies = match what {
                "regexes from bodies" => (0..8).map(|_| regexes(300, rng)).collect(),
                "fragmenting, 9 times 10 MB" => vec![r#"{"n":10000000}"#.to_owned()],
                "fragmenting, 9 times 1 MB" => vec![r#"{"n":1000000}"#.to_owned()],
                "count of all values" => all_shapes(28, rng),
                _ => vec!["{}".to_owned()],
            };
            let name = format!("{what}, {connections}");
            let scenario = Scenario::new(name, &[filter], connections, requests(bodies, 1), expect);
            let is_for_image = connections == 60 && IN_IMAGE.contains(&what);
            scenarios.push(scenario.for_image(is_for_image));
        }
    }
    scenarios
}

/// Clients that do not read, or never come to an end.
fn never_read() -> Vec<Scenario> {
    let time = Duration::from_secs(5);
    let expect = Expect::Only(&[200, 408, 413, 503]);
    let scenario = |name: &str, args: &[&str], connections, text: Vec<u8>, step| {
        let name = format!("{name}, {connections}");
        Scenario::new(name, args, connections, Traffic::NeverRead { text, step, time }, expect)
    };
    let large = [r#"{spec: {a: ("x" * 900000)}}"#];
    let small = super::client::post("{}", false);
    let lines: String = (0..10).map(|n| format!("X-{n}: {}\r\n", "h".repeat(1_600))).collect();
    let head = format!("POST /job HTTP/1.1\r\nHost: localhost\r\n{lines}");
    let upload = super::client::post(&ordinary(2_000_000), false);
    let pipeline = crate::support::http::request("GET", "/openapi.json", "", "").repeat(200).into_bytes();
    vec![
        scenario("0.9 MB that nobody reads", &large, 64, small.clone(), usize::MAX).for_image(true),
        scenario("0.9 MB that nobody reads", &large, 1024, small, usize::MAX).for_image(true),
        scenario("unfinished heads of 16 KB", &[], 1024, head.into_bytes(), usize::MAX).for_image(true),
        scenario("slow uploads of 2 MB", &[], 1024, upload.clone(), 8 << 10).for_image(true),
        scenario("quick uploads of 2 MB", &[], 1024, upload, 1 << 20),
        scenario("pipelines that nobody reads", &[], 1024, pipeline, usize::MAX).for_image(true),
    ]
}
