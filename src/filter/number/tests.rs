use super::*;

fn written(literal: &str, canonical: bool) -> String {
    let mut out = Vec::new();
    write(&parse(literal).unwrap(), canonical, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn values_survive() {
    let long = "9".repeat(1000);
    let long_decimal = format!("0.{}", "3".repeat(999));
    for (literal, want) in [
        ("1", "1"),
        ("-0", "0"),
        ("1.0", "1"),
        ("1e0", "1"),
        ("300.0", "300"),
        ("0.1", "0.1"),
        ("1e2", "100"),
        ("9223372036854775807", "9223372036854775807"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("9223372036854775808", "9223372036854775808"),
        ("18446744073709551615", "18446744073709551615"),
        ("12345678901234567890", "12345678901234567890"),
        ("12345678901234567891", "12345678901234567891"),
        ("12345678901234567890.0", "12345678901234567890"),
        ("10000000000000000000", "10000000000000000000"),
        ("9007199254740993.0", "9007199254740993"),
        ("9.007199254740993e15", "9007199254740993"),
        ("90071992547409935e0", "90071992547409935"),
        ("1e17", "100000000000000000"),
        ("1e20", "100000000000000000000"),
        ("100000000000000000000", "100000000000000000000"),
        ("0.1000000000000000000000001", "0.1000000000000000000000001"),
        ("-3.141592653589793238462643", "-3.141592653589793238462643"),
        ("1e-400", "1e-400"),
        ("+12345678901234567891", "12345678901234567891"),
        ("+0.1000000000000000000000001", "1000000000000000000000001e-25"),
        (&long, &long),
        (&long_decimal, &long_decimal),
    ] {
        assert_eq!(written(literal, false), want, "{literal}");
    }
}

#[test]
fn equal_numbers_have_one_canonical_form_and_different_ones_differ() {
    let classes: [&[&str]; 15] = [
        &["1", "1.0", "1e0", "10e-1", "0.1e1"],
        &["0", "-0", "0.0", "0e99", "-0e-99999999999"],
        &["1e30", "1000000000000000000000000000000", "1.0e+30", "100e28"],
        &["1000000000000000019884624838656", "1000000000000000019884624838656.0"],
        &["12345678901234567890", "1234567890123456789e1"],
        &["12345678901234567891"],
        &["9007199254740993", "9007199254740993.0", "9.007199254740993e15"],
        &["9007199254740992", "9007199254740992.0"],
        &["1000000000000000000", "1e18"],
        &["90071992547409940", "9.007199254740994e16"],
        &["0.1", "1e-1", "0.10"],
        &["0.1000000000000000000000001", "1000000000000000000000001e-25"],
        &["1e-400", "10e-401"],
        &["1.5", "15e-1"],
        &["-1.5"],
    ];
    let forms: Vec<Vec<String>> =
        classes.iter().map(|class| class.iter().map(|literal| written(literal, true)).collect()).collect();
    for (class, forms) in classes.iter().zip(&forms) {
        assert!(forms.iter().all(|form| *form == forms[0]), "{class:?} gives {forms:?}");
    }
    let mut distinct: Vec<&String> = forms.iter().map(|forms| &forms[0]).collect();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), classes.len());
}

#[test]
fn canonical_forms_of_doubles_and_64_bit_integers_are_stable() {
    // old and new replicas must agree
    for (literal, want) in [
        ("5", "5"),
        ("-7", "-7"),
        ("1.5", "1.5"),
        ("1e300", "1e300"),
        ("1.25e-7", "1.25e-7"),
        ("123456.789", "123456.789"),
        ("9223372036854775807", "9223372036854775807"),
        ("1e16", "10000000000000000"),
        ("1e21", "1e21"),
        ("5e-324", "5e-324"),
    ] {
        assert_eq!(written(literal, true), want, "{literal}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    let long = "1".repeat(1001);
    for (literal, why) in [
        ("1e400", "the number 1e400 exceeds the range of a double"),
        ("-1.5e999", "the number -1.5e999 exceeds the range of a double"),
        (&long, "the number 11111111111111111111... has more than 1000 digits"),
        (&format!("0.{long}"), "the number 0.111111111111111111... has more than 1000 digits"),
        ("1e-99999999999999999999", "the exponent of 1e-99999999999999999... is too large"),
        ("x", "x is not a number"),
    ] {
        assert_eq!(parse(literal).unwrap_err(), why, "{literal}");
    }
}

#[test]
fn the_order_is_total_and_exact() {
    let ordered = [
        "-1e400",
        "-12345678901234567891",
        "-12345678901234567890",
        "-1e18",
        "-2",
        "-0.1000000000000000000000001",
        "-0.1",
        "-1e-400",
        "0",
        "1e-400",
        "0.1",
        "0.1000000000000000000000001",
        "1",
        "9007199254740992.0",
        "9007199254740993",
        "9.007199254740994e15",
        "12345678901234567890",
        "12345678901234567891",
        "1e30",
    ];
    let numbers: Vec<Num> = ordered.iter().filter_map(|literal| parse(literal).ok()).collect();
    assert_eq!(numbers.len(), ordered.len() - 1, "all but -1e400");
    for (at, a) in numbers.iter().enumerate() {
        for (beside, b) in numbers.iter().enumerate() {
            assert_eq!(compare(a, b), at.cmp(&beside), "{a} and {b}");
        }
    }
    let nan = Num::Float(f64::NAN);
    assert!(numbers.iter().all(|number| compare(&nan, number) == Ordering::Less));
}
