//! Numbers that neither 64 bits nor a double hold: what a filter only passes on keeps the value that was sent, as in jq 1.7. Such a number
//! is kept as text, [`Num::Dec`]; calculating with it makes a double.

use super::meter::step;
use jaq_json::Num;
use std::cmp::Ordering;

/// Digits of a number, leading and trailing zeros included: jq's own limit for whole numbers is of this order, and comparing takes time.
pub(super) const MAX_DIGITS: usize = 1000;
/// Decimal digits that every double keeps.
const SAFE_DIGITS: usize = 15;
/// Doubles smaller than this (subnormal ones and some more) keep fewer digits.
const MIN_SAFE: f64 = 1e-300;
/// Doubles up to here are integers without a gap (2^53).
pub(super) const MAX_EXACT: f64 = 9_007_199_254_740_992.0;
/// Integers of 64 bits are below this (2^63).
const MAX_INTEGER: f64 = 9_223_372_036_854_775_808.0;
/// Characters of a number that take no time to read.
const SHORT: usize = 64;
/// Characters of a number that an error quotes.
const SHOWN: usize = 20;

/// The number that a literal is: JSON's, or as C reads it (`+5`, `08`, `.5`).
///
/// Errors: why it is not supported; the text is not checked beyond that.
pub(super) fn parse(literal: &str) -> Result<Num, String> {
    if let Ok(integer) = literal.parse() {
        return Ok(Num::Int(integer));
    }
    step_of_digits(literal);
    let shown = || match literal.get(..SHOWN) {
        Some(start) => format!("{start}..."),
        None => literal.to_owned(),
    };
    let mantissa = literal.split(['e', 'E']).next().unwrap_or_default();
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    if digits > MAX_DIGITS {
        return Err(format!("the number {} has more than {MAX_DIGITS} digits", shown()));
    }
    let float: f64 = literal.parse().map_err(|_| format!("{} is not a number", shown()))?;
    if float.is_infinite() {
        // a whole number may be larger than a double
        if mantissa.len() < literal.len() || mantissa.contains('.') {
            return Err(format!("the number {} exceeds the range of a double", shown()));
        }
    } else if digits <= SAFE_DIGITS && float.abs() >= MIN_SAFE {
        return Ok(Num::Float(float));
    }
    let decimal = Decimal::parse(literal).ok_or_else(|| format!("the exponent of {} is too large", shown()))?;
    let is_integer_literal = mantissa.len() == literal.len() && !mantissa.contains('.');
    if decimal.is_zero() || !is_integer_literal && float.is_finite() && decimal == Decimal::of(float) {
        return Ok(Num::Float(float));
    }
    let text = match decimal.whole_digits() {
        Some(digits) => digits,
        None if literal.starts_with(['-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) && is_json(mantissa) => {
            literal.to_owned()
        }
        None => decimal.to_string(),
    };
    Ok(text.parse().map_or_else(|_| Num::Dec(text.into()), Num::Int))
}

/// Whether this mantissa is one in JSON: no leading zeros, digits on both sides of the point.
fn is_json(mantissa: &str) -> bool {
    let digits = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let is_padded = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    !is_padded && !digits.starts_with('.') && !digits.ends_with('.')
}

/// Charges for reading a long number: one between two doubles takes a long division.
fn step_of_digits(text: &str) {
    if text.len() > SHORT {
        step(text.len())
    }
}

/// As a double.
pub(super) fn float(number: &Num) -> f64 {
    match number {
        Num::Int(integer) => *integer as f64,
        Num::Float(float) => *float,
        Num::Dec(text) => {
            step_of_digits(text);
            text.parse().unwrap_or(f64::NAN)
        }
        Num::BigInt(_) => f64::NAN, // never made: see `calculated`
    }
}

/// For calculating: a double in place of text.
pub(super) fn operand(number: Num) -> Num {
    if let Num::Dec(_) = number { Num::Float(float(&number)) } else { number }
}

/// A whole double, as `floor` and its kin give it.
pub(super) fn whole(float: f64) -> Num {
    if float.abs() < MAX_INTEGER { Num::Int(float as isize) } else { Num::Float(float) }
}

/// The result of a calculation: what exceeds 64 bits becomes a double.
pub(super) fn calculated(number: Num) -> Num {
    match number {
        Num::Int(_) | Num::Float(_) => number,
        big => big + Num::Float(0.0),
    }
}

/// By value, exactly: a total order. NaN is less than all others.
pub(super) fn compare(a: &Num, b: &Num) -> Ordering {
    match (a, b) {
        (Num::Int(a), Num::Int(b)) => return a.cmp(b),
        (Num::Float(_), Num::Float(_)) => return a.cmp(b),
        _ => (),
    }
    let (x, y) = (float(a), float(b));
    let is_exact = |number: &Num, float: f64| !matches!(number, Num::Dec(_)) && float.abs() < MAX_EXACT;
    if is_exact(a, x) && is_exact(b, y) || !x.is_finite() && is_float(a) || !y.is_finite() && is_float(b) {
        return Num::Float(x).cmp(&Num::Float(y));
    }
    Decimal::of_number(a).cmp(&Decimal::of_number(b))
}

fn is_float(number: &Num) -> bool {
    matches!(number, Num::Float(_))
}

/// Appends the number, which is finite, as JSON. Equal numbers give equal texts, except decimals with more digits than a double; with
/// `canonical` also those.
pub(super) fn write(number: &Num, canonical: bool, out: &mut Vec<u8>) {
    let mut print = |text: std::fmt::Arguments<'_>| {
        std::io::Write::write_fmt(out, text).expect("writing to memory does not fail");
    };
    match number {
        Num::Float(0.0) => print(format_args!("0")),
        // without an exponent: the API server refuses `300.0` and `3e2` for an integer. The canonical form of larger ones keeps theirs, so
        // that fingerprints stay as they were
        Num::Float(float) if float.fract() == 0.0 && !(canonical && float.abs() >= MAX_INTEGER) => {
            print(format_args!("{float}"))
        }
        Num::Dec(text) if canonical => {
            let decimal = Decimal::of_number(number);
            let float: f64 = text.parse().unwrap_or(f64::INFINITY);
            if float.is_finite() && decimal == Decimal::of(float) {
                return write(&Num::Float(float), canonical, out);
            }
            match decimal.whole_digits() {
                Some(digits) => print(format_args!("{digits}")),
                None => print(format_args!("{decimal}")),
            }
        }
        number => print(format_args!("{number}")),
    }
}

