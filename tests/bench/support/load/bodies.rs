//! Bodies that need much memory for their size, made at random from a seed.

use std::fmt::Write;

/// SplitMix64: the same seed makes the same bodies.
#[derive(Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Rng(seed)
    }

    /// The seed in LOAD_SEED, else a new one.
    pub(crate) fn seed() -> u64 {
        let given = std::env::var("LOAD_SEED").ok();
        given.map_or_else(
            || std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos().into(),
            |seed| seed.parse().expect("LOAD_SEED is a number"),
        )
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// As many between `min` and twice it as between half of `max` and `max`.
    pub(crate) fn size(&mut self, min: usize, max: usize) -> usize {
        let part = self.below(10_000) as f64 / 10_000.0;
        (min as f64 * (max as f64 / min as f64).powf(part)) as usize
    }
}

/// Makes a JSON value of about this many bytes, nested at most 127 deep.
pub(crate) type Shape = fn(usize, &mut Rng) -> String;

pub(crate) const SHAPES: [(&str, Shape); 14] = [
    ("numbers", |size, rng| list('[', size, |text, _| write!(text, "{}", rng.below(10)))),
    ("empty objects", |size, _| list('[', size, |text, _| text.write_str("{}"))),
    ("nested arrays", |size, _| list('[', size, |text, _| text.write_str("[[],[[]]]"))),
    ("many keys", |size, rng| list('{', size, |text, n| write!(text, r#""k{n}":{}"#, rng.below(10)))),
    ("long strings", |size, rng| {
        list('[', size, |text, _| write!(text, r#""{}""#, "long ".repeat(1 + rng.below(4_000))))
    }),
    ("control characters", |size, rng| {
        list('[', size, |text, _| write!(text, r#""{}""#, r"\u0001\n\\\u001f\t\u0000".repeat(1 + rng.below(50))))
    }),
    ("deep nesting", |size, _| list('[', size, |text, _| write!(text, "{}{}", "[".repeat(126), "]".repeat(126)))),
    ("floats", |size, rng| {
        list('[', size, |text, _| write!(text, "{}.{}e-{}", rng.below(10), rng.below(100_000), rng.below(300)))
    }),
    ("integers of 20 digits", |size, rng| {
        list('[', size, |text, _| write!(text, "9{:019}", rng.next() % 10_000_000_000_000_000_000))
    }),
    ("Unicode", |size, rng| {
        list('[', size, |text, _| write!(text, r#""{}""#, "ü漢😀\\ud83d\\ude00".repeat(1 + rng.below(20))))
    }),
    ("duplicate keys", |size, rng| list('{', size, |text, _| write!(text, r#""{}":[1]"#, rng.below(3)))),
    ("short strings", |size, rng| list('[', size, |text, _| write!(text, r#"["{:02}"]"#, rng.below(100)))),
    ("one string", |size, _| format!(r#""{}""#, "x".repeat(size))),
    ("objects of short keys", |size, rng| {
        list('[', size, |text, _| write!(text, r#"{{"{}":1,"{}":2}}"#, rng.below(5), 5 + rng.below(5)))
    }),
];

/// An array or an object of about this many bytes.
fn list(open: char, size: usize, mut item: impl FnMut(&mut String, usize) -> std::fmt::Result) -> String {
    let mut text = String::with_capacity(size + 1024);
    text.push(open);
    let mut items = 0;
    while text.len() + 1 < size || items == 0 {
        if items > 0 {
            text.push(',');
        }
        item(&mut text, items).unwrap();
        items += 1;
    }
    text.push(if open == '[' { ']' } else { '}' });
    text
}

/// `{"args": [1, 1, …]}`, without white space.
pub(crate) fn ones(count: usize) -> String {
    format!(r#"{{"args":[1{}]}}"#, ",1".repeat(count - 1))
}

/// An object with this many keys.
pub(crate) fn keys(count: usize) -> String {
    let keys: Vec<String> = (0..count).map(|n| format!(r#""key-{n}":{n}"#)).collect();
    format!("{{{}}}", keys.join(","))
}

/// `{"args": [REGEX…]}`, each one different, small and large.
pub(crate) fn regexes(count: usize, rng: &mut Rng) -> String {
    let regexes: Vec<String> = (0..count)
        .map(|_| {
            let groups = "(x)?".repeat(rng.below(8));
            format!(r#""(a|b{}|[c-x]{{1,{}}}){groups}\\w+""#, rng.next(), rng.size(5, 400))
        })
        .collect();
    format!(r#"{{"args":[{}]}}"#, regexes.join(","))
}

/// A pod template like many others, filled up with variables to about this many bytes.
pub(crate) fn ordinary(size: usize) -> String {
    let variables = list('[', size, |text, n| {
        write!(text, r#"{{"name":"VARIABLE_{n}","value":"the value of variable {n}, which is a text"}}"#)
    });
    format!(r#"{{"template":{{"spec":{{"containers":[{{"name":"a","image":"b","env":{variables}}}]}}}}}}"#)
}

/// Bodies of all shapes, from 10 KB to 2 MB; every second one is `{"args": …}`.
pub(crate) fn all_shapes(count: usize, rng: &mut Rng) -> Vec<String> {
    (0..count)
        .map(|n| {
            let size = rng.size(10_000, 2_000_000);
            let value = SHAPES[n % SHAPES.len()].1(size, rng);
            if (n / SHAPES.len()).is_multiple_of(2) { format!(r#"{{"args":{value}}}"#) } else { value }
        })
        .collect()
}