/// The exact value of a number: digits × 10^exponent.
#[derive(Debug, PartialEq, Eq)]
struct Decimal {
    is_negative: bool,
    /// Without zeros at either end; none for 0.
    digits: String,
    exponent: i64,
}

impl Decimal {
    /// None: the exponent has too many digits.
    fn parse(literal: &str) -> Option<Self> {
        let (mantissa, exponent) = literal.split_once(['e', 'E']).unwrap_or((literal, "0"));
        let is_negative = mantissa.starts_with('-');
        let mantissa = mantissa.trim_start_matches(['-', '+']);
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = [whole, fraction].concat();
        let without_end = all.trim_end_matches('0');
        let digits = without_end.trim_start_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Decimal { is_negative: false, digits, exponent: 0 });
        }
        let dropped = all.len() - without_end.len();
        let exponent: i64 = exponent.parse().ok()?;
        let exponent = exponent.checked_sub(fraction.len() as i64)?.checked_add(dropped as i64)?;
        Some(Decimal { is_negative, digits, exponent })
    }

    /// The shortest decimal that reads as this double, which is finite.
    fn of(float: f64) -> Self {
        Decimal::parse(&format!("{float:e}")).expect("the exponent of a double is small")
    }

    /// Of a finite number that [`parse`] or a calculation has made.
    fn of_number(number: &Num) -> Self {
        match number {
            Num::Float(float) => Decimal::of(*float),
            other => Decimal::parse(&other.to_string()).expect("its exponent was parsed before"),
        }
    }

    fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    /// Its digits, if it is whole and has not too many.
    fn whole_digits(&self) -> Option<String> {
        let zeros = usize::try_from(self.exponent).ok().filter(|zeros| zeros + self.digits.len() <= MAX_DIGITS)?;
        let sign = if self.is_negative { "-" } else { "" };
        Some(format!("{sign}{}{}", self.digits, "0".repeat(zeros)))
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}e{}", if self.is_negative { "-" } else { "" }, self.digits, self.exponent)
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |number: &Decimal| match number {
            Decimal { digits, .. } if digits.is_empty() => 0,
            Decimal { is_negative: true, .. } => -1,
            _ => 1,
        };
        let magnitude = |number: &Decimal| number.exponent.saturating_add(number.digits.len() as i64);
        let by_size = || magnitude(self).cmp(&magnitude(other)).then_with(|| self.digits.cmp(&other.digits));
        sign(self).cmp(&sign(other)).then_with(|| if self.is_negative { by_size().reverse() } else { by_size() })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests;
